"""Batch: the tensors one model call takes, gathered from a StructureSet, neighbor list included."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from scschnet.data.structure import (
    StructureSet,
    label_rows,
    ragged_gather,
    structure_indices,
)
from scschnet.neighbors import batch_neighbor_list
from scschnet.properties import Property

INPUTS = ("positions", "atomic_numbers", "idx_m", "cells", "idx_i", "idx_j", "shifts")


@dataclass(frozen=True, eq=False)
class Batch:
    """Structures laid end to end as tensors, with their neighbor list and labels.

    Args:
        positions: (n_atoms, 3), Å, float64 from `collate`.
        atomic_numbers: (n_atoms,) int64.
        idx_m: (n_atoms,) int64, structure of each atom.
        cells: (n_structures, 3, 3), Å, rows are lattice vectors, zeros where open.
        idx_i: (n_pairs,) int64, centers, sorted.
        idx_j: (n_pairs,) int64, neighbors; each pair stands in both directions.
        shifts: (n_pairs, 3) int32 S; r_ij = r_j - r_i + S·cell.
        row_ptr: (n_atoms + 1,) int64, start of each center's pairs.
        atom_ptr: (n_structures + 1,) int64, start of each structure's atoms.
        energy: (n_structures,), eV; NaN: no label. None: none in the set.
        forces: (n_atoms, 3), eV/Å, as above.
        stress: (n_structures, 3, 3), eV/Å^3, as above.
        weights: (n_structures,), of each structure in the loss. None: all one.
        properties: each (n_structures, ...), in its unit; NaN: no label.
    """

    positions: Tensor
    atomic_numbers: Tensor
    idx_m: Tensor
    cells: Tensor
    idx_i: Tensor
    idx_j: Tensor
    shifts: Tensor
    row_ptr: Tensor
    atom_ptr: Tensor
    energy: Tensor | None = None
    forces: Tensor | None = None
    stress: Tensor | None = None
    weights: Tensor | None = None
    properties: dict[Property, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of structures."""
        return len(self.cells)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What the model takes: `model(**batch.inputs)`."""
        return {name: getattr(self, name) for name in INPUTS}

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on `device`."""
        moved: dict[str, Any] = {}
        for item in fields(self):
            tensor = getattr(self, item.name)
            if isinstance(tensor, Tensor):
                tensor = tensor.to(device, non_blocking=non_blocking)
            moved[item.name] = tensor
        moved["properties"] = {
            given: label.to(device, non_blocking=non_blocking)
            for given, label in self.properties.items()
        }
        return Batch(**moved)


def collate(structures: StructureSet, indices: ArrayLike, cutoff: float) -> Batch:
    """Gather the structures at `indices`, in that order, with one neighbor list over all of them.

    Args:
        structures: the set.
        indices: structure numbers or a mask; repeats are allowed.
        cutoff: Å, positive.

    Raises:
        ValueError: if `indices` or `cutoff` are of the wrong kind, or a position is not finite.
        IndexError: if an index lies outside the set.
    """
    chosen = structure_indices(indices, len(structures))
    atoms, atom_ptr = ragged_gather(structures.atom_ptr, chosen)
    positions, cells = structures.positions[atoms], structures.cells[chosen]
    pairs = batch_neighbor_list(
        positions, atom_ptr, cutoff, cells=cells, pbc=structures.pbc[chosen]
    )
    starts, weights = torch.from_numpy(atom_ptr), structures.weights
    labels = label_rows(structures, chosen, atoms)
    properties = labels.pop("properties")
    return Batch(
        positions=torch.from_numpy(positions),
        atomic_numbers=torch.from_numpy(structures.atomic_numbers[atoms]),
        idx_m=torch.repeat_interleave(starts.diff(), output_size=len(atoms)),
        cells=torch.from_numpy(cells),
        idx_i=torch.from_numpy(pairs.idx_i),
        idx_j=torch.from_numpy(pairs.idx_j),
        shifts=torch.from_numpy(pairs.shifts),
        row_ptr=torch.from_numpy(pairs.row_ptr),
        atom_ptr=starts,
        weights=None if weights is None else torch.from_numpy(weights[chosen]),
        **{
            name: None if label is None else torch.from_numpy(label)
            for name, label in labels.items()
        },
        properties={given: torch.from_numpy(label) for given, label in properties.items()},
    )
