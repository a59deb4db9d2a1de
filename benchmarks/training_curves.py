"""Training curves with tabulated and with dense filters from one seed, and how far rounding alone drives two apart.

    python -m benchmarks.training_curves [--data md17_ethanol.npz] [--steps 300]
        -> benchmarks/results/training_curves.json and .png

The steps are those of `python -m scschnet.train` with Adam (data: 950 + 50 frames of MD17 ethanol), the loss of
each batch is recorded. A training amplifies rounding, so the difference of tables and dense filters is judged by those
of trainings that differ from the dense one in rounding alone: the atoms of each molecule in another order, that is
other orders of summation; every parameter changed by one unit in its last place, up or down.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.measure import processor
from scschnet import _C
from scschnet.data import StructureSet
from scschnet.runs.config import TrainConfig
from scschnet.train.loop import Training
from scschnet.train.processes import Processes

RESULTS = Path(__file__).parent / "results"
RUNS = {
    "dense": "dense filters",
    "spline": "tables",
    "dense, atoms reordered": "dense filters, atoms in another order",
    "dense, last bits changed": "dense filters, last bit of each parameter changed",
}


def reordered(structures: StructureSet) -> StructureSet:
    """The same molecules, the atoms of each in reverse order."""
    order = np.concatenate(
        [
            np.arange(b)[a:][::-1]
            for a, b in np.stack([structures.atom_ptr[:-1], structures.atom_ptr[1:]], 1)
        ]
    )
    return replace(
        structures,
        positions=structures.positions[order],
        atomic_numbers=structures.atomic_numbers[order],
        forces=structures.forces[order],
    )


def change_last_bits(model: torch.nn.Module) -> None:
    """Move every parameter to one of the two numbers next to it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            up = torch.rand(p.shape, generator=generator) < 0.5
            p.copy_(torch.nextafter(p, torch.where(up, torch.inf, -torch.inf).to(p)))


def losses(name: str, config: TrainConfig, n_steps: int, folder: Path) -> list[float]:
    """Loss of every step."""
    config = replace(config, filters=name.split(",")[0], out=str(folder / name.replace(", ", "-")))
    training = Training(config, Processes("cpu"), None)
    if name.endswith("reordered"):
        training.structures = reordered(training.structures)
    elif name.endswith("changed"):
        change_last_bits(training.state.model)
    state, found = training.state, []
    while True:
        state.begin_epoch()
        for chosen in training._batches():
            state.loss_sum = 0.0
            rate = training._rate(state.epoch + state.step / len(training._batches()))
            training._step(chosen, rate, [])
            found.append(state.loss_sum / len(chosen))
            if len(found) == n_steps:
                training.progress.close()
                return found
        training._validate()  # chooses the grid of the tables, once per epoch
        state.epoch, state.step = state.epoch + 1, 0


def compare(curves: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Relative differences of each curve from the dense one: of the first loss, the median and the largest."""
    report = {}
    for name in list(RUNS)[1:]:
        found = relative(curves, name)
        report[name] = {
            "first": float(found[0]),
            "largest in 100 steps": float(found[:100].max()),
            "median": float(np.median(found)),
            "largest": float(found.max()),
        }
    return report


def relative(curves: dict[str, list[float]], name: str) -> np.ndarray:
    dense = np.array(curves["dense"])
    return np.abs(np.array(curves[name]) - dense) / dense


def draw(report: dict, file: Path) -> None:
    """Losses in float32; relative differences from the dense one in both dtypes."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    curves = report["dtypes"]["float32"]["losses"]
    steps = np.arange(1, len(curves["dense"]) + 1)
    for name in ("dense", "spline"):
        style = {"lw": 3, "alpha": 0.4} if name == "dense" else {"lw": 0.9}
        axes[0].semilogy(steps, curves[name], label=RUNS[name], **style)
    axes[0].set(title="loss, float32", xlabel="step")
    axes[0].legend(frameon=False)
    for axis, (dtype, found) in zip(axes[1:], report["dtypes"].items(), strict=True):
        for k, name in enumerate(list(RUNS)[1:]):
            axis.semilogy(
                steps, relative(found["losses"], name), lw=0.9, color=f"C{k + 1}", label=RUNS[name]
            )
        axis.set(title=f"difference from dense, {dtype}", xlabel="step")
        axis.set_ylim(bottom=1e-9 if dtype == "float32" else 1e-16)
    axes[2].legend(frameon=False, fontsize=6.5, loc=(0.0, 0.42))
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="", help="MD17 ethanol; empty: the embedded frames")
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report: dict = {
        "processor": processor(),
        "instruction_sets": _C.instruction_sets(),
        "torch": torch.__version__,
        "dtypes": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "float64"):
            config = TrainConfig(data=arguments.data, dtype=dtype, optimizer="adam", lr=2e-3)
            curves = {
                name: losses(name, config, arguments.steps, Path(folder) / dtype) for name in RUNS
            }
            report["dtypes"][dtype] = {"differences": compare(curves), "losses": curves}
            print(dtype, json.dumps(report["dtypes"][dtype]["differences"], indent=1))
    used = ("n_features", "n_interactions", "n_rbf", "batch_size", "lr", "seed", "n_train", "n_val")
    report["config"] = {name: getattr(config, name) for name in used}
    text = json.dumps(report, indent=None, separators=(",", ": "))
    (RESULTS / "training_curves.json").write_text(text.replace("}, ", "},\n") + "\n")
    draw(report, RESULTS / "training_curves.png")


if __name__ == "__main__":
    main()
