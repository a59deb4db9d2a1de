"""RawSet: what a file holds, in its own units, and the one place where that becomes eV and Å."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scschnet.data.structure import StructureSet
from scschnet.data.usable import check_usable
from scschnet.units import Units, energy_factor, force_factor, length_factor, stress_factor


@dataclass
class RawSet:
    """Arrays as a `StructureSet` has them, in the units of the file.

    Args:
        source: file name for messages.
        virial: (n_structures, 3, 3), energy, minus the stress times the volume of the cell; instead
            of `stress`.
        units: what the file declares, or its format defines.
        usual_units: what is meant where neither the file nor the user says anything.
        unstated: labels whose units only the user can say, whatever the rest is in.
        example_units: units to show in the message that asks for them.
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
    virial: NDArray | None = None
    units: Units = field(default_factory=Units)
    usual_units: Units = field(default_factory=Units)
    unstated: frozenset[str] = frozenset()
    example_units: str = "kcal/mol, Angstrom"
    partial: bool = False
    info: dict[str, str] = field(default_factory=dict)


def converted(raw: RawSet, user_units: Units, check_values: bool = True) -> StructureSet:
    """The structures in eV and Å, values checked unless told not to. Converted in float64.

    Raises:
        ValueError: if a needed unit is neither declared by the file nor by the user, both declare
            different ones, or a value is not finite.
    """
    stated = merged_units(raw.units, user_units, raw.source)
    units = stated
    if user_units == Units():
        units = merged_units(raw.units, raw.usual_units, raw.source)
    _check_declared(raw, units, user_units)
    length = length_factor(units.length) if units.length else 1.0
    notes = _stored_precision(raw)
    n_structures = len(raw.atom_ptr) - 1
    cells = np.zeros((n_structures, 3, 3)) if raw.cells is None else _scaled(raw.cells, length)
    pbc = np.zeros((n_structures, 3), bool) if raw.pbc is None else raw.pbc
    if units != stated:
        notes["units from"] = "ASE's definition, since nothing else was said"
    try:
        structures = StructureSet(
            positions=_scaled(raw.positions, length),
            atomic_numbers=raw.atomic_numbers,
            atom_ptr=raw.atom_ptr,
            cells=cells,
            pbc=pbc,
            energy=_labels(raw.energy, units.energy, energy_factor),
            forces=_labels(raw.forces, units.forces_or_derived, force_factor),
            stress=_labels(raw.stress, units.stress_or_derived, stress_factor)
            if raw.virial is None
            else _stress_of_virial(_labels(raw.virial, units.energy, energy_factor), cells),
            atomref=_labels(raw.atomref, units.energy, energy_factor),
            weights=raw.weights,
            isolated=raw.isolated,
            info=raw.info | {"file": raw.source, "units as read": str(units)} | notes,
        )
        if check_values:
            check_usable(structures)
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


def _check_declared(raw: RawSet, units: Units, user_units: Units) -> None:
    needed = {
        "length": (raw.positions, units.length),
        "energy": (raw.energy, units.energy),
        "forces": (raw.forces, units.forces_or_derived),
        "stress": (raw.stress, units.stress_or_derived),
        "virial": (raw.virial, units.energy),
    }
    said = {
        "energy": user_units.energy,
        "forces": user_units.forces_or_derived,
        "stress": user_units.stress_or_derived,
        "virial": user_units.energy,
    }
    missing = [
        kind
        for kind, (array, unit) in needed.items()
        if array is not None and (unit is None or (kind in raw.unstated and said[kind] is None))
    ]
    if missing:
        option = raw.example_units if raw.example_units.isalpha() else repr(raw.example_units)
        raise ValueError(
            f"`units` must be given: {raw.source} does not declare those of {', '.join(missing)}; "
            f"say them as in units={raw.example_units!r} (command line: --units {option})"
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


def _stress_of_virial(virial: NDArray | None, cells: NDArray) -> NDArray[np.float64] | None:
    """-virial / volume, eV/Å^3, of a virial in eV and cells in Å."""
    if virial is None:
        return None
    volumes = np.abs(np.linalg.det(cells))
    labeled = ~np.isnan(virial).all(axis=(1, 2))
    without = np.flatnonzero(labeled & ~(volumes > 0))
    if len(without):
        raise ValueError(
            f"`stress_key` names a virial, which must have a cell of a volume, got none in structure "
            f"{without[0]}"
        )
    return -virial / np.where(volumes > 0, volumes, 1.0)[:, None, None]


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
