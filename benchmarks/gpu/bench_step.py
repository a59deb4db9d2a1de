"""Times training steps and epochs, evaluations and molecular dynamics on a GPU.

    python benchmarks/gpu/bench_step.py --qm9 DATA/qm9.npz --out benchmarks/results/gpu_step_H200.json

A step is timed twice: eager, and captured as `scschnet.train` takes it, its batches gathered on the GPU. With --qm9,
epochs of a whole training are timed from the call to the saved checkpoint, validation of 5,000 molecules included.
Without a GPU, --check runs the code of the training cases on the processor, on few structures, and times nothing.

Targets, H200: QM9 epoch of 105,000 molecules (batch 100, F = 256, energy loss) 1.0 s; aspirin force step (batch 50,
F = 128) 1.0 ms; energy and forces of 12,288 and 98,304 atoms 2.0 and 15 ms; dynamics of 98,304 atoms 5 million
atom-steps per second.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from systems import labeled, liquid, list_arguments, molecules
from timing import hardware, microseconds

from scschnet import ops
from scschnet.data import Split, StructureSet, collate
from scschnet.nn import ModelConfig, SchNet
from scschnet.runs.config import PRESETS, TrainConfig
from scschnet.train.captured import ResidentStep
from scschnet.train.loop import Training
from scschnet.train.loss import Loss
from scschnet.train.processes import Processes
from scschnet.train.setup import build_model
from scschnet.train.state import TrainingState

CUTOFF = 5.0


def model_of(n_features: int, n_rbf: int) -> SchNet:
    torch.manual_seed(0)
    config = ModelConfig((1, 6, 8), n_features=n_features, n_rbf=n_rbf, cutoff=CUTOFF)
    return SchNet(config, filters="spline").cuda()


def training_step(structures, n_features: int, n_rbf: int, forces: bool) -> Callable[[], None]:
    """One eager step of Adam on a batch that is on the GPU, its list given."""
    model = model_of(n_features, n_rbf)
    batch = collate(structures, range(len(structures)), CUTOFF).to("cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, capturable=True)
    energy = torch.randn(len(structures), dtype=torch.float64, device="cuda")
    target = torch.randn_like(batch.positions)

    def step() -> None:
        optimizer.zero_grad()
        result = model(**batch.inputs, forces=forces)
        loss = (result["energy"] - energy).square().mean()
        if forces:
            loss = 0.1 * loss + 0.9 * (result["forces"] - target).square().mean()
        loss.backward()
        optimizer.step()

    return step


def captured_steps(structures: StructureSet, batch_size: int, **options) -> dict[str, object]:
    """Steps of the training program on one batch after the other, all structures resident.

    The first epoch captures; of the following ones the steps are timed, without what an epoch brings and reads.
    """
    config = TrainConfig(
        step="resident",
        optimizer="adam",  # as the peers' steps
        cutoff=CUTOFF,
        batch_size=batch_size,
        n_train=len(structures),
        stress_weight=0.0,
        **options,
    )
    everything = np.arange(len(structures))
    state = TrainingState(config, build_model(config, structures, everything).to(config.device))
    notes: list[str] = []
    split = Split(everything, everything[:0], everything[:0])
    loss = Loss(config, structures)
    step = ResidentStep(
        config, state, structures, split, loss, Processes(config.device), notes.append
    )
    batches = [everything[k : k + batch_size] for k in range(0, len(structures), batch_size)]
    seconds = []
    for _ in range(6):
        state.begin_epoch()
        step.begin_epoch(batches, [5e-4] * len(batches))
        wait(config.device)
        start = time.perf_counter()
        for _ in batches:
            step.run()
        wait(config.device)
        seconds.append(time.perf_counter() - start)
        failure = step.read_back()
        assert failure is None, failure
        state.epoch += 1
    return {
        "us": 1e6 * min(seconds[1:]) / len(batches),
        "first_epoch_s": seconds[0],
        "steps_per_epoch": len(batches),
        "resident": step.describe(),
        "notes": notes,
    }


def wait(device: str) -> None:
    """Until the GPU is done."""
    if device != "cpu":
        torch.cuda.synchronize()


def epochs(data: Path, n_epochs: int, **options) -> dict[str, object]:
    """Epochs of a training from a file, everything included."""
    with tempfile.TemporaryDirectory() as folder:
        options = PRESETS["paper-qm9"] | {"data": str(data), "out": f"{folder}/run"} | options
        config = TrainConfig(**(options | {"epochs": n_epochs}))
        start = time.perf_counter()
        training = Training(config, Processes(config.device), None)
        seconds = {"prepare": time.perf_counter() - start, "epochs": [], "validation": []}
        validate = training._validate

        def timed_validation() -> object:
            began = time.perf_counter()
            found = validate()
            seconds["validation"].append(time.perf_counter() - began)
            return found

        training._validate = timed_validation
        for _ in range(n_epochs):
            start = time.perf_counter()
            training.run_epoch([])
            seconds["epochs"].append(time.perf_counter() - start)
        assert training.resident is not None
        return {"seconds": seconds, "resident": training.resident.describe()}


def evaluation(structures) -> tuple[Callable[[], object], SchNet, object]:
    """Energy and forces with a list given."""
    model = model_of(128, 50).requires_grad_(False)
    batch = collate(structures, range(len(structures)), CUTOFF).to("cuda")

    def evaluate() -> object:
        with torch.no_grad():
            return model(**batch.inputs)

    return evaluate, model, batch


def dynamics(structures, n_steps: int, skin: float = 0.5) -> dict[str, float]:
    """Velocity Verlet with a list kept while no atom has moved by half the skin, read back every ten steps."""
    _, model, batch = evaluation(structures)
    positions, ptr, cells, pbc = list_arguments(structures)
    positions = positions.double()
    velocities = 1e-3 * torch.randn_like(positions)
    capacity, rebuilds = int(70 * len(positions)), 0

    def build() -> tuple:
        nonlocal capacity
        while True:
            found = torch.ops.scschnet.neighbor_list_within(
                positions, ptr, cells, pbc, CUTOFF + skin, capacity
            )
            n_pairs, status = found[4].tolist()
            assert status == 0
            if n_pairs <= capacity:
                return tuple(t[:n_pairs] for t in found[:3])
            capacity = int(1.1 * n_pairs)

    def force(pairs: tuple) -> torch.Tensor:
        with torch.no_grad():
            return model(positions, batch.atomic_numbers, batch.idx_m, cells.double(), *pairs)[
                "forces"
            ]

    pairs, reference = build(), positions.clone()
    forces = force(pairs)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for k in range(n_steps):
        velocities += 5e-5 * forces
        positions += velocities
        if k % 10 == 9 and float((positions - reference).square().sum(1).max()) > (skin / 2) ** 2:
            pairs, reference, rebuilds = build(), positions.clone(), rebuilds + 1
        forces = force(pairs)
        velocities += 5e-5 * forces
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {
        "ms_per_step": 1e3 * seconds / n_steps,
        "atom_steps_per_s": len(positions) * n_steps / seconds,
        "rebuilds": rebuilds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qm9", type=Path, help="qm9.npz, see peers/README.md")
    parser.add_argument("--check", action="store_true", help="only run what can run without a GPU")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.check:
        results = training_cases(given.qm9, "cpu")
    else:
        assert ops.runs_on(torch.device("cuda")), "built without kernels for GPUs"
        results = {"hardware": hardware(), **eager_cases(), **training_cases(given.qm9, "cuda")}
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def training_cases(qm9: Path | None, device: str) -> dict[str, object]:
    """Captured steps, and epochs of QM9; on the processor the same code in small."""
    small = {} if device == "cuda" else {"n_features": 8, "n_interactions": 1}
    n = 200 if device == "cuda" else 1
    cases = {
        "aspirin-like force step, captured": (
            labeled(molecules(50 * n, 21)),
            {"batch_size": 50, "n_features": 128, "n_rbf": 50, "rho": 0.1, "clip": 0.0},
        ),
        "QM9-like energy step, captured": (
            labeled(molecules(100 * n, 18)),
            {"batch_size": 100, "n_features": 256, "n_rbf": 20, "rho": 1.0, "clip": 0.0},
        ),
    }
    results: dict[str, object] = {}
    for name, (structures, options) in cases.items():
        options = {"ema": 0.0, "device": device, "output_scale": "energy"} | options | small
        results[name] = captured_steps(structures, **options)
        print(name, results[name], flush=True)
    if qm9 is None:
        return results
    parts = {"device": device, "step": "resident"} | small
    if device == "cpu":
        parts |= {"n_train": 300, "n_val": 20}
    within = {"cutoff": CUTOFF, "rbf_range": 0.0, "cutoff_function": "cosine"}
    for name, options in {"5 Å": within, "all pairs, as in the paper": {}}.items():
        results[f"QM9 epochs, {name}"] = epochs(qm9, 3, **parts, **options)
        print(name, results[f"QM9 epochs, {name}"], flush=True)
    return results


def eager_cases() -> dict[str, object]:
    """Steps launched from Python, evaluations, molecular dynamics."""
    results: dict[str, object] = {}
    steps = {
        "aspirin-like force step": (molecules(50, 21), 128, 50, True),
        "QM9-like energy step": (molecules(100, 18), 256, 20, False),
    }
    for name, (structures, *options) in steps.items():
        torch.cuda.reset_peak_memory_stats()
        results[name] = {"us": microseconds(training_step(structures, *options))}
        results[name]["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        print(name, results[name], flush=True)
    for name, shape in {"12,288": (16, 24, 32), "98,304": (32, 48, 64)}.items():
        torch.cuda.reset_peak_memory_stats()
        evaluate, _, _ = evaluation(liquid(shape))
        found = {"us": microseconds(evaluate, repeats=10)}
        found["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        found["dynamics"] = dynamics(liquid(shape), 200)
        results[f"water {name}"] = found
        print(name, found, flush=True)
    return results


if __name__ == "__main__":
    main()
