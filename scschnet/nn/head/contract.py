"""The contract of a readout head: a property of structures that is made of the representation x^out."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Head(nn.Module, ABC):
    """A property besides the energy, made in two steps: values of atoms, and what these become for a structure.

    A subclass defines `__init__(n_features)` and `atom_values`, and `pool` if the property is not the sum over atoms. A
    line in `scschnet/nn/head/__init__.py` gives it a name, which is the key of the result. Its parameters are trained
    together with those of the network, because gradients pass through x^out. A head must be scriptable by TorchScript,
    because exported files hold it.
    """

    @abstractmethod
    def atom_values(self, x_out: Tensor, atomic_numbers: Tensor) -> Tensor:
        """The values of every atom, from which `pool` makes the property.

        Args:
            x_out: x^out, (n_atoms, n_features), in the dtype of the network.
            atomic_numbers: (n_atoms,) int64.

        Returns:
            (n_atoms, n_values).
        """

    def pool(self, values: Tensor, positions: Tensor, idx_m: Tensor, n_structures: int) -> Tensor:
        """The property of every structure; unless a subclass overrides this, the sum over its atoms.

        Args:
            values: from `atom_values`, (n_atoms, n_values).
            positions: (n_atoms, 3) float64, Å.
            idx_m: structure of each atom, (n_atoms,) int64.
            n_structures: number of structures.

        Returns:
            (n_structures, ...).
        """
        total = values.new_zeros([n_structures, values.size(1)])
        return total.index_add(0, idx_m, values)
