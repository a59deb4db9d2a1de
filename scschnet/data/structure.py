"""StructureSet: many structures as flat arrays, in eV and Å, and the indexing that picks some."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scschnet.properties import Property
from scschnet.quantities import QUANTITIES, Quantity, quantity_of

MAX_ATOMIC_NUMBER = 118
_CHUNK = (
    1 << 20
)  # rows checked at a time, so that a memory-mapped set never becomes resident as a whole


@dataclass(frozen=True, eq=False)
class StructureSet:
    """Structures of any size, end to end; structure m owns atoms atom_ptr[m] .. atom_ptr[m + 1].

    Shapes and kinds are checked when the set is made; values by `check_values`. Arrays are taken
    as they are where the dtype fits (a memory map stays one) and are not meant to be written to.

    Args:
        positions: (n_atoms, 3) float64, Å.
        atomic_numbers: (n_atoms,) int64, 1 to 118.
        atom_ptr: (n_structures + 1,) int64, rising from 0 to n_atoms.
        cells: (n_structures, 3, 3) float64, Å, rows are lattice vectors; zeros where open.
            None: all zero.
        pbc: (n_structures, 3) bool. None: all open.
        energy: (n_structures,) float64, eV; NaN: this structure has no energy. None: none has.
        forces: (n_atoms, 3) float64, eV/Å; NaN throughout a structure: it has no forces.
        stress: (n_structures, 3, 3) float64, eV/Å^3, (1/V) dE/dstrain, tension positive;
            NaN as above.
        atomref: (max_z + 1,) float64, eV, energy of each isolated atom by atomic number, or None.
        weights: (n_structures,) float64, finite and not negative, how much each structure counts in
            the loss, no unit. None: all 1.
        isolated: (n_structures,) bool, whether a structure is an isolated atom whose energy is the
            reference energy of its element. None: the source does not say.
        file_index: (n_structures,) int64, not negative, which of several files each structure comes from, as
            `join` counts them. None: all come from one.
        properties: each (n_structures, ...) float64, in its unit; NaN throughout: not known.
        info: origin, units as read, and whatever else the file says about itself.

    Raises:
        ValueError: if a shape does not fit, `atom_ptr` does not rise from 0 to n_atoms, an atomic
            number is not an element, or a weight is negative or not finite.
        TypeError: if an array holds no numbers.
    """

    positions: NDArray[np.float64]
    atomic_numbers: NDArray[np.int64]
    atom_ptr: NDArray[np.int64]
    cells: NDArray[np.float64] = None  # type: ignore[assignment]  # filled in by __post_init__
    pbc: NDArray[np.bool_] = None  # type: ignore[assignment]
    energy: NDArray[np.float64] | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    atomref: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    isolated: NDArray[np.bool_] | None = None
    file_index: NDArray[np.int64] | None = None
    properties: dict[Property, NDArray[np.float64]] = field(default_factory=dict)
    info: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        atom_ptr = _integers("atom_ptr", self.atom_ptr)
        if atom_ptr.ndim != 1 or atom_ptr.size == 0:
            raise ValueError(
                f"`atom_ptr` must have shape (n_structures + 1,), got {atom_ptr.shape}"
            )
        n_structures, n_atoms = len(atom_ptr) - 1, len(np.asarray(self.positions))
        if atom_ptr[0] != 0 or atom_ptr[-1] != n_atoms or np.any(np.diff(atom_ptr) < 0):
            raise ValueError(
                f"`atom_ptr` must rise from 0 to {n_atoms} (the number of atoms), "
                f"got {atom_ptr[0]} to {atom_ptr[-1]}"
                + (", not rising" if np.any(np.diff(atom_ptr) < 0) else "")
            )
        numbers = _shaped(
            "atomic_numbers", _integers("atomic_numbers", self.atomic_numbers), (n_atoms,)
        )
        _check_elements(numbers, atom_ptr)
        values: dict[str, object] = {
            "atom_ptr": atom_ptr,
            "atomic_numbers": numbers,
            "positions": _floats("positions", self.positions, (n_atoms, 3)),
            "cells": np.zeros((n_structures, 3, 3)) if self.cells is None else self.cells,
            "pbc": np.zeros((n_structures, 3), bool) if self.pbc is None else self.pbc,
        }
        values["cells"] = _floats("cells", values["cells"], (n_structures, 3, 3))
        values["pbc"] = _shaped("pbc", _booleans("pbc", values["pbc"]), (n_structures, 3))
        for quantity in QUANTITIES:
            label = getattr(self, quantity.name)
            shape = (n_atoms if quantity.per_atom else n_structures, *quantity.shape)
            values[quantity.name] = None if label is None else _floats(quantity.name, label, shape)
        values["properties"] = {
            given: _floats(given.name, label, (n_structures, *np.asarray(label).shape[1:]))
            for given, label in self.properties.items()
        }
        if self.atomref is not None:
            values["atomref"] = _floats("atomref", self.atomref, (len(np.asarray(self.atomref)),))
        if self.weights is not None:
            values["weights"] = _weights(self.weights, n_structures)
        if self.isolated is not None:
            isolated = _booleans("isolated", self.isolated)
            values["isolated"] = _shaped("isolated", isolated, (n_structures,))
        if self.file_index is not None:
            files = _integers("file_index", self.file_index)
            values["file_index"] = _shaped("file_index", files, (n_structures,))
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Number of structures."""
        return len(self.atom_ptr) - 1

    def __repr__(self) -> str:
        labels = ", ".join(f"{k} {int(v.sum())}/{len(self)}" for k, v in self.labeled.items())
        return f"StructureSet({len(self)} structures, {self.atom_ptr[-1]} atoms, {labels})"

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Number of atoms of each structure, (n_structures,)."""
        return np.diff(self.atom_ptr)

    @property
    def has_volume(self) -> NDArray[np.bool_]:
        """Which structures have a cell with a volume, and so can have a stress, (n_structures,) bool."""
        return np.abs(np.linalg.det(self.cells)) > 0

    @property
    def is_extensive(self) -> bool:
        """Whether structures differ in size or are periodic: their errors are then compared per atom."""
        return bool(self.pbc.any() or (len(self) > 0 and np.ptp(self.n_atoms) > 0))

    @property
    def idx_m(self) -> NDArray[np.int64]:
        """Structure of each atom, (n_atoms,)."""
        return np.repeat(np.arange(len(self)), self.n_atoms)

    @property
    def elements(self) -> NDArray[np.int64]:
        """Atomic numbers that occur, sorted."""
        return np.flatnonzero(np.bincount(self.atomic_numbers)).astype(np.int64)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Energy, forces, stress, and the properties that the set was read with."""
        found = (quantity_of(given, label.shape[1:]) for given, label in self.properties.items())
        return (*QUANTITIES, *found)

    @property
    def labeled(self) -> dict[str, NDArray[np.bool_]]:
        """Which structures have each quantity, (n_structures,) bool each."""
        return {quantity.name: self._has(quantity) for quantity in self.quantities}

    @property
    def comparable(self) -> dict[str, NDArray[np.bool_]]:
        """As `labeled`, without what means nothing: a stress without a volume, whatever the file says."""
        labeled = self.labeled
        for quantity in QUANTITIES:
            if quantity.needs_volume:
                labeled[quantity.name] &= self.has_volume
        return labeled

    def label(self, quantity: Quantity) -> NDArray[np.float64] | None:
        """The values of a quantity, NaN where they are not `comparable`; None: the set has none."""
        label: NDArray[np.float64] | None = quantity.of(self)
        if label is None or not quantity.needs_volume:
            return label
        return np.where(self.has_volume.reshape(-1, *quantity.ones), label, np.nan)

    def _has(self, quantity: Quantity) -> NDArray[np.bool_]:
        """Read off the first number; a structure without atoms has rows of atoms as soon as the set has any."""
        label = quantity.of(self)
        if label is None:
            return np.zeros(len(self), bool)
        first = label[(slice(None), *(0 for _ in quantity.shape))]
        if not quantity.per_atom:
            return ~np.isnan(first)
        has = np.ones(len(self), bool)
        filled = np.flatnonzero(self.n_atoms > 0)
        has[filled] = ~np.isnan(first[self.atom_ptr[filled]])
        return has

    def select(self, indices: ArrayLike) -> StructureSet:
        """The structures at `indices`, in that order; repeats are allowed.

        Args:
            indices: integers (from the end where negative) or a mask of (n_structures,) bool.

        Raises:
            ValueError: if `indices` are no integers or a mask of the wrong length.
            IndexError: if an index lies outside the set.
        """
        chosen = structure_indices(indices, len(self))
        atoms, atom_ptr = ragged_gather(self.atom_ptr, chosen)
        return replace(
            self,
            positions=self.positions[atoms],
            atomic_numbers=self.atomic_numbers[atoms],
            atom_ptr=atom_ptr,
            cells=self.cells[chosen],
            pbc=self.pbc[chosen],
            **label_rows(self, chosen, atoms),
            weights=None if self.weights is None else self.weights[chosen],
            isolated=None if self.isolated is None else self.isolated[chosen],
            file_index=None if self.file_index is None else self.file_index[chosen],
        )

    def check_values(self) -> None:
        """Check that every number is finite and every label is there or absent as a whole.

        Raises:
            ValueError: naming the array and the first structure with a bad value.
        """
        self._check_finite("positions", self.positions, per_atom=True)
        self._check_finite("cells", self.cells, per_atom=False)
        if self.atomref is not None and not np.isfinite(self.atomref).all():
            raise ValueError("`atomref` must be finite, got a value that is not")
        labeled = self.labeled
        for quantity in self.quantities:
            label = quantity.of(self)
            if label is not None:
                name = quantity.name
                self._check_finite(name, label, quantity.per_atom, labeled[name])

    def _check_finite(
        self,
        name: str,
        array: NDArray[np.float64],
        per_atom: bool,
        labeled: NDArray[np.bool_] | None = None,
    ) -> None:
        """Rows of unlabeled structures must be NaN, all others finite."""
        for start in range(0, len(array), _CHUNK):
            rows = np.asarray(array[start : start + _CHUNK])
            rows = rows.reshape(len(rows), -1)
            bad = ~np.isfinite(rows).all(axis=1)
            if not bad.any():
                continue
            frames = np.arange(start, start + len(rows))
            if per_atom:
                frames = np.searchsorted(self.atom_ptr, frames, side="right") - 1
            if labeled is not None:
                bad &= labeled[frames] | ~np.isnan(rows).all(axis=1)
            if bad.any():
                first = int(np.flatnonzero(bad)[0])
                value = rows[first][~np.isfinite(rows[first])][0]
                where = f"structure {frames[first]}"
                if per_atom:
                    where += f", atom {start + first - self.atom_ptr[frames[first]]}"
                raise ValueError(f"`{name}` must be finite, got {value} in {where}")


def label_rows(
    structures: StructureSet, chosen: NDArray[np.int64], atoms: NDArray[np.int64]
) -> dict[str, Any]:
    """Every label of some structures, by field of `StructureSet`.

    Args:
        structures: the set.
        chosen: structure numbers.
        atoms: numbers of the atoms of these structures.
    """
    labels = {quantity: getattr(structures, quantity.name) for quantity in QUANTITIES}
    properties = {given: label[chosen] for given, label in structures.properties.items()}
    return {
        quantity.name: None if label is None else label[atoms if quantity.per_atom else chosen]
        for quantity, label in labels.items()
    } | {"properties": properties}


def ragged_gather(
    ptr: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the chosen segments of a flat array, and where each segment starts among them.

    Args:
        ptr: (n_segments + 1,) int64; segment m is rows ptr[m] .. ptr[m + 1].
        chosen: (n_chosen,) int64 segment numbers, not negative.

    Returns:
        rows, (n_rows,) int64, and their own row starts, (n_chosen + 1,) int64.
    """
    starts = ptr[chosen]
    new_ptr = np.zeros(len(chosen) + 1, np.int64)
    counts = ptr[chosen + 1] - starts
    np.cumsum(counts, out=new_ptr[1:])
    rows = np.repeat(starts - new_ptr[:-1], counts)
    rows += np.arange(new_ptr[-1])
    return rows, new_ptr


def structure_indices(indices: ArrayLike, n_structures: int) -> NDArray[np.int64]:
    """`indices` (integers or a mask) as integers from 0 to n_structures - 1."""
    chosen = np.asarray(indices)
    if chosen.dtype == bool and chosen.shape == (n_structures,):
        return np.flatnonzero(chosen)
    if chosen.size == 0 and chosen.ndim == 1:
        return np.zeros(0, np.int64)
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
        raise ValueError(
            f"`indices` must be 1-D integers or a mask of shape ({n_structures},), "
            f"got {chosen.dtype} of shape {chosen.shape}"
        )
    chosen = chosen.astype(np.int64, copy=False)
    low, high = int(chosen.min()), int(chosen.max())
    if low < -n_structures or high >= n_structures:
        worst = high if high >= n_structures else low
        raise IndexError(f"`indices` must lie in a set of {n_structures} structures, got {worst}")
    return np.where(chosen < 0, chosen + n_structures, chosen) if low < 0 else chosen


def _check_elements(atomic_numbers: NDArray[np.int64], atom_ptr: NDArray[np.int64]) -> None:
    if atomic_numbers.size == 0:
        return
    if atomic_numbers.min() < 1 or atomic_numbers.max() > MAX_ATOMIC_NUMBER:
        atom = int(np.flatnonzero((atomic_numbers < 1) | (atomic_numbers > MAX_ATOMIC_NUMBER))[0])
        frame = int(np.searchsorted(atom_ptr, atom, side="right")) - 1
        raise ValueError(
            f"`atomic_numbers` must lie between 1 and {MAX_ATOMIC_NUMBER}, "
            f"got {atomic_numbers[atom]} in structure {frame}"
        )


def _shaped(name: str, array: NDArray, shape: tuple[int, ...]) -> NDArray:
    if array.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {array.shape}")
    return array


def _floats(name: str, value: object, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"`{name}` must hold real numbers, got {array.dtype}")
    return _shaped(name, array.astype(np.float64, copy=False), shape)


def _weights(value: object, n_structures: int) -> NDArray[np.float64]:
    weights = _floats("weights", value, (n_structures,))
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise ValueError(
            f"`weights` must be finite and not negative, got {weights[bad[0]]} in structure {bad[0]}"
        )
    return weights


def _integers(name: str, value: object) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"`{name}` must hold integers, got {array.dtype}")
    return array.astype(np.int64, copy=False)


def _booleans(name: str, value: object) -> NDArray[np.bool_]:
    array = np.asarray(value)
    if array.dtype != bool:
        raise TypeError(f"`{name}` must hold booleans, got {array.dtype}")
    return array
