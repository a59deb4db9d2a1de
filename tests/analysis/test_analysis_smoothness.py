"""Bonds and contacts that are stretched and pressed: what is scanned, and what is counted."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from conftest import make_model

from scschnet.analysis.filters import along_a_pair, nearest_vector, pair_energies, shortest_pairs
from scschnet.analysis.smoothness import PairScan, scan_pairs
from scschnet.data import StructureSet
from scschnet.elements import symbol
from scschnet.evaluate import energies_of, predict
from scschnet.nn import SchNet
from scschnet.runs.config import TrainConfig
from scschnet.runs.run import Run, read_run
from scschnet.train.loop import train


def ethanol() -> StructureSet:
    atoms = molecule("CH3CH2OH")
    return StructureSet(atoms.positions, atoms.numbers, np.array([0, len(atoms)]))


def scan_of(energy: np.ndarray) -> PairScan:
    distance = np.linspace(1.0, 2.0, len(energy))
    return PairScan((0, 0, 1), (1, 1), True, distance, energy, np.gradient(energy, distance), [])


@pytest.fixture
def model():
    return make_model(filters="spline").requires_grad_(False)


def test_slopes_are_those_of_the_energies(model):
    for scan in scan_pairs(model, ethanol()):
        assert scan.energy.min() == 0.0
        numerical = np.gradient(scan.energy, scan.distance, edge_order=2)
        np.testing.assert_allclose(
            scan.slope[1:-1], numerical[1:-1], atol=2e-3 * np.abs(scan.slope).max()
        )


def test_bonds_and_contacts_of_every_two_elements(model):
    found = {(scan.elements, scan.bonded) for scan in scan_pairs(model, ethanol())}
    bonds = {((1, 6), True), ((1, 8), True), ((6, 6), True), ((6, 8), True)}
    contacts = {((1, 1), False), ((1, 6), False), ((1, 8), False), ((6, 8), False)}
    assert found == bonds | contacts


def test_a_bond_is_pressed_and_stretched_by_moving_both_atoms(model):
    structures = ethanol()
    scan = next(s for s in scan_pairs(model, structures) if s.elements == (6, 8) and s.bonded)
    carbon, oxygen = 0 if structures.atomic_numbers[0] == 6 else 1, 2
    way = structures.positions - structures.positions[oxygen]
    carbons = np.flatnonzero(structures.atomic_numbers == 6)
    carbon = carbons[np.linalg.norm(way[carbons], axis=1).argmin()]
    d = np.linalg.norm(way[carbon])
    assert scan.distance[0] == pytest.approx(0.75 * d)
    assert scan.distance[-1] == pytest.approx(d + min(0.35 * d, 0.5))
    moved = structures.positions.copy()
    unit = way[carbon] / d
    moved[carbon] += 0.5 * (scan.distance[0] - d) * unit
    moved[oxygen] -= 0.5 * (scan.distance[0] - d) * unit
    ends = predict(model, StructureSet(moved, structures.atomic_numbers, structures.atom_ptr))
    still = predict(model, structures)
    k = np.abs(scan.distance - d).argmin()
    rise = scan.energy[0] - np.interp(d, scan.distance[k - 1 : k + 2], scan.energy[k - 1 : k + 2])
    assert ends.energy[0] - still.energy[0] == pytest.approx(rise, abs=2e-3)


def test_one_minimum_is_no_spurious_extremum():
    d = np.linspace(1.0, 2.0, 81)
    assert not len(scan_of(np.square(d - 1.4)).extrema)
    assert not len(scan_of(-d).extrema)


def test_a_second_minimum_and_the_maximum_before_it_are_counted():
    d = np.linspace(1.0, 2.0, 81)
    energy = np.square(d - 1.3) - 0.2 * np.exp(-np.square((d - 1.8) / 0.05))
    np.testing.assert_allclose(scan_of(energy).extrema, [1.71, 1.79], atol=0.01)
    np.testing.assert_allclose(scan_of(energy[::-1]).extrema, [1.21, 1.29], atol=0.01)


def test_an_energy_that_falls_at_the_end_has_a_maximum():
    d = np.linspace(1.0, 2.0, 81)
    energy = np.square(d - 1.3) - 2.0 * np.maximum(d - 1.8, 0.0)
    np.testing.assert_allclose(scan_of(energy).extrema, [1.8], atol=0.02)


def test_dents_that_are_rounding_are_none():
    noise = 1e-4 * np.random.default_rng(0).standard_normal(81)
    assert not len(scan_of(np.square(np.linspace(-0.4, 0.6, 81)) + noise).extrema)


def test_the_force_does_not_jump_with_a_cutoff_function(model):
    assert not any(scan.jumps for scan in scan_pairs(model, ethanol()))


def test_pairs_that_appear_at_the_cutoff_make_the_force_jump():
    model = make_model(filters="spline", cutoff_function="none", cutoff=2.0).requires_grad_(False)
    scans = scan_pairs(model, ethanol())
    own = [jump for scan in scans for jump in scan.jumps if abs(jump - 2.0) < 2e-3]
    assert own  # the scanned pair itself leaves the cutoff


def test_structures_without_pairs_have_no_scans(model):
    lone = StructureSet(np.zeros((1, 3)), np.array([1]), np.array([0, 1]))
    assert scan_pairs(model, lone) == []


def test_a_model_without_energy_is_refused():
    model = make_model(energy=False, heads=("mu:dipole",))
    with pytest.raises(ValueError, match="energy"):
        scan_pairs(model, ethanol())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    options = {"n_train": 100, "n_val": 20, "n_test": 20, "n_features": 16, "n_interactions": 2}
    path = tmp_path_factory.mktemp("runs") / "walls"
    train(TrainConfig(repulsion="data", epochs=20, out=str(path), **options))
    return read_run(path)


def pressed(model: SchNet, run: Run) -> dict[str, list[np.ndarray]]:
    """Energies of held-out structures, of which two atoms come near from the shortest distance trained on to 0.3 Å.

    Of every two elements, in several structures along the lines of several bonds and contacts.
    """
    shortest = shortest_pairs(run.part("train"))
    held_out, found = run.part("test"), {}
    for scan in scan_pairs(model, held_out):
        m, i, j = scan.atoms
        now = np.linalg.norm(nearest_vector(held_out, m, i, j))
        start = min(now, shortest[scan.elements][0])
        moved = along_a_pair(held_out, m, i, j, np.linspace(start, 0.3, 60) / now)
        pair = "-".join(symbol(z) for z in scan.elements)
        found.setdefault(pair, []).append(energies_of(model, moved))
    return found


def lone(model: SchNet, run: Run) -> dict[str, list[np.ndarray]]:
    """Energies of two atoms alone, from half the shortest distance trained on to 0.3 Å."""
    found = {}
    for (a, b), (shortest, *_) in shortest_pairs(run.part("train")).items():
        energies = pair_energies(model, np.linspace(0.5 * shortest, 0.3, 60)).energy[a, b]
        found[f"{symbol(a)}-{symbol(b)}"] = [energies]
    return found


PAIRS = ["C-C", "C-O", "H-C", "H-H", "H-O"]


@pytest.mark.slow
@pytest.mark.parametrize("way", [pressed, lone])
def test_with_walls_energies_rise_all_the_way_to_overlap(run, way):
    found = way(run.model, run)
    assert sorted(found) == PAIRS
    for pair, curves in found.items():
        assert all((np.diff(energies) > 0).all() for energies in curves), pair


@pytest.mark.slow
def test_without_walls_they_do_not(run):
    model = SchNet(replace(run.model.config, repulsion="none"), filters="spline")
    state = run.model.state_dict()
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith("pair_term")})
    model.requires_grad_(False)
    found = pressed(model, run)
    assert any((np.diff(energies) <= 0).any() for curves in found.values() for energies in curves)
