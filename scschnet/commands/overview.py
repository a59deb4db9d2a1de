"""`scschnet`, and `python -m scschnet`: the list of commands, and the way to each of them."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from scschnet.commands.line import one_of, program, run, say_version, unknown
from scschnet.files import write_any_text

COMMANDS = {
    "data": "convert, inspect and download data sets",
    "train": "train a model",
    "evaluate": "errors of a trained model on a set",
    "predict": "energy and forces of frames with or without labels, written beside them",
    "select": "frames of a trajectory that are worth labeling",
    "runs": "a table of runs: the options in which they differ, errors, time",
    "report": "one page about finished runs: errors, and what the model does inside",
    "analysis": "the parts of that page one by one, with more options",
    "export": "write a trained model to a file for other programs",
    "info": "what such a file, a checkpoint or a run is",
    "lammps": "compile the pair style for LAMMPS",
    "doctor": "what is installed, whether it works, and what to do if it does not",
}
DESCRIPTION = """SchNet with weighted skip connections: train, evaluate, analyze and export interatomic potentials.

scschnet COMMAND --help shows the options of a command, scschnet --version the version, and scschnet --cmake-prefix the
path that a C++ program gives to CMAKE_PREFIX_PATH."""
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, or list all; returns the exit status: 0 done, 1 failed, 2 wrong usage.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    return run(_choose, arguments)


def _choose(arguments: Sequence[str] | None) -> int:
    write_any_text()
    first, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    rest = rest[:-1]
    if first in COMMANDS:
        try:
            command = module_of(first)
        except ImportError as error:  # a torch of another version, a package that is missing
            print(f"error: {error}", file=sys.stderr)
            return 1
        return command.main(rest) or 0
    if first == "--version":
        return say_version()
    if first == "--cmake-prefix":
        print(cmake_prefix())
        return 0
    if first in COMPLETION:
        complete([first, *rest])
    if first in ("", "-h", "--help"):
        listing(["--help"])
    if first.startswith("-"):
        print(f"error: unknown option `{first}`; {program()} --help lists all", file=sys.stderr)
        return 2
    return unknown(first, COMMANDS)


def module_of(command: str) -> Any:
    """The module of a command, `scschnet.commands.NAME`."""
    return importlib.import_module(f"scschnet.commands.{command}")


def cmake_prefix() -> Path:
    """Folder with the package files of CMake."""
    from scschnet import _C

    return Path(_C.__file__).parent / "share" / "cmake"


def listing(arguments: Sequence[str]) -> None:
    """Show the commands, each in a line, without importing them; this ends the process."""
    _tyro({name: _described(lambda: None, what) for name, what in COMMANDS.items()}, arguments)


def complete(arguments: Sequence[str]) -> None:
    """Write what a shell needs to complete commands and options, as tyro does it; this ends the process."""
    modules = {name: module_of(name) for name in COMMANDS}
    _tyro(
        {name: getattr(m, "OPTIONS", None) or m.Options for name, m in modules.items()}, arguments
    )


def _described(function: Any, what: str) -> Any:
    function.__doc__ = what
    return function


def _tyro(choices: dict[str, Any], arguments: Sequence[str]) -> None:
    tyro.cli(
        one_of(choices, DESCRIPTION),
        prog=program(),
        description=DESCRIPTION,
        args=list(arguments),
    )
