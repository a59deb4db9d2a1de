"""What a pair term is: an energy of two elements and a distance that is added to the network's."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from scschnet.nn.float64 import Float64Buffers


class PairTerm(Float64Buffers, ABC):
    """An energy phi(Z_i, Z_j, d_ij) of every pair, half of it to either atom.

    A subclass defines `forward`; a line in `scschnet/nn/pair_term/__init__.py` gives it a name. Energies of the
    labels are those of the network plus this one, so a model is trained on what the term leaves. It must be
    scriptable by TorchScript, because exported files hold it, and has no parameters that are trained.

    Args:
        elements: atomic numbers the model was made for, ascending.
        cutoff: of the model, Å; the term is zero from there on, if not before.
    """

    index: Tensor
    """(max_z + 1,) int64, where in `elements` an atomic number stands; 0 for what is no element of the model"""

    def __init__(self, elements: Sequence[int], cutoff: float, max_z: int = 118) -> None:
        super().__init__()
        self.cutoff = cutoff
        index = torch.zeros(max_z + 1, dtype=torch.int64)
        index[list(elements)] = torch.arange(len(elements))
        self.register_buffer("index", index, persistent=False)

    def fit(self, shortest: Tensor) -> None:
        """Take from the training set what the term needs of it, before a training begins; here nothing.

        What is taken goes into buffers that are stored in checkpoints.

        Args:
            shortest: shortest distance of every two elements in the training structures, in the order of `elements`,
                (n_elements, n_elements) float64, Å; infinite where the two never come within the cutoff.
        """

    @abstractmethod
    def forward(self, z_i: Tensor, z_j: Tensor, d_ij: Tensor) -> tuple[Tensor, Tensor]:
        """Energy of every pair, and its derivative in the distance.

        Args:
            z_i: atomic number of one atom of each pair, (n_pairs,) int64; any number from 0 to `max_z`.
            z_j: of the other, (n_pairs,) int64. The term is the same if they change places.
            d_ij: distances, (n_pairs,) float64, Å, positive.

        Returns:
            phi (n_pairs,) float64, eV, and dphi/dd (n_pairs,), eV/Å: zero at and beyond the cutoff, two times
            continuously differentiable; by operations through which autograd differentiates phi twice.
        """


def add_to_atoms(energies: Tensor, phi: Tensor, idx_i: Tensor, idx_j: Tensor, half: bool) -> Tensor:
    """Energies of atoms with half of every pair's energy added to either atom.

    Args:
        energies: (n_atoms,) float64, eV.
        phi: energy of each pair, (n_pairs,) float64, eV.
        idx_i: one atom of each pair, (n_pairs,) int64.
        idx_j: the other, (n_pairs,) int64.
        half: whether every pair stands once; else both ways.

    Returns:
        (n_atoms,), eV.
    """
    energies = energies.index_add(0, idx_i, 0.5 * phi)
    return energies.index_add(0, idx_j, 0.5 * phi) if half else energies
