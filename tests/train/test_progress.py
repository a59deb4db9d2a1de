"""What a training shows while it runs: lines in a pipe, bars in a terminal."""

import io
import sys

import pytest

from scschnet.runs.config import TrainConfig
from scschnet.runs.folder import EpochMetrics
from scschnet.train import progress
from scschnet.train.loop import train
from scschnet.train.progress import Progress

SMALL = {"n_train": 8, "n_val": 2, "n_test": 5, "n_features": 4, "n_interactions": 1, "n_rbf": 6}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed_epochs(text: str) -> list[int]:
    words = [line.split()[1] for line in text.splitlines() if line.startswith("epoch ")]
    return [int(word.split("/")[0]) for word in words]


def shown(config: TrainConfig, capsys) -> list[int]:
    """Epochs of a run whose lines are printed in a pipe."""
    run = Progress(config, n_train=8)
    for epoch in range(1, config.epochs + 1):
        run.epoch(EpochMetrics(epoch, epoch, 1.0, 1.0, 1.0, 1.0, validation={}))
    return printed_epochs(capsys.readouterr().err)


def test_a_pipe_gets_about_fifty_lines_or_one_every_so_many_epochs(capsys):
    assert shown(TrainConfig(epochs=40), capsys) == list(range(1, 41))
    assert shown(TrainConfig(epochs=200), capsys) == [1, *range(4, 201, 4)]
    assert shown(TrainConfig(epochs=200, log_every=60), capsys) == [1, 60, 120, 180, 200]
    assert shown(TrainConfig(epochs=3, log_every=1), capsys) == [1, 2, 3]


def test_log_every_must_not_be_negative():
    with pytest.raises(ValueError, match="`log_every` must be at least 0, got -1"):
        TrainConfig(log_every=-1)


def test_log_every_may_change_on_resume(tmp_path, capsys):
    train(TrainConfig(**SMALL, epochs=1, out=str(tmp_path / "run")))
    capsys.readouterr()
    changed = TrainConfig(**SMALL, epochs=6, log_every=4, out=str(tmp_path / "run"))
    train(changed, tmp_path / "run")
    assert printed_epochs(capsys.readouterr().err) == [4, 6]


@pytest.mark.parametrize(
    ("stream", "seconds", "has_bar"),
    [(Terminal, 0.0, True), (Terminal, 1e3, False), (io.StringIO, 0.0, False)],
)
def test_test_errors_have_a_bar_in_a_terminal_if_they_take_long(
    tmp_path, monkeypatch, stream, seconds, has_bar
):
    monkeypatch.setattr(progress, "QUICK", seconds)
    monkeypatch.setattr(sys, "stderr", stream())
    train(TrainConfig(**SMALL, epochs=1, out=str(tmp_path / "run")))
    assert ("test errors" in sys.stderr.getvalue()) is has_bar
