"""`scschnet evaluate`: errors of a trained model on a set, as a table, JSON and figure."""

import json as json_format
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tqdm import tqdm

from scschnet.analysis.parity import plot_parity
from scschnet.analysis.plots import check_format
from scschnet.checkpoint import checkpoint_path, load, load_checkpoint
from scschnet.commands.line import Device, Run, failed, optional, parse
from scschnet.data import StructureSet, label_hint, load_split
from scschnet.data.fingerprint import fingerprint
from scschnet.device import check_device
from scschnet.evaluate import (
    Error,
    check_elements,
    display_units,
    errors_by_file,
    errors_in_detail,
    in_units,
    predict,
)
from scschnet.files import replacing
from scschnet.kinds import Kind, expect, expect_data_of_run
from scschnet.nn import SchNet
from scschnet.properties import Property
from scschnet.quantities import ANY_OF_THEM, NAMES, ON_DEMAND
from scschnet.runs.config import READING, TrainConfig, read_run_config
from scschnet.runs.folder import RunFolder, check_fingerprint, check_options
from scschnet.runs.run import read_data

Part = Literal["all", "train", "val", "test"]


@dataclass(frozen=True)
class Options:
    """Errors of a trained model on a set of structures with labels.

    Without --data: on the test part of the run's own data, read as the training read them. A table
    goes to standard output.
    """

    run: Run
    """Run folder (its best.pt is taken) or checkpoint file."""
    data: Annotated[Path | None, optional("FILE")] = None
    """File of structures with labels to compare with (npz, xyz, extxyz, db, h5, tar)."""
    units: Annotated[str | None, optional("UNITS")] = None
    """Units of a file that does not state them, for example 'kcal/mol, Angstrom'."""
    energy_key: Annotated[str | None, optional("NAME")] = None
    """Name of the energy in the file, for example U0 or REF_energy."""
    forces_key: Annotated[str | None, optional("NAME")] = None
    """Name of the forces in the file, for example REF_forces."""
    stress_key: Annotated[str | None, optional("NAME")] = None
    """Name of the stress in the file, or of a virial, which is converted."""
    properties: Annotated[tuple[str, ...], optional("NAME [NAME ...]")] = ()
    """Of the model's properties those to compare, as in scschnet train; not given: all; energy: none."""
    part: Annotated[Part | None, optional("{all,train,val,test}")] = None
    """Structures to take, by the run's split.npz; if not given: all of --data, or the test part of the run's own data."""
    json: Annotated[Path | None, optional("OUT")] = None
    """Write the errors to this file, as JSON."""
    plot: Annotated[Path | None, optional("OUT")] = None
    """Draw predicted against reference into this file, .png, .pdf or .svg."""
    device: Device = "cpu"
    """Where to compute: cpu, cuda (the first GPU) or cuda:1 (the second)."""


OPTIONS = Options


@dataclass(frozen=True, eq=False)
class _Source:
    """Structures to evaluate on, and words that say which these are."""

    structures: StructureSet
    name: str
    part: str
    files: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says; returns the exit status, 0 done or 1 failed.

    Args:
        arguments: without the program's name; None: those of the process. Wrong usage ends the
            process with status 2.
    """
    options = parse(Options, "evaluate", arguments)
    try:
        _evaluate(options)
    except (OSError, ValueError, RuntimeError) as failure:
        return failed(failure, options, path="plot")
    return 0


def _evaluate(options: Options) -> None:
    if options.plot is not None:
        check_format(options.plot)  # before the work, not after it
    check_device(options.device)
    file = checkpoint_path(options.run)
    model = load(file).to(options.device)
    heads = model.config.heads
    source = _read(options, file.parent, [one.text for one in heads])
    _check(model, source)
    labels = source.structures
    with tqdm(
        total=len(labels), unit=" structures", disable=not sys.stderr.isatty(), leave=False
    ) as bar:
        predictions = predict(
            model,
            labels,
            **{name: bool(labels.labeled[name].any()) for name in ON_DEMAND},
            progress=bar.update,
        )
    found = errors_in_detail(predictions, labels)
    print(_table(file, model, source, found))
    by_file = {
        source.files[k]: of_file for k, of_file in errors_by_file(predictions, labels).items()
    }
    for name, of_file in by_file.items():
        print(f"{name}: {_in_short(of_file, heads)}")
    if options.json is not None:
        content = {
            "checkpoint": str(file),
            "data": source.name,
            "part": source.part,
            "n_structures": len(labels),
            "n_atoms": len(labels.positions),
            **{name: in_units(name, value, heads) for name, value in found.items()},
        }
        if by_file:
            content["files"] = [
                {
                    "file": file,
                    **{name: in_units(name, value, heads) for name, value in of_file.items()},
                }
                for file, of_file in by_file.items()
            ]
        with replacing(options.json) as temporary:
            temporary.write_text(
                json_format.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        print(options.json)
    if options.plot is not None:
        print(plot_parity(predictions, labels, options.plot))


def _read(options: Options, run: Path, properties: list[str]) -> _Source:
    """The structures the options ask for, from --data or as the run folder says.

    Args:
        options: of the command line.
        run: folder of the checkpoint.
        properties: of the model.
    """
    for name in options.properties:
        if name not in (*properties, *NAMES):
            raise ValueError(
                f"`properties` must be among {', '.join((*properties, *NAMES))} for this model, got {name}"
            )
    of_run = _run_config(run, needed=options.data is None)
    given = {name: value for name in READING if (value := getattr(options, name))}
    if options.data is not None:
        expect(options.data, Kind.STRUCTURES, Kind.OTHER, option="--data")
        wanted = options.properties or (*NAMES, *properties)
        config = TrainConfig(data=(str(options.data),), properties=wanted, **given)
        part = options.part or "all"
    elif of_run is not None:
        config, part = replace(of_run, **given), options.part or "test"
        expect_data_of_run(run, config.data, ", or name the file with --data")
    else:
        raise ValueError(f"name a file with --data: {run} is no run folder, it has no config.toml")
    structures = read_data(config)
    if options.data is None and not given:
        split = load_split(RunFolder(run).split, len(structures))
        metadata = load_checkpoint(checkpoint_path(options.run)).metadata
        if of_run is not None:
            check_options(run, metadata, of_run)
        check_fingerprint(run, metadata, fingerprint(structures, split))
    if part != "all":
        structures = _part(structures, RunFolder(run).split, part)
    elif of_run is not None and any(_same_file(file, config.data[0]) for file in of_run.data):
        print(
            "note: these are the run's own data, training part included; --part test leaves it out",
            file=sys.stderr,
        )
    return _Source(structures, config.source, part, config.data)


def _run_config(run: Path, needed: bool) -> TrainConfig | None:
    """The options of a run; None if the folder has none, or, unless they are needed, those of another program."""
    if not RunFolder(run).config.is_file():
        return None
    try:
        return read_run_config(run)
    except ValueError:
        if needed:
            raise
        return None


def _same_file(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _part(structures: StructureSet, split: Path, part: str) -> StructureSet:
    if not split.is_file():
        raise FileNotFoundError(
            f"`part` {part} needs the split of the run, but there is no {split}"
        )
    indices = getattr(load_split(split, len(structures)), part)
    if not len(indices):
        raise ValueError(f"the {part} part in {split} is empty; take another --part, or --data")
    return structures.select(indices)


def _check(model: SchNet, source: _Source) -> None:
    """Stop where a model cannot be compared with the set."""
    structures = source.structures
    check_elements(model, structures, source.name)
    known = [one.name for one in model.config.heads] + list(NAMES if model.config.energy else ())
    if not any(structures.labeled[name].any() for name in known if name in structures.labeled):
        raise ValueError(
            f"{source.name} holds no {ANY_OF_THEM if model.config.energy else ' or '.join(known)} to compare with"
            + label_hint(structures, "energy")
        )


def _in_short(found: dict[str, Error], heads: Sequence[Property]) -> str:
    """Mean absolute errors in one line."""
    words = []
    for name, value in found.items():
        unit, factor = next(iter(display_units(name, heads).items()))
        words.append(f"{name.replace('_', ' ')} {value.mae * factor:.4g} {unit}")
    return "MAE " + ", ".join(words)


def _table(file: Path, model: SchNet, source: _Source, found: dict[str, Error]) -> str:
    """Errors for people to read."""
    config, structures = model.config, source.structures
    kind = "sc-SchNet" if config.skip == "weighted" else "SchNet"
    blocks = f"{config.n_interactions} block{'' if config.n_interactions == 1 else 's'}"
    part = "" if source.part == "all" else f", {source.part} part"
    lines = [
        f"{file}: {kind}, {blocks}, cutoff {config.cutoff:g} Å",
        f"{source.name}{part}: {len(structures):,} structures, {len(structures.positions):,} atoms",
        "",
        f"{'':12}{'MAE':>11}{'RMSE':>11}{'':14}{'MAE':>11}{'RMSE':>11}{'':14}{'n':>11}",
    ]
    of_heads = [one.name for one in config.heads]
    for name, value in found.items():
        title, _, detail = (name, "", "") if name in of_heads else name.partition("_")
        row = f"{'  ' + detail.replace('_', ' ') if detail else title:12}"
        units = list(display_units(name, config.heads).items())[:2]
        for unit, factor in units:
            row += f"{value.mae * factor:#11.4g}{value.rmse * factor:#11.4g} {unit:13}"
        row += " " * (36 * (2 - len(units)))
        lines.append(f"{row}{value.n:11,}")
    return "\n".join(lines)
