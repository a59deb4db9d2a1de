"""From atom features to energies: the readout network, and the offsets kept in float64."""

import torch
from torch import Tensor, nn

from scschnet.nn.activation import shifted_softplus
from scschnet.nn.float64 import Float64Buffers
from scschnet.nn.linear import xavier_linear


class Readout(nn.Module):
    """Energy of each atom before scale and offsets.

    g(x) = ssp(x C1 + c1) C2 + c2,  n_features -> n_features / 2 -> 1      doi:10.1063/1.5019779

    Args:
        n_features: features per atom, at least 2.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.hidden = xavier_linear(n_features, n_features // 2)
        self.output = xavier_linear(n_features // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (n_atoms, n_features). Returns: (n_atoms,), no unit."""
        return self.output(shifted_softplus(self.hidden(x))).squeeze(1)


class EnergyOffsets(Float64Buffers):
    """Scale, shift and reference energies per element, always float64.

    E_i = g_i * scale + shift + atomref[Z_i].  Total energies reach 10^4 eV and more, where float32
    resolves no better than 1 meV; so these numbers are stored and added in float64, whatever the
    dtype of the network.

    Args:
        max_z: largest atomic number.
    """

    scale: Tensor
    shift: Tensor
    atomref: Tensor

    def __init__(self, max_z: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("shift", torch.zeros((), dtype=torch.float64))
        self.register_buffer("atomref", torch.zeros(max_z + 1, dtype=torch.float64))

    def forward(self, g: Tensor, atomic_numbers: Tensor) -> Tensor:
        """Args: g (n_atoms,), atomic_numbers (n_atoms,). Returns: energies (n_atoms,) float64, eV."""
        offsets = (self.atomref + self.shift).index_select(0, atomic_numbers)
        return torch.addcmul(offsets, g, self.scale)  # in float64, whatever g is
