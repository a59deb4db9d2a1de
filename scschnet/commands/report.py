"""`scschnet report`: options, and what is printed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from scschnet.commands.line import Runs, failed, out_option, parse
from scschnet.report import write_report
from scschnet.report.report import data_folder


@dataclass(frozen=True)
class Options:
    """One self-contained HTML page about finished runs: data, errors, and what the model does inside.

    Several runs must differ in their seeds alone: learning curves, errors, contribution weights and
    Shapley values are then shown with their spread; everything else is that of the first run. The
    numbers of every picture are links in the page, and CSV files in a folder beside it. Vibrations are shown if
    `scschnet analysis modes` wrote modes.csv into the folder of the first run.
    """

    runs: Runs
    """Run folders, one or more."""
    out: Annotated[Path, out_option()] = Path("report.html")
    """Page to write."""


OPTIONS = Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a report; returns the exit status: 0 done, 1 failed (2, wrong usage, ends the process).

    Args:
        arguments: without the program's name; None: those of the process.
    """
    options = parse(Options, "report", arguments)
    if not options.runs:
        print("error: name at least one run folder; --help says more", file=sys.stderr)
        return 2
    try:
        print(write_report(options.runs, options.out))
    except (OSError, ValueError) as error:
        return failed(error, options)
    print(data_folder(options.out))
    return 0
