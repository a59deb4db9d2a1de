"""The half list that is searched for: pair by pair and in order what `half_list` leaves of the full one."""

import pytest
import torch
from ase.build import bulk, molecule
from conftest import make_structures
from hypothesis import given, settings
from test_neighbors import liquid, structures

from scschnet import ops


def both(positions, atom_ptr, cells, pbc, cutoff):
    """The list as it is found, and as it is halved."""
    arguments = (positions, torch.as_tensor(atom_ptr), cells, pbc, cutoff)
    found = ops.half_neighbor_list(*arguments)
    i, j, shifts, _ = ops.neighbor_list(*arguments)
    pairs, row_ptr, half_j = ops.half_list(i, j, shifts, len(positions))
    return found, (i[pairs], half_j, shifts[pairs], row_ptr)


def assert_same(positions, atom_ptr, cells, pbc, cutoff):
    found, expected = both(positions, atom_ptr, cells, pbc, cutoff)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    return len(found[0])


def of_one(positions, cell, pbc, cutoff):
    cell = torch.eye(3) if cell is None else torch.as_tensor(cell)
    pbc = torch.as_tensor(pbc).expand(3)
    positions = torch.as_tensor(positions)
    return assert_same(positions, [0, len(positions)], cell[None], pbc[None], cutoff)


@settings(max_examples=150)
@given(structures())
def test_random_cells(structure):
    of_one(*structure)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch(dtype):
    s = make_structures()
    arrays = (torch.tensor(s.positions, dtype=dtype), s.atom_ptr, s.cells, s.pbc)
    positions, ptr, cells, pbc = (torch.as_tensor(array) for array in arrays)
    assert assert_same(positions, ptr, cells, pbc, 4.0) > 30


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("pbc", [True, False, (True, False, True)])
def test_thousands_of_atoms(pbc, threads):
    """Enough for the grid, for threads and for stores past the caches."""
    positions, cell = liquid(17)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert of_one(positions, cell, pbc, 7.0) > 300_000
    finally:
        torch.set_num_threads(before)


def test_images_of_an_atom_itself():
    atoms = bulk("Al", cubic=False)
    assert of_one(atoms.positions, atoms.cell.array, True, 3.0) == 6  # half of 12 neighbors


def test_a_molecule_and_nothing():
    atoms = molecule("CH3CH2OH")
    assert of_one(atoms.positions, None, False, 20.0) == 9 * 8 // 2
    assert of_one(torch.zeros((0, 3)), None, False, 2.0) == 0
