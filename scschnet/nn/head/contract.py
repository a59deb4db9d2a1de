"""The contract of a readout head: a property of structures that is made of a representation of its own."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scschnet.nn.float64 import Float64Buffers
from scschnet.nn.readout import Readout


class Head(Float64Buffers, ABC):
    """A property besides the energy, made in two steps: values of atoms, and what these become for a structure.

    The head of a property p reads x_p^out = sum_l w_p^(l) v^(l), with contribution weights of its own; the blocks are
    those of all. A network of its own, `readout`, makes a number g_i of each atom. A subclass says in `atom_values` and
    `pool` how these become the property, and in `fit` how scale and offsets are taken from labels, so that g_i is of
    the size of one. A line in `scschnet/nn/head/__init__.py` gives the kind its name. Parameters are trained together
    with those of the network. A head must be scriptable by TorchScript, because exported files hold it.

    Args:
        n_features: features per atom.
        max_z: largest atomic number.

    Attributes:
        scale: of the readout, () float64.
        offset: of every element, (max_z + 1,) float64.
        spread: of the labels around what the offsets say, () float64: one in the loss.
    """

    shape: tuple[int, ...] = ()
    """Of the property of one structure."""
    is_of_molecules = False
    """Whether it means nothing for a periodic structure."""
    scale: Tensor
    offset: Tensor
    spread: Tensor

    def __init__(self, n_features: int, max_z: int) -> None:
        super().__init__()
        self.readout = Readout(n_features)
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("offset", torch.zeros(max_z + 1, dtype=torch.float64))
        self.register_buffer("spread", torch.ones((), dtype=torch.float64))

    def atom_values(self, x_out: Tensor, atomic_numbers: Tensor) -> Tensor:
        """The values of every atom, from which `pool` makes the property; unless overridden g_i scale + offset[Z_i].

        Args:
            x_out: x_p^out, (n_atoms, n_features), in the dtype of the network.
            atomic_numbers: (n_atoms,) int64.

        Returns:
            (n_atoms,) float64.
        """
        g = self.readout(x_out)
        return torch.addcmul(self.offset[atomic_numbers], g.double(), self.scale)

    @abstractmethod
    def pool(
        self,
        values: Tensor,
        positions: Tensor,
        atomic_numbers: Tensor,
        idx_m: Tensor,
        n_structures: int,
    ) -> Tensor:
        """The property of every structure.

        Args:
            values: from `atom_values`, (n_atoms,) float64.
            positions: (n_atoms, 3) float64, Å.
            atomic_numbers: (n_atoms,) int64.
            idx_m: structure of each atom, (n_atoms,) int64.
            n_structures: number of structures.

        Returns:
            (n_structures, *shape) float64.
        """

    def fit(self, labels: Tensor, positions: Tensor, atomic_numbers: Tensor, idx_m: Tensor) -> None:
        """Take scale, offsets and spread from structures whose property is known.

        Unless overridden: offsets of the elements by least squares, which suits a property that is linear in the
        values of atoms.

        Args:
            labels: (n_structures, *shape) float64.
            positions: (n_atoms, 3) float64, Å.
            atomic_numbers: (n_atoms,) int64.
            idx_m: structure of each atom, (n_atoms,) int64.
        """
        weights = self.weights_of_atoms(positions, atomic_numbers, idx_m, len(labels))
        elements, kind = torch.unique(atomic_numbers, return_inverse=True)
        table = labels.new_zeros([len(labels), len(elements)])
        table.index_put_((idx_m, kind), weights, accumulate=True)
        found = torch.linalg.lstsq(table, labels[:, None], driver="gelsd").solution[:, 0]
        self.offset[elements] = found
        squares = weights.new_zeros(len(labels)).index_add(0, idx_m, weights.square())
        self.set_spread(labels - table @ found, squares)

    def weights_of_atoms(
        self, positions: Tensor, atomic_numbers: Tensor, idx_m: Tensor, n_structures: int
    ) -> Tensor:
        """What the property is for one atom of value one, all others zero, (n_atoms,); for the `fit` of the contract."""
        return torch.ones_like(positions[:, 0])

    def set_spread(self, left: Tensor, squares: Tensor) -> None:
        """Set spread and scale.

        Args:
            left: of the labels, less what the offsets say, (n_structures, *shape).
            squares: sum of the squared weights of the atoms of each structure, (n_structures,).
        """
        spread = float(left.square().mean().sqrt())
        norm = float(squares.mean().sqrt())
        self.spread.fill_(spread if spread > 0 else 1.0)
        self.scale.fill_(spread / norm if spread > 0 and norm > 0 else 1.0)
