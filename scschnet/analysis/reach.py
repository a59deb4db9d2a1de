"""How far an atom's energy feels other atoms: ||d E_i / d r_j|| against distance and number of bonds.

A network of L blocks could use everything within L times the cutoff; what it does use is measured here, for the
energy of an atom and for every layer's part of it (scschnet.analysis.layers). Radii that hold half, 90 and 99 %
of the sum of all ||d E_i / d r_j||, j != i, say it in one number each. This measure is ours, not the paper's.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scschnet.analysis import plots
from scschnet.analysis.bonds import UNBONDED, bond_counts, bonded, distances
from scschnet.analysis.layers import layer_shares
from scschnet.analysis.tables import table_beside, write_table
from scschnet.data import Batch, StructureSet
from scschnet.evaluate.corrections import (
    Corrections,
    batches,
    corrections,
    forces_of,
    pair_energies,
)
from scschnet.nn import SchNet

SHARES = (0.5, 0.9, 0.99)
BIN = 0.5  # Å


@dataclass(frozen=True, eq=False)
class Reach:
    """Sensitivity of atoms' energies to the positions of others, a row per ordered pair of atoms (i, j), i != j.

    Args:
        distance: of the nearest images, (n_pairs,), Å.
        bonds: on the shortest way from i to j, (n_pairs,); -1 where there is none.
        total: ||d E_i / d r_j||, (n_pairs,), eV/Å.
        layers: the same for every layer's part of E_i, (n_layers, n_pairs), eV/Å; their vectors add up
            to the total's, their norms do not.
        nominal: L times the cutoff, Å.
    """

    distance: NDArray[np.float64]
    bonds: NDArray[np.int64]
    total: NDArray[np.float64]
    layers: NDArray[np.float64]
    nominal: float


def reach(model: SchNet, structures: StructureSet) -> Reach:
    """Measure how far energies of atoms reach: a backward pass per layer and atom of the largest structure.

    Args:
        model: the model.
        structures: a few; in a periodic one, all images of an atom move together.

    Raises:
        ValueError: if the model does not know an element, or no structure has two atoms.
    """
    if not len(structures) or structures.n_atoms.max() < 2:
        raise ValueError("`structures` must hold one with two atoms or more, got none")
    n_layers = model.config.n_interactions + 1
    rows: list[NDArray[np.float64]] = []
    bonds: list[NDArray[np.int64]] = []
    start = 0
    for batch in batches(model, structures):
        norms = _sensitivities(model, batch)
        for m in range(len(batch)):
            n = int(structures.n_atoms[start + m])
            others = ~np.eye(n, dtype=bool)
            apart = distances(structures, start + m)[others]
            bonds.append(bond_counts(bonded(structures, start + m))[others])
            rows.append(np.concatenate([apart[None], norms[m][:, others]]))
        start += len(batch)
    table = np.concatenate(rows, axis=1)
    nominal = model.config.n_interactions * model.config.cutoff
    return Reach(table[0], np.concatenate(bonds), table[1], table[2 : 2 + n_layers], float(nominal))


def _sensitivities(model: SchNet, batch: Batch) -> list[NDArray[np.float64]]:
    """||d/dr_j|| of E_i and of each layer's part, one (1 + n_layers, n, n) per structure: [which, i, j].

    The k-th atoms of all structures are differentiated together: structures do not know each other.
    """
    found = corrections(model, batch, derivatives=True)
    with torch.enable_grad():
        shares = layer_shares(model, found.layers)
        of_pair = pair_energies(model, batch.atomic_numbers, found)
    sizes = batch.atom_ptr.diff()
    norms = [np.zeros((1 + len(shares), n, n)) for n in sizes.tolist()]
    for k in range(int(sizes.max())):
        has = sizes > k
        centers = batch.atom_ptr[:-1][has] + k
        slopes = torch.stack([_slopes(share[centers].sum(), found) for share in shares])
        total = slopes.sum(dim=0) + _slopes(of_pair[centers].sum(), found)
        all_slopes = torch.cat([total[None], slopes])
        lengths = torch.linalg.vector_norm(all_slopes, dim=2).numpy()
        for m in np.flatnonzero(has.numpy()):
            norms[m][:, k] = lengths[:, batch.atom_ptr[m] : batch.atom_ptr[m + 1]]
    return norms


def _slopes(energy: torch.Tensor, found: Corrections) -> torch.Tensor:
    return -forces_of(energy, found)


def radius_within(distance: NDArray[np.float64], size: NDArray[np.float64], share: float) -> float:
    """Smallest radius that holds a share of the sum of sizes, Å; NaN if all are zero.

    Args:
        distance: (n_pairs,), Å.
        size: (n_pairs,), not negative.
        share: between 0 and 1.
    """
    order = np.argsort(distance, kind="stable")
    sums = np.cumsum(size[order])
    if not sums.size or sums[-1] <= 0:
        return float("nan")
    first = np.searchsorted(sums, share * sums[-1] * (1 - 1e-12))
    return float(distance[order][first])


def radii(found: Reach) -> NDArray[np.float64]:
    """Radii within which half, 90 and 99 % of the sensitivity lie, (1 + n_layers, 3), Å; the total first."""
    sizes = [found.total, *found.layers]
    return np.array([[radius_within(found.distance, s, q) for q in SHARES] for s in sizes])


def by_distance(found: Reach) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean sensitivity in bins of 0.5 Å: centers (n_bins,), means (1 + n_layers, n_bins); empty bins left out."""
    index = np.floor(found.distance / BIN).astype(np.int64)
    used: NDArray[np.int64] = np.unique(index)
    sizes = np.concatenate([found.total[None], found.layers])
    means = np.stack([sizes[:, index == k].mean(axis=1) for k in used], axis=1)
    centers: NDArray[np.float64] = (used.astype(np.float64) + 0.5) * BIN
    return centers, means


def by_bonds(found: Reach) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Mean sensitivity by number of bonds: counts (n,), means (1 + n_layers, n); pairs without a way left out."""
    counts = np.unique(found.bonds[found.bonds != UNBONDED])
    sizes = np.concatenate([found.total[None], found.layers])
    means = [sizes[:, found.bonds == n].mean(axis=1) for n in counts]
    return counts, np.stack(means, axis=1) if means else np.zeros((len(sizes), 0))


def plot_reach(found: Reach, path: str | os.PathLike[str]) -> Path:
    """Draw sensitivity against distance and bonds, and write the means as CSV beside the figure.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    with plots.figure_style():
        figure = plots.new_figure(2 * plots.COLUMN_WIDTH, plots.HEIGHT)
        left, right = figure.subplots(1, 2, sharey=True)
        draw_distance(left, found)
        draw_bonds(right, found)
        right.set_ylabel("")
        plots.save_figure(figure, path)
    write_reach(table_beside(path), found)
    return Path(path)


def write_reach(path: str | os.PathLike[str], found: Reach) -> Path:
    """Write means by distance and by bonds, and the radii, as CSV."""
    names = ["E_i", *(f"v{layer}" for layer in range(len(found.layers)))]
    rows: list[list[Any]] = []
    for kind, (x, means) in (("distance (Å)", by_distance(found)), ("bonds", by_bonds(found))):
        rows += [[kind, at, *column] for at, column in zip(x, means.T, strict=True)]
    for share, column in zip(SHARES, radii(found).T, strict=True):
        rows.append([f"radius (Å) that holds {100 * share:.0f} %", share, *column])
    return write_table(path, ["against", "at", *(f"{n} (eV/Å)" for n in names)], rows)


def draw_distance(axes: Any, found: Reach) -> None:
    """Mean sensitivity against distance, the total and every layer, on a logarithmic scale."""
    x, means = by_distance(found)
    _draw_lines(axes, x, means)
    axes.set_xlabel("distance (Å)")
    radius = radii(found)[0, 1]
    if np.isfinite(radius):
        axes.axvline(radius, color="0.5", linewidth=0.7, linestyle=(0, (2, 2)))
        axes.annotate(
            f"90 % within {radius:.1f} Å",
            (radius, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            fontsize=6.5,
            color="0.35",
        )


def draw_bonds(axes: Any, found: Reach) -> None:
    """Mean sensitivity against the number of bonds between two atoms, on a logarithmic scale."""
    counts, means = by_bonds(found)
    _draw_lines(axes, counts.astype(np.float64), means)
    axes.set_xlabel("bonds between the atoms")
    axes.set_xticks(counts)


def _draw_lines(axes: Any, x: NDArray[np.float64], means: NDArray[np.float64]) -> None:
    """A gray line for the total, one per layer; zeros, which a logarithm does not know, are left out."""
    shown = np.where(means > 0, means, np.nan)
    axes.set_yscale("log")
    axes.plot(x, shown[0], color="0.55", linewidth=2.4, label="all")
    for layer, color in enumerate(plots.layer_colors(len(means) - 1)):
        axes.plot(x, shown[1 + layer], "o-", color=color, markersize=2.5, label=f"v{layer}")
    axes.set_ylabel("mean ||dE$_i$/dr$_j$|| (eV/Å)")
    plots.legend_above(axes, len(means))
