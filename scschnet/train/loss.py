"""The training loss."""

import torch
from torch import Tensor

from scschnet.data import Batch
from scschnet.train.resident import Labels


def combined_loss(
    result: dict[str, Tensor],
    batch: Batch | Labels,
    rho: float,
    stress_weight: float,
    n_structures: int | Tensor,
    n_atoms: int | Tensor,
) -> Tensor:
    """Loss of a batch, or of a share of it, from its energies, forces and stress.

    rho MSE(E) + (1 - rho) MSE(F) + stress_weight MSE(sigma)

    The force term of Schuett et al. 2018, doi:10.1063/1.5019779; errors are means over all entries,
    structures for E and components for F. The losses of the shares of a batch add up to its loss.

    Args:
        result: what the model returned for the share.
        batch: the labels; those with weight zero may be absent.
        rho: between 0 and 1.
        stress_weight: not negative.
        n_structures: structures in the whole batch.
        n_atoms: atoms in the whole batch.

    Returns:
        Scalar, float64; eV^2 and (eV/Å)^2 are added as numbers.
    """
    loss = result["energy"].new_zeros(())
    if rho > 0.0 and batch.energy is not None:
        loss = loss + rho / n_structures * _squares(result["energy"] - batch.energy)
    if rho < 1.0 and batch.forces is not None:
        loss = loss + (1.0 - rho) / (3 * n_atoms) * _squares(result["forces"] - batch.forces)
    if stress_weight > 0.0 and batch.stress is not None:
        difference = result["stress"] - batch.stress
        loss = loss + stress_weight / (9 * n_structures) * _squares(difference)
    return loss


def _squares(difference: Tensor) -> Tensor:
    return torch.square(difference).sum()
