"""read: any supported file as a StructureSet in eV and Å."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path

import h5py
from numpy.typing import NDArray

from scschnet.data.habits import label_hint
from scschnet.data.readers.ase_formats import read_ase
from scschnet.data.readers.hdf5 import read_hdf5, write_hdf5
from scschnet.data.readers.npz import read_npz
from scschnet.data.readers.qm9 import read_excluded, read_qm9_tar
from scschnet.data.readers.raw import RawSet, converted
from scschnet.data.structure import StructureSet
from scschnet.kinds import Kind, expect
from scschnet.properties import Property, parse_properties
from scschnet.quantities import ANY_OF_THEM, NAMES
from scschnet.units import Units, parse_units

__all__ = ["read", "read_excluded", "write_hdf5"]


def read(
    path: str | os.PathLike[str],
    *,
    units: str | Units | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    format: str | None = None,
    exclude: str | os.PathLike[str] | Collection[int] | None = None,
    require: Sequence[str] = (),
    memory_map: bool = False,
    progress: bool = False,
    properties: Sequence[str] | None = None,
) -> StructureSet:
    """Read structures and their labels; every value is checked and converted to eV and Å.

    Formats: NumPy archives (MD17, sGDML, flat sets), QM9's original tar, our own HDF5, ASE
    databases, and whatever else `ase.io` reads. Units come from the file, from its format, or from
    `units`, never from guessing. Results of ASE's calculators are in ASE's units. Nothing is dropped silently: what was not read stands in `info`.

    Args:
        path: the file.
        units: such as "kcal/mol, Angstrom" or "ase" (eV, Å, eV/Å, eV/Å^3), where the file does not say; must not contradict it.
        energy_key: name of the energy in the file, such as "U0" or "REF_energy"; None: the usual.
        forces_key: the same for forces.
        stress_key: the same for stress, or of a virial (-stress times volume, in units of energy),
            which is converted.
        format: "npz", "qm9", "hdf5" or ASE's name of a format; None: by the file.
        exclude: for QM9's tar: numbers of molecules to leave out, or the file listing them.
        require: names of quantities at least one structure must have.
        memory_map: for HDF5: leave the arrays on disk; values are then not checked on opening.
        progress: show a bar on stderr for formats that take long.
        properties: names of properties to read, too, such as "mu", or NAME:KIND (scschnet.properties); HDF5 has its own.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, its units are undeclared, a structure is unusable (values
            not finite, no atoms, atoms on top of each other, a flat periodic cell), a name is not
            found, or a required label is absent.
    """
    file = Path(path)
    expect(file, Kind.STRUCTURES, Kind.OTHER)
    for label in require:
        if label not in NAMES:
            raise ValueError(f"`require` must name {ANY_OF_THEM}, got {label!r}")
    kind = format or detected_format(file)
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    _check_options(kind, keys, exclude is not None, memory_map)
    wanted = parse_properties(properties or ())
    if kind == "npz":
        raw = read_npz(file, keys, wanted)
    elif kind == "qm9":
        listed = os.fspath(exclude) if isinstance(exclude, os.PathLike) else exclude
        raw = read_qm9_tar(file, energy_key, listed, progress, wanted)
    elif kind == "hdf5":
        raw = read_hdf5(file, memory_map)
        raw.properties = _chosen(raw, wanted)
    else:
        raw = read_ase(file, None if kind == "ase" else kind, keys, progress, wanted)
    structures = converted(raw, _as_units(units), check_values=not memory_map)
    _check_required(structures, require, raw)
    return structures


def detected_format(path: Path) -> str:
    """One of "npz", "hdf5", "qm9" (a tar) and "ase"; by content where the name is open."""
    if path.suffix == ".npz":
        return "npz"
    if path.suffix in (".h5", ".hdf5") or h5py.is_hdf5(path):
        return "hdf5"
    if ".tar" in path.suffixes or path.suffix in (".tgz", ".tbz2"):
        return "qm9"
    return "qm9" if tarfile.is_tarfile(path) else "ase"


def _as_units(units: str | Units | None) -> Units:
    if units is None:
        return Units()
    return units if isinstance(units, Units) else parse_units(units)


def _check_options(kind: str, keys: dict[str, str | None], exclude: bool, memory_map: bool) -> None:
    """An option that the format would ignore is an error."""
    if exclude and kind != "qm9":
        raise ValueError(f"`exclude` must be left out: it is for QM9's tar, got a file of {kind}")
    if memory_map and kind != "hdf5":
        raise ValueError(f"`memory_map` must be left out: it is for HDF5, got a file of {kind}")
    for name, key in keys.items():
        if key is not None and (kind == "hdf5" or (kind == "qm9" and name != "energy")):
            raise ValueError(f"`{name}_key` must be left out for a file of {kind}, got {key!r}")


def _chosen(raw: RawSet, wanted: Sequence[Property]) -> dict[Property, NDArray]:
    """Those of a file's properties that are wanted, or all if none is named."""
    if not wanted:
        return raw.properties
    there = {given.name: given for given in raw.properties}
    for given in wanted:
        if given.name not in there:
            raise ValueError(
                f"`properties` must be among {', '.join(there) or 'none'} for {raw.source}, got {given.name}"
            )
    return {given: raw.properties[there[given.name]] for given in wanted}


def _check_required(structures: StructureSet, require: Sequence[str], raw: RawSet) -> None:
    for label in require:
        if not structures.labeled[label].any():
            hint = label_hint(structures, label)
            raise ValueError(f"{raw.source} must have {label}, found 0/{len(structures)}{hint}")
