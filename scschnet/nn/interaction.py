"""The interaction block: one correction of the atom features from the atoms' surroundings."""

from collections.abc import Callable

from torch import Tensor, nn

from scschnet.nn.activation import shifted_softplus
from scschnet.nn.filter import FilterGenerator
from scschnet.nn.linear import xavier_linear

Convolution = Callable[[Tensor], Tensor]


class Interaction(nn.Module):
    """One SchNet block.

    y_i = sum_j (W_in x_j) o W(d_ij),   v_i = ssp(y_i B1 + c1) B2 + c2      doi:10.1063/1.5019779

    Args:
        n_features: features per atom, also the number of filters.
        n_rbf: radial basis functions.
    """

    def __init__(self, n_features: int, n_rbf: int) -> None:
        super().__init__()
        self.filter_generator = FilterGenerator(n_rbf, n_features)
        self.input = xavier_linear(n_features, n_features, bias=False)
        self.hidden = xavier_linear(n_features, n_features)
        self.output = xavier_linear(n_features, n_features)

    def forward(self, x: Tensor, convolution: Convolution) -> Tensor:
        """The correction v that this block adds to the features.

        Args:
            x: features, (n_atoms, n_features).
            convolution: from (n_atoms, n_features) to the same, with this block's filters.

        Returns:
            (n_atoms, n_features).
        """
        y = convolution(self.input(x))
        return self.output(shifted_softplus(self.hidden(y)))
