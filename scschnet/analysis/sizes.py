"""Error against cost of models of several sizes: which of them is worth its time."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scschnet.analysis import plots
from scschnet.analysis.pareto import Measured
from scschnet.analysis.tables import table_beside, write_table
from scschnet.runs.contributions import TABLE, read_contributions

COLUMNS = (
    "features",
    "blocks",
    "run",
    "energy MAE (eV)",
    "forces MAE (eV/Å)",
    "µs per atom",
    "on the front",
    "normalized contribution weights",
)
MUCH = 1.5  # a model that is so many times worse in its error than the best one is not recommended


def quantity_of(found: Sequence[Measured]) -> str:
    """The error that is compared: of forces where there are any, else of energies."""
    return "forces" if np.isfinite([one.forces for one in found]).any() else "energy"


def front(found: Sequence[Measured]) -> list[Measured]:
    """The models that no other one beats in both error and cost, the cheapest first.

    Args:
        found: all models, on the same structures.
    """
    name = quantity_of(found)
    best: list[Measured] = []
    for one in sorted(found, key=lambda one: (one.micro, getattr(one, name))):
        if not best or getattr(one, name) < getattr(best[-1], name):
            best.append(one)
    return best


def advice(found: Sequence[Measured]) -> list[str]:
    """What every cheaper model of the front costs and saves, one sentence each.

    Args:
        found: all models, on the same structures.
    """
    *cheaper, best = front(found)
    name = quantity_of(found)
    lines = [f"{best.size} has the smallest error of the {name}."]
    for one in reversed(cheaper):
        worse = getattr(one, name) / getattr(best, name)
        if worse <= MUCH:
            lines.append(
                f"{one.size} is {best.micro / one.micro:.1f} times cheaper and its error is "
                f"{100 * (worse - 1):.0f} % larger."
            )
    return lines


def weights_of(run: Path) -> str:
    """The normalized contribution weights of a run's last epoch as shares of their sum, or nothing without any."""
    if not (run / TABLE).is_file():
        return ""
    last = np.abs(read_contributions(run).normalized_weight[-1])
    return " ".join(f"{100 * w / last.sum():.0f}" for w in last)


def plot_sizes(found: Sequence[Measured], path: str | os.PathLike[str]) -> Path:
    """Draw error against cost, a line for each number of features, and write the numbers as CSV beside the figure.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    with plots.figure_style():
        figure = plots.new_figure()
        axes = figure.subplots()
        _draw(axes, found)
        plots.save_figure(figure, path)
    best = front(found)
    rows = [
        [
            o.features,
            o.blocks,
            o.path,
            o.energy,
            o.forces,
            o.micro,
            int(o in best),
            weights_of(o.path),
        ]
        for o in sorted(found, key=lambda one: (one.features, one.blocks))
    ]
    write_table(table_beside(path), COLUMNS, rows)
    return Path(path)


def _draw(axes: Any, found: Sequence[Measured]) -> None:
    name = quantity_of(found)
    scale, unit = (1000.0, "meV/Å") if name == "forces" else (1000.0, "meV")
    widths = sorted({one.features for one in found})
    for width, color in zip(widths, plots.layer_colors(len(widths) + 1)[1:], strict=True):
        own = sorted((o for o in found if o.features == width), key=lambda o: o.blocks)
        cost, error = [o.micro for o in own], [scale * getattr(o, name) for o in own]
        axes.plot(cost, error, "o-", color=color, markersize=4, label=f"{width} features")
        for one, x, y in zip(own, cost, error, strict=True):
            axes.annotate(f"{one.blocks}", (x, y), (4, 4), textcoords="offset points", fontsize=7)
    best = front(found)
    axes.step(
        [o.micro for o in best],
        [scale * getattr(o, name) for o in best],
        where="post",
        color="0.75",
        linewidth=4,
        zorder=0,
        label="front",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("energy and forces, µs per atom, one thread")
    axes.set_ylabel(f"MAE of {name}, {unit}")
    plots.legend_above(axes, len(widths) + 1)
    axes.text(0.02, 0.02, "numbers: blocks", transform=axes.transAxes, fontsize=6.5, color="0.35")
