"""The training loss."""

import torch
from torch import Tensor

from scschnet.data import Batch


def mean_squared_error(predicted: Tensor, label: Tensor) -> Tensor:
    """Mean over all entries of (predicted - label)^2, a scalar."""
    return torch.nn.functional.mse_loss(predicted, label)


def combined_loss(
    result: dict[str, Tensor], batch: Batch, rho: float, stress_weight: float
) -> Tensor:
    """Loss of a batch from its energies, forces and stress.

    rho MSE(E) + (1 - rho) MSE(F) + stress_weight MSE(sigma)

    The force term of Schuett et al. 2018, doi:10.1063/1.5019779; both errors are means over all entries,
    structures for E and components for F.

    Args:
        result: what the model returned.
        batch: the labels; those with weight zero may be absent.
        rho: between 0 and 1.
        stress_weight: not negative.

    Returns:
        Scalar, float64; eV^2 and (eV/Å)^2 are added as numbers.
    """
    loss = result["energy"].new_zeros(())
    if rho > 0.0 and batch.energy is not None:
        loss = loss + rho * mean_squared_error(result["energy"], batch.energy)
    if rho < 1.0 and batch.forces is not None:
        loss = loss + (1.0 - rho) * mean_squared_error(result["forces"], batch.forces)
    if stress_weight > 0.0 and batch.stress is not None:
        loss = loss + stress_weight * mean_squared_error(result["stress"], batch.stress)
    return loss
