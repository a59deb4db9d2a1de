"""Neighbor list of a structure, in the form ASE and matscipy give it, and of a batch, for training."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from ase.data import atomic_numbers as numbers_of
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from scschnet import _C, ops  # noqa: F401  (ops checks the version of torch)

if TYPE_CHECKING:
    from ase import Atoms


_SMALLEST = 1e-3  # Å, of the list that is searched where all cutoffs are zero


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
    cutoff: float | Mapping[tuple[str | int, str | int], float] | ArrayLike | None = None,
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
        cutoff: Å, positive; a pair exactly at the cutoff is left out. Or, as ASE and matscipy take it: a
            radius of each atom, (n_atoms,), whose sum is the cutoff of a pair; or a dictionary from pairs of
            elements, ("H", "C") or (1, 6), in either order, to their cutoff: others are no neighbors.
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
    if cutoff is None or np.isscalar(cutoff) or (isinstance(cutoff, Mapping) and not cutoff):
        return _C.neighbor_list(quantities, positions, cell, pbc, cutoff, threads)
    limits = _cutoffs(cutoff, atoms, len(np.asarray(positions)))
    reach = limits.largest
    i, j, d, *found = _C.neighbor_list(f"ijd{quantities}", positions, cell, pbc, reach, threads)
    kept = d < limits.of_pairs(i, j)
    chosen = tuple(array[kept] for array in found)
    return chosen[0] if len(chosen) == 1 else chosen


class _Cutoffs(NamedTuple):
    """Cutoffs that differ from pair to pair: a table of kinds of atoms, or a radius of each."""

    largest: float
    of_pairs: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


def _cutoffs(cutoff: Any, atoms: "Atoms | None", n_atoms: int) -> _Cutoffs:
    if not isinstance(cutoff, Mapping):
        radii = np.asarray(cutoff, dtype=np.float64)
        if radii.shape != (n_atoms,) or not (np.isfinite(radii).all() and (radii >= 0).all()):
            raise ValueError(
                f"`cutoff` must be a number, a dictionary, or a radius not below zero for each of {n_atoms} "
                f"atoms, got an array of shape {radii.shape}"
            )
        return _Cutoffs(
            max(2 * radii.max(initial=0.0), _SMALLEST), lambda i, j: radii[i] + radii[j]
        )
    if atoms is None:
        raise ValueError("`cutoff` by elements needs `atoms`, got `positions`")
    table = np.zeros((len(chemical_symbols), len(chemical_symbols)))
    for pair, value in cutoff.items():
        one, other = (numbers_of.get(kind, kind) for kind in pair)
        if not all(isinstance(z, int | np.integer) and 0 <= z < len(table) for z in (one, other)):
            raise ValueError(f"`cutoff` must have pairs of elements as keys, got {pair!r}")
        if not 0.0 <= value < np.inf:
            raise ValueError(f"`cutoff` must not be negative, got {value} for {pair!r}")
        table[one, other] = table[other, one] = value
    numbers = atoms.numbers
    return _Cutoffs(max(table.max(), _SMALLEST), lambda i, j: table[numbers[i], numbers[j]])


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
