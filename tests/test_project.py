"""What the files around the package say of it: its version, its releases, its lanes of checks."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import scschnet

ROOT = Path(__file__).parent.parent
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
STALE = "install the package again: pip install -e, see CONTRIBUTING.md"


def test_the_installed_version_is_that_of_the_sources():
    assert metadata.version("scschnet") == scschnet.__version__, STALE


def test_cmake_finds_the_version_of_the_sources():
    """In the installed file that answers find_package(scschnet)."""
    places = [
        Path(p, "share/cmake/scschnet/scschnetConfigVersion.cmake") for p in scschnet.__path__
    ]
    (content, *_) = (place.read_text() for place in places if place.exists())
    found = re.search(r'^set\(PACKAGE_VERSION "(.*)"\)$', content, re.M)
    assert found[1] == scschnet.__version__, STALE


def test_the_version_is_written_once():
    """A number in pyproject.toml or CMakeLists.txt would be a second one to forget."""
    for name in ("pyproject.toml", "CMakeLists.txt"):
        assert scschnet.__version__ not in (ROOT / name).read_text(), name
        assert not re.search(r"^version = |scschnet VERSION [0-9]", (ROOT / name).read_text(), re.M)


def test_the_changelog_begins_with_what_is_not_released_and_the_last_release():
    headings = re.findall(r"^## (.*)$", CHANGELOG, re.M)
    assert headings[0] == "Unreleased"
    releases = [re.fullmatch(r"(\d+\.\d+\.\d+) - (\d{4}-\d{2}-\d{2})", h) for h in headings[1:]]
    assert all(releases)
    assert releases[0][1] == scschnet.__version__
    dates = [release[2] for release in releases]
    assert dates == sorted(dates, reverse=True)


def test_the_workflow_runs_the_lanes_that_there_are():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (lanes,) = re.findall(r"lane: \[(.*)\]", workflow)
    script = (ROOT / ".ci" / "run").read_text()
    assert set(lanes.split(", ")) == set(re.findall(r"^(\w+)\(\) \{$", script, re.M))


def test_an_unknown_lane_is_refused():
    done = subprocess.run(
        ["bash", str(ROOT / ".ci" / "run"), "lints"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "`.ci/run` takes lint, tests or nothing (both), got lints\n"


@pytest.mark.parametrize("pairs", [(), ("python3.11",), ("python3.11:2.13.0", "2.12.0")])
def test_wheels_are_made_for_pairs(pairs):
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "wheels"), *pairs], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("`.ci/wheels` takes pairs such as python3.11:2.13.0, got ")


def test_wheels_are_for_the_pythons_and_the_torch_that_the_package_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheels = project["tool"]["cibuildwheel"]
    oldest = wheels["build"].split()[0]
    assert project["project"]["requires-python"] == f">=3.{oldest[3:5]}"
    provider = (ROOT / "csrc" / "cmake" / "torch_provider.py").read_text()
    (torch,) = re.findall(r'TORCH_WHEN_ABSENT = "(.*)"', provider)
    assert f"torch==${{TORCH:-{torch}}}" in wheels["before-build"]
