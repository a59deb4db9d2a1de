"""Our own file: HDF5 with one contiguous dataset per array, in eV and Å.

Root attributes: format, version, info (JSON). Datasets are those of `StructureSet`, each with its
unit and CRC-32 as attributes; absent labels have no dataset, and NaN marks a structure without one.
Contiguous data can be memory-mapped: a set larger than memory opens at once, then without the
check of its CRC. Metadata is of HDF5 1.10, which has checksums of its own.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scschnet.data.readers.raw import RawSet
from scschnet.data.structure import StructureSet
from scschnet.files import replacing
from scschnet.properties import Property
from scschnet.quantities import NAMES, QUANTITIES
from scschnet.units import Units

FORMAT = "scschnet structures"
VERSION = 1
UNITS = {
    "positions": "Å",
    "cells": "Å",
    **{quantity.name: quantity.unit for quantity in QUANTITIES},
    "atomref": "eV",
}
_DTYPES: dict[str, type] = {
    "atomic_numbers": np.int64,
    "atom_ptr": np.int64,
    "pbc": np.uint8,
    "isolated": np.uint8,
}
_BOOLEANS = ("pbc", "isolated")
# Datasets begin at multiples of 64 bytes, so that memory maps of them are aligned.
_ALIGNED = {"alignment_threshold": 64, "alignment_interval": 64}
PROPERTIES = "properties"  # a group
_REQUIRED = ("positions", "atomic_numbers", "atom_ptr", "cells", "pbc")
_OPTIONAL = (*NAMES, "atomref", "weights", "isolated")


class _PatientFile(io.FileIO):
    """A file whose first failure waits for `check`: HDF5 ends the process if one meets it while it closes a file.

    Args:
        path: file to write.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all of `data`, unless a write has failed before."""
        rest = memoryview(data)
        try:
            while rest and self._failure is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._failure = error
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None, /) -> int:
        """Cut or lengthen the file."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._failure = self._failure or error
            return size or 0

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self._failure is not None:
            raise self._failure


def write_hdf5(path: str | os.PathLike[str], structures: StructureSet) -> None:
    """Write `structures` under a temporary name and rename it: the file is whole or not there.

    Args:
        path: the file to write or replace.
        structures: any set; `info` is kept as provenance.

    Raises:
        OSError: naming the file, if it cannot be written; an older file stays as it was.
    """
    with replacing(path) as temporary, _PatientFile(temporary) as target:
        with h5py.File(target, "w", libver=("v110", "v110"), **_ALIGNED) as file:
            _write_structures(file, structures)
        target.check()


def _write_structures(file: h5py.File, structures: StructureSet) -> None:
    _write_text(file, "format", FORMAT)
    file.attrs["version"] = VERSION
    _write_text(file, "info", json.dumps(structures.info, ensure_ascii=False))
    for name in (*_REQUIRED, *_OPTIONAL):
        array = getattr(structures, name)
        if array is not None:
            dtype = np.dtype(_DTYPES.get(name, np.float64))
            data: NDArray = np.ascontiguousarray(array, dtype=dtype)
            dataset = file.create_dataset(name, data=data)
            dataset.attrs["crc32"] = zlib.crc32(data.data)
            if name in UNITS:
                _write_text(dataset, "unit", UNITS[name])
    for given, values in structures.properties.items():
        data = np.ascontiguousarray(values)
        dataset = file.create_dataset(f"{PROPERTIES}/{given.name}", data=data)
        dataset.attrs["crc32"] = zlib.crc32(data.data)
        for name in ("kind", "unit"):
            _write_text(dataset, name, getattr(given, name) or " ")


def read_hdf5(path: Path, memory_map: bool = False) -> RawSet:
    """Read a file of `write_hdf5`.

    Args:
        path: the file.
        memory_map: leave the large arrays on disk; they are read page by page when used.

    Raises:
        ValueError: if it is no such file, damaged, or of a newer version.
    """
    try:
        with h5py.File(path, "r") as file:
            info = _checked_header(path.name, file)
            arrays: dict[str, Any] = {
                name: _array(path, file, name, memory_map)
                for name in (*_REQUIRED, *_OPTIONAL)
                if name in file or name in _REQUIRED
            }
            properties = _properties(path, file, memory_map)
    except (OSError, RuntimeError, KeyError, TypeError, UnicodeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise
        raise ValueError(f"`{path.name}` must be a whole HDF5 file, got {error}") from error
    for name in _BOOLEANS:
        if name in arrays:
            if (arrays[name] > 1).any():
                largest = arrays[name].max()
                raise ValueError(f"`{name}` in {path.name} must hold 0 and 1, got {largest}")
            arrays[name] = arrays[name].astype(bool)
    units = Units(energy="eV", length="Å")
    return RawSet(
        path.name,
        **arrays,
        properties=properties,
        property_units={given.name: given.unit for given in properties if given.unit},
        units=units,
        partial=True,
        info=info,
    )


def _properties(path: Path, file: h5py.File, memory_map: bool) -> dict[Property, NDArray]:
    """Those in the file, under the kind and unit they were written with."""
    found: dict[Property, NDArray] = {}
    for name in file.get(PROPERTIES, ()):
        dataset = file[PROPERTIES][name]
        kind, unit = (_text(dataset, key) for key in ("kind", "unit"))
        if not kind or not unit:
            raise ValueError(f"`{name}` in {path.name} must have a kind and a unit, got none")
        given = Property(name, kind, unit.strip())
        found[given] = _array(path, file, f"{PROPERTIES}/{name}", memory_map, given.unit or " ")
    return found


def _checked_header(name: str, file: h5py.File) -> dict[str, str]:
    if _text(file, "format") != FORMAT:
        raise ValueError(
            f"`{name}` must be written by `scschnet data convert`, got another HDF5 file"
        )
    version = file.attrs.get("version")
    if not isinstance(version, np.integer | int) or version != VERSION:
        raise ValueError(f"`{name}` must have format version {VERSION}, got {version}")
    try:
        info = json.loads(_text(file, "info") or "")
    except ValueError as error:
        raise ValueError(f"`{name}` must carry its info as JSON, got {error}") from None
    if not isinstance(info, dict):
        raise ValueError(f"`{name}` must carry its info as a JSON object, got {info!r}")
    # What was said of the file converted first stays, under names of its own.
    origin = {"file": "converted from", "format": "format before", "units as read": "units before"}
    kept = {str(key): str(value) for key, value in info.items() if key not in origin}
    for key, new_key in origin.items():
        if key in info:
            kept.setdefault(new_key, str(info[key]))
    return {"format": "HDF5"} | kept


def _write_text(owner: h5py.File | h5py.Dataset, name: str, text: str) -> None:
    """Of fixed length: HDF5 keeps others in a heap without checksum, and hangs where it is damaged."""
    content = text.encode("utf-8")
    owner.attrs.create(name, content, dtype=h5py.string_dtype("utf-8", len(content)))


def _text(owner: h5py.File | h5py.Dataset, name: str) -> str | None:
    value = owner.attrs.get(name)
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _array(
    path: Path, file: h5py.File, name: str, memory_map: bool, unit: str | None = None
) -> NDArray[Any]:
    dataset = file.get(name)
    unit = unit or UNITS.get(name)
    expected = np.dtype(_DTYPES.get(name, np.float64))
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"`{path.name}` must have a dataset `{name}`, got none")
    if dataset.dtype != expected:
        raise ValueError(f"`{name}` in {path.name} must be {expected} numbers, got {dataset.dtype}")
    if _text(dataset, "unit") != unit:
        raise ValueError(f"`{name}` in {path.name} must be in {unit}, got {_text(dataset, 'unit')}")
    if dataset.chunks or dataset.external or dataset.is_virtual:
        raise ValueError(f"`{name}` in {path.name} must be stored contiguously, got other storage")
    if dataset.id.get_storage_size() != dataset.size * expected.itemsize:
        raise ValueError(f"`{name}` in {path.name} must be whole, got a dataset cut short")
    offset = dataset.id.get_offset()
    if memory_map and name not in _BOOLEANS and dataset.size and offset is not None:
        return np.memmap(path, expected, mode="r", offset=offset, shape=dataset.shape)
    array = dataset[...]
    if zlib.crc32(array) != dataset.attrs.get("crc32"):
        raise ValueError(f"`{name}` in {path.name} must have its checksum, got altered data")
    return array
