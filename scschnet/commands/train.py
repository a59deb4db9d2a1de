"""`python -m scschnet.train`: options from preset, file and command line; the training; its result."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from scschnet.analysis.contributions import plot_contributions
from scschnet.evaluate.norm_statistics import run_statistics, store_statistics
from scschnet.files import write_any_text
from scschnet.kinds import Kind, expect
from scschnet.quantities import ERRORS
from scschnet.report import write_report
from scschnet.runs.config import PRESETS, TrainConfig, read_config, read_run_config
from scschnet.runs.folder import RunFolder
from scschnet.runs.run import read_run
from scschnet.train.loop import Interrupted, TrainingFailed, train

# Options that may differ when a run is resumed; any other change would be another run.
MAY_CHANGE_ON_RESUME = ("epochs", "patience", "device", "threads", "log_every", "step")

DESCRIPTION = """Train SchNet or sc-SchNet: with --data FILE on your structures, without on embedded ones.

A run folder (--out) keeps options, split, errors by epoch, and the best parameters in best.pt; a report ends the run.
Defaults below are those of --preset quick; --preset NAME --help shows those of another one.

--config FILE.toml sets options by the names below, in TOML; the command line overrides it.
--resume DIR goes on with an interrupted run, whose options it takes; of them only --epochs, --patience,
--device, --threads, --log-every and --step may be given another value."""


@dataclass(frozen=True)
class Invocation:
    """What the command line asks for: a new run, or to go on with the one in `resume`."""

    config: TrainConfig
    resume: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    write_any_text()
    try:
        invocation = parse_command_line(sys.argv[1:] if arguments is None else arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        run = train(invocation.config, invocation.resume)
    except Interrupted as interrupted:
        print(f"stopped by {interrupted}; the state is saved, go on with --resume", file=sys.stderr)
        return 128 + interrupted.signum
    except (TrainingFailed, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not run.test.exists():  # a process of torchrun that is not the first
        return 0
    print(summary(run))
    if invocation.config.skip == "weighted":
        print(
            f"contribution weights  {plot_contributions([run.path], run.path / 'contributions.png')}"
        )
    describe(run)
    return 0


def describe(run: RunFolder) -> None:
    """Keep statistics of the training set in best.pt, and write the report; a failure is said and costs no run."""
    try:
        trained = read_run(run.path)
        if trained.model.config.n_interactions:
            store_statistics(run.path, run_statistics(trained))
        print(f"report  {write_report([run.path], run.path / 'report.html')}")
    except (OSError, ValueError) as error:
        print(f"note: no report: {error}", file=sys.stderr)


def summary(run: RunFolder) -> str:
    """The test errors of a finished run as a table."""
    content = run.read_test()
    lines = [
        f"{run.path}: best epoch {content['epoch']}, {content['n_test']} test structures",
        f"{'':16}{'MAE':>12}{'RMSE':>12}",
    ]
    for name in ERRORS:
        for unit, error in content.get(name, {}).items():
            if unit != "n":
                lines.append(
                    f"{name.replace('_', ' '):16}{error['mae']:12.4f}{error['rmse']:12.4f}  {unit}"
                )
    return "\n".join(lines)


def parse_command_line(arguments: Sequence[str]) -> Invocation:
    """Turn arguments into options: preset, then `--config` file, then the arguments themselves.

    Args:
        arguments: without the program's name.

    Returns:
        The resolved options, and the run folder to resume or None.

    Raises:
        ValueError: for a bad file or value; unknown arguments and `--help` end the process as usual.
    """
    remaining, config_file = _take(arguments, "--config")
    remaining, resume = _take(remaining, "--resume")
    if resume is not None and config_file is not None:
        raise ValueError("`--resume` takes its options from the run folder; leave `--config` out")
    from_file: dict[str, Any] = {}
    if resume is not None:
        expect(resume, Kind.RUN, option="--resume")
        from_file = dataclasses.asdict(read_run_config(Path(resume)))
    elif config_file is not None:
        expect(config_file, Kind.OPTIONS, Kind.OTHER, option="--config")
        from_file = read_config(Path(config_file))
    _, preset = _take(remaining, "--preset")
    preset = preset or from_file.get("preset", "quick")
    options = (
        PRESETS.get(preset, {}) | from_file | ({"preset": preset} if preset in PRESETS else {})
    )
    default = TrainConfig(**options)
    config = tyro.cli(
        TrainConfig,
        prog="python -m scschnet.train",
        description=DESCRIPTION,
        default=default,
        args=remaining,
        config=(tyro.conf.FlagConversionOff,),
    )
    if resume is not None:
        _check_resumable(default, config)
    return Invocation(config, None if resume is None else Path(resume))


def _take(arguments: Sequence[str], option: str) -> tuple[list[str], str | None]:
    """Remove `option VALUE` or `option=VALUE` from the arguments, and return VALUE or None."""
    remaining, value = list(arguments), None
    for index, argument in enumerate(arguments):
        if argument == option:
            if index + 1 == len(arguments):
                raise ValueError(f"`{option}` must be followed by a value")
            value = arguments[index + 1]
            del remaining[index : index + 2]
            break
        if argument.startswith(option + "="):
            value = argument.removeprefix(option + "=")
            del remaining[index]
            break
    return remaining, value


def _check_resumable(before: TrainConfig, after: TrainConfig) -> None:
    for field in dataclasses.fields(TrainConfig):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new and field.name not in MAY_CHANGE_ON_RESUME:
            raise ValueError(
                f"`{field.name}` of a resumed run must stay {old!r}, got {new!r}; of all options only "
                f"{', '.join(MAY_CHANGE_ON_RESUME)} may change"
            )
