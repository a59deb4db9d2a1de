"""The unfamiliarity score: its equation, its calibration, its place in the checkpoint, and in ASE."""

import json
import warnings

import numpy as np
import pytest
import torch
from ase.build import molecule
from conftest import make_model

from scschnet import ScSchNetCalculator
from scschnet.analysis.unfamiliar import distorted, plot_unfamiliarity
from scschnet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from scschnet.data import StructureSet
from scschnet.evaluate.corrections import correction_norms
from scschnet.evaluate.norm_statistics import norm_statistics, store_statistics, unfamiliarity_of
from scschnet.nn.unfamiliarity import NormStatistics, unfamiliarity


@pytest.fixture
def model():
    return make_model(filters="spline").requires_grad_(False)


def frames(n, seed=0):
    """Ethanol with noise."""
    atoms = molecule("CH3CH2OH")
    still = StructureSet(
        np.tile(atoms.positions, (n, 1)), np.tile(atoms.numbers, n), 9 * np.arange(n + 1)
    )
    return distorted(still, 0.05, seed)


def test_scores_follow_the_equation(model):
    train, held_out = frames(200), frames(100, 1)
    found = norm_statistics(model, train, held_out)
    norms = correction_norms(model, train).numpy()[1:, train.atomic_numbers == 6].T
    others = correction_norms(model, held_out).numpy()[1:, held_out.atomic_numbers == 6].T
    away = others - norms.mean(axis=0)
    squared = np.einsum("ia,ab,ib->i", away, np.linalg.inv(np.cov(norms.T)), away)
    expected = np.sqrt(squared) / np.quantile(np.sqrt(squared), 0.99)
    scores = unfamiliarity_of(model, held_out, found)[held_out.atomic_numbers == 6]
    np.testing.assert_allclose(scores, expected, rtol=0.03)  # 3 atoms more in 400
    assert found.n_train == (1200, 400, 200) and found.n_held_out == (600, 200, 100)


def test_one_held_out_atom_in_a_hundred_is_above_one(model):
    held_out = frames(100, 1)
    found = norm_statistics(model, frames(200), held_out)
    for k, z in enumerate(found.elements):
        scores = unfamiliarity_of(model, held_out, found)[held_out.atomic_numbers == z]
        assert np.quantile(scores, 0.99) == pytest.approx(1.0)
        np.testing.assert_allclose(np.quantile(scores, found.levels), found.quantiles[k])


def test_scores_rise_with_distortion(model):
    found = norm_statistics(model, frames(200), frames(100, 1))
    medians = [
        np.median(unfamiliarity_of(model, distorted(frames(50, 2), by), found))
        for by in (0.0, 0.1, 0.3)
    ]
    assert medians[0] < 0.7 and medians[2] > 1.0
    assert 1.2 * medians[0] < medians[1] < medians[2]


def test_the_score_is_scriptable_and_float32_norms_will_do(model):
    found = norm_statistics(model, frames(50), frames(20, 1))
    some = frames(5, 3)
    norms = correction_norms(model, some)
    numbers = torch.from_numpy(some.atomic_numbers)
    expected = unfamiliarity(norms, numbers, *found.tables())
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # TorchScript is what exported files are
        scripted = torch.jit.script(unfamiliarity)
    torch.testing.assert_close(scripted(norms, numbers, *found.tables()), expected)
    single = unfamiliarity(norms.float(), numbers, *found.tables())
    torch.testing.assert_close(single, expected, rtol=1e-3, atol=1e-4)


def test_statistics_survive_json(model):
    found = norm_statistics(model, frames(50), frames(20, 1))
    again = NormStatistics.from_json(json.loads(json.dumps(found.to_json())))
    torch.testing.assert_close(again.whitening, found.whitening, rtol=0, atol=0)
    assert again.elements == found.elements and again.levels == found.levels
    with pytest.raises(ValueError, match="must be statistics of norms"):
        NormStatistics.from_json({"mean": []})
    with pytest.raises(ValueError, match=r"whitening of shape \(3, 2, 2\)"):
        NormStatistics.from_json(found.to_json() | {"whitening": [[1.0]]})


def test_ase_shows_the_score_of_a_checkpoint_with_statistics(model, tmp_path):
    file = tmp_path / "best.pt"
    save_checkpoint(file, Checkpoint(model, {"epoch": 3}))
    atoms = molecule("CH3CH2OH")
    atoms.calc = ScSchNetCalculator(file)
    energy = atoms.get_potential_energy()
    assert atoms.calc.unfamiliarity is None
    found = norm_statistics(model, frames(50), frames(20, 1))
    assert store_statistics(file, found) == file
    checkpoint = load_checkpoint(file)
    assert checkpoint.metadata["epoch"] == 3
    for name, value in model.state_dict().items():
        assert torch.equal(value, checkpoint.model.state_dict()[name])
    atoms.calc = ScSchNetCalculator(file)
    assert atoms.get_potential_energy() == energy
    single = StructureSet(atoms.positions, atoms.numbers, np.array([0, 9]))
    expected = unfamiliarity_of(model, single, found)
    np.testing.assert_allclose(atoms.calc.unfamiliarity, expected, rtol=1e-9)
    atoms.get_forces()
    np.testing.assert_allclose(atoms.calc.unfamiliarity, expected, rtol=1e-9)


def test_a_rare_element_and_one_that_is_not_held_out(model):
    train = frames(3)
    found = norm_statistics(model, train, train.select([]))
    assert found.n_held_out == (0, 0, 0) and torch.isfinite(found.whitening).all()
    lone = StructureSet(np.zeros((1, 3)), np.array([8]), np.array([0, 1]))
    both = norm_statistics(model, lone, lone)
    assert torch.isfinite(both.whitening).all() and both.n_train == (1,)


def test_figure_and_table(tmp_path):
    rng = np.random.default_rng(0)
    scores = {"held out": rng.random(100), "distorted": 3 * rng.random(100)}
    assert plot_unfamiliarity(scores, tmp_path / "u.png").stat().st_size > 5000
    lines = (tmp_path / "u.csv").read_text().splitlines()
    assert lines[0] == "atoms,n,q50,q90,q99,q99.9,share above 1"
    assert float(lines[2].split(",")[-1]) == (scores["distorted"] > 1).mean()


def test_infinite_scores_are_drawn_and_counted(tmp_path):
    """Those of an element that the training set does not hold."""
    plot_unfamiliarity(
        {"all": np.array([*np.linspace(0, 1, 97), *[np.inf] * 3])}, tmp_path / "u.png"
    )
    row = (tmp_path / "u.csv").read_text().splitlines()[1].split(",")
    assert row[4:6] == ["inf", "inf"] and float(row[6]) == 0.03
    assert np.isfinite([float(value) for value in row[2:4]]).all()


def test_what_has_no_score_is_named(model):
    with pytest.raises(ValueError, match="at least one block"):
        norm_statistics(make_model(n_interactions=0), frames(2), frames(2))
    with pytest.raises(ValueError, match="`train` must hold atoms"):
        norm_statistics(model, frames(2).select([]), frames(2))
