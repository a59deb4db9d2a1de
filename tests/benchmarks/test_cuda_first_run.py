"""The driver of a first run on a GPU, dry: stages that hang, fail and skip cost only themselves."""

import importlib.util
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks/gpu/first_run.py"


@pytest.fixture
def driver():
    spec = importlib.util.spec_from_file_location("first_run", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["first_run"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["first_run"]


def test_stages_cost_only_themselves(driver, tmp_path, capsys):
    stages = [
        driver.Stage("works", 20, "echo first; echo $KIT"),
        driver.Stage("fails", 20, "echo the reason; exit 3"),
        driver.Stage("hangs", 1, "echo begun; sleep 60"),
        driver.Stage("skips", 20, "echo '3 skipped in 0.1s'"),
        driver.Stage("instead", 20, "echo built", "!fails"),
        driver.Stage("not needed", 20, "echo built", "!works"),
    ]
    assert driver.run(stages, tmp_path, tmp_path / "kit", 60) == 3
    rows = {row["stage"]: row for row in json.loads((tmp_path / "summary.json").read_text())}
    assert rows["works"]["result"] == "ok"
    assert rows["works"]["last"] == str(tmp_path / "kit")
    assert rows["fails"]["result"] == "rc 3"
    assert rows["hangs"]["result"] == "rc time"
    assert rows["hangs"]["s"] < 10
    assert rows["skips"]["result"] == "rc skipped"
    assert rows["instead"]["result"] == "ok"
    table = capsys.readouterr().out
    assert "---- fails\nthe reason" in table
    assert "needs !works" in table.splitlines()[-1]
    with tarfile.open(tmp_path / "logs.tgz") as archive:
        assert sum(name.endswith(".log") for name in archive.getnames()) == 5


def test_what_does_not_fit_is_left_out(driver, tmp_path, capsys):
    assert driver.run([driver.Stage("late", 20, "echo")], tmp_path, tmp_path, driver.RESERVE) == 0
    assert "no time" in capsys.readouterr().out


FAKE = """#!/bin/sh
[ "$2" = racecheck ] || exit 0
echo "a hazard" > "$6"; echo "wrong numbers"; exit 9
"""


def test_findings_of_sanitizers_are_shown(driver, tmp_path, monkeypatch, capsys):
    fake = tmp_path / "compute-sanitizer"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(driver.tempfile, "gettempdir", lambda: str(tmp_path))
    (stage,) = (stage for stage in driver.FIRST if stage.name == "sanitizers")
    assert driver.run([stage], tmp_path / "out", tmp_path, 60) == 1
    (row,) = json.loads((tmp_path / "out/summary.json").read_text())
    assert row["last"].split() == [
        "initcheck",
        "0",
        "memcheck",
        "0",
        "racecheck",
        "9",
        "synccheck",
        "0",
    ]
    shown = capsys.readouterr().out
    assert "wrong numbers" in shown
    assert "a hazard" in shown
    fake.write_text("#!/bin/sh")
    assert driver.run([stage], tmp_path / "out", tmp_path, 60) == 0


@pytest.mark.parametrize("plan", ["FIRST", "AGAIN"])
def test_plans_name_what_there_is(driver, plan):
    stages = getattr(driver, plan)
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    for k, stage in enumerate(stages):
        assert not stage.needs or stage.needs.lstrip("!") in names[:k]
        for word in stage.command.split():
            if word.startswith("test_cuda") and word.endswith(".py"):
                assert (PATH.parents[2] / "tests" / word).is_file()
