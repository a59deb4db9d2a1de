"""LAMMPS for the tests: builds the plugin once, writes structures, runs scripts, reads what comes out."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from scschnet.lammps import build, installed_lammps

SYMBOLS = ("H", "C", "O")  # types 1, 2 and 3 of every structure
NUMBERS = np.array([1, 6, 8])
MASSES = np.array([1.008, 12.011, 15.999])
TENSOR = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # order of LAMMPS' components


def sanitizers() -> tuple[dict[str, str], dict[str, str]]:
    """Variables to build and to run with if SCSCHNET_SANITIZE is set (scschnet/lammps/src/README.md)."""
    if not os.environ.get("SCSCHNET_SANITIZE"):
        return {}, {}
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"
    commands = [["g++", f"-print-file-name=lib{name}.so"] for name in ("asan", "ubsan")]
    libraries = [subprocess.check_output(command, text=True).strip() for command in commands]
    options = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    return {"CXX": f"g++ {flags}"}, {"LD_PRELOAD": " ".join(libraries)} | options


@functools.cache
def environment() -> dict[str, str]:
    """Variables under which `lmp` finds a plugin that was built for this test session."""
    cache = Path(tempfile.mkdtemp(prefix="scschnet-lammps-"))
    while_building, while_running = sanitizers()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (while_building | {"XDG_CACHE_HOME": str(cache)}).items():
            patch.setenv(name, value)
        build(installed_lammps())
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
    scripts = sysconfig.get_path("scripts")
    own = {"PATH": f"{scripts}:/usr/bin:/bin", "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    return while_running | kept | own


def run(folder: Path, script: str, ranks: int = 1, check: bool = True) -> str:
    """Run `script` in `folder` and return what LAMMPS printed."""
    (folder / "in.lmp").write_text(script)
    command = ["lmp", "-in", "in.lmp", "-log", "none"]
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), *command]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout + done.stderr


def run_python(folder: Path, code: str) -> str:
    """Run Python code in another process, with LAMMPS' library at hand."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0:
        raise AssertionError(f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


@dataclass
class Structure:
    """Atoms in a cell that LAMMPS takes as it is: the first vector along x, the second in the xy plane."""

    positions: np.ndarray  # (n, 3) Å
    numbers: np.ndarray  # (n,)
    cell: np.ndarray  # (3, 3) Å
    pbc: tuple[bool, bool, bool] = (True, True, True)

    @property
    def boundary(self) -> str:
        return "boundary " + " ".join("p" if periodic else "f" for periodic in self.pbc)

    def write(self, path: Path, angstrom: float = 1.0, dalton: float = 1.0) -> None:
        """Write a data file; `angstrom`, `dalton`: one Å and one g/mol in its units."""
        cell = self.cell * angstrom
        lines = ["structure", "", f"{len(self.numbers)} atoms", f"{len(SYMBOLS)} atom types"]
        lines += [f"0 {cell[k, k]:.17g} {'xyz'[k]}lo {'xyz'[k]}hi" for k in range(3)]
        if np.any(cell != np.diag(np.diag(cell))):
            lines.append(f"{cell[1, 0]:.17g} {cell[2, 0]:.17g} {cell[2, 1]:.17g} xy xz yz")
        lines += ["", "Masses", ""] + [
            f"{k + 1} {mass:.17g}" for k, mass in enumerate(MASSES * dalton)
        ]
        lines += ["", "Atoms # atomic", ""]
        for k, (z, r) in enumerate(zip(self.numbers, self.positions * angstrom, strict=True)):
            kind = int(np.flatnonzero(z == NUMBERS)[0]) + 1
            lines.append(f"{k + 1} {kind} {r[0]:.17g} {r[1]:.17g} {r[2]:.17g}")
        path.write_text("\n".join(lines) + "\n")


def potential(file: str, style: str = "scschnet") -> str:
    """The two lines that choose the model for all types."""
    return f"pair_style {style}\npair_coeff * * {file} {' '.join(SYMBOLS)}\n"


def outputs(name: str, n_layers: int = 0, every: int = 1000000) -> str:
    """Computes, and a dump of everything per atom, to be followed by `run 0` and `report`."""
    layers = "compute layers all scschnet/layer\n" if n_layers else ""
    columns = "".join(f" c_layers[{k + 1}]" for k in range(n_layers))
    return f"""
compute energies all pe/atom
compute stresses all stress/atom NULL virial
{layers}dump all all custom {every} {name}.dump id type x y z fx fy fz c_energies c_stresses[*]{columns}
dump_modify all sort id format float %.17g first yes
thermo_style custom step pe etotal vol pxx pyy pzz pxy pxz pyz
thermo_modify norm no
"""


PRESSURES = ["pxx", "pyy", "pzz", "pxy", "pxz", "pyz"]
WORDS = ["pe", "etotal", "vol", *PRESSURES, "lx", "ly", "lz", "xy", "xz", "yz"]


def report(name: str) -> str:
    """Writes energy, pressure and cell of the last step to a file."""
    values = " ".join(f"$({word}:%.17g)" for word in WORDS)
    return f'print "{values}" file {name}.totals screen no\n'


@dataclass
class Result:
    """What LAMMPS says of a structure, in its units, and the structure itself."""

    energy: float
    total_energy: float
    volume: float
    pressure: np.ndarray  # (6,) xx yy zz xy xz yz
    structure: Structure
    forces: np.ndarray
    energies: np.ndarray
    stresses: np.ndarray  # (n, 6) pressure times volume, positive in tension
    layers: np.ndarray  # (n, n_layers)


def read(folder: Path, name: str, pbc: tuple[bool, bool, bool] = (True, True, True)) -> Result:
    """The last step of a run with `outputs` and `report`."""
    text = (folder / f"{name}.totals").read_text()
    at = dict(zip(WORDS, map(float, text.split()), strict=True))
    atoms = read_dump(folder / f"{name}.dump")[-1]
    cell = np.array(
        [[at["lx"], 0, 0], [at["xy"], at["ly"], 0], [at["xz"], at["yz"], at["lz"]]], dtype=float
    )
    return Result(
        energy=at["pe"],
        total_energy=at["etotal"],
        volume=at["vol"],
        pressure=np.array([at[word] for word in PRESSURES]),
        structure=Structure(atoms[:, 2:5], NUMBERS[atoms[:, 1].astype(int) - 1], cell, pbc),
        forces=atoms[:, 5:8],
        energies=atoms[:, 8],
        stresses=atoms[:, 9:15],
        layers=atoms[:, 15:],
    )


def read_dump(path: Path) -> list[np.ndarray]:
    """Columns of every step of a dump."""
    frames, lines = [], path.read_text().splitlines()
    for start in [k for k, line in enumerate(lines) if line.startswith("ITEM: ATOMS")]:
        n = int(lines[lines.index("ITEM: NUMBER OF ATOMS") + 1])
        rows = [[float(word) for word in line.split()] for line in lines[start + 1 : start + 1 + n]]
        frames.append(np.array(rows))
    return frames
