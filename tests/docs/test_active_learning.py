"""The example of active learning, from the teacher to the figure, with next to no training."""

import csv
import dataclasses
import importlib.util
from pathlib import Path

import pytest

from scschnet.data import embedded
from scschnet.runs.config import read_run_config

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "active_learning" / "active_learning.py"


def test_the_example_runs_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("active_learning", SCRIPT)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    small = {"n_features": 8, "n_interactions": 1, "epochs": 2}
    monkeypatch.setattr(example, "TEACHER", dataclasses.replace(example.TEACHER, **small))
    student = dataclasses.replace(example.STUDENT, **{**small, "epochs": 20})
    monkeypatch.setattr(example, "STUDENT", student)
    monkeypatch.setattr(example, "FURTHER", {**example.FURTHER, "epochs": 2})
    sizes = {"N_START": 12, "N_VAL": 4, "N_NEW": 3, "N_ROUNDS": 2, "N_TEST": 5}
    for name, value in {**sizes, "N_WALKERS": 2, "N_STEPS": 20, "EVERY": 2}.items():
        monkeypatch.setattr(example, name, value)
    figure, work = tmp_path / "figure.png", tmp_path / "work"
    words = ["x", str(embedded.path()), str(work), "--seeds", "1", "--plot", str(figure)]
    monkeypatch.setattr("sys.argv", words)
    example.main()
    table = (work / "results.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert [(row["how"], int(row["labeled"])) for row in rows] == [
        ("selected", 12), ("selected", 15), ("selected", 18),
        ("random", 12), ("random", 15), ("random", 18),
    ]  # fmt: skip
    assert figure.stat().st_size > 10_000
    last = read_run_config(work / "seed-0" / "selected-2")
    assert Path(last.init_from).name == "selected-1" and len(last.data) == 3
    example.main()
    assert (work / "results.csv").read_text() == table
