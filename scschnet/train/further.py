"""A trained model to go on with: its options, its elements and offsets on new data, and whether the labels are like its own."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet.checkpoint import Checkpoint, checkpoint_path, load_checkpoint
from scschnet.data import StructureSet, evenly
from scschnet.elements import symbols
from scschnet.evaluate import energies_of, error, predict
from scschnet.kinds import Kind, expect
from scschnet.nn import ModelConfig, SchNet
from scschnet.runs.config import OF_FRESH_WEIGHTS, TrainConfig
from scschnet.train.setup import DTYPES, MODEL_OPTIONS, shortest_distances

LOOKED_AT = 200  # structures of each file whose labels are compared with the model's
ENERGY_FAR = 1.0  # eV per atom: far beyond what a model is ever wrong by
TIMES_FAR, ALIKE = 5.0, 0.5  # forces in other units are many times larger, and yet correlated


def digest_of(path: str) -> str:
    """The fingerprint of the checkpoint that a path, a run folder or a file, stands for: 32 hexadecimal digits.

    Raises:
        FileNotFoundError, ValueError: if it is no run folder and no checkpoint.
    """
    return hashlib.sha256(checkpoint_path(path).read_bytes()).hexdigest()[:32]


def options_of(path: str) -> dict[str, Any]:
    """Options of a training that a model to begin from fixes: those of its shape, and none for fresh weights.

    Args:
        path: run folder or checkpoint file.

    Raises:
        FileNotFoundError, ValueError: if it cannot be read.
    """
    expect(path, Kind.RUN, Kind.CHECKPOINT, option="--init-from")
    config = load_checkpoint(checkpoint_path(path)).model.config
    return _shape(config) | {name: getattr(TrainConfig, name) for name in OF_FRESH_WEIGHTS}


def read_before(config: TrainConfig) -> Checkpoint:
    """The model to begin from.

    Args:
        config: with `init_from`, and `init_fingerprint` filled in.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if the file is another one than `init_fingerprint` says, or an option contradicts its model.
    """
    found = digest_of(config.init_from)
    if found != config.init_fingerprint:
        raise ValueError(
            f"`init_from` must have the fingerprint {config.init_fingerprint}, but that of {config.init_from} is {found}"
        )
    before = load_checkpoint(checkpoint_path(config.init_from))
    for name, value in _shape(before.model.config).items():
        if getattr(config, name) != value:
            raise ValueError(
                f"`{name}` must be {value!r}, that of the model in {config.init_from}, got "
                f"{getattr(config, name)!r}; leave it out: a training that begins from a model keeps its shape"
            )
    of_model = before.model.config
    if (config.heads, config.has_energy) != (of_model.heads, of_model.energy):
        names = [*(("energy",) if of_model.energy else ()), *(head.name for head in of_model.heads)]
        raise ValueError(
            f"`properties` must be those of the model in {config.init_from}, {' '.join(names)}, got "
            f"{' '.join(config.properties) or 'energy alone'}"
        )
    return before


def _shape(config: ModelConfig) -> dict[str, Any]:
    """Options of a model as a training names them."""
    shape = {name: getattr(config, name) for name in MODEL_OPTIONS}
    return shape | {"rbf_range": config.rbf_range or 0.0}


def further_model(
    config: TrainConfig, before: SchNet, structures: StructureSet, train: NDArray[np.int64]
) -> SchNet:
    """A copy of a trained model, made ready for new data.

    Weights, scale and, with `offsets = "keep"`, reference energies of its elements stay as they are. Elements that it
    does not know get a fresh embedding and a fitted reference energy. Where a repulsion begins at the shortest
    distances of the training structures, it makes room for shorter ones.

    Args:
        config: options; `seed` sets torch's global generator.
        before: the trained model.
        structures: the whole set.
        train: indices of the training structures.

    Raises:
        ValueError: if the set holds new elements and `new_elements` is "refuse".
    """
    torch.manual_seed(config.seed)
    known = before.config.elements
    new = np.setdiff1d(structures.select(train).elements, known)
    if new.size and config.new_elements == "refuse":
        raise ValueError(
            f"{config.source} must hold only {symbols(known)}, the elements of the model in {config.init_from}, got "
            f"{symbols(new)}; --new-elements add gives them embeddings of their own"
        )
    elements = tuple(sorted({*known, *new.tolist()}))
    model = SchNet(replace(before.config, elements=elements), filters=config.filters)
    model = model.to(before.embedding.weight.dtype)
    fresh = model.state_dict()
    state = {
        name: fresh[name] if "pair_term" in name else v for name, v in before.state_dict().items()
    }
    state["embedding.weight"] = state["embedding.weight"].clone()
    state["embedding.weight"][new] = fresh["embedding.weight"][new]
    model.load_state_dict(state)
    part = structures.select(train)
    if model.pair_term is not None and before.pair_term is not None:
        model.pair_term.fit(_shortest(part, elements, before))
    model = model.to(DTYPES[config.dtype])
    model.refine_filters()
    _fit_offsets(model, part, part.elements if config.offsets == "refit" else new)
    return model


def _shortest(part: StructureSet, elements: tuple[int, ...], before: SchNet) -> Tensor:
    """Shortest distances of old and new training structures, as far as the old model knows its own."""
    shortest = shortest_distances(part, elements, before.config.cutoff)
    known = None if before.pair_term is None else before.pair_term.fitted()
    if known is not None:
        place = torch.from_numpy(np.searchsorted(elements, before.config.elements))
        rows, columns = place[:, None], place[None, :]
        shortest[rows, columns] = torch.minimum(shortest[rows, columns], known)
    return shortest


def _fit_offsets(model: SchNet, part: StructureSet, fitted: NDArray[np.int64]) -> None:
    """Move the reference energies of some elements so that the model's energies are those of the labels in the mean.

    By least squares over the structures, and where these leave a choice the smallest move. The scale of the network
    stays: it was trained with it.
    """
    part = part.select(part.labeled["energy"] & np.isin(part.elements, fitted).any())
    if part.energy is None or not len(part):
        return
    rest = part.energy - energies_of(model, part)
    composition = np.zeros((len(part), len(fitted)))
    of_fitted = np.isin(part.atomic_numbers, fitted)
    columns = np.searchsorted(fitted, part.atomic_numbers[of_fitted])
    np.add.at(composition, (part.idx_m[of_fitted], columns), 1.0)
    move = np.linalg.lstsq(composition, rest, rcond=None)[0]
    model.offsets.atomref[torch.from_numpy(fitted)] += torch.from_numpy(move)


def compare(config: TrainConfig, model: SchNet, structures: StructureSet) -> list[str]:
    """What the model to begin from says of new structures before the first step, a line for each file.

    Args:
        config: options.
        model: the model to begin from, its offsets as they are trained further.
        structures: training structures.

    Raises:
        ValueError: if labels are so far from the model's that they must be in other units or of another method.
    """
    lines = []
    for k, file in enumerate(config.data or ("the embedded set",)):
        index = structures.file_index
        part = structures if index is None else structures.select(index == k)
        if len(part):
            some = evenly(part, 10**12, LOOKED_AT)
            lines.append(
                f"{config.init_from} on {file}, before the first step: "
                + _compared(config, file, model, some)
            )
    return lines


def _compared(config: TrainConfig, file: str, model: SchNet, part: StructureSet) -> str:
    predicted = predict(model, part)
    words = []
    if part.energy is not None and part.labeled["energy"].any():
        sizes = np.maximum(part.n_atoms, 1)
        label, own = part.energy / sizes, predicted.energy / sizes
        if np.nanmedian(np.abs(label - own)) > ENERGY_FAR:
            mean, own_mean = np.nanmedian(label), np.median(own[part.labeled["energy"]])
            hint = ", or of another method (--offsets refit)" if config.offsets == "keep" else ""
            raise ValueError(
                f"energies in {file} are about {mean:.4g} eV per atom, {mean / own_mean:.4g} times those that "
                f"{config.init_from} predicts, {own_mean:.4g}: are they in other units (--units){hint}?"
            )
        words.append(f"MAE energy {1000 * error(own, label).mae:.3g} meV/atom")
    if part.forces is not None and part.labeled["forces"].any():
        assert predicted.forces is not None
        known = ~np.isnan(part.forces)
        label, own = part.forces[known], predicted.forces[known]
        times, correlation = _alike(own, label)
        if correlation > ALIKE and not 1 / TIMES_FAR < times < TIMES_FAR:
            raise ValueError(
                f"forces in {file} are about {times:.4g} times those that {config.init_from} predicts (correlation "
                f"{correlation:.2f}): they must be in other units; check --units, of which kcal/mol is 1/23.06 eV and "
                "Hartree 27.21 eV"
            )
        words.append(f"MAE forces {1000 * error(own, label).mae:.3g} meV/Å")
    return ", ".join(words) or "no labels to compare with"


def _alike(own: NDArray[np.float64], label: NDArray[np.float64]) -> tuple[float, float]:
    """How many times larger labels typically are, and their correlation with the model's; 1 and 0 where all are zero.

    By medians, because a few atoms on top of each other are no sign of other units; and small forces of relaxed
    structures, which are none either, are not correlated with what the model makes of them.
    """
    sizes = float(np.median(np.abs(own))), float(np.median(np.abs(label)))
    if not min(sizes) > 0:
        return 1.0, 0.0
    return sizes[1] / sizes[0], float(own @ label / np.sqrt((own @ own) * (label @ label)))


def provenance(before: Checkpoint, config: TrainConfig) -> list[str]:
    """Notes on data that both trainings see.

    Args:
        before: the model to begin from.
        config: options of the training that goes on with it.
    """
    files = before.metadata.get("train_config", {}).get("data") or []
    shared = {files} if isinstance(files, str) else set(files)
    return [
        f"note: {Path(file).name} is divided anew; structures on which {config.init_from} was tested may be trained on "
        "here, so compare the two models on others"
        for file in config.data
        if file in shared
    ]
