"""What makes a structure unusable, found before anything is computed from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scschnet.data.close_pairs import close_pairs
from scschnet.data.structure import StructureSet

SAME_PLACE = 0.05
"""Two atoms closer than this, Å, are on top of each other."""

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
    for pairs in close_pairs(structures, SAME_PLACE):
        if len(pairs.d_ij):
            m, one, other, distance = (column[0] for column in pairs)
            _refuse(
                np.unique(pairs.idx_m),
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


def _refuse(bad: NDArray[np.int64], reason: str) -> None:
    if len(bad):
        more = (
            f" (and {len(bad) - 1} more: {', '.join(map(str, bad[1:6]))})" if len(bad) > 1 else ""
        )
        raise ValueError(f"structure {bad[0]} {reason}{more}")
