"""How large the deviations of a committee's members must be to be as large as its errors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scschnet.data import StructureSet, evenly
from scschnet.evaluate import Predictions, predict
from scschnet.nn import SchNet
from scschnet.nn.committee import Factors

ATOMS = 20_000  # at most about so many atoms are looked at


def fit_factors(members: Sequence[SchNet], structures: StructureSet) -> Factors:
    """Factors that make the root mean square of error bars that of the errors.

    a^2 = sum (E - E_ref)^2 / sum mean_k (E^k - E)^2,   b^2 likewise with force vectors

    Args:
        members: of the committee.
        structures: that none of them was trained on; without labels of a quantity its factor is one.
    """
    looked_at = evenly(structures, ATOMS)
    found = [predict(member, looked_at) for member in members]
    return Factors(
        _factor([_of(p, "energy") for p in found], looked_at.energy),
        _factor([_of(p, "forces") for p in found], looked_at.forces),
    )


def _of(predictions: Predictions, name: str) -> NDArray[np.float64]:
    return getattr(predictions, name)


def _factor(of_members: list[NDArray[np.float64]], labels: NDArray[np.float64] | None) -> float:
    if labels is None:
        return 1.0
    has = ~np.isnan(labels)
    values = np.stack(of_members)[:, has]
    mean = values.mean(axis=0)
    squared_errors = np.square(mean - np.asarray(labels)[has]).sum()
    variances = np.square(values - mean).mean(axis=0).sum()
    return float(np.sqrt(squared_errors / variances)) if variances > 0.0 else 1.0
