"""`scschnet runs`: a table of all runs in a folder."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scschnet.commands.line import failed, parse
from scschnet.runs.compare import NO_RESULT, Summary, differences, find_runs, summarize_run


@dataclass(frozen=True)
class Options:
    """Runs in a table: the options in which they differ, mean absolute errors, and time.

    Errors are those of the test part, or, marked with val, of the validation part while a run is not finished.
    """

    folders: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[DIR ...]")
    ] = (Path("runs"),)
    """Folders that hold runs, at any depth."""


OPTIONS = Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status, 0 done or 1 failed.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    options = parse(Options, "runs", arguments)
    summaries = []
    try:
        for path in dict.fromkeys(run for folder in options.folders for run in find_runs(folder)):
            try:
                summaries.append(summarize_run(path))
            except ValueError as error:
                print(f"note: {path} is left out: {error}", file=sys.stderr)
    except (ValueError, OSError) as error:
        return failed(error, options)
    print("\n".join(table(summaries)))
    return 0


def table(runs: Sequence[Summary]) -> list[str]:
    """Lines of a table with a heading, columns as wide as they must be.

    Args:
        runs: one or more.
    """
    options = differences([run.config for run in runs], NO_RESULT)
    names = dict.fromkeys(name for run in runs for name in run.errors)
    known = [n for n in names if any(not math.isnan(run.errors.get(n, math.nan)) for run in runs)]
    rows = [["run", *options, "epochs", *known, "of", "time"]]
    for k, run in enumerate(runs):
        rows.append(
            [
                str(run.path),
                *(str(values[k]) for values in options.values()),
                f"{run.epochs}/{run.config.epochs}",
                *(number(run.errors.get(name, math.nan)) for name in known),
                run.part,
                duration(run.seconds),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def number(value: float) -> str:
    """An error with three digits."""
    return "–" if math.isnan(value) else f"{value:#.3g}"


def duration(seconds: float) -> str:
    """Time as hours, minutes and seconds, 1:02:03."""
    if math.isnan(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
