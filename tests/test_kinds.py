"""Wrong kinds of files: every command says in one sentence what it got, what it expected, and what takes it."""

import importlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import make_model

import scschnet
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.data import Split, embedded, save_split, write_hdf5
from scschnet.kinds import Kind, expect, kind_of

XYZ = "2\nProperties=species:S:1:pos:R:3 energy=-1.0\nH 0 0 0\nO 0 0 1\n"
# Name -> kind; all lie in one folder, so that messages hold short names.
INPUTS = {
    "water.xyz": Kind.STRUCTURES,
    "ethanol.npz": Kind.STRUCTURES,
    "ethanol.h5": Kind.STRUCTURES,
    "model.pt": Kind.CHECKPOINT,
    "exported.pt": Kind.EXPORTED,
    "split.npz": Kind.SPLIT,
    "run": Kind.RUN,
    "options.toml": Kind.OPTIONS,
    "empty": Kind.EMPTY,
    "empty.xyz": Kind.EMPTY,
    "folder": Kind.FOLDER,
    "notes.md": Kind.OTHER,
    "damaged.pt": Kind.OTHER,
}
# Command -> module, arguments (X: the input), the option's name ("": it has none), and what it takes.
MODEL = {Kind.RUN, Kind.CHECKPOINT}
STRUCTURES = {Kind.STRUCTURES}
COMMANDS = {
    "train --data": ("train.__main__", "--data X --out out", "--data", STRUCTURES),
    "train --split-file": (
        "train.__main__",
        "--split-file X --out out",
        "--split-file",
        {Kind.SPLIT},
    ),
    "train --resume": ("train.__main__", "--resume X", "--resume", {Kind.RUN}),
    "train --init-from": ("train.__main__", "--init-from X", "--init-from", MODEL),
    "train --config": ("train.__main__", "--config X", "--config", {Kind.OPTIONS}),
    "evaluate": ("evaluate.__main__", "X", "", MODEL),
    "evaluate --data": ("evaluate.__main__", "run --data X", "--data", STRUCTURES),
    "data info": ("data.__main__", "info X", "", STRUCTURES),
    "data convert": ("data.__main__", "convert X out.h5", "", STRUCTURES),
    "select": ("select.__main__", "X water.xyz -o out.xyz", "", MODEL),
    "select trajectory": ("select.__main__", "run X -o out.xyz", "", STRUCTURES),
    "predict": ("predict.__main__", "X water.xyz -o out.xyz", "", MODEL | {Kind.EXPORTED}),
    "predict frames": ("predict.__main__", "model.pt X -o out.xyz", "", STRUCTURES),
    "runs": ("commands.runs", "X", "", {Kind.RUN}),
    "analysis modes --structure": (
        "analysis.__main__",
        "modes run --structure X -o out.png",
        "--structure",
        STRUCTURES,
    ),
    "analysis walks": ("analysis.__main__", "walks X -o out.png", "", {Kind.RUN}),
    "analysis walks --frames": (
        "analysis.__main__",
        "walks model.pt --frames X -o out.png",
        "--frames",
        STRUCTURES,
    ),
    "report": ("report.__main__", "X -o out.html", "", {Kind.RUN}),
    "export": ("export.__main__", "X -o out.pt", "", MODEL),
    "info": ("info", "X", "", {*MODEL, Kind.EXPORTED}),
    "lammps": ("lammps.__main__", "build --lammps-source X", "--lammps-source", set()),
    "analysis trajectory frames": ("analysis.__main__", "trajectory run X", "", STRUCTURES),
    "analysis --other": ("analysis.__main__", "unfamiliarity run --other X", "--other", STRUCTURES),
    "analysis trajectory": ("analysis.__main__", "trajectory X ethanol.npz", "", {Kind.RUN}),
} | {
    f"analysis {name}": ("analysis.__main__", f"{name} X", "", {Kind.RUN})
    for name in (
        *("contributions", "elements", "layers", "shapley", "reach", "filters", "unfamiliarity"),
        *("prune", "sizes", "modes", "error-bars", "properties"),
    )
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One of each kind."""
    path = tmp_path_factory.mktemp("kinds")
    (path / "water.xyz").write_text(XYZ)
    shutil.copy(embedded.path(), path / "ethanol.npz")
    write_hdf5(path / "ethanol.h5", embedded.load().select(np.arange(2)))
    save_checkpoint(path / "model.pt", Checkpoint(make_model()))
    scschnet.export(path / "model.pt", path / "exported.pt")
    save_split(path / "split.npz", Split(np.arange(3), np.arange(3, 5), np.arange(5, 7)))
    (path / "options.toml").write_text("epochs = 1\n")
    (path / "run").mkdir()
    (path / "run" / "config.toml").write_text('data = ""\n')
    for name in ("model.pt", "split.npz"):
        shutil.copy(path / name, path / "run" / name.replace("model", "best"))
    (path / "folder").mkdir()
    (path / "empty").touch()
    (path / "empty.xyz").touch()
    (path / "notes.md").write_text("no structures\n")
    (path / "damaged.pt").write_bytes((path / "model.pt").read_bytes()[:5000])
    return path


def failure(folder: Path, command: str, name: str, capsys, monkeypatch) -> str:
    """What a command says of an input that it cannot take."""
    module, arguments, _, _ = COMMANDS[command]
    monkeypatch.chdir(folder)
    words = ["program", *(name if word == "X" else word for word in arguments.split())]
    monkeypatch.setattr("sys.argv", words)
    before = sorted(os.listdir(folder))
    assert importlib.import_module(f"scschnet.{module}").main() in (1, 2)
    printed = capsys.readouterr()
    assert printed.out == "" and sorted(os.listdir(folder)) == before
    return printed.err


@pytest.mark.parametrize(("name", "kind"), INPUTS.items())
def test_kinds_are_told_apart(folder, name, kind):
    assert kind_of(folder / name) is kind


def wrong():
    for command, (_, _, _, accepted) in COMMANDS.items():
        for name, kind in [*INPUTS.items(), ("nowhere", None)]:
            if kind not in accepted:
                yield pytest.param(command, name, kind, id=f"{command}-{name}")


@pytest.mark.parametrize(("command", "name", "kind"), list(wrong()))
def test_a_wrong_kind_is_named_in_one_sentence(folder, command, name, kind, capsys, monkeypatch):
    error = failure(folder, command, name, capsys, monkeypatch)
    _, _, option, accepted = COMMANDS[command]
    assert error.count("\n") == 1 and len(error) < 320, error
    assert name in error
    for jargon in ("Errno", "codec", "UnknownFileType", "pickle", "`path`", "zip archive file"):
        assert jargon not in error
    if kind is not Kind.OTHER:
        assert not option or f"`{option}`" in error
    if kind not in (Kind.OTHER, None) and accepted:
        assert f"is {kind.value}" in error
        for one in accepted:
            assert one.value in error.partition(", but ")[0]


@pytest.mark.parametrize(
    ("command", "name", "advice"),
    [
        ("train --data", "exported.pt", "scschnet info describes it"),
        ("train --data", "run", "report, export and train --resume take it"),
        ("train --data", "options.toml", "scschnet train --config takes it"),
        ("train --config", "run", "; its options are in run/config.toml"),
        ("train --resume", "run/best.pt", "; name the run folder it lies in, run\n"),
        ("report", "run/config.toml", "; name the run folder it lies in, run\n"),
        ("report", "model.pt", "scschnet evaluate, export and info take it"),
        ("evaluate", "exported.pt", "; name the run folder it was exported from\n"),
        ("evaluate", "water.xyz", "scschnet data info describes it"),
        ("data info", "split.npz", "scschnet train --split-file takes it"),
    ],
)
def test_a_message_says_what_takes_the_file(folder, command, name, advice, capsys, monkeypatch):
    assert advice in failure(folder, command, name, capsys, monkeypatch)


def test_what_is_accepted_is_returned(folder):
    assert expect(folder / "run", Kind.RUN, Kind.CHECKPOINT) is Kind.RUN
    assert expect(folder / "notes.md", Kind.STRUCTURES, Kind.OTHER) is Kind.OTHER


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert kind_of(tmp_path / "pipe") is Kind.OTHER  # reading it would wait forever


# ---- run folders whose config.toml has a path that leads nowhere from here


OPENED_BY = {
    "train": ("train.__main__", "--resume ../run"),
    "evaluate": ("evaluate.__main__", "../run"),
    "report": ("report.__main__", "../run"),
    "analysis": ("analysis.__main__", "layers ../run"),
    "prune": ("analysis.__main__", "prune ../run"),
}


@pytest.mark.parametrize("command", OPENED_BY)
@pytest.mark.parametrize("relative", [True, False])
def test_data_of_a_run_that_are_not_there(tmp_path, command, relative, capsys, monkeypatch):
    here, run = tmp_path / "here", tmp_path / "run"
    here.mkdir()
    run.mkdir()
    data = "sets/old.npz" if relative else str(tmp_path / "old.npz")
    (run / "config.toml").write_text(f'data = "{data}"\n')
    save_checkpoint(run / "best.pt", Checkpoint(make_model()))
    header = "epoch,layer,weight,mean_norm,normalized_weight,normalized_weight_std"
    (run / "contributions.csv").write_text(f"{header}\n1,0,1,1,1,0\n")
    (run / "metrics.csv").write_text("epoch,step\n1,1\n")
    monkeypatch.chdir(here)
    module, arguments = OPENED_BY[command]
    monkeypatch.setattr("sys.argv", ["program", *arguments.split()])
    assert importlib.import_module(f"scschnet.{module}").main() == 1
    error = capsys.readouterr().err
    assert f"`data` in ../run/config.toml: there is no {data}" in error
    assert ("relative to the folder where the training was started" in error) is relative
    assert ("run the command in that folder, or " in error) is relative
    assert "write the whole path of the file there" in error
    assert ("--data" in error) is (command == "evaluate")
    assert error.count("\n") == 1
