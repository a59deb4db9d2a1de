"""Command line: python -m scschnet.data convert | info | download."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional

from scschnet.data.download import fetch, remote_files
from scschnet.data.readers import read, write_hdf5
from scschnet.data.structure import StructureSet
from scschnet.data.summary import summary_table
from scschnet.files import write_any_text


@dataclass(frozen=True)
class Reading:
    """How to read a file."""

    units: str | None = None
    """units where the file does not say: 'kcal/mol, Angstrom', 'Ha, Angstrom, Ha/bohr' or ase"""
    energy_key: str | None = None
    """name of the energy in the file, such as U0 or REF_energy"""
    forces_key: str | None = None
    """name of the forces in the file"""
    stress_key: str | None = None
    """name of the stress in the file, or of a virial, which is converted"""
    properties: tuple[str, ...] = ()
    """properties to read, too: names such as mu homo r2 (QM9's), or NAME:KIND for values as they stand"""
    format: str | None = None
    """npz, qm9, hdf5 or ASE's name of a format; by the file if not given"""
    exclude: Path | None = None
    """for QM9's tar: list of molecules to leave out, such as uncharacterized.txt"""

    def read(self, file: Path) -> StructureSet:
        """Read `file`, with a bar on stderr where it takes long."""
        return read(file, **vars(self), progress=sys.stderr.isatty())


@dataclass(frozen=True)
class Convert:
    """Convert any file that can be read to scschnet's HDF5, in eV and Å."""

    source: Positional[Path]
    """file to read"""
    target: Positional[Path]
    """file to write, .h5"""
    reading: Reading = Reading()
    overwrite: bool = False
    """replace the target if it is there"""

    def run(self) -> None:
        """Read, write, and say what was found."""
        if self.target.suffix not in (".h5", ".hdf5"):
            raise ValueError(f"`target` must end in .h5, got {self.target}")
        if self.target.exists() and not self.overwrite:
            raise ValueError(
                f"`target` must not exist yet, got {self.target}; --overwrite replaces it"
            )
        structures = self.reading.read(self.source)
        write_hdf5(self.target, structures)
        print(summary_table(structures))
        print(f"wrote {self.target}, {self.target.stat().st_size / 1e6:.2f} MB")


@dataclass(frozen=True)
class Info:
    """Say what a file holds: structures, elements, units, labels, statistics, oddities."""

    file: Positional[Path]
    """file to read"""
    reading: Reading = Reading()

    def run(self) -> None:
        """Read and print the table."""
        print(summary_table(self.reading.read(self.file)))


@dataclass(frozen=True)
class Download:
    """Fetch a public set from its own address; continues if it was cut off."""

    dataset: Positional[Literal["md17", "rmd17", "qm9"]]
    """the set"""
    molecule: Positional[str | None] = None
    """for md17: aspirin, benzene, ethanol, malonaldehyde, naphthalene, salicylic_acid, toluene or
    uracil"""
    folder: Path = Path(".")
    """where to put it"""
    url: str | None = None
    """fetch from here instead, such as a mirror: the file, or for qm9 the folder with its files"""
    sha256: str | None = None
    """expected checksum, where you know one (sets of one file)"""

    def run(self) -> None:
        """Fetch every file of the set."""
        files = remote_files(self.dataset, self.molecule)
        if (self.url or self.sha256) and len(files) > 1:
            if self.sha256:
                raise ValueError("`sha256` must be left out for a set of several files")
            base = str(self.url).rstrip("/")
            files = tuple(replace(file, url=f"{base}/{file.name}") for file in files)
        elif self.url or self.sha256:
            file = files[0]
            known = self.sha256 or file.sha256
            files = (replace(file, url=self.url or file.url, sha256=known),)
        for file in files:
            checksum = fetch(file, self.folder)
            print(self.folder / file.name)
            if file.sha256 is None:
                print(f"SHA-256 {checksum}, recorded; none is published to compare it with")
            else:
                print(f"SHA-256 {checksum}, as expected")
            if file.note:
                print(file.note)


Command = OmitArgPrefixes[OmitSubcommandPrefixes[Convert | Info | Download]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: exit code 0 done, 1 failed; wrong usage leaves with 2."""
    write_any_text()
    command = tyro.cli(
        Annotated[Command, tyro.conf.arg(name="")],
        prog="python -m scschnet.data",
        description="Sets of structures: convert, describe, download.",
        args=None if arguments is None else list(arguments),
    )
    try:
        command.run()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
