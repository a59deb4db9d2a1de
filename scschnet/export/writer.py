"""Writing exported files."""

import copy
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

import scschnet
from scschnet.export.compiled import compile_pairs
from scschnet.export.gromacs import GromacsPotential
from scschnet.export.metadata import FORMAT, LIBRARY, VERSION, Source, describe, read_source
from scschnet.export.openmm_torch import TorchForcePotential
from scschnet.export.portable import PortablePotential
from scschnet.export.potential import FullPotential, Potential
from scschnet.export.torchscript import torchscript_deprecation_ignored
from scschnet.files import replacing
from scschnet.nn import SchNet

Dtype = Literal["float32", "float64"]
Format = Literal["torchscript", "pt2"]
Host = Literal["any", "gromacs", "openmm-torch"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def export(
    model: SchNet | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    dtype: Dtype | None = None,
    portable: bool = False,
    format: Format = "torchscript",
    host: Host = "any",
    atomic_numbers: Sequence[int] | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Write a model to a file that other programs run.

    Filters are tabulated in float64, on a grid that is checked to be fine enough. The file appears whole or not at
    all.

    Args:
        model: a model, a run folder (its best.pt is taken) or a checkpoint; a folder knows most about the training,
            a model alone has no statistics of it.
        path: file to write or replace.
        dtype: of the network; None: as it is. Positions, sums over atoms and results are float64 anyway.
        portable: make it of plain torch operators: slower, without message passing between processes, but it needs
            no library of scschnet.
        format: torchscript, or pt2: the pair call alone, compiled by AOTInductor.
        host: gromacs: with the inputs, units and outputs of GROMACS' NNPot interface; openmm-torch: with those of
            its TorchForce.
        atomic_numbers: of all particles of the system, in their order; for openmm-torch, which does not tell.
        device: where the model lies in the file; a host may move it when loading.

    Returns:
        The metadata that went into the file.

    Raises:
        FileNotFoundError: if there is no such model, or no folder for the file.
        ValueError: if an option is unknown or does not go with another, a checkpoint is damaged, or the filters are
            too steep for tables.
        OSError: if the file cannot be written.
    """
    _check_choices(
        dtype=(dtype, (None, *DTYPES)),
        format=(format, get_args(Format)),
        host=(host, get_args(Host)),
    )
    place = _checked_device(device, portable)
    if format == "pt2" and (portable or host != "any"):
        raise ValueError("`format` pt2 goes neither with `portable` nor with `host`")
    if (atomic_numbers is not None) != (host == "openmm-torch"):
        raise ValueError("`atomic_numbers` and `host` openmm-torch must be given together")
    source = Source(model) if isinstance(model, SchNet) else read_source(Path(model))
    source, filters = _prepared(source, dtype)
    if host != "any":  # it has no use for more than energy and forces
        source = replace(source, statistics=None, errors=None)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "kind": "portable" if portable else "full",
        "container": format,
        "host": host,
        "operator_libraries": [] if portable else [LIBRARY],
        "filters": filters,
        **describe(source),
    }
    potential = _potential(source, metadata["symbols"], portable, place)
    extra = {"scschnet.json": json.dumps(metadata, indent=1)}
    if not portable:
        extra["extension_libs"] = str(_library())
    if format == "pt2":
        content = compile_pairs(cast(FullPotential, potential), extra)
    else:
        content = _torchscript(_called_by(host, potential, metadata, atomic_numbers), extra)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return metadata


def _checked_device(device: str | torch.device, portable: bool) -> torch.device:
    place = torch.device(device)
    if place.type != "cpu" and not portable:
        raise ValueError(
            f"`device` must be cpu: scschnet's operators run there; a portable file runs on {place} as well"
        )
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"`device` must be cpu, torch finds no CUDA device, got {place}")
    return place


def _prepared(source: Source, dtype: Dtype | None) -> tuple[Source, dict[str, float]]:
    """A copy of the model to be exported, its filter step chosen, and what was found."""
    model = copy.deepcopy(source.model).cpu().eval().requires_grad_(False)
    if dtype is not None:
        model = model.to(DTYPES[dtype])
    model.filters = "spline"
    try:
        error = model.refine_filters()
    except ValueError as failure:
        raise ValueError(f"the model cannot be exported: {failure}") from failure
    filters = {"step": model.filter_step, "error": error}
    return replace(source, model=model), filters


def _potential(
    source: Source, symbols: list[str], portable: bool, place: torch.device
) -> PortablePotential | FullPotential:
    if portable:
        return PortablePotential(source.model, symbols, source.statistics, source.errors).moved_to(
            place
        )
    return FullPotential(source.model, symbols, source.statistics, source.errors)


def _called_by(
    host: Host, potential: Potential, metadata: dict[str, Any], atomic_numbers: Sequence[int] | None
) -> torch.nn.Module:
    """A potential with the inputs and outputs of a host."""
    if host == "gromacs":
        return GromacsPotential(potential)
    if atomic_numbers is None:
        return potential
    unknown = sorted(set(atomic_numbers) - set(metadata["elements"]))
    if unknown:
        raise ValueError(
            f"`atomic_numbers` must hold only {metadata['elements']}, the elements of the model, got {unknown}"
        )
    return TorchForcePotential(potential, atomic_numbers)


def _torchscript(module: torch.nn.Module, extra: dict[str, str]) -> bytes:
    with torchscript_deprecation_ignored():
        scripted = torch.jit.script(module.eval())
    return scripted.save_to_buffer(_extra_files=extra)


def _library() -> Path:
    """The operator library of this installation."""
    files = (Path(folder) / LIBRARY for folder in scschnet.__path__)
    return next(file.resolve() for file in files if file.is_file())


def _check_choices(**values: tuple[object, tuple[object, ...]]) -> None:
    for name, (value, choices) in values.items():
        if value not in choices:
            allowed = ", ".join(str(choice) for choice in choices if choice is not None)
            raise ValueError(f"`{name}` must be one of {allowed}, got {value}")
