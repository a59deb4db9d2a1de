"""Behler's cosine cutoff."""

import math

import torch
from torch import Tensor

from scschnet.nn.cutoff.contract import CutoffFunction


class CosineCutoff(CutoffFunction):
    """Falls smoothly from one at zero distance to zero at the cutoff.

    f(d) = (1 + cos(pi d / cutoff)) / 2  for d < cutoff, else 0.   Behler 2011, doi:10.1063/1.3553717
    f and f' are zero at the cutoff, f'' jumps there.
    """

    def value(self, d_ij: Tensor) -> Tensor:
        """Args: d_ij (n_pairs,), Å. Returns: (n_pairs,)."""
        return 0.5 * (1.0 + torch.cos(d_ij * (math.pi / self.cutoff)))
