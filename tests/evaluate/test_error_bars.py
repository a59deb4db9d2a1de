"""The calibration of a committee: error bars that are as large as the errors, in the root mean square."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import make_model

from scschnet.data import collate, embedded
from scschnet.evaluate.error_bars import fit_factors
from scschnet.nn.committee import Committee, Factors


def test_calibrated_error_bars_are_as_large_as_errors():
    frames = embedded.load().select(range(12))
    members = [make_model(seed=k, filters="spline").requires_grad_(False) for k in range(3)]
    factors = fit_factors(members, frames)
    batch = collate(frames, range(12), 4.0)
    with torch.no_grad():
        found = Committee(members, factors)(**batch.inputs)
    errors = np.square(found["forces"].numpy() - frames.forces).sum(axis=1)
    assert np.mean(np.square(found["forces_std"].numpy())) == pytest.approx(errors.mean())
    errors = np.square(found["energy"].numpy() - frames.energy)
    assert np.mean(np.square(found["energy_std"].numpy())) == pytest.approx(errors.mean())


def test_a_quantity_without_labels_is_not_calibrated():
    frames = embedded.load().select(range(4))
    members = [make_model(seed=k, filters="spline").requires_grad_(False) for k in range(2)]
    without = dataclasses.replace(frames, forces=None)
    factors = fit_factors(members, without)
    assert factors.forces == 1.0
    assert factors.energy == fit_factors(members, frames).energy
    unknown = dataclasses.replace(frames, forces=np.full_like(frames.forces, np.nan))
    assert fit_factors(members, unknown).forces == 1.0
    assert fit_factors([members[0], members[0]], frames) == Factors()
