"""The shifted softplus, SchNet's activation."""

import math

import torch
from torch import Tensor


def shifted_softplus(x: Tensor) -> Tensor:
    """Softplus that passes through the origin.

    ssp(x) = ln(exp(x) + 1) - ln 2      Schuett et al. 2017, arXiv:1706.08566

    Args:
        x: any shape.

    Returns:
        Same shape, dtype and device as `x`; differentiable as often as needed.
    """
    return torch.nn.functional.softplus(x) - math.log(2.0)
