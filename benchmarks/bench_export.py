"""Times exported models: a call once things have settled, and the first hundred calls with changing numbers of pairs.

    python benchmarks/bench_export.py --out benchmarks/results/export_PROCESSOR.json --files FOLDER

Ethanol (embedded frames), 64 and 512 water molecules (tests/data), random weights, six blocks, 5 Å, float32, one thread.
The calls take turns, some in a row, on the same structure; `model in Python` is the neighbor list operator and the fused
model of `scschnet.load`, without the list's conversion that ASE needs. For the first calls every structure is stretched by
another factor, and every file is run in a process of its own, through our loader and, as `torch default`, as
torch.jit.load leaves it. CPU time, medians. Exported files are kept in FOLDER: run once with `--seconds 0` to have
the .pt2 files compiled, then measure.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

import scschnet
from scschnet import ops
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.data import embedded
from scschnet.evaluate.norm_statistics import norm_statistics
from scschnet.export import load_exported
from scschnet.nn import ModelConfig, SchNet
from scschnet.nn.unfamiliarity import KEY

CUTOFF = 5.0  # Å
# features
CASES = {"ethanol_64": 64, "ethanol_128": 128, "water192_128": 128, "water1536_128": 128}
N_FIRST = 100
FIRST = {  # files and executors whose first calls are timed
    "ethanol_64": ("full", "portable", "pt2"),
    "water192_128": ("full", "portable", "pt2"),
    "water1536_128": ("full",),
}
BLOCK = 10  # calls in a row at most, after one that is not counted
IN_A_ROW = 1e5  # µs, that calls in a row may take
WATER = Path(__file__).parent.parent / "tests" / "data" / "water64_2frames.npz"

Structure = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def structure(case: str) -> Structure:
    """Positions, atomic numbers, cell, pbc."""
    if case.startswith("ethanol"):
        frame = embedded.load().select([0])
        r, z, cell, periodic = frame.positions, frame.atomic_numbers, np.zeros((3, 3)), False
    else:
        with np.load(WATER) as file:
            water = Atoms(file["z"], file["R"][0], cell=file["cell"][0], pbc=True)
        water = water.repeat(2 if case.startswith("water1536") else 1)
        r, z, cell, periodic = water.positions, water.numbers, water.cell.array, True
    tensors = (
        torch.tensor(np.asarray(x, t)) for x, t in ((r, float), (z, np.int64), (cell, float))
    )
    return (*tensors, torch.full((3,), periodic))


def stretched(original: Structure, n: int) -> list[Structure]:
    """Structures with different numbers of pairs."""
    r, z, cell, pbc = original
    factors = np.random.default_rng(0).permutation(np.linspace(0.95, 1.6 if n else 1.0, n))
    return [(r * f, z, cell * f, pbc) for f in factors]


def model_of(case: str) -> SchNet:
    torch.manual_seed(0)
    config = ModelConfig((1, 6, 8), n_features=CASES[case], n_interactions=6, cutoff=CUTOFF)
    model = SchNet(config).eval().requires_grad_(False)
    model.refine_filters()
    return model


def pairs_of(r: torch.Tensor, z: torch.Tensor, cell: torch.Tensor, pbc: torch.Tensor) -> tuple:
    i, j, shifts, _ = ops.neighbor_list(r, torch.tensor([0, len(z)]), cell[None], pbc[None], CUTOFF)
    half, _, half_j = ops.half_list(i, j, shifts, len(z))
    i, shifts = i[half], shifts[half].double()
    return z, i, half_j, r[half_j] - r[i] + shifts @ cell, len(z), True


def in_python(model: SchNet, r: torch.Tensor, z: torch.Tensor, cell: torch.Tensor, pbc) -> dict:
    n = len(z)
    i, j, shifts, _ = ops.neighbor_list(r, torch.tensor([0, n]), cell[None], pbc[None], CUTOFF)
    with torch.no_grad():
        return model(r, z, torch.zeros(n, dtype=torch.int64), cell[None], i, j, shifts)


def timed(call: Callable[[], object]) -> float:
    """CPU time of one call, µs."""
    start = time.process_time_ns()
    call()
    return (time.process_time_ns() - start) / 1e3


def checkpoint(case: str, folder: Path) -> Path:
    """The model with statistics of its norms, on structures that do not matter here."""
    path = folder / f"{case}_checkpoint.pt"
    if not path.exists():
        frames = embedded.load().select(range(20))
        statistics = norm_statistics(model_of(case), frames, frames)
        save_checkpoint(path, Checkpoint(model_of(case), {KEY: statistics.to_json()}))
    return path


def exported(case: str, kind: str, folder: Path) -> Path:
    """A file, written when first asked for: full, scored, portable or pt2."""
    path = folder / f"{case}_{kind}.pt"
    if not path.exists():
        model = checkpoint(case, folder) if kind == "scored" else model_of(case)
        format = "pt2" if kind == "pt2" else "torchscript"
        scschnet.export(model, path, portable=kind == "portable", format=format)
    return path


def settled(case: str, folder: Path, seconds: float) -> dict[str, object]:
    """Medians of calls that take turns, µs."""
    model, one = model_of(case), structure(case)
    pairs = pairs_of(*one)
    kinds = ("full", "scored", "portable", "pt2")
    loaded = {kind: load_exported(exported(case, kind, folder)) for kind in kinds}
    calls = {
        "model in Python": lambda: in_python(model, *one),
        "forward": lambda: loaded["full"].forward(*one),
        "forward, unfamiliarity": lambda: loaded["scored"].forward(*one),
        "forward, layers and virials": lambda: loaded["full"].forward(*one, True, True),
        "forward_pairs": lambda: loaded["full"].forward_pairs(*pairs),
        "portable forward": lambda: loaded["portable"].forward(*one),
        "portable forward_pairs": lambda: loaded["portable"].forward_pairs(*pairs),
        "pt2 pairs": lambda: loaded["pt2"].forward_pairs(*pairs),
    }
    in_a_row = {}
    for name, call in calls.items():
        call(), call()
        in_a_row[name] = max(1, min(BLOCK, int(IN_A_ROW / timed(call))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times["pt2 pairs"]:
        for name, call in calls.items():
            call()
            times[name] += [timed(call) for _ in range(in_a_row[name])]
    found = {name: round(statistics.median(values), 1) for name, values in times.items()}
    return {"n_atoms": len(one[1]), "n_half_pairs": len(pairs[1]), "us": found}


def first_calls(path: Path, case: str, executor: str) -> dict[str, float | list[float]]:
    """CPU times of loading a file in this process and of its first calls."""
    structures = stretched(structure(case), N_FIRST)
    given = [pairs_of(*s) for s in structures] if executor == "pairs" else structures
    start = time.process_time_ns()
    if executor == "torch default":
        warnings.simplefilter("ignore", DeprecationWarning)
        call = torch.jit.load(str(path))
    else:
        model = load_exported(path)
        call = model.forward_pairs if executor == "pairs" else model.forward
    load = (time.process_time_ns() - start) / 1e6
    times = [timed(lambda s=s: call(*s)) for s in given]
    again = statistics.median(timed(lambda: call(*given[0])) for _ in range(5))
    return {
        "load_ms": round(load, 1),
        "calls_1_to_5_us": [round(t) for t in times[:5]],
        "calls_6_to_20_median_us": round(statistics.median(times[5:20]), 1),
        "calls_81_to_100_median_us": round(statistics.median(times[80:]), 1),
        "first_structure_again_us": round(again, 1),
        "sum_of_100_ms": round(sum(times) / 1e3, 1),
    }


def all_first_calls(case: str, folder: Path) -> dict[str, dict]:
    found = {}
    for kind in FIRST[case]:
        path = exported(case, kind, folder)
        for executor in ("pairs",) if kind == "pt2" else ("our loader", "torch default"):
            command = [sys.executable, __file__, "--first", str(path), case, executor]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[f"{kind}, {executor}"] = json.loads(done.stdout)
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("export.json"), help="JSON file to write")
    parser.add_argument("--files", type=Path, help="folder that keeps the exported files")
    parser.add_argument("--seconds", type=float, default=6.0, help="per case")
    parser.add_argument("--first", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.first:
        path, case, executor = arguments.first
        print(json.dumps(first_calls(Path(path), case, executor)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.files or Path(temporary)
        folder.mkdir(exist_ok=True)
        report = measure(folder, arguments.seconds)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def measure(folder: Path, seconds: float) -> dict[str, object]:
    """Everything, with what it was measured on."""
    names = (
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    )
    return {
        "processor": next(names, platform.processor()),
        "load_before": os.getloadavg(),
        "scschnet": scschnet.__version__,
        "torch": torch.__version__,
        "threads": 1,
        "settled": {case: settled(case, folder, seconds) for case in CASES},
        "first_calls": {case: all_first_calls(case, folder) for case in FIRST if seconds},
    }


if __name__ == "__main__":
    main()
