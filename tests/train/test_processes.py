"""Several processes train as one does: same losses, one run folder, resume with another number."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_train import command, no_reports, rows, small_data, weights  # noqa: F401 (fixtures)

from scschnet.commands.train import main

pytestmark = pytest.mark.slow  # starts groups of processes


def torchrun(n: int, arguments: list[str]) -> subprocess.CompletedProcess:
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(n),
    ]
    return subprocess.run(
        [*launch, "-m", "scschnet.train", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,  # processes that wait for each other wait for ever
    )


def assert_close(run: Path, other: Path) -> None:
    """Equal to rounding: in float64, summed in another order and amplified by training."""
    for mine, theirs in zip(rows(run / "metrics.csv"), rows(other / "metrics.csv"), strict=True):
        for name in (
            "epoch",
            "step",
            "train_loss",
            "val_loss",
            "val_energy_mae",
            "val_forces_rmse",
        ):
            assert float(mine[name]) == pytest.approx(float(theirs[name]), rel=1e-8), name
    both = (rows(run / "contributions.csv"), rows(other / "contributions.csv"))
    for mine, theirs in zip(*both, strict=True):
        assert float(mine["normalized_weight"]) == pytest.approx(
            float(theirs["normalized_weight"]), rel=1e-8
        )
    for name, value in weights(run).items():
        torch.testing.assert_close(value, weights(other)[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_two_processes_equal_one(small_data, tmp_path, batch_size):  # noqa: F811
    options = f"--dtype float64 --epochs 2 --batch-size {batch_size}"
    assert main(command(small_data, tmp_path / "one", options)) == 0
    done = torchrun(2, command(small_data, tmp_path / "two", options))
    assert done.returncode == 0, done.stderr
    assert_close(tmp_path / "two", tmp_path / "one")
    assert done.stdout.count("test structures") == 1


def test_resume_with_another_number_of_processes(small_data, tmp_path):  # noqa: F811
    options = "--dtype float64 --schedule constant"
    assert main(command(small_data, tmp_path / "one", f"{options} --epochs 4")) == 0
    done = torchrun(2, command(small_data, tmp_path / "mixed", f"{options} --epochs 2"))
    assert done.returncode == 0, done.stderr
    assert main(["--resume", str(tmp_path / "mixed"), "--epochs", "3"]) == 0
    done = torchrun(2, ["--resume", str(tmp_path / "mixed"), "--epochs", "4"])
    assert done.returncode == 0, done.stderr
    assert_close(tmp_path / "mixed", tmp_path / "one")
