"""How firmly the training set holds a share of the energy: standard deviations beside what explains a model.

`scschnet analysis error-bars` keeps a root R of the covariance A = R R^T of linear changes of the readout
(scschnet.nn.error_bars; Bigi, Chong, Ceriotti, Grasselli 2024, doi:10.1088/2632-2153/ad805f):

    E_i -> E_i + theta . x_i^out,   theta ~ N(0, A)

The energy of a layer (scschnet.analysis.layers) is linear in the readout, and that of a linear function is the
function of the layer's part alone. So the features of the layer's energy are what the layer adds to the representation,

    eps_i^(l) -> eps_i^(l) + theta . x_i^(l),   x_i^(l) = w^(l) v_i^(l),   sum_l x_i^(l) = x_i^out

exactly, not to first order only. Whatever is linear in these energies has features f that are the same combination of
the x_i^(l), and the standard deviation |R^T f|: a layer's energy, an atom's, a mean over atoms. Here R^T f is called a
deviation; deviations add up, standard deviations do not. For an atom and all its layers this is the local prediction
rigidity; one share for each layer is ours. The energy at zero features and the pair term do not depend on theta.

What this makes of frequencies: scschnet.analysis.mode_rigidity.

Calibration: A has the factor that makes s_E that of the errors of validation energies, as the error bars have. So the
standard deviation of all atoms and layers together, which is s_E, is calibrated. The others have the same factor,
but there is no label to try them with. They do not know that another representation would split the energy otherwise: for
that there is the spread over runs that differ in their seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet.nn import SchNet
from scschnet.nn.error_bars import KEY, ErrorStatistics
from scschnet.runs.run import Run


@dataclass(frozen=True, eq=False)
class Estimate:
    """Values, and how sure they are.

    Args:
        value: mean over runs.
        rigidity: standard deviation within a run, the root mean square over runs; None if a run has no error bars.
        spread: sample standard deviation over runs; None for a single one.
    """

    value: NDArray[np.float64]
    rigidity: NDArray[np.float64] | None
    spread: NDArray[np.float64] | None


def root_of(run: Run) -> NDArray[np.float64] | None:
    """R of a run, (n_features, n_features), eV; None if it has no error bars.

    Raises:
        ValueError: if its checkpoint holds something else in their place.
    """
    if KEY not in run.metadata:
        return None
    return np.array(ErrorStatistics.from_json(run.metadata[KEY]).energy_root)


def missing(runs: Sequence[Run]) -> str:
    """What adds rigidity to those runs that have none, as a sentence; empty if all have it."""
    without = [str(run.path) for run in runs if KEY not in run.metadata]
    if not without:
        return ""
    commands = ", ".join(f"`scschnet analysis error-bars {path}`" for path in without)
    return f"no standard deviations from rigidity; to add them: {commands}"


def deviations(model: SchNet, layers: list[Tensor], root: NDArray[np.float64]) -> Tensor:
    """R^T x_i^(l), whose lengths are the standard deviations of the energies of layers.

    Args:
        model: the model.
        layers: v^(0) to v^(L), each (n_atoms, n_features).
        root: R, (n_features, n_features), eV.

    Returns:
        (n_layers, n_atoms, n_features) float64, eV.
    """
    parts = zip(model.contribution_weights, layers, strict=True)
    return torch.stack([w * v for w, v in parts]).detach().double() @ torch.from_numpy(root)


def estimate(
    values: Sequence[NDArray[np.float64]], found: Sequence[NDArray[np.float64] | None]
) -> Estimate:
    """Values of runs and their deviations as mean and standard deviations.

    Args:
        values: of each run, all of one shape.
        found: deviations of each run, with the features as a further dimension at the end; or None.
    """
    known = [one for one in found if one is not None]
    squares = [np.square(one).sum(axis=-1) for one in known]
    return Estimate(
        np.mean(values, axis=0),
        np.sqrt(np.mean(squares, axis=0)) if len(known) == len(found) else None,
        np.std(values, axis=0, ddof=1) if len(values) > 1 else None,
    )
