"""Statistics of the corrections' norms over a training set, kept in the checkpoint, and scores by them.

The score itself, with its equation, is in scschnet.nn.unfamiliarity.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scschnet.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from scschnet.data import StructureSet, evenly
from scschnet.evaluate.corrections import correction_norms
from scschnet.nn import SchNet
from scschnet.nn.unfamiliarity import KEY, NormStatistics, unfamiliarity
from scschnet.runs.run import Run

LEVELS = (0.5, 0.9, 0.99, 0.999)
CALIBRATED = 0.99  # the quantile that becomes one
ATOMS = 20_000  # at most about so many atoms of each part are looked at


def norm_statistics(model: SchNet, train: StructureSet, held_out: StructureSet) -> NormStatistics:
    """Mean, covariance and calibration of each element.

    Covariances are shrunk toward their diagonal as if n_interactions + 1 atoms more had been seen, all
    correlations of them zero, so that rare elements have a usable one. An element that the held-out
    structures do not hold is calibrated on the training atoms.

    Args:
        model: with at least one block.
        train: structures the model was trained on.
        held_out: structures it was not.

    Raises:
        ValueError: if the model has no block or does not know an element, or there are no atoms.
    """
    if not model.config.n_interactions:
        raise ValueError("`model` must have at least one block: an embedding is always familiar")
    if not len(train.positions):
        raise ValueError("`train` must hold atoms, got none")
    known, new = correction_norms(model, train).numpy(), correction_norms(model, held_out).numpy()
    means, whitenings, quantiles, sizes, tested = [], [], [], [], []
    for z in train.elements:
        norms = known[1:, train.atomic_numbers == z].T
        mean, root = norms.mean(axis=0), inverse_root(norms)
        others = new[1:, held_out.atomic_numbers == z].T
        calibrate = others if len(others) else norms
        distance = np.linalg.norm((calibrate - mean) @ root, axis=1)
        one = float(np.quantile(distance, CALIBRATED)) or 1.0
        means.append(mean)
        whitenings.append(root / one)
        quantiles.append(np.quantile(distance, LEVELS) / one)
        sizes.append(len(norms))
        tested.append(len(others))
    return NormStatistics(
        tuple(int(z) for z in train.elements),
        torch.from_numpy(np.stack(means)),
        torch.from_numpy(np.stack(whitenings)),
        LEVELS,
        torch.from_numpy(np.stack(quantiles)),
        tuple(sizes),
        tuple(tested),
    )


def inverse_root(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """R with R R^T the inverse of the shrunk covariance of norms (n_atoms, n_blocks)."""
    n, n_blocks = norms.shape
    away = norms - norms.mean(axis=0)
    sums = away.T @ away
    floor = (1e-3 * np.abs(norms).mean(axis=0)) ** 2 + 1e-12  # an atom that was seen once
    extra = n_blocks + 1
    diagonal = np.diag(np.diag(sums) / n + floor)
    covariance = (sums + extra * diagonal) / (n + extra) + np.diag(floor) / (n + extra)
    return np.linalg.inv(np.linalg.cholesky(covariance)).T


def unfamiliarity_of(
    model: SchNet, structures: StructureSet, statistics: NormStatistics
) -> NDArray[np.float64]:
    """The score of every atom of a set, (n_atoms,); above one: beyond 99 % of the held-out atoms.

    Raises:
        ValueError: if the model does not know an element.
    """
    norms = correction_norms(model, structures)
    numbers = torch.from_numpy(structures.atomic_numbers)
    return unfamiliarity(norms, numbers, *statistics.tables()).numpy()


def run_statistics(run: Run) -> NormStatistics:
    """Those of a run, from its training part and from validation and test part together."""
    indices = np.concatenate([run.split.val, run.split.test])
    held_out = evenly(run.structures.select(indices), ATOMS)
    return norm_statistics(run.model, evenly(run.part("train"), ATOMS), held_out)


def store_statistics(path: str | os.PathLike[str], statistics: NormStatistics) -> Path:
    """Write statistics into the metadata of a run's best.pt; its parameters stay as they are.

    Args:
        path: run folder or checkpoint file.
        statistics: of its model.

    Returns:
        The checkpoint file.

    Raises:
        FileNotFoundError, ValueError, OSError: if it cannot be read or written.
    """
    return store_metadata(path, KEY, statistics.to_json())


def store_metadata(path: str | os.PathLike[str], key: str, content: dict[str, Any]) -> Path:
    """Write one entry of the metadata of a run's best.pt, as `store_statistics`."""
    file = checkpoint_path(path)
    checkpoint = load_checkpoint(file)
    save_checkpoint(file, replace(checkpoint, metadata=checkpoint.metadata | {key: content}))
    return file
