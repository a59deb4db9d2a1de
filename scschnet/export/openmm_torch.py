"""The module inside a file for TorchForce of openmm-torch, which has its own inputs, units and outputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scschnet.export.committee import CommitteePotential
from scschnet.export.gromacs import GromacsPotential
from scschnet.export.potential import Potential


class TorchForcePotential(nn.Module):
    """A potential as TorchForce calls it after `setOutputsForces(True)`.

    TorchForce hands over positions and box alone, so the elements of the particles are part of the file.

    Args:
        potential: what is evaluated, in eV and Å.
        atomic_numbers: of all particles of the system, in their order.
    """

    atomic_numbers: Tensor

    def __init__(
        self, potential: Potential | CommitteePotential, atomic_numbers: Sequence[int]
    ) -> None:
        super().__init__()
        self.converted = GromacsPotential(potential)  # has the same units
        self.register_buffer("atomic_numbers", torch.tensor(atomic_numbers, dtype=torch.int64))

    def forward(self, positions: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy and forces; TorchForce need not differentiate.

        Args:
            positions: (n_particles, 3), nm.
            box: (3, 3), rows are box vectors, nm; None, without `setUsesPeriodicBoundaryConditions(True)`: open.

        Returns:
            Energy (), kJ/mol, and forces (n_particles, 3), kJ/(mol nm), float64.
        """
        pbc = torch.full([3], box is not None, dtype=torch.bool, device=positions.device)
        return self.converted(positions, self.atomic_numbers, box, pbc)
