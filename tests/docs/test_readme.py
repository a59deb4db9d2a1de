"""The README as it stands: its commands run, its code prints what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # trains the model of the README

README = (Path(__file__).parents[2] / "README.md").read_text()
NUMBER = re.compile(r"-?\d+\.?\d*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the first command was run."""
    path = tmp_path_factory.mktemp("readme")
    first = re.search(r"pip install \. && (python -m scschnet\.train)\s", README)
    assert first
    run(first.group(1), path)
    return path


def run(command: str, folder: Path) -> str:
    arguments = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_command_leaves_what_the_readme_says(folder):
    run_folder = folder / "runs" / "ethanol"
    named = re.findall(r"`([a-z]+\.(?:toml|npz|csv|pt|json))`", README)
    assert {"config.toml", "metrics.csv", "best.pt", "test.json"} <= set(named)
    for name in named:
        assert (run_folder / name).exists() or name in {"my.toml"}, name
    assert (run_folder / "contributions.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "block", re.findall(r"```python\n(.*?)```\n\nprints `([^`]+)`", README, re.S)
)
def test_code_prints_what_the_readme_says(folder, block):
    code, expected = block
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.strip()
    # Another CPU rounds differently, and a training amplifies it: words exactly, numbers nearly.
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", expected)
    for found, stated in zip(NUMBER.findall(printed), NUMBER.findall(expected), strict=True):
        assert float(found) == pytest.approx(float(stated), rel=1e-4, abs=0.2)


def test_evaluate_and_analyze(folder):
    commands = re.findall(
        r"^    (python -m scschnet\.(?:evaluate|analysis|report) .*)$", README, re.M
    )
    assert len(commands) == 3
    for command in commands:
        output = command.split()[-1]
        run(command.replace("runs/ethanol-2", "runs/ethanol"), folder)
        assert (folder / output).stat().st_size > 10_000


def test_help_of_every_command(folder):
    for module in sorted(set(re.findall(r"python -m (scschnet\.\w+)", README))):
        assert "--help" in run(f"python -m {module} --help", folder)
