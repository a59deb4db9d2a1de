"""Times what surrounds the network: steps of molecular dynamics, batches, epochs, sizes from 192 to 98,304 atoms, threads.

    python benchmarks/bench_system.py DATA --out benchmarks/results/system_PROCESSOR.json

DATA is the folder described in peers/README.md. Every case runs in a fresh process; times are medians over calls after
two warm-up calls. Random weights, float32, six blocks, cutoff 5 Å, as in bench_step.py.

md_*        a velocity-Verlet step through the ASE calculator, neighbor list included, as in peers/schnetpack_step.py
load_qm9    a batch of 100 molecules out of all of QM9, other ones every time, neighbor list included
epoch_*     an epoch of the training loop - batches, neighbor lists, clipping, moving average, statistics of the blocks,
            validation, tables, checkpoints, progress - and as many bare steps: forward, loss, backward and Adam, on
            batches that are ready
water*      energy and forces of periodic water, list given; with the list made anew ("listed"); and with the atoms in
            random order ("shuffled")
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from bench_step import CASES as STEPS
from bench_step import Case, build_model, measure, prepare, read_structures
from summarize_run import processor

from scschnet import _C, ScSchNetCalculator, data
from scschnet.data import Batch, StructureSet, collate
from scschnet.runs.config import PRESETS, TrainConfig
from scschnet.train.loop import Training
from scschnet.train.loss import combined_loss
from scschnet.train.processes import Processes

CUTOFF = 5.0  # Å
WATER = Case("evaluate", "water64_pbc", 1, 192, 128, 50)
MD = {
    "md_ethanol": replace(WATER, data="md17_ethanol", n_atoms=9),
    "md_water192": WATER,
}
REPEATS = {"water192": 1, "water1536": 2, "water12288": 4, "water98304": 8}
VARIANTS = ("", " listed", " shuffled", " shuffled listed")
EPOCHS = {
    "epoch_ethanol": {"data": "md17_ethanol.npz", "optimizer": "adam", "lr": 2e-3, "epochs": 150},
    "epoch_qm9": PRESETS["paper-qm9"]
    | {"data": "qm9.npz", "n_train": 1000, "n_val": 50, "cutoff": CUTOFF, "rbf_range": 0.0}
    | {"cutoff_function": "cosine", "n_rbf": 20},
}
CASES = [*MD, "load_qm9", *EPOCHS, *(name + v for name in REPEATS for v in VARIANTS)]
THREADED = ["water12288", "water98304", "aspirin", "qm9"]


def md_step(folder: Path, case: Case) -> Callable[[], object]:
    """Random weights give random forces: the step is so short that the geometry stays as it is."""
    structures = read_structures(folder, case)
    atoms = Atoms(structures.atomic_numbers, structures.positions)
    if structures.pbc.any():
        atoms.set_cell(structures.cells[0])
        atoms.set_pbc(True)
    atoms.calc = ScSchNetCalculator(build_model(case, structures, "spline"))
    spread = np.sqrt(300 * units.kB * atoms.get_masses())[:, None]  # 300 K
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    dynamics = VelocityVerlet(atoms, timestep=0.01 * units.fs)

    def step() -> float:
        dynamics.run(1)
        return atoms.get_potential_energy()

    return step


def batch_loading(folder: Path) -> Callable[[], object]:
    structures, rng = data.read(folder / "qm9.npz"), np.random.default_rng(0)

    def load() -> Batch:
        return collate(structures, rng.integers(len(structures), size=100), CUTOFF)

    return load


def shuffled(structures: StructureSet) -> StructureSet:
    order = np.random.default_rng(0).permutation(len(structures.positions))
    return replace(
        structures,
        positions=structures.positions[order],
        atomic_numbers=structures.atomic_numbers[order],
    )


def evaluation(folder: Path, name: str) -> tuple[Callable[[], object], int]:
    """Energy and forces of one large structure."""
    size, *variant = name.split()
    case = replace(WATER, repeats=REPEATS[size])
    structures = read_structures(folder, case)
    if "shuffled" in variant:
        structures = shuffled(structures)
    evaluate, _, model = prepare(case, structures, "spline")
    if "listed" not in variant:
        return evaluate, len(structures.positions)

    def evaluate_listed() -> float:
        with torch.no_grad():
            return float(model(**collate(structures, [0], CUTOFF).inputs)["energy"].sum())

    return evaluate_listed, len(structures.positions)


def epoch(folder: Path, options: dict, seconds: float) -> dict[str, float]:
    """Times of whole epochs and of as many bare steps, in turns."""
    with tempfile.TemporaryDirectory() as out:
        config = TrainConfig(
            **options | {"data": str(folder / options["data"]), "out": f"{out}/run", "threads": 1}
        )
        training = Training(config, Processes("cpu"), None)
        training.progress.message = lambda text: None
        batches = [collate(training.structures, chosen, CUTOFF) for chosen in training._batches()]
        whole = measure(lambda: training.run_epoch([]), 0.0, least=1)
        times: dict[str, list[float]] = {"whole": [], "bare": []}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times["bare"]) < 5:
            for name, run in (
                ("whole", lambda: training.run_epoch([])),
                ("bare", lambda: bare_steps(training, batches)),
            ):
                start = time.process_time()
                run()
                times[name].append(1e3 * (time.process_time() - start))
        training.progress.close()
    whole, bare = (float(np.median(times[name])) for name in ("whole", "bare"))
    ratios = np.array(times["whole"]) / np.array(times["bare"])
    return {
        "cpu_ms": whole,
        "bare_cpu_ms": bare,
        "ratio": float(np.median(ratios)),
        "n_steps": len(batches),
        "n_calls": len(times["bare"]),
    }


def bare_steps(training: Training, batches: list[Batch]) -> None:
    config, state = training.config, training.state
    for batch in batches:
        result = state.model(**batch.inputs, forces=config.rho < 1)
        loss = combined_loss(result, batch, config.rho, 0.0, len(batch), len(batch.positions))
        state.differentiate(loss)
        state.optimizer.step()
        loss.item()


def run_case(arguments: argparse.Namespace) -> dict[str, object]:
    """One case in this process."""
    torch.set_num_threads(arguments.threads)
    name, folder, seconds = arguments.worker, arguments.data, arguments.seconds
    if name in EPOCHS:
        return epoch(folder, EPOCHS[name], seconds)
    if name in STEPS and name not in REPEATS:
        case = STEPS[name]
        run, _, _ = prepare(case, read_structures(folder, case), "spline")
        return dict(measure(run, seconds))
    if name in MD:
        return dict(measure(md_step(folder, MD[name]), seconds))
    if name == "load_qm9":
        return dict(measure(batch_loading(folder), seconds))
    run, n_atoms = evaluation(folder, name)
    return {"n_atoms": n_atoms, **measure(run, seconds)}


def run_all(arguments: argparse.Namespace) -> None:
    """Each case in its own process; writes the JSON file after each."""
    report: dict = {
        "processor": processor(),
        "instruction_sets": _C.instruction_sets(),
        "load_before": os.getloadavg(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "results": [],
    }
    todo = [(name, 1) for name in arguments.cases]
    todo += [(name, threads) for name in arguments.threaded for threads in (1, 2)]
    for name, threads in todo:
        command = [sys.executable, __file__, str(arguments.data), "--worker", name]
        command += ["--threads", str(threads), "--seconds", str(arguments.seconds)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        row = {"case": name, "threads": threads, **json.loads(done.stdout.splitlines()[-1])}
        print(json.dumps(row), file=sys.stderr, flush=True)
        report["results"].append(row)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the data sets, see peers/README.md")
    parser.add_argument("--out", type=Path, default=Path("system.json"), help="JSON file to write")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=CASES)
    parser.add_argument("--threaded", nargs="*", choices=THREADED, default=THREADED)
    parser.add_argument("--seconds", type=float, default=5.0, help="per case")
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(run_case(arguments)))
    else:
        run_all(arguments)


if __name__ == "__main__":
    main()
