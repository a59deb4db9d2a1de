"""Functions of a pair distance: radial bases and cutoff functions. A new radial basis belongs here."""

import math

import torch
from torch import Tensor, nn


class GaussianBasis(nn.Module):
    """Gaussians with evenly spaced centers, as wide as their spacing.

    rbf_k(d) = exp(-(d - mu_k)^2 / (2 sigma^2)),  mu_k from 0 to rbf_range,  sigma = mu_1 - mu_0
    Schuett et al. 2017, arXiv:1706.08566

    Args:
        n_rbf: number of Gaussians, at least 2.
        rbf_range: center of the last one, Å, positive.

    Raises:
        ValueError: if `n_rbf` or `rbf_range` is out of range.
    """

    centers: Tensor

    def __init__(self, n_rbf: int, rbf_range: float) -> None:
        super().__init__()
        if n_rbf < 2:
            raise ValueError(f"`n_rbf` must be at least 2, got {n_rbf}")
        _check_length("rbf_range", rbf_range)
        self.width = rbf_range / (n_rbf - 1)
        centers = torch.linspace(0.0, rbf_range, n_rbf, dtype=torch.float64)
        self.register_buffer("centers", centers, persistent=False)

    def forward(self, d_ij: Tensor) -> Tensor:
        """Values of all Gaussians at each distance.

        Values below 1e-20 are zero: they change nothing, and as denormal numbers in float32 they would
        halve the speed of everything that follows.

        Args:
            d_ij: (n_pairs,), Å.

        Returns:
            (n_pairs, n_rbf), same dtype as `d_ij`.
        """
        scaled = (d_ij[:, None] - self.centers.to(d_ij.dtype)) / self.width
        return nn.functional.threshold(torch.exp(-0.5 * scaled * scaled), 1e-20, 0.0)


def cosine_cutoff(d_ij: Tensor, cutoff: float) -> Tensor:
    """Weight that falls smoothly from one at zero distance to zero at the cutoff.

    f(d) = (1 + cos(pi d / cutoff)) / 2  for d < cutoff, else 0.   Behler 2011, doi:10.1063/1.3553717

    Args:
        d_ij: pair distances, (n_pairs,), Å, not negative.
        cutoff: Å, positive.

    Returns:
        (n_pairs,), same dtype and device as `d_ij`. Autograd may differentiate it twice; f and f' are
        zero at the cutoff, f'' jumps there.

    Raises:
        ValueError: if `cutoff` is not positive.
    """
    _check_length("cutoff", cutoff)
    inside = (d_ij < cutoff).to(d_ij.dtype)
    return 0.5 * (1.0 + torch.cos(d_ij * (math.pi / cutoff))) * inside


def no_cutoff(d_ij: Tensor, cutoff: float) -> Tensor:
    """One for every pair of the list: the hard edge of early SchNet models.

    Smooth only where the list holds all pairs of a molecule; elsewhere the energy jumps when a pair
    crosses `cutoff`.

    Args:
        d_ij: pair distances, (n_pairs,), Å.
        cutoff: Å, not used; the same signature as `cosine_cutoff`.

    Returns:
        (n_pairs,) ones, same dtype and device as `d_ij`.
    """
    return torch.ones_like(d_ij)


CUTOFF_FUNCTIONS = {"cosine": cosine_cutoff, "none": no_cutoff}


def _check_length(name: str, value: float) -> None:
    if not value > 0.0 or math.isinf(value):
        raise ValueError(f"`{name}` must be positive and finite, got {value}")
