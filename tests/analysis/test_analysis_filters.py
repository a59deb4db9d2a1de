"""Filters, pair energies and squeezed pairs against the model's own pieces."""

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from ase.build import molecule
from conftest import make_model, make_structures

from scschnet.analysis.filters import (
    PairRange,
    filter_curves,
    pair_energies,
    plot_filters,
    shortest_pairs,
    squeeze,
    summarize_filters,
)
from scschnet.data import StructureSet
from scschnet.evaluate import predict


@pytest.fixture
def model():
    return make_model(filters="spline").requires_grad_(False)


def waters():
    water, far = molecule("H2O"), molecule("H2O")
    far.positions += [0, 0, 1.9]
    both = water + far
    return StructureSet(both.positions, both.numbers, np.array([0, 6]))


def test_curves_are_the_filters_of_the_oracle(model):
    d = np.array([0.3, 1.7, 3.9, 4.0])
    found = filter_curves(model, d)
    parameters = {name: value.numpy() for name, value in model.state_dict().items()}
    for block in range(2):
        name = f"interactions.{block}.filter_generator"
        for k, distance in enumerate(d):
            basis = reference.gaussian_basis(distance, 7, 4.0)
            hidden = reference._dense(parameters, f"{name}.hidden", basis)
            row = reference._dense(parameters, f"{name}.output", reference.shifted_softplus(hidden))
            expected = row * reference.cosine_cutoff(distance, 4.0)
            np.testing.assert_allclose(found[block, k], expected, atol=1e-12)


def test_summary_of_channels(model):
    found = summarize_filters(model, n_points=50)
    curves = filter_curves(model, found.distance)
    np.testing.assert_allclose(found.quantiles[1, 2], np.median(curves[1], axis=1))
    assert (np.diff(found.quantiles, axis=1) >= 0).all()
    assert (np.diff(found.explained, axis=1) <= 0).all()
    assert (found.explained.sum(axis=1) <= 1 + 1e-12).all()
    variance = curves[0].var(axis=1).sum()
    first = np.square(found.components[0, 0]).sum()
    assert first == pytest.approx(found.explained[0, 0] * variance)


def test_pair_energies_vanish_beyond_the_cutoff(model):
    d = np.array([1.0, 3.0, 4.0, 9.0])
    found = pair_energies(model, d).energy
    assert set(found) == {(1, 1), (1, 6), (1, 8), (6, 6), (6, 8), (8, 8)}
    for (a, b), energy in found.items():
        np.testing.assert_allclose(energy[2:], 0.0, atol=1e-9)
        two = StructureSet(np.array([[0, 0, 0], [0, 0, 3.0]]), np.array([a, b]), np.array([0, 2]))
        lone = [StructureSet(np.zeros((1, 3)), np.array([z]), np.array([0, 1])) for z in (a, b)]
        parts = [predict(model, s, forces=False).energy[0] for s in (two, *lone)]
        assert energy[1] == pytest.approx(parts[0] - parts[1] - parts[2], abs=1e-9)
    with pytest.raises(ValueError, match="`distance` must be positive, got 0"):
        pair_energies(model, np.array([0.0, 1.0]))


def test_shortest_pairs_are_found_across_cells():
    structures = make_structures()
    found = shortest_pairs(structures)
    for (a, b), (distance, m, i, j) in found.items():
        assert {structures.atomic_numbers[i], structures.atomic_numbers[j]} == {a, b}
        assert structures.idx_m[i] == structures.idx_m[j] == m
        for n in range(len(structures)):
            atoms = slice(structures.atom_ptr[n], structures.atom_ptr[n + 1])
            positions, cell = structures.positions[atoms], structures.cells[n]
            for p, q, s in reference.neighbor_pairs(positions, cell, structures.pbc[n], 3.0):
                elements = sorted(structures.atomic_numbers[atoms][[p, q]])
                if p != q and elements == [a, b]:
                    d = np.linalg.norm(positions[q] - positions[p] + np.dot(s, cell))
                    assert d >= distance - 1e-12


def test_squeezing_moves_two_atoms_together(model):
    structures = waters()
    for one in squeeze(model, structures, n_points=6):
        np.testing.assert_allclose(one.distance, one.shortest * np.linspace(1, 0.5, 6))
        assert one.energy[0] == 0.0
    shortest, _, i, j = shortest_pairs(structures)[1, 8]
    positions = structures.positions.copy()
    way = positions[j] - positions[i]
    positions[i] += 0.25 * way
    positions[j] -= 0.25 * way
    moved = predict(model, replace(structures, positions=positions), forces=False).energy[0]
    still = predict(model, structures, forces=False).energy[0]
    found = next(one for one in squeeze(model, structures) if one.elements == (1, 8))
    assert found.energy[-1] == pytest.approx(moved - still, abs=1e-9)
    assert found.shortest == shortest


def test_squeezing_across_a_cell_starts_at_the_nearest_image(model):
    for one in squeeze(model, make_structures(), n_points=3):
        assert np.isfinite(one.energy).all()


@pytest.mark.parametrize(
    ("energy", "to", "repels"),
    [([0, 1, 2], 0.5, True), ([0, 1, 0.5], 0.75, False), ([0, -1, 2], 1.0, False)],
)
def test_repulsion_is_a_rise_all_the_way(energy, to, repels):
    one = PairRange((1, 1), 1.0, np.array([1.0, 0.75, 0.5]), np.array(energy, dtype=float))
    assert one.repels_to == to and one.repels is repels


def test_figure_and_tables(model, tmp_path):
    ranges = squeeze(model, waters())
    pairs = pair_energies(model)
    path = plot_filters(summarize_filters(model), ranges, pairs, tmp_path / "filters.png")
    assert path.stat().st_size > 5000
    assert len((tmp_path / "filters.csv").read_text().splitlines()) == 1 + 2 * 200
    assert "H-O" in (tmp_path / "filters-squeezed.csv").read_text()
    lines = (tmp_path / "filters-pairs.csv").read_text().splitlines()
    assert lines[0].startswith("distance (Å),H-H (eV),H-C (eV)") and len(lines) == 101


def test_no_blocks_no_filters(tmp_path):
    model = make_model(n_interactions=0).requires_grad_(False)
    found = summarize_filters(model)
    assert found.quantiles.shape == (0, 5, 200)
    plot_filters(found, [], pair_energies(model), tmp_path / "filters.png")


def test_unknown_elements_are_named():
    model = make_model(elements=(1, 6)).to(torch.float64).requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"only H, C, the elements the model was trained on, got O in"
    ):
        squeeze(model, waters())
