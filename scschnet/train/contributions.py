"""Statistics of the contribution weights over the minibatches of an epoch."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scschnet.runs.contributions import LayerContribution


class ContributionStatistics:
    """Running mean and spread of the normalized contribution weights of an epoch.

    w_hat^(l) = w^(l) mean_i ||v_i^(l)||      Eq. 5 of Nicoli et al. 2018, arXiv:1810.09751

    The mean runs over the atoms of a minibatch, never over padding, and never enters the energy. All properties
    share the norms, and each has its own weights.

    Args:
        n_layers: number of interaction blocks + 1.
        properties: names of the rows of weights; energy is the only one unless there are heads.
    """

    def __init__(self, n_layers: int, properties: Sequence[str] = ("energy",)) -> None:
        self.properties = tuple(properties)
        shape = (n_layers,) if self.properties == ("energy",) else (len(properties), n_layers)
        self.n = 0
        self.norm_sum = torch.zeros(n_layers, dtype=torch.float64)
        self.weight_sum = torch.zeros(shape, dtype=torch.float64)
        self.square_sum = torch.zeros(shape, dtype=torch.float64)

    def add(self, weights: Tensor, norms: Tensor) -> None:
        """Add a minibatch.

        Args:
            weights: contribution weights that were used, (n_layers,), or a row for each property.
            norms: ||v_i^(l)||, averaged over the atoms of the minibatch, (n_layers,) float64.
        """
        norms = norms.cpu()
        normalized = weights.detach().double().cpu().view_as(self.weight_sum) * norms
        self.n += 1
        self.norm_sum += norms
        self.weight_sum += normalized
        self.square_sum += normalized * normalized

    def rows(self, weights: Tensor) -> list[LayerContribution]:
        """The epoch's rows, given the contribution weights at its end, as in `add`; property by property."""
        n_layers = len(self.norm_sum)
        weights = weights.view(-1, n_layers)
        mean = (self.weight_sum / self.n).view(-1, n_layers)
        variance = (self.square_sum / self.n).view(-1, n_layers) - mean * mean
        return [
            LayerContribution(
                layer=layer,
                weight=float(weights[k, layer]),
                mean_norm=float(self.norm_sum[layer] / self.n),
                normalized_weight=float(mean[k, layer]),
                normalized_weight_std=math.sqrt(max(0.0, float(variance[k, layer]))),
                property=name,
            )
            for k, name in enumerate(self.properties)
            for layer in range(n_layers)
        ]

    def state_dict(self) -> dict[str, int | Tensor]:
        """All sums, for a checkpoint."""
        return {
            "n": self.n,
            "norm_sum": self.norm_sum,
            "weight_sum": self.weight_sum,
            "square_sum": self.square_sum,
        }

    def load_state_dict(self, state: dict[str, int | Tensor]) -> None:
        """Go on from the sums of a checkpoint."""
        for name, value in state.items():
            setattr(self, name, value)
