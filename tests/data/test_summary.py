"""What `info` says of a set, each figure against one computed another way."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from scschnet.data import StructureSet, embedded, read, summary_table
from scschnet.data.summary import (
    duplicates,
    energy_outliers,
    force_outliers,
    net_forces,
    shortest_distance,
    stress_over_forces,
    stress_slope,
)

DATA = Path(__file__).parents[1] / "files"


def frames(n: int = 50, seed: int = 0) -> StructureSet:
    """Frames of one water with small displacements and energies near -10 eV."""
    rng = np.random.default_rng(seed)
    water = np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    return StructureSet(
        (water + rng.normal(0, 0.02, (n, 3, 3))).reshape(-1, 3),
        np.tile([8, 1, 1], n),
        np.arange(n + 1) * 3,
        energy=-10 + rng.normal(0, 0.1, n),
        forces=rng.normal(0, 1, (3 * n, 3)),
    )


def test_duplicates_need_the_same_elements_positions_and_cell():
    structures = frames(4).select([0, 1, 2, 1, 3, 1])
    assert duplicates(structures) == [(3, 1), (5, 1)]
    structures.atomic_numbers[9] = 16
    structures.cells[5, 0, 0] = 1.0
    assert duplicates(structures) == []


def test_energy_outliers_are_found_worst_first():
    structures = frames()
    assert energy_outliers(structures).size == 0
    structures.energy[7] += 5
    structures.energy[31] -= 9
    structures.energy[2] = np.nan
    assert energy_outliers(structures).tolist() == [31, 7]


def test_energy_outliers_allow_for_composition():
    structures = read(DATA / "qm9_first20.npz")
    assert energy_outliers(structures).size == 0
    same = structures.select([0] * 30)
    assert energy_outliers(same).size == 0  # no spread at all


def test_force_outliers():
    structures = frames()
    structures.forces[3 * 11 + 1] = 100.0
    structures.forces[:3] = np.nan
    assert force_outliers(structures).tolist() == [11]


def test_net_forces_of_labeled_structures():
    structures = frames(3)
    structures.forces[:3] = np.nan
    expected = [np.linalg.norm(structures.forces[3 * m : 3 * m + 3].sum(0)) for m in (1, 2)]
    np.testing.assert_allclose(net_forces(structures), expected)
    assert net_forces(StructureSet(np.zeros((0, 3)), np.zeros(0, int), np.array([0]))).size == 0


def test_shortest_distance_of_molecules():
    structures = embedded.load()
    expected = min(
        (pdist(structures.positions[9 * m : 9 * m + 9]).min(), m) for m in range(len(structures))
    )
    distance, index = shortest_distance(structures)
    assert (distance, index) == (pytest.approx(expected[0], abs=1e-12), expected[1])


def test_shortest_distance_across_a_boundary_and_beyond_the_first_radius():
    cell = np.diag([4.0, 50.0, 50.0])[None]
    one = StructureSet(
        np.zeros((1, 3)), np.array([18]), np.array([0, 1]), cell, np.full((1, 3), True)
    )
    assert shortest_distance(one) == (pytest.approx(4.0), 0)
    alone = StructureSet(np.zeros((1, 3)), np.array([18]), np.array([0, 1]))
    assert shortest_distance(alone) is None


def test_table_of_md17_ethanol():
    table = summary_table(embedded.load())
    for text in ("2,000", "9 to 9 each, 18,000 in all", "H C O", "2,000/2,000", "kcal/mol, Å"):
        assert text in table
    assert "std 4.1567 kcal/mol" in table and "rms 26.345 kcal/mol/Å" in table
    assert "stress             0/2,000" in table


def test_table_of_periodic_water_and_of_qm9():
    water = summary_table(read(DATA / "water64_2frames.npz"))
    assert "2 in three directions; volume 1927.30 to 1927.30 Å^3" in water
    qm9 = summary_table(read(DATA / "qm9_first20.npz"))
    assert "energy, less reference" in qm9 and "H -13.6131" in qm9


def test_table_of_an_empty_set():
    empty = StructureSet(np.zeros((0, 3)), np.zeros(0, int), np.array([0]))
    assert "structures" in summary_table(empty)


def strained(factor: float = 1.0) -> StructureSet:
    """Copper cells of 4 atoms, 20 volumes, E/V from a parabola; `factor` spoils the stress."""
    lengths = np.linspace(3.4, 3.9, 20)
    volumes = lengths**3
    pressure = 0.5 * (volumes - 47.0) / 47.0  # dE/dV, eV/Å^3
    rng = np.random.default_rng(0)
    fcc = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return StructureSet(
        (fcc * lengths[:, None, None]).reshape(-1, 3),
        np.full(80, 29),
        np.arange(21) * 4,
        np.eye(3) * lengths[:, None, None],
        np.ones((20, 3), bool),
        energy=0.25 * (volumes - 47.0) ** 2 / 47.0,
        forces=rng.normal(0, 0.3, (80, 3)),
        stress=factor * np.eye(3) * pressure[:, None, None],
    )


@pytest.mark.parametrize("factor", [1.0, -1.0, -50.0, 160.2])
def test_stress_that_contradicts_energies(factor):
    structures = strained(factor)
    assert stress_slope(structures) == pytest.approx(1 / factor, rel=0.01)
    table = summary_table(structures)
    assert ("CONTRADICTION" in table) == (factor != 1.0)


def test_stress_that_contradicts_forces():
    sound = stress_over_forces(strained())
    assert 0.05 < sound < 20
    assert stress_over_forces(strained(500.0)) == pytest.approx(500 * sound)
    assert stress_over_forces(embedded.load()) is None and stress_slope(embedded.load()) is None
