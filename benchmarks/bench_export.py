"""Times exported models: a call once things have settled, and the first hundred calls with changing numbers of pairs.

    python benchmarks/bench_export.py --out benchmarks/results/export_PROCESSOR.json

Ethanol (embedded frames) and 64 water molecules (tests/data), random weights, six blocks, 5 Å, float32, one thread. The
calls take turns, ten in a row, on the same structure; `model in Python` is the neighbor list operator and the fused model of
`scschnet.load`, without the list's conversion that ASE needs. For the first calls every structure is stretched by
another factor, and every file is run in a process of its own, through our loader and, as `torch default`, as
torch.jit.load leaves it. CPU time, medians.
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

import scschnet
from scschnet import ops
from scschnet.data import embedded
from scschnet.export import load_exported
from scschnet.nn import ModelConfig, SchNet

CUTOFF = 5.0  # Å
CASES = {"ethanol_64": 64, "ethanol_128": 128, "water192_128": 128}  # features
N_FIRST = 100
BLOCK = 10  # calls in a row, after one that is not counted
WATER = Path(__file__).parent.parent / "tests" / "data" / "water64_2frames.npz"

Structure = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def structure(case: str) -> Structure:
    """Positions, atomic numbers, cell, pbc."""
    if case.startswith("ethanol"):
        frame = embedded.load().select([0])
        r, z, cell, periodic = frame.positions, frame.atomic_numbers, np.zeros((3, 3)), False
    else:
        with np.load(WATER) as file:
            r, z, cell, periodic = file["R"][0], file["z"], file["cell"][0], True
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


def settled(case: str, pt2: bool, seconds: float) -> dict[str, float]:
    """Medians of calls that take turns, µs."""
    model, one = model_of(case), structure(case)
    pairs = pairs_of(*one)
    with tempfile.TemporaryDirectory() as folder:
        loaded = {}
        for name, options in (("full", {}), ("portable", {"portable": True})):
            scschnet.export(model, Path(folder) / f"{name}.pt", **options)
            loaded[name] = load_exported(Path(folder) / f"{name}.pt")
        calls = {
            "model in Python": lambda: in_python(model, *one),
            "forward": lambda: loaded["full"].forward(*one),
            "forward, layers and virials": lambda: loaded["full"].forward(*one, True, True),
            "forward_pairs": lambda: loaded["full"].forward_pairs(*pairs),
            "portable forward": lambda: loaded["portable"].forward(*one),
            "portable forward_pairs": lambda: loaded["portable"].forward_pairs(*pairs),
        }
        if pt2:
            scschnet.export(model, Path(folder) / "m.pt2", format="pt2")
            loaded["pt2"] = load_exported(Path(folder) / "m.pt2")
            calls["pt2 pairs"] = lambda: loaded["pt2"].forward_pairs(*pairs)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call(), call(), call()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for name, call in calls.items():
                call()
                times[name] += [timed(call) for _ in range(BLOCK)]
    found = {name: round(statistics.median(values), 1) for name, values in times.items()}
    return {"n_atoms": len(one[1]), "n_half_pairs": len(pairs[1]), "us": found}


def first_calls(path: Path, case: str, by_torch: bool) -> list[float]:
    """CPU times of the first calls of a file in this process, µs."""
    structures = stretched(structure(case), N_FIRST)
    if by_torch:
        warnings.simplefilter("ignore", DeprecationWarning)
        call = torch.jit.load(str(path))
    else:
        call = load_exported(path).forward
    return [timed(lambda s=s: call(*s)) for s in structures]


def summary_of_first(times: list[float]) -> dict[str, float | list[float]]:
    return {
        "calls_1_to_5_us": [round(t) for t in times[:5]],
        "calls_6_to_20_median_us": round(statistics.median(times[5:20]), 1),
        "calls_81_to_100_median_us": round(statistics.median(times[80:]), 1),
        "sum_of_100_ms": round(sum(times) / 1e3, 1),
    }


def all_first_calls(case: str) -> dict[str, dict]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("full", "portable"):
            path = Path(folder) / f"{kind}.pt"
            scschnet.export(model_of(case), path, portable=kind == "portable")
            for executor in ("our loader", "torch default"):
                command = [sys.executable, __file__, "--first", str(path), case, executor]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found[f"{kind}, {executor}"] = summary_of_first(json.loads(done.stdout))
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("export.json"), help="JSON file to write")
    parser.add_argument("--seconds", type=float, default=6.0, help="per case")
    parser.add_argument("--pt2", action="store_true", help="the .pt2 file, too (compiles)")
    parser.add_argument("--first", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.first:
        path, case, executor = arguments.first
        print(json.dumps(first_calls(Path(path), case, executor == "torch default")))
        return
    names = (
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    )
    report = {
        "processor": next(names, platform.processor()),
        "load_before": os.getloadavg(),
        "torch": torch.__version__,
        "threads": 1,
        "settled": {case: settled(case, arguments.pt2, arguments.seconds) for case in CASES},
        "first_calls": {case: all_first_calls(case) for case in ("ethanol_64", "water192_128")},
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
