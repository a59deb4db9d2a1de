"""Sensitivities of atoms' energies to others, against finite differences; radii and means by hand."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from conftest import make_model, make_structures

from scschnet.analysis.layers import layer_energies
from scschnet.analysis.reach import by_bonds, by_distance, plot_reach, radii, radius_within, reach
from scschnet.data import StructureSet


@pytest.fixture(params=["dense", "spline"])
def model(request):
    return make_model(filters=request.param).requires_grad_(False)


def ethanol(n=1):
    atoms = molecule("CH3CH2OH")
    rng = np.random.default_rng(0)
    positions = np.concatenate([atoms.positions + rng.normal(0, 0.02, (9, 3)) for _ in range(n)])
    return StructureSet(positions, np.tile(atoms.numbers, n), 9 * np.arange(n + 1))


def test_sensitivities_are_slopes_of_energies_of_atoms(model):
    structures = ethanol(2)
    found = reach(model, structures)
    n_pairs = 9 * 8
    step, slopes = 1e-5, np.zeros((3, 9, 9, 3))  # layer, i, j, axis
    for j in range(9):
        for axis in range(3):
            ends = []
            for sign in (-1, 1):
                positions = structures.positions.copy()
                positions[9 + j, axis] += sign * step  # of the second structure
                ends.append(layer_energies(model, replace(structures, positions=positions)).layers)
            slopes[:, :, j, axis] = (ends[1] - ends[0])[:, 9:] / (2 * step)
    others = ~np.eye(9, dtype=bool)
    expected = np.linalg.norm(slopes, axis=3)[:, others]
    np.testing.assert_allclose(found.layers[:, n_pairs:], expected, rtol=1e-5, atol=1e-7)
    total = np.linalg.norm(slopes.sum(axis=0), axis=2)[others]
    np.testing.assert_allclose(found.total[n_pairs:], total, rtol=1e-5, atol=1e-7)
    assert found.nominal == 2 * 4.0
    second = structures.positions[9:]
    apart = np.linalg.norm(second[:, None] - second[None], axis=2)[others]
    np.testing.assert_allclose(found.distance[n_pairs:], apart)
    assert found.bonds.min() == 1 and found.bonds.max() == 4


def test_structures_of_different_sizes_do_not_mix(model):
    structures = make_structures()
    together = reach(model, structures)
    alone = [reach(model, structures.select([m])) for m in range(4)]
    np.testing.assert_allclose(together.total, np.concatenate([one.total for one in alone]))


def test_radius_that_holds_a_share():
    distance, size = np.array([3.0, 1.0, 2.0]), np.array([2.0, 5.0, 3.0])
    assert radius_within(distance, size, 0.5) == 1.0
    assert radius_within(distance, size, 0.8) == 2.0
    assert radius_within(distance, size, 0.99) == 3.0
    assert np.isnan(radius_within(distance, np.zeros(3), 0.5))


def test_means_by_distance_and_bonds(model):
    found = reach(model, ethanol())
    x, means = by_distance(found)
    chosen = (found.distance >= 1.0) & (found.distance < 1.5)
    assert means[0, x == 1.25] == pytest.approx(found.total[chosen].mean())
    counts, means = by_bonds(found)
    np.testing.assert_array_equal(counts, [1, 2, 3, 4])
    assert means[2, 1] == pytest.approx(found.layers[1, found.bonds == 2].mean())
    assert radii(found).shape == (4, 3)


def test_figure_and_table(model, tmp_path):
    assert plot_reach(reach(model, ethanol()), tmp_path / "reach.png").stat().st_size > 5000
    text = (tmp_path / "reach.csv").read_text()
    assert text.startswith("against,at,E_i (eV/Å),v0 (eV/Å)") and "that holds 90 %" in text


def test_a_model_without_blocks_reaches_nowhere(tmp_path):
    found = reach(make_model(n_interactions=0).requires_grad_(False), ethanol())
    assert not found.total.any() and np.isnan(radii(found)).all()
    plot_reach(found, tmp_path / "reach.png")


def test_lone_atoms_are_refused(model):
    with pytest.raises(ValueError, match="two atoms or more"):
        reach(model, make_structures().select([4]))
