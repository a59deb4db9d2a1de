"""What a radial basis is."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class RadialBasis(nn.Module, ABC):
    """Functions of a distance from which filters are made.

    A subclass defines `__init__(n_rbf, rbf_range)`, which calls this one, and `forward`; a line in
    `scschnet/nn/basis/__init__.py` gives it a name. Filters are tabulated, which needs of a basis that it is
    finite and smooth (its fifth derivative is continuous) in float64 at every distance from 6 grid steps, at most
    `width`, below zero to 9 steps beyond the cutoff, and that it has no trainable parameters: tables have no
    gradient in a basis, so `SchNet` refuses one that has.

    Args:
        width: Å, positive: a length over which the functions change by about their size, such as the standard
            deviation of a Gaussian; tables begin with steps of a sixth of it.
        reach: Å, distance beyond which the functions do not change any more, or `inf`.
    """

    def __init__(self, width: float, reach: float) -> None:
        super().__init__()
        self.width, self.reach = width, reach

    @abstractmethod
    def forward(self, d_ij: Tensor) -> Tensor:
        """Values of all functions at each distance.

        Args:
            d_ij: (n_pairs,), Å.

        Returns:
            (n_pairs, n_rbf), dtype and device of `d_ij`, by operations that autograd differentiates twice.
        """
