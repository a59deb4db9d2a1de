"""Contribution weights over a training: summarized over runs, and drawn.

w_hat^(l) = w^(l) mean_i ||v_i^(l)||      Eq. 5 of Nicoli et al. 2018, arXiv:1810.09751 (Fig. 2 and 3)
"""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from scschnet.analysis import plots
from scschnet.files import replacing
from scschnet.runs.contributions import TABLE, Contributions, read_contributions

FIGURE_COLUMNS = ("epoch", "layer", "normalized_weight", "normalized_weight_std", "n_runs")
FEW_EPOCHS = 8  # up to so many are drawn as dots, too

EpochScale = Literal["linear", "log"]


@dataclass(frozen=True, eq=False)
class Summary:
    """Mean and spread of the normalized contribution weights of one or several runs.

    Args:
        epochs: those that all runs have, (n_epochs,) int64.
        mean: (n_epochs, n_layers).
        std: over runs (sample standard deviation, n - 1), or over the minibatches of a single run,
            (n_epochs, n_layers).
        n_runs: number of runs.
        plain: SchNet without contribution weights: these are the mean norms alone.
    """

    epochs: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    n_runs: int
    plain: bool


def summarize(runs: Sequence[Contributions]) -> Summary:
    """Mean and spread over runs, at the epochs that all of them have.

    Args:
        runs: at least one, all with the same number of layers.

    Returns:
        Summary.

    Raises:
        ValueError: if runs do not fit together.
    """
    if not runs:
        raise ValueError("`runs` must hold at least one run")
    first = runs[0]
    for other in runs[1:]:
        if other.weight.shape[1] != first.weight.shape[1]:
            raise ValueError(
                f"`runs` must have the same number of layers, got {first.weight.shape[1]} in "
                f"{first.path} and {other.weight.shape[1]} in {other.path}"
            )
        if other.plain != first.plain:
            plain, weighted = (first, other) if first.plain else (other, first)
            raise ValueError(
                "`runs` must all have contribution weights or all have none, got none in "
                f"{plain.path} (plain SchNet) and some in {weighted.path}"
            )
    epochs = first.epochs
    for other in runs[1:]:
        epochs = np.intersect1d(epochs, other.epochs)
    if not len(epochs):
        raise ValueError("`runs` must share at least one epoch, got none")
    chosen = [np.searchsorted(run.epochs, epochs) for run in runs]
    values = np.stack([r.normalized_weight[k] for r, k in zip(runs, chosen, strict=True)])
    std = values.std(axis=0, ddof=1) if len(runs) > 1 else first.normalized_weight_std[chosen[0]]
    return Summary(epochs, values.mean(axis=0), std, len(runs), first.plain)


def plot_contributions(
    runs: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    epochs: EpochScale = "linear",
    width: float = plots.COLUMN_WIDTH,
    height: float = plots.HEIGHT,
) -> Path:
    """Draw how the normalized contribution weights evolve, and write the same numbers as CSV.

    Lines are means, shades one standard deviation: over runs, or over the minibatches of a single one.

    Args:
        runs: run folders; of each, epochs that not all have are left out.
        path: figure to write, .png, .pdf or .svg; the numbers go to `figure_table(path)`.
        epochs: scale of the horizontal axis; "log" leaves out epoch 0.
        width: of the figure, cm.
        height: of the figure, cm.

    Returns:
        `path`.

    Raises:
        FileNotFoundError, ValueError: if a run cannot be read, runs do not fit together, or an argument
            is out of range.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    summary = summarize([read_contributions(run) for run in runs])
    with plots.figure_style():
        figure = plots.new_figure(width, height)
        axes = figure.add_subplot()
        draw_contributions(axes, summary, epochs)
        figure.draw_without_rendering()  # settles the layout, on which the labels depend
        if axes.texts:
            draw_labels(axes, summary)
        plots.save_figure(figure, path)
    write_summary(figure_table(path), summary)
    return Path(path)


def figure_table(path: str | os.PathLike[str]) -> Path:
    """Where the numbers of a figure go: beside it, but never over a run's own contributions.csv."""
    table = Path(path).with_suffix(".csv")
    return table if table.name != TABLE else table.with_name("contributions-figure.csv")


def write_summary(path: Path, summary: Summary) -> None:
    """Write a summary as CSV, a row per epoch and layer, full precision."""
    rows = [
        (int(epoch), layer, float(summary.mean[k, layer]), float(summary.std[k, layer]))
        for k, epoch in enumerate(summary.epochs)
        for layer in range(summary.mean.shape[1])
    ]
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIGURE_COLUMNS)
        writer.writerows((*row, summary.n_runs) for row in rows)


def draw_contributions(axes: Any, summary: Summary, epochs: EpochScale = "linear") -> None:
    """Draw a summary into matplotlib axes, to be used within `plots.figure_style`.

    Args:
        axes: matplotlib axes; labels stand to their right.
        summary: what to draw.
        epochs: scale of the horizontal axis.

    Raises:
        ValueError: if `epochs` is unknown, or logarithmic with no epoch beyond 0.
    """
    if epochs not in ("linear", "log"):
        raise ValueError(f"`epochs` must be linear or log, got {epochs}")
    shown = summary.epochs > 0 if epochs == "log" else np.ones(len(summary.epochs), bool)
    if not shown.any():
        raise ValueError("`epochs` must be linear for runs with no epoch but 0, got log")
    axes.set_ylabel(_what_is_drawn(summary))
    axes.set_title(_what_is_shaded(summary), loc="left", fontsize=6, color="0.35")
    x, mean, std = summary.epochs[shown], summary.mean[shown], summary.std[shown]
    _set_heights(axes, mean, std)
    if len(x) == 1:
        _draw_one_epoch(axes, int(x[0]), mean[0], std[0])
        return
    marker = "o" if len(x) <= FEW_EPOCHS else ""
    for layer, color in enumerate(plots.layer_colors(mean.shape[1])):
        y, spread = mean[:, layer], std[:, layer]
        axes.fill_between(x, y - spread, y + spread, color=color, alpha=0.16, linewidth=0)
        style = "-" if layer else (0, (4, 1.5))
        axes.plot(x, y, color=color, linestyle=style, marker=marker, markersize=2.5, clip_on=False)
    _set_epochs(axes, x, epochs)
    draw_labels(axes, summary)


def _draw_one_epoch(
    axes: Any, epoch: int, mean: NDArray[np.float64], std: NDArray[np.float64]
) -> None:
    """A single epoch has no evolution: a dot per layer instead."""
    for layer, color in enumerate(plots.layer_colors(len(mean))):
        axes.errorbar(layer, mean[layer], std[layer], color=color, fmt="o", markersize=4, capsize=2)
    axes.set_xticks(range(len(mean)), [_layer_name(layer) for layer in range(len(mean))])
    axes.set_xlabel(f"layer, epoch {epoch}")


def draw_labels(axes: Any, summary: Summary) -> None:
    """Write v0 to vL at the ends of the lines; again after a change of the layout or the limits."""
    for old in [text for text in axes.texts if text.get_gid() == "layer"]:
        old.remove()
    x, ends = summary.epochs[-1], summary.mean[-1]
    labels = []
    for layer, color in enumerate(plots.layer_colors(len(ends))):
        label = axes.annotate(
            _layer_name(layer),
            xy=(x, ends[layer]),
            xytext=(1.05, 0.5),
            textcoords="axes fraction",
            color=color,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.5,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.45),
            },
            gid="layer",
        )
        labels.append(label)
    plots.label_line_ends(axes, float(x), list(ends), labels)


def _set_heights(axes: Any, mean: NDArray[np.float64], std: NDArray[np.float64]) -> None:
    """Zero is always in view, so that heights can be compared."""
    low, high = min(0.0, float((mean - std).min())), max(0.0, float((mean + std).max()))
    margin = 0.05 * (high - low) or 1.0
    axes.set_ylim(low - margin if low < 0 else 0.0, high + margin)
    if low < 0:
        axes.axhline(0.0, color="0.6", linewidth=0.6, zorder=1)


def _set_epochs(axes: Any, x: NDArray[np.int64], epochs: EpochScale) -> None:
    """Lines reach from edge to edge."""
    axes.set_xlabel("epoch")
    axes.set_xscale(epochs)
    axes.set_xlim(x[0], x[-1])
    if epochs == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    else:
        steps = (1, 2, 5) if x[-1] < 200 * x[0] else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())


def _layer_name(layer: int) -> str:
    return f"$v^{{({layer})}}$"


def _what_is_drawn(summary: Summary) -> str:
    if summary.plain:
        return r"mean norm  $\langle\Vert v_i^{(l)}\Vert\rangle$"
    return r"normalized contribution weight  $\hat{w}^{(l)}$"


def _what_is_shaded(summary: Summary) -> str:
    many = summary.n_runs > 1
    embedding = "dashed" if len(summary.epochs) > 1 else "$v^{(0)}$"
    shade = f"mean ± s.d. of {summary.n_runs} runs" if many else "± s.d. over minibatches"
    plain = "SchNet ($w^{(l)}=1$); " if summary.plain else ""
    return f"{plain}{shade}; {embedding}: embedding"
