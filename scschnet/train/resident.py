"""The training structures on the device that trains, and the gathering of padded batches from them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet import ops
from scschnet.data import StructureSet, collate
from scschnet.evaluate import Predictions
from scschnet.nn import SchNet
from scschnet.nn.geometry import pair_vectors
from scschnet.nn.padded import PaddedBatch, PaddedPairs
from scschnet.properties import Property
from scschnet.quantities import NAMES, QUANTITIES, returned

ATOMS_AT_A_TIME = 20_000  # of which lists are made at once
ATOMS_ON_CPU, ATOMS_ON_GPU = 1024, 32_768  # that are evaluated at once


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
        sizes: (n_structures,) int64, atoms of each structure.
        volumes: (n_structures,), Å^3; zero or NaN for a structure without volume.
        idx_m: (n_atoms,) int64, structure of each atom.
        weights: of each structure in the loss, a row for every number in `idx_m`; None: all one.
        properties: each (n_structures, ...), in its unit; NaN: no label.
    """

    energy: Tensor | None
    forces: Tensor | None
    stress: Tensor | None
    sizes: Tensor
    volumes: Tensor
    idx_m: Tensor
    weights: Tensor | None
    properties: dict[Property, Tensor] = field(default_factory=dict)


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
        empty = min(cutoff, 1.0) / 2 * torch.eye(3, dtype=torch.float64)  # on every table
        cells = torch.cat([torch.from_numpy(part.cells), empty[None]])
        volumes = torch.linalg.det(cells).abs()
        beside = torch.tensor([[0, 0, 1, 0, 0]], dtype=torch.int32)  # its own image
        numbers = torch.from_numpy(part.atomic_numbers)
        self._structures = torch.stack(
            [
                torch.from_numpy(part.atom_ptr),
                _with_row(torch.from_numpy(part.n_atoms)),
                pairs.first,
                _with_row(torch.from_numpy(pairs.counts)),
            ],
            dim=1,
        ).to(device)
        self._positions = _with_row(torch.from_numpy(part.positions)).to(device)
        self._atoms = _with_row(torch.stack([numbers, pairs.row_start], dim=1)).to(device)
        self._pairs = torch.cat([pairs.both_and_shift, beside]).to(device)
        of_structures = {"cells": cells, "volumes": torch.where(volumes > 0, volumes, torch.nan)}
        of_atoms: dict[str, Tensor] = {}
        for quantity in QUANTITIES:
            if quantity.name in labels:
                label = _with_row(torch.from_numpy(getattr(part, quantity.name)))
                (of_atoms if quantity.per_atom else of_structures)[quantity.name] = label
        if part.weights is not None:
            of_structures["weights"] = _with_row(torch.from_numpy(part.weights))
        self._of_structures = {name: array.to(device) for name, array in of_structures.items()}
        self._of_atoms = {name: array.to(device) for name, array in of_atoms.items()}

    def __len__(self) -> int:
        """Number of structures."""
        return len(self.sizes)

    @property
    def n_bytes(self) -> int:
        """Memory of all arrays on the device."""
        arrays = (self._structures, self._positions, self._atoms, self._pairs)
        others = (*self._of_structures.values(), *self._of_atoms.values())
        return sum(array.nbytes for array in (*arrays, *others))

    def shape_of(self, chosen: NDArray[np.int64]) -> Shape:
        """The padded shape of a batch.

        Args:
            chosen: numbers of structures.
        """
        return padded_shape(int(self.sizes[chosen].sum()), int(self.pair_counts[chosen].sum()))

    def gather(
        self, order: Tensor, step: Tensor, places: Places, dtype: torch.dtype
    ) -> tuple[PaddedBatch, Labels]:
        """Lay structures end to end and fill up with padding; nothing is read from the device.

        Args:
            order: numbers of structures, and last that of the empty structure, which the padding belongs
                to; (n_steps, n_structures + 1) int64.
            step: row of `order` that is taken, (1,) int64.
            places: of the shape; the structures must fit into it.
            dtype: of the network.
        """
        alive = None
        if ops.trains_on(self.device):
            arrays = (self._structures, self._positions, self._atoms, self._pairs)
            rows = ([*self._of_structures.values()], [*self._of_atoms.values()])
            shape = (len(places.atoms), len(places.pairs))
            gathered = ops.gather_batch(order, step, *arrays, *rows, *shape)
        else:
            gathered = self._gather(order.index_select(0, step).squeeze(0), places)
            if self.device.type == "cpu":  # whose operators want rows for all pairs
                alive = (places.pairs < gathered.row_ptr[-1]).to(dtype)
                gathered.row_ptr[-1:].fill_(len(places.pairs))
        of_structures = dict(zip(self._of_structures, gathered.of_structures, strict=True))
        cells, weights = of_structures.pop("cells"), of_structures.pop("weights", None)
        found: dict[str, Any] = dict.fromkeys(NAMES)
        found |= {name: rows[:-1] for name, rows in of_structures.items()}  # without the padding
        found |= zip(self._of_atoms, gathered.of_atoms, strict=True)
        batch = PaddedBatch(
            positions=gathered.positions,
            cells=cells,
            idx_m=gathered.idx_m,
            pairs=PaddedPairs(
                gathered.idx_i,
                gathered.idx_j,
                gathered.shifts,
                gathered.row_ptr,
                order=places.pairs,
                alive=alive,
            ),
            atomic_numbers=gathered.atomic_numbers,
            sizes=gathered.sizes,
            volumes=found["volumes"],
        )
        return batch, Labels(**found, sizes=batch.sizes, idx_m=batch.idx_m, weights=weights)

    def _gather(self, chosen: Tensor, places: Places) -> ops.GatheredBatch:
        """`ops.gather_batch` in plain torch."""
        first_atom, n_atoms, first_pair, n_pairs = self._structures.index_select(0, chosen).T
        atom_ends, pair_ends = n_atoms.cumsum(0), n_pairs.cumsum(0)
        atom_starts, pair_starts = atom_ends - n_atoms, pair_ends - n_pairs
        idx_m = torch.searchsorted(atom_ends[:-1], places.atoms, right=True)
        sources = _rows(first_atom - atom_starts, idx_m, places.atoms, self._positions)
        numbers, row_starts = self._atoms.index_select(0, sources).T
        m = torch.searchsorted(pair_ends[:-1], places.pairs, right=True)
        pairs = self._pairs.index_select(
            0, _rows(first_pair - pair_starts, m, places.pairs, self._pairs)
        )
        ends = pairs[:, :2] + atom_starts.index_select(0, m)[:, None]
        row_ptr = torch.cat([row_starts + pair_starts.index_select(0, idx_m), pair_ends[-1:]])
        return ops.GatheredBatch(
            chosen=chosen,
            sizes=n_atoms[:-1].contiguous(),
            sources=sources,
            idx_m=idx_m,
            positions=self._positions.index_select(0, sources),
            atomic_numbers=numbers.contiguous(),
            row_ptr=row_ptr,
            idx_i=ends[:, 0].contiguous(),
            idx_j=ends[:, 1].contiguous(),
            shifts=pairs[:, 2:].contiguous(),
            of_structures=[rows.index_select(0, chosen) for rows in self._of_structures.values()],
            of_atoms=[rows.index_select(0, sources) for rows in self._of_atoms.values()],
        )


class ResidentPredictor:
    """Evaluates models on structures that lie on the device, many at a time.

    Args:
        structures: the set.
        indices: which of them, in which order.
        cutoff: Å, of the models.
        device: where the models are.
    """

    def __init__(
        self,
        structures: StructureSet,
        indices: NDArray[np.int64],
        cutoff: float,
        device: torch.device,
    ) -> None:
        self.data = ResidentData(structures, indices, cutoff, device, ())
        self._batches = []
        at_once = ATOMS_ON_CPU if device.type == "cpu" else ATOMS_ON_GPU
        for some in _stretches(self.data.sizes, at_once):
            order = torch.from_numpy(np.append(some, len(self.data)))[None].to(device)
            places = Places(self.data.shape_of(some), device)
            self._batches.append((order, places, int(self.data.sizes[some].sum())))

    def predict(self, model: SchNet, forces: bool, stress: bool) -> Predictions:
        """Energies, and forces and stress if asked for.

        Args:
            model: with any parameters, of the same cutoff.
            forces: whether to predict forces.
            stress: whether to predict stress.
        """
        nodes = model.table_nodes(self.data.largest_distance)
        dtype = model.contribution_weights.dtype
        step = torch.zeros(1, dtype=torch.int64, device=self.data.device)
        asked, quantities = returned(forces, stress)
        none = torch.zeros(0, dtype=torch.float64, device=self.data.device)
        parts = {q: [none.view(0, *q.shape)] for q in quantities}
        for order, places, n_atoms in self._batches:
            with torch.no_grad():
                batch, _ = self.data.gather(order, step, places, dtype)
                result = model.evaluate_padded(batch, nodes, **asked)
            for quantity, part in parts.items():
                rows = result[quantity.name]
                part.append(rows[:n_atoms] if quantity.per_atom else rows)
        found: dict[str, Any] = {q.name: torch.cat(part).cpu().numpy() for q, part in parts.items()}
        return Predictions(**found)


def _rows(offsets: Tensor, structure: Tensor, places: Tensor, array: Tensor) -> Tensor:
    """Where in a flat array the rows of a batch stand; behind the last one always its extra row."""
    rows = offsets.index_select(0, structure) + places
    return rows.clamp(max=array.shape[0] - 1)


def _with_row(array: Tensor) -> Tensor:
    """The same with a row of zeros behind the last one."""
    return torch.cat([array, array.new_zeros((1, *array.shape[1:]))])


class _HalfLists(NamedTuple):
    """Half lists of all structures, end to end; atoms counted from the first one of their structure."""

    both_and_shift: Tensor  # (n_pairs, 5) int32: i, j, S
    row_start: (
        Tensor  # (n_atoms,) int64, first pair of each atom, counted from that of its structure
    )
    first: Tensor  # (n_structures + 1,) int64, first pair of each structure
    counts: NDArray[np.int64]  # (n_structures,)
    largest_distance: float


def _half_lists(structures: StructureSet, cutoff: float) -> _HalfLists:
    parts = {
        "pairs": [torch.zeros((0, 5), dtype=torch.int32)],
        "rows": [torch.zeros(0, dtype=torch.int64)],
        "counts": [torch.zeros(0, dtype=torch.int64)],
    }
    largest = 0.0
    for some in _stretches(structures.n_atoms, ATOMS_AT_A_TIME):
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
        ends = torch.stack([idx_i, idx_j], dim=1) - batch.atom_ptr[m][:, None]
        parts["pairs"].append(torch.cat([ends.to(torch.int32), shifts], dim=1))
        parts["rows"].append(row_ptr[:-1] - starts[batch.idx_m])
        parts["counts"].append(starts.diff())
    pairs, rows, counts = (torch.cat(part) for part in parts.values())
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return _HalfLists(pairs, rows, first, counts.numpy(), largest)


def _stretches(sizes: NDArray[np.int64], at_once: int) -> Iterator[NDArray[np.int64]]:
    """Consecutive structures, of about so many atoms in all."""
    limits = np.searchsorted(np.cumsum(sizes), np.arange(at_once, int(sizes.sum()), at_once))
    for some in np.split(np.arange(len(sizes)), np.unique(limits)):
        if len(some):
            yield some
