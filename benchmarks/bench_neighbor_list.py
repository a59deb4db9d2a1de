"""Neighbor lists against ASE, matscipy and vesin, all interleaved in one run.

    OMP_NUM_THREADS=1 python benchmarks/bench_neighbor_list.py [--data FOLDER] [--out FILE.json] [--quick]
    python benchmarks/table_neighbor_list.py FILE.json

Every package is called from Python on the same float64 arrays and returns i, j and S (i and j 64 bit). Each round times
every package once, in turn; the result is the median over the rounds of the process's CPU time and of the wall time per
call. With --data, molecules come from md17_ethanol.npz, md17_aspirin.npz and qm9.npz in that folder; else from ASE and
from tests/data.
"""

import argparse
import itertools
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import ase.neighborlist
import numpy as np
import vesin
from ase.build import molecule
from matscipy.neighbours import neighbour_list

from scschnet import _C, batch_neighbor_list, neighbor_list

HERE = Path(__file__).parent
System = tuple[np.ndarray, np.ndarray | None, float]  # positions, cell or None (open), cutoff


def water(n_side: int) -> System:
    """n_side^3 molecules at 0.997 g/cm3, on a grid, shaken and turned."""
    rng = np.random.default_rng(0)
    a = 29.97 ** (1 / 3)
    grid = np.stack(np.meshgrid(*[np.arange(n_side)] * 3, indexing="ij"), -1).reshape(-1, 3) * a
    oxygens = grid + rng.normal(scale=0.25, size=grid.shape)
    bonds = rng.normal(size=(len(grid), 2, 3))
    bonds *= 0.96 / np.linalg.norm(bonds, axis=-1, keepdims=True)
    positions = np.concatenate([oxygens[:, None], oxygens[:, None] + bonds], axis=1).reshape(-1, 3)
    return positions, a * n_side * np.eye(3), 5.0


def molecules(data: Path | None) -> dict[str, System]:
    if data is None:
        ethanol, benzene = molecule("CH3CH2OH").positions, molecule("C6H6").positions
        pair = np.concatenate([ethanol, benzene + np.array([0, 0, 3.5])])
        return {"ethanol": (ethanol, None, 5.0), "ethanol and benzene": (pair, None, 5.0)}
    return {
        name: (np.load(data / f"md17_{name}.npz")["R"][0].astype(np.float64), None, 5.0)
        for name in ("ethanol", "aspirin")
    }


def systems(data: Path | None, quick: bool) -> dict[str, System]:
    skewed = np.array([[4.0, 0, 0], [1.9, 3.8, 0], [1.4, 1.3, 4.2]])
    result = molecules(data)
    result["2 atoms, skewed cell"] = (np.array([[0.0, 0, 0], [1.6, 1.6, 1.6]]), skewed, 10.0)
    return result | {f"water {3 * n**3}": water(n) for n in ((4, 8) if quick else (4, 8, 16, 32))}


def calls(system: System) -> dict[str, Callable[[], tuple]]:
    """Each package on this system, with the arguments that it wants."""
    positions, cell, cutoff = system
    pbc = [cell is not None] * 3
    box = np.zeros((3, 3)) if cell is None else cell
    fast = vesin.NeighborList(cutoff=cutoff, full_list=True)
    in_order = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    arrays = {"positions": positions, "cutoff": cutoff}
    periodic = {} if cell is None else {"cell": cell, "pbc": pbc}
    open_or_periodic = 30 * np.eye(3) if cell is None else cell
    result = {
        "scschnet": lambda: neighbor_list("ijS", **arrays, **periodic, threads=1),
        "scschnet 2 threads": lambda: neighbor_list("ijS", **arrays, **periodic, threads=2),
        "vesin": lambda: fast.compute(positions, box, cell is not None, "ijS"),
        "vesin sorted": lambda: in_order.compute(positions, box, cell is not None, "ijS"),
        # Given no cell, matscipy makes one first, which takes as long again.
        "matscipy": lambda: neighbour_list("ijS", **arrays, cell=open_or_periodic, pbc=pbc),
    }
    if len(positions) < 20_000:
        result["ase"] = lambda: ase.neighborlist.primitive_neighbor_list(
            "ijS", pbc, open_or_periodic, positions, cutoff
        )
    for isa in _C.instruction_sets():
        result[f"scschnet {isa}"] = lambda isa=isa: _C.neighbor_list(
            "ijS", positions, cell, pbc, cutoff, 1, isa
        )
    return result


def batch_calls(data: Path | None) -> dict[str, Callable[[], tuple]]:
    """One call for 100 molecules of QM9 against 100 calls."""
    if data is None:
        sample = np.load(HERE.parent / "tests/data/qm9_first20.npz")
        repeats, wanted = 5, 20
    else:
        sample = np.load(data / "qm9.npz")
        repeats, wanted = 1, 100
    n_atoms = sample["n_atoms"][:wanted].astype(np.int64)
    positions = np.tile(sample["R"][: n_atoms.sum()].astype(np.float64), (repeats, 1))
    atom_ptr = np.cumsum([0, *np.tile(n_atoms, repeats)])
    parts = [positions[a:b].copy() for a, b in itertools.pairwise(atom_ptr)]
    fast = vesin.NeighborList(cutoff=5.0, full_list=True)
    box, large_box = np.zeros((3, 3)), 30 * np.eye(3)
    result = {
        "scschnet": lambda: batch_neighbor_list(positions, atom_ptr, 5.0, threads=1),
        "scschnet 2 threads": lambda: batch_neighbor_list(positions, atom_ptr, 5.0, threads=2),
        "scschnet, 100 calls": lambda: [
            neighbor_list("ijS", positions=r, cutoff=5.0, threads=1) for r in parts
        ],
        "vesin": lambda: [fast.compute(r, box, False, "ijS") for r in parts],
        "matscipy": lambda: [
            neighbour_list("ijS", positions=r, cell=large_box, pbc=[False] * 3, cutoff=5.0)
            for r in parts
        ],
    }
    for isa in _C.instruction_sets():
        result[f"scschnet {isa}"] = lambda isa=isa: _C.batch_neighbor_list(
            positions, atom_ptr, None, None, 5.0, 1, isa
        )
    return result


def n_pairs(result: tuple | list) -> int:
    return sum(len(r[0]) for r in result) if isinstance(result, list) else len(result[0])


def measure(functions: dict[str, Callable[[], tuple]], seconds: float) -> dict:
    """Milliseconds per call; checks that all find equally many pairs."""
    pairs = {name: n_pairs(function()) for name, function in functions.items()}
    if len(set(pairs.values())) != 1:
        raise RuntimeError(f"the packages disagree: {pairs}")
    repeats, rounds = {}, {}
    for name, function in functions.items():
        start = time.perf_counter()
        function()
        once = max(time.perf_counter() - start, 1e-7)
        repeats[name] = max(1, int(5e-4 / once))
        rounds[name] = int(np.clip(seconds / (once * repeats[name]), 2, 200))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for turn in range(max(rounds.values())):
        for name, function in functions.items():
            if turn >= rounds[name]:
                continue
            function()  # the caches hold what the package before left there
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeats[name]):
                function()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            samples[name].append((1e3 * cpu / repeats[name], 1e3 * wall / repeats[name]))
    times = {
        name: dict(
            zip(("cpu_ms", "wall_ms"), np.median(s, axis=0).tolist(), strict=True), rounds=len(s)
        )
        for name, s in samples.items()
    }
    return {"pairs": next(iter(pairs.values())), "times": times}


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with md17_*.npz and qm9.npz")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--seconds", type=float, default=1.0, help="per package and system")
    parser.add_argument("--quick", action="store_true", help="at most 1,536 atoms")
    options = parser.parse_args()
    packages = ("scschnet", "ase", "matscipy", "vesin", "numpy", "torch")
    report: dict = {
        "processor": processor(),
        "instruction_sets": _C.instruction_sets(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "molecules": "generated" if options.data is None else "MD17 and QM9",
        "systems": {},
    }
    for name, system in systems(options.data, options.quick).items():
        report["systems"][name] = measure(calls(system), options.seconds)
        print(
            name,
            {k: round(v["cpu_ms"], 4) for k, v in report["systems"][name]["times"].items()},
            flush=True,
        )
    report["batch of 100 QM9 molecules"] = measure(batch_calls(options.data), options.seconds)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
