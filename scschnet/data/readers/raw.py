"""RawSet: what a file holds, in its own units, and the one place where that becomes eV and Å."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scschnet.data.structure import StructureSet
from scschnet.data.usable import check_usable
from scschnet.properties import Property, same_unit
from scschnet.quantities import NAMES
from scschnet.units import KINDS, Units, energy_factor, length_factor


@dataclass
class RawSet:
    """Arrays as a `StructureSet` has them, in the units of the file.

    Args:
        source: file name for messages.
        virial: (n_structures, 3, 3), energy, minus the stress times the volume of the cell; instead
            of `stress`.
        properties: each (n_structures, ...).
        property_units: those that the file states, by name.
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
    properties: dict[Property, NDArray] = field(default_factory=dict)
    property_units: dict[str, str] = field(default_factory=dict)
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
            **_labels(raw, units, cells),
            weights=raw.weights,
            isolated=raw.isolated,
            properties={
                given: _scaled(label, _property_factor(raw, given))
                for given, label in raw.properties.items()
            },
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
    for kind in KINDS:
        declared, wanted = getattr(of_file, kind), getattr(of_user, kind)
        if declared is not None and wanted is not None and declared != wanted:
            raise ValueError(
                f"`units` must not contradict the file: {source} declares {kind} in {declared}, "
                f"got {wanted}"
            )
        merged[kind] = declared if declared is not None else wanted
    return Units(**merged)


def _check_declared(raw: RawSet, units: Units, user_units: Units) -> None:
    arrays = {"length": raw.positions, **{name: getattr(raw, name) for name in (*NAMES, "virial")}}

    def is_unknown(name: str) -> bool:
        kind = "energy" if name == "virial" else name
        return units.of(kind) is None or (name in raw.unstated and user_units.of(kind) is None)

    missing = [name for name, array in arrays.items() if array is not None and is_unknown(name)]
    if missing:
        option = raw.example_units if raw.example_units.isalpha() else repr(raw.example_units)
        raise ValueError(
            f"`units` must be given: {raw.source} does not declare those of {', '.join(missing)}; "
            f"give them as in units={raw.example_units!r} (command line: --units {option})"
        )


def _scaled(array: NDArray, factor: float) -> NDArray[np.float64]:
    if np.asarray(array).dtype.kind not in "fiu":
        return array  # StructureSet names the wrong kind
    result = np.asarray(array).astype(np.float64, copy=False)
    return result if factor == 1.0 else result * factor


def _labels(raw: RawSet, units: Units, cells: NDArray) -> dict[str, NDArray | None]:
    """Every label and the reference energies, in eV and Å."""
    labels = {name: _converted(getattr(raw, name), units, name) for name in NAMES}
    if raw.virial is not None:
        labels["stress"] = _stress_of_virial(_converted(raw.virial, units, "energy"), cells)
    return labels | {"atomref": _converted(raw.atomref, units, "energy")}


def _property_factor(raw: RawSet, given: Property) -> float:
    """What turns values of the file into the unit of a property."""
    if not given.unit:
        return 1.0
    stated = raw.property_units.get(given.name)
    if stated is None:
        raise ValueError(
            f"`properties` {given.name} must be in {given.unit}, but the file does not state its unit; "
            f"{given.name}:{given.kind} takes its values as they stand"
        )
    if given.unit == "eV":
        return energy_factor(stated)
    if not same_unit(stated, given.unit):
        raise ValueError(
            f"`properties` {given.name} must be in {given.unit}, but the file states {stated}"
        )
    return 1.0


def _converted(array: NDArray | None, units: Units, kind: str) -> NDArray[np.float64] | None:
    unit = units.of(kind)
    return None if array is None or unit is None else _scaled(array, KINDS[kind].factor(unit))


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
        known = getattr(structures, name, 0) is not None  # a property that was asked for is there
        if known and not labeled.all():
            first = int(np.flatnonzero(~labeled)[0])
            raise ValueError(f"`{name}` must be finite, got nan in structure {first}")
