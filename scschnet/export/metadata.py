"""What an exported file says about itself, as JSON: gathered from a model, its checkpoint and its run folder."""

import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import scschnet
from scschnet.checkpoint import checkpoint_path, load_checkpoint
from scschnet.elements import symbol
from scschnet.nn import SchNet, error_bars
from scschnet.nn.error_bars import ErrorStatistics
from scschnet.nn.unfamiliarity import KEY, NormStatistics
from scschnet.runs.config import EMBEDDED
from scschnet.runs.contributions import layers_at
from scschnet.runs.folder import RunFolder

FORMAT = "scschnet-exported"
VERSION = 1
LIBRARY = "libscschnet_ops.so"

REQUIRED: dict[str, type | tuple[type, ...]] = {
    "kind": str,
    "container": str,
    "host": str,
    "elements": list,
    "symbols": list,
    "cutoff": (int, float),
    "n_interactions": int,
    "n_features": int,
    "ghost_range": dict,
    "dtype": str,
    "units": dict,
    "layers": list,
    "training": dict,
    "versions": dict,
    "operator_libraries": list,
}
"""Keys that every file of this version has, and their JSON types."""


@dataclass(frozen=True)
class Source:
    """A model, and what is known of its training.

    Args:
        model: in evaluation mode.
        training: provenance and errors, JSON types; empty if unknown.
        layer_norms: of each layer, mean_norm and normalized_weight of its epoch; empty if unknown.
        versions: of the programs it was trained with.
        statistics: of the norms of the corrections over the training set; None if unknown.
        errors: of its energies and forces on the validation set; None if unknown.
    """

    model: SchNet
    training: dict[str, Any] = field(default_factory=dict)
    layer_norms: list[dict[str, float | None]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    statistics: NormStatistics | None = None
    errors: ErrorStatistics | None = None


def read_source(path: Path) -> Source:
    """A trained model from a run folder or a checkpoint file, with all that its folder knows.

    Args:
        path: run folder (its best.pt is taken) or checkpoint.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, foreign, or of a newer version.
    """
    file = checkpoint_path(path)
    checkpoint = load_checkpoint(file)
    found = checkpoint.metadata
    config = found.get("train_config", {})
    training: dict[str, Any] = {
        name: found[name] for name in ("epoch", "best_val_loss") if name in found
    }
    if config:
        training["data"] = config.get("data") or EMBEDDED
        training["config"] = config
    errors = RunFolder(path).read_test()
    if errors:
        training["errors"] = errors
    norms = _layer_norms(path, found.get("epoch"))
    statistics = NormStatistics.from_json(found[KEY]) if KEY in found else None
    errors_of = found.get(error_bars.KEY)
    bars = None if errors_of is None else ErrorStatistics.from_json(errors_of)
    versions = found.get("versions", {})
    return Source(checkpoint.model, training, norms, versions, statistics, bars)


def describe(source: Source) -> dict[str, Any]:
    """What is true of a model in any form, JSON types.

    Returns:
        elements, symbols, cutoff (Å), cutoff_function, n_interactions, n_features, n_rbf, radial_basis, repulsion,
        skip, dtype,
        ghost_range (Å), units, layers, training, versions, unfamiliarity (atoms of each element that its statistics
        come from; None: there are none), error_bars (whether results have them).
    """
    model, config = source.model, source.model.config
    n = config.n_interactions
    return {
        "elements": list(config.elements),
        "symbols": [symbol(z) for z in config.elements],
        "cutoff": config.cutoff,
        "cutoff_function": config.cutoff_function,
        "n_interactions": n,
        "n_features": config.n_features,
        "n_rbf": config.n_rbf,
        "radial_basis": config.radial_basis,
        "repulsion": config.repulsion,
        "skip": config.skip,
        "dtype": str(model.embedding.weight.dtype).removeprefix("torch."),
        "ghost_range": {"halo": config.cutoff, "wide": n * config.cutoff},
        "units": {"energy": "eV", "length": "Angstrom"},
        "layers": _layers(source),
        "training": source.training,
        "versions": {
            "scschnet": scschnet.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            **{f"trained with {name}": value for name, value in source.versions.items()},
        },
        "unfamiliarity": _atoms_seen(source.statistics),
        "error_bars": source.errors is not None,
    }


def check_metadata(text: str) -> dict[str, Any]:
    """Parse the metadata of an exported file.

    Args:
        text: JSON.

    Raises:
        ValueError: if it is no such metadata, or of a newer version.
    """
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise ValueError(f"its metadata are no JSON: {error}") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError("its metadata are not those of an exported model")
    version = metadata.get("version")
    if not isinstance(version, int):
        raise ValueError(f"its metadata have no valid version, got {version}")
    if version > VERSION:
        raise ValueError(
            f"it has export version {version}, but this scschnet reads up to {VERSION}: install a newer "
            "scschnet"
        )
    for name, type_ in REQUIRED.items():
        if not isinstance(metadata.get(name), type_):
            raise ValueError(f"its metadata have no valid `{name}`, got {metadata.get(name)}")
    n_layers, elements = metadata["n_interactions"] + 1, metadata["elements"]
    if not elements or len(elements) != len(metadata["symbols"]):
        raise ValueError(f"its metadata name no valid elements, got {elements}")
    if len(metadata["layers"]) != n_layers:
        raise ValueError(f"its metadata must name {n_layers} layers, got {metadata['layers']}")
    return metadata


def _atoms_seen(statistics: NormStatistics | None) -> dict[str, dict[str, int]] | None:
    """Per element: how many atoms were trained on, and how many others calibrate the score."""
    if statistics is None:
        return None
    rows = zip(statistics.elements, statistics.n_train, statistics.n_held_out, strict=True)
    return {symbol(z): {"n_train": n, "n_held_out": m} for z, n, m in rows}


def _layers(source: Source) -> list[dict[str, Any]]:
    weights = source.model.contribution_weights.tolist()
    names = ["embedding", *(f"block {k}" for k in range(1, len(weights)))]
    unknown: dict[str, float | None] = {"mean_norm": None, "normalized_weight": None}
    norms = source.layer_norms or [unknown] * len(weights)
    return [
        {"name": name, "contribution_weight": weight, **norm}
        for name, weight, norm in zip(names, weights, norms, strict=True)
    ]


def _layer_norms(run: Path, epoch: Any) -> list[dict[str, float | None]]:
    """What contributions.csv says of an epoch, or nothing if the run has none."""
    columns = ("mean_norm", "normalized_weight")
    return [{name: getattr(row, name) for name in columns} for row in layers_at(run, epoch)]
