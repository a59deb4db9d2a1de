"""Predicted against reference energies, forces and stress, in one figure."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scschnet.analysis import plots
from scschnet.data import StructureSet
from scschnet.evaluate import Predictions
from scschnet.quantities import ANY_OF_THEM

DENSITY = ListedColormap(colormaps["viridis"](np.linspace(0.92, 0.0, 256)))  # no yellow on white
MANY = 2000  # beyond so many points a panel shows their density
WIDTH = 17.2  # cm, two columns


@dataclass(frozen=True, eq=False)
class Panel:
    """One quantity: predicted and reference values, (n,) each, without NaN.

    Args:
        title: what it is.
        unit: of both.
        reference: labels.
        predicted: in the same order.
    """

    title: str
    unit: str
    reference: NDArray[np.float64]
    predicted: NDArray[np.float64]


def plot_parity(
    predictions: Predictions, labels: StructureSet, path: str | os.PathLike[str]
) -> Path:
    """Draw a panel for every quantity with labels: predicted against reference, with the errors.

    Args:
        predictions: of all structures of `labels`, in its order.
        labels: the structures themselves.
        path: figure to write, .png, .pdf or .svg.

    Returns:
        `path`.

    Raises:
        ValueError: for another suffix, or if there is no label to compare with.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    panels = parity_panels(predictions, labels)
    if not panels:
        raise ValueError(f"`labels` must hold {ANY_OF_THEM}, got none")
    with plots.figure_style():
        side = WIDTH / max(len(panels), 2)
        figure = plots.new_figure(side * len(panels), 0.87 * side)
        for axes, panel in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            draw_parity(axes, panel)
        return plots.save_figure(figure, path)


def parity_panels(predictions: Predictions, labels: StructureSet) -> list[Panel]:
    """What is to be drawn. Energies are relative to the least squares fit of the labels to the composition.

    That takes away the thousands of eV which say nothing about a model: for a single molecule it is
    the mean, otherwise a sum of energies per element. The same number is subtracted from both sides.

    Args:
        predictions: of all structures of `labels`, in its order.
        labels: the structures themselves.
    """
    panels = []
    for quantity in labels.quantities:
        label, predicted = quantity.of(labels), quantity.of(predictions)
        if predicted is None or not labels.labeled[quantity.name].any():
            continue
        baseline = _composition_energy(labels) if quantity.name == "energy" else 0.0
        unit = quantity.unit.replace("^3", "$^3$")
        panels.append(Panel(quantity.title, unit, label - baseline, predicted - baseline))
    found = [_without_nan(panel) for panel in panels]
    return [panel for panel in found if panel.reference.size]


def _composition_energy(labels: StructureSet) -> NDArray[np.float64]:
    """Least squares fit of the energy labels to the numbers of atoms of each element, (n_structures,)."""
    assert labels.energy is not None
    columns = np.searchsorted(labels.elements, labels.atomic_numbers)
    composition = np.zeros((len(labels), len(labels.elements)))
    np.add.at(composition, (labels.idx_m, columns), 1.0)
    known = labels.labeled["energy"]
    fit = np.linalg.lstsq(composition[known], labels.energy[known], rcond=None)[0]
    return composition @ fit


def _without_nan(panel: Panel) -> Panel:
    known = ~(np.isnan(panel.reference) | np.isnan(panel.predicted))
    return Panel(panel.title, panel.unit, panel.reference[known], panel.predicted[known])


def draw_parity(axes: Any, panel: Panel) -> None:
    """Draw a panel: points or their density, the line of equality, errors, and their histogram.

    Args:
        axes: matplotlib axes, to be used within `plots.figure_style`.
        panel: what to draw.
    """
    x, y = panel.reference, panel.predicted
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.04 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="0.6", linewidth=0.8, zorder=1)
    if len(x) > MANY:
        cells = axes.hexbin(
            x,
            y,
            gridsize=70,
            extent=(*limits, *limits),
            bins="log",
            mincnt=1,
            cmap=DENSITY,
            zorder=2,
        )
        cells.set_rasterized(True)
        bar = axes.figure.colorbar(cells, ax=axes, shrink=0.7, pad=0.02, aspect=30)
        bar.set_label("points per cell", fontsize=6.5)
        bar.ax.tick_params(labelsize=6)
    else:
        axes.scatter(x, y, s=5, color="#33608c", alpha=0.5, linewidth=0, zorder=2)
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"reference {panel.title} ({panel.unit})")
    axes.set_ylabel(f"predicted {panel.title} ({panel.unit})")
    difference = y - x
    mae, rmse = np.abs(difference).mean(), np.sqrt(np.square(difference).mean())
    words = f"MAE {mae:.3g} {panel.unit}\nRMSE {rmse:.3g} {panel.unit}\nn = {len(x):,}"
    axes.text(0.04, 0.97, words, transform=axes.transAxes, va="top", fontsize=7, linespacing=1.4)
    _draw_histogram(axes, difference, 3 * float(rmse), panel.unit)


def _draw_histogram(axes: Any, difference: NDArray[np.float64], reach: float, unit: str) -> None:
    """Distribution of predicted - reference in the corner that points leave free."""
    reach = reach or 1.0
    inset = axes.inset_axes((0.62, 0.15, 0.35, 0.22))
    inset.hist(difference, bins=41, range=(-reach, reach), color="0.55")
    inset.axvline(0.0, color="black", linewidth=0.5)
    inset.set_xlim(-reach, reach)
    inset.set_yticks([])
    inset.spines["left"].set_visible(False)
    inset.patch.set_alpha(0.0)
    inset.tick_params(labelsize=5.5, length=2, pad=1.5)
    inset.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
    inset.set_xlabel(f"error ({unit})", fontsize=6, labelpad=1)
