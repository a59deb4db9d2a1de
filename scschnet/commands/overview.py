"""`python -m scschnet`: where the compiled parts lie, what they were built for, and which commands there are."""

import argparse
from pathlib import Path

from scschnet import _C, __version__
from scschnet.files import write_any_text

COMMANDS = {
    "data": "convert, inspect and download data sets",
    "train": "train a model",
    "evaluate": "errors of a trained model on a set",
    "predict": "energy and forces of frames with or without labels, written beside them",
    "select": "frames of a trajectory that are worth labeling",
    "report": "one page about finished runs: errors, and what the model does inside",
    "analysis": "the parts of that page one by one, with more options",
    "export": "write a trained model to a file for other programs",
    "info": "what such a file, a checkpoint or a run is",
    "lammps": "compile the pair style for LAMMPS",
}


def main(arguments: list[str] | None = None) -> None:
    """Print one of the paths, or a summary of the build.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    write_any_text()
    parser = argparse.ArgumentParser(prog="python -m scschnet", description=__doc__)
    parser.add_argument(
        "--cmake-prefix", action="store_true", help="path for CMAKE_PREFIX_PATH of a C++ program"
    )
    folder = Path(_C.__file__).parent
    if parser.parse_args(arguments).cmake_prefix:
        print(folder / "share" / "cmake")
    else:
        print(f"scschnet {__version__}, compiled for torch {_C.build_torch}, in {folder}\n")
        for name, what in COMMANDS.items():
            print(f"python -m scschnet.{name:10}{what}")
