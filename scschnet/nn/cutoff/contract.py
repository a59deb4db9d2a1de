"""The contract of a cutoff function, and how it becomes the data that the compiled operators read."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from numpy.polynomial import chebyshev, polynomial
from torch import Tensor

from scschnet.nn.float64 import Float64Buffers, check_length

N_COEFFICIENTS = 24
MOST_PIECES = 256
# The error to be reached; a function's own values are rounded, so less cannot be asked for.
ACCURACY = 1e-13
# The error that is accepted, a fiftieth of that of filter tables: a function may be defined by parts.
LARGEST_ERROR = 1e-9


class CutoffFunction(Float64Buffers, ABC):
    """A factor of every filter that takes it to zero at the cutoff.

    A subclass defines `value`. A line in `scschnet/nn/cutoff/__init__.py` gives it a name. The operators read
    `pieces`, which are polynomials that equal the function to rounding; so no compiled code knows any cutoff function.

    Args:
        cutoff: Å, positive.

    Raises:
        ValueError: if `cutoff` is not positive and finite, or if polynomials cannot represent `value`.
    """

    smooth: ClassVar[bool] = True
    """Whether the function and its first derivative go to zero at the cutoff. If not, it suits only molecules whose
    pairs are all within the cutoff."""

    pieces: Tensor
    """(n_pieces, n_coefficients) float64, see `polynomial_pieces`"""

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        check_length("cutoff", cutoff)
        self.cutoff = cutoff
        self.register_buffer("pieces", polynomial_pieces(self), persistent=False)

    @abstractmethod
    def value(self, d_ij: Tensor) -> Tensor:
        """The function below the cutoff.

        Args:
            d_ij: distances from zero to below the cutoff, (n_pairs,), Å.

        Returns:
            (n_pairs,), of the dtype and on the device of `d_ij`; autograd must be able to differentiate it twice.
        """

    def forward(self, d_ij: Tensor) -> Tensor:
        """The function at any distance; zero at and beyond the cutoff.

        Args:
            d_ij: (n_pairs,), Å, not negative.

        Returns:
            (n_pairs,), of the dtype and on the device of `d_ij`; autograd may differentiate it twice.
        """
        inside = d_ij < self.cutoff
        return self.value(torch.where(inside, d_ij, 0.0)) * inside.to(d_ij.dtype)


def polynomial_pieces(function: CutoffFunction) -> Tensor:
    """A cutoff function as polynomials on equal pieces of [0, cutoff).

    On piece k the function is sum_p pieces[k, p] y^p, where y = 2 (d n_pieces / cutoff - k) - 1 runs from -1 to 1.
    Each polynomial interpolates the function at Chebyshev's points. The number of pieces is doubled until the error is
    that of rounding.

    Args:
        function: the cutoff function.

    Returns:
        (n_pieces, n_coefficients) float64.

    Raises:
        ValueError: if 256 pieces do not suffice, because the function has a kink or a jump below the cutoff.
    """
    n_pieces = 1
    pieces, error = _interpolated(function, n_pieces)
    while error > ACCURACY and n_pieces < MOST_PIECES:
        n_pieces *= 2
        pieces, error = _interpolated(function, n_pieces)
    if not error <= LARGEST_ERROR:
        raise ValueError(
            f"a cutoff function must be smooth below the cutoff, got {type(function).__name__}, which is off by "
            f"{error:.1e} from polynomials on {MOST_PIECES} pieces"
        )
    return torch.tensor(pieces)


def _interpolated(function: CutoffFunction, n_pieces: int) -> tuple[np.ndarray, float]:
    """Coefficients of the polynomials, and the largest error between their points relative to the largest value."""
    # Chebyshev polynomials are orthogonal on the nodes; sums in double precision would lose a digit.
    pi = 4 * np.arctan(np.longdouble(1))
    angles = (np.arange(N_COEFFICIENTS) + 0.5) * (pi / N_COEFFICIENTS)
    transform = np.cos(np.arange(N_COEFFICIENTS)[:, None] * angles) * (2 / N_COEFFICIENTS)
    transform[0] /= 2
    between = np.linspace(-1.0, 1.0, 41)
    values, wanted = (
        _values(function, n_pieces, y) for y in (np.cos(angles).astype(float), between)
    )
    scale = max(float(np.abs(wanted).max()), 1e-300)
    series = (transform @ values.T).astype(float)
    matters = np.abs(series).max(axis=1) > 1e-16 * scale
    series = series[: max(1, int(np.max(np.flatnonzero(matters), initial=0)) + 1)]
    pieces = np.stack([_padded(chebyshev.cheb2poly(row), len(series)) for row in series.T])
    error = np.abs(polynomial.polyval(between, pieces.T) - wanted).max() / scale
    return pieces, float(error)


def _values(function: CutoffFunction, n_pieces: int, y: np.ndarray) -> np.ndarray:
    """The function at the same points of every piece, (n_pieces, n_points)."""
    u = (np.arange(n_pieces)[:, None] + (y + 1.0) / 2.0) / n_pieces
    d = torch.tensor(u.reshape(-1) * function.cutoff)
    return function.value(d).detach().numpy().reshape(u.shape)


def _padded(coefficients: np.ndarray, n: int) -> np.ndarray:
    return np.pad(coefficients, (0, n - len(coefficients)))
