"""Errors of tabulated and of dense float32 filters against the dense float64 model, on real structures.

python benchmarks/accuracy_filters.py DATA_FOLDER [RUN_FOLDER]     -> JSON on standard output

Weights: fresh, fresh with filter weights times 5, and those of a trained run if one is named (its elements must
cover the structures). Energies, forces and stress: rms of the error over the spread of the exact values, energies
and stress of all batches taken together. Parameter gradients of a force loss: norm of the error over the norm, rms
over batches, worst parameter. (The largest error of a few numbers is a matter of luck with their last bits.)
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

import scschnet
from scschnet import data
from scschnet.data import Batch, collate
from scschnet.nn import ModelConfig, SchNet

SETS = {"aspirin": "md17_aspirin.npz", "QM9": "qm9.npz", "water": "water64_pbc.npz"}


def evaluate(model: SchNet, batch: Batch, periodic: bool) -> dict[str, np.ndarray | list]:
    result = model(**batch.inputs, stress=periodic)
    loss = result["forces"].square().mean() + result["energy"].sum() * 1e-3
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    names = ["energy", "forces", *(["stress"] if periodic else [])]
    found = {name: result[name].detach().numpy() for name in names}
    return found | {"gradients": [g.double().numpy() for g in gradients]}


def compare(found: list[dict], exact: list[dict]) -> dict[str, float]:
    """Errors over several batches."""
    errors = {}
    for name in set(exact[0]) - {"gradients"}:
        values, truth = (
            np.concatenate([batch[name].ravel() for batch in batches]) for batches in (found, exact)
        )
        errors[name] = float(np.sqrt(np.mean((values - truth) ** 2)) / np.std(truth))
    relative = np.array(
        [
            [
                np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0)
                for a, b in zip(one["gradients"], other["gradients"], strict=True)
            ]
            for one, other in zip(found, exact, strict=True)
        ]
    )
    errors["gradients"] = float(np.sqrt(np.mean(relative**2, axis=0)).max())
    return errors


def variant(model: SchNet, dtype: torch.dtype, filters: str) -> SchNet:
    other = SchNet(model.config, filters=filters).to(dtype)
    other.load_state_dict(model.state_dict())
    if filters == "spline":
        other.refine_filters()
    return other


def main(folder: Path, run: Path | None) -> None:
    report: dict[str, dict] = {}
    for name, file in SETS.items():
        structures = data.read(folder / file)
        size, n_batches = (1, 8) if name == "water" else (20, 4)
        chosen = np.linspace(0, len(structures) - 1, size * n_batches).astype(int)
        for weights in ("fresh", "filters x5", "trained"):
            if weights == "trained" and (run is None or name != "aspirin"):
                continue
            torch.manual_seed(0)
            if weights == "trained":
                model = scschnet.load(run).requires_grad_(True)
            else:
                model = SchNet(ModelConfig(elements=(1, 6, 7, 8, 9), n_features=128))
            if weights == "filters x5":
                with torch.no_grad():
                    for block in model.interactions:
                        for p in block.filter_generator.parameters():
                            p.mul_(5)
            batches = [
                collate(structures, part, model.config.cutoff)
                for part in np.split(chosen, n_batches)
            ]
            exact, dense, spline = (
                [evaluate(variant(model, dtype, filters), b, name == "water") for b in batches]
                for dtype, filters in (
                    (torch.float64, "dense"),
                    (torch.float32, "dense"),
                    (torch.float32, "spline"),
                )
            )
            report[f"{name}, {weights}"] = {
                "dense float32": compare(dense, exact),
                "spline float32": compare(spline, exact),
            }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
