"""`python -m scschnet.analysis`: parses the command line and calls."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from scschnet.analysis import contributions as c
from scschnet.analysis import plots


@dataclass(frozen=True)
class Contributions:
    """Evolution of the normalized contribution weights over the epochs of one or several runs.

    Draws w_hat = w mean|v| of every layer (Eq. 5 of arXiv:1810.09751): v0 is the embedding, v1 to vL
    are the blocks. Shaded: one standard deviation over runs, or over the minibatches of a single run.
    The same numbers go to a CSV beside the figure, the last epoch's to standard output.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, one or more."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("contributions.png")
    """Figure to write: .png, .pdf or .svg."""
    epochs: c.EpochScale = "linear"
    """Scale of the horizontal axis."""
    width: float = plots.COLUMN_WIDTH
    """Width of the figure, cm."""
    height: float = plots.HEIGHT
    """Height of the figure, cm."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed (2, wrong usage, ends the process).

    Args:
        arguments: without the program's name; None: those of the process.
    """
    command = tyro.extras.subcommand_cli_from_dict(
        {"contributions": Contributions},
        prog="python -m scschnet.analysis",
        description="What a trained model does inside.",
        args=arguments,
    )
    if not command.runs:
        print("error: name at least one run folder; --help says more", file=sys.stderr)
        return 2
    try:
        return _contributions(command)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _contributions(command: Contributions) -> int:
    runs = [c.read_contributions(run) for run in command.runs]
    summary = c.summarize(runs)
    lengths = [len(run.epochs) for run in runs]
    if max(lengths) > len(summary.epochs):
        print(
            f"note: runs have {', '.join(map(str, lengths))} epochs; the {len(summary.epochs)} that "
            "all have are shown",
            file=sys.stderr,
        )
    c.plot_contributions(
        command.runs,
        command.out,
        epochs=command.epochs,
        width=command.width,
        height=command.height,
    )
    _print_last_epoch(summary)
    print(f"\n{command.out}\n{c.figure_table(command.out)}")
    return 0


def _print_last_epoch(summary: c.Summary) -> None:
    mean, std = summary.mean[-1], summary.std[-1]
    share = 100 * np.abs(mean) / max(np.abs(mean).sum(), 1e-300)
    print(f"epoch {summary.epochs[-1]}\nlayer       w_hat         std   share")
    for layer in range(len(mean)):
        print(f"v{layer:<4d} {mean[layer]:11.4f} {std[layer]:11.4f} {share[layer]:5.1f} %")


if __name__ == "__main__":
    sys.exit(main())
