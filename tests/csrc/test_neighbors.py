"""Neighbor lists against loops over images and against ASE, pair by pair, on every instruction set."""

import itertools
import re
import subprocess
import sys
import threading
from pathlib import Path

import ase.neighborlist
import hypothesis.strategies as st
import numpy as np
import pytest
import reference
import torch
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings

import scschnet
from scschnet import _C, batch_neighbor_list, neighbor_list

DATA = Path(__file__).parents[1] / "files"
ISAS = _C.instruction_sets()


def in_order(i, j, shifts):
    """The pairs as rows (i, j, S), sorted, so that two lists can be compared."""
    rows = np.column_stack([i, j, shifts]).astype(np.int64).reshape(-1, 5)
    return rows[np.lexsort(rows.T[::-1])]


def by_ase(positions, cell, pbc, cutoff):
    pbc = np.broadcast_to(pbc, 3).tolist()
    cell = np.eye(3) if cell is None else np.asarray(cell, dtype=float)
    return in_order(*ase.neighborlist.primitive_neighbor_list("ijS", pbc, cell, positions, cutoff))


def by_loops(positions, cell, pbc, cutoff):
    pairs = reference.neighbor_pairs(positions, cell, pbc, cutoff)
    return np.array(sorted((i, j, *s) for i, j, s in pairs), dtype=np.int64).reshape(-1, 5)


def everywhere(positions, cell, pbc, cutoff):
    """The list from every instruction set with one and two threads; all must agree in every bit and in order."""
    results = [
        _C.neighbor_list("ijSdD", positions, cell, pbc, cutoff, threads, isa)
        for isa in ISAS
        for threads in (1, 2)
    ]
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            np.testing.assert_array_equal(one, other)
    return results[0]


def check(positions, cell, pbc, cutoff, expected):
    """Equal to the expected pairs, sorted by center, symmetric, and with the right vectors."""
    i, j, shifts, d, r = everywhere(positions, cell, pbc, cutoff)
    assert (np.diff(i) >= 0).all()
    np.testing.assert_array_equal(in_order(i, j, shifts), expected)
    np.testing.assert_array_equal(in_order(j, i, -shifts), expected)
    rows = np.where(np.broadcast_to(pbc, 3)[:, None], 0 if cell is None else cell, 0.0)
    x = np.asarray(positions, dtype=float)
    np.testing.assert_allclose(
        r, x[j] - x[i] + shifts @ rows, rtol=0, atol=1e-9 * (1 + np.abs(x).max())
    )
    np.testing.assert_allclose(d, np.linalg.norm(r, axis=1), rtol=1e-14)


# ---- random cells


@st.composite
def structures(draw):
    """1 to 130 atoms in a cell that may be skewed, turned, left-handed, flat or long, with atoms outside."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_atoms = draw(st.sampled_from([1, 2, 3, 5, 9, 20, 50, 130]))
    cell = np.eye(3) + draw(st.sampled_from([0.0, 0.3, 1.0])) * rng.normal(size=(3, 3))
    if abs(np.linalg.det(cell)) < 0.1:
        cell = np.eye(3)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    cell = cell @ turn * rng.choice([1, 1, 0.3, 3], (3, 1))
    volume = n_atoms * rng.uniform(3, 30)
    cell *= (volume / abs(np.linalg.det(cell))) ** (1 / 3)
    pbc = np.array(draw(st.tuples(st.booleans(), st.booleans(), st.booleans())))
    cutoff = rng.uniform(1.5, 6)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    while np.prod(np.where(pbc, 2 * cutoff / heights + 1, 1)) * n_atoms > 20_000:
        cutoff *= 0.8  # ASE would take seconds
    fractions = rng.random((n_atoms, 3)) * rng.choice([1, 1, 3]) - rng.choice([0, 0.5, 2])
    if draw(st.integers(0, 4)) == 0:  # faces, edges, several atoms on one spot
        fractions = np.round(fractions * 4) / 4
    return fractions @ cell, cell, pbc, cutoff


@settings(max_examples=400)
@given(structures())
def test_random_cells_equal_ase(structure):
    check(*structure, by_ase(*structure))


@settings(max_examples=100)
@given(structures(), st.integers(0, 2**32 - 1))
def test_moving_an_atom_by_lattice_vectors_changes_only_shifts(structure, seed):
    positions, cell, pbc, cutoff = structure
    rng = np.random.default_rng(seed)
    boxes = rng.integers(-30, 31, (len(positions), 3)) * pbc
    before = neighbor_list("ijS", positions=positions, cell=cell, pbc=pbc, cutoff=cutoff)
    after = neighbor_list(
        "ijS", positions=positions + boxes @ cell, cell=cell, pbc=pbc, cutoff=cutoff
    )
    i, j, shifts = after
    # Pairs within rounding of the cutoff may differ; random positions have none, quarter positions may.
    d = neighbor_list("d", positions=positions, cell=cell, pbc=pbc, cutoff=cutoff * (1 + 1e-9))
    if not (np.abs(d - cutoff) < 1e-9 * cutoff).any():
        np.testing.assert_array_equal(
            in_order(i, j, shifts + boxes[j] - boxes[i]), in_order(*before)
        )


@settings(max_examples=60)
@given(structures())
def test_float32_positions_mean_the_same_as_their_float64_values(structure):
    positions, cell, pbc, cutoff = structure
    single = positions.astype(np.float32)
    check(single, cell, pbc, cutoff, by_ase(single.astype(np.float64), cell, pbc, cutoff))


@settings(max_examples=60)
@given(st.lists(structures(), min_size=0, max_size=5))
def test_a_batch_equals_its_members_one_by_one(members):
    cutoff = min((m[3] for m in members), default=1.0)
    positions = np.concatenate([np.zeros((0, 3)), *(m[0] for m in members)])
    atom_ptr = np.cumsum([0, *(len(m[0]) for m in members)])
    cells = np.array([m[1] for m in members]).reshape(-1, 3, 3)
    pbc = np.array([m[2] for m in members]).reshape(-1, 3)
    batch = batch_neighbor_list(positions, atom_ptr, cutoff, cells, pbc)
    single = [
        neighbor_list("ijS", positions=m[0], cell=m[1], pbc=m[2], cutoff=cutoff) for m in members
    ]
    empty = np.zeros(0, dtype=np.int64)
    for k in (0, 1):
        expected = [s[k] + start for s, start in zip(single, atom_ptr, strict=False)]
        np.testing.assert_array_equal(batch[k], np.concatenate([empty, *expected]))
    np.testing.assert_array_equal(
        batch.shifts, np.concatenate([np.zeros((0, 3)), *(s[2] for s in single)])
    )
    counts = np.bincount(batch.idx_i, minlength=len(positions))
    np.testing.assert_array_equal(batch.row_ptr, np.concatenate([[0], np.cumsum(counts)]))


# ---- chosen cells


@pytest.mark.parametrize("cutoff", [1.0, np.sqrt(2), 2.0, 5.0])
@pytest.mark.parametrize("pbc", [True, False])
def test_a_pair_exactly_at_the_cutoff_is_no_neighbor(cutoff, pbc):
    """On a cubic lattice of 1 Å many distances are the cutoff itself; `d < cutoff` decides, as in ASE."""
    positions = np.array(list(itertools.product(range(6), repeat=3)), dtype=float)
    cell = 6 * np.eye(3)
    expected = by_ase(positions, cell, pbc, cutoff)
    check(positions, cell, pbc, cutoff, expected)
    vectors = np.array(list(itertools.product(range(-5, 6), repeat=3)))
    nearer = np.sqrt((vectors**2).sum(1)) < cutoff
    if pbc:
        assert len(expected) == 216 * (nearer.sum() - 1)


def test_loops_agree_with_ase_and_with_the_list():
    rng = np.random.default_rng(1)
    for pbc in itertools.product([False, True], repeat=3):
        cell = 3 * np.eye(3) + rng.normal(size=(3, 3), scale=0.4)
        positions = rng.random((4, 3)) @ cell
        expected = by_loops(positions, cell, pbc, 3.5)
        np.testing.assert_array_equal(expected, by_ase(positions, cell, pbc, 3.5))
        check(positions, cell, pbc, 3.5, expected)


@pytest.mark.parametrize("name", ["CH3CH2OH", "C6H6", "H2O", "H"])
def test_molecules(name):
    atoms = molecule(name)
    i, j = neighbor_list("ij", atoms, 5.0)
    np.testing.assert_array_equal(i, np.sort(i))
    for center in range(len(atoms)):  # promised for small open structures
        assert (np.diff(j[i == center]) > 0).all()
    check(atoms.positions, None, False, 5.0, by_ase(atoms.positions, None, False, 5.0))


@pytest.mark.parametrize(
    "atoms", [bulk("NaCl", "rocksalt", 5.64), bulk("Cu") * (3, 2, 1), bulk("Ti") * (1, 1, 6)]
)
def test_crystals(atoms):
    for cutoff in (2.0, 6.2, 11.1):  # between shells: equal distances differ in their last bit
        d = neighbor_list("d", atoms, cutoff + 0.01)
        assert (np.abs(d - cutoff) > 1e-6).all()
        expected = by_ase(atoms.positions, atoms.cell.array, True, cutoff)
        check(atoms.positions, atoms.cell.array, True, cutoff, expected)


def test_water_from_the_data_set():
    frames = np.load(DATA / "water64_2frames.npz")
    names = frames.files
    positions = frames["R"] if "R" in names else frames["positions"].reshape(2, -1, 3)
    cell = frames["cell"] if "cell" in names else frames["cells"]
    for k in range(2):
        box = cell if cell.ndim == 2 else cell[k]
        check(
            np.ascontiguousarray(positions[k], dtype=float),
            box,
            True,
            5.0,
            by_ase(positions[k].astype(float), box, True, 5.0),
        )


def liquid(n_side, seed=0):
    """Three atoms per molecule at the density of water, atoms scattered about the box."""
    rng = np.random.default_rng(seed)
    a = 29.97 ** (1 / 3)
    centers = a * np.array(list(itertools.product(range(n_side), repeat=3)))
    positions = (centers[:, None] + rng.normal(scale=0.6, size=(n_side**3, 3, 3))).reshape(-1, 3)
    return positions, a * n_side * np.eye(3)


@pytest.mark.parametrize("pbc", [True, False, (True, False, True)])
def test_thousands_of_atoms(pbc):
    """Through the grid, with threads, in shuffled order too."""
    positions, cell = liquid(14)
    cell[2, 0] = 5.0  # not orthogonal
    assert len(positions) > 2 * 4096
    expected = by_ase(positions, cell, pbc, 4.0)
    check(positions, cell, pbc, 4.0, expected)
    order = np.random.default_rng(0).permutation(len(positions))
    i, j, shifts = neighbor_list(
        "ijS", positions=positions[order], cell=cell, pbc=pbc, cutoff=4.0, threads=2
    )
    np.testing.assert_array_equal(in_order(order[i], order[j], shifts), expected)


def test_results_that_are_streamed_past_the_caches():
    """More than a million pairs."""
    positions, cell = liquid(12)
    i, j, shifts, d, r = everywhere(positions, cell, True, 8.0)
    assert len(i) > 1_000_000
    np.testing.assert_allclose(r, positions[j] - positions[i] + shifts @ cell, rtol=0, atol=1e-11)
    assert (d < 8).all() and len(np.unique(in_order(i, j, shifts), axis=0)) == len(i)
    near = d < 4  # what remains is a list that the test above compares with ASE
    np.testing.assert_array_equal(
        in_order(i[near], j[near], shifts[near]), by_ase(positions, cell, True, 4.0)
    )
    for letters, arrays in (("i", [i]), ("j", [j]), ("S", [shifts]), ("Sj", [shifts, j])):
        for threads in (1, 2):
            result = _C.neighbor_list(letters, positions, cell, True, 8.0, threads)
            for array, expected in zip(
                result if len(letters) > 1 else [result], arrays, strict=True
            ):
                np.testing.assert_array_equal(array, expected)


def test_more_points_than_fit_in_eighteen_bits():
    """More than 256k atoms; the neighbors on a chain are known without another program."""
    n = 300_000
    positions = np.zeros((n, 3))
    positions[:, 0] = np.arange(n)
    for isa in ISAS:
        i, j = _C.neighbor_list("ij", positions, None, None, 1.5, 1, isa)
        np.testing.assert_array_equal(np.bincount(i, minlength=n), [1, *[2] * (n - 2), 1])
        np.testing.assert_array_equal(np.abs(i - j), 1)


def test_a_block_of_very_many_candidates():
    """All atoms in one bin of the grid: long rows, and the limits of every buffer."""
    rng = np.random.default_rng(3)
    positions = rng.random((1500, 3))
    i, j, shifts, _, _ = everywhere(positions, None, False, 10.0)
    np.testing.assert_array_equal(np.bincount(i), 1499)
    assert (i != j).all() and (shifts == 0).all()


@pytest.mark.parametrize("boxes", [300, 100_000])
def test_atoms_far_outside_the_cell(boxes):
    """Shifts far beyond 8 and 16 bits."""
    rng = np.random.default_rng(2)
    cell = np.array([[6.0, 0, 0], [2.0, 7, 0], [1, -3, 5.5]])
    positions = rng.random((30, 3)) @ cell
    moved = rng.integers(-boxes, boxes + 1, (30, 3))
    i, j, shifts, d, _ = everywhere(positions + moved @ cell, cell, True, 4.0)
    np.testing.assert_array_equal(
        in_order(i, j, shifts + moved[j] - moved[i]), by_ase(positions, cell, True, 4.0)
    )
    assert np.abs(shifts).max() > boxes / 2
    assert (d < 4).all()


def test_an_atom_is_a_neighbor_of_its_own_images():
    i, j, shifts = neighbor_list(
        "ijS", positions=[[0.2, 0.3, 0.4]], cell=[1, 1, 1], pbc=True, cutoff=1.2
    )
    assert (i == 0).all() and (j == 0).all()
    assert sorted(map(tuple, shifts.tolist())) == sorted(
        s for s in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, s)) == 1
    )
    position = np.array([[0.2, 0.3, 0.4]])
    thin = np.diag([0.5, 0.6, 0.7])
    check(position, thin, True, 3.0, by_ase(position, thin, True, 3.0))


def test_atoms_on_one_spot_are_a_pair():
    i, j, d = neighbor_list("ijd", positions=np.ones((3, 3)), cutoff=1.0)
    assert i.tolist() == [0, 0, 1, 1, 2, 2] and j.tolist() == [1, 2, 0, 2, 0, 1]
    assert d.tolist() == [0.0] * 6


def test_a_tiny_skewed_cell_with_a_long_cutoff():
    cell = np.array(
        [[2.5, 0, 0], [30.3, 2.4, 0], [-17.0, 40.8, 2.6]]
    )  # thinner than the cutoff, far from reduced
    positions = np.array([[0.0, 0, 0], [1, 1, 1]])
    reduced = np.array([[2.5, 0, 0], [0.3, 2.4, 0], [0.4, 0.0, 2.6]])  # the same lattice
    i, _, _, d, _ = everywhere(positions, cell, True, 10.0)
    i_reduced, _, _, d_reduced, _ = everywhere(positions, reduced, True, 10.0)
    np.testing.assert_allclose(np.sort(d[i == 0]), np.sort(d_reduced[i_reduced == 0]), atol=1e-9)
    shells = 4 / 3 * np.pi * 10**3 / abs(np.linalg.det(cell)) * 2
    assert abs((i == 0).sum() / shells - 1) < 0.1


@pytest.mark.parametrize("missing", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_zero_vectors_along_open_axes(missing):
    rng = np.random.default_rng(4)
    cell = 4 * np.eye(3) + rng.normal(size=(3, 3), scale=0.3)
    positions = rng.random((12, 3)) @ cell
    pbc = np.array([k not in missing for k in range(3)])
    expected = by_ase(positions, cell, pbc, 4.5)
    for value in (0.0, np.nan, 1e300):  # whatever stands there is not looked at
        changed = cell.copy()
        changed[list(missing)] = value
        i, j, shifts = neighbor_list("ijS", positions=positions, cell=changed, pbc=pbc, cutoff=4.5)
        np.testing.assert_array_equal(in_order(i, j, shifts), expected)


def test_huge_distances():
    clusters = np.concatenate([molecule("C6H6").positions, molecule("C6H6").positions + 1e9])
    i, j = neighbor_list("ij", positions=clusters, cutoff=5.0)
    assert len(i) == 2 * 12 * 11 and (i // 12 == j // 12).all()
    sparse = np.random.default_rng(5).random((1000, 3)) * 1e6
    assert len(neighbor_list("i", positions=sparse, cutoff=5.0)) == 0
    assert len(neighbor_list("i", positions=sparse, cutoff=1e30)) == 1000 * 999


def test_flat_and_long_structures():
    rng = np.random.default_rng(6)
    for extent in ([100, 100, 0.1], [1000, 1, 1], [0, 0, 500], [300, 0, 300]):
        positions = rng.random((500, 3)) * extent
        check(positions, None, False, 5.0, by_ase(positions, None, False, 5.0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pbc", [True, False])
def test_no_atoms_and_one_atom(dtype, pbc):
    for n_atoms in (0, 1):
        i, j, d, r, shifts = neighbor_list(
            "ijdDS", positions=np.zeros((n_atoms, 3), dtype), cell=[9, 9, 9], pbc=pbc, cutoff=3.0
        )
        assert i.shape == j.shape == d.shape == (0,) and r.shape == shifts.shape == (0, 3)
    empty = batch_neighbor_list(np.zeros((0, 3)), [0], 3.0)
    assert empty.row_ptr.tolist() == [0] and len(empty.idx_i) == 0
    gaps = batch_neighbor_list(np.zeros((2, 3)), [0, 0, 2, 2], 3.0)
    assert gaps.row_ptr.tolist() == [0, 1, 2] and gaps.idx_j.tolist() == [1, 0]


def test_batches_with_threads():
    """Small structures are divided among threads, large ones are worked on by all."""
    rng = np.random.default_rng(7)
    for sizes in ([20] * 600, [3000, 1, 9000, 0, 500]):
        atom_ptr = np.cumsum([0, *sizes])
        positions = rng.random((atom_ptr[-1], 3)) * 12
        cells = np.broadcast_to(12 * np.eye(3), (len(sizes), 3, 3))
        pbc = rng.random((len(sizes), 3)) < 0.5
        one = batch_neighbor_list(positions, atom_ptr, 2.0, cells, pbc, threads=1)
        many = batch_neighbor_list(positions, atom_ptr, 2.0, cells, pbc, threads=3)
        for a, b in zip(one, many, strict=True):
            np.testing.assert_array_equal(a, b)
        start = atom_ptr[-2]
        own = one.idx_i >= start
        alone = neighbor_list(
            "ijS", positions=positions[start:], cell=cells[-1], pbc=pbc[-1], cutoff=2.0
        )
        np.testing.assert_array_equal(one.idx_i[own] - start, alone[0])
        np.testing.assert_array_equal(one.idx_j[own] - start, alone[1])
        np.testing.assert_array_equal(one.shifts[own], alone[2])


# ---- the interface


def test_drop_in_for_ase():
    atoms = bulk("NaCl", "rocksalt", 5.64) * (2, 1, 1)
    atoms.rattle(0.05)
    ours = dict(zip("ijdDS", neighbor_list("ijdDS", atoms, 6.0), strict=True))
    theirs = dict(zip("ijdDS", ase.neighborlist.neighbor_list("ijdDS", atoms, 6.0), strict=True))
    a = np.lexsort(np.column_stack([ours[k] for k in "ijS"]).T[::-1])
    b = np.lexsort(np.column_stack([theirs[k] for k in "ijS"]).T[::-1])
    for letter in "ijS":
        np.testing.assert_array_equal(ours[letter][a], theirs[letter][b])
    for letter in "dD":
        np.testing.assert_allclose(ours[letter][a], theirs[letter][b], atol=1e-12)
    for letters in ("S", "dj", "DSdji", "ii", "iSSi"):
        result = neighbor_list(letters, atoms, 6.0)
        assert isinstance(result, np.ndarray) == (len(letters) == 1)
        for letter, array in zip(letters, [result] if len(letters) == 1 else result, strict=True):
            np.testing.assert_array_equal(array, ours[letter])
    assert [ours[k].dtype for k in "ijdDS"] == [
        np.int64,
        np.int64,
        np.float64,
        np.float64,
        np.int32,
    ]


def test_forms_of_the_arguments():
    positions = molecule("CH3CH2OH").positions + 1
    cell = 4.0 * np.eye(3)
    expected = neighbor_list(
        "ijS", positions=positions, cell=cell, pbc=[True, True, True], cutoff=3.0
    )
    atoms = Atoms("H" * len(positions), positions, cell=cell, pbc=True)
    wide = np.zeros((len(positions), 6))
    wide[:, ::2] = positions
    for given_positions, given_cell, pbc in [
        (positions.tolist(), cell.tolist(), True),
        (wide[:, ::2], cell.T, np.True_),
        (np.asfortranarray(positions), [4, 4, 4], (1, 1, 1)),
        (positions.astype(">f8"), np.full(3, 4.0), np.ones(3, dtype=bool)),
        (torch.as_tensor(positions), cell, np.ones(3, dtype=int)),
    ]:
        result = neighbor_list("ijS", positions=given_positions, cell=given_cell, pbc=pbc, cutoff=3)
        for a, b in zip(result, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(neighbor_list("ijS", atoms, 3.0), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    partly = neighbor_list("ij", positions=np.arange(6).reshape(2, 3), cutoff=6)
    assert partly[0].tolist() == [0, 1]


POSITIONS = np.zeros((2, 3))
FLAT = np.array([[1.0, 0, 0], [2, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cutoff": -1.0}, ValueError, "`cutoff` must be positive and finite, got -1"),
        ({"cutoff": 0.0}, ValueError, "`cutoff` must be positive and finite, got 0"),
        ({"cutoff": np.nan}, ValueError, "`cutoff` must be positive and finite, got nan"),
        ({"cutoff": np.inf}, ValueError, "`cutoff` must be positive and finite, got inf"),
        ({"cutoff": {}}, TypeError, "`cutoff` must be a number, got {}"),
        ({"cutoff": None}, TypeError, "`cutoff` must be a number, got None"),
        (
            {"positions": [[0, 0, np.nan]]},
            ValueError,
            "`positions` must be finite, got nan for atom 0",
        ),
        (
            {"positions": [[0, 0, 0], [0, -np.inf, 0]]},
            ValueError,
            "`positions` must be finite, got -inf for atom 1",
        ),
        (
            {"positions": [[0, 0, 0], [0, 1e13, 0]]},
            ValueError,
            "`positions` must lie within 1e12 Å",
        ),
        (
            {"positions": [0.0, 0, 0]},
            ValueError,
            "`positions` must have shape (n_atoms, 3), got (3,)",
        ),
        (
            {"positions": [[0.0, 0]]},
            ValueError,
            "`positions` must have shape (n_atoms, 3), got (1, 2)",
        ),
        (
            {"positions": [["a", "b", "c"]]},
            TypeError,
            "`positions` must be real numbers, got dtype",
        ),
        (
            {"positions": [[1j, 0, 0]]},
            TypeError,
            "`positions` must be real numbers, got dtype complex128",
        ),
        ({"positions": None}, ValueError, "`atoms` or `positions` must be given"),
        ({"atoms": molecule("H2O")}, ValueError, "`atoms` must not be combined with `positions`"),
        ({"cell": np.eye(2)}, ValueError, "`cell` must have shape (3, 3) or (3,), got (2, 2)"),
        ({"cell": ["a"]}, TypeError, "`cell` must be an array of numbers"),
        ({"pbc": True}, ValueError, "`cell` must be given for periodic axes"),
        ({"pbc": True, "cell": FLAT}, ValueError, "`cell` must have linearly independent vectors"),
        (
            {"pbc": True, "cell": [1, 0, 1]},
            ValueError,
            "`cell` must have linearly independent vectors",
        ),
        (
            {"pbc": [1, 1, 0], "cell": [[1, 0, 0], [1, 1e-14, 0], [0, 0, 1]]},
            ValueError,
            "`cell` must have linearly",
        ),
        (
            {"pbc": True, "cell": [1, np.nan, 1]},
            ValueError,
            "`cell` must be finite along the periodic axes",
        ),
        (
            {"pbc": True, "cell": [1, 1, 1], "positions": [[1e10, 0, 0]]},
            ValueError,
            "`positions` must lie within",
        ),
        (
            {"pbc": True, "cell": [1e-9, 1, 1]},
            ValueError,
            "`cutoff` must reach fewer than 2^31 atoms and images, but 3 Å reach",
        ),
        ({"pbc": [True, False]}, ValueError, "`pbc` must be one flag or three, got [True, False]"),
        ({"pbc": "yes"}, ValueError, "`pbc` must be one flag or three, got 'yes'"),
        (
            {"quantities": "ijx"},
            ValueError,
            "`quantities` must be letters out of 'ijdDS', got 'ijx'",
        ),
        ({"quantities": ""}, ValueError, "`quantities` must be letters out of 'ijdDS', got ''"),
        ({"threads": 0}, ValueError, "`threads` must be at least 1, got 0"),
    ],
)
def test_errors_name_the_argument(arguments, error, message):
    good = {"quantities": "ij", "positions": POSITIONS, "cutoff": 3.0}
    with pytest.raises(error, match=re.escape(message)):
        neighbor_list(**{**good, **arguments})
    assert len(neighbor_list(**good)[0]) == 2  # and nothing is left over from the failure


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"atom_ptr": [0, 1]}, ValueError, "`atom_ptr` must end at the number of atoms, 2, got 1"),
        ({"atom_ptr": [1, 2]}, ValueError, "`atom_ptr` must begin at 0, got 1"),
        ({"atom_ptr": [0, 2, 1, 2]}, ValueError, "`atom_ptr` must not decrease, but entry 2 does"),
        ({"atom_ptr": []}, ValueError, "`atom_ptr` must have shape (n_structures + 1,), got (0,)"),
        ({"cells": np.eye(3)}, ValueError, "`cells` must have shape (1, 3, 3), got (3, 3)"),
        ({"pbc": True}, ValueError, "`pbc` must have shape (1, 3), got ()"),
        ({"pbc": [[True] * 3]}, ValueError, "`cell` must be given for periodic axes"),
        (
            {"positions": [[0, 0, 0], [np.nan, 0, 0]]},
            ValueError,
            "`positions` must be finite, got nan for atom 1",
        ),
    ],
)
def test_errors_of_a_batch(arguments, error, message):
    good = {"positions": POSITIONS, "atom_ptr": [0, 2], "cutoff": 3.0}
    with pytest.raises(error, match=re.escape(message)):
        batch_neighbor_list(**{**good, **arguments})


def test_an_instruction_set_must_exist():
    with pytest.raises(
        ValueError, match=re.escape("`isa` must be an instruction set of this machine, got 'mmx'")
    ):
        _C.neighbor_list("i", POSITIONS, None, None, 3.0, 1, "mmx")


def test_two_python_threads_at_once():
    """Each thread has scratch memory of its own, and results are not shared."""
    systems = [liquid(n, seed=n) for n in (2, 5, 9)]
    expected = [neighbor_list("ijS", positions=p, cell=c, pbc=True, cutoff=4.0) for p, c in systems]
    failures = []

    def work(order):
        for k in order:
            positions, cell = systems[k]
            result = neighbor_list(
                "ijS", positions=positions, cell=cell, pbc=True, cutoff=4.0, threads=2
            )
            if not all(np.array_equal(a, b) for a, b in zip(result, expected[k], strict=True)):
                failures.append(k)

    orders = [[0, 1, 2] * 6, [2, 1, 0] * 6]
    threads = [threading.Thread(target=work, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_results_stay_valid_after_later_calls():
    """Buffers are reused only after the arrays in them are gone."""
    positions, cell = liquid(8)
    kept = neighbor_list("ijS", positions=positions, cell=cell, pbc=True, cutoff=5.0)
    copies = [array.copy() for array in kept]
    view = kept[1][10:20]
    for scale in (0.99, 1.01, 1.0):
        neighbor_list("ijS", positions=positions * scale, cell=cell * scale, pbc=True, cutoff=5.0)
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    expected = copies[1][10:20]
    del kept
    neighbor_list("ijS", positions=positions[::-1], cell=cell, pbc=True, cutoff=5.0)
    np.testing.assert_array_equal(view, expected)
    view[:] = 0  # writable


# ---- the torch operator


def op_arguments(dtype=torch.float64):
    positions, cell = liquid(2)
    second = torch.as_tensor(molecule("CH3CH2OH").positions)
    positions = torch.cat([torch.as_tensor(positions), second]).to(dtype)
    cells = torch.stack([torch.as_tensor(cell), torch.zeros(3, 3, dtype=torch.float64)])
    pbc = torch.tensor([[True] * 3, [False] * 3])
    return positions, torch.tensor([0, 24, len(positions)]), cells, pbc, 4.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_operator_equals_numpy(dtype):
    positions, atom_ptr, cells, pbc, cutoff = op_arguments(dtype)
    expected = batch_neighbor_list(positions.numpy(), atom_ptr, cutoff, cells, pbc)
    for result in (
        scschnet.ops.neighbor_list(positions, atom_ptr, cells, pbc, cutoff),
        scschnet.ops.neighbor_list(positions.T.contiguous().T, atom_ptr, cells, pbc, cutoff),
    ):
        for a, b in zip(result, expected, strict=True):
            assert a.numpy().dtype == b.dtype
            np.testing.assert_array_equal(a.numpy(), b)


def test_torch_operator_with_large_results():
    positions, cell = liquid(10)
    arguments = (
        torch.as_tensor(positions),
        torch.tensor([0, len(positions)]),
        torch.as_tensor(cell)[None],
    )
    pbc = torch.ones(1, 3, dtype=torch.bool)
    kept = scschnet.ops.neighbor_list(*arguments, pbc, 4.0)
    scschnet.ops.neighbor_list(*arguments, pbc, 3.9)
    expected = batch_neighbor_list(positions, [0, len(positions)], 4.0, cell[None], pbc)
    for a, b in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)


def test_opcheck():
    torch.library.opcheck(torch.ops.scschnet.neighbor_list.default, op_arguments())


@pytest.mark.parametrize(
    ("index", "value", "error", "message"),
    [
        (0, torch.zeros(3), ValueError, "`positions` must have shape (n_atoms, 3), got [3]"),
        (
            0,
            torch.zeros(33, 3, dtype=torch.int64),
            TypeError,
            "`positions` must be float32 or float64, got Long",
        ),
        (
            0,
            torch.full((33, 3), torch.nan),
            ValueError,
            "`positions` must be finite, got nan for atom 0",
        ),
        (
            1,
            torch.tensor([0, 33], dtype=torch.int32),
            TypeError,
            "`atom_ptr` must be int64, got Int",
        ),
        (
            1,
            torch.tensor([0, 24, 30]),
            ValueError,
            "`atom_ptr` must end at the number of atoms, 33",
        ),
        (
            1,
            torch.zeros(0, dtype=torch.int64),
            ValueError,
            "`atom_ptr` must have shape (n_structures + 1,), got [0]",
        ),
        (2, torch.zeros(2, 3), ValueError, "`cells` must have shape (2, 3, 3), got [2, 3]"),
        (
            2,
            torch.zeros(2, 3, 3, dtype=torch.int64),
            TypeError,
            "`cells` must be float32 or float64, got Long",
        ),
        (2, torch.zeros(2, 3, 3), ValueError, "`cell` must have linearly independent vectors"),
        (3, torch.zeros(3, dtype=torch.bool), ValueError, "`pbc` must have shape (2, 3), got [3]"),
        (3, torch.zeros(2, 3), TypeError, "`pbc` must be bool, got Float"),
        (4, -1.0, ValueError, "`cutoff` must be positive and finite, got -1"),
    ],
)
def test_torch_operator_errors(index, value, error, message):
    arguments = list(op_arguments())
    arguments[index] = value
    with pytest.raises(error, match=re.escape(message)):
        torch.ops.scschnet.neighbor_list(*arguments)


@pytest.mark.parametrize("cell", [None, 4.0])
@pytest.mark.parametrize("kind", ["elements", "radii"])
def test_cutoffs_that_differ_are_those_of_ase(kind, cell):
    """A dictionary by elements, symbols or numbers, and a radius of each atom."""
    atoms = molecule("CH3CH2OH")
    if cell is not None:
        atoms.cell, atoms.pbc = np.eye(3) * cell, True
    cutoff = {
        "elements": {("H", "C"): 1.3, ("O", "C"): 2.6, (1, 1): 1.9},
        "radii": ase.neighborlist.natural_cutoffs(atoms, mult=1.4),
    }[kind]
    ours = scschnet.neighbor_list("ijdS", atoms, cutoff)
    theirs = ase.neighborlist.neighbor_list("ijdS", atoms, cutoff)

    def pairs(found):
        i, j, d, shifts = found
        return sorted(zip(i, j, map(tuple, shifts.tolist()), d.round(9), strict=True))

    assert pairs(ours) == pairs(theirs)
    assert len(ours[0]) > 10
    np.testing.assert_array_equal(scschnet.neighbor_list("j", atoms, cutoff), ours[1])


@pytest.mark.parametrize(
    ("cutoff", "message"),
    [
        ([1.0, 1.0], r"a radius not below zero for each of 9 atoms, got an array of shape \(2,\)"),
        ([-1.0] * 9, "a radius not below zero for each of 9 atoms"),
        ({("H", "Qq"): 1.0}, r"must have pairs of elements as keys, got \('H', 'Qq'\)"),
        ({("H", "H"): -1.0}, r"must not be negative, got -1.0 for \('H', 'H'\)"),
    ],
)
def test_bad_cutoffs_that_differ_are_named(cutoff, message):
    with pytest.raises(ValueError, match=message):
        scschnet.neighbor_list("i", molecule("CH3CH2OH"), cutoff)


# ---- lists that cannot fit

FITS = """
import resource, sys
import numpy as np
from scschnet import _C
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
cell, positions, cutoff = eval(sys.argv[1])
try:
    print(len(_C.neighbor_list("i", positions, cell, cell is not None, cutoff, 1)))
except ValueError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
SHORT_SUM = (
    "(np.array([[10, 0, 0], [-5, 8.660254, 0], [-5, -8.660254, {}]]), np.zeros((1, 3)), 5.0)"
)
NO_ROOM = "`cutoff` must be short enough for a list that fits into memory, 4.29 GB, but"
TOO_MANY = "`cutoff` must reach fewer than 2^31 atoms and images, but"


@pytest.mark.parametrize(
    ("case", "answer"),
    [
        ("(np.eye(3), np.zeros((1, 3)), 300.0)", f"{NO_ROOM} 300 Å give at least 1.1"),
        ("(np.eye(3) * 1e-3, np.zeros((1, 3)), 5.0)", f"{TOO_MANY} 5 Å reach 1e+12 in a `cell` 0.0"),
        (SHORT_SUM.format("5e-2"), "198"),
        (SHORT_SUM.format("1e-3"), "999"),
        ("(np.eye(3) * 10, np.random.rand(100, 3) * 10, 200.0)", f"{NO_ROOM} 200 Å give at least"),
        ("(None, np.zeros((100_000, 3)), 5.0)", f"{NO_ROOM} 5 Å give at least 5.2"),
        ("(None, np.random.rand(100_000, 3) * 8, 5.0)", f"{NO_ROOM} 5 Å give at least"),
        ("(np.eye(3) * 8, np.random.rand(50_000, 3) * 8, 5.0)", f"{NO_ROOM} 5 Å give at least"),
        ("(np.eye(3) * 10, np.zeros((1, 3)), 1e300)", f"{TOO_MANY} 1e+300 Å reach inf in a `cell` 10"),
        ("(np.eye(3) * 1e12, np.zeros((1, 3)), 1.5e12)", "`cutoff` must be below 1e11 Å"),
        ("(None, np.eye(3), 1e300)", "6"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_fit_is_refused_before_its_memory_is_taken(case, answer):
    done = subprocess.run([sys.executable, "-c", FITS, case], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, megabytes = done.stdout.splitlines()
    assert said.startswith(answer)
    assert int(megabytes) < 700


def test_a_basis_whose_sum_is_short_is_the_same_lattice():
    """No two of its vectors show that a + b + c is shorter than each of them."""
    rng = np.random.default_rng(0)
    short = np.array([[0.3, 0.2, 2.1], [6.0, 0.4, 0.1], [-2.7, 5.5, 0.3]])
    positions = rng.random((5, 3)) @ short
    expected = np.sort(neighbor_list("d", positions=positions, cell=short, pbc=True, cutoff=6.0))
    tried = 0
    for signs in itertools.product((1, -1), repeat=3):
        a, b, c = (sign * vector for sign, vector in zip(signs, short, strict=True))
        cell = np.array([b, c, a - b - c])
        i, j, d, s = neighbor_list("ijdS", positions=positions, cell=cell, pbc=True, cutoff=6.0)
        np.testing.assert_allclose(np.sort(d), expected, rtol=0, atol=1e-12)
        r = positions[j] - positions[i] + s @ cell
        np.testing.assert_allclose(np.linalg.norm(r, axis=1), d, rtol=0, atol=1e-12)
        tried += 1
    assert tried == 8
