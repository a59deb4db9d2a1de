"""Numbers of every epoch in TensorBoard and Weights & Biases, offline; and what is said where these are not installed."""

import csv
import importlib.util
import os
import subprocess
import sys

import pytest

from scschnet.commands.train import main
from scschnet.runs.config import TrainConfig
from scschnet.runs.contributions import LayerContribution
from scschnet.runs.folder import EpochMetrics
from scschnet.train import trackers
from scschnet.train.loop import train

SMALL = {"n_train": 8, "n_val": 2, "n_test": 5, "n_features": 4, "n_interactions": 1, "n_rbf": 6}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


def installed(name: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed")


@pytest.mark.parametrize("name", trackers.OPTIONAL)
def test_a_missing_package_is_named_before_anything_is_written(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    assert main([*OPTIONS, f"--{name}", "--out", str(tmp_path / "run")]) == 1
    expected = f"error: `--{name}` needs a package: pip install 'scschnet[{name}]'\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "run").exists()


def test_weights_of_each_property_have_a_name():
    metrics = EpochMetrics(1, 2, 0.1, 1.0, 1.0, 3.0, {})
    layers = [
        LayerContribution(0, 1.0, 1.0, 0.25, 0.0),
        LayerContribution(0, 1.0, 1.0, 0.5, 0.0, property="mu"),
    ]
    found = trackers.numbers(metrics, layers)
    assert found["w_hat/v0"] == 0.25 and found["w_hat/mu/v0"] == 0.5


@installed("tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_what_metrics_csv_has_and_goes_on(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(TrainConfig(**SMALL, epochs=2, out=str(tmp_path / "run"), tensorboard=True))
    train(TrainConfig(**SMALL, epochs=3, out=str(tmp_path / "run"), tensorboard=True), run.path)
    events = EventAccumulator(str(run.path)).Reload()
    with run.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("train_loss", "val_loss", "val_forces_mae"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(k + 1, pytest.approx(float(row[name]))) for k, row in enumerate(rows)]
    with run.contributions.open(newline="") as file:
        weights = [float(r["normalized_weight"]) for r in csv.DictReader(file) if r["layer"] == "1"]
    assert [event.value for event in events.Scalars("w_hat/v1")] == pytest.approx(weights)


@installed("wandb")
@pytest.mark.slow
def test_wandb_offline(tmp_path):
    """In processes of its own: it starts one that would outlive the test."""
    variables = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "scschnet", "train", *OPTIONS, "--wandb", "--out", "run"]
    for more in (["--epochs=1"], None):
        words = [*command, *more] if more else [*command[:4], "--resume", "run", "--epochs=2"]
        done = subprocess.run(
            words, cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    (name,) = (run / "wandb-id").read_text().split()
    assert len(list((run / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))) == 2


def test_without_options_nothing_is_imported(tmp_path):
    assert trackers.open_trackers(TrainConfig(), tmp_path, 0) == []
    trackers.check_trackers(TrainConfig())
