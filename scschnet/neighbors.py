"""Neighbor list of a structure, in the form ASE and matscipy give it, and of a batch, for training."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from scschnet import _C, ops  # noqa: F401  (ops checks the version of torch)

if TYPE_CHECKING:
    from ase import Atoms


class NeighborList(NamedTuple):
    """Pairs of a batch of structures, sorted by center.

    Attributes:
        idx_i: (n_pairs,) int64 centers.
        idx_j: (n_pairs,) int64 neighbors.
        shifts: (n_pairs, 3) int32 S; r_ij = r_j - r_i + S · cell.
        row_ptr: (n_atoms + 1,) int64; pairs row_ptr[i] .. row_ptr[i + 1] have center i.
    """

    idx_i: NDArray[np.int64]
    idx_j: NDArray[np.int64]
    shifts: NDArray[np.int32]
    row_ptr: NDArray[np.int64]


def neighbor_list(
    quantities: str,
    atoms: "Atoms | None" = None,
    cutoff: float | None = None,
    *,
    positions: ArrayLike | None = None,
    cell: ArrayLike | None = None,
    pbc: ArrayLike | None = None,
    threads: int | None = None,
) -> Any:
    """All pairs of atoms closer than `cutoff`; a drop-in for ASE's `neighbor_list` and matscipy's `neighbour_list`.

    >>> import numpy as np
    >>> i, d = neighbor_list("id", positions=[[0, 0, 0], [0, 0, 1.5]], cutoff=2.0)
    >>> i.tolist(), d.tolist()
    ([0, 1], [1.5, 1.5])

    Args:
        quantities: letters out of "ijdDS", any of them in any order: i center and j neighbor (n_pairs,) int64,
            d distance (n_pairs,) float64, Å, D vector r_j - r_i + S · cell (n_pairs, 3) float64, Å,
            S cell shift (n_pairs, 3) int32.
        atoms: structure; or give `positions` instead.
        cutoff: Å, positive; a pair exactly at the cutoff is left out.
        positions: (n_atoms, 3), Å.
        cell: (3, 3), rows are lattice vectors, or three lengths, Å; None if all axes are open.
        pbc: one flag or three; None: all axes are open.
        threads: at most so many, and only for more than about 5,000 atoms; None: torch.get_num_threads().

    Returns:
        One array for one letter, otherwise a tuple in the order of the letters. Pairs are sorted by i; each appears
        in both directions; images of an atom itself are its neighbors. Order does not depend on `threads`.

    Raises:
        ValueError, TypeError: naming the argument that is wrong.
    """
    if atoms is not None:
        if positions is not None or cell is not None or pbc is not None:
            raise ValueError("`atoms` must not be combined with `positions`, `cell` or `pbc`")
        positions, cell, pbc = atoms.positions, atoms.cell.array, atoms.pbc
    elif positions is None:
        raise ValueError("`atoms` or `positions` must be given")
    if threads is None:
        threads = torch.get_num_threads()
    return _C.neighbor_list(quantities, positions, cell, pbc, cutoff, threads)


def batch_neighbor_list(
    positions: ArrayLike,
    atom_ptr: ArrayLike,
    cutoff: float,
    cells: ArrayLike | None = None,
    pbc: ArrayLike | None = None,
    *,
    threads: int | None = None,
) -> NeighborList:
    """All pairs of atoms closer than `cutoff` in each structure of a batch, in one call.

    Args:
        positions: (n_atoms, 3), Å, the structures one after the other.
        atom_ptr: (n_structures + 1,); structure m owns atoms atom_ptr[m] .. atom_ptr[m + 1].
        cutoff: Å, positive; a pair exactly at the cutoff is left out.
        cells: (n_structures, 3, 3), rows are lattice vectors, Å; None if all axes are open.
        pbc: (n_structures, 3) bool; None: all axes are open.
        threads: at most so many, and only for more than about 5,000 atoms; None: torch.get_num_threads().

    Returns:
        Global atom indices, sorted by center; the same as the structures one by one.

    Raises:
        ValueError, TypeError: naming the argument that is wrong.
    """
    if threads is None:
        threads = torch.get_num_threads()
    return NeighborList(*_C.batch_neighbor_list(positions, atom_ptr, cells, pbc, cutoff, threads))
