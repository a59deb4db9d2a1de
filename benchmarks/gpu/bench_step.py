"""Times training steps, evaluations and molecular dynamics on a GPU.

    python benchmarks/gpu/bench_step.py --out benchmarks/results/gpu_step_H200.json

Targets, H200: QM9 epoch of 105,000 molecules (batch 100, F = 256, energy loss) 1.0 s; aspirin force step (batch 50,
F = 128) 1.0 ms; energy and forces of 12,288 and 98,304 atoms 2.0 and 15 ms; dynamics of 98,304 atoms 5 million
atom-steps per second.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from systems import liquid, list_arguments, molecules
from timing import hardware, microseconds

from scschnet import ops
from scschnet.data import collate
from scschnet.nn import ModelConfig, SchNet

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
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    assert ops.runs_on(torch.device("cuda")), "built without kernels for GPUs"
    results: dict[str, object] = {"hardware": hardware()}
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
    out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
