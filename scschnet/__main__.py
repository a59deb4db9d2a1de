"""`python -m scschnet`: where the compiled parts lie and what they were built for."""

import argparse
from pathlib import Path

from scschnet import _C, __version__


def main() -> None:
    """Print one of the paths, or a summary of the build."""
    parser = argparse.ArgumentParser(prog="python -m scschnet", description=__doc__)
    parser.add_argument(
        "--cmake-prefix", action="store_true", help="path for CMAKE_PREFIX_PATH of a C++ program"
    )
    folder = Path(_C.__file__).parent
    if parser.parse_args().cmake_prefix:
        print(folder / "share" / "cmake")
    else:
        print(f"scschnet {__version__}, compiled for torch {_C.build_torch}, in {folder}")


if __name__ == "__main__":
    main()
