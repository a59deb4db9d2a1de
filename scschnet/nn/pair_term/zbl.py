"""Screened repulsion of the nuclei."""

from collections.abc import Sequence

import torch
from ase.data import covalent_radii
from torch import Tensor

from scschnet.nn.pair_term.contract import PairTerm

COULOMB = 14.399645  # e^2 / (4 pi epsilon_0), eV Å
AMPLITUDES = (0.18175, 0.50986, 0.28022, 0.02817)
DECAYS = (3.19980, 0.94229, 0.40290, 0.20162)
REACH = 0.8  # of the sum of the covalent radii: below the bonds of the two elements


class ZBL(PairTerm):
    """The universal potential of Ziegler, Biersack and Littmark, switched off below bonding distances.

    phi(d) = Z_i Z_j e^2 / d  sum_k c_k exp(-b_k d / a) u(d / r),   a = 0.46850 Å / (Z_i^0.23 + Z_j^0.23)
    u(x) = 1 - 28 x^6 + 48 x^7 - 21 x^8  below x = 1, else 0
    Ziegler, Biersack, Littmark 1985, The Stopping and Range of Ions in Matter; constants as in LAMMPS's pair style
    zbl. r is 0.8 times the sum of the covalent radii (Cordero et al. 2008, doi:10.1039/b801115j), at most the cutoff;
    u and its first two derivatives are zero there (Gasteiger et al. 2020, arXiv:2003.03123, Eq. 8).

    Args:
        elements: atomic numbers the model was made for, ascending.
        cutoff: of the model, Å.
    """

    charges: Tensor
    inverse_lengths: Tensor
    ranges: Tensor
    amplitudes: Tensor
    decays: Tensor

    def __init__(self, elements: Sequence[int], cutoff: float) -> None:
        super().__init__(elements, cutoff)
        z = torch.tensor(list(elements), dtype=torch.float64)
        radii = torch.tensor([float(covalent_radii[n]) for n in elements], dtype=torch.float64)
        ranges = REACH * (radii[:, None] + radii[None, :])
        values = {
            "charges": COULOMB * z[:, None] * z[None, :],
            "inverse_lengths": (z[:, None] ** 0.23 + z[None, :] ** 0.23) / 0.46850,
            "ranges": ranges.clamp(max=cutoff),
            "amplitudes": torch.tensor(AMPLITUDES, dtype=torch.float64),
            "decays": torch.tensor(DECAYS, dtype=torch.float64),
        }
        for name, value in values.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, z_i: Tensor, z_j: Tensor, d_ij: Tensor) -> tuple[Tensor, Tensor]:
        """As in the contract."""
        i, j = self.index[z_i], self.index[z_j]
        range_ = self.ranges[i, j]
        x = torch.clamp(d_ij / range_, max=1.0)
        switch = 1.0 + x**6 * (-28.0 + x * (48.0 - 21.0 * x))
        switch_slope = -168.0 * x**5 * (1.0 - x) ** 2 / range_
        bare, bare_slope = self.bare(i, j, d_ij)
        return bare * switch, bare_slope * switch + bare * switch_slope

    def reach(self) -> Tensor:
        """As in the contract."""
        return self.ranges.max()

    def ranges_of(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """As in the contract."""
        return self.ranges[self.index[z_i], self.index[z_j]]

    def bare(self, i: Tensor, j: Tensor, d_ij: Tensor) -> tuple[Tensor, Tensor]:
        """The potential that is not switched off, and its slope; `i` and `j` index the elements."""
        rates = self.decays * self.inverse_lengths[i, j].unsqueeze(1)
        screens = self.amplitudes * torch.exp(-rates * d_ij.unsqueeze(1))
        coulomb = self.charges[i, j] / d_ij
        value = coulomb * screens.sum(1)
        return value, -value / d_ij - coulomb * (rates * screens).sum(1)
