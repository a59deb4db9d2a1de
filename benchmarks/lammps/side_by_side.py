"""A step of dynamics of the same water with our pair style, our ASE calculator and SchNetPack's, in turns.

    python benchmarks/lammps/side_by_side.py --data water64_pbc.npz --schnetpack schnetpack-venv/bin/python \
        --out benchmarks/results/lammps_side_by_side.json

Networks of random weights, F = 128, L = 6, 5 Å, float32; one thread each. Ours move at 300 K in steps of 0.5 fs, LAMMPS with
a skin of 1 Å, in ASE with a new neighbor list on every step. SchNetPack gets its `SkinNeighborList`, and moves so little
that it is never rebuilt; `tuned_flush` is explained in benchmarks/peers. The .pt2 file (AOTInductor) is the bare pair call.
One program runs at a time; times are processor times, so that others may use the machine, of the fastest turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import units
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from bench_pair_style import (
    TIMESTEP,
    description,
    half_pairs_of,
    make_model,
    read_lammps,
    start_lammps,
    water_script,
    write_structure,
)

from scschnet import ScSchNetCalculator, export
from scschnet.export import load_exported

SETTINGS = ("installed", "tuned_flush")


def time_calls(run, seconds: float = 4.0) -> float:
    """Median processor time, ms, after two calls."""
    run(), run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.process_time()
        run()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


def time_ase(structure: Path, scratch: Path) -> float:
    atoms = ase.io.read(structure, format="lammps-data")
    atoms.calc = ScSchNetCalculator(make_model())
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, timestep=1e3 * TIMESTEP * units.fs)
    return time_calls(lambda: dynamics.run(1))


def time_pt2(structure: Path, scratch: Path) -> float:
    z, *pairs = half_pairs_of(ase.io.read(structure, format="lammps-data"))
    model = load_exported(scratch / "model.pt2")
    return time_calls(lambda: model.forward_pairs(z, *pairs, len(z), True))


WORKERS = {"ase": time_ase, "pt2": time_pt2}


def run_worker(name: str, structure: Path, scratch: Path) -> float:
    command = [sys.executable, __file__, "--worker", name, str(structure), str(scratch)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def run_schnetpack(python: Path, data: Path, repeats: int, setting: str) -> float:
    sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
    import schnetpack_step as peer

    script = Path(__file__).with_name("schnetpack_md.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | peer.SETTINGS[setting].environment
    command = [str(python), str(script), str(data), str(repeats), setting]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["cpu_ms"]


def run_lammps(structure: Path, scratch: Path, steps: int) -> float:
    script = water_script(structure, scratch / "model.pt", steps)
    return read_lammps(start_lammps(script, scratch, 1), steps)["cpu_ms"]


def compare(arguments: argparse.Namespace, repeats: int, scratch: Path) -> dict:
    structure = write_structure(str(arguments.data), repeats, scratch)
    steps = 1600 // repeats**3
    programs = {
        "pair_style scschnet": lambda: run_lammps(structure, scratch, steps),
        "ScSchNetCalculator": lambda: run_worker("ase", structure, scratch),
        "pt2 pair call": lambda: run_worker("pt2", structure, scratch),
    } | {
        f"SchNetPack {setting}": lambda setting=setting: run_schnetpack(
            arguments.schnetpack, arguments.data, repeats, setting
        )
        for setting in SETTINGS
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    loads = []
    for _ in range(arguments.turns):
        loads.append(os.getloadavg()[0])
        for name, run in programs.items():
            times[name].append(run())
            print(repeats, name, times[name][-1], file=sys.stderr)
    return {"n_atoms": 192 * repeats**3, "loads": loads, "cpu_ms": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="npz with frames of water")
    parser.add_argument("--schnetpack", type=Path, help="Python of SchNetPack's environment")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        torch.set_num_threads(1)
        name, structure, folder = arguments.worker
        print(WORKERS[name](Path(structure), Path(folder)))
        return
    report = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": []}
    report |= description() | {"schnetpack": "2.2.0"}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        export(make_model(), scratch / "model.pt")
        export(make_model(), scratch / "model.pt2", format="pt2")
        for repeats in arguments.repeats:
            row = compare(arguments, repeats, scratch)
            others = [r for r in report["rows"] if r["n_atoms"] != row["n_atoms"]]
            report["rows"] = sorted([*others, row], key=lambda r: r["n_atoms"])
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
