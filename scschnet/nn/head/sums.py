"""Scalars that are sums, and means, over atoms."""

import torch
from torch import Tensor

from scschnet.nn.head.contract import Head


class SumHead(Head):
    """P = sum_i p_i: an extensive property.   Schuett et al. 2018, doi:10.1063/1.5019779"""

    def pool(
        self,
        values: Tensor,
        positions: Tensor,
        atomic_numbers: Tensor,
        idx_m: Tensor,
        n_structures: int,
    ) -> Tensor:
        """As in the contract."""
        return values.new_zeros([n_structures]).index_add(0, idx_m, values)


class MeanHead(Head):
    """P = (1/n) sum_i p_i: an intensive property.   Schuett et al. 2018, doi:10.1063/1.5019779"""

    def pool(
        self,
        values: Tensor,
        positions: Tensor,
        atomic_numbers: Tensor,
        idx_m: Tensor,
        n_structures: int,
    ) -> Tensor:
        """As in the contract."""
        total = values.new_zeros([n_structures]).index_add(0, idx_m, values)
        n = values.new_zeros([n_structures]).index_add(0, idx_m, torch.ones_like(values))
        return total / n.clamp(min=1.0)

    def weights_of_atoms(
        self, positions: Tensor, atomic_numbers: Tensor, idx_m: Tensor, n_structures: int
    ) -> Tensor:
        """One over the number of atoms."""
        ones = torch.ones_like(positions[:, 0])
        n = ones.new_zeros([n_structures]).index_add(0, idx_m, ones)
        return 1.0 / n.index_select(0, idx_m)
