"""How the contribution weights of properties differ: each has its own over the blocks that they share.

w_hat_p^(l) = w_p^(l) mean_i ||v_i^(l)||      Eq. 5 of Nicoli et al. 2018, arXiv:1810.09751, for each property p
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scschnet.analysis import plots
from scschnet.analysis.contributions import summarize
from scschnet.analysis.tables import table_beside, write_table
from scschnet.runs.contributions import layer_names, properties_of, read_contributions

COLUMNS = ("property", "layer", "normalized_weight", "std", "share", "n_runs")


@dataclass(frozen=True, eq=False)
class PropertyContributions:
    """Normalized contribution weights of properties at the last epoch.

    Args:
        names: of the properties, those of all runs.
        mean: over runs, (n_properties, n_layers).
        std: over runs, or over the minibatches of a single one, (n_properties, n_layers).
        n_runs: number of runs.
    """

    names: tuple[str, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    n_runs: int

    @property
    def shares(self) -> NDArray[np.float64]:
        """|w_hat^(l)| over their sum, (n_properties, n_layers): of a readout's scale, which it may make up for, free."""
        return np.abs(self.mean) / np.abs(self.mean).sum(axis=1, keepdims=True)

    @property
    def depth(self) -> NDArray[np.float64]:
        """sum_l l share^(l): zero for the embedding alone, L for the last block alone, (n_properties,)."""
        return self.shares @ np.arange(self.mean.shape[1])


def property_contributions(runs: Sequence[str | os.PathLike[str]]) -> PropertyContributions:
    """Contribution weights of the properties that all runs have, at the last epoch that all have.

    Args:
        runs: run folders.

    Raises:
        FileNotFoundError, ValueError: if a run cannot be read, or runs do not fit together.
    """
    if not runs:
        raise ValueError("`runs` must hold at least one run")
    of_runs = [properties_of(run) for run in runs]
    names = [name for name in of_runs[0] if all(name in other for other in of_runs)]
    if not names:
        raise ValueError("`runs` must have a property in common, got none")
    found = [summarize([read_contributions(run, name) for run in runs]) for name in names]
    mean, std = (np.stack([getattr(one, which)[-1] for one in found]) for which in ("mean", "std"))
    return PropertyContributions(tuple(names), mean, std, len(runs))


def plot_properties(found: PropertyContributions, path: str | os.PathLike[str]) -> Path:
    """Draw shares of the layers for every property, and write the numbers as CSV beside the figure.

    Args:
        found: what to draw.
        path: figure to write.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    with plots.figure_style():
        figure = plots.new_figure(height=2.4 + 0.55 * len(found.names))
        draw_properties(figure.add_subplot(), found)
        plots.save_figure(figure, path)
    write_properties(table_beside(path), found)
    return Path(path)


def write_properties(path: Path, found: PropertyContributions) -> Path:
    """Write the numbers as CSV, a row per property and layer."""
    rows = (
        (
            name,
            layer,
            found.mean[k, layer],
            found.std[k, layer],
            found.shares[k, layer],
            found.n_runs,
        )
        for k, name in enumerate(found.names)
        for layer in range(found.mean.shape[1])
    )
    return write_table(path, COLUMNS, rows)


def draw_properties(axes: Any, found: PropertyContributions) -> None:
    """Draw a heat map of the shares with the number in every cell, within `plots.figure_style`."""
    shares = found.shares
    reach = float(shares.max()) or 1.0
    axes.pcolormesh(shares, cmap="YlGnBu", vmin=0.0, vmax=reach, edgecolors="white", linewidth=1)
    for (row, layer), share in np.ndenumerate(shares):
        color = "white" if share > 0.6 * reach else plots.ON_PALE
        text = f"{'−' if found.mean[row, layer] < 0 else ''}{100 * share:.0f}"
        where = {"ha": "center", "va": "center"}
        axes.text(layer + 0.5, row + 0.5, text, fontsize=6.5, color=color, **where)
    n_layers = shares.shape[1]
    axes.set_xticks(np.arange(n_layers) + 0.5, layer_names(n_layers))
    axes.set_yticks(np.arange(len(found.names)) + 0.5, found.names)
    axes.set_title("share of $|\\hat{w}^{(l)}|$, %", loc="left", fontsize=7)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    for spine in axes.spines.values():
        spine.set_visible(False)
