"""Checkpoints: round trips, damaged and foreign files, writes that fail."""

import os
import pickle
import random
import resource
import socket
import subprocess
import sys

import pytest
import torch
from conftest import make_model

import scschnet
from scschnet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from scschnet.commands.info import main as info
from scschnet.files import replacing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("skip", ["weighted", "plain"])
def test_round_trip(tmp_path, dtype, skip):
    model = make_model(dtype, skip=skip, rbf_range=3.0)
    path = tmp_path / "m.pt"
    save_checkpoint(path, Checkpoint(model, {"epoch": 3}, {"step": 1, "x": torch.ones(2)}))
    loaded = load_checkpoint(path)
    assert loaded.model.config == model.config
    assert not loaded.model.training
    for name, value in model.state_dict().items():
        restored = loaded.model.state_dict()[name]
        assert restored.dtype == value.dtype and torch.equal(restored, value), name
    assert loaded.metadata["epoch"] == 3
    assert loaded.metadata["units"] == {"energy": "eV", "length": "Angstrom"}
    assert loaded.training["step"] == 1


def test_versions_of_the_programs_are_kept(tmp_path, capsys):
    save_checkpoint(tmp_path / "m.pt", Checkpoint(make_model()))
    found = load_checkpoint(tmp_path / "m.pt").metadata["versions"]
    assert (found["scschnet"], found["torch"]) == (scschnet.__version__, torch.__version__)
    older = {"torch": "2.11.0", "python": "3.11.7"}  # before scschnet named itself
    save_checkpoint(tmp_path / "old.pt", Checkpoint(make_model(), {"versions": older}))
    assert load_checkpoint(tmp_path / "old.pt").metadata["versions"] == older
    assert info([str(tmp_path / "old.pt")]) == 0
    assert "trained with torch 2.11.0, trained with python 3.11.7\n" in capsys.readouterr().out
    metadata = scschnet.export(tmp_path / "old.pt", tmp_path / "exported.pt")
    assert "trained with scschnet" not in metadata["versions"]


def test_load_takes_a_run_folder_and_freezes(tmp_path):
    save_checkpoint(tmp_path / "best.pt", Checkpoint(make_model()))
    model = scschnet.load(tmp_path)
    assert not any(p.requires_grad for p in model.parameters())


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder that holds no run"):
        scschnet.load(tmp_path)
    (tmp_path / "config.toml").touch()
    with pytest.raises(FileNotFoundError, match=r"has no best\.pt, which the first finished epoch"):
        scschnet.load(tmp_path)


@pytest.mark.parametrize("content", [b"not a torch file", b"PK\x03\x04 broken zip"])
def test_damaged_file(tmp_path, content):
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.pt is not a readable checkpoint, or is damaged"):
        load_checkpoint(tmp_path / "m.pt")


def test_empty_file(tmp_path):
    (tmp_path / "m.pt").touch()
    with pytest.raises(ValueError, match=r"expected a checkpoint, but .*m\.pt is an empty"):
        load_checkpoint(tmp_path / "m.pt")


def test_truncated_file_at_every_tenth(tmp_path):
    path = tmp_path / "m.pt"
    save_checkpoint(path, Checkpoint(make_model()))
    whole = path.read_bytes()
    for tenth in range(1, 10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(ValueError, match="is not a readable checkpoint, or is damaged"):
            load_checkpoint(path)


def _content(value, name=""):
    """Every tensor and value of nested containers, by name, as bytes or text."""
    if isinstance(value, dict):
        parts = [_content(inner, f"{name}.{key}") for key, inner in value.items()]
        return {k: v for part in parts for k, v in part.items()}
    return {name: value.numpy().tobytes() if torch.is_tensor(value) else repr(value)}


def test_a_flipped_bit_is_noticed(tmp_path):
    """Anywhere in the file: refused, or in a byte that says nothing."""
    path, rng = tmp_path / "m.pt", random.Random(0)
    save_checkpoint(
        path, Checkpoint(make_model(n_features=32), {"epoch": 3}, {"x": torch.ones(99)})
    )

    def content():
        found = load_checkpoint(path)
        return _content(
            {"w": dict(found.model.state_dict()), "m": found.metadata, "t": found.training}
        )

    whole, expected, refused = path.read_bytes(), content(), 0
    for _ in range(150):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            assert content() == expected
        except ValueError as error:
            assert "is not a readable checkpoint, or is damaged" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 75


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("name", ["readout.hidden.weight", "offsets.shift"])
def test_weights_must_be_finite(tmp_path, name, value):
    model = make_model()
    model.state_dict()[name].view(-1)[0] = value
    save_checkpoint(tmp_path / "m.pt", Checkpoint(model))
    with pytest.raises(ValueError, match=rf"must hold finite weights, but {name} has NaN or inf"):
        load_checkpoint(tmp_path / "m.pt")


def test_file_that_would_run_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code in a checkpoint was run",))

    (tmp_path / "m.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="is not a readable checkpoint"):
        load_checkpoint(tmp_path / "m.pt")


def test_foreign_and_newer_files(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="is a torch file, but not a checkpoint of scschnet"):
        load_checkpoint(path)
    torch.save({"format": "scschnet-checkpoint", "version": 99}, path)
    with pytest.raises(
        ValueError, match="has checkpoint version 99, but this scschnet reads up to 1"
    ):
        load_checkpoint(path)


def test_missing_content(tmp_path):
    path = tmp_path / "m.pt"
    save_checkpoint(path, Checkpoint(make_model()))
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["readout.hidden.weight"]
    torch.save(content, path)
    with pytest.raises(
        ValueError, match=r"m\.pt does not fit together: (?s:.*)readout\.hidden\.weight"
    ):
        load_checkpoint(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    """A limit of the process does what a full disk does."""
    path = tmp_path / "m.pt"
    save_checkpoint(path, Checkpoint(make_model(), {"epoch": 1}))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*m\.pt: File too large$"):
            save_checkpoint(path, Checkpoint(make_model(), {"epoch": 2}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(path).metadata["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    """The next one that writes the same file does it; files of processes that run stay."""
    path, others = tmp_path / "m.pt", tmp_path / f".n.pt.{socket.gethostname()}.1.tmp"
    killed = "import os, sys; from scschnet.files import replacing\n"
    killed += (
        "with replacing(sys.argv[1]) as path: path.write_text('half'); os.kill(os.getpid(), 9)"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", killed, str(path)]).returncode == -9
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(".m.pt.") and left.name.endswith(".tmp")
    of_another = left.with_name(f".m.pt.elsewhere.{left.name.split('.')[-2]}.tmp")
    of_one_that_runs = left.with_name(f".m.pt.{socket.gethostname()}.{os.getppid()}.tmp")
    kept = [others, of_another, of_one_that_runs]
    for file in kept:
        file.touch()
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, *kept])


def test_replacing_keeps_the_old_file_on_any_error(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("new, but")
        raise KeyError
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"absent` must be an existing folder, got none"),
        replacing(tmp_path / "absent" / "f") as temporary,
    ):
        temporary.write_text("x")
