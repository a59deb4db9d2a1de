"""What all commands have in common: they are listed, and their text fits into logs that are ASCII."""

import importlib
import io
import sys
from pathlib import Path

import pytest

import scschnet
from scschnet.commands import lammps as lammps_command
from scschnet.commands import overview

PACKAGE = Path(scschnet.__file__).parent


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


def test_every_command_is_listed(capsys):
    assert len(modules()) >= 8
    assert set(overview.COMMANDS) == modules()
    overview.main([])
    listed = capsys.readouterr().out
    for name in modules():
        assert f"python -m scschnet.{name} " in listed


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
    assert f"scschnet.{name}" in streams["stdout"].getvalue().decode("ascii")


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
