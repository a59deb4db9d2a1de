"""A training on several files: how they are divided, weighed, described, resumed and judged."""

import dataclasses
import json

import numpy as np
import pytest

from scschnet.commands.evaluate import main as evaluate
from scschnet.commands.train import main, parse_command_line
from scschnet.data import embedded, load_split, read, write_hdf5
from scschnet.evaluate import Predictions
from scschnet.runs.config import TrainConfig, read_config, read_run_config, write_config
from scschnet.train.loss import Loss
from scschnet.train.setup import choose_split, read_structures, resolve

SMALL = "--n-features 8 --n-interactions 2 --n-rbf 6 --batch-size 4 --threads 1 --epochs 2"


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    """Reports take seconds each and have their own tests."""
    monkeypatch.setattr("scschnet.commands.train.describe", lambda run: None)


@pytest.fixture
def files(tmp_path) -> tuple[str, str]:
    """Thirty frames in one file and ten others, without energies, in another."""
    frames = embedded.load()
    write_hdf5(tmp_path / "old.h5", frames.select(np.arange(30)))
    few = dataclasses.replace(frames.select(np.arange(30, 40)), energy=None)
    write_hdf5(tmp_path / "new.h5", few)
    return str(tmp_path / "old.h5"), str(tmp_path / "new.h5")


def options(files, out, more="") -> list[str]:
    return ["--data", *files, "--out", str(out), *SMALL.split(), *more.split()]


def divided(files, **sizes):
    """The set, and its split."""
    config = TrainConfig(data=files, **sizes)
    structures = read_structures(config)
    return structures, choose_split(resolve(config, structures), structures)


def test_every_file_is_divided_in_the_same_proportions(files):
    structures, split = divided(files, n_train=24, n_val=8)
    of_file = [
        np.bincount(structures.file_index[part]).tolist()
        for part in (split.train, split.val, split.test)
    ]
    assert of_file == [[18, 6], [6, 2], [6, 2]]
    everything = np.concatenate([split.train, split.val, split.test])
    np.testing.assert_array_equal(np.sort(everything), np.arange(40))
    structures, split = divided(files, n_train=24, n_val=8, n_test=4)
    assert np.bincount(structures.file_index[split.test]).tolist() == [3, 1]


@pytest.mark.parametrize(("n_train", "n_val"), [(39, 1), (20, 20), (1, 39), (7, 3), (38, 1)])
def test_the_parts_have_the_sizes_that_were_asked_for(files, n_train, n_val):
    _, split = divided(files, n_train=n_train, n_val=n_val)
    sizes = len(split.train), len(split.val), len(split.test)
    assert sizes == (n_train, n_val, 40 - n_train - n_val)


def test_a_run_on_two_files(files, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(options(files, out, "--n-train 20 --n-val 8")) == 0
    told = "".join(capsys.readouterr())
    assert "old.h5: 30 structures (H, C, O), energy 30, forces 30" in told
    assert "new.h5: 10 structures (H, C, O), energy 0, forces 10" in told
    assert "5 to train on, 2 for validation, 3 to test" in told
    assert read_run_config(out).data == files
    test = json.loads((out / "test.json").read_text())
    old, new = test["files"]
    assert (old["file"], new["file"]) == files
    assert old["energy"]["n"] == test["energy"]["n"] == 9 and new["energy"]["n"] == 0
    of_all, unit = test["forces"], "eV/Å"
    squares = sum(part["forces"]["n"] * part["forces"][unit]["rmse"] ** 2 for part in (old, new))
    assert squares / of_all["n"] == pytest.approx(of_all[unit]["rmse"] ** 2, rel=1e-12)
    assert evaluate([str(out), "--json", str(tmp_path / "found.json")]) == 0
    assert f"{files[1]}: MAE" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["files"][1]["forces"][unit]["mae"] == pytest.approx(new["forces"][unit]["mae"])


def test_a_run_on_two_files_is_resumed_and_notices_a_changed_one(files, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(options(files, out, "--n-train 20 --n-val 8")) == 0
    assert main(["--resume", str(out), "--epochs", "3"]) == 0
    write_hdf5(files[1], embedded.load().select(np.arange(31, 41)))
    assert main(["--resume", str(out), "--epochs", "4"]) == 1
    assert "are no longer those it was trained on" in capsys.readouterr().err


def test_a_split_file_counts_the_files_one_after_the_other(files, tmp_path):
    parts = {"train": np.arange(28, 36), "val": np.arange(4), "test": np.array([39])}
    np.savez(tmp_path / "parts.npz", **parts)
    out = tmp_path / "run"
    assert main(options(files, out, f"--split-file {tmp_path / 'parts.npz'}")) == 0
    assert load_split(out / "split.npz", 40).train.tolist() == list(range(28, 36))
    assert [part["file"] for part in json.loads((out / "test.json").read_text())["files"]] == [
        files[1]
    ]


def test_weights_of_files_count_in_the_loss(files):
    config = TrainConfig(data=files, data_weights=(1.0, 4.0), rho=0.0)
    structures = read_structures(config)
    predictions = Predictions(np.zeros(40), np.zeros_like(structures.positions))
    found = Loss(config, structures).errors(predictions, structures)["loss_forces"].rmse ** 2
    squares = np.square(structures.forces).mean(axis=1)
    weights = np.where(structures.idx_m < 30, 1.0, 4.0)
    assert found == pytest.approx(np.mean(weights * squares), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_weights": (1.0,)}, "one number for each of 2 files in `data`, got 1"),
        ({"data_weights": (1.0, -1.0)}, "`data_weights` must be finite and not negative"),
        ({"data_weights": (0.0, 0.0)}, "`data_weights` must not all be zero"),
        ({"data": ("a.h5", "a.h5")}, "`data` must not name a file twice"),
    ],
)
def test_weights_and_files_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"data": ("a.h5", "b.h5"), **options})


def test_files_are_a_list_in_toml_and_one_may_stand_alone(tmp_path):
    path = tmp_path / "config.toml"
    write_config(path, TrainConfig(data=("a.h5", "b.xyz"), data_weights=(1.0, 5.0)))
    assert TrainConfig(**read_config(path)).data_weights == (1.0, 5.0)
    for text, data in (('data = "a.h5"', ("a.h5",)), ('data = ""', ())):
        path.write_text(text)
        assert TrainConfig(**read_config(path)).data == data
    path.write_text("data = [1]")
    with pytest.raises(ValueError, match=r"`data` must be a list of str, got \[1\]"):
        read_config(path)
    found = parse_command_line(["--data", "a.h5", "b.xyz", "--data-weights", "1", "5"]).config
    assert (found.data, found.data_weights) == (("a.h5", "b.xyz"), (1.0, 5.0))


def test_units_and_keys_are_for_the_files_that_do_not_state_them(files, tmp_path):
    lines = ["3", 'Properties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=2.0 pbc="F F F"']
    lines += ["O 0 0 0 0 0 1", "H 0 0 0.96 0 0 0", "H 0.93 0 -0.24 0 0 0"]
    (tmp_path / "new.extxyz").write_text("\n".join(lines) + "\n")
    keys = {"energy_key": "REF_energy", "forces_key": "REF_forces"}
    data = (files[0], str(tmp_path / "new.extxyz"))
    structures = read_structures(TrainConfig(data=data, units="kcal/mol, Angstrom", **keys))
    assert structures.energy[:30].tolist() == read(files[0]).energy.tolist()
    assert structures.energy[30] == pytest.approx(2.0 / 23.060548, rel=1e-6)
    with pytest.raises(ValueError, match="`energy_key` must be left out for a file of hdf5"):
        read_structures(TrainConfig(data=files[:1], **keys))
