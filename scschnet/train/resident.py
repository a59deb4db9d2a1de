"""The training structures on the device that trains, and the gathering of padded batches from them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet import ops
from scschnet.data import StructureSet, collate
from scschnet.nn.geometry import pair_vectors
from scschnet.nn.padded import PaddedBatch, PaddedPairs

ATOMS_AT_A_TIME = 20_000  # of which lists are made at once
LABELS = ("energy", "forces", "stress")


class Shape(NamedTuple):
    """Atoms and pairs of a padded batch."""

    n_atoms: int
    n_pairs: int


def padded_shape(n_atoms: int, n_pairs: int) -> Shape:
    """The bucket of a batch: sizes rounded up so that few shapes occur and little is wasted.

    Sixteen numbers of atoms and eight of pairs to every doubling, so at most 1/16 and 1/8 more than there
    are. At least one atom is padding.

    Args:
        n_atoms: atoms of the batch.
        n_pairs: pairs of its half list.
    """
    return Shape(_rounded_up(n_atoms + 1, 16), _rounded_up(max(n_pairs, 1), 8))


def _rounded_up(n: int, per_doubling: int) -> int:
    step = max(1, (1 << (n - 1).bit_length()) // (2 * per_doubling))
    return -(-n // step) * step


@dataclass(frozen=True, eq=False)
class Labels:
    """What a batch is trained on; None: not asked for. Structures and atoms of the padding have zeros.

    Args:
        energy: (n_structures,), eV.
        forces: (n_atoms, 3), eV/Å.
        stress: (n_structures, 3, 3), eV/Å^3.
    """

    energy: Tensor | None
    forces: Tensor | None
    stress: Tensor | None


class Places:
    """Numbers of the atoms and pairs of a shape, made once.

    Args:
        shape: of the batches.
        device: where they are gathered.
    """

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.atoms = torch.arange(shape.n_atoms, device=device)
        self.pairs = torch.arange(shape.n_pairs, device=device)


class ResidentData:
    """Structures with their half lists as flat tensors; a batch is gathered from them by number.

    Every array has one row more than there is data. It is what padding points to: an atom with number
    zero, a pair of it with its own image, half an Å away, and structure n_structures, empty, which
    also fills batches that are short of structures.

    Args:
        structures: the set.
        indices: the structures that are trained on; structure k here is indices[k] there.
        cutoff: Å.
        device: where the data are to be.
        labels: those that are trained on, of energy, forces and stress.

    Attributes:
        sizes: atoms of each structure, on the host.
        pair_counts: pairs of each structure, on the host.
        largest_distance: of all pairs, Å.
    """

    def __init__(
        self,
        structures: StructureSet,
        indices: NDArray[np.int64],
        cutoff: float,
        device: torch.device,
        labels: tuple[str, ...],
    ) -> None:
        part = structures.select(indices)
        pairs = _half_lists(part, cutoff)
        self.device = device
        self.sizes: NDArray[np.int64] = part.n_atoms
        self.pair_counts: NDArray[np.int64] = pairs.counts
        self.largest_distance = pairs.largest_distance
        atoms = torch.from_numpy(part.atom_ptr)
        empty = min(cutoff, 1.0) / 2 * torch.eye(3, dtype=torch.float64)  # on every table
        cells = torch.cat([torch.from_numpy(part.cells), empty[None]])
        volumes = torch.linalg.det(cells).abs()
        self._of_structures = {
            "first_atom": atoms,
            "n_atoms": _with_row(torch.from_numpy(part.n_atoms)),
            "first_pair": pairs.first,
            "n_pairs": _with_row(torch.from_numpy(pairs.counts)),
            "cells": cells,
            "volumes": torch.where(volumes > 0, volumes, torch.nan),
        }
        self._of_atoms = {
            "positions": _with_row(torch.from_numpy(part.positions)),
            "atomic_numbers": _with_row(torch.from_numpy(part.atomic_numbers)),
            "row_start": _with_row(pairs.row_start),
        }
        beside = torch.tensor([[1, 0, 0]], dtype=torch.int32)
        self._of_pairs = {
            "i": _with_row(pairs.i),
            "j": _with_row(pairs.j),
            "shifts": torch.cat([pairs.shifts, beside]),
        }
        self._labels: dict[str, Tensor | None] = dict.fromkeys(LABELS)
        for name in labels:
            self._labels[name] = _with_row(torch.from_numpy(getattr(part, name))).to(device)
        for arrays in (self._of_structures, self._of_atoms, self._of_pairs):
            for name, array in arrays.items():
                arrays[name] = array.to(device)

    def __len__(self) -> int:
        """Number of structures."""
        return len(self.sizes)

    @property
    def n_bytes(self) -> int:
        """Memory of all arrays on the device."""
        groups = (self._of_structures, self._of_atoms, self._of_pairs, self._labels)
        tensors = (t for group in groups for t in group.values() if t is not None)
        return sum(t.nbytes for t in tensors)

    def shape_of(self, chosen: NDArray[np.int64]) -> Shape:
        """The padded shape of a batch.

        Args:
            chosen: numbers of structures.
        """
        return padded_shape(int(self.sizes[chosen].sum()), int(self.pair_counts[chosen].sum()))

    def gather(
        self, chosen: Tensor, places: Places, dtype: torch.dtype
    ) -> tuple[PaddedBatch, Labels]:
        """Lay structures end to end and fill up with padding; nothing is read from the device.

        Args:
            chosen: numbers of structures and, last, that of the empty structure, which the padding belongs
                to; (n_structures + 1,) int64.
            places: of the shape; the structures must fit into it.
            dtype: of the network.
        """
        of = {name: array.index_select(0, chosen) for name, array in self._of_structures.items()}
        atom_ends, pair_ends = of["n_atoms"].cumsum(0), of["n_pairs"].cumsum(0)
        atom_starts, pair_starts = atom_ends - of["n_atoms"], pair_ends - of["n_pairs"]
        idx_m = torch.searchsorted(atom_ends[:-1], places.atoms, right=True)
        atoms = _rows(of["first_atom"] - atom_starts, idx_m, places.atoms, self._of_atoms)
        row_starts = self._of_atoms["row_start"].index_select(0, atoms)
        row_starts = row_starts + pair_starts.index_select(0, idx_m)
        pairs = self._gather_pairs(of, row_starts, (atom_starts, pair_starts), places, dtype)
        batch = PaddedBatch(
            positions=self._of_atoms["positions"].index_select(0, atoms),
            cells=of["cells"],
            idx_m=idx_m,
            pairs=pairs,
            atomic_numbers=self._of_atoms["atomic_numbers"].index_select(0, atoms),
            sizes=of["n_atoms"][:-1],
            volumes=of["volumes"][:-1],
        )
        rows = {"energy": chosen[:-1], "forces": atoms, "stress": chosen[:-1]}
        found = {
            name: None if label is None else label.index_select(0, rows[name])
            for name, label in self._labels.items()
        }
        return batch, Labels(**found)

    def _gather_pairs(
        self,
        of: dict[str, Tensor],
        row_starts: Tensor,
        starts: tuple[Tensor, Tensor],
        places: Places,
        dtype: torch.dtype,
    ) -> PaddedPairs:
        atom_starts, pair_starts = starts
        m = torch.searchsorted(pair_starts[1:], places.pairs, right=True)
        rows = _rows(of["first_pair"] - pair_starts, m, places.pairs, self._of_pairs)
        base = atom_starts.index_select(0, m)
        n_pairs = pair_starts[-1:]
        alive = None
        row_end = n_pairs
        if self.device.type == "cpu":  # whose operators want rows for all pairs
            alive = (places.pairs < n_pairs).to(dtype)
            row_end = n_pairs.new_full((1,), len(places.pairs))
        return PaddedPairs(
            idx_i=self._of_pairs["i"].index_select(0, rows) + base,
            idx_j=self._of_pairs["j"].index_select(0, rows) + base,
            shifts=self._of_pairs["shifts"].index_select(0, rows),
            row_ptr=torch.cat([row_starts, row_end]),
            order=places.pairs,
            alive=alive,
        )


def _rows(offsets: Tensor, structure: Tensor, places: Tensor, arrays: dict[str, Tensor]) -> Tensor:
    """Where in the flat arrays the rows of a batch stand; behind the last one always the extra row."""
    extra = next(iter(arrays.values())).shape[0] - 1
    return (offsets.index_select(0, structure) + places).clamp(max=extra)


def _with_row(array: Tensor) -> Tensor:
    """The same with a row of zeros behind the last one."""
    return torch.cat([array, array.new_zeros((1, *array.shape[1:]))])


class _HalfLists(NamedTuple):
    """Half lists of all structures, end to end; atoms counted from the first one of their structure."""

    i: Tensor  # (n_pairs,) int32
    j: Tensor  # (n_pairs,) int32
    shifts: Tensor  # (n_pairs, 3) int32
    row_start: (
        Tensor  # (n_atoms,) int64, first pair of each atom, counted from that of its structure
    )
    first: Tensor  # (n_structures + 1,) int64, first pair of each structure
    counts: NDArray[np.int64]  # (n_structures,)
    largest_distance: float


def _half_lists(structures: StructureSet, cutoff: float) -> _HalfLists:
    parts: dict[str, list[Tensor]] = {name: [] for name in ("i", "j", "shifts", "rows", "counts")}
    largest = 0.0
    for some in _stretches(structures.n_atoms):
        batch = collate(structures, some, cutoff)
        chosen, row_ptr, idx_j = ops.half_list(
            batch.idx_i, batch.idx_j, batch.shifts, len(batch.positions)
        )
        idx_i, shifts = batch.idx_i[chosen], batch.shifts[chosen]
        m = batch.idx_m[idx_i]
        vectors = pair_vectors(batch.positions, batch.cells, batch.idx_m, idx_i, idx_j, shifts)
        if len(chosen):
            largest = max(largest, float(torch.linalg.vector_norm(vectors, dim=1).max()))
        starts = row_ptr[batch.atom_ptr]
        parts["i"].append((idx_i - batch.atom_ptr[m]).to(torch.int32))
        parts["j"].append((idx_j - batch.atom_ptr[m]).to(torch.int32))
        parts["shifts"].append(shifts)
        parts["rows"].append(row_ptr[:-1] - starts[batch.idx_m])
        parts["counts"].append(starts.diff())
    i, j, shifts, rows, counts = (torch.cat(part) for part in parts.values())
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return _HalfLists(i, j, shifts, rows, first, counts.numpy(), largest)


def _stretches(sizes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Consecutive structures, so many at a time that their lists stay small; at least one stretch."""
    ends = np.cumsum(sizes)
    n = max(1, math.ceil(int(sizes.sum()) / ATOMS_AT_A_TIME))
    limits = np.searchsorted(ends, np.arange(1, n) * ATOMS_AT_A_TIME)
    for some in np.split(np.arange(len(sizes)), np.unique(limits)):
        if len(some) or n == 1:
            yield some
