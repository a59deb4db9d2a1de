"""`scschnet data convert | info | download`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from scschnet.commands.line import failed, one_of, optional, parse_one_of
from scschnet.data.download import fetch, remote_files
from scschnet.data.readers import read, write_hdf5
from scschnet.data.structure import StructureSet
from scschnet.data.summary import summary_table


@dataclass(frozen=True)
class Reading:
    """How to read a file."""

    units: Annotated[str | None, optional("UNITS")] = None
    """Units of a file that does not state them: 'kcal/mol, Angstrom', 'Ha, Angstrom, Ha/bohr' or ase."""
    energy_key: Annotated[str | None, optional("NAME")] = None
    """Name of the energy in the file, for example U0 or REF_energy."""
    forces_key: Annotated[str | None, optional("NAME")] = None
    """Name of the forces in the file, for example REF_forces."""
    stress_key: Annotated[str | None, optional("NAME")] = None
    """Name of the stress in the file, or of a virial, which is converted."""
    properties: Annotated[tuple[str, ...], optional("NAME [NAME ...]")] = ()
    """Properties to read, too: names such as mu homo r2 (QM9's), or NAME:KIND for values as they stand."""
    format: Annotated[str | None, optional("FORMAT")] = None
    """npz, qm9, hdf5 or ASE's name of a format; by the file if not given."""
    exclude: Annotated[Path | None, optional("FILE")] = None
    """For QM9's tar: list of molecules to leave out, such as uncharacterized.txt."""

    def read(self, file: Path) -> StructureSet:
        """Read `file`, with a bar on stderr where it takes long."""
        return read(file, **vars(self), progress=sys.stderr.isatty())


@dataclass(frozen=True)
class Convert:
    """Convert any file that can be read to scschnet's HDF5, in eV and Å."""

    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """File to read."""
    target: Annotated[Positional[Path], arg(metavar="TARGET")]
    """File to write, .h5."""
    reading: OmitArgPrefixes[Reading] = Reading()
    overwrite: bool = False
    """Replace the target if it is there."""

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

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """File to read."""
    reading: OmitArgPrefixes[Reading] = Reading()

    def run(self) -> None:
        """Read and print the table."""
        print(summary_table(self.reading.read(self.file)))


@dataclass(frozen=True)
class Download:
    """Fetch a public set from its own address; continues if it was cut off."""

    dataset: Positional[Literal["md17", "rmd17", "qm9"]]
    """The set."""
    molecule: Annotated[Positional[str | None], optional("[MOLECULE]")] = None
    """For md17: aspirin, benzene, ethanol, malonaldehyde, naphthalene, salicylic_acid, toluene or
    uracil."""
    folder: Annotated[Path, arg(metavar="DIR")] = Path(".")
    """Where to put it."""
    url: Annotated[str | None, optional("URL")] = None
    """Fetch from here instead, such as a mirror: the file, or for qm9 the folder with its files."""
    sha256: Annotated[str | None, optional("CHECKSUM")] = None
    """Expected checksum, where you know one (sets of one file)."""

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


COMMANDS: dict[str, type] = {"convert": Convert, "info": Info, "download": Download}
ABOUT = "Sets of structures: convert, describe, download."
OPTIONS = one_of(COMMANDS, ABOUT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: exit code 0 done, 1 failed; wrong usage leaves with 2."""
    command = parse_one_of(COMMANDS, "data", ABOUT, arguments)
    try:
        command.run()
    except (ValueError, OSError) as error:
        return failed(error, command)
    return 0
