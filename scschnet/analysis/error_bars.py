"""Error bars against errors: which share of the errors they cover, drawn and written.

The error bars themselves, with their equations, are in scschnet.nn.error_bars.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scschnet.analysis import plots
from scschnet.analysis.tables import table_beside, write_table
from scschnet.data import StructureSet
from scschnet.evaluate import predict
from scschnet.evaluate.error_statistics import (
    COVERED,
    coverage,
    expected_coverage,
    standard_errors,
)
from scschnet.nn import SchNet
from scschnet.nn.error_bars import ErrorStatistics

Ratios = dict[str, NDArray[np.float64]]
COMPONENTS = {"energy": 1, "forces": 3}


def ratios(model: SchNet, structures: StructureSet, statistics: ErrorStatistics) -> Ratios:
    """Errors divided by their error bars, of the energies and of the forces that have labels.

    Args:
        model: the model.
        structures: with labels.
        statistics: of its errors.

    Returns:
        energy, |dE| over its bar, and forces, |dF_i| over their bars; empty where there are no labels.
    """
    bars = standard_errors(model, structures, statistics)
    predicted = predict(model, structures, forces=True)
    found = {name: np.zeros(0) for name in COMPONENTS}
    if structures.energy is not None and predicted.energy is not None:
        found["energy"] = np.abs(predicted.energy - structures.energy) / bars.energy
    if structures.forces is not None and predicted.forces is not None:
        found["forces"] = np.linalg.norm(predicted.forces - structures.forces, axis=1) / bars.forces
    return {name: values[~np.isnan(values)] for name, values in found.items()}


def largest_bars(
    model: SchNet, structures: StructureSet, statistics: ErrorStatistics
) -> NDArray[np.float64]:
    """The largest error bar of a force in each structure, eV/Å: what dynamics within the data stays below.

    Args:
        model: the model.
        structures: not empty.
        statistics: of its errors.
    """
    bars = standard_errors(model, structures, statistics).forces
    return np.maximum.reduceat(bars, structures.atom_ptr[:-1])


def coverages(found: Ratios) -> Iterator[tuple[str, list[float], list[float]]]:
    """Name, coverage found and coverage expected of every quantity that has errors."""
    for name, values in found.items():
        if len(values):
            yield name, coverage(values), expected_coverage(COMPONENTS[name])


def plot_coverage(found: Ratios, path: str | os.PathLike[str]) -> Path:
    """Draw coverage found against expected, with the numbers as CSV beside the figure.

    Args:
        found: from `ratios`.
        path: figure to write.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    with plots.figure_style():
        figure = plots.new_figure()
        draw_coverage(figure.add_subplot(), found)
        plots.save_figure(figure, path)
    write_coverage(table_beside(path), found)
    return Path(path)


def write_coverage(path: str | os.PathLike[str], found: Ratios) -> Path:
    """Write coverage found and expected as CSV."""
    columns = ["quantity", "n", "error bars", "found", "expected"]
    rows = (
        [name, len(found[name]), *row]
        for name, covered, expected in coverages(found)
        for row in zip(COVERED, covered, expected, strict=True)
    )
    return write_table(path, columns, rows)


def draw_coverage(axes: Any, found: Ratios) -> None:
    """Share of errors within a multiple of their error bar: found against expected of normal errors."""
    shown = list(coverages(found))
    colors = plots.layer_colors(max(2, len(shown)))
    axes.plot((0, 1), (0, 1), color="0.5", linewidth=0.7, linestyle=(0, (2, 2)))
    for (name, covered, expected), color in zip(shown, colors, strict=False):
        axes.plot(expected, covered, marker="o", color=color, label=name)
    axes.set_xlabel("expected share within 0.5 to 3 error bars")
    axes.set_ylabel("share found")
    plots.legend_above(axes, max(1, len(shown)))
