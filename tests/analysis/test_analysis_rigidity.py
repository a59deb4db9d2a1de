"""Standard deviations from rigidity against models whose readout is changed by hand, one direction at a time."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from conftest import make_model, make_structures

from scschnet import ScSchNetCalculator
from scschnet.analysis.hessian import split_hessian
from scschnet.analysis.internal import motion
from scschnet.analysis.layers import atom_energies, element_means, layer_energies
from scschnet.analysis.mode_rigidity import mode_rigidity
from scschnet.analysis.modes import Modes, normal_modes, over_runs, relax
from scschnet.analysis.rigidity import estimate
from scschnet.data import StructureSet, embedded
from scschnet.evaluate.error_statistics import error_statistics, standard_errors
from scschnet.nn.model import SchNet


def changed(model: SchNet, theta: np.ndarray) -> SchNet:
    """The model with theta . x_i^out, eV, more in the energy of every atom: ssp(z) - ssp(-z) = z in two hidden units."""
    model = deepcopy(model)
    hidden, output = model.readout.hidden, model.readout.output
    row = torch.from_numpy(theta)[None] / model.offsets.scale
    ones = output.weight.new_ones((1, 1))
    for linear, name, more in (
        (hidden, "weight", torch.cat([row, -row])),
        (hidden, "bias", torch.zeros(2)),
        (output, "weight", torch.cat([ones, -ones], dim=1)),
    ):
        old = getattr(linear, name)
        joined = torch.cat([old, more.to(old.dtype)], dim=1 if linear is output else 0)
        setattr(linear, name, torch.nn.Parameter(joined, requires_grad=False))
    return model


def root_for(model: SchNet) -> np.ndarray:
    n = model.config.n_features
    return 0.1 * np.random.default_rng(4).normal(size=(n, n))


def test_deviations_are_what_every_direction_changes(model):
    model = model.requires_grad_(False)
    structures, root = make_structures(), root_for(model)
    found = layer_energies(model, structures, energy_root=root)
    plain = layer_energies(model, structures)
    assert plain.deviations is None
    for f in range(root.shape[1]):
        other = layer_energies(changed(model, root[:, f]), structures)
        np.testing.assert_allclose(
            found.deviations[:, :, f], other.layers - plain.layers, atol=1e-12
        )
        np.testing.assert_allclose(other.base, plain.base, atol=1e-12)


def test_standard_deviations_are_a_sum_over_the_covariance(model):
    """sum_ab f_a A_ab f_b of an atom, of a layer of it, and of the mean of an element, entry by entry."""
    model = model.requires_grad_(False)
    structures, root = make_structures(), root_for(model)
    found = layer_energies(model, structures, energy_root=root)
    unit = layer_energies(model, structures, energy_root=np.eye(len(root))).deviations  # x_i^(l)
    covariance = root @ root.T

    def slow(f):
        n = range(len(f))
        return np.sqrt(sum(f[a] * covariance[a, b] * f[b] for a in n for b in n))

    layers = estimate([found.layers], [found.deviations]).rigidity
    whole, means = atom_energies([found]), element_means([found], structures)
    assert whole.spread is None and means.layers.spread is None
    for i in (0, 7):
        assert whole.rigidity[i] == pytest.approx(slow(unit[:, i].sum(axis=0)), rel=1e-12)
        for layer in range(3):
            assert layers[layer, i] == pytest.approx(slow(unit[layer, i]), rel=1e-12)
    for e, z in enumerate(structures.elements):
        own = structures.atomic_numbers == z
        mean = unit[:, own].mean(axis=1)
        assert means.layers.rigidity[e, 1] == pytest.approx(slow(mean[1]), rel=1e-12)
        assert means.sums.rigidity[e, 0] == pytest.approx(slow(mean.sum(axis=0)), rel=1e-12)


def test_all_atoms_and_layers_together_have_the_calibrated_error_bar():
    model = make_model(filters="spline").requires_grad_(False)
    ethanol = embedded.load().select(range(60))
    statistics = error_statistics(model, ethanol.select(range(30)), ethanol.select(range(30, 60)))
    bars = standard_errors(model, ethanol, statistics)
    root = np.array(statistics.energy_root)
    found = layer_energies(model, ethanol, energy_root=root).deviations
    np.testing.assert_allclose(np.linalg.norm(found.sum(axis=0), axis=1), bars.energies, rtol=1e-9)
    wholes = np.add.reduceat(found.sum(axis=0), ethanol.atom_ptr[:-1])
    np.testing.assert_allclose(np.linalg.norm(wholes, axis=1), bars.energy, rtol=1e-9)


def test_estimates_over_runs():
    values = [np.array([1.0, 2.0]), np.array([3.0, 2.0])]
    away = [np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 2.0]])]
    found = estimate(values, away)
    np.testing.assert_allclose(found.value, [2.0, 2.0])
    np.testing.assert_allclose(found.rigidity, [5.0, 2.0**0.5])
    np.testing.assert_allclose(found.spread, [2.0**0.5, 0.0])
    assert estimate(values, [away[0], None]).rigidity is None
    assert estimate(values[:1], away[:1]).spread is None


def relaxed(model: SchNet, start: Atoms) -> Modes:
    atoms = start.copy()
    atoms.calc = ScSchNetCalculator(model)
    relax(atoms)
    return normal_modes(model, set_of(atoms))


def set_of(atoms: Atoms) -> StructureSet:
    cells, pbc = atoms.cell.array[None], atoms.pbc[None]
    return StructureSet(
        atoms.positions, atoms.numbers, np.array([0, len(atoms)]), cells=cells, pbc=pbc
    )


@pytest.fixture(scope="module", params=["dense", "spline"])
def binding(request):
    """A random model that holds methanol together, its modes, and a direction in which its readout is changed."""
    model = make_model(repulsion="zbl", filters=request.param).requires_grad_(False)
    model.offsets.scale.neg_()
    theta = np.random.default_rng(2).normal(size=model.config.n_features)
    return model, relaxed(model, molecule("CH3OH")), theta


def fractions(model: SchNet, modes: Modes) -> np.ndarray:
    """Shares of another model at the structure, with the modes and along the paths of `modes`."""
    split = split_hessian(model, modes.structure)
    moves = modes.vectors / np.sqrt(np.repeat(modes.masses, 3))
    curvature = motion(modes.structure, modes.masses, modes.vectors).curvature
    shares = np.einsum("ka,sab,kb->ks", moves, split.hessians, moves)
    shares += curvature @ split.gradients.T
    return shares / shares.sum(axis=1, keepdims=True)


def depth_of(shares: np.ndarray) -> np.ndarray:
    sizes = np.abs(shares[:, :-1])  # without the pair term
    return sizes @ np.arange(sizes.shape[1]) / sizes.sum(axis=1)


def test_rigidity_of_modes_is_what_a_changed_readout_does_to_them(binding):
    model, modes, theta = binding
    found = mode_rigidity(model, modes, theta[:, None])
    step = 1e-5
    ends = [changed(model, sign * step * theta) for sign in (1, -1)]
    start = Atoms(modes.structure.atomic_numbers, modes.structure.positions)
    ahead, behind = (relaxed(one, start) for one in ends)
    moved = np.abs(ahead.frequencies - behind.frequencies) / (2 * step)
    np.testing.assert_allclose(found.frequencies, moved, atol=3e-3 * moved.max())
    there, back = (fractions(one, modes) for one in ends)
    slopes = np.abs(there - back) / (2 * step)
    np.testing.assert_allclose(found.shares, slopes[:, :-1], atol=3e-3 * slopes.max())
    deeper = np.abs(depth_of(there) - depth_of(back)) / (2 * step)
    np.testing.assert_allclose(found.depth, deeper, atol=3e-3 * deeper.max())


def test_independent_directions_add_in_quadrature(binding):
    model, modes, theta = binding
    other = np.roll(theta, 1)
    parts = [mode_rigidity(model, modes, one[:, None]) for one in (theta, other)]
    both = mode_rigidity(model, modes, np.stack([theta, other], axis=1))
    for name in ("frequencies", "shares", "depth"):
        of_parts = [getattr(one, name) for one in parts]
        np.testing.assert_allclose(getattr(both, name), np.hypot(*of_parts), rtol=1e-9)


def test_rigidity_over_runs_follows_the_matched_modes(binding):
    model, modes, theta = binding
    held = replace(modes, rigidity=mode_rigidity(model, modes, theta[:, None]))
    back = {
        name: getattr(modes, name)[::-1] for name in ("squares", "vectors", "straight", "curved")
    }
    names = ("frequencies", "shares", "depth")
    triple = {name: 3 * getattr(held.rigidity, name)[::-1] for name in names}
    other = replace(held, **back, rigidity=replace(held.rigidity, **triple))
    found = over_runs([held, other]).rigidity
    for name in names:
        expected = 5**0.5 * getattr(held.rigidity, name)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-9)
    assert over_runs([held, modes]).rigidity is None


def test_modes_of_a_crystal_have_rigidity():
    model = make_model(repulsion="zbl").requires_grad_(False)
    model.offsets.scale.neg_()
    atoms = Atoms("CO", [[0, 0, 0], [1.5, 1.5, 1.5]], cell=[3.0] * 3, pbc=True)
    modes = normal_modes(model, set_of(atoms))
    theta = np.random.default_rng(2).normal(size=model.config.n_features)
    found = mode_rigidity(model, modes, theta[:, None])
    step = 1e-5
    ends = [normal_modes(changed(model, s * step * theta), modes.structure) for s in (1, -1)]
    # By symmetry no force moves the atoms, so that the structure need not be relaxed again.
    moved = np.abs(ends[0].frequencies - ends[1].frequencies) / (2 * step)
    np.testing.assert_allclose(found.frequencies, moved, atol=3e-3 * moved.max())
