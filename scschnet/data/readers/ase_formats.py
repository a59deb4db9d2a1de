"""Everything `ase.io` reads, extended XYZ above all, and ASE databases (SchNetPack's included).

Labels are looked for in the results of the attached calculator (where ASE puts `energy`, `forces`
and `stress`), then among info, arrays, key-value pairs and data. Units: ASE defines eV and Å for
its own files and for outputs it converts, and only for results of a calculator. Extended XYZ has no
units, so the user declares them; so also for labels under other names. Constraints are ignored:
labels are read as stored. Stress in Voigt order is xx, yy, zz, yz, xz, xy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase
import ase.db
import ase.io
import numpy as np
from ase.calculators.calculator import all_properties
from ase.io.formats import UnknownFileTypeError, filetype, open_with_compression
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray
from tqdm import tqdm

from scschnet.data.readers.raw import RawSet
from scschnet.units import Units

UNITLESS_FORMATS = ("extxyz", "xyz")
DATABASE_FORMATS = ("db", "json")
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
    values: dict[str, list[NDArray]] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    origins: dict[str, set[str]] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)

    def add(self, frame: Frame, index: int) -> None:
        n_atoms = len(frame.numbers)
        for label, shape in (("energy", ()), ("forces", (n_atoms, 3)), ("stress", (3, 3))):
            value, origin = self._value(frame, self.keys[label])
            where = f"`{self.keys[label]}` in frame {index} of {self.source}"
            if value is None:
                array = np.full(shape, np.nan)
            else:
                array = _label_array(label, value, shape, where)
                self.found[label] = self.found.get(label, 0) + 1
                self.origins.setdefault(label, set()).add(origin)
            self.values.setdefault(label, []).append(array)
        for name in (*frame.results, *frame.others):
            if _LABEL_LIKE.search(name) and name not in self.keys.values():
                self.unread.add(name)

    @staticmethod
    def _value(frame: Frame, key: str) -> tuple[Any, str]:
        for origin, values in (("results", frame.results), ("others", frame.others)):
            if values.get(key) is not None:
                return values[key], origin
        return None, ""

    def joined(self, label: str) -> NDArray | None:
        if not self.found.get(label):
            return None
        parts = self.values[label]
        return np.concatenate(parts) if label == "forces" else np.array(parts)

    def from_results_only(self, label: str) -> bool:
        return self.origins.get(label, {"results"}) == {"results"}


def read_ase(
    path: Path,
    format: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    progress: bool = False,
) -> RawSet:
    """Read every frame of a file.

    Args:
        path: the file.
        format: ASE's name of the format; None: ASE decides.
        energy_key: name of the energy; None: energy.
        forces_key: name of the forces; None: forces.
        stress_key: name of the stress; None: stress.
        progress: show a bar on stderr.

    Raises:
        ValueError: if ASE cannot read it, a named label is in no frame, or a label is malformed.
    """
    try:
        format = format or filetype(str(path))
    except UnknownFileTypeError:
        raise ValueError(f"`{path.name}` must be a format that ase.io reads, got another") from None
    asked = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    labels = _Labels(path.name, {label: key or label for label, key in asked.items()})
    database = _Database(path) if format in DATABASE_FORMATS else None
    frames: list[Frame] = []
    source = _rows(path, database) if database else _frames(path, format)
    for frame in tqdm(source, unit=" frames", disable=not progress, leave=False):
        labels.add(frame, len(frames))
        frames.append(frame)
    for label, key in asked.items():
        if key is not None and not labels.found.get(label):
            raise ValueError(
                f"`{label}_key` must be a name that {path.name} has, got {key!r}, which is in none "
                f"of its {len(frames)} frames; names like it: {_listed(labels.unread)}"
            )
    units = database.units(labels.keys) if database and database.declares_units else None
    raw = _raw_set(path.name, frames, labels, units or _ase_units(format, labels))
    raw.info["format"] = format
    if database is not None:
        raw.atomref = database.atomref(labels.keys["energy"])
    return raw


def _raw_set(source: str, frames: list[Frame], labels: _Labels, units: Units) -> RawSet:
    sizes = [len(frame.numbers) for frame in frames]
    info = {}
    if labels.found.get("energy"):
        info["energy key"] = labels.keys["energy"]
    if labels.unread:
        info["not read"] = _listed(labels.unread)
    return RawSet(
        source=source,
        positions=np.concatenate([frame.positions for frame in frames] or [np.zeros((0, 3))]),
        atomic_numbers=np.concatenate(
            [frame.numbers for frame in frames] or [np.zeros(0)], dtype=np.int64, casting="unsafe"
        ),
        atom_ptr=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64),
        cells=np.array([frame.cell for frame in frames]).reshape(-1, 3, 3),
        pbc=np.array([frame.pbc for frame in frames], dtype=bool).reshape(-1, 3),
        energy=labels.joined("energy"),
        forces=labels.joined("forces"),
        stress=labels.joined("stress"),
        units=units,
        partial=True,
        info=info,
    )


def _ase_units(format: str, labels: _Labels) -> Units:
    """What ASE defines: nothing for extended XYZ, and nothing for labels under other names."""
    if format in UNITLESS_FORMATS:
        return Units()
    return Units(
        length="Å",
        energy="eV" if labels.from_results_only("energy") else None,
        forces="eV/Å" if labels.from_results_only("forces") else None,
        stress="eV/Å^3" if labels.from_results_only("stress") else None,
    )


def _label_array(label: str, value: Any, shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{where} must hold numbers, got {value!r}") from None
    if label == "energy" and array.shape == (1,):
        array = array[0]
    if label == "stress" and array.shape == (6,):
        array = voigt_6_to_full_3x3_stress(array)
    if label == "stress" and array.shape in ((9,), (1, 3, 3)):
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
    try:
        for atoms in ase.io.iread(str(path), index=":", format=format):
            yield _frame(atoms)
            index += 1
    # ASE's many readers raise whatever comes on a damaged file.
    except Exception as error:
        if isinstance(error, FileNotFoundError | PermissionError | MemoryError):
            raise
        raise ValueError(
            f"frame {index} of `{path.name}` must be readable as {format} by ase, "
            f"got {type(error).__name__}: {error}"
        ) from error


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
                energy=declared.get(keys["energy"]),
                length=self.metadata["_distance_unit"],
                forces=declared.get(keys["forces"]),
                stress=declared.get(keys["stress"]),
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
