"""Energies and forces of the layers: what each block adds to every atom, exact.

Readout with one hidden layer, g(x) = c . ssp(C x + b) + d, at x_i^out = sum_l w^(l) v_i^(l):

    eps_i^(l) = integral over a in [0, 1] of  grad g(a x_i^out) . w^(l) v_i^(l)  da

so that sum_l eps_i^(l) = g(x_i^out) - g(0): the Aumann-Shapley value of layer l (Aumann and Shapley 1974; as
"integrated gradients" Sundararajan et al. 2017, arXiv:1703.01365). With p = C x_i^out the integral is closed:

    s_k = (ssp(p_k + b_k) - ssp(b_k)) / p_k      (the sigmoid of b_k as p_k -> 0)
    eps_i^(l) = sum_k c_k s_k (C w^(l) v_i^(l))_k

Splitting SchNet's energy this way is ours, not the paper's.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet.analysis import plots
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
    """

    base: NDArray[np.float64]
    pair: NDArray[np.float64] | None
    layers: NDArray[np.float64]
    forces: NDArray[np.float64] | None
    pair_forces: NDArray[np.float64] | None


def layer_energies(model: SchNet, structures: StructureSet, forces: bool = False) -> LayerEnergies:
    """Split the energy of every atom, and if asked for the forces, over the layers.

    Args:
        model: in float64 the split is complete to rounding (1e-15), in float32 to 1e-6.
        structures: the set.
        forces: whether to split the forces: one backward pass per layer.

    Raises:
        ValueError: if the model does not know an element.
    """
    n_layers = model.config.n_interactions + 1
    bases, pairs, of_pairs = [np.zeros(0)], [np.zeros(0)], [np.zeros((0, 3))]
    layers, split = [np.zeros((n_layers, 0))], [np.zeros((n_layers, 0, 3))]
    for batch in batches(model, structures):
        found = corrections(model, batch, derivatives=forces)
        with torch.set_grad_enabled(forces):
            shares = layer_shares(model, found.layers)
            of_pair = pair_energies(model, batch.atomic_numbers, found)
        pairs.append(of_pair.detach().numpy())
        bases.append(base_energies(model, batch.atomic_numbers).numpy() + pairs[-1])
        layers.append(shares.detach().numpy())
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


def element_means(
    found: LayerEnergies, structures: StructureSet
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation over atoms of each element's layer energies.

    Returns:
        symbols, mean (n_elements, n_layers) and standard deviation (n_elements, n_layers), eV.
    """
    groups = [structures.atomic_numbers == z for z in structures.elements]
    mean = np.stack([found.layers[:, chosen].mean(axis=1) for chosen in groups])
    std = np.stack([found.layers[:, chosen].std(axis=1) for chosen in groups])
    return [symbol(int(z)) for z in structures.elements], mean, std


def plot_element_energies(
    found: LayerEnergies, structures: StructureSet, path: str | os.PathLike[str]
) -> Path:
    """Draw the layer energies of each element, mean and spread over atoms, with a CSV of all atoms beside it.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    with plots.figure_style():
        figure = plots.new_figure()
        draw_element_energies(figure.add_subplot(), found, structures)
        plots.save_figure(figure, path)
    write_layer_energies(table_beside(path), found, structures)
    return Path(path)


def draw_element_energies(axes: Any, found: LayerEnergies, structures: StructureSet) -> None:
    """A bar per element and layer: mean over atoms, whisker one standard deviation."""
    names, mean, std = element_means(found, structures)
    n_layers = mean.shape[1]
    width = 0.8 / n_layers
    for layer, color in enumerate(plots.layer_colors(n_layers)):
        x = np.arange(len(names)) + (layer - (n_layers - 1) / 2) * width
        axes.bar(x, mean[:, layer], 0.9 * width, color=color, label=f"v{layer}")
        axes.errorbar(x, mean[:, layer], std[:, layer], fmt="none", ecolor="0.5", linewidth=0.8)
    axes.axhline(0.0, color="0.5", linewidth=0.6)
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("layer energy per atom (eV)")
    plots.legend_above(axes, n_layers)


def write_layer_energies(
    path: str | os.PathLike[str], found: LayerEnergies, structures: StructureSet
) -> Path:
    """Write base and layer energies of every atom as CSV, with its forces per layer if there are any."""
    n_layers = len(found.layers)
    columns = ["structure", "atom", "element", "base (eV)"]
    columns += [f"{name} (eV)" for name in layer_names(n_layers)]
    if found.forces is not None:
        columns += [f"{n} F{c} (eV/Å)" for n in layer_names(n_layers) for c in "xyz"]
    if found.pair is not None:
        columns += ["pair term, in base (eV)"]
    if found.pair is not None and found.pair_forces is not None:
        columns += [f"pair term F{c} (eV/Å)" for c in "xyz"]
    idx_m = structures.idx_m
    rows = []
    for i in range(len(found.base)):
        row = [idx_m[i], i - structures.atom_ptr[idx_m[i]], symbol(structures.atomic_numbers[i])]
        row += [found.base[i], *found.layers[:, i]]
        if found.forces is not None:
            row += list(found.forces[:, i].ravel())
        if found.pair is not None:
            row += [found.pair[i]]
        if found.pair is not None and found.pair_forces is not None:
            row += list(found.pair_forces[i])
        rows.append(row)
    return write_table(path, columns, rows)
