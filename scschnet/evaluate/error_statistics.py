"""Statistics of a model's errors, from which its error bars are made, kept in the checkpoint.

The equations are in scschnet.nn.error_bars.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scschnet.data import StructureSet, evenly
from scschnet.evaluate import predict
from scschnet.evaluate.corrections import batches, corrections
from scschnet.evaluate.norm_statistics import inverse_root, store_metadata
from scschnet.nn import SchNet
from scschnet.nn.error_bars import KEY, POWERS, ErrorBars, ErrorStatistics, trial_forces
from scschnet.runs.run import Run

ATOMS = 20_000  # at most about so many atoms of each part are looked at
REACH = 5.0  # Å; of the trial forces, or the cutoff if that is shorter
QUANTILE = 0.99
FOLDS = 5
PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0)
COVERED = (0.5, 1.0, 1.5, 2.0, 3.0)  # multiples of an error bar at which coverage is counted
FLOOR = 0.02  # of the rms error: smaller errors, such as those of forces that symmetry makes zero, are all alike


@dataclass(frozen=True, eq=False)
class StandardErrors:
    """Error bars of a set.

    Args:
        energy: (n_structures,), eV.
        energies: (n_atoms,), eV.
        forces: (n_atoms,), eV/Å.
    """

    energy: NDArray[np.float64]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]


def error_statistics(model: SchNet, train: StructureSet, val: StructureSet) -> ErrorStatistics:
    """Fit the error bars of a model.

    The strength of the ridge is chosen, and the bars of forces are scaled, by predictions for validation structures
    that the regression has not seen (five folds).

    Args:
        model: asks for no gradients.
        train: structures the model was trained on; their labels are not looked at.
        val: structures it was not trained on, with energies and forces.

    Raises:
        ValueError: if the model does not know an element, fewer than two validation structures have energy and forces,
            or there are no atoms to train on.
    """
    both = val.labeled["energy"] & val.labeled["forces"]
    val = val.select(np.flatnonzero(both))
    if len(val) < 2 or not len(train.positions):
        raise ValueError(
            f"error bars need two or more validation structures with energy and forces, got {len(val)}"
        )
    reach = min(model.config.cutoff, REACH)
    known, _ = features(model, train, reach)
    x, trial = features(model, val, reach)
    predicted = predict(model, val, forces=True)
    assert predicted.forces is not None and predicted.energy is not None
    assert val.forces is not None and val.energy is not None
    found = np.linalg.norm(predicted.forces - val.forces, axis=1)
    means, roots, quantiles = [], [], []
    log_d = np.zeros(len(x))
    for z in train.elements:
        own = known[train.atomic_numbers == z]
        mean, root = own.mean(axis=0), inverse_root(own)
        others = val.atomic_numbers == z
        distance = np.linalg.norm((x[others] - mean) @ root, axis=1)
        log_d[others] = np.log(distance + 1e-12)
        if not others.any():
            distance = np.linalg.norm((own - mean) @ root, axis=1)
        means.append(mean.tolist())
        roots.append(root.tolist())
        quantiles.append(float(np.quantile(distance, QUANTILE)) or 1.0)
    which = np.searchsorted(train.elements, val.atomic_numbers)
    one_hot = np.eye(len(train.elements))[which]
    design = np.column_stack([one_hot, log_d, x, np.log(trial)])
    weights, constant = _fit_forces(design, found, val.idx_m, len(one_hot[0]))
    n = len(train.elements)
    bracket = design[:, n + 1 :] @ weights[n + 1 :]
    energy_root = _energy_root(known, train, x, val, predicted.energy - val.energy)
    return ErrorStatistics(
        elements=[int(z) for z in train.elements],
        mean=means,
        whitening=roots,
        energy_root=energy_root.tolist(),
        offset=(weights[:n] + constant).tolist(),
        slope=float(weights[n]),
        quantile=quantiles,
        linear=weights[n + 1 : -len(POWERS)].tolist(),
        trial=weights[-len(POWERS) :].tolist(),
        bounds=(float(bracket.min()), float(bracket.max())),
        reach=reach,
        n_train=[int((train.atomic_numbers == z).sum()) for z in train.elements],
        n_val=[int((val.atomic_numbers == z).sum()) for z in train.elements],
    )


def features(
    model: SchNet, structures: StructureSet, reach: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The representation (n_atoms, n_features) and the trial forces (n_atoms, 4) of every atom of a set."""
    xs = [np.zeros((0, model.config.n_features))]
    trials = [np.zeros((0, len(POWERS)))]
    for batch in batches(model, structures):
        found = corrections(model, batch)
        d_ij = torch.linalg.vector_norm(found.r_ij, dim=1)
        pairs = (found.idx_i, found.idx_j, found.r_ij, d_ij)
        sizes = trial_forces(*pairs, len(batch.atomic_numbers), found.half, reach)
        xs.append(model.combine(found.layers).double().numpy())
        trials.append(sizes.numpy())
    return np.concatenate(xs), np.concatenate(trials)


def _fit_forces(
    design: NDArray[np.float64], found: NDArray[np.float64], idx_m: NDArray[np.int64], n: int
) -> tuple[NDArray[np.float64], float]:
    """Weights of the columns of `design` and a constant; column n, the distance, gets no negative one."""
    rms = float(np.sqrt(np.square(found).mean())) or 1e-12
    floor = FLOOR * rms
    target = 0.5 * np.log(np.square(found) + floor**2)
    folds = idx_m % min(FOLDS, int(idx_m.max()) + 1)
    best = (np.inf, PENALTIES[-1], 0.0)
    for penalty in PENALTIES:
        unseen = np.zeros(len(found))
        for fold in np.unique(folds):
            left = folds != fold
            weights, constant = _ridge(design[left], target[left], penalty, n)
            unseen[~left] = design[~left] @ weights + constant
        squared = (np.square(found) + floor**2) * np.exp(-2.0 * unseen)
        scale = 0.5 * np.log(squared.mean())
        best = min(best, (float(unseen.mean() + scale), penalty, float(scale)))
    weights, constant = _ridge(design, target, best[1], n)
    return weights, constant + best[2]


def _ridge(
    design: NDArray[np.float64], target: NDArray[np.float64], penalty: float, n: int
) -> tuple[NDArray[np.float64], float]:
    """Ridge regression on standardized columns; without column n if its weight were negative."""
    center, spread = design.mean(axis=0), design.std(axis=0) + 1e-9
    columns = (design - center) / spread
    for _ in range(2):
        gram = columns.T @ columns + penalty * np.eye(columns.shape[1])
        weights = np.linalg.solve(gram, columns.T @ (target - target.mean())) / spread
        if weights[n] >= 0.0:
            break
        columns[:, n] = 0.0
    return weights, float(target.mean() - center @ weights)


def _energy_root(
    known: NDArray[np.float64],
    train: StructureSet,
    x: NDArray[np.float64],
    val: StructureSet,
    errors: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The root of A, scaled so that the mean square of errors over bars is one on the validation structures."""
    sums = _sums(known, train)
    moment = sums.T @ sums
    moment += np.eye(len(moment)) * (1e-6 * np.trace(moment) / len(moment) + 1e-12)
    root = np.linalg.inv(np.linalg.cholesky(moment)).T
    rigidity = np.linalg.norm(_sums(x, val) @ root, axis=1)
    return root * float(np.sqrt(np.square(errors / rigidity).mean()))


def _sums(x: NDArray[np.float64], structures: StructureSet) -> NDArray[np.float64]:
    sums = np.zeros((len(structures), x.shape[1]))
    np.add.at(sums, structures.idx_m, x)
    return sums


def standard_errors(
    model: SchNet, structures: StructureSet, statistics: ErrorStatistics
) -> StandardErrors:
    """Error bars of all structures of a set.

    Raises:
        ValueError: if the model does not know an element.
    """
    bars = ErrorBars(statistics)
    x, trial = features(model, structures, statistics.reach)
    numbers = torch.from_numpy(structures.atomic_numbers)
    _, energies, forces, _ = bars(torch.from_numpy(x), numbers, torch.from_numpy(trial))
    root = np.array(statistics.energy_root)
    energy = np.linalg.norm(_sums(x, structures) @ root, axis=1)
    return StandardErrors(energy, energies.numpy(), forces.numpy())


def run_error_statistics(run: Run) -> ErrorStatistics:
    """Those of a run, from its training and its validation part.

    Raises:
        ValueError: if too few validation structures have energy and forces.
    """
    return error_statistics(
        run.model, evenly(run.part("train"), ATOMS), evenly(run.part("val"), ATOMS)
    )


def store_error_statistics(path: str | os.PathLike[str], statistics: ErrorStatistics) -> Path:
    """Write statistics into the metadata of a run's best.pt; its parameters stay as they are.

    Raises:
        FileNotFoundError, ValueError, OSError: if it cannot be read or written.
    """
    return store_metadata(path, KEY, statistics.to_json())


def coverage(ratios: NDArray[np.float64]) -> list[float]:
    """Shares of errors that are at most `COVERED` times their error bar.

    Args:
        ratios: of an error and its error bar.
    """
    return [float((ratios <= multiple).mean()) for multiple in COVERED]


def expected_coverage(n: int) -> list[float]:
    """The same for errors of `n` independent normal components, whose root mean square is the error bar.

    Args:
        n: 1 for an energy, 3 for a force.
    """
    half = torch.tensor(n / 2, dtype=torch.float64)
    square = torch.tensor(COVERED, dtype=torch.float64).square() * half
    return torch.special.gammainc(half, square).tolist()
