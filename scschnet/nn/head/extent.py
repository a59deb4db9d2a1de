"""The electronic spatial extent."""

import torch
from ase.data import atomic_masses
from torch import Tensor

from scschnet.nn.head.contract import Head


class ExtentHead(Head):
    """<R^2> = sum_i q_i |r_i - r_cm|^2, r_cm the center of mass.   Schuett et al. 2018, doi:10.1063/1.5019779"""

    is_of_molecules = True
    masses: Tensor

    def __init__(self, n_features: int, max_z: int) -> None:
        super().__init__(n_features, max_z)
        masses = torch.from_numpy(atomic_masses[: max_z + 1]).double()
        self.register_buffer("masses", masses, persistent=False)

    def pool(
        self,
        values: Tensor,
        positions: Tensor,
        atomic_numbers: Tensor,
        idx_m: Tensor,
        n_structures: int,
    ) -> Tensor:
        """As in the contract."""
        squares = self.weights_of_atoms(positions, atomic_numbers, idx_m, n_structures)
        return values.new_zeros([n_structures]).index_add(0, idx_m, values * squares)

    def weights_of_atoms(
        self, positions: Tensor, atomic_numbers: Tensor, idx_m: Tensor, n_structures: int
    ) -> Tensor:
        """The squared distances from the center of mass."""
        masses = self.masses.index_select(0, atomic_numbers)
        total = masses.new_zeros([n_structures]).index_add(0, idx_m, masses)
        moments = positions.new_zeros([n_structures, 3]).index_add(
            0, idx_m, positions * masses.unsqueeze(1)
        )
        centers = moments / total.clamp(min=1e-9).unsqueeze(1)  # a structure may have no atoms
        return (positions - centers.index_select(0, idx_m)).square().sum(1)
