"""No cutoff function: the hard edge of the pair list."""

import torch
from torch import Tensor

from scschnet.nn.cutoff.contract import CutoffFunction


class NoCutoff(CutoffFunction):
    """One for every pair of the list: the hard edge of early SchNet models.

    The energy is smooth only if the list holds all pairs of a molecule. Otherwise it jumps when a pair crosses the
    cutoff.
    """

    smooth = False

    def value(self, d_ij: Tensor) -> Tensor:
        """Args: d_ij (n_pairs,), Å. Returns: (n_pairs,) ones."""
        return torch.ones_like(d_ij)
