"""Everything `ase.io` reads, extended XYZ above all, and ASE databases (SchNetPack's included).

Labels are looked for in the results of the attached calculator (where ASE puts `energy`, `forces`
and `stress`), then among info, arrays, key-value pairs and data. The energy is `free_energy` where
results have it, since forces are derivatives of that one. Units: ASE defines eV and Å for results of
a calculator; in extended XYZ, which cannot say, the user may say otherwise. Units of labels under
other names are the user's to say. Constraints are ignored: labels are read as stored. Stress in
Voigt order is xx, yy, zz, yz, xz, xy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ase
import ase.db
import ase.io
import numpy as np
from ase.calculators.calculator import all_properties
from ase.io.extxyz import key_val_str_to_dict
from ase.io.formats import (
    UnknownFileTypeError,
    filetype,
    ioformats,
    open_with_compression,
)
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray
from tqdm import tqdm

from scschnet.data.habits import field_of, key_options, note_of
from scschnet.data.readers.raw import RawSet
from scschnet.properties import Property
from scschnet.quantities import NAMES, QUANTITIES
from scschnet.units import ASE_UNITS, Units

UNITLESS_FORMATS = ("extxyz", "xyz")
DATABASE_FORMATS = ("db", "json")
LAMMPS_DUMP = "lammps-dump-text"
_FREE_ENERGY = "free_energy"  # what forces are derivatives of, in ASE's results
_WEIGHTS = ("weight", "config_weight")
_ISOLATED = ("isolatedatom", "isolated_atom")
_SIX_NUMBERS = re.compile(r"""(?<![\w-])(stress|virial)\s*=\s*["'{\[]([^"'{}\[\]]*)["'}\]]""")
_LABEL_LIKE = re.compile(r"energ|force|stress|virial|gradient", re.IGNORECASE)


@dataclass
class Frame:
    """One structure: its geometry, the calculator's results, and every other value by name."""

    numbers: NDArray
    positions: NDArray
    cell: NDArray
    pbc: NDArray
    results: Mapping[str, Any]
    others: Mapping[str, Any]


@dataclass
class _Labels:
    """Labels of all frames, collected one frame at a time."""

    source: str
    keys: dict[str, str]
    chosen: frozenset[str] = frozenset()
    values: dict[str, list[NDArray]] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    origins: dict[str, dict[tuple[str, str], int]] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    energies_apart: float = 0.0

    def add(self, frame: Frame, index: int) -> None:
        n_atoms = len(frame.numbers)
        for quantity in QUANTITIES:
            label = quantity.name
            shape = (n_atoms, *quantity.shape) if quantity.per_atom else quantity.shape
            value, origin, key = self._value(frame, label)
            where = f"`{key}` in structure {index} of {self.source}"
            if value is None:
                array = np.full(shape, np.nan)
            else:
                array = _label_array(value, shape, where)
                self.found[label] = self.found.get(label, 0) + 1
                counts = self.origins.setdefault(label, {})
                counts[key, origin] = counts.get((key, origin), 0) + 1
            self.values.setdefault(label, []).append(array)
            if key == _FREE_ENERGY and label not in self.chosen and "energy" in frame.results:
                apart = abs(float(array) - float(frame.results["energy"]))
                self.energies_apart = max(self.energies_apart, apart)
        read = {key for counts in self.origins.values() for key, _ in counts}
        for name in (*frame.results, *frame.others):
            if _LABEL_LIKE.search(name) and name not in read | set(self.keys.values()):
                self.unread.add(name)

    def _value(self, frame: Frame, label: str) -> tuple[Any, str, str]:
        """Value, "results" or "others", and name of a label."""
        key = self.keys[label]
        if label == "energy" and label not in self.chosen:
            free = frame.results.get(_FREE_ENERGY)
            if free is not None and np.all(np.isfinite(free)):
                return free, "results", _FREE_ENERGY
        for origin, values in (("results", frame.results), ("others", frame.others)):
            if values.get(key) is not None:
                return values[key], origin, key
        return None, "", key

    def joined(self) -> dict[str, Any]:
        """The labels that some frame has, by field of `RawSet`."""
        found = {}
        for q in QUANTITIES:
            if self.found.get(q.name):
                parts = self.values[q.name]
                joined = np.concatenate(parts) if q.per_atom else np.array(parts)
                found[field_of(q.name, self.keys[q.name])] = joined
        return found

    def from_results_only(self, label: str) -> bool:
        return all(origin == "results" for _, origin in self.origins.get(label, {}))

    def info(self) -> dict[str, str]:
        """Which name became which label, and what was left unread."""
        places = {"results": "calculator", "others": "info, arrays or data"}
        info = {}
        for label, counts in self.origins.items():
            several = len(counts) > 1
            info[f"{label} key"] = ", ".join(
                f"{key} ({places[origin]}{f', {n:,} structures' if several else ''})"
                for (key, origin), n in counts.items()
            ) + note_of(label, self.keys[label])
        if self.energies_apart > 0:
            info["free energy"] = (
                f"up to {self.energies_apart:.6g} eV from `energy`; forces are its derivatives"
            )
        if self.unread:
            info["not read"] = _listed(self.unread)
        return info


def read_ase(
    path: Path,
    format: str | None,
    asked: dict[str, str | None],
    progress: bool = False,
    properties: Sequence[Property] = (),
) -> RawSet:
    """Read every frame of a file.

    Args:
        path: the file.
        format: ASE's name of the format; None: ASE decides.
        asked: for each quantity its name in the file (or that of a virial in place of a stress, which is
            converted); None: that of the quantity itself.
        progress: show a bar on stderr.
        properties: to be read, too, each under its name; a frame may be without.

    Raises:
        ValueError: if ASE cannot read it, a named label is in no frame, or a label is malformed.
    """
    try:
        format = format or filetype(str(path))
    except UnknownFileTypeError:
        format = ""
    if format not in ioformats:  # ASE takes an unknown suffix for the name of a format
        raise ValueError(f"`{path.name}` must be a format that ase.io reads, got another")
    keys = {label: key or label for label, key in asked.items()}
    labels = _Labels(path.name, keys, frozenset(label for label in asked if asked[label]))
    _check_lammps(path, format)
    database = _Database(path) if format in DATABASE_FORMATS else None
    frames: list[Frame] = []
    source = _rows(path, database) if database else _frames(path, format)
    for frame in tqdm(source, unit=" frames", disable=not progress, leave=False):
        labels.add(frame, len(frames))
        frames.append(frame)
    if not frames:
        raise ValueError(f"`{path.name}` must hold structures, got none, read as {format} by ase")
    for label, key in asked.items():
        if key is not None and not labels.found.get(label):
            raise ValueError(
                f"`{label}_key` must be a name that {path.name} has, got {key!r}, which is in none "
                f"of its {len(frames)} frames; names like it: {_listed(labels.unread)}{_option_hint(labels, label)}"
            )
    units = database.units(labels.keys) if database and database.declares_units else None
    raw = _raw_set(path.name, frames, labels, units or _ase_units(format, labels))
    raw.info["format"] = format
    raw.properties = {given: _property(path.name, frames, given) for given in properties}
    if database and database.declares_units:
        raw.property_units = database.metadata["_property_unit_dict"]
    if not (database and database.declares_units):
        raw.unstated = frozenset(
            field_of(label, labels.keys[label])
            for label in asked
            if not labels.from_results_only(label)
        )
    raw.example_units = "eV, Angstrom" if format == LAMMPS_DUMP else "ase"
    if format in UNITLESS_FORMATS:
        raw.usual_units = _result_units(labels)
    if database is not None:
        raw.atomref = database.atomref(labels.keys["energy"])
    return raw


def _raw_set(source: str, frames: list[Frame], labels: _Labels, units: Units) -> RawSet:
    sizes = [len(frame.numbers) for frame in frames]
    return RawSet(
        source=source,
        positions=np.concatenate([frame.positions for frame in frames] or [np.zeros((0, 3))]),
        atomic_numbers=np.concatenate(
            [frame.numbers for frame in frames] or [np.zeros(0)], dtype=np.int64, casting="unsafe"
        ),
        atom_ptr=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64),
        cells=np.array([frame.cell for frame in frames]).reshape(-1, 3, 3),
        pbc=np.array([frame.pbc for frame in frames], dtype=bool).reshape(-1, 3),
        **labels.joined(),
        weights=_weights(source, frames),
        isolated=_isolated(source, frames),
        units=units,
        partial=True,
        info=labels.info(),
    )


def _weights(source: str, frames: list[Frame]) -> NDArray[np.float64] | None:
    """Weights of the frames, 1 where a frame has none; None if no frame has one."""
    weights = np.ones(len(frames))
    found = False
    for index, frame in enumerate(frames):
        names = [name for name in _WEIGHTS if name in frame.others]
        values = [frame.others[name] for name in names]
        if len(names) > 1 and values[0] != values[1]:
            raise ValueError(
                f"{source} must have one of {', '.join(_WEIGHTS)} in structure {index}, got "
                f"{values[0]} and {values[1]}"
            )
        if names:
            where = f"`{names[0]}` in structure {index} of {source}"
            weights[index] = _label_array(values[0], (), where)
            found = True
    return weights if found else None


def _property(source: str, frames: list[Frame], given: Property) -> NDArray[np.float64]:
    """Values of a property, a row for each frame, NaN where a frame has none."""
    found: dict[int, NDArray[np.float64]] = {}
    for index, frame in enumerate(frames):
        value = {**frame.others, **frame.results}.get(given.name)
        if value is not None:
            where = f"`{given.name}` in structure {index} of {source}"
            shape = np.shape(value) if not found else next(iter(found.values())).shape
            found[index] = _label_array(value, () if shape == (1,) else shape, where)
    if not found:
        raise ValueError(
            f"`properties` must be in {source}, got {given.name}, which is in none of its "
            f"{len(frames)} frames"
        )
    values = np.full((len(frames), *next(iter(found.values())).shape), np.nan)
    for index, value in found.items():
        values[index] = value
    return values


def _isolated(source: str, frames: list[Frame]) -> NDArray[np.bool_] | None:
    """Frames of `config_type` IsolatedAtom; None if no frame has a `config_type`."""
    types = [frame.others.get("config_type") for frame in frames]
    if all(kind is None for kind in types):
        return None
    isolated = np.array([str(kind).lower() in _ISOLATED for kind in types], bool)
    for index in np.flatnonzero(isolated):
        if len(frames[index].numbers) != 1:
            raise ValueError(
                f"`config_type` {types[index]} must be of a structure of one atom, got "
                f"{len(frames[index].numbers)} atoms in structure {index} of {source}"
            )
    return isolated


def _option_hint(labels: _Labels, label: str) -> str:
    """Which option reads what looks like the label, as the end of a message."""
    options = key_options(sorted(labels.unread), label)
    return f"; {options} reads it" if options else ""


def _check_lammps(path: Path, format: str) -> None:
    """Types are no elements: ASE would make hydrogen, helium and lithium of 1, 2 and 3."""
    if format == "lammps-dump-binary":
        raise ValueError(f"`{path.name}` must name its elements, got a binary dump of LAMMPS")
    if format == "lammps-data":
        with open_with_compression(str(path), "r") as file:
            if not any(line.split()[:1] == ["Masses"] for line in file):
                raise ValueError(
                    f"`{path.name}` must name its elements by a section `Masses`, got types alone"
                )
    if format == LAMMPS_DUMP:
        with open_with_compression(str(path), "r") as file:
            for number, line in enumerate(file, start=1):
                if line.startswith("ITEM: ATOMS") and "element" not in line.split():
                    raise ValueError(
                        f"`{path.name}` must have a column `element` (LAMMPS: dump ... custom ... id "
                        "type element x y z fx fy fz, and dump_modify ... element O H), got "
                        f"{line.strip()!r} in line {number}: types are no elements"
                    )


def _ase_units(format: str, labels: _Labels) -> Units:
    """What ASE defines; a file of extended XYZ or LAMMPS may hold anything."""
    if format in UNITLESS_FORMATS or format == LAMMPS_DUMP:
        return Units()
    return _result_units(labels)


def _result_units(labels: _Labels) -> Units:
    """ASE's units of positions and of labels that are a calculator's results."""
    of_results = {
        label: getattr(ASE_UNITS, label) if labels.from_results_only(label) else None
        for label in NAMES
    }
    return Units(length=ASE_UNITS.length, **of_results)


def _label_array(value: Any, shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{where} must hold numbers, got {value!r}") from None
    if shape == () and array.shape == (1,):
        array = array[0]
    if shape == (3, 3) and array.shape == (6,):
        array = voigt_6_to_full_3x3_stress(array)
    if shape == (3, 3) and array.shape in ((9,), (1, 3, 3)):
        array = array.reshape(3, 3)
    if array.shape != shape:
        raise ValueError(f"{where} must have shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{where} must be finite, got {array[~np.isfinite(array)].ravel()[0]}")
    return array


def _frames(path: Path, format: str) -> Iterator[Frame]:
    if format == "extxyz":
        _check_extxyz_ends(path)
    index = 0
    options: dict[str, Any] = {"properties_parser": _properties} if format == "extxyz" else {}
    try:
        for atoms in ase.io.iread(str(path), index=":", format=format, **options):
            yield _lammps_frame(atoms) if format == LAMMPS_DUMP else _frame(atoms)
            index += 1
    # ASE's many readers raise whatever comes on a damaged file.
    except Exception as error:
        if isinstance(error, FileNotFoundError | PermissionError | MemoryError):
            raise
        raise ValueError(
            f"frame {index} of `{path.name}` must be readable as {format} by ase, "
            f"got {type(error).__name__}: {error}"
        ) from error


def _properties(line: str) -> dict[str, Any]:
    """The comment line of a frame; a stress or virial of six numbers, which ASE refuses, as nine."""

    def nine(match: re.Match[str]) -> str:
        values = re.findall(r"[^\s,]+", match[2])
        if len(values) != 6:
            return match[0]
        xx, yy, zz, yz, xz, xy = values
        return f'{match[1]}="{" ".join((xx, xy, xz, xy, yy, yz, xz, yz, zz))}"'

    properties: dict[str, Any] = key_val_str_to_dict(_SIX_NUMBERS.sub(nine, line))
    return properties


def _lammps_frame(atoms: ase.Atoms) -> Frame:
    """Without the energy of zero that ASE makes up; `element` is "C" where nobody named it."""
    frame = _frame(atoms)
    types = frame.others.get("type")
    if types is not None and len(np.unique(types)) > 1 and (frame.numbers == 6).all():
        raise ValueError(
            "`element` C for several types, LAMMPS' default: name them by dump_modify ... element"
        )
    results = {name: value for name, value in frame.results.items() if name == "forces"}
    return replace(frame, results=results)


def _frame(atoms: ase.Atoms) -> Frame:
    results = getattr(atoms.calc, "results", {}) or {}
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")}
    return Frame(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        results=results,
        others={**arrays, **atoms.info},
    )


def _check_extxyz_ends(path: Path) -> None:
    """ASE stops at the first blank line; frames after it would be lost without a word."""
    with open_with_compression(str(path), "r") as file:
        blank_at = None
        skip = 0
        for number, line in enumerate(file, start=1):
            if skip:
                skip -= 1
            elif blank_at is not None:
                if line.strip():
                    raise ValueError(
                        f"{path.name} must not have a blank line between frames, got one at line "
                        f"{blank_at}: ase would stop there"
                    )
            elif not line.strip():
                blank_at = number
            elif line.strip().isdecimal():
                skip = int(line) + 1


@dataclass
class _Database:
    """An ASE database; SchNetPack's say their units and atomrefs in the metadata."""

    path: Path
    metadata: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        try:
            with ase.db.connect(str(self.path)) as database:
                metadata = database.metadata
        # sqlite, json and ASE each raise their own.
        except Exception as error:
            raise ValueError(
                f"`{self.path.name}` must be an ASE database, got {type(error).__name__}: {error}"
            ) from error
        self.metadata = metadata if isinstance(metadata, dict) else {}

    @property
    def declares_units(self) -> bool:
        return "_property_unit_dict" in self.metadata and "_distance_unit" in self.metadata

    def units(self, keys: dict[str, str]) -> Units:
        declared = self.metadata["_property_unit_dict"]
        try:
            return Units(
                length=self.metadata["_distance_unit"],
                **{label: declared.get(key) for label, key in keys.items()},
            )
        except ValueError as error:
            raise ValueError(f"{self.path.name} declares a unit not known: {error}") from None

    def atomref(self, energy_key: str) -> NDArray[np.float64] | None:
        table = self.metadata.get("atomrefs") or {}
        if not self.declares_units or energy_key not in table:
            return None
        return np.asarray(table[energy_key], dtype=np.float64).ravel()


def _rows(path: Path, database: _Database) -> Iterator[Frame]:
    number = 0
    try:
        with ase.db.connect(str(path)) as connection:
            for row in connection.select():
                number = row.id
                results = {
                    name: getattr(row, name)
                    for name in all_properties
                    if name in row and name not in row.key_value_pairs
                }
                others = {**row.key_value_pairs, **row.data}
                yield Frame(row.numbers, row.positions, row.cell, row.pbc, results, others)
    # sqlite, json and ASE each raise their own.
    except Exception as error:
        raise ValueError(
            f"row after {number} of `{path.name}` must be readable by ase, "
            f"got {type(error).__name__}: {error}"
        ) from error


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
