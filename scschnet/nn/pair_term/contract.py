"""The contract of a pair term: an energy of two elements and a distance that is added to the network's."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from scschnet.nn.float64 import Float64Buffers


class PairTerm(Float64Buffers, ABC):
    """An energy phi(Z_i, Z_j, d_ij) of every pair, half of which belongs to each of its atoms.

    A subclass defines `forward`. A line in `scschnet/nn/pair_term/__init__.py` gives it a name. The energy of a model
    is that of the network plus this one, so the network is trained on what the term leaves of the labels. A term must
    be scriptable by TorchScript, because exported files hold it, and it has no trainable parameters.

    Args:
        elements: atomic numbers the model was made for, ascending.
        cutoff: of the model, Å; the term is zero from there on, if not before.
    """

    index: Tensor
    """(max_z + 1,) int64, position of each atomic number in `elements`; 0 for elements that the model does not know"""

    def __init__(self, elements: Sequence[int], cutoff: float, max_z: int = 118) -> None:
        super().__init__()
        self.cutoff = cutoff
        index = torch.zeros(max_z + 1, dtype=torch.int64)
        index[list(elements)] = torch.arange(len(elements))
        self.register_buffer("index", index, persistent=False)

    def reach(self) -> Tensor:
        """Distance from which on the term is zero for every two elements, a float64 scalar, Å; here the cutoff.

        Only pairs below it are handed to `forward`, except in a captured step, whose shapes are fixed.
        """
        return torch.full([], self.cutoff, dtype=torch.float64)

    def ranges_of(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Distance from which on the term is zero for the two elements of each pair, (n_pairs,) float64, Å; here `reach`.

        An exported model skips all pairs that lie beyond it.

        Args:
            z_i: atomic number of one atom of each pair, (n_pairs,) int64; any number from 0 to `max_z`.
            z_j: of the other, (n_pairs,) int64.
        """
        return self.reach().expand(z_i.size(0))

    def fit(self, shortest: Tensor) -> None:
        """Take from the training set what the term needs of it, before a training begins; here nothing.

        What is taken goes into buffers that are stored in checkpoints.

        Args:
            shortest: shortest distance of every two elements in the training structures, in the order of `elements`,
                (n_elements, n_elements) float64, Å; infinite where the two never come within the cutoff.
        """

    def fitted(self) -> Tensor | None:
        """What `fit` was given, as far as it changes the term, so that it can be fitted to further structures; None: nothing."""
        return None

    @abstractmethod
    def forward(self, z_i: Tensor, z_j: Tensor, d_ij: Tensor) -> tuple[Tensor, Tensor]:
        """Energy of every pair, and its derivative in the distance.

        Args:
            z_i: atomic number of one atom of each pair, (n_pairs,) int64; any number from 0 to `max_z`.
            z_j: of the other, (n_pairs,) int64. The term is the same if they change places.
            d_ij: distances, (n_pairs,) float64, Å, positive.

        Returns:
            phi (n_pairs,) float64, eV, and dphi/dd (n_pairs,), eV/Å. phi is twice continuously differentiable and
            zero at and beyond the cutoff, and autograd must be able to differentiate it twice.
        """


def add_to_atoms(energies: Tensor, phi: Tensor, idx_i: Tensor, idx_j: Tensor, half: bool) -> Tensor:
    """Energies of atoms, with half of every pair's energy added to each of its atoms.

    Args:
        energies: (n_atoms,) float64, eV.
        phi: energy of each pair, (n_pairs,) float64, eV.
        idx_i: one atom of each pair, (n_pairs,) int64.
        idx_j: the other, (n_pairs,) int64.
        half: whether the list holds every pair once; otherwise it holds both ways.

    Returns:
        (n_atoms,), eV.
    """
    energies = energies.index_add(0, idx_i, 0.5 * phi)
    return energies.index_add(0, idx_j, 0.5 * phi) if half else energies
