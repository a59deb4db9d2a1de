"""What all commands have in common: one entry point, one look, and text that fits into logs that are ASCII."""

import importlib
import io
import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import tyro

import scschnet
from scschnet.commands import lammps as lammps_command
from scschnet.commands import overview
from scschnet.commands.line import as_typed, option_names

PACKAGE = Path(scschnet.__file__).parent
NESTED = {"analysis": "filters", "data": "convert", "lammps": "build"}


def modules() -> set[str]:
    """Everything that `python -m` runs: packages with a `__main__`, and modules that call their main."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__main__.py")}
    calls = 'if __name__ == "__main__":'
    files = {path.stem for path in PACKAGE.glob("*.py") if calls in path.read_text()}
    return packages | files - {"__main__"}


def ascii_streams(monkeypatch) -> dict[str, io.BytesIO]:
    """Standard output and error as a batch system may open them, under LANG=C."""
    found = {}
    for name in ("stdout", "stderr"):
        found[name] = io.BytesIO()
        stream = io.TextIOWrapper(found[name], encoding="ascii", errors="strict")
        monkeypatch.setattr(sys, name, stream)
    return found


def ended(arguments: list[str]) -> int:
    """Exit status of `scschnet` with these arguments."""
    try:
        return overview.main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


def helps() -> list[list[str]]:
    """Every command, and one command of each that has commands of its own."""
    return [[name] for name in overview.COMMANDS] + [[*pair] for pair in NESTED.items()]


def test_every_command_is_listed_in_a_line(capsys):
    assert len(modules()) >= 8
    assert set(overview.COMMANDS) == modules()
    for arguments in ([], ["--help"], ["-h"]):
        assert ended(arguments) == 0
        listed = capsys.readouterr().out.splitlines()
        for name, what in overview.COMMANDS.items():
            (line,) = [line for line in listed if f"• {name} " in line]
            assert " ".join(line.split()).strip("│ ").startswith(f"• {name} {what[:30]}")


def test_the_list_and_the_version_need_no_torch():
    """Nor does `import scschnet`: a torch that does not load must not silence `scschnet doctor`."""
    code = (
        "import sys; from scschnet.commands.overview import main\n"
        "assert main(['--version']) == 0 and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"scschnet {scschnet.__version__}\n"


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "info"])
def test_a_torch_of_another_version_is_one_sentence(command):
    """No traceback, and no undefined symbol."""
    code = (
        "import torch; torch.__version__ = '2.99.0'; from scschnet.commands.overview import main\n"
        f"raise SystemExit(main(['{command}', 'runs/ethanol']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: scschnet was compiled with torch ")
    assert "but torch 2.99.0 is installed; install its wheel for torch 2.99, or " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], *helps()], ids=" ".join)
def test_every_command_tells_the_version(arguments, capsys):
    assert ended([*arguments, "--version"]) == 0
    assert capsys.readouterr().out == f"scschnet {scschnet.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: `scschnet` has no command `trian`; the nearest is `train`"),
        (["analysis", "filter"], "`scschnet analysis` has no command `filter`; the nearest is"),
        (["data", "conver"], "`scschnet data` has no command `conver`; the nearest is `convert`"),
        (["lammps", "bild"], "`scschnet lammps` has no command `bild`; the nearest is `build`"),
        (["--verison"], "error: unknown option `--verison`; scschnet --help lists all"),
    ],
)
def test_an_unknown_command_names_the_nearest(arguments, message, capsys):
    assert ended(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", helps(), ids=" ".join)
def test_help_says_what_every_argument_is(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert ended([*arguments, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: scschnet {' '.join(arguments)} ")
    for riddle in ("{None}", "[[", "(default: )", "(default: '')", "(default: None)", " PATH"):
        assert riddle not in text


def test_options_of_a_training_are_in_groups_with_config_and_resume_among_them(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    assert ended(["train", "--help"]) == 0
    text = capsys.readouterr().out
    _, *parts = re.split(r"^[^\w\n]*(\w+) options[^\w\n]*$", text, flags=re.M)
    boxes = dict(zip(parts[::2], parts[1::2], strict=True))
    expected = {
        "start": ("--preset", "--config FILE", "--resume DIR"),
        "data": ("--data FILE", "--n-train", "--properties NAME", "--committee INT"),
        "beginning": ("--init-from RUN", "--offsets"),
        "model": ("--cutoff", "--n-features"),
        "loss": ("--rho",),
        "optimization": ("--lr",),
        "machine": ("--device DEVICE",),
        "output": ("--out DIR", "--log-every"),
    }
    for name, options in expected.items():
        for option in options:
            assert option in boxes[name], (name, option)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_learn_commands_and_options(shell, capsys):
    assert ended(["--tyro-print-completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*overview.COMMANDS, "filters", "--n-train", "--lammps-source"):
        assert word in script


@pytest.mark.parametrize("name", sorted(modules()))
def test_help_fits_into_an_ascii_log(name, monkeypatch):
    module = f"scschnet.{name}" + (".__main__" if (PACKAGE / name).is_dir() else "")
    main = importlib.import_module(module).main
    streams = ascii_streams(monkeypatch)
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert sys.stdout.errors == "backslashreplace" and sys.stderr.errors == "backslashreplace"
    sys.stdout.flush()
    assert f"scschnet {name}" in streams["stdout"].getvalue().decode("ascii")


def test_paths_with_other_letters_fit_into_an_ascii_log(monkeypatch):
    streams = ascii_streams(monkeypatch)
    monkeypatch.setattr(scschnet._C, "__file__", "/home/jörg/scschnet/_C.so")
    overview.main(["--cmake-prefix"])
    assert lammps_command.main(["build", "--lammps-source", "/home/jörg/lammps"]) == 1
    sys.stdout.flush()
    sys.stderr.flush()
    assert streams["stdout"].getvalue() == b"/home/j\\xf6rg/scschnet/share/cmake\n"
    error = streams["stderr"].getvalue().decode("ascii")
    assert "`--lammps-source` must be a source tree of LAMMPS, got /home/j\\xf6rg/lammps" in error


@dataclass
class Inner:
    n_train: int = 1


@dataclass
class Outer:
    run: Annotated[tyro.conf.Positional[int], tyro.conf.arg(metavar="RUN")]
    inner: tyro.conf.OmitArgPrefixes[Inner]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path()


def test_messages_name_options_as_they_are_typed():
    assert option_names(Outer) == {"n_train", "out"}
    message = "`n_train` and `out` and `run` and `cell`, `out` in a.toml"
    assert (
        as_typed(message, Outer) == "`--n-train` and `--out` and `run` and `cell`, `out` in a.toml"
    )


@pytest.mark.parametrize("module", ["scschnet", "scschnet.doctor"])
def test_who_reads_may_stop_reading(module):
    """As `scschnet info FILE | head` does; no traceback follows."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", module]
    with os.fdopen(writing) as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_the_script_and_the_module_are_the_same():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["scschnet"].split(":")
    assert getattr(importlib.import_module(module), function) is overview.main
    done = subprocess.run(
        [sys.executable, "-m", "scschnet"], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: scschnet [-h]")
