"""`python -m scschnet.train`: parse, train, show the result."""

import json
import sys
from collections.abc import Sequence

from scschnet.analysis.contributions import plot_contributions
from scschnet.analysis.runs import read_run
from scschnet.analysis.unfamiliar import run_statistics, store_statistics
from scschnet.files import write_any_text
from scschnet.report import write_report
from scschnet.train.config import parse_command_line
from scschnet.train.loop import Interrupted, TrainingFailed, train
from scschnet.train.run_folder import RunFolder


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
    content = json.loads(run.test.read_text(encoding="utf-8"))
    lines = [
        f"{run.path}: best epoch {content['epoch']}, {content['n_test']} test structures",
        f"{'':16}{'MAE':>12}{'RMSE':>12}",
    ]
    for name in ("energy", "energy_per_atom", "forces", "stress"):
        for unit, error in content.get(name, {}).items():
            if unit != "n":
                lines.append(
                    f"{name.replace('_', ' '):16}{error['mae']:12.4f}{error['rmse']:12.4f}  {unit}"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
