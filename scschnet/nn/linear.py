"""Dense layers with SchNet's initialization."""

from torch import nn


def xavier_linear(n_in: int, n_out: int, bias: bool = True) -> nn.Linear:
    """Linear layer with Glorot-uniform weights and zero bias, as in SchNet (doi:10.1063/1.5019779).

    Args:
        n_in: input features.
        n_out: output features.
        bias: whether the layer has a bias.
    """
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
