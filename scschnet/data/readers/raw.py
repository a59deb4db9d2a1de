"""RawSet: what a file holds, in its own units, and the one place where that becomes eV and Å."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scschnet.data.structure import StructureSet
from scschnet.units import Units, energy_factor, force_factor, length_factor, stress_factor


@dataclass
class RawSet:
    """Arrays as a `StructureSet` has them, in the units of the file.

    Args:
        source: file name for messages.
        units: what the file declares, or its format defines.
        partial: whether the format can leave labels out (NaN then); otherwise NaN is an error.
    """

    source: str
    positions: NDArray
    atomic_numbers: NDArray
    atom_ptr: NDArray
    cells: NDArray | None = None
    pbc: NDArray | None = None
    energy: NDArray | None = None
    forces: NDArray | None = None
    stress: NDArray | None = None
    atomref: NDArray | None = None
    weights: NDArray | None = None
    isolated: NDArray | None = None
    units: Units = field(default_factory=Units)
    partial: bool = False
    info: dict[str, str] = field(default_factory=dict)


def converted(raw: RawSet, user_units: Units, check_values: bool = True) -> StructureSet:
    """The structures in eV and Å, values checked unless told not to. Converted in float64.

    Raises:
        ValueError: if a needed unit is neither declared by the file nor by the user, both declare
            different ones, or a value is not finite.
    """
    units = merged_units(raw.units, user_units, raw.source)
    _check_declared(raw, units)
    length = length_factor(units.length) if units.length else 1.0
    notes = _stored_precision(raw)
    n_structures = len(raw.atom_ptr) - 1
    cells = np.zeros((n_structures, 3, 3)) if raw.cells is None else _scaled(raw.cells, length)
    pbc = np.zeros((n_structures, 3), bool) if raw.pbc is None else raw.pbc
    try:
        structures = StructureSet(
            positions=_scaled(raw.positions, length),
            atomic_numbers=raw.atomic_numbers,
            atom_ptr=raw.atom_ptr,
            cells=cells,
            pbc=pbc,
            energy=_labels(raw.energy, units.energy, energy_factor),
            forces=_labels(raw.forces, units.forces_or_derived, force_factor),
            stress=_labels(raw.stress, units.stress_or_derived, stress_factor),
            atomref=_labels(raw.atomref, units.energy, energy_factor),
            weights=raw.weights,
            isolated=raw.isolated,
            info=raw.info | {"file": raw.source, "units as read": str(units)} | notes,
        )
        if check_values:
            structures.check_values()
        if not raw.partial:
            _check_complete(structures)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{raw.source}: {error}") from None
    return structures


def merged_units(of_file: Units, of_user: Units, source: str) -> Units:
    """Units of file and user together.

    Raises:
        ValueError: if both name a unit of the same kind and differ.
    """
    merged: dict[str, str | None] = {}
    for kind in ("energy", "length", "forces", "stress"):
        declared, wanted = getattr(of_file, kind), getattr(of_user, kind)
        if declared is not None and wanted is not None and declared != wanted:
            raise ValueError(
                f"`units` must not contradict the file: {source} declares {kind} in {declared}, "
                f"got {wanted}"
            )
        merged[kind] = declared if declared is not None else wanted
    return Units(**merged)


def _check_declared(raw: RawSet, units: Units) -> None:
    needed = {
        "length": (raw.positions, units.length),
        "energy": (raw.energy, units.energy),
        "forces": (raw.forces, units.forces_or_derived),
        "stress": (raw.stress, units.stress_or_derived),
    }
    missing = [kind for kind, (array, unit) in needed.items() if array is not None and unit is None]
    if missing:
        raise ValueError(
            f"`units` must be given: {raw.source} does not declare those of {', '.join(missing)}; "
            "say them as in units='kcal/mol, Angstrom' (command line: --units 'kcal/mol, Angstrom')"
        )


def _scaled(array: NDArray, factor: float) -> NDArray[np.float64]:
    if np.asarray(array).dtype.kind not in "fiu":
        return array  # StructureSet names the wrong kind
    result = np.asarray(array).astype(np.float64, copy=False)
    return result if factor == 1.0 else result * factor


def _labels(
    array: NDArray | None, unit: str | None, factor: Callable[[str], float]
) -> NDArray[np.float64] | None:
    return None if array is None or unit is None else _scaled(array, factor(unit))


def _stored_precision(raw: RawSet) -> dict[str, str]:
    """A note where total energies were stored as float32: their spacing is a real error."""
    if raw.energy is None or raw.energy.dtype != np.float32 or not len(raw.energy):
        return {}
    spacing = float(np.spacing(np.nanmax(np.abs(raw.energy))))
    return {"energy precision": f"stored as float32, spacing {spacing:.2g} in the unit of the file"}


def _check_complete(structures: StructureSet) -> None:
    for name, labeled in structures.labeled.items():
        if getattr(structures, name) is not None and not labeled.all():
            first = int(np.flatnonzero(~labeled)[0])
            raise ValueError(f"`{name}` must be finite, got nan in structure {first}")
