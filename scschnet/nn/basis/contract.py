"""The contract of a radial basis."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class RadialBasis(nn.Module, ABC):
    """Functions of the distance from which filters are made.

    A subclass defines `__init__(n_rbf, rbf_range)`, which calls this one, and `forward`. A line in
    `scschnet/nn/basis/__init__.py` gives it a name.

    Filters are tabulated, and tables reach beyond the distances that occur. So a basis must be finite and smooth (its
    fifth derivative is continuous) in float64 from 6 grid steps below zero, which are at most one `width`, to 9 grid
    steps beyond the cutoff. It must have no trainable parameters, because tables have no gradient in a basis:
    `SchNet` refuses one that has some.

    Args:
        width: Å, positive: the length over which the functions change by about their own size, such as the standard
            deviation of a Gaussian. The first choice of the grid step is a sixth of it or less.
        reach: Å, the distance beyond which the functions no longer change, or `inf`.
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
            (n_pairs, n_rbf), of the dtype and on the device of `d_ij`; autograd must be able to differentiate it twice.
        """
