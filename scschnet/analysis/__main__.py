"""`python -m scschnet.analysis`: parses the command line and calls."""

import sys
from collections.abc import Callable
from typing import Any

import tyro

from scschnet.analysis import commands
from scschnet.files import write_any_text

COMMANDS: dict[str, Callable[..., Any]] = {
    "contributions": commands.Contributions,
    "elements": commands.Elements,
    "trajectory": commands.Trajectory,
    "layers": commands.Layers,
    "shapley": commands.Shapley,
    "reach": commands.Reach,
    "filters": commands.Filters,
    "unfamiliarity": commands.Unfamiliarity,
    "prune": commands.Prune,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed (2, wrong usage, ends the process).

    Args:
        arguments: without the program's name; None: those of the process.
    """
    write_any_text()
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="python -m scschnet.analysis",
        description="What a trained model does inside.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    if not getattr(command, "runs", True):
        print("error: name at least one run folder; --help says more", file=sys.stderr)
        return 2
    try:
        command()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
