"""Gaussians, the radial basis of SchNet."""

import torch
from torch import Tensor, nn

from scschnet.nn.basis.contract import RadialBasis
from scschnet.nn.float64 import check_length


class GaussianBasis(RadialBasis):
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
        if n_rbf < 2:
            raise ValueError(f"`n_rbf` must be at least 2, got {n_rbf}")
        check_length("rbf_range", rbf_range)
        super().__init__(width=rbf_range / (n_rbf - 1), reach=rbf_range + 1.0)
        centers = torch.linspace(0.0, rbf_range, n_rbf, dtype=torch.float64)
        self.register_buffer("centers", centers, persistent=False)

    def forward(self, d_ij: Tensor) -> Tensor:
        """Values of all Gaussians at each distance.

        Values below 1e-20 are set to zero. They change nothing, and as denormal numbers in float32 they would
        halve the speed of everything that follows.

        Args:
            d_ij: (n_pairs,), Å.

        Returns:
            (n_pairs, n_rbf), same dtype as `d_ij`.
        """
        scaled = (d_ij[:, None] - self.centers.to(d_ij.dtype)) / self.width
        return nn.functional.threshold(torch.exp(-0.5 * scaled * scaled), 1e-20, 0.0)
