"""What makes a structure unusable, found before anything is computed from it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scschnet.data.structure import StructureSet
from scschnet.neighbors import batch_neighbor_list

SAME_PLACE = 0.05
"""Two atoms closer than this, Å, are on top of each other."""

_CHUNK_ATOMS = 200_000
_FLAT = 1e-6  # volume (area, length) of the periodic cell vectors over the product of their lengths


def check_usable(structures: StructureSet) -> None:
    """Check that every structure can be computed: values, atoms, cells, and atoms apart.

    Raises:
        ValueError: naming the structures and what is wrong with them.
    """
    structures.check_values()
    empty = np.flatnonzero(structures.n_atoms == 0)
    _refuse(empty, "must have atoms, got none")
    _refuse(np.flatnonzero(flat_cells(structures)), "must have a cell that spans its periodic axes")
    clashes = [pair for pairs in _clashes(structures) for pair in pairs]
    if clashes:
        m, one, other, distance = clashes[0]
        _refuse(
            np.unique([clash[0] for clash in clashes]),
            f"must have its atoms apart, got atoms {one} and {other} of structure {m} "
            f"{distance:.4f} Å from each other",
        )


def flat_cells(structures: StructureSet) -> NDArray[np.bool_]:
    """Structures whose periodic cell vectors are zero or lie in a plane or line, (n_structures,)."""
    flat = np.zeros(len(structures), bool)
    lengths = np.linalg.norm(structures.cells, axis=2)
    for pbc in np.unique(structures.pbc, axis=0):
        if pbc.any():
            chosen = np.flatnonzero((structures.pbc == pbc).all(axis=1))
            vectors = structures.cells[chosen][:, pbc]
            spanned = np.sqrt(np.abs(np.linalg.det(vectors @ vectors.transpose(0, 2, 1))))
            flat[chosen] = spanned <= _FLAT * lengths[chosen][:, pbc].prod(axis=1)
    return flat


def _clashes(structures: StructureSet) -> Iterator[list[tuple[int, int, int, float]]]:
    """(structure, atom, other atom, distance in Å) of each pair on top of each other, by chunk."""
    start = 0
    while start < len(structures):
        limit = structures.atom_ptr[start] + _CHUNK_ATOMS
        stop = max(start + 1, int(np.searchsorted(structures.atom_ptr, limit, "right")) - 1)
        part = structures.select(np.arange(start, stop))
        pairs = batch_neighbor_list(
            part.positions, part.atom_ptr, SAME_PLACE, cells=part.cells, pbc=part.pbc
        )
        idx_m = part.idx_m[pairs.idx_i]
        shifts = np.einsum("ij,ijk->ik", pairs.shifts, part.cells[idx_m])
        d_ij = np.linalg.norm(
            part.positions[pairs.idx_j] - part.positions[pairs.idx_i] + shifts, axis=1
        )
        first = part.atom_ptr[idx_m]
        columns = (start + idx_m, pairs.idx_i - first, pairs.idx_j - first, d_ij)
        yield [(int(m), int(i), int(j), float(d)) for m, i, j, d in zip(*columns, strict=True)]
        start = stop


def _refuse(bad: NDArray[np.int64], reason: str) -> None:
    if len(bad):
        more = (
            f" (and {len(bad) - 1} more: {', '.join(map(str, bad[1:6]))})" if len(bad) > 1 else ""
        )
        raise ValueError(f"structure {bad[0]} {reason}{more}")
