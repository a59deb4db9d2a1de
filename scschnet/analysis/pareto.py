"""Error against cost of models with fewer and fewer blocks."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scschnet.analysis import plots
from scschnet.analysis.tables import table_beside, write_table
from scschnet.checkpoint import load
from scschnet.data import Batch, StructureSet, collate, evenly
from scschnet.evaluate import errors, predict
from scschnet.nn import SchNet
from scschnet.units import energy_factor

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
class Measured:
    """A model's error and cost.

    Args:
        features: per atom.
        blocks: interaction blocks.
        path: run folder.
        energy: mean absolute error per structure, eV; NaN without labels.
        forces: mean absolute error per component, eV/Å; NaN without labels.
        seconds: of one evaluation of energies and forces of `n_atoms` atoms: CPU time of one thread, the fastest of 15.
        n_atoms: atoms evaluated at a time.
        reach: blocks times cutoff, Å.
    """

    features: int
    blocks: int
    path: Path
    energy: float
    forces: float
    seconds: float
    n_atoms: int
    reach: float

    @property
    def micro(self) -> float:
        """Time for an atom, µs."""
        return 1e6 * self.seconds / self.n_atoms

    @property
    def size(self) -> str:
        """Features and blocks, in words."""
        return f"F={self.features}, L={self.blocks}"


def measure(path: str | os.PathLike[str], structures: StructureSet) -> Measured:
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
    return Measured(
        model.config.n_features,
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


def plot_pareto(found: Sequence[Measured], path: str | os.PathLike[str]) -> Path:
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


def draw_pareto(
    axes: Any, found: Sequence[Measured], values: NDArray[np.float64], name: str
) -> None:
    """A dot per model, error against time, with its number of blocks."""
    cost = np.array([one.micro for one in found])
    axes.plot(cost, values, "o-", color=plots.ACCENT, markersize=4)
    for one, x, y in zip(found, cost, values, strict=True):
        axes.annotate(f"{one.blocks}", (x, y), (4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlim(0, 1.1 * cost.max())
    axes.set_ylim(0, 1.15 * np.nanmax(values))
    axes.set_xlabel("energy and forces, µs per atom")
    axes.set_ylabel(name)
    axes.set_title("number of blocks at each dot", fontsize=6.5, loc="left", color="0.35")
