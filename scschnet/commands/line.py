"""What all command lines share: the look of tyro, `--version`, and errors that name options as they are typed."""

import dataclasses
import difflib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_type_hints

import tyro

from scschnet import __version__
from scschnet.files import write_any_text

_POSITIONAL = get_args(tyro.conf.Positional[int])[1]
# Kinds of arguments that many commands take.
Run = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
Runs = Annotated[
    tyro.conf.Positional[tuple[Path, ...]],
    tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
]
File = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
Device = Annotated[str, tyro.conf.arg(metavar="DEVICE")]


def out_option(metavar: str = "FILE") -> Any:
    """`-o` as a short name of `--out`."""
    return tyro.conf.arg(aliases=["-o"], metavar=metavar)


def optional(metavar: str) -> Any:
    """An option that need not be given; its default, None, says nothing to a reader."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def program(command: str = "") -> str:
    """What a user types to run a command."""
    return f"scschnet {command}".strip()


def run(
    command: Callable[[Sequence[str] | None], int | None], arguments: Sequence[str] | None = None
) -> int:
    """Run a command and return the exit status; whoever reads its output may stop reading, as `head` does.

    Args:
        command: its `main`.
        arguments: without the program's name; None: those of the process.
    """
    try:
        try:
            return command(arguments) or 0
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # Python flushes once more at its end
        return 128 + signal.SIGPIPE  # what a shell says of other programs


def say_version() -> int:
    """Print the version; returns the exit status."""
    print(f"scschnet {__version__}")
    return 0


def parse(
    options: Any,
    command: str,
    arguments: Sequence[str] | None,
    **how: Any,
) -> Any:
    """Read a command line; help, the version and wrong usage end the process.

    Args:
        options: dataclass, union of dataclasses or function that tyro makes a parser of.
        command: name of the command.
        arguments: without the program's name; None: those of the process.
        how: what else tyro is told, such as `description`.
    """
    write_any_text()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in given:
        raise SystemExit(say_version())
    config = (tyro.conf.FlagCreatePairsOff, *how.pop("config", ()))
    return tyro.cli(options, prog=program(command), args=given, config=config, **how)


def parse_one_of(
    choices: dict[str, type], command: str, about: str, arguments: Sequence[str] | None
) -> Any:
    """Read the command line of a command that has commands of its own, as `parse` does.

    Args:
        choices: name of each to its dataclass of options.
        command: name of the command.
        about: what it does, in a sentence.
        arguments: without the program's name; None: those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in choices:
        return parse(choices[given[0]], f"{command} {given[0]}", given[1:])
    if given and not given[0].startswith("-"):
        write_any_text()
        raise SystemExit(unknown(given[0], choices, command))
    return parse(one_of(choices, about), command, given)


def unknown(name: str, choices: Iterable[str], command: str = "") -> int:
    """Say that there is no such command, and which is the nearest; returns the exit status 2."""
    (nearest,) = difflib.get_close_matches(name, choices, n=1, cutoff=0.0)
    print(
        f"error: `{program(command)}` has no command `{name}`; the nearest is `{nearest}`, and --help lists all",
        file=sys.stderr,
    )
    return 2


def one_of(choices: dict[str, Any], about: str) -> Any:
    """A choice of commands that tyro makes a parser of; their descriptions are the first lines of their docstrings.

    Args:
        choices: name of each to what tyro makes a parser of.
        about: what they do together.
    """
    kinds = [
        Annotated[
            Any,
            tyro.conf.subcommand(
                name, description=(of.__doc__ or "").split("\n")[0], constructor=of
            ),
        ]
        for name, of in choices.items()
    ]
    nothing = Annotated[None, tyro.conf.Suppress]  # one choice alone would be no choice
    union: Any = Union[(*kinds, nothing)]  # made from a list

    def choose(command: Any) -> Any:
        return command

    choose.__doc__ = about
    markers: tuple[Any, ...] = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    for marker in markers:
        union = marker[union]
    choose.__annotations__["command"] = union
    return choose


def with_metavars(kind: type, metavars: dict[str, str]) -> Any:
    """A dataclass of options whose help says FILE for STR, and no default where it is empty.

    Args:
        kind: dataclass that knows nothing of command lines.
        metavars: field to what stands for its value; fields of other classes do no harm.
    """
    hints, fields = get_type_hints(kind, include_extras=True), []
    for field in dataclasses.fields(kind):
        how: dict[str, Any] = {"help_behavior_hint": ""} if field.default in ("", ()) else {}
        if field.name in metavars:
            one = metavars[field.name]
            how["metavar"] = f"{one} [{one} ...]" if isinstance(field.default, tuple) else one
        hint = Annotated[hints[field.name], tyro.conf.arg(**how)] if how else hints[field.name]
        fields.append((field.name, hint, dataclasses.field(default=field.default)))
    name = f"{kind.__name__}OnTheCommandLine"
    made = dataclasses.make_dataclass(name, fields, bases=(kind,), frozen=True)
    made.__doc__ = kind.__doc__
    return made


def in_groups(groups: Any, values: dict[str, Any]) -> Any:
    """Values of options as a dataclass of dataclasses.

    Args:
        groups: its class.
        values: field of a group to its value; others keep their default.
    """
    made = {}
    for name, kind in get_type_hints(groups).items():
        names = {field.name for field in dataclasses.fields(kind)}
        made[name] = kind(**{field: value for field, value in values.items() if field in names})
    return groups(**made)


def failed(error: Exception, *options: Any, **called: str) -> int:
    """Say on standard error what went wrong; returns the exit status 1.

    Args:
        error: whose message names fields in backticks.
        options: dataclasses, or instances of them, whose fields were options.
        called: names of arguments of the library to those of the options they came from.
    """
    if isinstance(error, BrokenPipeError):  # nothing is wrong, see `run`
        raise error
    print(f"error: {as_typed(str(error), *options, **called)}", file=sys.stderr)
    return 1


def as_typed(message: str, *options: Any, **called: str) -> str:
    """A message with `n_train` as `--n-train`, if that is an option.

    Args:
        message: with names in backticks.
        options: dataclasses, or instances of them.
        called: names that stand for an option of another name.
    """
    names = {name: name for one in options for name in option_names(one)} | called

    def replacement(found: re.Match[str]) -> str:
        return f"`{typed(names[found[1]])}`" if found[1] in names else found[0]

    return re.sub(r"`(\w+)`(?! in )", replacement, message)  # `data` in a file is none


def typed(name: str) -> str:
    """A field as an option: n_train is typed --n-train."""
    return "--" + name.replace("_", "-")


def option_names(options: Any) -> set[str]:
    """Names of the fields that are typed with two hyphens, those of nested dataclasses included."""
    names: set[str] = set()
    of = options if isinstance(options, type) else type(options)
    hints = get_type_hints(of, include_extras=True)
    for field in dataclasses.fields(of):
        kind = hints[field.name]
        bare = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
        if dataclasses.is_dataclass(bare):
            names |= option_names(bare)
        elif _POSITIONAL not in getattr(kind, "__metadata__", ()):
            names.add(field.name)
    return names
