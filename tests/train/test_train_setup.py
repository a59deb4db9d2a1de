"""What a training starts from: the size of the first output."""

import numpy as np
import pytest
import torch
from conftest import make_model, make_structures

from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.data import StructureSet, collate, embedded
from scschnet.runs.config import TrainConfig, read_run_config
from scschnet.train.setup import build_model, fit_offsets, repulsion_of


def first_energy(**options) -> torch.Tensor:
    """Energy of a frame above the offsets, by fresh weights."""
    frames = embedded.load().select(np.arange(4))
    config = TrainConfig(n_features=8, n_interactions=3, cutoff=4.0, seed=5, **options)
    model = build_model(config, frames, np.arange(4))
    batch = collate(frames, np.arange(1), config.cutoff)
    with torch.no_grad():
        return model(**batch.inputs, forces=False)["energy"] - 9 * model.offsets.shift


@pytest.mark.parametrize("options", [{}, {"w_init": "one"}, {"skip": "plain"}])
def test_matched_readout_starts_with_the_output_of_schnet(options):
    schnet = first_energy(skip="plain")
    matched = first_energy(readout_start="matched", **options)
    torch.testing.assert_close(matched, schnet, rtol=1e-4, atol=0)
    assert abs(first_energy() / schnet - 1) > 0.1  # without it, uniform weights do not


def test_matched_readout_allows_for_the_sum_of_random_weights():
    frames = embedded.load().select(np.arange(4))
    config = TrainConfig(n_features=8, n_interactions=3, w_init="random", seed=5)
    before = build_model(config, frames, np.arange(4))
    matched = TrainConfig(**{**vars(config), "readout_start": "matched"})
    after = build_model(matched, frames, np.arange(4))
    torch.testing.assert_close(after.contribution_weights, before.contribution_weights)
    gain = 4 / before.contribution_weights.sum()
    torch.testing.assert_close(
        after.readout.hidden.weight, gain.detach() * before.readout.hidden.weight
    )


def test_elements_that_a_table_of_reference_energies_lacks_are_fitted():
    # OH, OH2, O2: the table of one of two files knows oxygen alone.
    numbers, sizes = [8, 1, 8, 1, 1, 8, 8], [2, 3, 2]
    table = np.zeros(9)
    table[8] = -100.0
    structures = StructureSet(
        positions=np.arange(21.0).reshape(7, 3),
        atomic_numbers=np.array(numbers),
        atom_ptr=np.concatenate([[0], np.cumsum(sizes)]),
        energy=np.array([-113.0, -126.0, -200.0]),
        atomref=table,
    )
    shift, spread, atomref = fit_offsets(structures)
    assert atomref[8] == -100.0 and atomref[1] == pytest.approx(-13.0)
    assert shift == pytest.approx(0.0, abs=1e-12) and spread == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("periodic", "options", "expected"),
    [
        (True, {}, "data"),
        (False, {}, "none"),
        (True, {"repulsion": "none"}, "none"),
        (False, {"repulsion": "zbl"}, "zbl"),
        (True, {"properties": ("gap:mean",)}, "none"),
    ],
)
def test_periodic_structures_get_a_repulsion_unless_another_is_asked_for(
    periodic, options, expected
):
    frames = make_structures()
    some = frames.select(np.flatnonzero(frames.pbc.any(axis=1) == periodic))
    assert repulsion_of(TrainConfig(**options), some) == expected


def test_a_run_of_before_there_was_a_repulsion_goes_on_without(tmp_path):
    (tmp_path / "config.toml").write_text("epochs = 3\n")
    assert read_run_config(tmp_path).repulsion == "none"


@pytest.mark.parametrize("before", ["none", "data"])
def test_a_model_that_is_trained_further_keeps_its_repulsion(tmp_path, before):
    save_checkpoint(tmp_path / "best.pt", Checkpoint(make_model(repulsion=before)))
    config = TrainConfig(init_from=str(tmp_path / "best.pt"))
    assert repulsion_of(config, make_structures()) == before
