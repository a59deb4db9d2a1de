"""Contribution weights of elements, environments and frames, and bonds between atoms."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from conftest import make_model, make_structures

from scschnet.analysis import plots
from scschnet.analysis.bonds import UNBONDED, bond_counts, bonded, coordination
from scschnet.analysis.environments import (
    draw_trajectory,
    element_contributions,
    environment_contributions,
    over_runs,
    plot_groups,
    plot_trajectory,
    running_mean,
    trajectory_contributions,
)
from scschnet.data import StructureSet, collate
from scschnet.evaluate.corrections import correction_norms


def as_set(*atoms):
    ptr = np.cumsum([0, *map(len, atoms)])
    return StructureSet(
        np.concatenate([a.positions for a in atoms]),
        np.concatenate([a.numbers for a in atoms]),
        ptr,
        cells=np.stack([a.cell.array for a in atoms]),
        pbc=np.stack([a.pbc for a in atoms]),
    )


@pytest.fixture
def model():
    return make_model(filters="spline").requires_grad_(False)


def test_bonds_of_ethanol():
    ethanol = as_set(molecule("CH3CH2OH"))
    adjacent = bonded(ethanol, 0)
    assert adjacent.sum() == 2 * 8
    np.testing.assert_array_equal(adjacent.sum(axis=1), coordination(ethanol))
    counts = bond_counts(adjacent)
    numbers = ethanol.atomic_numbers
    assert sorted(counts[numbers == 8][0].tolist()) == [0, 1, 1, 2, 2, 2, 3, 3, 3]
    np.testing.assert_array_equal(counts, counts.T)


def test_bonds_across_the_cell_and_between_molecules():
    silicon = as_set(bulk("Si"))
    np.testing.assert_array_equal(coordination(silicon), [4, 4])
    water = molecule("H2O")
    apart = water.copy()
    apart.positions += [8.0, 0, 0]
    two = as_set(water + apart)
    counts = bond_counts(bonded(two, 0))
    assert (counts[:3, 3:] == UNBONDED).all() and (counts[:3, :3] >= 0).all()


def test_norms_are_those_the_model_returns(model):
    structures = make_structures()
    batch = collate(structures, range(5), model.config.cutoff)
    expected = model(**batch.inputs, correction_norms=True)["correction_norms"]
    np.testing.assert_allclose(correction_norms(model, structures), expected, rtol=1e-12)


def test_weights_per_element(model):
    structures = make_structures()
    found = element_contributions(model, structures)
    norms = correction_norms(model, structures).numpy()
    assert found.names == ("H", "C", "O")
    for g, z in enumerate((1, 6, 8)):
        chosen = norms[:, structures.atomic_numbers == z]
        w = model.contribution_weights.numpy()
        np.testing.assert_allclose(found.mean[g], w * chosen.mean(axis=1))
        np.testing.assert_allclose(found.std_atoms[g], np.abs(w) * chosen.std(axis=1))
        assert found.n_atoms[g] == chosen.shape[1]
    # the mean over elements, by their numbers, is Eq. 5 over all atoms
    total = (found.mean * found.n_atoms[:, None]).sum(axis=0) / found.n_atoms.sum()
    np.testing.assert_allclose(total, w * norms.mean(axis=1))


def test_weights_per_environment(model):
    ethanol = molecule("CH3CH2OH")
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(20):
        frame = ethanol.copy()
        frame.positions += rng.normal(scale=0.02, size=(9, 3))
        frames.append(frame)
    found = environment_contributions(model, as_set(*frames))
    assert found.names == ("H, 1 neighbor", "C, 4 neighbors", "O, 2 neighbors")
    np.testing.assert_array_equal(found.n_atoms, [120, 40, 20])


def test_weights_along_a_trajectory(model):
    structures = make_structures()
    frames = trajectory_contributions(model, structures)
    norms = correction_norms(model, structures).numpy()
    for m in range(5):
        atoms = slice(structures.atom_ptr[m], structures.atom_ptr[m + 1])
        mean = norms[:, atoms].mean(axis=1)
        np.testing.assert_allclose(frames[m], model.contribution_weights.numpy() * mean)


def test_spread_over_runs():
    found = [
        element_contributions(make_model(seed=k).requires_grad_(False), make_structures())
        for k in range(3)
    ]
    both = over_runs(found)
    means = np.stack([one.mean for one in found])
    np.testing.assert_allclose(both.mean, means.mean(axis=0))
    np.testing.assert_allclose(both.std_runs, means.std(axis=0, ddof=1))
    assert np.isnan(over_runs(found[:1]).std_runs).all()


def test_figures_and_tables(model, tmp_path):
    groups = element_contributions(model, make_structures())
    assert plot_groups(groups, tmp_path / "elements.png").stat().st_size > 5000
    lines = (tmp_path / "elements.csv").read_text().splitlines()
    assert len(lines) == 1 + 9
    assert lines[4].split(",")[:3] == ["C", "0", repr(float(groups.mean[1, 0]))]
    frames = trajectory_contributions(model, make_structures())
    assert plot_trajectory(frames, tmp_path / "frames.svg").is_file()
    assert len((tmp_path / "frames.csv").read_text().splitlines()) == 1 + frames.size


def test_long_trajectories_are_drawn_as_running_means(tmp_path):
    frames = np.ones((200, 3))
    frames[::2, 1] = 3.0  # a noise that hides everything else
    figure = plots.new_figure()
    axes = figure.add_subplot()
    draw_trajectory(axes, frames)
    pale, line = axes.lines[:2]
    assert np.ptp(pale.get_ydata()) == pytest.approx(100.0) and np.ptp(line.get_ydata()) == 0.0
    assert axes.get_xlabel() == "frame (lines: means over 4)"
    middles, means = running_mean(np.array([0.0, 3.0, 6.0, 0.0]), 3)
    assert middles.tolist() == [1.0, 2.0] and means.tolist() == [3.0, 3.0]


def test_what_does_not_fit_is_named(model):
    one = element_contributions(model, make_structures())
    other = element_contributions(
        make_model(n_interactions=1).requires_grad_(False), make_structures()
    )
    with pytest.raises(ValueError, match=r"same number of layers, got \[2, 3\]"):
        over_runs([one, other])
    with pytest.raises(ValueError, match="at least one run"):
        over_runs([])
    with pytest.raises(ValueError, match="frames with atoms"):
        trajectory_contributions(model, make_structures().select([]))
    with pytest.raises(ValueError, match=r"at least one atom of a common environment"):
        element_contributions(model, make_structures().select([]))
