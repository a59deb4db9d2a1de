"""Committees as a user trains them: one folder, one split, several seeds, and resume after a kill."""

import json
import shutil
import signal
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import SMALL, rows, start, wait_for_epochs, weights
from test_train import small_data as small_data

from scschnet.checkpoint import load_checkpoint
from scschnet.commands.train import main
from scschnet.committee import load, member_folders, read_factors
from scschnet.data import load_split
from scschnet.evaluate.error_bars import fit_factors
from scschnet.nn.committee import Committee
from scschnet.train import committee as committee_module
from scschnet.train import loop

EPOCHS = 3


@pytest.fixture(scope="module", autouse=True)
def no_reports():
    """Reports take seconds each and have their own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scschnet.commands.train.describe", lambda run: None)
        patch.setattr("scschnet.commands.train._report", lambda runs, path: None)
        yield


def command(data: Path, out: Path, more: str = "--committee 3") -> list[str]:
    return f"--data {data} --out {out} {SMALL} --epochs {EPOCHS} --seed 5 {more}".split()


@pytest.fixture(scope="module")
def finished(small_data, tmp_path_factory) -> Path:
    """A committee that was never interrupted."""
    folder = tmp_path_factory.mktemp("committees") / "finished"
    assert main(command(small_data, folder)) == 0
    return folder


def assert_same_committee(one: Path, other: Path) -> None:
    for member in ("member-1", "member-2", "member-3"):
        for name, value in weights(other / member).items():
            assert torch.equal(value, weights(one / member)[name]), (member, name)
        assert (one / member / "test.json").read_text() == (
            other / member / "test.json"
        ).read_text()
    assert read_factors(one) == read_factors(other)


def test_members_share_the_split_and_differ_in_their_seed(finished):
    folder_split = load_split(finished / "split.npz", 40)
    for k, member in enumerate(member_folders(finished)):
        config = tomllib.loads((member / "config.toml").read_text())
        assert (config["seed"], config["split_seed"], config["committee"]) == (5 + k, 5, 1)
        split = load_split(member / "split.npz", 40)
        for part in ("train", "val", "test"):
            np.testing.assert_array_equal(getattr(split, part), getattr(folder_split, part))
        assert len(rows(member / "metrics.csv")) == EPOCHS
    one, other = (weights(finished / f"member-{k}")["embedding.weight"] for k in (1, 2))
    assert not torch.equal(one, other)


def test_a_member_is_the_run_of_its_seed(finished, small_data, tmp_path):
    alone = tmp_path / "alone"
    assert main(command(small_data, alone, "--split-seed 5 --seed 6")) == 0
    for name, value in weights(alone).items():
        assert torch.equal(value, weights(finished / "member-2")[name]), name


def test_error_bars_are_calibrated_on_the_validation_part(finished, small_data):
    committee = load(finished)
    assert isinstance(committee, Committee)
    config = loop.TrainConfig(data=str(small_data))
    validation = loop.read_structures(config).select(load_split(finished / "split.npz", 40).val)
    assert committee.factors == fit_factors(list(committee.members), validation)
    content = json.loads((finished / "error_bars.json").read_text())
    assert content == {"energy": committee.factors.energy, "forces": committee.factors.forces}


def test_the_data_are_read_once_and_progress_names_the_member(
    small_data, tmp_path, monkeypatch, capsys
):
    read, calls = loop.read_structures, []
    for module in (loop, committee_module):
        monkeypatch.setattr(module, "read_structures", lambda c: calls.append(c) or read(c))
    assert main(command(small_data, tmp_path / "committee", "--committee 2 --log-every 1")) == 0
    assert len(calls) == 1
    said = capsys.readouterr()
    assert f"member 2 of 2: epoch {EPOCHS}/{EPOCHS}" in said.err
    assert f"scschnet export {tmp_path / 'committee'} -o committee.pt" in said.out


@pytest.mark.slow
@pytest.mark.parametrize("killed_in", [1, 2, 3])
def test_a_killed_committee_goes_on_where_it_was(finished, small_data, tmp_path, killed_in):
    folder = tmp_path / "committee"
    with start(command(small_data, folder)) as process:
        wait_for_epochs(process, folder / f"member-{killed_in}", 1)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    done = [folder / f"member-{k}" for k in range(1, killed_in)]
    before = [(member / "last.pt").stat().st_mtime_ns for member in done]
    assert main(["--resume", str(folder)]) == 0
    assert [(member / "last.pt").stat().st_mtime_ns for member in done] == before
    assert_same_committee(folder, finished)


def test_a_member_whose_folder_was_not_made_whole_begins_again(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "committee")
    member = folder / "member-3"
    for file in member.iterdir():
        if file.name != "split.npz":
            file.unlink()
    assert main(["--resume", str(folder)]) == 0
    config = tomllib.loads((member / "config.toml").read_text())
    assert config["out"] == str(member)
    assert_same_committee(folder, finished)


def test_more_epochs_are_for_all_members(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "committee")
    assert main(["--resume", str(folder), "--epochs", str(EPOCHS + 1)]) == 0
    for member in member_folders(folder):
        assert load_checkpoint(member / "last.pt").metadata["epoch"] == EPOCHS + 1


def test_members_that_begin_later_must_see_the_same_data(finished, small_data, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "committee")
    shutil.rmtree(folder / "member-3")
    changed = tmp_path / "changed.npz"
    with np.load(small_data) as file:
        np.savez(changed, **{**file, "E": file["E"] + 1.0})
    options = (folder / "committee.toml").read_text()
    (folder / "committee.toml").write_text(options.replace(str(small_data), str(changed)))
    assert main(["--resume", str(folder)]) == 1
    assert "are no longer those it was trained on; changed: " in capsys.readouterr().err
    assert not (folder / "member-3").exists()


def test_a_signal_stops_the_committee(small_data, tmp_path, monkeypatch):
    step = loop.Training._step

    def stop_and_step(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(loop.Training, "_step", stop_and_step)
    assert main(command(small_data, tmp_path / "committee")) == 128 + signal.SIGTERM
    assert not (tmp_path / "committee" / "member-2").exists()


def test_a_split_that_is_too_large(small_data, tmp_path, capsys):
    assert main(command(small_data, tmp_path / "committee", "--committee 2 --n-train 900")) == 1
    assert "must be at most 40" in capsys.readouterr().err
    assert not (tmp_path / "committee").exists()


def test_folders_that_are_taken(finished, small_data, tmp_path, capsys):
    assert main(command(small_data, finished)) == 1
    assert f"holds a committee; go on with it by --resume {finished}" in capsys.readouterr().err
    (tmp_path / "split.npz").touch()
    assert main(command(small_data, tmp_path)) == 1
    assert "holds split.npz, which a committee writes" in capsys.readouterr().err
    assert main(["--resume", str(finished), "--committee", "4"]) == 2
    assert "`--committee` of a resumed run must stay 3, got 4" in capsys.readouterr().err
