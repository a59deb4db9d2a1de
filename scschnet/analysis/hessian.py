"""Second derivatives of the energy in the positions, split over the layers, exact.

With eps_i^(l) of scschnet.analysis.layers and the pair term as a share of its own, E = const + sum_l E^(l),

    H^(l) = d^2 E^(l) / dr dr,    H = sum_l H^(l)

by differentiating backward twice, in float64. Splitting the Hessian this way is ours, not the paper's.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet.analysis.layers import layer_shares
from scschnet.data import StructureSet, collate
from scschnet.evaluate import check_elements
from scschnet.evaluate.corrections import corrections, pair_energies
from scschnet.nn import SchNet
from scschnet.runs.contributions import layer_names

PAIR = "pair term"


@dataclass(frozen=True, eq=False)
class SplitHessian:
    """Gradient and Hessian of a structure's energy, a share for every layer and for the pair term if there is one.

    Args:
        names: of the shares: v0 for the embedding, v1 to vL for the blocks, and `PAIR`.
        gradients: dE^(l)/dr, (n_shares, 3 n_atoms), eV/Å; they add up to minus the forces.
        hessians: (n_shares, 3 n_atoms, 3 n_atoms), eV/Å^2; they add up to the Hessian.
    """

    names: tuple[str, ...]
    gradients: NDArray[np.float64]
    hessians: NDArray[np.float64]

    @property
    def hessian(self) -> NDArray[np.float64]:
        """The Hessian of the energy, (3 n_atoms, 3 n_atoms), eV/Å^2."""
        return np.asarray(self.hessians.sum(axis=0))


def split_hessian(model: SchNet, structure: StructureSet) -> SplitHessian:
    """Gradient and Hessian of the energy, split over the layers: 3 n_atoms backward passes for each.

    Args:
        model: in float64, its parameters asking for no gradients (`scschnet.runs.run.in_float64`).
        structure: exactly one; in a periodic one all images of an atom move together.

    Raises:
        ValueError: if there is not exactly one structure, or the model does not know an element.
    """
    if len(structure) != 1:
        raise ValueError(f"`structure` must hold exactly one structure, got {len(structure)}")
    check_elements(model, structure)
    batch = collate(structure, [0], model.config.cutoff)
    with torch.enable_grad():
        positions = batch.positions.requires_grad_()
        moving = replace(batch, positions=positions)
        found = corrections(model, moving, derivatives=True)
        energies = list(layer_shares(model, found.layers).sum(dim=1))
        names = layer_names(len(energies))
        if model.pair_term is not None:
            energies.append(pair_energies(model, batch.atomic_numbers, found).sum())
            names.append(PAIR)
        parts = [_derivatives(energy, positions) for energy in energies]
    gradients, hessians = (torch.stack(some).numpy() for some in zip(*parts, strict=True))
    return SplitHessian(tuple(names), gradients, 0.5 * (hessians + hessians.transpose(0, 2, 1)))


def _derivatives(energy: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (3 n,) and Hessian (3 n, 3 n) of a number; zero where it does not depend on the positions."""
    n = positions.numel()
    gradient, hessian = positions.new_zeros(n), positions.new_zeros((n, n))
    if not energy.requires_grad:
        return gradient.detach(), hessian.detach()
    (slope,) = torch.autograd.grad(energy, positions, create_graph=True)
    for k, component in enumerate(slope.flatten()):
        (row,) = torch.autograd.grad(component, positions, retain_graph=True)
        hessian[k] = row.flatten()
    return slope.flatten().detach(), hessian.detach()
