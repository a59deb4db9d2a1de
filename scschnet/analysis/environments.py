"""Contribution weights where they act: per element, per environment, and along a trajectory.

w_hat_Z^(l) = w^(l) mean over atoms of Z of ||v_i^(l)||: Eq. 5 of arXiv:1810.09751 restricted to a group of
atoms. The restriction is ours, not the paper's; for plain SchNet (every w = 1) it is the mean norm.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scschnet.analysis import plots
from scschnet.analysis.bonds import coordination
from scschnet.analysis.tables import table_beside, write_table
from scschnet.data import StructureSet
from scschnet.elements import symbol
from scschnet.evaluate.corrections import correction_norms
from scschnet.nn import SchNet
from scschnet.runs.contributions import layer_names

COLUMNS = ("group", "layer", "normalized_weight", "std_over_atoms", "std_over_runs", "n_atoms")
RARE = 20  # environments with fewer atoms are left out


@dataclass(frozen=True, eq=False)
class GroupContributions:
    """Normalized contribution weights of groups of atoms.

    Args:
        names: of the groups, such as "C" or "C, 3 neighbors".
        mean: w^(l) mean ||v_i^(l)||, (n_groups, n_layers); over runs where there are several.
        std_atoms: standard deviation over the atoms of a group, (n_groups, n_layers).
        std_runs: sample standard deviation over runs, NaN for a single one, (n_groups, n_layers).
        n_atoms: size of each group, (n_groups,).
    """

    names: tuple[str, ...]
    mean: NDArray[np.float64]
    std_atoms: NDArray[np.float64]
    std_runs: NDArray[np.float64]
    n_atoms: NDArray[np.int64]


def element_contributions(model: SchNet, structures: StructureSet) -> GroupContributions:
    """Normalized contribution weights of each element.

    Args:
        model: the model.
        structures: atoms to average over, such as the training part.

    Raises:
        ValueError: if the model does not know an element, or there are no atoms.
    """
    groups = {
        symbol(int(z)): np.flatnonzero(structures.atomic_numbers == z) for z in structures.elements
    }
    return _group_contributions(model, structures, groups)


def environment_contributions(model: SchNet, structures: StructureSet) -> GroupContributions:
    """Normalized contribution weights of each element by its number of bonded neighbors.

    Bonds: `scschnet.analysis.bonds`. Environments with fewer than 20 atoms are left out.

    Args:
        model: the model.
        structures: atoms to average over.

    Raises:
        ValueError: if the model does not know an element, or there are no atoms.
    """
    neighbors = coordination(structures)
    groups = {}
    for z in structures.elements:
        for n in np.unique(neighbors[structures.atomic_numbers == z]):
            members = np.flatnonzero((structures.atomic_numbers == z) & (neighbors == n))
            if len(members) >= RARE:
                word = "neighbor" if n == 1 else "neighbors"
                groups[f"{symbol(int(z))}, {n} {word}"] = members
    return _group_contributions(model, structures, groups)


def trajectory_contributions(model: SchNet, structures: StructureSet) -> NDArray[np.float64]:
    """Normalized contribution weights of every frame, (n_structures, n_layers).

    Args:
        model: the model.
        structures: frames in their order, each with at least one atom.

    Raises:
        ValueError: if the model does not know an element, or a frame is empty.
    """
    if not len(structures) or structures.n_atoms.min() == 0:
        raise ValueError("`structures` must hold frames with atoms, got none or an empty one")
    norms = correction_norms(model, structures).numpy()
    sums = np.add.reduceat(norms, structures.atom_ptr[:-1], axis=1)
    return model.contribution_weights.numpy() * (sums / structures.n_atoms).T


def over_runs(found: Sequence[GroupContributions]) -> GroupContributions:
    """Mean and spread over runs, for the groups that all of them have.

    Args:
        found: of each run, at least one.

    Raises:
        ValueError: if there is none, the numbers of layers differ, or no group is shared.
    """
    if not found:
        raise ValueError("`found` must hold at least one run")
    first = found[0]
    layers = {one.mean.shape[1] for one in found}
    if len(layers) > 1:
        raise ValueError(f"runs must have the same number of layers, got {sorted(layers)}")
    names = tuple(name for name in first.names if all(name in one.names for one in found))
    if not names:
        raise ValueError("runs must share at least one group of atoms, got none")
    if len(found) == 1:
        return first
    rows = [[one.names.index(name) for name in names] for one in found]
    means = np.stack([one.mean[k] for one, k in zip(found, rows, strict=True)])
    stds = np.stack([one.std_atoms[k] for one, k in zip(found, rows, strict=True)])
    sizes = np.stack([one.n_atoms[k] for one, k in zip(found, rows, strict=True)])
    return GroupContributions(
        names, means.mean(axis=0), stds.mean(axis=0), means.std(axis=0, ddof=1), sizes.sum(axis=0)
    )


def plot_groups(groups: GroupContributions, path: str | os.PathLike[str]) -> Path:
    """Draw groups against layers as a heat map, and write the numbers as CSV beside it.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    with plots.figure_style():
        figure = plots.new_figure(plots.COLUMN_WIDTH, 2.2 + 0.65 * len(groups.names))
        axes = figure.add_subplot()
        figure.colorbar(draw_groups(axes, groups), ax=axes, label="w_hat", pad=0.02)
        plots.save_figure(figure, path)
    write_groups(table_beside(path), groups)
    return Path(path)


def write_groups(path: str | os.PathLike[str], groups: GroupContributions) -> Path:
    """Write every number of the heat map as CSV, a row per group and layer."""
    columns = (groups.mean, groups.std_atoms, groups.std_runs)
    rows = (
        (name, layer, *(values[g, layer] for values in columns), groups.n_atoms[g])
        for g, name in enumerate(groups.names)
        for layer in range(groups.mean.shape[1])
    )
    return write_table(path, COLUMNS, rows)


def draw_groups(axes: Any, groups: GroupContributions) -> Any:
    """Draw a heat map with the number in every cell, into axes made within `plots.figure_style`; returns its colors.

    Of several runs the standard deviation over runs stands below the number.
    """
    reach = float(np.abs(groups.mean).max()) or 1.0
    low = -reach if (groups.mean < 0).any() else 0.0
    colors = "PuOr" if low < 0 else "YlGnBu"
    cells = axes.pcolormesh(
        groups.mean, cmap=colors, vmin=low, vmax=reach, edgecolors="white", linewidth=1
    )
    for g, row in enumerate(groups.mean):
        for layer, value in enumerate(row):
            strong = abs(value) > 0.6 * reach
            spread = groups.std_runs[g, layer]
            axes.text(
                layer + 0.5,
                g + 0.5,
                f"{value:.2g}" + ("" if np.isnan(spread) else f"\n± {spread:.1g}"),
                ha="center",
                va="center",
                fontsize=6.5 if np.isnan(spread) else 5.5,
                color="white" if strong else plots.ON_PALE,
            )
    n_layers = groups.mean.shape[1]
    axes.set_xticks(np.arange(n_layers) + 0.5, layer_names(n_layers))
    axes.set_yticks(np.arange(len(groups.names)) + 0.5, groups.names)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    for spine in axes.spines.values():
        spine.set_visible(False)
    return cells


def running_mean(values: NDArray[np.float64], width: int) -> tuple[NDArray, NDArray]:
    """Means over so many frames in a row, and the middle of each stretch of frames.

    Args:
        values: (n_frames,).
        width: frames, 1 to n_frames.

    Returns:
        middles (n_frames - width + 1,) and means, the same shape.
    """
    sums = np.cumsum(np.concatenate([[0.0], values]))
    means = (sums[width:] - sums[:-width]) / width
    return np.arange(len(means)) + (width - 1) / 2, means


def plot_trajectory(frames: NDArray[np.float64], path: str | os.PathLike[str]) -> Path:
    """Draw the weights along a trajectory, and write them as CSV beside the figure.

    Args:
        frames: from `trajectory_contributions`, (n_frames, n_layers).
        path: figure to write.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    with plots.figure_style():
        figure = plots.new_figure()
        axes = figure.add_subplot()
        draw_trajectory(axes, frames)
        plots.save_figure(figure, path)
    rows = ((frame, layer, value) for (frame, layer), value in np.ndenumerate(frames))
    write_table(table_beside(path), ("frame", "layer", "normalized_weight"), rows)
    return Path(path)


def draw_trajectory(axes: Any, frames: NDArray[np.float64]) -> None:
    """Draw how each layer's weight moves, relative to its mean over the trajectory, in percent.

    Long trajectories are drawn as running means over a fiftieth of the frames, with the frames pale behind them.
    """
    mean, width = frames.mean(axis=0), max(1, len(frames) // 50)
    scale = np.where(mean != 0, np.abs(mean), 1.0)
    for layer, color in enumerate(plots.layer_colors(frames.shape[1])):
        if layer:
            change = 100 * (frames[:, layer] - mean[layer]) / scale[layer]
            if width > 1:
                axes.plot(change, color=color, linewidth=0.3, alpha=0.15, rasterized=True)
            axes.plot(*running_mean(change, width), color=color, linewidth=0.9, label=f"v{layer}")
    axes.set_xlabel("frame" if width == 1 else f"frame (lines: means over {width})")
    axes.set_ylabel("deviation from its mean (%)")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    plots.legend_above(axes, frames.shape[1] - 1)


def _group_contributions(
    model: SchNet, structures: StructureSet, groups: dict[str, NDArray[np.int64]]
) -> GroupContributions:
    """From the atoms of each group."""
    if not groups:
        raise ValueError("`structures` must hold at least one atom of a common environment")
    weights = model.contribution_weights.numpy()
    norms = correction_norms(model, structures).numpy()
    mean = np.stack([weights * norms[:, k].mean(axis=1) for k in groups.values()])
    std = np.stack([np.abs(weights) * norms[:, k].std(axis=1) for k in groups.values()])
    sizes = np.array([len(k) for k in groups.values()], dtype=np.int64)
    return GroupContributions(tuple(groups), mean, std, np.full_like(mean, np.nan), sizes)
