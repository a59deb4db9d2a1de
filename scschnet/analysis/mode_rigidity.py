"""How firmly the training set holds the vibrations of a model: standard deviations of frequencies and shares.

With theta, X = sum_i x_i^out and deviations of scschnet.analysis.rigidity, a frequency changes with the Hessian and,
because the minimum moves, with its derivative. To first order in theta, with m_k = M^(-1/2) q_k,

    omega_k^2 -> omega_k^2 + theta . f_k,   f_k = D^2_k X - D_u X,   u = H^+ d(m_k^T H m_k)/dr

where D^2_k is the second derivative along m_k, D_u the first along u, and H^+ the inverse of H among the vibrations. The share
of a layer is looked at where it was taken, at this structure, with this mode and along this path of tangent m_k:
f = D^2 X^(l), X^(l) = sum_i x_i^(l), and as a fraction of the sum of all shares by the rule of quotients. The pair term does
not depend on theta. What is calibrated and what is not stands in scschnet.analysis.rigidity.
"""

import numpy as np
from numpy.typing import NDArray

from scschnet.analysis.internal import motion
from scschnet.analysis.modes import WAVENUMBER, ModeRigidity, Modes
from scschnet.analysis.rigidity import deviations
from scschnet.data import StructureSet
from scschnet.evaluate import predict
from scschnet.evaluate.corrections import batches, corrections
from scschnet.nn import SchNet

STEP = 0.01  # of differences along modes, Å sqrt(amu), and along other paths, Å


def mode_rigidity(model: SchNet, modes: Modes, root: NDArray[np.float64]) -> ModeRigidity:
    """Standard deviations of frequencies, shares and mean layers by the equations at the head of this file.

    Derivatives along paths are central differences, right to about 1e-3.

    Args:
        model: in float64.
        modes: of a relaxed structure.
        root: R of scschnet.analysis.rigidity, (n_features, n_features), eV.
    """
    structure, squares, shares = modes.structure, modes.squares, modes.of_layers
    moves = modes.vectors / np.sqrt(np.repeat(modes.masses, 3))
    second, slopes = _along_modes(model, structure, root, moves)
    moved = (slopes @ moves.T / squares) @ moves  # u
    of_squares = (second - _along(model, structure, root, moved)).sum(axis=1)
    of_shares = second
    if modes.curved is not None:
        curvature = motion(structure, modes.masses, modes.vectors).curvature
        of_shares = second + _along(model, structure, root, curvature)
    of_shares = of_shares - shares[:, :, None] * of_shares.sum(axis=1, keepdims=True)
    of_shares = of_shares / squares[:, None, None]
    sizes = np.abs(shares).sum(axis=1, keepdims=True)
    beyond_mean = np.arange(shares.shape[1]) - modes.depth[:, None]
    of_depth = np.einsum("kl,klf->kf", np.sign(shares) * beyond_mean / sizes, of_shares)
    return ModeRigidity(
        np.linalg.norm(of_squares, axis=1) * WAVENUMBER / (2.0 * np.sqrt(np.abs(squares))),
        np.linalg.norm(of_shares, axis=2),
        np.linalg.norm(of_depth, axis=1),
    )


def _along_modes(
    model: SchNet,
    structure: StructureSet,
    root: NDArray[np.float64],
    moves: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Second derivatives of the deviations along the modes, and the gradients of m_k^T H m_k, (n_modes, 3 n_atoms)."""
    n = len(moves)
    steps = STEP * np.concatenate([np.zeros_like(moves[:1]), moves, -moves])
    displaced = _displaced(structure, steps)
    sums = _sums(model, displaced, root)
    forces = predict(model, displaced, forces=True).forces
    assert forces is not None
    forces = forces.reshape(len(steps), -1)
    of_sums, of_forces = (
        (v[1 : n + 1] + v[n + 1 :] - 2.0 * v[0]) / STEP**2 for v in (sums, forces)
    )
    return of_sums, -of_forces


def _along(
    model: SchNet,
    structure: StructureSet,
    root: NDArray[np.float64],
    directions: NDArray[np.float64],
) -> NDArray[np.float64]:
    """First derivatives of the deviations along directions (n, 3 n_atoms), (n, n_layers, n_features)."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    steps = STEP * directions / np.maximum(lengths, 1e-300)
    sums = _sums(model, _displaced(structure, np.concatenate([steps, -steps])), root)
    n = len(directions)
    return (sums[:n] - sums[n:]) * lengths[:, :, None] / (2.0 * STEP)


def _displaced(structure: StructureSet, by: NDArray[np.float64]) -> StructureSet:
    """Copies of one structure with its atoms moved, by (n, 3 n_atoms), Å."""
    n, size = len(by), len(structure.positions)
    return StructureSet(
        (structure.positions + by.reshape(n, size, 3)).reshape(-1, 3),
        np.tile(structure.atomic_numbers, n),
        size * np.arange(n + 1),
        cells=np.tile(structure.cells, (n, 1, 1)),
        pbc=np.tile(structure.pbc, (n, 1)),
    )


def _sums(
    model: SchNet, structures: StructureSet, root: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Deviations of each layer, summed over the atoms of each structure, (n_structures, n_layers, n_features)."""
    parts = []
    for batch in batches(model, structures):
        found = deviations(model, corrections(model, batch).layers, root)
        sums = found.new_zeros((len(found), batch.cells.shape[0], found.shape[2]))
        parts.append(sums.index_add_(1, batch.idx_m, found).numpy().transpose(1, 0, 2))
    return np.concatenate(parts)
