"""`python -m scschnet.train`: options from preset, file and command line; the training; its result."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from scschnet.analysis.contributions import plot_contributions
from scschnet.analysis.properties import plot_properties, property_contributions
from scschnet.evaluate.error_statistics import run_error_statistics, store_error_statistics
from scschnet.evaluate.norm_statistics import run_statistics, store_statistics
from scschnet.files import write_any_text
from scschnet.kinds import Kind, expect
from scschnet.quantities import error_units
from scschnet.report import write_report
from scschnet.runs.config import (
    MAY_CHANGE_ON_RESUME,
    PRESETS,
    TrainConfig,
    read_committee_config,
    read_config,
    read_run_config,
)
from scschnet.runs.folder import RunFolder
from scschnet.runs.run import read_run
from scschnet.train.committee import train_committee
from scschnet.train.further import options_of
from scschnet.train.loop import Interrupted, TrainingFailed, train

DESCRIPTION = """Train SchNet or sc-SchNet: with --data FILE on your structures, without on embedded ones.

A run folder (--out) keeps options, split, errors by epoch, and the best parameters in best.pt; a report ends the run.
Defaults below are those of --preset quick; --preset NAME --help shows those of another one.

--init-from RUN trains the model of another run or checkpoint further, and takes its shape over: with --data NEW.extxyz
on new structures, with --data OLD.h5 NEW.extxyz on both. A good learning rate is then --lr 1e-3.

--config FILE.toml sets options by the names below, in TOML; the command line overrides it.
--committee 4 trains four members, which differ in their seeds; their mean is exported with error bars.
--resume DIR goes on with an interrupted run or committee, whose options it takes; of them only --epochs, --patience,
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
        if invocation.config.committee > 1:
            _train_committee(invocation)
            return 0
        run = train(invocation.config, invocation.resume)
    except Interrupted as interrupted:
        print(f"stopped by {interrupted}; the state is saved, go on with --resume", file=sys.stderr)
        return 128 + interrupted.signum
    except (TrainingFailed, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not run.test.exists():  # a process of torchrun that is not the first
        return 0
    show(run)
    return 0


def _train_committee(invocation: Invocation) -> None:
    """Train all members, and say of each what is said of a run."""
    members: list[RunFolder] = []

    def finished(member: RunFolder) -> None:
        members.append(member)
        if not (member.path / "report.html").exists():
            show(member)

    folder = train_committee(invocation.config, invocation.resume, finished)
    if not members:  # a process of torchrun that is not the first
        return
    _report([member.path for member in members], folder / "report.html")
    print(f"committee  {folder}; python -m scschnet.export {folder} -o committee.pt")


def show(run: RunFolder) -> None:
    """Print the errors of a finished run, and leave its figure and its report in its folder."""
    config = read_run_config(run.path)
    print(summary(run, config))
    if config.heads:
        drawn = plot_properties(property_contributions([run.path]), run.path / "properties.png")
        print(f"contribution weights  {drawn}")
    elif config.skip == "weighted":
        print(
            f"contribution weights  {plot_contributions([run.path], run.path / 'contributions.png')}"
        )
    describe(run)


def describe(run: RunFolder) -> None:
    """Keep statistics of the training set and of errors in best.pt, and write the report; a failure is said and costs no run."""
    try:
        trained = read_run(run.path)
        if trained.model.config.n_interactions:
            store_statistics(run.path, run_statistics(trained))
        has_energy = trained.model.config.energy
        if has_energy and trained.part("val").labeled["forces"].sum() > 1:
            store_error_statistics(run.path, run_error_statistics(trained))
    except (OSError, ValueError) as error:
        print(f"note: no report: {error}", file=sys.stderr)
    else:
        _report([run.path], run.path / "report.html")


def _report(runs: list[Path], path: Path) -> None:
    try:
        print(f"report  {write_report(runs, path)}")
    except (OSError, ValueError) as error:
        print(f"note: no report: {error}", file=sys.stderr)


def summary(run: RunFolder, config: TrainConfig) -> str:
    """The test errors of a finished run as a table."""
    content = run.read_test()
    lines = [
        f"{run.path}: best epoch {content['epoch']}, {content['n_test']} test structures",
        f"{'':16}{'MAE':>12}{'RMSE':>12}",
    ]
    for name in error_units(config.heads):
        for unit, error in content.get(name, {}).items():
            if unit != "n":
                lines.append(
                    f"{name.replace('_', ' '):16}{error['mae']:12.4f}{error['rmse']:12.4f}  {unit}"
                )
    for part in content.get("files", ()):
        found = [
            f"{name.replace('_', ' ')} {error['mae']:.4f} {unit}"
            for name in error_units(config.heads)
            for unit, error in list(part.get(name, {}).items())[1:2]
        ]
        lines.append(f"{Path(part['file']).name}: MAE {', '.join(found)}")
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
        kind = expect(resume, Kind.RUN, Kind.COMMITTEE, option="--resume")
        read = read_committee_config if kind is Kind.COMMITTEE else read_run_config
        from_file = dataclasses.asdict(read(Path(resume)))
    elif config_file is not None:
        expect(config_file, Kind.OPTIONS, Kind.OTHER, option="--config")
        from_file = read_config(Path(config_file))
    _, preset = _take(remaining, "--preset")
    preset = preset or from_file.get("preset", "quick")
    _, init_from = _take(remaining, "--init-from")
    init_from = init_from or from_file.get("init_from")
    of_model = options_of(init_from) if init_from and resume is None else {}
    options = PRESETS.get(preset, {}) | of_model | from_file
    options |= {"preset": preset} if preset in PRESETS else {}
    options |= {"init_from": init_from} if init_from else {}
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
