"""Is a large weight an important block? Ablation and Shapley values of the layers.

A coalition S is a set of layers that are read out: x_i^S = sum over l in S of w^(l) v_i^(l), all corrections
computed as ever (message passing is not touched). Of the value v(S) of all 2^(L+1) coalitions the Shapley value

    phi_l = sum over S without l of  |S|! (n - |S| - 1)! / n!  [v(S + l) - v(S)],   n = L + 1

shares v(all) - v(none) fairly among the layers (Shapley 1953). Here v is minus an error, so that phi_l is how
much layer l brings the error down. Applying it to SchNet's blocks is ours, not the paper's.

A missing layer also shifts all energies by a constant per element, which says nothing about geometry and which
any refit of the reference energies takes away. So the energy error of a coalition is that after a least squares
fit of one energy per element to what is left (`refitted`); the raw one is there, too.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import factorial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet.analysis import plots
from scschnet.analysis.tables import table_beside, write_table
from scschnet.data import StructureSet
from scschnet.evaluate.corrections import batches, corrections, forces_of, pair_energies, projected
from scschnet.nn import SchNet
from scschnet.nn.activation import shifted_softplus
from scschnet.runs.contributions import layer_names

MOST_LAYERS = 13
"""2^13 coalitions take a minute or so; more layers are refused."""
COLUMNS = (
    "quantity",
    "unit",
    "layer",
    "shapley",
    "shapley_se",
    "left_out",
    "left_out_se",
    "alone",
    "normalized_weight",
)

Quantity = Literal["energy", "energy, not refitted", "forces"]


@dataclass(frozen=True, eq=False)
class Importance:
    """What each layer does to a mean absolute error.

    Standard errors are over frames: standard deviation / sqrt(n_frames); NaN for a single frame.

    Args:
        quantity: what is wrong by so much.
        unit: eV or eV/Å.
        errors: mean absolute error of each coalition, (2^n_layers,); bit l of the index says whether
            layer l is read out.
        shapley: reduction of the error by each layer, (n_layers,); sums to errors[0] - errors[-1].
        shapley_se: its standard error over frames.
        left_out: rise of the error when one layer is left out of all, (n_layers,).
        left_out_se: its standard error over frames.
        alone: error with nothing but that layer, (n_layers,).
        n_frames: number of frames.
    """

    quantity: Quantity
    unit: str
    errors: NDArray[np.float64]
    shapley: NDArray[np.float64]
    shapley_se: NDArray[np.float64]
    left_out: NDArray[np.float64]
    left_out_se: NDArray[np.float64]
    alone: NDArray[np.float64]
    n_frames: int


def coalitions(n_layers: int) -> NDArray[np.bool_]:
    """Which layers each coalition reads out, (2^n_layers, n_layers): bit l of the row's number.

    Raises:
        ValueError: if there are more than 13 layers.
    """
    if not 1 <= n_layers <= MOST_LAYERS:
        raise ValueError(
            f"`n_layers` must lie between 1 and {MOST_LAYERS} (every layer doubles the coalitions), "
            f"got {n_layers}"
        )
    return ((np.arange(2**n_layers)[:, None] >> np.arange(n_layers)) & 1).astype(bool)


def coalition_energies(model: SchNet, structures: StructureSet) -> NDArray[np.float64]:
    """Energy of every structure in every coalition, (2^n_layers, n_structures), eV.

    Corrections are computed once; coalitions differ in the readout alone.

    Raises:
        ValueError: if the model does not know an element, or has more than 12 blocks.
    """
    members = torch.from_numpy(coalitions(model.config.n_interactions + 1))
    parts = [np.zeros((len(members), 0))]
    for batch in batches(model, structures):
        with torch.no_grad():
            found = corrections(model, batch)
            hidden = projected(model, found.layers)
            of_pair = pair_energies(model, batch.atomic_numbers, found)  # in every coalition
            energies = of_pair + torch.stack(
                [model.offsets(_read_out(model, hidden, s), batch.atomic_numbers) for s in members]
            )
        totals = energies.new_zeros((len(members), len(batch)))
        parts.append(totals.index_add(1, batch.idx_m, energies).numpy())
    return np.concatenate(parts, axis=1)


def coalition_forces(model: SchNet, structures: StructureSet) -> NDArray[np.float64]:
    """Forces on every atom in every coalition, (2^n_layers, n_atoms, 3), eV/Å: a backward pass each.

    Raises:
        ValueError: if the model does not know an element, or has more than 12 blocks.
    """
    members = torch.from_numpy(coalitions(model.config.n_interactions + 1))
    parts = [np.zeros((len(members), 0, 3))]
    for batch in batches(model, structures):
        found = corrections(model, batch, derivatives=True)
        with torch.enable_grad():
            hidden = projected(model, found.layers)
            of_pair = pair_energies(model, batch.atomic_numbers, found).sum()
            readouts = [_read_out(model, hidden, s) * model.offsets.scale for s in members]
            sums = [readout.sum() + of_pair for readout in readouts]
        parts.append(torch.stack([forces_of(total, found) for total in sums]).numpy())
    return np.concatenate(parts, axis=1)


def _read_out(model: SchNet, hidden: Tensor, members: Tensor) -> Tensor:
    """g(x^S) from what each layer adds to the hidden layer of the readout."""
    inner = hidden[members].sum(dim=0) + model.readout.hidden.bias
    return model.readout.output(shifted_softplus(inner)).squeeze(1)


def shapley_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shapley values of the players of a game.

    Args:
        values: v of every coalition, (2^n, ...); bit l of the index says whether player l is in.

    Returns:
        (n, ...), summing to values[-1] - values[0].

    Raises:
        ValueError: if the number of coalitions is no power of two.
    """
    n = len(values).bit_length() - 1
    if len(values) != 2**n:
        raise ValueError(f"`values` must hold 2^n coalitions, got {len(values)}")
    index = np.arange(2**n)
    sizes = np.bitwise_count(index)
    weights = np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])
    result = np.zeros((n, *values.shape[1:]))
    for player in range(n):
        without = index[(index >> player) & 1 == 0]
        gains = values[without | (1 << player)] - values[without]
        result[player] = np.tensordot(weights[sizes[without]], gains, axes=1)
    return result


def energy_importance(model: SchNet, structures: StructureSet, refitted: bool = True) -> Importance:
    """What each layer does to the mean absolute error of the energy per structure.

    Args:
        model: the model.
        structures: with energies.
        refitted: whether every coalition may fit one energy per element first.

    Raises:
        ValueError: if a structure has no energy, or the model does not know an element.
    """
    if structures.energy is None or not structures.labeled["energy"].all():
        raise ValueError("`structures` must all have an energy, got some without")
    residual = coalition_energies(model, structures) - structures.energy
    if refitted:
        residual = residual - _composition_fit(structures, residual)
    quantity: Quantity = "energy" if refitted else "energy, not refitted"
    return _importance(quantity, "eV", np.abs(residual))


def force_importance(model: SchNet, structures: StructureSet) -> Importance:
    """What each layer does to the mean absolute error of the force components.

    Args:
        model: the model.
        structures: with forces; every coalition is one backward pass over all of them.

    Raises:
        ValueError: if a structure has no forces, or the model does not know an element.
    """
    if structures.forces is None or not structures.labeled["forces"].all():
        raise ValueError("`structures` must all have forces, got some without")
    wrong = np.abs(coalition_forces(model, structures) - structures.forces).mean(axis=2)
    sums = np.add.reduceat(wrong, structures.atom_ptr[:-1], axis=1)
    return _importance("forces", "eV/Å", sums / structures.n_atoms)


def _composition_fit(
    structures: StructureSet, residual: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Least squares fit of one energy per element to each coalition's residual, (2^n, n_structures)."""
    columns = np.searchsorted(structures.elements, structures.atomic_numbers)
    composition = np.zeros((len(structures), len(structures.elements)))
    np.add.at(composition, (structures.idx_m, columns), 1.0)
    fit = np.linalg.lstsq(composition, residual.T, rcond=None)[0]
    return (composition @ fit).T


def _importance(quantity: Quantity, unit: str, errors: NDArray[np.float64]) -> Importance:
    """From the error of every coalition and frame, (2^n, n_frames)."""
    everything = len(errors) - 1
    n_frames = errors.shape[1]
    n_layers = everything.bit_length()
    shares = shapley_values(-errors)
    without = np.array([everything ^ (1 << layer) for layer in range(n_layers)])
    rise = errors[without] - errors[everything]
    alone = np.array([1 << layer for layer in range(n_layers)])
    return Importance(
        quantity,
        unit,
        errors.mean(axis=1),
        shares.mean(axis=1),
        _standard_error(shares),
        rise.mean(axis=1),
        _standard_error(rise),
        errors[alone].mean(axis=1),
        n_frames,
    )


def _standard_error(values: NDArray[np.float64]) -> NDArray[np.float64]:
    n = values.shape[1]
    if n < 2:
        return np.full(len(values), np.nan)
    return values.std(axis=1, ddof=1) / np.sqrt(n)


def disagreements(weights: NDArray[np.float64], found: Importance) -> list[tuple[int, int]]:
    """Pairs of layers that the weights put in one order and the Shapley values in the other.

    Only pairs whose Shapley values differ by more than two standard errors of their difference count
    (the errors added as if independent).

    Args:
        weights: normalized contribution weights, (n_layers,); their size is compared.
        found: what the layers do to an error.

    Returns:
        (heavier, more important) pairs of layers, clearest first.
    """
    heavy = np.abs(weights)
    noise = 2 * np.nan_to_num(np.hypot(found.shapley_se[:, None], found.shapley_se[None, :]))
    gain = found.shapley[None, :] - found.shapley[:, None]
    pairs = np.argwhere((heavy[:, None] > heavy[None, :]) & (gain > noise))
    return [(int(a), int(b)) for a, b in sorted(pairs, key=lambda pair: -gain[tuple(pair)])]


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's rank correlation; NaN where one has no order."""
    ranks = np.stack([_ranks(np.asarray(values)) for values in (a, b)])
    if len(a) < 2 or (ranks.std(axis=1) == 0).any():
        return float("nan")
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, equal values sharing the mean of theirs."""
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    starts = [0, *(np.flatnonzero(np.diff(values[order])) + 1), len(values)]
    for start, stop in pairwise(starts):
        ranks[order[start:stop]] = (start + stop - 1) / 2
    return ranks


def importance_rows(found: Sequence[Importance], weights: NDArray[np.float64]) -> list[list[Any]]:
    """Rows of the table: one per quantity and layer."""
    return [
        [
            one.quantity,
            one.unit,
            layer,
            *(values[layer] for values in (one.shapley, one.shapley_se)),
            *(values[layer] for values in (one.left_out, one.left_out_se, one.alone)),
            weights[layer],
        ]
        for one in found
        for layer in range(len(one.shapley))
    ]


def plot_importance(
    found: Sequence[Importance], weights: NDArray[np.float64], path: str | os.PathLike[str]
) -> Path:
    """Draw Shapley values beside the contribution weights, a panel per quantity, and write them as CSV.

    Args:
        found: of one model.
        weights: its normalized contribution weights, (n_layers,).
        path: figure to write.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg, or if `found` is empty.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    if not found:
        raise ValueError("`found` must hold at least one quantity, got none")
    with plots.figure_style():
        figure = plots.new_figure(plots.COLUMN_WIDTH * len(found), plots.HEIGHT)
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, one in zip(panels, found, strict=True):
            draw_importance(axes, one, weights)
        plots.save_figure(figure, path)
    write_table(table_beside(path), COLUMNS, importance_rows(found, weights))
    return Path(path)


def draw_importance(axes: Any, found: Importance, weights: NDArray[np.float64]) -> None:
    """Two bars per layer, each as a share of its sum: weight and Shapley value."""
    n_layers = len(weights)
    x = np.arange(n_layers)
    share = np.abs(weights) / (np.abs(weights).sum() or 1.0)
    total = np.abs(found.shapley).sum() or 1.0
    axes.bar(x - 0.2, 100 * share, 0.36, color="0.65", label="normalized weight")
    bars = axes.bar(x + 0.2, 100 * found.shapley / total, 0.36, color=plots.ACCENT)
    bars.set_label(f"Shapley value, {found.quantity}")
    errors = 100 * np.nan_to_num(found.shapley_se) / total
    axes.errorbar(x + 0.2, 100 * found.shapley / total, errors, fmt="none", ecolor="0.35")
    axes.axhline(0.0, color="0.5", linewidth=0.6)
    axes.set_xticks(x, layer_names(n_layers))
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("share of all layers (%)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=6.5)
