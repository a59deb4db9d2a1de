"""Coalitions of layers: readout of each, Shapley values and their axioms, errors by hand."""

import copy
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from conftest import make_model, make_structures
from hypothesis import given
from hypothesis import strategies as st

from scschnet.analysis.importance import (
    coalition_energies,
    coalition_forces,
    coalitions,
    disagreements,
    energy_importance,
    force_importance,
    plot_importance,
    rank_correlation,
    shapley_values,
)
from scschnet.evaluate import predict


@pytest.fixture(params=["dense", "spline"])
def model(request):
    return make_model(filters=request.param).requires_grad_(False)


@pytest.fixture
def labeled():
    structures = make_structures()
    rng = np.random.default_rng(0)
    return replace(structures, energy=rng.normal(size=5), forces=rng.normal(size=(15, 3)))


def silenced(model, members):
    """The model with the weights of all other layers zero."""
    changed = copy.deepcopy(model)
    changed.contribution_weights *= torch.from_numpy(members).double()
    return changed


def test_every_coalition_is_the_model_with_the_other_weights_zero(model):
    structures = make_structures()
    energies, forces = coalition_energies(model, structures), coalition_forces(model, structures)
    for k, members in enumerate(coalitions(3)):
        expected = predict(silenced(model, members), structures)
        np.testing.assert_allclose(energies[k], expected.energy, rtol=1e-13)
        np.testing.assert_allclose(forces[k], expected.forces, atol=1e-12)


def test_shapley_values_are_the_mean_over_all_orders():
    n = 4
    values = np.random.default_rng(0).normal(size=(2**n, 3))
    expected = np.zeros((n, 3))
    orders = list(permutations(range(n)))
    for order in orders:
        members = 0
        for player in order:
            expected[player] += values[members | 1 << player] - values[members]
            members |= 1 << player
    np.testing.assert_allclose(shapley_values(values), expected / len(orders), atol=1e-14)


@given(st.lists(st.floats(-10, 10), min_size=8, max_size=8))
def test_shapley_values_share_everything(values):
    game = np.array(values)
    assert shapley_values(game).sum() == pytest.approx(game[-1] - game[0], abs=1e-12)


def test_errors_are_those_of_the_coalitions(model, labeled):
    found = energy_importance(model, labeled, refitted=False)
    energies = coalition_energies(model, labeled)
    errors = np.abs(energies - labeled.energy).mean(axis=1)
    np.testing.assert_allclose(found.errors, errors, rtol=1e-13)
    assert found.shapley.sum() == pytest.approx(errors[0] - errors[-1])
    np.testing.assert_allclose(found.left_out, errors[[6, 5, 3]] - errors[7])
    np.testing.assert_allclose(found.alone, errors[[1, 2, 4]])
    one = shapley_values(-np.abs(energies - labeled.energy))
    np.testing.assert_allclose(found.shapley_se, one.std(axis=1, ddof=1) / np.sqrt(5))


def test_refitted_errors_do_not_know_reference_energies(model, labeled):
    found = energy_importance(model, labeled)
    counts = np.array(
        [
            np.bincount(labeled.atomic_numbers[a:b], minlength=9)
            for a, b in zip(labeled.atom_ptr, labeled.atom_ptr[1:], strict=False)
        ]
    )
    shifted = replace(labeled, energy=labeled.energy + counts[:, [1, 6, 8]] @ [3.0, -50.0, 7.0])
    np.testing.assert_allclose(energy_importance(model, shifted).errors, found.errors, atol=1e-9)


def test_force_errors_are_means_over_frames(model, labeled):
    found = force_importance(model, labeled.select([0, 3]))
    forces = coalition_forces(model, labeled.select([0, 3]))
    wrong = np.abs(forces - labeled.select([0, 3]).forces).mean(axis=2)
    expected = (wrong[:, :4].mean(axis=1) + wrong[:, 4:].mean(axis=1)) / 2
    np.testing.assert_allclose(found.errors, expected)
    assert found.unit == "eV/Å" and found.n_frames == 2


def test_layers_that_disagree_are_found():
    model = make_model(n_interactions=1).requires_grad_(False)
    found = energy_importance(model, replace(make_structures(), energy=np.zeros(5)))
    found = replace(found, shapley=np.array([2.0, 1.0]), shapley_se=np.array([0.1, 0.1]))
    assert disagreements(np.array([-1.0, 3.0]), found) == [(1, 0)]
    assert disagreements(np.array([-4.0, 3.0]), found) == []
    noisy = replace(found, shapley_se=np.array([1.0, 1.0]))
    assert disagreements(np.array([1.0, 3.0]), noisy) == []


def test_rank_correlation():
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 30, 90])) == 1.0
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == -1.0
    assert rank_correlation(np.array([1.0, 1, 2]), np.array([5.0, 5, 9])) == pytest.approx(1.0)
    assert np.isnan(rank_correlation(np.ones(3), np.arange(3.0)))


def test_figure_and_table(model, labeled, tmp_path):
    found = [energy_importance(model, labeled), force_importance(model, labeled)]
    path = plot_importance(found, np.array([0.2, -0.5, 0.1]), tmp_path / "shapley.png")
    assert path.stat().st_size > 5000
    lines = (tmp_path / "shapley.csv").read_text().splitlines()
    assert lines[0].startswith("quantity,unit,layer,shapley") and len(lines) == 7
    assert float(lines[4].split(",")[3]) == found[1].shapley[0]


def test_what_cannot_be_valued_is_named(model, labeled):
    with pytest.raises(ValueError, match="`structures` must all have an energy"):
        energy_importance(model, make_structures())
    with pytest.raises(ValueError, match="`structures` must all have forces"):
        force_importance(model, replace(labeled, forces=None))
    with pytest.raises(ValueError, match=r"`n_layers` must lie between 1 and 13 .* got 14"):
        coalitions(14)
    with pytest.raises(ValueError, match=r"2\^n coalitions, got 6"):
        shapley_values(np.zeros(6))
    with pytest.raises(ValueError, match="at least one quantity"):
        plot_importance([], np.zeros(3), "x.png")
