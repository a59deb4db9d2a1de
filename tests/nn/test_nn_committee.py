"""A committee in Python: the mean of its members, and the root mean square of what they differ by."""

import numpy as np
import pytest
import torch
from conftest import make_model, make_structures

from scschnet.data import collate
from scschnet.nn.committee import Committee, Factors


def members(n: int = 3, **config):
    return [make_model(seed=k, filters="spline", **config).requires_grad_(False) for k in range(n)]


@pytest.fixture(scope="module")
def batch():
    return collate(make_structures(), [0, 3], 4.0)


def test_mean_and_error_bars(batch):
    models = members()
    found = Committee(models, Factors(energy=2.0, forces=3.0))(**batch.inputs, stress=True)
    alone = [model(**batch.inputs, stress=True) for model in models]
    for name in ("energy", "energies", "forces"):
        mean = np.mean([one[name].numpy() for one in alone], axis=0)
        np.testing.assert_allclose(found[name], mean, rtol=1e-14, atol=1e-14)
    stress = np.mean([one["stress"].numpy() for one in alone], axis=0)
    np.testing.assert_allclose(found["stress"], stress, rtol=1e-14, atol=1e-14)
    for i in range(len(batch.inputs["positions"])):
        forces = np.array([one["forces"][i].numpy() for one in alone])
        squares = [np.sum((force - forces.mean(axis=0)) ** 2) for force in forces]
        assert found["forces_std"][i].item() == pytest.approx(3.0 * np.mean(squares) ** 0.5)
        energies = np.array([one["energies"][i].item() for one in alone])
        assert found["energies_std"][i].item() == pytest.approx(2.0 * energies.std())
    for m in range(2):
        energies = np.array([one["energy"][m].item() for one in alone])
        assert found["energy_std"][m].item() == pytest.approx(2.0 * energies.std())


def test_an_energy_alone_has_an_error_bar_without_forces(batch):
    found = Committee(members())(**batch.inputs, forces=False)
    assert found.keys() == {"energy", "energies", "energy_std", "energies_std"}


def test_norms_are_those_of_every_member(batch):
    models = members()
    norms = Committee(models)(**batch.inputs, correction_norms=True)["correction_norms"]
    assert norms.shape == (3, 3, len(batch.inputs["positions"]))
    for of_member, model in zip(norms, models, strict=True):
        alone = model(**batch.inputs, correction_norms=True)["correction_norms"]
        assert torch.equal(of_member, alone)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (members(1), "`members` must be at least two models, got 1"),
        ([*members(1), *members(1, n_rbf=8)], "`members` must have the same options"),
    ],
)
def test_what_is_no_committee(models, message):
    with pytest.raises(ValueError, match=message):
        Committee(models)
