"""Checkpoints: a model, what it was trained on, and the state of its training, in one file.

A checkpoint is a torch file of plain containers, read with `weights_only=True`:

    format      "scschnet-checkpoint"
    version     1
    config      ModelConfig as JSON
    metadata    JSON: units, versions, training data, errors
    state_dict  name -> tensor
    training    state of an unfinished training (only in last.pt)
"""

import dataclasses
import io
import json
import os
import pickle
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scschnet
from scschnet.archive import ERRORS_OF_ZIPFILE, checked_records
from scschnet.files import replacing
from scschnet.kinds import CHECKPOINT_FORMAT, Kind, expect
from scschnet.nn import ModelConfig, SchNet

VERSION = 1
SHORTEST = "shortest_distances"
"""The key in the metadata of the shortest distances in the training structures: pairs such as C-H to Å."""


@dataclass
class Checkpoint:
    """What a checkpoint file holds.

    Args:
        model: in evaluation mode, in the dtype it was saved in.
        metadata: units, versions, training data and errors, JSON types only.
        training: state of an unfinished training: tensors, numbers, strings, lists and dicts.
    """

    model: SchNet
    metadata: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint under a temporary name, then rename it.

    Args:
        path: file to write or replace.
        checkpoint: what to write.

    Raises:
        OSError: naming the file, if it cannot be written; an older file stays as it was.
    """
    content: dict[str, Any] = {
        "format": CHECKPOINT_FORMAT,
        "version": VERSION,
        "config": json.dumps(dataclasses.asdict(checkpoint.model.config)),
        "metadata": json.dumps(_defaults() | checkpoint.metadata),
        "state_dict": checkpoint.model.state_dict(),
    }
    if checkpoint.training is not None:
        content["training"] = checkpoint.training
    buffer = (
        io.BytesIO()
    )  # torch's own writer to a file hides why it failed, a full disk for example
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: a checkpoint file.

    Returns:
        The model in evaluation mode, its metadata, and the training state if there is one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, foreign, of a newer version, or holds weights that are no finite numbers.
    """
    file = Path(path)
    expect(file, Kind.CHECKPOINT, Kind.TORCH, Kind.OTHER)
    try:
        data = file.read_bytes()
        checked_records(data)
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (*ERRORS_OF_ZIPFILE, pickle.UnpicklingError, KeyError) as error:
        raise ValueError(f"{file} is not a readable checkpoint, or is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"{file} is a torch file, but not a checkpoint of scschnet")
    if content["version"] > VERSION:
        raise ValueError(
            f"{file} has checkpoint version {content['version']}, but this scschnet reads up to "
            f"{VERSION}: install a newer scschnet"
        )
    try:
        model = SchNet(ModelConfig(**json.loads(content["config"])))
        model.to(_network_dtype(content["state_dict"]))
        model.load_state_dict(content["state_dict"])
        metadata = json.loads(content["metadata"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{file} does not fit together: {error}") from error
    for name, values in model.state_dict().items():
        if not values.isfinite().all():
            raise ValueError(
                f"{file} must hold finite weights, but {name} has NaN or infinity in it"
            )
    return Checkpoint(model.eval(), metadata, content.get("training"))


@torch.inference_mode(False)
def load(path: str | os.PathLike[str]) -> SchNet:
    """Load a trained model, ready to be evaluated.

    Args:
        path: a run folder (its `best.pt` is taken) or a checkpoint file.

    Returns:
        The model in evaluation mode on the CPU; its parameters ask for no gradients.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, foreign, or of a newer version, or its filters are too steep
            for tables.
    """
    model = load_checkpoint(checkpoint_path(path)).model.requires_grad_(False)
    model.refine_filters()
    return model


def checkpoint_path(path: str | os.PathLike[str]) -> Path:
    """The checkpoint file that `path`, a run folder or a file, stands for.

    Raises:
        FileNotFoundError: if there is no such path, or the run has no checkpoint yet.
        ValueError: if it is of another kind.
    """
    file = Path(path)
    kind = expect(file, Kind.RUN, Kind.CHECKPOINT, Kind.TORCH, Kind.OTHER)
    if kind is not Kind.RUN:
        return file
    if not (file / "best.pt").is_file():
        raise FileNotFoundError(
            f"the run {file} has no best.pt, which the first finished epoch writes"
        )
    return file / "best.pt"


def _network_dtype(state_dict: dict[str, Tensor]) -> torch.dtype:
    return state_dict["embedding.weight"].dtype


def _defaults() -> dict[str, Any]:
    return {
        "units": {"energy": "eV", "length": "Angstrom"},
        "versions": {
            "scschnet": scschnet.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
