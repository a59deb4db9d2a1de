"""The training loss, of a batch and of the validation part."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet.data import Batch, StructureSet
from scschnet.evaluate import Error, Predictions, error
from scschnet.runs.config import TrainConfig
from scschnet.train.resident import LABELS, Labels

_ENTRIES = {"energy": 1, "forces": 3, "stress": 9}  # of a row


class Loss:
    """Weighted mean square errors of energy, forces and stress.

    `per_atom`: rho MSE(E / n) + (1 - rho) MSE(F) + stress_weight MSE(V sigma / n), with n atoms in the volume V:
    energy and virial of an atom, so that large structures do not drown small ones and the weights mean
    the same for every size. `total`: rho MSE(E) + (1 - rho) MSE(F) + stress_weight MSE(sigma), the
    loss of Schuett et al. 2018, doi:10.1063/1.5019779.

    Means run over all entries that have a label: structures for E, components for F and sigma. The
    weight of a structure multiplies the squares of all its errors. The losses of the shares of a
    batch add up to its loss.

    Args:
        config: options `loss`, `rho` and `stress_weight`.
        structures: the training part.

    Attributes:
        weights: of the mean squares of energy, forces and stress; zero: not trained on.

    Raises:
        ValueError: if the training part has none of the labels that the weights ask for.
    """

    def __init__(self, config: TrainConfig, structures: StructureSet) -> None:
        self.per_atom = config.loss == "per_atom"
        given = (config.rho, 1.0 - config.rho, config.stress_weight)
        self.weights = dict(zip(LABELS, given, strict=True))
        labeled = _labeled(structures)
        self._scaled: dict[str, float] = {}
        self._is_partial: dict[str, bool] = {}
        for name, weight in self.weights.items():
            rows = structures.n_atoms if name == "forces" else np.ones(len(structures))
            share = float(rows[labeled[name]].sum() / max(rows.sum(), 1))
            if weight > 0 and share == 0:
                raise ValueError(f"no structure of the training part has {name}")
            self._scaled[name] = weight / share if weight > 0 else 0.0
            self._is_partial[name] = not labeled[name].all()

    @property
    def names(self) -> tuple[str, ...]:
        """Those of energy, forces and stress that are trained on."""
        return tuple(name for name, weight in self.weights.items() if weight > 0)

    @property
    def derivatives(self) -> dict[str, bool]:
        """Whether the model must return forces, and stress."""
        return {name: self.weights[name] > 0 for name in ("forces", "stress")}

    def __call__(
        self,
        result: dict[str, Tensor],
        labels: Labels,
        n_structures: int | Tensor,
        n_atoms: int | Tensor,
    ) -> Tensor:
        """Loss of a batch, or of a share of it.

        Args:
            result: what the model returned for the share.
            labels: those of the share.
            n_structures: structures in the whole batch, with and without labels.
            n_atoms: atoms in the whole batch.

        Returns:
            Scalar, float64; eV^2 and (eV/Å)^2 are added as numbers.
        """
        terms = []
        for name, weight in self._scaled.items():
            label = getattr(labels, name)
            if weight == 0.0 or label is None:
                continue
            difference = result[name] - label
            if self._is_partial[name]:
                unknown = torch.isnan(label)
                if name == "stress":
                    unknown = unknown | ~(labels.volumes > 0).view(-1, 1, 1)
                difference = difference.masked_fill(unknown, 0.0)
            if self.per_atom and name != "forces":
                size = labels.sizes.clamp(min=1)
                if name == "energy":
                    difference = difference / size
                else:
                    difference = difference * (labels.volumes.nan_to_num() / size).view(-1, 1, 1)
            squares = torch.square(difference)
            if labels.weights is not None:
                rows = labels.idx_m if name == "forces" else slice(len(difference))
                squares = squares * labels.weights[rows].view(-1, *[1] * (squares.dim() - 1))
            n_rows = n_atoms if name == "forces" else n_structures
            terms.append(squares.sum() * (weight / _ENTRIES[name]) / n_rows)
        if not terms:
            return result["energy"].new_zeros(())
        return sum(terms[1:], terms[0])

    def check_validation(self, structures: StructureSet) -> None:
        """Check that the validation part can tell which epoch was best.

        Args:
            structures: the validation part.

        Raises:
            ValueError: naming what is trained on and no structure of it has.
        """
        for name in self.names:
            if not _labeled(structures)[name].any():
                raise ValueError(
                    f"{name} is trained on, but no structure of the validation part has it, so that the "
                    "best epoch could not be told; a larger --n-val or another --split-seed may help"
                )

    def errors(self, predictions: Predictions, structures: StructureSet) -> dict[str, Error]:
        """Errors as the loss counts them, over structures that have labels.

        Args:
            predictions: of all structures, in their order.
            structures: the structures, with labels.

        Returns:
            loss_energy, loss_forces, loss_stress: those that are trained on.
        """
        found = {}
        for name in self.names:
            predicted, label = getattr(predictions, name), getattr(structures, name)
            if predicted is not None and label is not None:
                factor = self._factors(name, structures).reshape(-1, *[1] * (label.ndim - 1))
                if name == "stress":
                    label = np.where(structures.has_volume[:, None, None], label, np.nan)
                found[f"loss_{name}"] = error(predicted * factor, label * factor)
        return found

    def of(self, errors: dict[str, Error]) -> float:
        """The loss from `errors`; a kind of label that no structure had counts nothing.

        Args:
            errors: with those that `errors` returned, of one or of many processes.
        """
        loss = 0.0
        for name in self.names:
            found = errors.get(f"loss_{name}")
            if found is not None and found.n:
                loss += self.weights[name] * found.rmse**2
        return loss

    def _factors(self, name: str, structures: StructureSet) -> NDArray[np.float64]:
        """What errors are multiplied by, one number for each row of the label."""
        factors = np.ones(len(structures))
        if structures.weights is not None:
            factors = np.sqrt(structures.weights)
        if self.per_atom and name != "forces":
            factors = factors / np.maximum(structures.n_atoms, 1)
        if self.per_atom and name == "stress":
            factors = factors * np.abs(np.linalg.det(structures.cells))
        return factors[structures.idx_m] if name == "forces" else factors


def _labeled(structures: StructureSet) -> dict[str, NDArray[np.bool_]]:
    """Which structures have each label; what has no volume has no stress, whatever its file says."""
    labeled = structures.labeled
    return labeled | {"stress": labeled["stress"] & structures.has_volume}


def labels_of(batch: Batch) -> Labels:
    """The labels of a batch, with what the loss weighs them by.

    Args:
        batch: structures with labels.
    """
    return Labels(
        energy=batch.energy,
        forces=batch.forces,
        stress=batch.stress,
        sizes=batch.atom_ptr.diff(),
        volumes=torch.linalg.det(batch.cells).abs(),
        idx_m=batch.idx_m,
        weights=batch.weights,
    )
