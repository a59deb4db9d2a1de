"""Pairs of atoms within a cutoff, of sets of any size: a few structures at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scschnet.data.structure import StructureSet
from scschnet.neighbors import batch_neighbor_list

CHUNK_ATOMS = 200_000


class ClosePairs(NamedTuple):
    """Pairs of some consecutive structures.

    Attributes:
        idx_m: (n_pairs,) int64, structure of each pair, counted in the whole set.
        idx_i: (n_pairs,) int64, center, counted from the first atom of its structure.
        idx_j: (n_pairs,) int64, neighbor, counted likewise.
        d_ij: (n_pairs,) float64, distance, Å.
    """

    idx_m: NDArray[np.int64]
    idx_i: NDArray[np.int64]
    idx_j: NDArray[np.int64]
    d_ij: NDArray[np.float64]


def close_pairs(structures: StructureSet, cutoff: float) -> Iterator[ClosePairs]:
    """All pairs closer than `cutoff`, in both directions, images included, by chunks of structures.

    Args:
        structures: the set.
        cutoff: Å, positive.
    """
    start = 0
    while start < len(structures):
        limit = structures.atom_ptr[start] + CHUNK_ATOMS
        stop = max(start + 1, int(np.searchsorted(structures.atom_ptr, limit, "right")) - 1)
        part = structures.select(np.arange(start, stop))
        i, j, shifts, _ = batch_neighbor_list(
            part.positions, part.atom_ptr, cutoff, cells=part.cells, pbc=part.pbc
        )
        idx_m = part.idx_m[i]
        r_ij = part.positions[j] - part.positions[i]
        r_ij += np.einsum("ij,ijk->ik", shifts, part.cells[idx_m])
        first = part.atom_ptr[idx_m]
        yield ClosePairs(start + idx_m, i - first, j - first, np.linalg.norm(r_ij, axis=1))
        start = stop
