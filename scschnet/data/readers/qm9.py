"""QM9 as published: a tar of dsgdb9nsd_XXXXXX.xyz files, and the list of uncharacterized molecules.

Each file: number of atoms; "gdb", index and 15 properties; element, x, y, z, charge per atom;
frequencies, SMILES and InChI, which are not read. Exponents are written 1.2*^-6. Energies are
Hartree and lengths Å, by the set's own description (doi:10.1038/sdata.2014.22, table 3).
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from lzma import LZMAError
from pathlib import Path
from typing import IO, cast

import numpy as np
from ase.data import atomic_numbers as number_of
from tqdm import tqdm

from scschnet.data.readers.raw import RawSet
from scschnet.properties import Property
from scschnet.units import Units

PROPERTIES = (
    *("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap"),
    *("r2", "zpve", "U0", "U", "H", "G", "Cv"),
)
ENERGIES = ("U0", "U", "H", "G", "homo", "lumo", "gap", "zpve")
N_MOLECULES = 133_885

# Isolated atoms, Hartree, from the set's own table (doi:10.6084/m9.figshare.1057643).
ATOMREF: dict[str, dict[int, float]] = {
    "U0": {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730},
    "U": {1: -0.498857, 6: -37.845355, 7: -54.582445, 8: -75.063163, 9: -99.717314},
    "H": {1: -0.497912, 6: -37.844411, 7: -54.581501, 8: -75.062219, 9: -99.716370},
    "G": {1: -0.510927, 6: -37.861317, 7: -54.598897, 8: -75.079532, 9: -99.733544},
}

UNITS = dict.fromkeys(ENERGIES, "Ha") | {
    "mu": "D",
    "alpha": "a0^3",
    "r2": "a0^2",
    "Cv": "cal/(mol K)",
}

Molecule = tuple[list[int], list[float], list[float]]
"""Atomic numbers, coordinates (3 per atom), and the energy and the properties asked for."""

_MEMBER = re.compile(r"(?:^|/)dsgdb9nsd_(\d{6})\.xyz$")
_HEADER_LINES = 9  # of the published list of uncharacterized molecules; its last line is a footer


def read_qm9_tar(
    path: Path,
    energy_key: str | None = None,
    exclude: str | Path | Collection[int] | None = None,
    progress: bool = False,
    properties: Sequence[Property] = (),
) -> RawSet:
    """Read the archive, compressed or not, molecules in the order of their numbers.

    Args:
        path: dsgdb9nsd.xyz.tar.bz2 or the like.
        energy_key: one of U0, U, H, G, homo, lumo, gap, zpve; None: U0.
        exclude: numbers (from 1) of molecules to leave out, or the file that lists them.
        progress: show a bar on stderr.
        properties: to be read, too.

    Raises:
        ValueError: if the archive has no such property, is damaged, or a file in it does not follow the format.
    """
    key = energy_key or "U0"
    if key not in ENERGIES:
        raise ValueError(f"`energy_key` must be one of {', '.join(ENERGIES)}, got {key!r}")
    for given in properties:
        if given.name not in PROPERTIES:
            raise ValueError(
                f"`properties` must be among {', '.join(PROPERTIES)} for {path.name}, got {given.name}"
            )
    excluded = _excluded_indices(exclude)
    columns = [PROPERTIES.index(name) for name in (key, *(given.name for given in properties))]
    molecules: dict[int, Molecule] = {}
    others = n_excluded = 0
    bar = tqdm(total=N_MOLECULES, unit=" molecules", disable=not progress, leave=False)
    for name, content in _members(path):
        match = _MEMBER.search(name)
        if match is None:
            others += 1
            continue
        index = int(match[1])
        bar.update()
        if index in excluded:
            n_excluded += 1
        elif index in molecules:
            raise ValueError(f"{path.name} must hold each molecule once, got {name} twice")
        else:
            molecules[index] = _parsed(name, content, columns)
    bar.close()
    if not molecules and not n_excluded:
        raise ValueError(f"{path.name} must hold dsgdb9nsd_XXXXXX.xyz files, got none")
    raw = _joined(path.name, key, molecules, properties)
    raw.info["molecules"] = f"{len(molecules) + n_excluded} in the archive, {n_excluded} excluded"
    if others:
        raw.info["ignored"] = f"{others} archive members that are no dsgdb9nsd_XXXXXX.xyz"
    return raw


def read_excluded(path: Path) -> list[int]:
    """Molecule numbers of QM9's published "uncharacterized.txt", or one number a line.

    Raises:
        ValueError: naming the line that does not begin with a number.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    plain = all(re.fullmatch(r"\s*\d*\s*", line) for line in lines)
    first = 0 if plain else _HEADER_LINES
    body = lines if plain else lines[_HEADER_LINES:-1]
    indices = []
    for number, line in enumerate(body, start=first + 1):
        words = line.split()
        if not words:
            continue
        if not words[0].isdecimal() or not 1 <= int(words[0]) <= N_MOLECULES:
            raise ValueError(
                f"line {number} of {path.name} must begin with a molecule number from 1 to "
                f"{N_MOLECULES}, got {line.strip()[:40]!r}"
            )
        indices.append(int(words[0]))
    if not indices:
        raise ValueError(f"{path.name} must list molecule numbers, got none")
    if len(set(indices)) != len(indices):
        raise ValueError(f"{path.name} must list each molecule once, got repeats")
    return indices


def _excluded_indices(exclude: str | Path | Collection[int] | None) -> frozenset[int]:
    if exclude is None:
        return frozenset()
    if isinstance(exclude, str | Path):
        return frozenset(read_excluded(Path(exclude)))
    return frozenset(int(index) for index in exclude)


class _Header(tarfile.TarInfo):
    """A header of the archive. tarfile takes a damaged one for the end, and what follows is missed."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """The header in a block; the end of the archive is a block of zeros."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf and not any(buf):
                raise
            raise tarfile.ReadError(str(error)) from error


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Regular files of the archive, in its order, without unpacking it to disk."""
    n_read = 0
    try:
        with tarfile.open(path, "r|*", tarinfo=_Header) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    yield member.name, file.read()
                    n_read += 1
            _check_end(cast(IO[bytes], archive.fileobj))
    except (tarfile.TarError, EOFError, OSError, zlib.error, LZMAError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ValueError(
            f"`{path.name}` must be a whole tar archive, but its file number {n_read + 1} cannot be read: {error}"
        ) from error


def _check_end(rest: IO[bytes]) -> None:
    """Behind the block of zeros that ends an archive there is nothing but zeros."""
    while block := rest.read(tarfile.RECORDSIZE):
        if any(block):
            raise tarfile.ReadError("a block of zeros stands where its header should be")


def _parsed(name: str, content: bytes, columns: list[int]) -> Molecule:
    """One file of the archive."""
    try:
        lines = content.decode("ascii").replace("*^", "e").split("\n")
        n_atoms = int(lines[0])
        properties = lines[1].split()[2:]
        if len(properties) != len(PROPERTIES):
            raise ValueError(f"{len(properties)} properties, expected {len(PROPERTIES)}")
        rows = [line.split() for line in lines[2 : 2 + n_atoms]]
        if len(rows) != n_atoms or any(len(row) != 5 for row in rows):
            raise ValueError(f"fewer than {n_atoms} lines of element, x, y, z, charge")
        numbers = [number_of[row[0]] for row in rows]
        coordinates = [float(value) for row in rows for value in row[1:4]]
        return numbers, coordinates, [float(properties[column]) for column in columns]
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{name} must be a QM9 xyz file, got {error}") from None


def _joined(
    source: str, key: str, molecules: dict[int, Molecule], properties: Sequence[Property]
) -> RawSet:
    ordered = [molecules[index] for index in sorted(molecules)]
    sizes = [len(numbers) for numbers, _, _ in ordered]
    atomref = np.zeros(max(ATOMREF["U0"]) + 1)
    for element, value in ATOMREF.get(key, {}).items():
        atomref[element] = value
    values = np.array([row for _, _, row in ordered], dtype=np.float64)
    values = values.reshape(len(ordered), 1 + len(properties))
    return RawSet(
        source=source,
        positions=np.array([x for _, xyz, _ in ordered for x in xyz]).reshape(-1, 3),
        atomic_numbers=np.array([z for numbers, _, _ in ordered for z in numbers], dtype=np.int64),
        atom_ptr=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64),
        energy=values[:, 0],
        properties={given: values[:, 1 + k] for k, given in enumerate(properties)},
        property_units=UNITS,
        atomref=atomref if key in ATOMREF else None,
        units=Units("Ha", "Å"),
        info={
            "format": "QM9 xyz archive",
            "name": "QM9",
            "theory": "B3LYP/6-31G(2df,p)",
            "energy key": key,
        },
    )
