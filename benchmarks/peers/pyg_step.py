"""Times PyTorch Geometric's SchNet on the work scschnet is compared on; run where both it and torch are installed.

    pyg-venv/bin/python benchmarks/peers/pyg_step.py DATA --out FILE.json

Cases, settings and data are those of schnetpack_step.py. The pairs and their distances are given: PyTorch Geometric knows
no periodic images, and its own search needs a further package. It predicts energies; forces are the derivative.
"compiled" is torch.compile, which cannot train on forces.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from schnetpack_step import CASES, SETTINGS, Case, hardware, measure, read_structures

CHOSEN = ("aspirin", "ethanol", "qm9", "water1536", "water12288")
SHOWN = ("aspirin", "ethanol", "qm9", "water1536")


def make_batch(structures: list, cutoff: float) -> dict:
    """Numbers, positions, pairs and the shifts of their images, all structures in one."""
    import numpy as np
    import torch
    from ase.neighborlist import neighbor_list

    found: dict[str, list] = {"z": [], "pos": [], "batch": [], "edges": [], "shifts": []}
    n_atoms = 0
    for number, atoms in enumerate(structures):
        i, j, shifts = neighbor_list("ijS", atoms, cutoff)
        found["z"].append(atoms.numbers)
        found["pos"].append(atoms.positions)
        found["batch"].append(np.full(len(atoms), number))
        found["edges"].append(np.stack([j, i]) + n_atoms)
        found["shifts"].append(shifts @ atoms.cell.array)
        n_atoms += len(atoms)
    edges = found.pop("edges")
    batch = {name: torch.as_tensor(np.concatenate(parts)) for name, parts in found.items()}
    batch["edges"] = torch.as_tensor(np.concatenate(edges, axis=1))
    return batch | {name: batch[name].float() for name in ("pos", "shifts")}


def build_model(case: Case, batch: dict):
    """SchNet whose pairs are the batch's."""
    import torch
    from torch_geometric.nn.models import SchNet

    def pairs(pos, _batch):
        j, i = batch["edges"]
        return batch["edges"], (pos[j] - pos[i] + batch["shifts"]).norm(dim=-1)

    torch.manual_seed(0)
    return SchNet(
        hidden_channels=case.n_features,
        num_filters=case.n_features,
        num_interactions=case.n_interactions,
        num_gaussians=case.n_rbf,
        cutoff=case.cutoff,
        interaction_graph=pairs,
    )


def prepare(case: Case, structures: list, compiled: bool) -> tuple[Callable[[], float], dict]:
    """The call to be timed, and sizes."""
    import torch

    batch = make_batch(structures, case.cutoff)
    model = build_model(case, batch)
    sizes = {"n_atoms": len(batch["z"]), "n_pairs": batch["edges"].shape[1]}
    sizes["n_parameters"] = sum(p.numel() for p in model.parameters())
    network = torch.compile(model) if compiled else model
    with_forces = case.kind != "train_energy"

    def evaluate(create_graph: bool):
        pos = batch["pos"].detach().requires_grad_(with_forces)
        energy = network(batch["z"], pos, batch["batch"])[:, 0]
        if not with_forces:
            return energy, None
        (slope,) = torch.autograd.grad(energy.sum(), pos, create_graph=create_graph)
        return energy, -slope

    if case.kind == "evaluate":
        model.eval().requires_grad_(False)
        return lambda: float(evaluate(create_graph=False)[0].detach().sum()), sizes

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    energy, forces = torch.randn(len(structures)), torch.randn_like(batch["pos"])

    def step() -> float:
        optimizer.zero_grad()
        found, slope = evaluate(create_graph=True)
        loss = (found - energy).square().mean()
        if with_forces:
            loss = 0.1 * loss + 0.9 * (slope - forces).square().mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step, sizes


def run_case(arguments: argparse.Namespace) -> None:
    """One case in this process."""
    import torch

    torch.set_num_threads(1)
    if SETTINGS[arguments.setting].flush_denormals and not torch.set_flush_denormal(True):
        raise RuntimeError("this processor cannot flush denormals")
    case = CASES[arguments.worker]
    run, sizes = prepare(case, read_structures(arguments.data, case), arguments.compiled)
    print(json.dumps({**sizes, **measure(run, arguments.seconds, arguments.least)}))


def run_all(arguments: argparse.Namespace) -> None:
    """Each case and setting in its own process; writes the file after each."""
    names = ("torch-geometric", "torch", "numpy", "ase")
    versions = {name: importlib.metadata.version(name) for name in names}
    report: dict = {
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **versions},
        "threads": 1,
        "results": [],
    }
    for name in arguments.cases:
        for setting in arguments.settings:
            for compiled in (False, True):
                if compiled and CASES[name].kind == "train_forces":
                    continue
                command = [sys.executable, __file__, str(arguments.data), "--worker", name]
                command += ["--setting", setting, "--seconds", str(arguments.seconds)]
                command += ["--least", str(arguments.least), *["--compiled"] * compiled]
                changed = {"OMP_NUM_THREADS": "1", **SETTINGS[setting].environment}
                done = subprocess.run(
                    command, env={**os.environ, **changed}, stdout=subprocess.PIPE, text=True
                )
                row = {
                    "case": name,
                    "setting": setting,
                    "compiled": compiled,
                    **asdict(CASES[name]),
                }
                row["environment"] = changed
                if done.returncode == 0:
                    row |= json.loads(done.stdout.splitlines()[-1])
                else:
                    row["failed"] = f"exit code {done.returncode}"
                print(name, setting, compiled, row.get("cpu_ms"), file=sys.stderr, flush=True)
                report["results"].append(row)
                arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the data sets, see README.md")
    parser.add_argument("--out", type=Path, default=Path("pyg.json"), help="JSON file to write")
    parser.add_argument("--cases", nargs="+", choices=CHOSEN, default=SHOWN)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seconds", type=float, default=10.0, help="per case and setting")
    parser.add_argument("--least", type=int, default=5, help="calls at least")
    parser.add_argument("--worker", choices=CHOSEN, help=argparse.SUPPRESS)
    parser.add_argument("--setting", choices=SETTINGS, default="installed", help=argparse.SUPPRESS)
    parser.add_argument("--compiled", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_case(arguments)
    else:
        run_all(arguments)


if __name__ == "__main__":
    main()
