"""Several runs beside each other: the options in which they differ, their errors, their time."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scschnet.kinds import Kind, expect, kind_of
from scschnet.quantities import shown_errors
from scschnet.runs.config import TrainConfig, read_run_config
from scschnet.runs.folder import RunFolder

# What may differ between runs whose mean and spread mean something: chance, and what changes no result.
CHANCE = ("seed", "split_seed", "split_file")
NO_RESULT = ("out", "log_every", "device", "threads", "step", "preset", "tensorboard", "wandb")
# Where the model lay from which a training began; its fingerprint says which one it was.
PLACE_OF_MODEL = "init_from"


@dataclass(frozen=True)
class Summary:
    """A run in a line.

    Args:
        path: its folder.
        config: its options.
        epochs: finished.
        seconds: spent training.
        part: test, of a finished run, else val.
        errors: name of a quantity with its unit to the mean absolute error; nan where there is none.
    """

    path: Path
    config: TrainConfig
    epochs: int
    seconds: float
    part: str
    errors: dict[str, float]


def find_runs(folder: Path) -> list[Path]:
    """The run folders at or below a folder, by name.

    Raises:
        FileNotFoundError: if there is no such folder, or no run in it.
        ValueError: if it is a file.
    """
    if not folder.is_dir():
        expect(folder, Kind.RUN)  # says what it is
    files = sorted(folder.rglob("config.toml"))
    runs = [file.parent for file in files if kind_of(file.parent) is Kind.RUN]
    if not runs:
        raise FileNotFoundError(
            f"expected {Kind.RUN.value}, or one that holds some, but {folder} is {Kind.FOLDER.value}"
        )
    return runs


def summarize_run(path: Path) -> Summary:
    """What a run did so far; test errors if it is finished, else those of validation after its last epoch.

    Raises:
        FileNotFoundError, ValueError: if its options cannot be read.
    """
    folder, config = RunFolder(path), read_run_config(path)
    test = folder.read_test()
    try:
        metrics = {name: float(column[-1]) for name, column in folder.read_metrics().items()}
    except (FileNotFoundError, ValueError):  # no epoch is finished yet
        metrics = {}
    per_atom = "energy_per_atom" in test if test else False
    errors = {}
    for name, shown in shown_errors(per_atom).items():
        value = metrics.get(shown.column, math.nan)
        if test:
            value = test.get(shown.error, {}).get(shown.stored_unit, {}).get("mae", math.nan)
        errors[f"{name} {shown.unit}"] = value * shown.factor
    epochs = int(metrics.get("epoch", 0))
    part = "test" if test else "val"
    return Summary(path, config, epochs, metrics.get("seconds", math.nan), part, errors)


def differences(
    configs: Sequence[TrainConfig], apart_from: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """Name of every option in which runs differ to its values.

    Args:
        configs: of the runs.
        apart_from: options that are not looked at.
    """
    found = {}
    for field in dataclasses.fields(TrainConfig):
        values = [getattr(config, field.name) for config in configs]
        if field.name not in apart_from and any(value != values[0] for value in values):
            found[field.name] = values
    return found


def check_alike(paths: Sequence[Path]) -> None:
    """Stop where a mean and a spread over runs would mix chance with something else.

    Args:
        paths: run folders; those without config.toml are not looked at.

    Raises:
        ValueError: naming an option in which they differ, apart from seeds and splits, with its values.
    """
    known = [path for path in paths if (path / "config.toml").is_file()]
    found = _unlike(known)
    if found:
        name, values = next(iter(found.items()))
        listed = ", ".join(
            f"{value!r} in {path}" for path, value in zip(known, values, strict=True)
        )
        more = f" (and {', '.join(list(found)[1:])})" if len(found) > 1 else ""
        raise ValueError(
            f"runs shown together must differ in their seeds alone, but {name}{more} differs: {listed}; "
            "`scschnet runs FOLDER` compares runs of any kind"
        )


def _unlike(paths: Sequence[Path]) -> dict[str, list[Any]]:
    """Options in which runs differ by more than chance; runs that began from such as differ by chance do not."""
    configs = [read_run_config(path) for path in paths]
    found = differences(configs, (*CHANCE, *NO_RESULT, PLACE_OF_MODEL))
    began = [Path(config.init_from) for config in configs if config.init_from]
    are_runs = len(began) == len(paths) and all((one / "config.toml").is_file() for one in began)
    if "init_fingerprint" in found and are_runs and not _unlike(began):
        del found["init_fingerprint"]
    return found
