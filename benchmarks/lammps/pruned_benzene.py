"""A step of LAMMPS with benzene's model of six blocks, and with what pruning to two leaves of it, in turns.

    python benchmarks/lammps/pruned_benzene.py runs/benzene-0 runs/benzene-0-2-blocks \
        --out benchmarks/results/lammps_pruned_benzene.json

RUN folders: a training on MD17 benzene and a folder of `python -m scschnet.analysis prune`, or others. One molecule in a periodic
box of 16 Å, and 64 of these boxes; NVE from 300 K, 0.5 fs. Times of LAMMPS, of the fastest turn: wall times, and for one rank
processor times.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import ase.build
import ase.io
from bench_pair_style import description, read_lammps, start_lammps

from scschnet import export

BOX = 16.0  # Å; molecules 11 Å apart do not see each other
CASES = ((1, 1), (4, 1), (4, 2))  # boxes along each axis, ranks
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
run {warm_up}
run {steps}
"""


def measure(model: Path, data: Path, repeats: int, ranks: int) -> dict:
    steps = 4000 if repeats == 1 else 400
    values = {"model": model, "data": data, "repeats": repeats}
    script = SCRIPT.format(steps=steps, warm_up=steps // 4, **values)
    return read_lammps(start_lammps(script, model.parent, ranks), steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        benzene = ase.build.molecule("C6H6", cell=[BOX] * 3)
        benzene.center()
        data = scratch / "benzene.data"
        ase.io.write(data, benzene, format="lammps-data", specorder=["H", "C"], masses=True)
        models = {run.name: scratch / f"{run.name}.pt" for run in arguments.runs}
        for run, file in zip(arguments.runs, models.values(), strict=True):
            export(run, file)
        for repeats, ranks in CASES:
            load, times = os.getloadavg()[0], {name: [] for name in models}
            for _ in range(arguments.turns):
                for name, file in models.items():
                    times[name].append(measure(file, data, repeats, ranks))
            about = {"n_atoms": len(benzene) * repeats**3, "ranks": ranks, "load": load}
            for name, found in times.items():
                all_times = {key: [run[key] for run in found] for key in ("wall_ms", "cpu_ms")}
                rows.append(about | {"run": name} | all_times)
                print(rows[-1])
    report = {**description(), "n_features": 64, "dtype": "float32", "rows": rows}
    del report["n_interactions"]
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
