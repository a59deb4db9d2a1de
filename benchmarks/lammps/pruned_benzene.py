"""A step of LAMMPS with benzene's model of six blocks, and with what pruning to two leaves of it, in turns.

    python -m benchmarks.lammps.pruned_benzene runs/benzene-0 runs/benzene-0-2-blocks

Two RUN folders: a training on MD17 benzene and a folder of `python -m scschnet.analysis prune`, or others. One molecule in a
periodic box of 16 Å, and 64 of these boxes; NVE from 300 K, 0.5 fs. Prints a row of a table for each size: CPU time for
one rank, wall time for more, ms per step, medians of the turns.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import ase.build
import ase.io

from benchmarks.lammps.programs import STEPS, Ranks, start, step_of
from benchmarks.measure import timed_by
from scschnet import export

BOX = 16.0  # Å; molecules 11 Å apart do not see each other
CASES = ((1, 1), (4, 1), (4, 2))  # boxes along each axis, ranks
TURNS = 50
SCRIPT = """
units metal
read_data {data}
replicate {repeats} {repeats} {repeats}
pair_style scschnet
pair_coeff * * {model} H C
neighbor 1.0 bin
timestep 0.0005
velocity all create 600 4928 loop geom
fix move all nve
"""


def stepper(script: str, ranks: int, folder: Path, stack: ExitStack) -> Callable[[int], float]:
    """A function that takes n times STEPS steps and returns the seconds of all."""
    if ranks == 1:
        lmp = start(script)
        stack.callback(lmp.close)
        return timed_by(time.process_time, step_of(lmp))
    return timed_by(time.perf_counter, stack.enter_context(Ranks(ranks, script, folder)).step)


def main(runs: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        benzene = ase.build.molecule("C6H6", cell=[BOX] * 3)
        benzene.center()
        data = folder / "benzene.data"
        ase.io.write(data, benzene, format="lammps-data", specorder=["H", "C"], masses=True)
        for run in runs:
            export(run, folder / f"{run.name}.pt")
        for repeats, ranks in CASES:
            values = {"data": data, "repeats": repeats}
            scripts = [SCRIPT.format(model=folder / f"{run.name}.pt", **values) for run in runs]
            steppers = [stepper(script, ranks, folder, stack) for script in scripts]
            turns = [[1e3 * run(1) / STEPS for run in steppers] for _ in range(TURNS)]
            times = [f"{statistics.median(found):.3f}" for found in zip(*turns, strict=True)]
            ratio = statistics.median(first / last for first, *_, last in turns)
            about = (f"{len(benzene) * repeats**3}", str(ranks), "CPU" if ranks == 1 else "wall")
            cells = [*about, *times, f"{ratio:.2f}x", f"{os.getloadavg()[0]:.1f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main([Path(run) for run in sys.argv[1:]])
