"""Pair vectors from positions, and forces, virial and stress from derivatives in the pair vectors."""

import torch
from torch import Tensor


def pair_vectors(
    positions: Tensor, cells: Tensor, idx_m: Tensor, idx_i: Tensor, idx_j: Tensor, shifts: Tensor
) -> Tensor:
    """Vectors from center to neighbor, r_ij = r_j - r_i + S cell, in float64.

    Args: as in `SchNet.forward`. Returns: (n_pairs, 3), Å.
    """
    r = positions.double()
    r_ij = r.index_select(0, idx_j) - r.index_select(0, idx_i)
    if bool((cells != 0).any()):
        cell_of_pair = cells.double().index_select(0, idx_m.index_select(0, idx_i))
        r_ij = r_ij + torch.bmm(shifts.double().unsqueeze(1), cell_of_pair).squeeze(1)
    return r_ij


def pair_forces(g_ij: Tensor, idx_i: Tensor, idx_j: Tensor, n_atoms: int) -> Tensor:
    """Forces from the derivative of the energy with respect to every pair vector.

    F_i = sum_j dE/dr_ij - sum_j dE/dr_ji

    Args:
        g_ij: dE/dr_ij, (n_pairs, 3), eV/Å.
        idx_i: center of each pair, (n_pairs,) int64.
        idx_j: neighbor of each pair, (n_pairs,) int64.
        n_atoms: number of atoms.

    Returns:
        (n_atoms, 3), eV/Å.
    """
    forces = g_ij.new_zeros((n_atoms, 3)).index_add(0, idx_i, g_ij)
    return forces.index_add(0, idx_j, g_ij, alpha=-1)


def pair_virial(g_ij: Tensor, r_ij: Tensor, idx_m_of_pair: Tensor, n_structures: int) -> Tensor:
    """Virial from the derivative of the energy with respect to every pair vector.

    W_ab = -sum_pairs r_ij,a dE/dr_ij,b = -dE/dstrain_ab

    Args:
        g_ij: dE/dr_ij, (n_pairs, 3), eV/Å.
        r_ij: pair vectors, (n_pairs, 3), Å.
        idx_m_of_pair: structure of each pair, (n_pairs,) int64.
        n_structures: number of structures.

    Returns:
        (n_structures, 3, 3), eV.
    """
    outer = r_ij[:, :, None] * g_ij[:, None, :]
    return g_ij.new_zeros((n_structures, 3, 3)).index_add(0, idx_m_of_pair, outer, alpha=-1)


def stress_of(virial: Tensor, cells: Tensor) -> Tensor:
    """Stress, sigma_ab = -W_ab / V = (1/V) dE/dstrain_ab, tension positive.

    Args:
        virial: (n_structures, 3, 3), eV.
        cells: lattice vectors as rows, (n_structures, 3, 3), Å.

    Returns:
        (n_structures, 3, 3), eV/Å^3; NaN where the cell has no volume.
    """
    return stress_in(virial, torch.linalg.det(cells).abs())


def stress_in(virial: Tensor, volumes: Tensor) -> Tensor:
    """Stress from virials and volumes; where there is no volume it is NaN, with derivative zero.

    Args:
        virial: (n_structures, 3, 3), eV.
        volumes: (n_structures,), Å^3, zero or NaN for a structure without volume.

    Returns:
        (n_structures, 3, 3), eV/Å^3.
    """
    has_none = ~(volumes > 0)[:, None, None]
    stress = -virial / volumes[:, None, None].masked_fill(has_none, 1.0)
    return stress.masked_fill(has_none, torch.nan)
