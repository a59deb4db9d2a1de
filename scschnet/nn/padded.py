"""Batches of a fixed shape, padded, with their half list: what a captured graph is replayed on."""

from typing import NamedTuple

from torch import Tensor


class PaddedPairs(NamedTuple):
    """Half list of a batch, filled up to a fixed number of pairs.

    Padding pairs come last. Either `row_ptr` ends before them, or they stand with the last padding atom
    and `alive` makes their weights zero: the operators for CPUs require rows for all pairs.
    """

    idx_i: Tensor
    """(n_pairs,) int64 centers, ascending"""
    idx_j: Tensor
    """(n_pairs,) int64 partners"""
    shifts: Tensor
    """(n_pairs, 3) int32; padding pairs have one that makes their distance positive and within the tables"""
    row_ptr: Tensor
    """(n_atoms + 1,) int64, pairs row_ptr[i] .. row_ptr[i + 1] have center i"""
    order: Tensor
    """(n_pairs,) int64, 0 .. n_pairs - 1"""
    alive: Tensor | None
    """(n_pairs,), 1 for a pair and 0 for padding, in the dtype of the model; None: `row_ptr` tells"""


class PaddedBatch(NamedTuple):
    """Structures end to end, filled up to a fixed number of atoms.

    Padding atoms come last and belong to one more structure, number n_structures.
    """

    positions: Tensor
    """(n_atoms, 3) float64, Å"""
    cells: Tensor
    """(n_structures + 1, 3, 3) float64, Å, rows are lattice vectors"""
    idx_m: Tensor
    """(n_atoms,) int64, structure of each atom"""
    pairs: PaddedPairs
    atomic_numbers: Tensor
    """(n_atoms,) int64, zero for padding atoms"""
    sizes: Tensor
    """(n_structures,) int64, atoms of each structure; may be zero"""
    volumes: Tensor
    """(n_structures,) float64, Å^3, NaN for a structure without volume"""
