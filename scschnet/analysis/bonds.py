"""Bonds from covalent radii, and the number of bonds between two atoms."""

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from scschnet.data import StructureSet
from scschnet.neighbors import batch_neighbor_list

BOND_FACTOR = 1.25
"""Two atoms are bonded if nearer than so many times the sum of their covalent radii."""
UNBONDED = -1


def distances(structures: StructureSet, m: int) -> NDArray[np.float64]:
    """Distance of every two atoms of a structure, nearest images, (n, n), Å."""
    atoms = slice(structures.atom_ptr[m], structures.atom_ptr[m + 1])
    molecule = Atoms(
        structures.atomic_numbers[atoms],
        structures.positions[atoms],
        cell=structures.cells[m],
        pbc=structures.pbc[m],
    )
    return molecule.get_all_distances(mic=bool(structures.pbc[m].any()))


def bonded(structures: StructureSet, m: int) -> NDArray[np.bool_]:
    """Which atoms of a structure are bonded, (n, n): nearer than 1.25 times the sum of the covalent radii.

    Radii: Cordero et al. 2008, doi:10.1039/b801115j, as in ase.data.
    """
    atoms = slice(structures.atom_ptr[m], structures.atom_ptr[m + 1])
    radii = covalent_radii[structures.atomic_numbers[atoms]]
    near = distances(structures, m) < BOND_FACTOR * (radii[:, None] + radii[None, :])
    np.fill_diagonal(near, False)
    return near


def bond_counts(adjacent: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Bonds on the shortest way between every two atoms, (n, n); UNBONDED where there is no way.

    Args:
        adjacent: which atoms are bonded, (n, n).
    """
    n = len(adjacent)
    counts = np.full((n, n), UNBONDED, dtype=np.int64)
    reached = np.eye(n, dtype=bool)
    counts[reached] = 0
    for steps in range(1, n):
        further = ((reached.astype(np.int64) @ adjacent) > 0) & (counts == UNBONDED)
        if not further.any():
            break
        counts[further] = steps
        reached = further
    return counts


def coordination(structures: StructureSet) -> NDArray[np.int64]:
    """Number of bonded neighbors of every atom, periodic images included, (n_atoms,)."""
    radii = covalent_radii[structures.atomic_numbers]
    longest = 2 * BOND_FACTOR * float(radii.max(initial=0.1))
    pairs = batch_neighbor_list(
        structures.positions, structures.atom_ptr, longest, structures.cells, structures.pbc
    )
    i, j = pairs.idx_i, pairs.idx_j
    shift = np.einsum("pa,pab->pb", pairs.shifts, structures.cells[structures.idx_m[i]])
    d_ij = np.linalg.norm(structures.positions[j] - structures.positions[i] + shift, axis=1)
    near = d_ij < BOND_FACTOR * (radii[i] + radii[j])
    return np.bincount(i[near], minlength=len(structures.positions)).astype(np.int64)
