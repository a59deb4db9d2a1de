"""How unlike the training set an atom is, by the norms of its corrections, which every evaluation computes anyway.

u_i = sqrt( (n_i - m_Z)^T S_Z^-1 (n_i - m_Z) ) / q_Z,   n_i = (||v_i^(1)||, ..., ||v_i^(L)||)

This is the distance of Mahalanobis (1936), with the mean m_Z and the covariance S_Z over the training atoms of the
element Z, divided by its 99 % quantile q_Z over held-out atoms; so one held-out atom in a hundred has u > 1. The norm of
the embedding is the same for all atoms of an element and is left out. This measure is ours, not the paper's.

It is a warning, not a proof: atoms of another molecule whose surroundings are like those trained on stay familiar.
For a model of aspirin, 28 % of the atoms of salicylic acid are above 1, and none of benzene.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from scschnet.nn.config import MAX_Z

KEY = "unfamiliarity"
"""The key of the statistics in the metadata of a checkpoint."""


def unfamiliarity(
    correction_norms: Tensor, atomic_numbers: Tensor, mean: Tensor, whitening: Tensor
) -> Tensor:
    """The score u of every atom, from plain tensors, so that TorchScript can compile it.

    Args:
        correction_norms: ||v_i^(l)||, (n_interactions + 1, n_atoms), as the model returns them.
        atomic_numbers: (n_atoms,) int64.
        mean: m_Z, (max_z + 1, n_interactions) float64.
        whitening: upper triangular R_Z with R_Z R_Z^T = S_Z^-1 / q_Z^2, (max_z + 1, n_interactions, n_interactions)
            float64; both from `NormStatistics.tables`.

    Returns:
        (n_atoms,) float64, no unit, not negative; infinite for elements that the training set does not hold.
    """
    away = correction_norms[1:].double().t() - mean.index_select(0, atomic_numbers)
    scaled = torch.bmm(away.unsqueeze(1), whitening.index_select(0, atomic_numbers))
    return torch.linalg.vector_norm(scaled.squeeze(1), dim=1)


@dataclass(frozen=True, eq=False)
class NormStatistics:
    """The statistics of a training set with which `unfamiliarity` compares.

    Args:
        elements: atomic numbers, ascending.
        mean: m_Z, (n_elements, n_interactions) float64.
        whitening: R_Z, (n_elements, n_interactions, n_interactions) float64.
        levels: of the quantiles below.
        quantiles: of u over held-out atoms, (n_elements, n_levels) float64.
        n_train: atoms of each element that mean and covariance come from.
        n_held_out: atoms of each element that the quantiles come from.
    """

    elements: tuple[int, ...]
    mean: Tensor
    whitening: Tensor
    levels: tuple[float, ...]
    quantiles: Tensor
    n_train: tuple[int, ...]
    n_held_out: tuple[int, ...]

    def tables(self) -> tuple[Tensor, Tensor]:
        """Mean and whitening by atomic number, 0 to 118, as `unfamiliarity` takes them."""
        rows = torch.tensor(self.elements, dtype=torch.int64)
        # Elements without statistics get an infinite score: norms are not negative, so they differ from a mean of -1.
        mean = self.mean.new_full((MAX_Z + 1, *self.mean.shape[1:]), -1.0)
        whitening = self.whitening.new_full((MAX_Z + 1, *self.whitening.shape[1:]), math.inf)
        return mean.index_copy(0, rows, self.mean), whitening.index_copy(0, rows, self.whitening)

    def to_json(self) -> dict[str, Any]:
        """The statistics as plain numbers and lists, for the metadata of a checkpoint or an exported file."""
        tensors = ("mean", "whitening", "quantiles")
        plain = ("elements", "levels", "n_train", "n_held_out")
        return {name: getattr(self, name).tolist() for name in tensors} | {
            name: list(getattr(self, name)) for name in plain
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The statistics from what `to_json` returned.

        Raises:
            ValueError: if something is missing or has the wrong shape.
        """
        try:
            mean, whitening, quantiles = (
                torch.tensor(content[name], dtype=torch.float64)
                for name in ("mean", "whitening", "quantiles")
            )
            elements, levels = tuple(content["elements"]), tuple(content["levels"])
            n_train, n_held_out = tuple(content["n_train"]), tuple(content["n_held_out"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"`content` must be statistics of norms, got none: {error}") from error
        shape = (len(elements), mean.shape[-1], mean.shape[-1])
        if whitening.shape != shape:
            raise ValueError(
                f"`content` must hold a whitening of shape {shape}, got {tuple(whitening.shape)}"
            )
        return cls(elements, mean, whitening, levels, quantiles, n_train, n_held_out)
