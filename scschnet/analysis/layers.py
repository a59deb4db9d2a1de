"""Energies and forces of the layers: what each block adds to every atom, exact.

Readout with one hidden layer, g(x) = c . ssp(C x + b) + d, at x_i^out = sum_l w^(l) v_i^(l):

    eps_i^(l) = integral over a in [0, 1] of  grad g(a x_i^out) . w^(l) v_i^(l)  da

so that sum_l eps_i^(l) = g(x_i^out) - g(0): the Aumann-Shapley value of layer l (Aumann and Shapley 1974; as
"integrated gradients" Sundararajan et al. 2017, arXiv:1703.01365). With p = C x_i^out the integral is closed:

    s_k = (ssp(p_k + b_k) - ssp(b_k)) / p_k      (the sigmoid of b_k as p_k -> 0)
    eps_i^(l) = sum_k c_k s_k (C w^(l) v_i^(l))_k

Splitting SchNet's energy this way is ours, not the paper's. How firmly the training set holds these energies:
scschnet.analysis.rigidity.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet.analysis import plots
from scschnet.analysis.rigidity import Estimate, deviations, estimate
from scschnet.analysis.tables import table_beside, write_table
from scschnet.data import StructureSet
from scschnet.elements import symbol
from scschnet.evaluate.corrections import batches, corrections, forces_of, pair_energies, projected
from scschnet.nn import SchNet
from scschnet.nn.activation import shifted_softplus
from scschnet.runs.contributions import layer_names

SHORT = 1.0  # paths up to this length are integrated by quadrature, longer ones in closed form
NODES, WEIGHTS = np.polynomial.legendre.leggauss(9)  # error below 1e-16 for paths up to SHORT


@dataclass(frozen=True, eq=False)
class LayerEnergies:
    """Energies of atoms, split over the layers: energies = base + layers.sum(axis=0).

    Args:
        base: scale g(0) + shift + atomref, the energy at zero features, and what the pair term adds,
            (n_atoms,), eV.
        pair: the part of `base` that is the pair term's, (n_atoms,), eV; None if the model has none.
        layers: (n_layers, n_atoms), eV; layer 0 is the embedding.
        forces: the same split of the forces, -d/dr of the sum over atoms of each layer's energies,
            (n_layers, n_atoms, 3), eV/Å; None if not asked for.
        pair_forces: the pair term's, (n_atoms, 3), eV/Å: with it the split sums to the forces; None likewise.
        deviations: of the energies of layers, see scschnet.analysis.rigidity, (n_layers, n_atoms, n_features), eV;
            None without error bars.
    """

    base: NDArray[np.float64]
    pair: NDArray[np.float64] | None
    layers: NDArray[np.float64]
    forces: NDArray[np.float64] | None
    pair_forces: NDArray[np.float64] | None
    deviations: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class ElementMeans:
    """Layer energies of the elements.

    Args:
        names: symbols.
        layers: means over atoms, (n_elements, n_layers), eV.
        sums: of all layers, (n_elements, 1), eV: what an atom's energy is above that at zero features.
        std_atoms: standard deviation over atoms of `layers`, (n_elements, n_layers), eV.
    """

    names: list[str]
    layers: Estimate
    sums: Estimate
    std_atoms: NDArray[np.float64]


def layer_energies(
    model: SchNet,
    structures: StructureSet,
    forces: bool = False,
    energy_root: NDArray[np.float64] | None = None,
) -> LayerEnergies:
    """Split the energy of every atom, and if asked for the forces, over the layers.

    Args:
        model: in float64 the split is complete to rounding (1e-15), in float32 to 1e-6.
        structures: the set.
        forces: whether to split the forces: one backward pass per layer.
        energy_root: R of scschnet.analysis.rigidity, (n_features, n_features), eV, or None.

    Raises:
        ValueError: if the model does not know an element.
    """
    n_layers, n_features = model.config.n_interactions + 1, model.config.n_features
    bases, pairs, of_pairs = [np.zeros(0)], [np.zeros(0)], [np.zeros((0, 3))]
    layers, split = [np.zeros((n_layers, 0))], [np.zeros((n_layers, 0, 3))]
    away = [np.zeros((n_layers, 0, n_features))]
    for batch in batches(model, structures):
        found = corrections(model, batch, derivatives=forces)
        with torch.set_grad_enabled(forces):
            shares = layer_shares(model, found.layers)
            of_pair = pair_energies(model, batch.atomic_numbers, found)
        pairs.append(of_pair.detach().numpy())
        bases.append(base_energies(model, batch.atomic_numbers).numpy() + pairs[-1])
        layers.append(shares.detach().numpy())
        if energy_root is not None:
            away.append(deviations(model, found.layers, energy_root).numpy())
        if forces:
            parts = [forces_of(share.sum(), found) for share in shares]
            split.append(torch.stack(parts).numpy())
            of_pairs.append(forces_of(of_pair.sum(), found).numpy())
    return LayerEnergies(
        np.concatenate(bases),
        np.concatenate(pairs) if model.pair_term is not None else None,
        np.concatenate(layers, axis=1),
        np.concatenate(split, axis=1) if forces else None,
        np.concatenate(of_pairs) if forces else None,
        np.concatenate(away, axis=1) if energy_root is not None else None,
    )


def layer_shares(model: SchNet, layers: list[Tensor]) -> Tensor:
    """Energies of the layers by the closed form at the head of this file.

    Args:
        model: the model.
        layers: v^(0) to v^(L), each (n_atoms, n_features).

    Returns:
        eps_i^(l) scale, (n_layers, n_atoms), eV, differentiable in `layers`.
    """
    hidden, output = model.readout.hidden, model.readout.output
    parts = projected(model, layers)
    slopes = mean_sigmoid(parts.sum(dim=0), hidden.bias)
    return (parts * (slopes * output.weight[0])).sum(dim=2).double() * model.offsets.scale


def mean_sigmoid(p: Tensor, b: Tensor) -> Tensor:
    """Mean of the sigmoid on the way from b to b + p, (ssp(p + b) - ssp(b)) / p.

    Short ways are integrated with nine Gauss-Legendre nodes, where the quotient would lose digits.

    Args:
        p: (n_atoms, n_hidden).
        b: (n_hidden,).

    Returns:
        (n_atoms, n_hidden), differentiable in both.
    """
    nodes = torch.from_numpy(0.5 * (NODES + 1.0)).to(p.dtype)
    weights = torch.from_numpy(0.5 * WEIGHTS).to(p.dtype)
    short = p.abs() < SHORT
    near = torch.where(short, p, torch.zeros_like(p))
    far = torch.where(short, torch.ones_like(p), p)
    quadrature = sum(w * torch.sigmoid(b + a * near) for a, w in zip(nodes, weights, strict=True))
    quotient = (shifted_softplus(far + b) - shifted_softplus(b)) / far
    return torch.where(short, quadrature, quotient)


def base_energies(model: SchNet, atomic_numbers: Tensor) -> Tensor:
    """Energy of each atom at zero features, scale g(0) + shift + atomref, (n_atoms,) float64, eV."""
    zero = model.readout.hidden.weight.new_zeros((1, model.config.n_features))
    with torch.no_grad():
        g = model.readout(zero).expand(len(atomic_numbers))
        return model.offsets(g, atomic_numbers)


def completeness(model: SchNet, structures: StructureSet) -> float:
    """How far base plus layers are from the model's own energies of atoms, relative to what the layers add.

    Returns:
        max_i |base_i + sum_l eps_i^(l) - E_i| / max_i |E_i - base_i|.

    Raises:
        ValueError: if the model does not know an element.
    """
    found = layer_energies(model, structures)
    parts = [np.zeros(0)]
    for batch in batches(model, structures):
        with torch.no_grad():
            parts.append(model(**batch.inputs, forces=False)["energies"].numpy())
    energies = np.concatenate(parts)
    missing = np.abs(found.base + found.layers.sum(axis=0) - energies)
    size = float(np.abs(energies - found.base).max(initial=0.0)) or 1.0
    return float(missing.max(initial=0.0)) / size


def mean_over_runs(found: Sequence[LayerEnergies]) -> LayerEnergies:
    """Means of the energies and forces of the same atoms over runs; deviations have no mean and are left out.

    Args:
        found: of each run, at least one, of models alike.
    """

    def mean(name: str) -> Any:
        values = [getattr(one, name) for one in found]
        return None if values[0] is None else np.mean(values, axis=0)

    return LayerEnergies(*map(mean, ("base", "pair", "layers", "forces", "pair_forces")))


def atom_energies(found: Sequence[LayerEnergies]) -> Estimate:
    """Energies of the atoms, with how sure they are, (n_atoms,), eV.

    Args:
        found: of each run.
    """
    return estimate(
        [one.base + one.layers.sum(axis=0) for one in found],
        [None if one.deviations is None else one.deviations.sum(axis=0) for one in found],
    )


def element_means(found: Sequence[LayerEnergies], structures: StructureSet) -> ElementMeans:
    """Mean layer energies of the atoms of each element, with how sure they are.

    Args:
        found: of each run.
        structures: whose energies they are.
    """
    groups = [structures.atomic_numbers == z for z in structures.elements]
    means = [np.stack([one.layers[:, k].mean(axis=1) for k in groups]) for one in found]
    away = [
        None
        if one.deviations is None
        else np.stack([one.deviations[:, k].mean(axis=1) for k in groups])
        for one in found
    ]
    return ElementMeans(
        [symbol(int(z)) for z in structures.elements],
        estimate(means, away),
        estimate(
            [one.sum(axis=1, keepdims=True) for one in means],
            [None if one is None else one.sum(axis=1, keepdims=True) for one in away],
        ),
        np.stack([mean_over_runs(found).layers[:, k].std(axis=1) for k in groups]),
    )


def plot_element_energies(
    found: Sequence[LayerEnergies], structures: StructureSet, path: str | os.PathLike[str]
) -> Path:
    """Draw the layer energies of each element, with a CSV of all atoms beside it.

    Args:
        found: of each run.
        structures: whose energies they are.
        path: figure to write.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    with plots.figure_style():
        figure = plots.new_figure()
        draw_element_energies(figure.add_subplot(), element_means(found, structures))
        plots.save_figure(figure, path)
    write_layer_energies(table_beside(path), found, structures)
    return Path(path)


def draw_element_energies(axes: Any, means: ElementMeans) -> None:
    """A bar per element and layer: mean over atoms, with whiskers of one standard deviation each.

    In the middle: over atoms; left, with caps: of the mean, from rigidity; right, with caps, dashed: of it over runs.
    """
    mean = means.layers.value
    n_layers = mean.shape[1]
    width = 0.8 / n_layers
    for layer, color in enumerate(plots.layer_colors(n_layers)):
        x = np.arange(len(mean)) + (layer - (n_layers - 1) / 2) * width
        axes.bar(x, mean[:, layer], 0.9 * width, color=color, label=f"v{layer}")
        whiskers = {"fmt": "none", "ecolor": "0.5", "elinewidth": 0.8}
        axes.errorbar(x, mean[:, layer], means.std_atoms[:, layer], **whiskers)
        whiskers |= {"capsize": 1.5, "capthick": 0.8}
        if means.layers.rigidity is not None:
            axes.errorbar(
                x - width / 4, mean[:, layer], means.layers.rigidity[:, layer], **whiskers
            )
        if means.layers.spread is not None:
            *_, (line,) = axes.errorbar(
                x + width / 4, mean[:, layer], means.layers.spread[:, layer], **whiskers
            )
            line.set_linestyle("--")
    axes.axhline(0.0, color="0.5", linewidth=0.6)
    axes.set_xticks(range(len(mean)), means.names)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel(whiskers_in_words(means.layers), fontsize=6.5)
    axes.set_ylabel("layer energy per atom (eV)")
    plots.legend_above(axes, n_layers)


def whiskers_in_words(shown: Estimate) -> str:
    """What the whiskers of `draw_element_energies` are."""
    words = ["whiskers: standard deviation over atoms"]
    if shown.rigidity is not None:
        words.append("left: of the mean, from rigidity")
    if shown.spread is not None:
        words.append("right, dashed: of the mean, over runs")
    return ";\n".join(words)


def write_layer_energies(
    path: str | os.PathLike[str], found: Sequence[LayerEnergies], structures: StructureSet
) -> Path:
    """Write base, layer and whole energies of every atom as CSV, means over runs, with what else there is.

    That is the forces per layer, the pair term, and standard deviations from rigidity and over runs.

    Args:
        path: file to write.
        found: of each run.
        structures: whose energies they are.
    """
    mean = mean_over_runs(found)
    names = layer_names(len(mean.layers))
    columns = [f"{name} (eV)" for name in ("base", *names)]
    values = [mean.base, *mean.layers]
    if mean.forces is not None:
        columns += [f"{n} F{c} (eV/Å)" for n in names for c in "xyz"]
        values += list(mean.forces.transpose(0, 2, 1).reshape(-1, len(mean.base)))
    if mean.pair is not None:
        columns += ["pair term, in base (eV)"]
        values += [mean.pair]
    if mean.pair is not None and mean.pair_forces is not None:
        columns += [f"pair term F{c} (eV/Å)" for c in "xyz"]
        values += list(mean.pair_forces.T)
    whole = atom_energies(found)
    layers = estimate([one.layers for one in found], [one.deviations for one in found])
    columns += ["energy (eV)"]
    values += [whole.value]
    for what, of_whole, of_layers in (
        ("std from rigidity", whole.rigidity, layers.rigidity),
        ("std over runs", whole.spread, layers.spread),
    ):
        if of_whole is not None and of_layers is not None:
            columns += [f"{name} {what} (eV)" for name in ("energy", *names)]
            values += [of_whole, *of_layers]
    idx_m = structures.idx_m
    rows = [
        [m, i - structures.atom_ptr[m], symbol(structures.atomic_numbers[i]), *numbers]
        for i, (m, numbers) in enumerate(zip(idx_m, np.stack(values, axis=1), strict=True))
    ]
    return write_table(path, ["structure", "atom", "element", *columns], rows)
