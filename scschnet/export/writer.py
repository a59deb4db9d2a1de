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
from scschnet.committee import is_committee, member_folders, read_factors
from scschnet.elements import check_elements
from scschnet.export.committee import CommitteePotential, check_members
from scschnet.export.compiled import compile_pairs
from scschnet.export.exported import ExportedModel
from scschnet.export.gromacs import GromacsPotential
from scschnet.export.metadata import (
    FORMAT,
    LIBRARY,
    VERSION,
    Source,
    describe,
    describe_committee,
    read_source,
)
from scschnet.export.openmm_torch import TorchForcePotential
from scschnet.export.portable import PortablePotential
from scschnet.export.potential import FullPotential, Potential
from scschnet.export.torchscript import torchscript_deprecation_ignored
from scschnet.files import replacing
from scschnet.nn import SchNet
from scschnet.nn.committee import Factors

Model = SchNet | str | os.PathLike[str]
Dtype = Literal["float32", "float64"]
Format = Literal["torchscript", "pt2"]
Host = Literal["any", "gromacs", "openmm-torch"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def export(
    model: Model | Sequence[Model],
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
            a model alone has no statistics of it. A committee folder, or several models that differ in their seeds,
            become one file that gives their mean and error bars.
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
        ValueError: if an option is unknown or does not go with another, a checkpoint is damaged, the filters are
            too steep for tables, or models cannot form a committee.
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
    sources, factors = _read(model)
    if not sources[0].model.config.energy and (host != "any" or format == "pt2"):
        raise ValueError(
            f"`{'format' if format == 'pt2' else 'host'}` must be left out for a model that was trained on "
            "properties alone: it has no energy or forces"
        )
    if factors is not None and format == "pt2":
        raise ValueError("`format` pt2 takes a single model: export a committee as torchscript")
    if dtype is not None:
        sources = [replace(s, model=copy.deepcopy(s.model).to(DTYPES[dtype])) for s in sources]
    if factors is not None:
        check_members(sources, _names(model))
    sources, filters = _prepared(sources)
    if host != "any" or any(source.statistics is None for source in sources):
        # such a host has no use for more than energy and forces
        sources = [replace(source, statistics=None) for source in sources]
    if host != "any" or factors is not None:  # a committee has its own error bars
        sources = [replace(source, errors=None) for source in sources]
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "kind": "portable" if portable else "full",
        "container": format,
        "host": host,
        "operator_libraries": [] if portable else [LIBRARY],
        "filters": filters,
        **(describe(sources[0]) if factors is None else describe_committee(sources, factors)),
    }
    members = [_potential(source, metadata["symbols"], portable, place) for source in sources]
    potential = members[0] if factors is None else CommitteePotential(members, factors)
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


def in_memory(source: Source) -> ExportedModel:
    """What an exported file of a model would hold, made in a tenth of a second and not written.

    Args:
        source: a model on the CPU, whose filter step is left as it is.
    """
    metadata = describe(source)
    potential = FullPotential(source.model, metadata["symbols"], source.statistics, source.errors)
    return ExportedModel(metadata, _scripted(potential))


def _checked_device(device: str | torch.device, portable: bool) -> torch.device:
    place = torch.device(device)
    if place.type != "cpu" and not portable:
        raise ValueError(
            f"`device` must be cpu: scschnet's operators run there; a portable file runs on {place} as well"
        )
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"`device` must be cpu, torch finds no CUDA device, got {place}")
    return place


def _members(model: Model | Sequence[Model]) -> Sequence[Model] | None:
    """What was given one by one as members of a committee; None: a single model or a folder."""
    return None if isinstance(model, (SchNet, str, os.PathLike)) else model


def _names(model: Model | Sequence[Model]) -> list[str]:
    """What the user calls the members of a committee."""
    members = _members(model)
    if members is None:
        members = member_folders(cast(Path, model))
    return [f"model {k + 1}" if isinstance(m, SchNet) else str(m) for k, m in enumerate(members)]


def _read(model: Model | Sequence[Model]) -> tuple[list[Source], Factors | None]:
    """The model, or all members and what their deviations are multiplied with."""
    members, factors = _members(model), Factors()
    if isinstance(model, (str, os.PathLike)) and is_committee(model):
        members, factors = member_folders(model), read_factors(model)
    if members is None:
        return [_source(cast(Model, model))], None
    return [_source(member) for member in members], factors


def _source(model: Model) -> Source:
    return Source(model) if isinstance(model, SchNet) else read_source(Path(model))


def _prepared(sources: list[Source]) -> tuple[list[Source], dict[str, float]]:
    """Copies of the models to be exported, with one filter step that is fine enough for all, and what was found."""
    models = [copy.deepcopy(s.model).cpu().eval().requires_grad_(False) for s in sources]
    errors = []
    for model in models:
        model.filters = "spline"
        try:
            errors.append(model.refine_filters())
        except ValueError as failure:
            raise ValueError(f"the model cannot be exported: {failure}") from failure
    step = min(model.filter_step for model in models)
    for model in models:
        model.filter_step = step
    pairs = zip(sources, models, strict=True)
    filters = {"step": step, "error": max(errors)}
    return [replace(source, model=model) for source, model in pairs], filters


def _potential(
    source: Source, symbols: list[str], portable: bool, place: torch.device
) -> PortablePotential | FullPotential:
    if portable:
        return PortablePotential(source.model, symbols, source.statistics, source.errors).moved_to(
            place
        )
    return FullPotential(source.model, symbols, source.statistics, source.errors)


def _called_by(
    host: Host,
    potential: Potential | CommitteePotential,
    metadata: dict[str, Any],
    atomic_numbers: Sequence[int] | None,
) -> torch.nn.Module:
    """A potential with the inputs and outputs of a host."""
    if host == "gromacs":
        return GromacsPotential(potential)
    if atomic_numbers is None:
        return potential
    check_elements(atomic_numbers, metadata["elements"], "`atomic_numbers`")
    return TorchForcePotential(potential, atomic_numbers)


def _torchscript(module: torch.nn.Module, extra: dict[str, str]) -> bytes:
    return _scripted(module).save_to_buffer(_extra_files=extra)


def _scripted(module: torch.nn.Module) -> torch.jit.ScriptModule:
    with torchscript_deprecation_ignored():
        return torch.jit.script(module.eval())


def _library() -> Path:
    """The operator library of this installation."""
    files = (Path(folder) / LIBRARY for folder in scschnet.__path__)
    return next(file.resolve() for file in files if file.is_file())


def _check_choices(**values: tuple[object, tuple[object, ...]]) -> None:
    for name, (value, choices) in values.items():
        if value not in choices:
            allowed = ", ".join(str(choice) for choice in choices if choice is not None)
            raise ValueError(f"`{name}` must be one of {allowed}, got {value}")
