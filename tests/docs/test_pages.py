"""README and the pages of docs as they stand: their commands run, their code prints what they say."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import lammps_host
import numpy as np
import pytest

from scschnet.commands.overview import main

pytestmark = pytest.mark.slow  # trains the model of the README

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests" / "files"
README = (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
TEXT = "\n".join(PAGES.values())
NUMBER = re.compile(r"-?\d+\.?\d*")
CODE = re.compile(r"```python\n(.*?)```\n\nprints `([^`]+)`", re.S)


def blocks():
    """Code of the pages and what it prints; that of tutorials is run in its order."""
    for page, text in PAGES.items():
        if not page.startswith("docs/tutorials/"):
            for number, (code, expected) in enumerate(CODE.findall(text), start=1):
                yield pytest.param(code, expected, id=f"{page} {number}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the first command was run."""
    path = tmp_path_factory.mktemp("readme")
    first = re.search(r"pip install \. && (scschnet train)\s", README)
    assert first
    run(first.group(1), path)
    return path


def run(command: str, folder: Path) -> str:
    """Run `scschnet ...`, by the interpreter of the tests."""
    program, *arguments = shlex.split(command, comments=True)
    assert program == "scschnet"
    done = subprocess.run(
        [sys.executable, "-m", "scschnet", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_print(code: str, expected: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.strip()
    # Another CPU rounds differently, and a training amplifies it: words exactly, numbers nearly.
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", expected)
    for found, stated in zip(NUMBER.findall(printed), NUMBER.findall(expected), strict=True):
        assert float(found) == pytest.approx(float(stated), rel=1e-4, abs=0.2)


def test_the_first_command_leaves_what_the_pages_say(folder):
    run_folder = folder / "runs" / "ethanol"
    table = PAGES["docs/first-model.md"].partition("| in the run folder |")[2].partition("\n\n")[0]
    named = re.findall(r"`([\w.-]+)`", table)
    assert {"config.toml", "metrics.csv", "best.pt", "test.json", "report.html"} <= set(named)
    for name in named:
        assert (run_folder / name).exists(), name
    assert (run_folder / "contributions.png").stat().st_size > 10_000


@pytest.mark.parametrize(("code", "expected"), list(blocks()))
def test_code_prints_what_the_page_says(folder, code, expected):
    check_print(code, expected, folder)


def run_tutorial(name: str, folder: Path, shorter: dict[str, str] | None = None) -> int:
    """Run code and commands of a page in their order; returns how many there are.

    Args:
        name: of the page.
        folder: where to run it.
        shorter: text of the page that is replaced, because what it says takes hours.
    """
    text = PAGES[f"docs/tutorials/{name}.md"]
    for old, new in (shorter or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    steps = re.findall(CODE.pattern + r"|^    (scschnet [^\n]*)$", text, re.S | re.M)
    for code, printed, command in steps:
        if command:
            run(command, folder)
        else:
            check_print(code, printed, folder)
    return len(steps)


@pytest.mark.parametrize("name", ["ethanol", "copper", "sweep", "further", "committee"])
def test_a_tutorial_runs_from_top_to_bottom(name, tmp_path):
    assert run_tutorial(name, tmp_path) >= 2


def test_the_tutorial_on_qm9_runs_with_20_molecules(tmp_path):
    shutil.copy(FILES / "qm9_first20.npz", tmp_path)
    shorter = {
        "    scschnet data download qm9\n": "",
        "dsgdb9nsd.xyz.tar.bz2": "qm9_first20.npz",
        '"n_train": 10_000, "n_val": 1_000, "n_test": 2_000, "n_features": 64': (
            '"n_train": 12, "n_val": 4, "n_test": 4, "n_features": 8'
        ),
        "epochs=30": "epochs=2",
    }
    assert run_tutorial("qm9", tmp_path, shorter) == 4
    for name in ("contributions", "elements"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_the_tutorial_on_water_runs_with_two_frames(tmp_path):
    part = tmp_path / "deepmd-kit" / "examples" / "water" / "data" / "data_0" / "set.000"
    part.mkdir(parents=True)
    with np.load(FILES / "water64_2frames.npz") as frames:
        np.savetxt(part.parent / "type.raw", (frames["z"] == 1).astype(int), fmt="%d")
        for name, key in {"box": "cell", "coord": "R", "force": "F", "energy": "E"}.items():
            np.save(part / f"{name}.npy", frames[key].reshape(2, -1))
    shorter = {
        "400 frames": "2 frames",
        "--n-train 340 --n-val 20 --n-features 96": "--n-train 1 --n-val 1 --n-features 8",
        "--epochs 100": "--epochs 1",
        "    scschnet lammps build\n": "",  # which the tests of LAMMPS do once
    }
    assert run_tutorial("water", tmp_path, shorter) == 3
    (script,) = re.findall(r"```lammps\n(.*?)```", PAGES["docs/tutorials/water.md"], re.S)
    script = re.sub(r"run  .*", "run 20", script.replace("10 1000 10000", "10 1 10"))
    assert "mpirun -n 2 lmp -in in.water" in PAGES["docs/tutorials/water.md"]
    lammps_host.run(tmp_path, script, ranks=2)
    assert len((tmp_path / "rdf.txt").read_text().splitlines()) > 240


def test_evaluate_and_analyze(folder):
    page = PAGES["docs/first-model.md"]
    commands = re.findall(r"^    (scschnet (?:evaluate|analysis|report) .*)$", page, re.M)
    assert len(commands) == 3
    for command in commands:
        output = command.split()[-1]
        run(command.replace("runs/ethanol-2", "runs/ethanol"), folder)
        assert (folder / output).stat().st_size > 10_000


def test_commands_and_options_that_the_pages_name_exist(capsys):
    """Those of lines and phrases that begin with `scschnet NAME`."""
    named: dict[str, set[str]] = {}
    for name, rest in re.findall(r"(?:^    |`)scschnet (\w+)([^\n`#]*)", TEXT, re.M):
        named.setdefault(name, set()).update(re.findall(r"--[\w-]+", rest))
    named = {name: options for name, options in named.items() if name not in ("NAME", "was")}
    assert {"train", "evaluate", "export", "doctor", "info"} <= set(named)
    for name, options in named.items():
        nested = {"data": "info", "analysis": "layers", "lammps": "build"}.get(name, "")
        with pytest.raises(SystemExit) as stop:
            main([*f"{name} {nested}".split(), "--help"])
        assert stop.value.code == 0, name
        text = capsys.readouterr().out
        for option in options - {"--other", "--blocks"}:
            assert option in text, (name, option)
