"""`scschnet train`: options from preset, file and command line; the training; its result."""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes

from scschnet.analysis.contributions import plot_contributions
from scschnet.analysis.properties import plot_properties, property_contributions
from scschnet.commands.line import (
    as_typed,
    failed,
    in_groups,
    optional,
    parse,
    typed,
    with_metavars,
)
from scschnet.evaluate.norm_statistics import run_statistics, store_statistics
from scschnet.files import write_any_text
from scschnet.kinds import Kind, expect
from scschnet.quantities import error_units
from scschnet.report import write_report
from scschnet.runs.config import (
    MAY_CHANGE_ON_RESUME,
    PRESETS,
    BeginningOptions,
    DataOptions,
    LossOptions,
    MachineOptions,
    ModelOptions,
    OptimizationOptions,
    OutputOptions,
    PresetName,
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
Defaults below are those of the preset that is given, else of quick: `scschnet train --preset md17 --help`.
Under torchrun, as in `torchrun --nproc-per-node 2 -m scschnet.train`, several processes share every batch."""


@dataclass(frozen=True)
class Start:
    """Where options come from: a preset, a file over it, the command line over both."""

    preset: PresetName = "quick"
    """Set of defaults: quick (minutes), md17 (for MD17), md17-long (the same, four times as long), paper-md17 and
    paper-qm9 (as in arXiv:1810.09751)."""
    config: Annotated[Path | None, optional("FILE")] = None
    """TOML file of options by the names below, with underscores, such as n_train = 950."""
    resume: Annotated[Path | None, optional("DIR")] = None
    """Run or committee folder of an interrupted training to go on with, which takes its options; of them only --epochs, --patience, --device, --threads, --log-every, --step, --tensorboard and --wandb may be given another value."""


GROUPS: dict[str, type] = {
    "start": Start,
    "data": DataOptions,
    "beginning": BeginningOptions,
    "model": ModelOptions,
    "loss": LossOptions,
    "optimization": OptimizationOptions,
    "machine": MachineOptions,
    "output": OutputOptions,
}
METAVARS = {
    "data": "FILE",
    "split_file": "FILE",
    "data_weights": "WEIGHT",
    "properties": "NAME",
    "property_weights": "WEIGHTS",
    "init_from": "RUN",
    "init_fingerprint": "FINGERPRINT",
    "out": "DIR",
    "units": "UNITS",
    "energy_key": "NAME",
    "forces_key": "NAME",
    "stress_key": "NAME",
    "atomic_energies": "ENERGIES",
    "device": "DEVICE",
}
# Everything that may be typed, in groups.
OPTIONS: Any = dataclasses.make_dataclass(
    "Options",
    [(group, OmitArgPrefixes[with_metavars(kind, METAVARS)]) for group, kind in GROUPS.items()],  # type: ignore[misc]
)


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
        return failed(error, OPTIONS)
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
    print(f"committee  {folder}; scschnet export {folder} -o committee.pt")


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
    """Keep statistics of the training set in best.pt, and write the report; a failure is said and costs no run."""
    try:
        trained = read_run(run.path)
        if trained.model.config.n_interactions:
            store_statistics(run.path, run_statistics(trained))
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
        ValueError: for a bad file; unknown arguments, bad values and `--help` end the process as usual.
    """
    given = list(arguments)
    config_file, resume = _value_of(given, "--config"), _value_of(given, "--resume")
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
    preset = _value_of(given, "--preset") or from_file.get("preset", "quick")
    init_from = _value_of(given, "--init-from") or from_file.get("init_from")
    of_model = options_of(init_from) if init_from and resume is None else {}
    options = PRESETS.get(preset, {}) | of_model | from_file
    options |= {"preset": preset} if preset in PRESETS else {}
    options |= {"init_from": init_from} if init_from else {}
    default = TrainConfig(**options)
    values = dataclasses.asdict(default)
    parsed = parse(
        OPTIONS,
        "train",
        given,
        description=DESCRIPTION,
        default=in_groups(OPTIONS, values),
    )
    values |= {
        name: value for group in vars(parsed).values() for name, value in vars(group).items()
    }
    del values["config"], values["resume"]
    try:
        config = TrainConfig(**values)
    except ValueError as error:
        print(f"error: {as_typed(str(error), OPTIONS)}", file=sys.stderr)
        raise SystemExit(2) from None
    if resume is not None:
        _check_resumable(default, config)
    return Invocation(config, parsed.start.resume)


def _value_of(arguments: Sequence[str], option: str) -> str | None:
    """What follows `option` or `option=` among the arguments, or None: defaults depend on it."""
    for argument, after in itertools.zip_longest(arguments, arguments[1:]):
        if argument == option:
            if after is None:
                raise ValueError(f"`{option}` must be followed by a value")
            return after
        if argument.startswith(option + "="):
            return argument.removeprefix(option + "=")
    return None


def _check_resumable(before: TrainConfig, after: TrainConfig) -> None:
    for field in dataclasses.fields(TrainConfig):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new and field.name not in MAY_CHANGE_ON_RESUME:
            others = ", ".join(typed(name) for name in MAY_CHANGE_ON_RESUME)
            raise ValueError(
                f"`{typed(field.name)}` of a resumed run must stay {old!r}, got {new!r}; of all options only "
                f"{others} may change"
            )
