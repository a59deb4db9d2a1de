"""Dipole moments of charges that add up to nothing."""

import torch
from torch import Tensor

from scschnet.nn.head.contract import Head


class DipoleHead(Head):
    """mu = sum_i q_i r_i,   q_i = p_i - (1/n) sum_j p_j: neutral, so that mu does not depend on the origin.

    Charges of atoms that are learned from moments alone: Schuett et al. 2018, doi:10.1063/1.5019779, and Gilmer et al.
    2017, arXiv:1704.01212. That they add up to zero is ours. They are in the unit of mu over Å.
    """

    shape: tuple[int, ...] = (3,)
    is_of_molecules = True

    def pool(
        self,
        values: Tensor,
        positions: Tensor,
        atomic_numbers: Tensor,
        idx_m: Tensor,
        n_structures: int,
    ) -> Tensor:
        """As in the contract."""
        return dipoles(values, positions, idx_m, n_structures)

    def fit(self, labels: Tensor, positions: Tensor, atomic_numbers: Tensor, idx_m: Tensor) -> None:
        """The scale with which independent charges would have moments as large as the labels."""
        n = len(labels)
        from_center = _from_center(positions, idx_m, n)
        squares = labels.new_zeros(n).index_add(0, idx_m, from_center.square().mean(1))
        self.set_spread(labels, squares)


class DipoleNormHead(DipoleHead):
    """|mu|, the norm of `DipoleHead`'s vector: what QM9 has. The vector's sign is not determined by it."""

    shape = ()

    def pool(
        self,
        values: Tensor,
        positions: Tensor,
        atomic_numbers: Tensor,
        idx_m: Tensor,
        n_structures: int,
    ) -> Tensor:
        """As in the contract."""
        return torch.linalg.vector_norm(dipoles(values, positions, idx_m, n_structures), dim=1)

    def fit(self, labels: Tensor, positions: Tensor, atomic_numbers: Tensor, idx_m: Tensor) -> None:
        """As of the vector, whose components are smaller."""
        super().fit(labels / 3.0**0.5, positions, atomic_numbers, idx_m)
        self.spread.fill_(float(labels.std(correction=0)) or 1.0)


def dipoles(charges: Tensor, positions: Tensor, idx_m: Tensor, n_structures: int) -> Tensor:
    """sum_i (q_i - mean q) r_i, which is sum_i q_i (r_i - mean r), (n_structures, 3)."""
    moments = charges.unsqueeze(1) * _from_center(positions, idx_m, n_structures)
    return positions.new_zeros([n_structures, 3]).index_add(0, idx_m, moments)


def _from_center(positions: Tensor, idx_m: Tensor, n_structures: int) -> Tensor:
    ones = torch.ones_like(positions[:, 0])
    n = ones.new_zeros([n_structures]).index_add(0, idx_m, ones).clamp(min=1.0)
    total = positions.new_zeros([n_structures, 3]).index_add(0, idx_m, positions)
    return positions - (total / n.unsqueeze(1)).index_select(0, idx_m)
