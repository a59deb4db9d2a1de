"""The filter generator: from radial basis to the filters of a continuous-filter convolution."""

from torch import Tensor, nn

from scschnet.nn.activation import shifted_softplus
from scschnet.nn.linear import xavier_linear


class FilterGenerator(nn.Module):
    """Two dense layers that turn the radial basis of a distance into one filter per feature.

    W(d) = ssp(rbf(d) A1 + b1) A2 + b2      Schuett et al. 2017, arXiv:1706.08566

    The cutoff function is not part of it: the convolution applies it per pair.

    Args:
        n_rbf: radial basis functions.
        n_filters: filters, one per feature of the convolution.
    """

    def __init__(self, n_rbf: int, n_filters: int) -> None:
        super().__init__()
        self.hidden = xavier_linear(n_rbf, n_filters)
        self.output = xavier_linear(n_filters, n_filters)

    def forward(self, rbf: Tensor) -> Tensor:
        """Args: rbf (n_pairs, n_rbf). Returns: filters (n_pairs, n_filters)."""
        return self.output(shifted_softplus(self.hidden(rbf)))
