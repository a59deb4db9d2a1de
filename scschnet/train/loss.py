"""The training loss, of a batch and of the validation part."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet import ops
from scschnet.data import Batch, StructureSet
from scschnet.evaluate import Predictions, error
from scschnet.quantities import NAMES, ON_DEMAND, QUANTITIES, Error, Quantity
from scschnet.runs.config import TrainConfig
from scschnet.train.resident import Labels


class Loss:
    """Weighted mean square errors of energy, forces, stress and the properties that heads learn.

    `per_atom`: rho MSE(E / n) + (1 - rho) MSE(F) + stress_weight MSE(V sigma / n), with n atoms in the volume V:
    energy and virial of an atom, so that large structures do not drown small ones and the weights mean
    the same for every size. `total`: rho MSE(E) + (1 - rho) MSE(F) + stress_weight MSE(sigma), the
    loss of Schuett et al. 2018, doi:10.1063/1.5019779.
    A property p adds weight_p MSE(p) / spread_p^2, with the spread of the training labels around the offsets of its
    head, so that properties in any units count alike.

    Means run over all entries that have a label: structures for E, components for F and sigma. The
    weight of a structure multiplies the squares of all its errors. The losses of the shares of a
    batch add up to its loss.

    Args:
        config: options `loss`, `rho`, `stress_weight`, `properties` and `property_weights`.
        structures: the training part.
        spreads: of every property.

    Attributes:
        weights: of the mean squares of energy, forces and stress; zero: not trained on.

    Raises:
        ValueError: if the training part has none of the labels that the weights ask for.
    """

    def __init__(
        self,
        config: TrainConfig,
        structures: StructureSet,
        spreads: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.per_atom = config.loss == "per_atom"
        self.weights = config.label_weights
        self.spreads = spreads
        labeled = structures.comparable
        self._scaled: dict[Quantity, float] = {}
        self._is_partial: dict[Quantity, bool] = {}
        for quantity in structures.quantities:
            name, weight = quantity.name, self.weights.get(quantity.name, 0.0)
            rows = structures.n_atoms if quantity.per_atom else np.ones(len(structures))
            share = float(rows[labeled[name]].sum() / max(rows.sum(), 1))
            if weight > 0 and share == 0:
                raise ValueError(f"no structure of the training part has {name}")
            squared = spreads.get(name, 1.0) ** 2
            self._scaled[quantity] = weight / (share * squared) if weight > 0 else 0.0
            self._is_partial[quantity] = not labeled[name].all()

    @property
    def names(self) -> tuple[str, ...]:
        """What is trained on."""
        return tuple(name for name, weight in self.weights.items() if weight > 0)

    @property
    def derivatives(self) -> dict[str, bool]:
        """Whether the model must return forces, and stress, beside the energy."""
        return {name: self.weights[name] > 0 for name in ON_DEMAND}

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
        asked = [quantity for quantity, weight in self._scaled.items() if weight > 0.0]
        if ops.trains_on(labels.volumes.device) and all(q in QUANTITIES for q in asked):
            return self._in_one_launch(result, labels, n_structures, n_atoms)
        terms = []
        for quantity, weight in self._scaled.items():
            label = quantity.of(labels)
            if weight == 0.0 or label is None:
                continue
            difference = result[quantity.name] - label
            if self._is_partial[quantity]:
                unknown = torch.isnan(label)
                if quantity.needs_volume:
                    unknown = unknown | ~(labels.volumes > 0).view(-1, *quantity.ones)
                difference = difference.masked_fill(unknown, 0.0)
            if self.per_atom and quantity.is_extensive:
                size = labels.sizes.clamp(min=1)
                if quantity.needs_volume:
                    volumes = labels.volumes.nan_to_num()
                    difference = difference * (volumes / size).view(-1, *quantity.ones)
                else:
                    difference = difference / size.view(-1, *quantity.ones)
            squares = torch.square(difference)
            if labels.weights is not None:
                rows = labels.idx_m if quantity.per_atom else slice(len(difference))
                squares = squares * labels.weights[rows].view(-1, *quantity.ones)
            n_rows = n_atoms if quantity.per_atom else n_structures
            terms.append(squares.sum() * (weight / quantity.size) / n_rows)
        if not terms:
            return labels.volumes.new_zeros(())
        return sum(terms[1:], terms[0])

    def _in_one_launch(
        self,
        result: dict[str, Tensor],
        labels: Labels,
        n_structures: int | Tensor,
        n_atoms: int | Tensor,
    ) -> Tensor:
        """The same on a GPU, of energy, forces and stress."""
        values, found, factors = [], [], []
        for quantity in QUANTITIES:
            weight = self._scaled.get(quantity, 0.0)
            label = quantity.of(labels) if weight > 0 else None
            values.append(None if label is None else result[quantity.name])
            found.append(label)
            factors.append(weight / quantity.size)
        of_all, atoms = (torch.as_tensor(n).to(labels.volumes) for n in (n_structures, n_atoms))
        return ops.squared_errors(
            values,
            found,
            labels.sizes,
            labels.volumes,
            labels.idx_m,
            labels.weights,
            of_all,
            atoms,
            factors,
            self.per_atom,
        )

    def check_validation(self, structures: StructureSet) -> None:
        """Check that the validation part can tell which epoch was best.

        Args:
            structures: the validation part.

        Raises:
            ValueError: naming what is trained on and no structure of it has.
        """
        for name in self.names:
            if not structures.comparable[name].any():
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
            loss_energy, loss_forces, loss_stress, loss_mu ...: those that are trained on.
        """
        found = {}
        for quantity in structures.quantities:
            predicted, label = quantity.of(predictions), structures.label(quantity)
            if (
                self.weights.get(quantity.name, 0.0) > 0
                and predicted is not None
                and label is not None
            ):
                factor = self._factors(quantity, structures).reshape(-1, *quantity.ones)
                found[f"loss_{quantity.name}"] = error(predicted * factor, label * factor)
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

    def _factors(self, quantity: Quantity, structures: StructureSet) -> NDArray[np.float64]:
        """What errors are multiplied by, one number for each row of the label."""
        factors = np.ones(len(structures))
        if structures.weights is not None:
            factors = np.sqrt(structures.weights)
        factors = factors / self.spreads.get(quantity.name, 1.0)
        if self.per_atom and quantity.is_extensive:
            factors = factors / np.maximum(structures.n_atoms, 1)
            if quantity.needs_volume:
                factors = factors * np.abs(np.linalg.det(structures.cells))
        return factors[structures.idx_m] if quantity.per_atom else factors


def labels_of(batch: Batch) -> Labels:
    """The labels of a batch, with what the loss weighs them by.

    Args:
        batch: structures with labels.
    """
    return Labels(
        **{name: getattr(batch, name) for name in NAMES},
        sizes=batch.atom_ptr.diff(),
        volumes=torch.linalg.det(batch.cells).abs(),
        idx_m=batch.idx_m,
        weights=batch.weights,
        properties=batch.properties,
    )
