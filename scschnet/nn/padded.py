"""Batches of a fixed shape, with padding, and their half lists: what a captured graph is replayed on."""

from typing import NamedTuple

from torch import Tensor


class PaddedPairs(NamedTuple):
    """Half list of a batch, padded to a fixed number of pairs.

    Padding pairs come last. On a GPU `row_ptr` may end before them. The operators for CPUs require `row_ptr` to
    end at n_pairs: there, padding pairs are in the row of the last padding atom, and `alive` makes their weights zero.
    """

    idx_i: Tensor
    """(n_pairs,) int64 centers, ascending"""
    idx_j: Tensor
    """(n_pairs,) int64 partners"""
    shifts: Tensor
    """(n_pairs, 3) int32; that of a padding pair makes its distance positive and within the tables"""
    row_ptr: Tensor
    """(n_atoms + 1,) int64, pairs row_ptr[i] .. row_ptr[i + 1] have center i"""
    order: Tensor
    """(n_pairs,) int64, 0 .. n_pairs - 1"""
    alive: Tensor | None
    """(n_pairs,), 1 for a pair and 0 for padding, in the dtype of the model; None if `row_ptr` ends before the padding"""


class PaddedBatch(NamedTuple):
    """Structures one after another in flat arrays, padded to a fixed number of atoms.

    Padding atoms come last and belong to an additional structure with the number n_structures.
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
