"""Fewer blocks: trailing ones dropped, the rest trained a little more, error against cost.

A pruned model is an ordinary one with fewer blocks: its energies reach K times the cutoff instead of L times,
and its evaluation takes about K / L of the time. What the dropped blocks added to the readout's hidden layer
on average over the training atoms goes into its bias, so that training starts near the old energies. The
procedure is ours, not the paper's.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scschnet.analysis import plots
from scschnet.analysis.corrections import batches, corrections
from scschnet.analysis.layers import projected
from scschnet.analysis.runs import Run, evenly, read_run
from scschnet.analysis.tables import table_beside, write_table
from scschnet.checkpoint import Checkpoint, checkpoint_path, load, load_checkpoint, save_checkpoint
from scschnet.data import Batch, StructureSet, collate
from scschnet.evaluate import errors, predict
from scschnet.nn import SchNet
from scschnet.train.config import TrainConfig, read_run_config
from scschnet.train.loop import train
from scschnet.train.run_folder import RunFolder
from scschnet.train.state import TrainingState
from scschnet.units import energy_factor

LEARNING_RATE = 0.25  # of the run's own: the network is trained already
TIMED = 15  # evaluations on one thread, of which the fastest counts
COLUMNS = (
    "blocks",
    "run",
    "energy MAE (eV)",
    "forces MAE (eV/Å)",
    "seconds per evaluation",
    "atoms",
    "reach (Å)",
)


@dataclass(frozen=True)
class Pruned:
    """A model's error and cost.

    Args:
        blocks: interaction blocks.
        path: run folder.
        energy: mean absolute error per structure, eV; NaN without labels.
        forces: mean absolute error per component, eV/Å; NaN without labels.
        seconds: of one evaluation of energies and forces of `n_atoms` atoms: CPU time of one thread, the fastest of 15.
        n_atoms: atoms evaluated at a time.
        reach: blocks times cutoff, Å.
    """

    blocks: int
    path: Path
    energy: float
    forces: float
    seconds: float
    n_atoms: int
    reach: float


def without_trailing_blocks(model: SchNet, blocks: int, structures: StructureSet) -> SchNet:
    """The first blocks of a model, as a model of its own in the same dtype, asking for gradients.

    Args:
        model: with more than `blocks` blocks.
        blocks: how many to keep, at least one.
        structures: training structures, for the mean of what goes.

    Raises:
        ValueError: if `blocks` does not lie between 1 and the model's number less one, or the model
            does not know an element.
    """
    n = model.config.n_interactions
    if not 1 <= blocks < n:
        raise ValueError(
            f"`blocks` must lie between 1 and {n - 1}, fewer than the model's {n}, got {blocks}"
        )
    total = torch.zeros(model.readout.hidden.bias.shape, dtype=torch.float64)
    for batch in batches(model, structures):
        with torch.no_grad():
            added = projected(model, corrections(model, batch).layers)
        total += added[blocks + 1 :].double().sum(dim=(0, 1))
    state = {
        name: value.clone()
        for name, value in model.state_dict().items()
        if not name.startswith(tuple(f"interactions.{k}." for k in range(blocks, n)))
    }
    state["contribution_weights"] = state["contribution_weights"][: blocks + 1]
    state["readout.hidden.bias"] += (total / max(len(structures.positions), 1)).to(
        state["readout.hidden.bias"].dtype
    )
    smaller = SchNet(changed(model.config, n_interactions=blocks), filters=model.filters)
    smaller.to(state["embedding.weight"].dtype).load_state_dict(state)
    return smaller


def prune(run: Run, blocks: int, epochs: int, out: str | os.PathLike[str]) -> Path:
    """Drop trailing blocks of a run's model and train the rest with the run's own data and split.

    The options are the run's, but for a quarter of its learning rate, annealed once to zero.

    Args:
        run: the run.
        blocks: how many to keep.
        epochs: of training.
        out: run folder to create.

    Returns:
        The new run folder.

    Raises:
        ValueError: if `blocks` or `epochs` is out of range.
        FileExistsError: if `out` holds a run already.
    """
    config = read_run_config(run.path)
    original = load_checkpoint(checkpoint_path(run.path)).model.requires_grad_(False)
    model = without_trailing_blocks(original, blocks, evenly(run.part("train"), 10_000))
    options = config | {
        "n_interactions": blocks,
        "epochs": epochs,
        "lr": LEARNING_RATE * config["lr"],
        "schedule": "cosine",
        "patience": 0,
        "out": os.fspath(out),
    }
    new = TrainConfig(**options)
    folder = RunFolder.create(new, run.split)
    state = TrainingState(new, model)
    metadata = {"pruned_from": str(run.path), "train_config": options}
    save_checkpoint(folder.last, Checkpoint(state.averaged, metadata, state.state_dict()))
    return train(new, resume=folder.path).path


def measure(path: str | os.PathLike[str], structures: StructureSet) -> Pruned:
    """Errors of a run's model on structures, and the time that 1,000 or so of their atoms take.

    Args:
        path: run folder.
        structures: with labels, which the model was not trained on.

    Raises:
        FileNotFoundError, ValueError: if it cannot be read.
    """
    model = load(path)
    has_forces = bool(structures.labeled["forces"].all())
    found = errors(predict(model, structures, forces=has_forces), structures)
    some = evenly(structures, 1000)
    batch = collate(some, np.arange(len(some)), model.config.cutoff)
    seconds = _seconds(model, batch)
    mae = {name: error.mae for name, error in found.items() if error.n}
    blocks = model.config.n_interactions
    return Pruned(
        blocks,
        Path(path),
        mae.get("energy", float("nan")),
        mae.get("forces", float("nan")),
        seconds,
        len(some.positions),
        blocks * model.config.cutoff,
    )


def _seconds(model: SchNet, batch: Batch) -> float:
    """CPU time, which other programs on the machine hardly touch, of one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = []
    try:
        for _ in range(TIMED):
            start = time.process_time()
            with torch.no_grad():
                model(**batch.inputs)
            found.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return min(found)


def plot_pareto(found: Sequence[Pruned], path: str | os.PathLike[str]) -> Path:
    """Draw errors against cost, and write the numbers as CSV beside the figure.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg, or if there is nothing to draw.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    if not found:
        raise ValueError("`found` must hold at least one model, got none")
    ordered = sorted(found, key=lambda one: one.blocks)
    quantities = {
        "energy MAE (kcal/mol)": np.array([one.energy for one in ordered])
        / energy_factor("kcal/mol"),
        "forces MAE (kcal/mol/Å)": np.array([one.forces for one in ordered])
        / energy_factor("kcal/mol"),
    }
    shown = {name: values for name, values in quantities.items() if np.isfinite(values).any()}
    with plots.figure_style():
        figure = plots.new_figure(plots.COLUMN_WIDTH * max(len(shown), 1), plots.HEIGHT)
        panels = figure.subplots(1, max(len(shown), 1), squeeze=False)[0]
        for axes, (name, values) in zip(panels, shown.items(), strict=False):
            draw_pareto(axes, ordered, values, name)
        plots.save_figure(figure, path)
    rows = [[o.blocks, o.path, o.energy, o.forces, o.seconds, o.n_atoms, o.reach] for o in ordered]
    write_table(table_beside(path), COLUMNS, rows)
    return Path(path)


def draw_pareto(axes: Any, found: Sequence[Pruned], values: NDArray[np.float64], name: str) -> None:
    """A dot per model, error against time, with its number of blocks."""
    cost = np.array([1e6 * one.seconds / one.n_atoms for one in found])
    axes.plot(cost, values, "o-", color=plots.ACCENT, markersize=4)
    for one, x, y in zip(found, cost, values, strict=True):
        axes.annotate(f"{one.blocks}", (x, y), (4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlim(0, 1.1 * cost.max())
    axes.set_ylim(0, 1.15 * np.nanmax(values))
    axes.set_xlabel("energy and forces, µs per atom")
    axes.set_ylabel(name)
    axes.set_title("number of blocks at each dot", fontsize=6.5, loc="left", color="0.35")


def prune_all(
    path: str | os.PathLike[str], blocks: Sequence[int], epochs: int, structures_at_most: int = 2000
) -> list[Pruned]:
    """Prune a run to each number of blocks, into folders beside it, and measure them all.

    Folders RUN-K that are there already, and finished, are measured, not trained again.

    Args:
        path: run folder.
        blocks: numbers of blocks to keep.
        epochs: of training each.
        structures_at_most: test structures to measure on.

    Returns:
        The run itself first, then the pruned ones.

    Raises:
        FileNotFoundError, ValueError: if the run cannot be read or a number of blocks is out of range.
    """
    run = read_run(path)
    part = run.part("test" if len(run.split.test) else "val")
    structures = evenly(part, 10**9, structures_at_most)
    found = [measure(path, structures)]
    for n in blocks:
        out = Path(f"{Path(path)}-{n}-blocks")
        if not (out / "test.json").is_file():
            prune(run, n, epochs, out)
        found.append(measure(out, structures))
    return found
