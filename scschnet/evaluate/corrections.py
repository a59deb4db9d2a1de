"""The corrections v^(l) of a batch: as numbers, and as functions of the positions."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scschnet import ops
from scschnet.data import Batch, StructureSet, collate
from scschnet.evaluate import check_elements
from scschnet.nn import SchNet
from scschnet.nn.geometry import pair_forces, pair_vectors
from scschnet.nn.pair_term import add_to_atoms

ATOMS_PER_BATCH = 512


class Corrections(NamedTuple):
    """Corrections of a batch, and the pairs they are functions of.

    Attributes:
        layers: v^(0) to v^(L), each (n_atoms, n_features).
        r_ij: pair vectors, (n_pairs, 3), Å; asks for gradients if derivatives are wanted.
        idx_i: center of each pair, (n_pairs,) int64.
        idx_j: neighbor of each pair, (n_pairs,) int64.
        half: whether every pair stands once; else both ways.
    """

    layers: list[Tensor]
    r_ij: Tensor
    idx_i: Tensor
    idx_j: Tensor
    half: bool


def corrections(model: SchNet, batch: Batch, derivatives: bool = False) -> Corrections:
    """The embedding and the correction of every block (Eq. 1 of arXiv:1810.09751).

    Args:
        model: its parameters ask for no gradients.
        batch: from `scschnet.data.collate` with the model's cutoff.
        derivatives: whether the corrections shall be differentiable in the pair vectors.
    """
    idx_i, idx_j, shifts = batch.idx_i, batch.idx_j, batch.shifts
    spline = model.filters == "spline" and batch.positions.device.type == "cpu"
    row_ptr = batch.row_ptr
    if spline:
        pairs, row_ptr, idx_j = ops.half_list(idx_i, idx_j, shifts, len(batch.atomic_numbers))
        idx_i, shifts = idx_i.index_select(0, pairs), shifts.index_select(0, pairs)
    r_ij = pair_vectors(batch.positions, batch.cells, batch.idx_m, idx_i, idx_j, shifts)
    with torch.set_grad_enabled(derivatives):
        r_ij.requires_grad_(derivatives)
        d_ij = torch.linalg.vector_norm(r_ij, dim=1)
        if spline:
            convolutions = model.engine.spline_convolutions(d_ij, row_ptr, idx_j)
        else:
            convolutions = model.dense_convolutions(d_ij, idx_i, idx_j)
        layers = model.corrections(batch.atomic_numbers, convolutions)
    return Corrections(layers, r_ij, idx_i, idx_j, spline)


def projected(model: SchNet, layers: list[Tensor]) -> Tensor:
    """What each layer adds to the hidden layer of the readout, C w^(l) v_i^(l), (n_layers, n_atoms, n_hidden)."""
    weighted = zip(model.contribution_weights, layers, strict=True)
    return torch.stack([(w * v) @ model.readout.hidden.weight.T for w, v in weighted])


def pair_energies(model: SchNet, atomic_numbers: Tensor, found: Corrections) -> Tensor:
    """What the model's pair term gives every atom; zero if it has none.

    Args:
        model: the model.
        atomic_numbers: (n_atoms,) int64.
        found: the pairs.

    Returns:
        (n_atoms,) float64, eV, differentiable in the pair vectors.
    """
    energies = torch.zeros(len(atomic_numbers), dtype=torch.float64)
    if model.pair_term is None:
        return energies
    d_ij = torch.linalg.vector_norm(found.r_ij, dim=1)
    phi, _ = model.pair_term(atomic_numbers[found.idx_i], atomic_numbers[found.idx_j], d_ij)
    return add_to_atoms(energies, phi, found.idx_i, found.idx_j, found.half)


def forces_of(energy: Tensor, found: Corrections) -> Tensor:
    """Minus the derivative of a number in the positions of all atoms; the graph is kept.

    Args:
        energy: a single number computed from `found.layers`, eV.
        found: with derivatives.

    Returns:
        (n_atoms, 3), eV/Å; zero where the number does not depend on the positions.
    """
    n_atoms = len(found.layers[0])
    if not energy.requires_grad or not len(found.r_ij):
        return found.r_ij.new_zeros((n_atoms, 3)).detach()
    (g_ij,) = torch.autograd.grad(energy, found.r_ij, retain_graph=True)
    return pair_forces(g_ij, found.idx_i, found.idx_j, n_atoms)


def batches(
    model: SchNet, structures: StructureSet, n_atoms: int = ATOMS_PER_BATCH
) -> Iterator[Batch]:
    """A set in its order, in batches of at most `n_atoms` atoms or one structure.

    Raises:
        ValueError: if the model does not know an element.
    """
    check_elements(model, structures)
    start, sizes = 0, structures.n_atoms
    while start < len(structures):
        total = np.cumsum(sizes[start:])
        stop = start + max(1, int(np.searchsorted(total, n_atoms, side="right")))
        yield collate(structures, np.arange(start, stop), model.config.cutoff)
        start = stop


def correction_norms(model: SchNet, structures: StructureSet) -> Tensor:
    """||v_i^(l)|| of every atom of a set, (n_interactions + 1, n_atoms).

    Raises:
        ValueError: if the model does not know an element.
    """
    parts = []
    for batch in batches(model, structures):
        found = corrections(model, batch)
        parts.append(torch.stack([torch.linalg.vector_norm(v, dim=1) for v in found.layers]))
    if not parts:
        return torch.zeros((model.config.n_interactions + 1, 0), dtype=torch.float64)
    return torch.cat(parts, dim=1)
