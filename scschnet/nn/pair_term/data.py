"""Repulsion that begins where the training data end."""

from collections.abc import Sequence

import torch
from ase.data import covalent_radii
from torch import Tensor

from scschnet.nn.pair_term.zbl import REACH, ZBL

BONDED = (
    1.25  # times the sum of the covalent radii: two elements that come nearer are bonded somewhere
)
INNER_BONDED, INNER_CONTACT = (
    0.5,
    0.65,
)  # of the shortest distance, where the wall has its full strength
STRENGTH_CONTACT = 1.5  # of ZBL
ROUNDING = 1e-9  # of distances, relative


class DataRepulsion(ZBL):
    """A repulsive wall per pair of elements below the shortest distance of the training structures.

    phi(d) = k ZBL(d) s((d / r - a) / (1 - a)),   s(t) = 1 - t^3 (10 - 15 t + 6 t^2) from t = 0 to 1, 1 below, 0 above

    r is the shortest distance of the two elements in the training structures, so that the wall is zero on all of
    them. Where r says that the two are bonded (below 1.25 times the sum of their covalent radii) k = 1 and a = 0.5:
    a stiffer wall would be felt by bonds that swing too far. Else k = 1.5 and a = 0.65. Two elements that never meet
    are switched off at 0.8 times the sum of their covalent radii, as ZBL is.

    Args:
        elements: atomic numbers the model was made for, ascending.
        cutoff: of the model, Å.
    """

    inner: Tensor
    strengths: Tensor

    def __init__(self, elements: Sequence[int], cutoff: float) -> None:
        super().__init__(elements, cutoff)
        radii = torch.tensor([float(covalent_radii[n]) for n in elements], dtype=torch.float64)
        self.radii = radii[:, None] + radii[None, :]
        for name in ("ranges", "inner", "strengths"):  # stored in checkpoints
            self.register_buffer(name, torch.ones_like(self.radii))
        self.fit(torch.full_like(self.radii, torch.inf))

    def fit(self, shortest: Tensor) -> None:
        """As in the contract."""
        never = ~shortest.isfinite()
        bonded = never | (shortest < BONDED * self.radii)
        ranges = torch.where(never, REACH * self.radii, shortest)
        ranges = (ranges * (1.0 - ROUNDING)).clamp(
            max=self.cutoff
        )  # exactly zero at the shortest distance
        self.ranges.copy_(ranges)
        self.inner.copy_(torch.where(bonded, INNER_BONDED, INNER_CONTACT))
        self.strengths.copy_(torch.where(bonded, 1.0, STRENGTH_CONTACT))

    def fitted(self) -> Tensor:
        """As in the contract; a distance that was not short enough to be told from none is infinite."""
        never = REACH * self.radii * (1.0 - ROUNDING)
        is_never = torch.isclose(self.ranges, never.clamp(max=self.cutoff), rtol=1e-12, atol=0.0)
        return torch.where(is_never, torch.inf, self.ranges / (1.0 - ROUNDING))

    def forward(self, z_i: Tensor, z_j: Tensor, d_ij: Tensor) -> tuple[Tensor, Tensor]:
        """As in the contract."""
        i, j = self.index[z_i], self.index[z_j]
        inner, range_ = self.inner[i, j], self.ranges[i, j]
        width = range_ * (1.0 - inner)
        t = torch.clamp((d_ij - range_ * inner) / width, 0.0, 1.0)
        switch = self.strengths[i, j] * (1.0 - t**3 * (10.0 + t * (6.0 * t - 15.0)))
        switch_slope = self.strengths[i, j] * (-30.0 * (t * (1.0 - t)) ** 2 / width)
        bare, bare_slope = self.bare(i, j, d_ij)
        return bare * switch, bare_slope * switch + bare * switch_slope
