"""LAMMPS: builds the pair style `scschnet` and helps LAMMPS find it."""

from scschnet.lammps.build import BuildError, build, installed_lammps, lammps_from_source
from scschnet.lammps.mpi import preload_mpi
from scschnet_lammps import plugin_dir

__all__ = [
    "BuildError",
    "build",
    "installed_lammps",
    "lammps_from_source",
    "plugin_dir",
    "preload_mpi",
]
