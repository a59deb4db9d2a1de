"""Scores of unfamiliar atoms: of distorted structures, drawn and written.

The score itself, with its equation, is in scschnet.nn.unfamiliarity; its statistics are in
scschnet.evaluate.norm_statistics.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scschnet.analysis import plots
from scschnet.analysis.tables import table_beside, write_table
from scschnet.data import StructureSet
from scschnet.elements import symbol
from scschnet.evaluate.norm_statistics import LEVELS
from scschnet.nn.unfamiliarity import NormStatistics


def distorted(structures: StructureSet, by: float, seed: int = 0) -> StructureSet:
    """The same structures with normal noise on every coordinate, without labels.

    Args:
        structures: the set.
        by: standard deviation, Å.
        seed: of the noise.
    """
    noise = np.random.default_rng(seed).normal(scale=by, size=structures.positions.shape)
    moved = structures.positions + noise
    return replace(structures, positions=moved, energy=None, forces=None, stress=None)


def plot_unfamiliarity(
    scores: dict[str, NDArray[np.float64]], path: str | os.PathLike[str]
) -> Path:
    """Draw the distribution of scores of several sets of atoms, with quantiles as CSV beside the figure.

    Args:
        scores: name of a set to the scores of its atoms, at least one.
        path: figure to write.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    with plots.figure_style():
        figure = plots.new_figure()
        draw_unfamiliarity(figure.add_subplot(), scores)
        plots.save_figure(figure, path)
    write_unfamiliarity(table_beside(path), scores)
    return Path(path)


def write_unfamiliarity(
    path: str | os.PathLike[str], scores: dict[str, NDArray[np.float64]]
) -> Path:
    """Write quantiles of the scores of each set, and the share above one, as CSV."""
    columns = ["atoms", "n", *(f"q{100 * level:g}" for level in LEVELS), "share above 1"]
    rows = ([name, len(u), *_quantiles(u), float((u > 1).mean())] for name, u in scores.items())
    return write_table(path, columns, rows)


def _quantiles(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """At `LEVELS`; not interpolated where an element that was not trained on has infinite scores."""
    return np.quantile(scores, LEVELS, method="linear" if np.isfinite(scores).all() else "higher")


def draw_unfamiliarity(axes: Any, scores: dict[str, NDArray[np.float64]]) -> None:
    """Share of atoms above a score, on logarithmic scales."""
    for (name, u), color in zip(scores.items(), plots.layer_colors(len(scores)), strict=True):
        x = np.sort(u)
        axes.plot(x, 1.0 - np.arange(len(x)) / len(x), color=color, label=name)
    axes.axvline(1.0, color="0.5", linewidth=0.7, linestyle=(0, (2, 2)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left=0.1)
    axes.set_xlabel("unfamiliarity")
    axes.set_ylabel("share of atoms above")
    plots.legend_above(axes, min(2, len(scores)) if len(scores) > 3 else len(scores))


def element_quantiles(statistics: NormStatistics) -> list[tuple[str, int, int, list[float]]]:
    """Symbol, training atoms, held-out atoms and quantiles of every element."""
    rows = zip(
        statistics.elements,
        statistics.n_train,
        statistics.n_held_out,
        statistics.quantiles.tolist(),
        strict=True,
    )
    return [(symbol(z), n, m, values) for z, n, m, values in rows]
