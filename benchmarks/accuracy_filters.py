"""Errors of tabulated and of dense float32 filters against the dense float64 model, on real structures.

python benchmarks/accuracy_filters.py DATA_FOLDER [RUN_FOLDER]     -> JSON on standard output

Weights: fresh, fresh with filter weights times 5, and those of a trained run if one is named (its elements must
cover the structures). Energies: largest error per atom over the spread; forces, stress and parameter gradients of a
force loss: largest error over the rms (gradients: norm of the error over the norm, worst parameter).
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


def compare(found: dict, exact: dict) -> dict[str, float]:
    errors = {}
    for name in set(exact) - {"gradients"}:
        scale = np.sqrt(np.mean((exact[name] - exact[name].mean()) ** 2)) or 1.0
        errors[name] = float(np.abs(found[name] - exact[name]).max() / scale)
    errors["gradients"] = max(
        float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0))
        for a, b in zip(found["gradients"], exact["gradients"], strict=True)
    )
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
        batch_indices = np.arange(20 if name != "water" else 1)
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
            batch = collate(structures, batch_indices, model.config.cutoff)
            exact, dense, spline = (
                evaluate(variant(model, dtype, filters), batch, name == "water")
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
