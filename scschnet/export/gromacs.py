"""The module inside a file for GROMACS' NNPot interface, which has its own inputs, units and outputs."""

import torch
from torch import Tensor, nn

from scschnet.export.committee import CommitteePotential
from scschnet.export.potential import Potential
from scschnet.units import ENERGY, LENGTH


class GromacsPotential(nn.Module):
    """A potential as GROMACS calls it, with nnpot-model-input1 to 4 = atom-positions, atom-numbers, box, pbc.

    For a simulation without periodicity leave out the last two.

    Args:
        potential: what is evaluated, in eV and Å.
    """

    def __init__(self, potential: Potential | CommitteePotential) -> None:
        super().__init__()
        self.potential = potential
        self.length = LENGTH["nm"]  # Å
        self.energy = 1.0 / ENERGY["kJ/mol"]  # kJ/mol per eV

    def forward(
        self,
        positions: Tensor,
        atomic_numbers: Tensor,
        box: Tensor | None = None,
        pbc: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Energy and forces; GROMACS need not differentiate.

        Args:
            positions: (n_atoms, 3) float32, nm.
            atomic_numbers: (n_atoms,) int32.
            box: (3, 3) float32, rows are box vectors, nm; None: open.
            pbc: (3,) bool; None: open along all axes.

        Returns:
            Energy (), kJ/mol, and forces (n_atoms, 3), kJ/(mol nm), float64.
        """
        cell = torch.zeros([3, 3], dtype=torch.float64, device=positions.device)
        if box is not None:
            cell = box.double() * self.length
        periodic = torch.zeros([3], dtype=torch.bool, device=positions.device)
        if pbc is not None:
            periodic = pbc
        r = positions.double() * self.length
        result = self.potential(r, atomic_numbers.long(), cell, periodic, False, False)
        return result["energy"] * self.energy, result["forces"] * (self.energy * self.length)
