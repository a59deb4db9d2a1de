"""What a model has learned about pairs: filters per block, energies of two atoms, and repulsion at short range.

Filters W^(l)(d) fc(d) are those of arXiv:1706.08566, per channel a function of the distance alone. The pair
energy of two elements is that of two lone atoms, E(Z, Z'; d) - E(Z) - E(Z'). A model has no reason to
push atoms apart below the shortest distance it was trained on; `squeeze` tries it out where it matters,
inside a training structure. Pair energies and squeezing are ours, not the paper's.
"""

import os
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scschnet.analysis import plots
from scschnet.analysis.tables import table_beside, write_table
from scschnet.data import StructureSet
from scschnet.elements import symbol
from scschnet.evaluate import check_elements, energies_of
from scschnet.neighbors import batch_neighbor_list
from scschnet.nn import SchNet

N_COMPONENTS = 3
SQUEEZE_TO = 0.5  # of the shortest distance trained on
CHUNK = 2000  # structures looked through at a time


@dataclass(frozen=True, eq=False)
class FilterSummary:
    """Filters of every block on a grid of distances.

    Args:
        distance: (n_points,), Å.
        quantiles: 5, 25, 50, 75 and 95 % over channels, (n_blocks, 5, n_points).
        components: first principal components of the channels' curves (their mean taken off), each
            times its standard deviation, (n_blocks, 3, n_points).
        explained: share of the variance each component holds, (n_blocks, 3).
    """

    distance: NDArray[np.float64]
    quantiles: NDArray[np.float64]
    components: NDArray[np.float64]
    explained: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairRange:
    """What is known, and what the model does, below the shortest distance of two elements.

    Args:
        elements: atomic numbers, ascending.
        shortest: distance in the training structures, Å.
        distance: of the two atoms as they are pressed together inside that structure, falling from
            `shortest` to half of it, (n_points,), Å.
        energy: of the whole structure, relative to where it was, (n_points,), eV.
    """

    elements: tuple[int, int]
    shortest: float
    distance: NDArray[np.float64]
    energy: NDArray[np.float64]

    @property
    def repels_to(self) -> float:
        """Distance down to which the energy rises all the way, Å; `shortest` if it does not rise at all."""
        falls = np.flatnonzero(np.diff(self.energy) <= 0)
        return float(self.distance[falls[0]] if len(falls) else self.distance[-1])

    @property
    def repels(self) -> bool:
        """Whether the energy rises all the way down to half the shortest distance."""
        return self.repels_to <= float(self.distance[-1])


@dataclass(frozen=True, eq=False)
class PairEnergies:
    """Energies of two lone atoms, less those of each alone.

    Args:
        distance: (n_points,), Å.
        energy: elements, ascending, to (n_points,) eV.
    """

    distance: NDArray[np.float64]
    energy: dict[tuple[int, int], NDArray[np.float64]]


def filter_curves(model: SchNet, distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """W^(l)(d) fc(d) of every block and channel, (n_blocks, n_points, n_filters), no unit.

    Args:
        model: the model.
        distance: (n_points,), Å.
    """
    d = torch.from_numpy(np.asarray(distance, dtype=np.float64))
    config, dtype = model.config, model.embedding.weight.dtype
    if not model.interactions:
        return np.zeros((0, len(d), config.n_features))
    envelope = model.cutoff_function(d)[:, None]
    rbf = model.radial_basis(d).to(dtype)
    with torch.no_grad():
        curves = [b.filter_generator(rbf).double() * envelope for b in model.interactions]  # type: ignore[operator]
    return torch.stack(curves).numpy()


def summarize_filters(model: SchNet, n_points: int = 200) -> FilterSummary:
    """Quantiles over channels and principal components of each block's filters, up to the cutoff or 8 Å.

    Args:
        model: the model.
        n_points: of the grid.
    """
    distance = np.linspace(0.0, min(model.config.cutoff, 8.0), n_points)
    curves = filter_curves(model, distance)
    n_blocks = len(curves)
    quantiles = np.zeros((n_blocks, 5, n_points))
    components = np.zeros((n_blocks, N_COMPONENTS, n_points))
    explained = np.zeros((n_blocks, N_COMPONENTS))
    for block, curve in enumerate(curves):
        quantiles[block] = np.quantile(curve, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1)
        centered = (curve - curve.mean(axis=1, keepdims=True)) / np.sqrt(curve.shape[1])
        u, s, _ = np.linalg.svd(centered, full_matrices=False)
        n = min(N_COMPONENTS, len(s))
        signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])[:n]
        components[block, :n] = (u[:, :n] * s[:n] * signs).T
        explained[block, :n] = s[:n] ** 2 / max(float((s**2).sum()), 1e-300)
    return FilterSummary(distance, quantiles, components, explained)


def pair_energies(model: SchNet, distance: NDArray[np.float64] | None = None) -> PairEnergies:
    """Energy of two lone atoms less that of each alone, for every two elements of the model.

    Args:
        model: the model.
        distance: (n_points,), Å, positive; None: from 0.5 Å to the cutoff, at most 8 Å.

    Raises:
        ValueError: if a distance is not positive.
    """
    if distance is None:
        distance = np.linspace(0.5, max(0.6, min(model.config.cutoff, 8.0)), 100)
    if not (distance > 0).all():
        raise ValueError(f"`distance` must be positive, got {distance.min()}")
    alone = {z: _energies(model, np.zeros((1, 1, 3)), [z])[0] for z in model.config.elements}
    found = {}
    for a, b in combinations_with_replacement(model.config.elements, 2):
        positions = np.zeros((len(distance), 2, 3))
        positions[:, 1, 0] = distance
        found[a, b] = _energies(model, positions, [a, b]) - alone[a] - alone[b]
    return PairEnergies(distance, found)


def _energies(
    model: SchNet, positions: NDArray[np.float64], numbers: list[int]
) -> NDArray[np.float64]:
    """Energies of open structures of the same atoms, positions (n_structures, n, 3)."""
    n_structures, n = positions.shape[:2]
    structures = StructureSet(
        positions.reshape(-1, 3), np.tile(numbers, n_structures), n * np.arange(n_structures + 1)
    )
    return energies_of(model, structures)


def shortest_pairs(structures: StructureSet) -> dict[tuple[int, int], tuple[float, int, int, int]]:
    """The nearest two atoms of every two elements.

    Pairs of an atom with its own images do not count.

    Returns:
        Elements, ascending, to distance (Å), structure, and the two atoms' places in the set.
    """
    found: dict[tuple[int, int], tuple[float, int, int, int]] = {}
    for start in range(0, len(structures), CHUNK):
        part = structures.select(np.arange(start, min(start + CHUNK, len(structures))))
        pairs = batch_neighbor_list(part.positions, part.atom_ptr, 3.0, part.cells, part.pbc)
        i, j = pairs.idx_i, pairs.idx_j
        shift = np.einsum("pa,pab->pb", pairs.shifts, part.cells[part.idx_m[i]])
        d_ij = np.linalg.norm(part.positions[j] - part.positions[i] + shift, axis=1)
        numbers = part.atomic_numbers
        first = structures.atom_ptr[start]
        for a, b in combinations_with_replacement(structures.elements.tolist(), 2):
            of = np.flatnonzero((numbers[i] == a) & (numbers[j] == b) & (i != j))
            if not len(of):
                continue
            k = of[d_ij[of].argmin()]
            if d_ij[k] < found.get((a, b), (np.inf,))[0]:
                places = (int(first + i[k]), int(first + j[k]))
                found[a, b] = (float(d_ij[k]), start + int(part.idx_m[i[k]]), *places)
    return found


def squeeze(model: SchNet, structures: StructureSet, n_points: int = 26) -> list[PairRange]:
    """Press the nearest two atoms of every two elements together, all others at rest.

    Both move along their line until they are at half their distance; bound or not, energies should rise.

    Args:
        model: the model.
        structures: those it was trained on.
        n_points: of every curve.

    Raises:
        ValueError: if the model does not know an element.
    """
    check_elements(model, structures)
    found = []
    for elements, (shortest, m, i, j) in shortest_pairs(structures).items():
        fractions = np.linspace(1.0, SQUEEZE_TO, n_points)
        moved = along_a_pair(structures, m, i, j, fractions)
        energy = energies_of(model, moved)
        found.append(PairRange(elements, shortest, shortest * fractions, energy - energy[0]))
    return found


def along_a_pair(
    structures: StructureSet, m: int, i: int, j: int, fractions: NDArray[np.float64]
) -> StructureSet:
    """A structure with two of its atoms at several distances, all others at rest; both move along their line.

    Args:
        structures: the set.
        m: the structure.
        i: one atom, counted in the whole set.
        j: the other; of its images the nearest one counts.
        fractions: of the distance, (n_points,).

    Returns:
        The structures, without labels.
    """
    part = structures.select(np.full(len(fractions), m))
    first = structures.atom_ptr[m]
    positions = part.positions.reshape(len(fractions), -1, 3).copy()
    by = 0.5 * (1.0 - fractions)[:, None] * nearest_vector(structures, m, i, j)
    positions[:, i - first] += by
    positions[:, j - first] -= by
    return replace(part, positions=positions.reshape(-1, 3), energy=None, forces=None, stress=None)


def nearest_vector(structures: StructureSet, m: int, i: int, j: int) -> NDArray[np.float64]:
    """From atom i to the nearest image of atom j, (3,), Å."""
    way = structures.positions[j] - structures.positions[i]
    cell, pbc = structures.cells[m], structures.pbc[m]
    if not pbc.any():
        return way
    fractional = np.linalg.lstsq(cell[pbc].T, way, rcond=None)[0]
    way = way - np.round(fractional) @ cell[pbc]
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * int(pbc.sum()), indexing="ij"), -1)
    images = way + shifts.reshape(-1, int(pbc.sum())) @ cell[pbc]
    return images[np.linalg.norm(images, axis=1).argmin()]


def plot_filters(
    summary: FilterSummary,
    ranges: list[PairRange],
    pairs: PairEnergies,
    path: str | os.PathLike[str],
) -> Path:
    """Draw the filters of every block, squeezed and lone pairs, and write all as CSV beside the figure.

    Args:
        summary: of the filters.
        ranges: from `squeeze`.
        pairs: from `pair_energies`.
        path: figure to write; the CSV beside it holds the filters, those with -squeezed and -pairs the rest.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    n_blocks = len(summary.quantiles)
    rows = -(-(n_blocks + 2) // 3)
    with plots.figure_style():
        figure = plots.new_figure(2 * plots.COLUMN_WIDTH, 4.6 * rows)
        panels = figure.subplots(rows, 3, squeeze=False).ravel()
        for block, axes in enumerate(panels[:n_blocks]):
            draw_filter(axes, summary, block)
        draw_squeezed(panels[n_blocks], ranges)
        draw_pair_energies(panels[n_blocks + 1], pairs)
        for axes in panels[n_blocks + 2 :]:
            axes.set_axis_off()
        plots.save_figure(figure, path)
    write_filters(table_beside(path), summary)
    write_squeezed(Path(path).with_name(f"{Path(path).stem}-squeezed.csv"), ranges)
    write_pair_energies(Path(path).with_name(f"{Path(path).stem}-pairs.csv"), pairs)
    return Path(path)


def draw_filter(axes: Any, summary: FilterSummary, block: int) -> None:
    """Median and bands over channels, and the first principal component."""
    d, q = summary.distance, summary.quantiles[block]
    color = plots.layer_colors(len(summary.quantiles) + 1)[block + 1]
    axes.fill_between(d, q[0], q[4], color=color, alpha=0.15, linewidth=0)
    axes.fill_between(d, q[1], q[3], color=color, alpha=0.3, linewidth=0)
    axes.plot(d, q[2], color=color, label="median")
    axes.plot(d, summary.components[block, 0], color="0.5", linestyle=(0, (4, 1.5)), linewidth=0.9)
    axes.axhline(0.0, color="0.6", linewidth=0.5, zorder=0)
    axes.set_xlim(0, d[-1])
    axes.set_title(
        f"block {block + 1}; first component {100 * summary.explained[block, 0]:.0f} %",
        fontsize=6.5,
        loc="left",
    )
    axes.set_xlabel("distance (Å)")


def draw_squeezed(axes: Any, ranges: list[PairRange]) -> None:
    """Energy of a structure as its nearest two atoms are pressed together."""
    for one, color in zip(ranges, plots.layer_colors(len(ranges) + 1)[1:], strict=True):
        name = "-".join(symbol(z) for z in one.elements)
        axes.plot(one.distance / one.shortest, one.energy, color=color, label=name)
    axes.axhline(0.0, color="0.6", linewidth=0.5, zorder=0)
    axes.set_xlim(1.0, SQUEEZE_TO)
    axes.set_yscale("symlog", linthresh=1.0)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("distance / shortest trained on")
    axes.set_ylabel("energy (eV)")
    if ranges:
        plots.legend_above(axes, len(ranges))


def draw_pair_energies(axes: Any, pairs: PairEnergies) -> None:
    """Energies of two lone atoms against distance; beyond ten pairs without a legend."""
    highest = 0.0
    for (a, b), color in zip(
        pairs.energy, plots.layer_colors(len(pairs.energy) + 1)[1:], strict=True
    ):
        energy = pairs.energy[a, b]
        axes.plot(pairs.distance, energy, color=color, label=f"{symbol(a)}-{symbol(b)}")
        highest = max(highest, float(np.abs(energy[pairs.distance > 1.0]).max(initial=0.1)))
    axes.axhline(0.0, color="0.6", linewidth=0.5, zorder=0)
    axes.set_ylim(-1.1 * highest, 1.5 * highest)
    axes.set_xlim(0.0, pairs.distance[-1])
    axes.set_xlabel("distance (Å)")
    axes.set_ylabel("energy of two lone atoms (eV)")
    plots.legend_above(axes, len(pairs.energy))


def write_pair_energies(path: str | os.PathLike[str], pairs: PairEnergies) -> Path:
    """Write energies of two lone atoms as CSV, a column per pair of elements."""
    names = [f"{symbol(a)}-{symbol(b)} (eV)" for a, b in pairs.energy]
    rows = ([d, *(e[k] for e in pairs.energy.values())] for k, d in enumerate(pairs.distance))
    return write_table(path, ["distance (Å)", *names], rows)


def write_filters(path: str | os.PathLike[str], summary: FilterSummary) -> Path:
    """Write quantiles and components of the filters as CSV, a row per block and distance."""
    columns = ["block", "distance (Å)", "q05", "q25", "median", "q75", "q95", "pc1", "pc2", "pc3"]
    rows = (
        [block + 1, d, *summary.quantiles[block, :, k], *summary.components[block, :, k]]
        for block in range(len(summary.quantiles))
        for k, d in enumerate(summary.distance)
    )
    return write_table(path, columns, rows)


def write_squeezed(path: str | os.PathLike[str], ranges: list[PairRange]) -> Path:
    """Write the energies of the squeezed pairs as CSV."""
    columns = ["pair", "shortest trained on (Å)", "repels to (Å)", "distance (Å)", "energy (eV)"]
    rows = (
        ["-".join(symbol(z) for z in one.elements), one.shortest, one.repels_to, d, e]
        for one in ranges
        for d, e in zip(one.distance, one.energy, strict=True)
    )
    return write_table(path, columns, rows)
