"""Vibrations: Hessians against differences, a spring by hand, ASE's Vibrations, and shares that add up."""

import csv
from dataclasses import fields, replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.units import _amu, _c, _e, invcm, kB
from ase.vibrations import Vibrations
from conftest import make_model, make_structures

from scschnet import ScSchNetCalculator
from scschnet.analysis.hessian import PAIR, split_hessian
from scschnet.analysis.internal import internal_coordinates, motion
from scschnet.analysis.layers import layer_energies
from scschnet.analysis.mode_figures import wavenumber, write_animation, write_vectors
from scschnet.analysis.mode_rigidity import mode_rigidity
from scschnet.analysis.mode_table import read_modes, tabulate, write_modes
from scschnet.analysis.modes import (
    completeness,
    energy_hessian,
    normal_modes,
    over_runs,
    relax,
    thermochemistry,
)
from scschnet.data import StructureSet
from scschnet.evaluate import predict
from scschnet.nn.model import SchNet

OLD_TABLE = Path(__file__).parents[2] / "benchmarks/paper/analysis/ethanol_modes.csv"


def set_of(atoms: Atoms) -> StructureSet:
    ends = np.array([0, len(atoms)])
    cells, pbc = atoms.cell.array[None], atoms.pbc[None]
    return StructureSet(atoms.positions, atoms.numbers, ends, cells=cells, pbc=pbc)


def moved(structure: StructureSet, by: np.ndarray) -> StructureSet:
    ends = structure.atom_ptr
    at = structure.positions + by.reshape(-1, 3)
    return StructureSet(
        at, structure.atomic_numbers, ends, cells=structure.cells, pbc=structure.pbc
    )


def binding_model() -> SchNet:
    """A random model that holds small molecules together: the nuclei repel, and the network attracts."""
    model = make_model(repulsion="zbl", filters="spline").requires_grad_(False)
    model.offsets.scale.neg_()
    return model


@pytest.fixture(scope="module")
def bent():
    """That model, and six atoms at a minimum of it."""
    model = binding_model()
    atoms = molecule("CH3OH")
    atoms.calc = ScSchNetCalculator(model)
    relax(atoms)
    return model, set_of(atoms)


@pytest.mark.parametrize("filters", ["dense", "spline"])
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_hessians_of_shares_are_differences_of_their_gradients(filters, which):
    model = make_model(filters=filters, repulsion="zbl").requires_grad_(False)
    structure = make_structures().select([which])
    found = split_hessian(model, structure)
    assert found.names == ("v0", "v1", "v2", PAIR)
    step, n = 1e-4, structure.positions.size
    for k in np.random.default_rng(0).choice(n, 4, replace=False):
        by = np.zeros(n)
        by[k] = step
        ahead, behind = (split_hessian(model, moved(structure, s * by)) for s in (1, -1))
        expected = (ahead.gradients - behind.gradients) / (2 * step)
        size = np.abs(found.hessians).max()
        np.testing.assert_allclose(found.hessians[:, k], expected, atol=2e-6 * size)


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_shares_add_up_to_the_forces_and_to_the_hessian_of_the_energy(which):
    model = make_model(filters="spline", repulsion="zbl").requires_grad_(False)
    structure = make_structures().select([which])
    found = split_hessian(model, structure)
    forces = predict(model, structure).forces
    np.testing.assert_allclose(-found.gradients.sum(axis=0), forces.ravel(), atol=1e-10)
    whole = energy_hessian(model, structure)
    np.testing.assert_allclose(found.hessian, whole, atol=1e-11 * np.abs(whole).max())
    layers = layer_energies(model, structure, forces=True)
    np.testing.assert_allclose(found.gradients[:3], -layers.forces.reshape(3, -1), atol=1e-10)


def test_a_spring_by_hand():
    """Two atoms: omega = sqrt(k / mu), in SI units from k, the second derivative along the bond."""
    model = make_model(filters="spline").requires_grad_(False)
    atoms = Atoms("CO", [[0, 0, 0], [0.7, 0.4, 0.9]])
    atoms.calc = ScSchNetCalculator(model)
    found = normal_modes(model, set_of(atoms))
    assert len(found.squares) == 1 and found.labels == ("C-O stretch",)

    def energy(by):
        bond = atoms.positions[1] - atoms.positions[0]
        other = atoms.copy()
        other.positions[1] += by * bond / np.linalg.norm(bond)
        other.calc = atoms.calc
        return other.get_potential_energy()

    step = 1e-3
    k = (energy(step) - 2 * energy(0) + energy(-step)) / step**2 * _e * 1e20  # N/m
    mu = 12.011 * 15.999 / (12.011 + 15.999) * _amu
    expected = np.sign(k) * np.sqrt(abs(k) / mu) / (2 * np.pi * _c) / 100
    assert found.frequencies[0] == pytest.approx(expected, rel=1e-4)
    assert abs(expected) > 50  # the model does bind or repel here


@pytest.mark.parametrize(
    ("atoms", "free"),
    [
        (molecule("H2O"), 6),
        (molecule("CO2"), 5),
        (molecule("CH3CH2OH"), 6),
        (bulk("C", "sc", a=2.3) * (2, 1, 1), 3),
    ],
    ids=["bent", "linear", "larger", "crystal"],
)
def test_translations_and_rotations_are_left_out(atoms, free):
    model = binding_model()
    atoms.calc = ScSchNetCalculator(model)
    relax(atoms)
    found = normal_modes(model, set_of(atoms))
    n = 3 * len(atoms)
    assert len(found.squares) == n - free
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(n - free), atol=1e-12)
    root = np.sqrt(np.repeat(atoms.get_masses(), 3))
    every = np.linalg.eigvalsh(energy_hessian(model, set_of(atoms)) / np.outer(root, root))
    zero = np.argsort(np.abs(every))[:free]
    assert np.abs(every[zero]).max() < 1e-6 * np.abs(every).max()
    np.testing.assert_allclose(np.delete(every, zero), found.squares, rtol=1e-5, atol=1e-9)
    push = (found.vectors * root).reshape(len(found.vectors), -1, 3).sum(axis=1)
    np.testing.assert_allclose(push, 0, atol=1e-10)


def test_frequencies_are_those_of_ase(bent, tmp_path):
    model, structure = bent
    atoms = Atoms(structure.atomic_numbers, structure.positions)
    atoms.calc = ScSchNetCalculator(model)
    found = normal_modes(model, structure)
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=1e-3, nfree=4)
    vibrations.run()
    expected = vibrations.get_frequencies()
    signed = np.sort(expected.real - expected.imag)
    free = np.argsort(np.abs(signed))[:6]
    np.testing.assert_allclose(found.frequencies, np.delete(signed, free), rtol=1e-4, atol=0.5)


def test_shares_are_complete(bent):
    found = normal_modes(*bent)
    assert completeness(found) < 1e-8
    np.testing.assert_allclose(found.shares.sum(axis=1), 1.0, rtol=1e-8)
    assert np.abs(found.curved - found.straight).max() > 1e-4  # the paths do differ


def test_curved_shares_are_second_derivatives_along_curved_paths(bent):
    model, structure = bent
    found = normal_modes(model, structure)
    root = np.sqrt(np.repeat(found.masses, 3))
    kinds = motion(structure, found.masses, found.vectors)
    coordinates = internal_coordinates(structure)
    step = 2e-3
    for k in (0, 5, -1):
        move, turn = found.vectors[k] / root, kinds.curvature[k]
        ends = [
            moved(structure, s * step * move + 0.5 * (s * step) ** 2 * turn) for s in (-1, 0, 1)
        ]
        parts = [layer_energies(model, one).layers.sum(axis=1) for one in ends]
        expected = (parts[0] - 2 * parts[1] + parts[2]) / step**2
        np.testing.assert_allclose(found.curved[k, :3], expected, rtol=1e-4, atol=1e-4)
        values = [coordinates.values(torch.from_numpy(one.positions)).numpy() for one in ends]
        bend = (values[0] - 2 * values[1] + values[2]) / step**2
        assert np.abs(bend[: coordinates.counts[0]]).max() < 1e-3  # bonds change at constant rates


def test_kinds_of_motion_of_water_and_carbon_dioxide():
    for name, expected in (
        ("H2O", ["H-O-H bend", "O-H stretch", "O-H stretch"]),
        ("CO2", ["O-C-O bend", "O-C-O bend", "C-O stretch", "C-O stretch"]),
    ):
        atoms = molecule(name)
        structure = set_of(atoms)
        hessian = _springs(atoms)
        root = np.sqrt(np.repeat(atoms.get_masses(), 3))
        squares, vectors = np.linalg.eigh(hessian / np.outer(root, root))
        n = len(expected)
        found = motion(structure, atoms.get_masses(), vectors.T[-n:])
        assert list(found.labels) == expected
        np.testing.assert_allclose(found.fractions.sum(axis=1), 1.0)
        assert (squares[-n:] > 1e-3).all()


def _springs(atoms: Atoms) -> np.ndarray:
    """Hessian of springs along bonds, 40 eV/Å^2, and of angles, 4 eV: B^T k B."""
    coordinates = internal_coordinates(set_of(atoms))
    at = torch.from_numpy(atoms.positions)
    b = torch.autograd.functional.jacobian(coordinates.values, at).flatten(1).numpy()
    return b.T @ (np.repeat([40.0, 4.0, 0.1], coordinates.counts)[:, None] * b)


def test_torsions_and_out_of_plane_motions():
    atoms = molecule("C2H4")
    root = np.sqrt(np.repeat(atoms.get_masses(), 3))
    vectors = np.linalg.eigh(_springs(atoms) / np.outer(root, root))[1].T[6:]
    found = motion(set_of(atoms), atoms.get_masses(), vectors)
    assert [label.split()[0] for label in found.labels].count("torsion") == 3
    assert found.labels[0] == "torsion about C-C"


def test_runs_are_matched_by_their_modes(bent):
    model, structure = bent
    first = normal_modes(model, structure)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    turned = StructureSet(
        structure.positions @ turn.T + 3.0, structure.atomic_numbers, structure.atom_ptr
    )
    found = over_runs([first, normal_modes(model, turned)])
    assert found.distances[1] < 1e-6
    np.testing.assert_allclose(found.overlaps, 1.0, atol=1e-4)
    np.testing.assert_allclose(found.frequencies[1], found.frequencies[0], rtol=1e-5)
    np.testing.assert_allclose(found.shares[1], found.shares[0], atol=1e-4)
    with pytest.raises(ValueError, match="runs must have modes of the same atoms"):
        over_runs([first, normal_modes(model, set_of(molecule("H2O")))])
    other = make_model(n_interactions=1).requires_grad_(False)
    with pytest.raises(ValueError, match="runs must have the same layers, got v0, v1, v2"):
        over_runs([first, normal_modes(other, structure)])


def test_what_has_no_vibrations_is_named():
    model = make_model().requires_grad_(False)
    with pytest.raises(ValueError, match=r"must have vibrations, got one atom in a cell; repeat"):
        normal_modes(model, set_of(bulk("C", "fcc", a=3.0)))
    with pytest.raises(ValueError, match="exactly one structure, got 2"):
        normal_modes(model, make_structures().select([0, 1]))


def test_thermochemistry_of_a_harmonic_molecule(bent):
    found = normal_modes(*bent)
    quanta = found.frequencies * 100 * 6.62607015e-34 * _c / _e
    energies = thermochemistry(found, 298.15, 1e5, 1)
    assert energies["zero-point energy"] == pytest.approx(quanta.sum() / 2, rel=1e-5)


def test_no_thermochemistry_where_a_mode_is_imaginary(bent):
    model, structure = bent
    found = normal_modes(model, structure)
    assert (
        thermochemistry(
            replace(found, squares=found.squares - 1e-3 - found.squares[0]), 300.0, 1e5, 1
        )
        is None
    )
    assert wavenumber(-12.4) == "12i" and wavenumber(12.4) == "12"


def test_linear_molecules_and_crystals_have_thermochemistry():
    model = binding_model()
    atoms = molecule("CO")
    atoms.calc = ScSchNetCalculator(model)
    relax(atoms)
    found = normal_modes(model, set_of(atoms))
    energies = thermochemistry(found, 300.0, 1e5, 1)
    k_t = 300.0 * kB
    quanta = found.frequencies * invcm
    warm = quanta / np.expm1(quanta / k_t)
    expected = quanta.sum() / 2 + warm.sum() + 3.5 * k_t  # 3/2 of motion, 1 of rotation, 1 of p V
    assert energies["enthalpy"] == pytest.approx(expected, rel=1e-6)
    solid = thermochemistry(
        replace(
            found,
            structure=replace(
                found.structure, pbc=np.ones((1, 3), bool), cells=9 * np.eye(3)[None]
            ),
        ),
        300.0,
        1e5,
        1,
    )
    assert solid["internal energy"] == pytest.approx(quanta.sum() / 2 + warm.sum(), rel=1e-6)


def test_files_of_modes_are_read_by_ase(bent, tmp_path):
    found = normal_modes(*bent)
    atoms = ase.io.read(write_vectors(tmp_path / "modes.xyz", found))
    np.testing.assert_allclose(atoms.positions, found.structure.positions, atol=1e-7)
    moves = np.stack([atoms.arrays[f"mode_{k + 1}"] for k in range(len(found.squares))])
    np.testing.assert_allclose(np.linalg.norm(moves, axis=2).max(axis=1), 1.0, atol=1e-6)
    weighted = (moves * np.sqrt(found.masses)[:, None]).reshape(len(moves), -1)
    weighted /= np.linalg.norm(weighted, axis=1)[:, None]
    np.testing.assert_allclose(weighted, found.vectors, atol=1e-6)
    frames = ase.io.read(write_animation(tmp_path / "animated.xyz", found), ":")
    assert len(frames) == 20 * len(found.squares)
    assert frames[0].info["name"].startswith("mode 1: ")
    np.testing.assert_allclose(frames[5].positions - frames[0].positions, 0.3 * moves[0], atol=1e-6)


def test_tables_of_modes_are_read_as_they_were_drawn(bent, tmp_path):
    modes = normal_modes(*bent)
    theta = np.random.default_rng(2).normal(size=(bent[0].config.n_features, 3))
    held = replace(modes, rigidity=mode_rigidity(bent[0], modes, theta))
    infrared = replace(held, infrared=np.arange(len(modes.squares), dtype=float))
    moved = replace(held, squares=1.1 * held.squares)
    for found in (over_runs(some) for some in ([modes], [held], [infrared], [held, moved])):
        path = write_modes(tmp_path / "modes.csv", found)
        expected, read = tabulate(found), read_modes(path)
        for field in fields(expected):
            one, other = getattr(expected, field.name), getattr(read, field.name)
            if isinstance(one, np.ndarray):
                np.testing.assert_allclose(other, one, rtol=1e-14)
            else:
                assert other == one
    assert tabulate(over_runs([modes])).frequency_std is None
    (rigid,) = csv.DictReader(path.read_text().splitlines()[:2])
    assert float(rigid["share v1 std from rigidity"]) == pytest.approx(held.rigidity.shares[0, 1])
    assert "share pair term std from rigidity" not in rigid


def test_tables_of_before_there_was_rigidity_are_read():
    table = read_modes(OLD_TABLE)
    assert table.n_runs == 3 and len(table.frequencies) == 21 and len(table.names) == 7
    np.testing.assert_allclose(table.shares.sum(axis=1), 1.0, atol=1e-6)
    assert table.frequency_std is not None


@pytest.mark.parametrize(
    "content",
    ["", "a,b\n1,2\n", "renamed", "mode,kind\n", "cut"],
)
def test_other_tables_are_named(tmp_path, content):
    path = tmp_path / "modes.csv"
    old = OLD_TABLE.read_text()
    if content == "renamed":
        content = old.replace("mean layer,", "some layer,")
    if content == "cut":
        content = old[:-40]
    path.write_text(content)
    with pytest.raises(
        ValueError, match=r"modes.csv must be a table that `scschnet analysis modes` wrote"
    ):
        read_modes(path)
