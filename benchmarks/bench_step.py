"""Times training steps and evaluations: the fused operator and the dense path, one thread or more.

    python benchmarks/bench_step.py --data DATA --out benchmarks/results/step_PROCESSOR.json

The cases are those of peers/schnetpack_step.py, on the same structures if DATA is the folder described in
peers/README.md; without --data, on generated ones of the same sizes. Each case and path runs in a fresh process.
Besides whole steps the fused path reports its parts: the operator alone, forward and backward; the same with a single
pair, where only dense layers remain; and the rest (tables, list, loss, optimizer). `mm_gflops` is the best rate of torch.mm on
1024 x 1024 matrices, measured in the same process, as a scale for `dense_gflops`, the products' operations over all the
time of the dense layers.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from scschnet import ops
from scschnet.data import StructureSet, collate
from scschnet.nn import ModelConfig, SchNet
from scschnet.runs.config import TrainConfig
from scschnet.train.state import TrainingState

CUTOFF = 5.0  # Å
N_INTERACTIONS = 6


@dataclass(frozen=True)
class Case:
    """One kind of work and the size of the network."""

    kind: str  # train_forces, train_energy or evaluate
    data: str  # file of the data folder, without .npz
    n_structures: int
    n_atoms: int  # per structure, of generated data
    n_features: int
    n_rbf: int
    repeats: int = 1  # of a periodic cell along each axis


CASES = {
    "aspirin": Case("train_forces", "md17_aspirin", 50, 21, 128, 50),
    "aspirin_rbf25": Case("train_forces", "md17_aspirin", 50, 21, 128, 25),
    "ethanol": Case("train_forces", "md17_ethanol", 50, 9, 128, 50),
    "ethanol_rbf25": Case("train_forces", "md17_ethanol", 50, 9, 128, 25),
    "qm9": Case("train_energy", "qm9", 100, 18, 256, 20),
    "water1536": Case("evaluate", "water64_pbc", 1, 192, 128, 50, repeats=2),
    "water12288": Case("evaluate", "water64_pbc", 1, 192, 128, 50, repeats=4),
}
TOO_LARGE_FOR_DENSE = {"water12288"}  # 10 GB and more


def read_structures(folder: Path, case: Case) -> StructureSet:
    """Structures drawn as in peers/schnetpack_step.py."""
    with np.load(folder / f"{case.data}.npz", allow_pickle=False) as file:
        data = dict(file)
    rng = np.random.default_rng(0)
    if "offset" in data:
        chosen = rng.choice(len(data["n_atoms"]), case.n_structures, replace=False)
        rows = np.concatenate([np.arange(data["offset"][k], data["offset"][k + 1]) for k in chosen])
        sizes = data["n_atoms"][chosen]
        return flat(data["R"][rows], data["Z"][rows], sizes, None)
    chosen = rng.choice(len(data["R"]), case.n_structures, replace=False)
    positions, numbers = data["R"][chosen].astype(float), data["z"]
    if "cell" not in data:
        sizes = np.full(case.n_structures, len(numbers))
        return flat(positions.reshape(-1, 3), np.tile(numbers, case.n_structures), sizes, None)
    return repeated(positions[0], numbers, np.asarray(data["cell"][chosen[0]], float), case.repeats)


def generate_structures(case: Case) -> StructureSet:
    """Atoms on a jittered lattice: as dense as molecules, or a periodic box as dense as water."""
    rng = np.random.default_rng(0)
    if case.kind == "evaluate":
        box = 12.42 * np.eye(3)
        points = rng.permutation(lattice(6))[: case.n_atoms] * (12.42 / 6)
        positions = points + rng.normal(scale=0.2, size=points.shape)
        return repeated(positions, rng.choice([1, 8], case.n_atoms), box, case.repeats)
    n = case.n_structures * case.n_atoms
    points = np.concatenate(
        [rng.permutation(lattice(3))[: case.n_atoms] * 1.6 for _ in range(case.n_structures)]
    )
    sizes = np.full(case.n_structures, case.n_atoms)
    return flat(points + rng.normal(scale=0.1, size=(n, 3)), rng.choice([1, 6, 8], n), sizes, None)


def lattice(n: int) -> np.ndarray:
    """Points (i, j, k) with 0 <= i, j, k < n."""
    return np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3)


def repeated(positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, n: int) -> StructureSet:
    """A periodic cell repeated n times along each axis."""
    shifts = lattice(n) @ cell
    tiled = (positions[None] + shifts[:, None]).reshape(-1, 3)
    return flat(tiled, np.tile(numbers, n**3), np.array([len(tiled)]), (n * cell)[None])


def flat(
    positions: np.ndarray, numbers: np.ndarray, sizes: np.ndarray, cells: np.ndarray | None
) -> StructureSet:
    """Structures of given sizes; periodic if cells are given."""
    n = len(sizes)
    return StructureSet(
        positions.astype(np.float64),
        numbers.astype(np.int64),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        cells=np.zeros((n, 3, 3)) if cells is None else cells,
        pbc=np.full((n, 3), cells is not None),
    )


def build_model(case: Case, structures: StructureSet, filters: str) -> SchNet:
    """Random weights."""
    torch.manual_seed(0)
    elements = tuple(int(z) for z in np.unique(structures.atomic_numbers))
    config = ModelConfig(
        elements=elements,
        n_features=case.n_features,
        n_interactions=N_INTERACTIONS,
        n_rbf=case.n_rbf,
        cutoff=CUTOFF,
    )
    return SchNet(config, filters=filters)


def prepare(case: Case, structures: StructureSet, filters: str) -> tuple[Callable, dict, SchNet]:
    """The call to be timed, its inputs, and its model."""
    batch = collate(structures, np.arange(len(structures)), CUTOFF)
    inputs, model = batch.inputs, build_model(case, structures, filters)
    if case.kind == "evaluate":
        model.requires_grad_(False)

        def evaluate() -> float:
            with torch.no_grad():
                return float(model(**inputs)["energy"].sum())

        return evaluate, inputs, model
    state = TrainingState(TrainConfig(optimizer="adam", lr=5e-4, ema=0), model)
    with_forces = case.kind == "train_forces"
    energy = torch.randn(len(structures), dtype=torch.float64)
    forces = torch.randn_like(inputs["positions"])

    def step() -> float:
        result = model(**inputs, forces=with_forces)
        loss = (result["energy"] - energy).square().mean()
        if with_forces:
            loss = 0.1 * loss + 0.9 * (result["forces"] - forces).square().mean()
        state.differentiate(loss)
        state.optimizer.step()
        return float(loss.detach())

    return step, inputs, model


def operator_call(case: Case, inputs: dict, model: SchNet, all_pairs: bool) -> Callable:
    """The fused operator alone, and its gradient in training; on the case's pairs or on one."""
    numbers, shifts = inputs["atomic_numbers"], inputs["shifts"]
    idx_i, idx_j = inputs["idx_i"], inputs["idx_j"]
    half, row_ptr, half_j = ops.half_list(idx_i, idx_j, shifts, len(numbers))
    if not all_pairs:
        half, row_ptr, half_j = half[:1], row_ptr.clamp(max=1), half_j[:1]
    r = inputs["positions"]
    cell = inputs["cells"][inputs["idx_m"][idx_i]]
    r_ij = r[idx_j] - r[idx_i] + torch.bmm(shifts.double().unsqueeze(1), cell).squeeze(1)
    d_ij = torch.linalg.vector_norm(r_ij[half], dim=1)
    tables, grid = model.engine.tables(d_ij)
    tables = tables.detach().requires_grad_(case.kind != "evaluate")
    bins, weights = ops.spline_weights(
        d_ij, grid.step, grid.cutoff, "cosine", grid.n_rows, 2, torch.float32
    )
    derivatives = case.kind != "train_energy"
    features = model.embedding(numbers).detach().requires_grad_(case.kind != "evaluate")
    parameters = model.dense_parameters()
    leaves = [features, tables, model.contribution_weights, *parameters]
    cotangents = [torch.randn(len(numbers)), torch.randn(len(half))]

    def call() -> float:
        g, g_d, _ = ops.schnet(
            features,
            row_ptr,
            half_j,
            bins,
            weights,
            tables,
            model.contribution_weights,
            parameters,
            derivatives,
        )
        if case.kind == "train_forces":
            torch.autograd.grad([g, g_d], leaves, cotangents)
        elif case.kind == "train_energy":
            torch.autograd.grad([g], leaves, cotangents[:1])
        return float(g.detach().sum())

    return call


def product_flops(case: Case, n_atoms: int) -> float:
    """Operations of the operator's matrix products with pairs: the first block saves some of them."""
    block, readout = 2.0 * n_atoms * case.n_features**2, 1.0 * n_atoms * case.n_features**2
    per_block = {"train_forces": 18, "train_energy": 9, "evaluate": 6}[case.kind]
    saved = {"train_forces": 3, "train_energy": 0, "evaluate": 1}[case.kind]
    of_readout = {"train_forces": 6, "train_energy": 3, "evaluate": 2}[case.kind]
    return (N_INTERACTIONS * per_block - saved) * block + of_readout * readout


def mm_rate() -> float:
    """Best rate of torch.mm, GFLOP/s."""
    a = torch.randn(1024, 1024)
    out, times = torch.empty_like(a), []
    for _ in range(15):
        start = time.perf_counter()
        torch.mm(a, a, out=out)
        times.append(time.perf_counter() - start)
    return 2.0 * 1024**3 / min(times) / 1e9


def measure(run: Callable[[], object], seconds: float, least: int = 5) -> dict[str, float]:
    """Medians over calls after two warm-up calls."""
    for _ in range(2):
        run()
    cpu, wall = [], []
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    end = time.perf_counter() + seconds
    while len(cpu) < least or time.perf_counter() < end:
        start_wall, start_cpu = time.perf_counter(), time.process_time()
        run()
        cpu.append(time.process_time() - start_cpu)
        wall.append(time.perf_counter() - start_wall)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {
        "cpu_ms": 1e3 * statistics.median(cpu),
        "wall_ms": 1e3 * statistics.median(wall),
        "cpu_ms_min": 1e3 * min(cpu),
        "n_calls": len(cpu),
        "page_faults_per_call": faults / len(cpu),
    }


def run_case(arguments: argparse.Namespace) -> dict[str, object]:
    """One case on one path, in this process."""
    torch.set_num_threads(arguments.threads)
    case, filters = CASES[arguments.worker], arguments.paths[0]
    structures = (
        read_structures(arguments.data, case) if arguments.data else generate_structures(case)
    )
    run, inputs, model = prepare(case, structures, {"fused": "spline"}.get(filters, filters))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row: dict[str, object] = dict(measure(run, arguments.seconds))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row |= {"memory_added_mib": (after - before) / 1024, "peak_rss_mib": after / 1024}
    n_atoms = len(inputs["atomic_numbers"])
    row |= {"n_atoms": n_atoms, "n_pairs": len(inputs["idx_i"])}
    if filters == "fused":
        row["operator_ms"] = measure(operator_call(case, inputs, model, True), 3.0)["cpu_ms"]
        row["dense_layers_ms"] = measure(operator_call(case, inputs, model, False), 3.0)["cpu_ms"]
        row["mm_gflops"] = mm_rate()
        row["dense_gflops"] = product_flops(case, n_atoms) / row["dense_layers_ms"] / 1e6
    return row


def run_all(arguments: argparse.Namespace) -> None:
    """Each case on each path in its own process; writes the JSON file after each."""
    names = (
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    )
    report: dict[str, object] = {
        "processor": next(names, platform.processor()),
        "load_before": os.getloadavg(),
        "torch": torch.__version__,
        "threads": arguments.threads,
        "data": "real" if arguments.data else "generated",
    }
    results = report["results"] = []
    for name in arguments.cases:
        for path in arguments.paths:
            if path == "dense" and name in TOO_LARGE_FOR_DENSE and not arguments.all:
                continue
            command = [sys.executable, __file__, "--worker", name, "--paths", path]
            command += ["--threads", str(arguments.threads), "--seconds", str(arguments.seconds)]
            command += ["--data", str(arguments.data)] if arguments.data else []
            environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            row = {"case": name, "path": path, **asdict(CASES[name])}
            row |= (
                json.loads(done.stdout.splitlines()[-1])
                if done.returncode == 0
                else {"failed": done.returncode}
            )
            print(
                f"{name:14} {path:6} {row.get('cpu_ms', float('nan')):9.2f} ms CPU", file=sys.stderr
            )
            results.append(row)
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the data sets, see peers/README.md")
    parser.add_argument("--out", type=Path, default=Path("step.json"), help="JSON file to write")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--paths", nargs="+", choices=("fused", "dense"), default=["fused", "dense"]
    )
    parser.add_argument("--all", action="store_true", help="dense path even where it takes 10 GB")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="per case and path")
    parser.add_argument("--worker", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(run_case(arguments)))
    else:
        run_all(arguments)


if __name__ == "__main__":
    main()
