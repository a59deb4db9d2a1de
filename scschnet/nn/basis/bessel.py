"""Spherical Bessel functions, the radial basis of DimeNet and its successors."""

import math

import torch
from torch import Tensor

from scschnet.nn.basis.contract import RadialBasis
from scschnet.nn.float64 import check_length


class BesselBasis(RadialBasis):
    """Spherical Bessel functions of order zero that have 1 to n_rbf half waves between zero and the range.

    rbf_n(d) = sqrt(2 / rbf_range) sin(n pi d / rbf_range) / d,  at zero distance its limit
    Gasteiger et al. 2020, arXiv:2003.03123, Eq. 7

    Args:
        n_rbf: number of functions, at least 2.
        rbf_range: Å, positive; all functions are zero there.

    Raises:
        ValueError: if `n_rbf` or `rbf_range` is out of range.
    """

    frequencies: Tensor

    def __init__(self, n_rbf: int, rbf_range: float) -> None:
        if n_rbf < 2:
            raise ValueError(f"`n_rbf` must be at least 2, got {n_rbf}")
        check_length("rbf_range", rbf_range)
        super().__init__(width=rbf_range / (math.pi * n_rbf), reach=math.inf)
        self.range = rbf_range
        frequencies = torch.arange(1, n_rbf + 1, dtype=torch.float64)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, d_ij: Tensor) -> Tensor:
        """Args: d_ij (n_pairs,), Å. Returns: (n_pairs, n_rbf), Å^(-3/2)."""
        n = self.frequencies.to(d_ij.dtype)
        limit = n * (math.pi / self.range * math.sqrt(2.0 / self.range))
        return torch.sinc(d_ij[:, None] * n / self.range) * limit
