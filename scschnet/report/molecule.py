"""Layer energies on a picture of a molecule: atoms on the plane they fill best, a panel per layer."""

from typing import Any

import numpy as np
from ase.data import covalent_radii
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scschnet.analysis import plots
from scschnet.analysis.bonds import bonded
from scschnet.analysis.rigidity import Estimate
from scschnet.data import StructureSet
from scschnet.elements import symbol
from scschnet.runs.contributions import layer_names

DIVERGING = "RdBu_r"
N_VIEWS = 300


def choose_structure(structures: StructureSet) -> int:
    """The structure with the median number of atoms, the first of those."""
    order = np.argsort(structures.n_atoms, kind="stable")
    size = structures.n_atoms[order[len(order) // 2]]
    return int(np.flatnonzero(structures.n_atoms == size)[0])


def plane(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions as seen from where atoms hide each other least, (n, 3): right, up, and toward the reader.

    Of many directions the one is taken whose picture has the largest least distance between two atoms.
    """
    centered = positions - positions.mean(axis=0)
    turns = np.linalg.qr(np.random.default_rng(0).normal(size=(N_VIEWS, 3, 3)))[0]
    seen = [centered @ view.T for view in (np.linalg.svd(centered)[2], *turns)]
    best = seen[int(np.argmax([_least_distance(one[:, :2]) for one in seen]))]
    turn = np.linalg.svd(best[:, :2] - best[:, :2].mean(axis=0))[2]
    return np.column_stack([best[:, :2] @ turn.T, best[:, 2]])


def _least_distance(at: NDArray[np.float64]) -> float:
    apart = np.linalg.norm(at[:, None] - at[None], axis=2)
    return float(apart[np.triu_indices(len(at), 1)].min(initial=np.inf))


def draw_molecule(
    figure: Figure, structures: StructureSet, layers: NDArray[np.float64], sums: Estimate
) -> None:
    """Draw one structure once per layer, atoms colored by what the layer adds to them.

    Args:
        figure: empty, within `plots.figure_style`.
        structures: exactly one.
        layers: eps_i^(l), (n_layers, n_atoms), eV.
        sums: of each layer over the atoms, (n_layers,), eV.
    """
    n_layers = len(layers)
    columns = min(4, n_layers)
    rows = -(-n_layers // columns)
    at = plane(structures.positions)
    pairs = np.argwhere(np.triu(bonded(structures, 0)))
    reach = float(np.abs(layers).max()) or 1.0
    norm = Normalize(-reach, reach)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for layer, (name, axes) in enumerate(zip(layer_names(n_layers), panels, strict=False)):
        _draw_atoms(axes, structures, at, pairs, layers[layer], norm)
        std = "" if sums.rigidity is None else f" ± {sums.rigidity[layer]:.2f}"
        axes.set_title(f"{name}: {sums.value[layer]:+.2f}{std} eV", fontsize=7.5)
    bar = figure.colorbar(
        ScalarMappable(norm, DIVERGING), ax=list(panels), shrink=0.6, aspect=25, pad=0.01
    )
    bar.set_label("layer energy of an atom (eV)", fontsize=7)
    bar.ax.tick_params(labelsize=6.5)


def _draw_atoms(
    axes: Any,
    structures: StructureSet,
    at: NDArray[np.float64],
    pairs: NDArray[np.int64],
    energies: NDArray[np.float64],
    norm: Normalize,
) -> None:
    for i, j in pairs:
        axes.plot(*at[[i, j], :2].T, color="0.55", linewidth=1.5, zorder=1)
    order = np.argsort(at[:, 2])  # the nearest last, on top
    radii = covalent_radii[structures.atomic_numbers]
    axes.scatter(
        *at[order, :2].T,
        s=260 * radii[order] ** 2,
        c=energies[order],
        cmap=DIVERGING,
        norm=norm,
        edgecolors="0.35",
        linewidths=0.5,
        zorder=2,
    )
    for k, z in enumerate(structures.atomic_numbers):
        strong = abs(float(norm(energies[k])) - 0.5) > 0.33
        axes.text(
            *at[k, :2],
            symbol(int(z)),
            ha="center",
            va="center",
            fontsize=5.5,
            color="white" if strong else plots.ON_PALE,
            zorder=3,
        )
    axes.set_aspect("equal")
    axes.margins(0.1)
