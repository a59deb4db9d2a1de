"""A training that begins from a trained model: what it takes over, what it adds, what it refuses, and how it goes on."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from scschnet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from scschnet.commands.info import main as info
from scschnet.commands.train import main, parse_command_line
from scschnet.data import StructureSet, embedded, load_split, read, write_hdf5
from scschnet.evaluate import predict
from scschnet.runs.config import TrainConfig, read_run_config
from scschnet.train import loop
from scschnet.train.further import digest_of, further_model, options_of
from scschnet.train.setup import build_model

SHAPE = "--n-features 8 --n-interactions 2 --n-rbf 6"
SIZE = "--batch-size 4 --threads 1 --n-train 16 --n-val 6"


@pytest.fixture(autouse=True, scope="module")
def no_reports():
    """Reports take seconds each and have their own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scschnet.commands.train.describe", lambda run: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run on thirty frames, `before`, and thirty other frames, new.h5."""
    folder = tmp_path_factory.mktemp("further")
    frames = embedded.load()
    write_hdf5(folder / "old.h5", frames.select(np.arange(30)))
    write_hdf5(folder / "new.h5", frames.select(np.arange(30, 60)))
    run = f"--data {folder / 'old.h5'} --out {folder / 'before'} {SHAPE} {SIZE} --epochs 8"
    assert main(run.split()) == 0
    return folder


def begin(folder: Path, out: Path, more: str = "", data: str = "new.h5") -> list[str]:
    data = " ".join(str(folder / name) for name in data.split())
    return f"--init-from {folder / 'before'} --data {data} --out {out} {SIZE} --epochs 2 {more}".split()


def parameters(run: Path, name: str = "best.pt") -> dict[str, torch.Tensor]:
    return load_checkpoint(run / name).model.state_dict()


def own_labels(folder: Path, factor: float = 1.0) -> StructureSet:
    """The new frames with what the model says of them as labels, in units of which `factor` are one eV."""
    frames = read(folder / "new.h5")
    found = predict(load_checkpoint(folder / "before" / "best.pt").model, frames)
    labels = {name: factor * getattr(found, name) for name in ("energy", "forces")}
    return dataclasses.replace(frames, **labels)


def water(n: int = 8, shift: float = 0.0) -> StructureSet:
    """Water and sulfur dioxide in turn, with made-up labels."""
    rng = np.random.default_rng(3)
    shapes = [np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) * scale for scale in (1, 1.5)]
    positions = [shapes[m % 2] + rng.normal(0, 0.03, (3, 3)) for m in range(n)]
    return StructureSet(
        positions=np.concatenate(positions),
        atomic_numbers=np.array([8, 1, 1, 16, 8, 8] * (n // 2)),
        atom_ptr=np.arange(0, 3 * n + 1, 3),
        energy=rng.normal(-2080.0 + shift, 0.1, n),
        forces=rng.normal(0, 1.0, (3 * n, 3)),
    )


def test_weights_and_shape_are_taken_over(folder, tmp_path):
    out = tmp_path / "run"
    assert main(begin(folder, out, "--lr 1e-12 --dtype float64 --ema 0")) == 0
    before, after = parameters(folder / "before"), parameters(out)
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value.to(after[name].dtype), rtol=1e-6, atol=1e-9)
    config = read_run_config(out)
    assert (config.n_features, config.n_interactions, config.n_rbf) == (8, 2, 6)
    assert load_split(out / "split.npz", 30).train.size == 16


def test_training_further_is_better_than_beginning_anew(folder, tmp_path):
    write_hdf5(folder / "own.h5", own_labels(folder))
    data = f"--data {folder / 'own.h5'} {SIZE} --epochs 2"
    assert main(begin(folder, tmp_path / "further", "--lr 1e-3", data="own.h5")) == 0
    assert main(f"{data} {SHAPE} --out {tmp_path / 'anew'}".split()) == 0
    further, anew = (
        json.loads((tmp_path / name / "test.json").read_text())["forces"]["eV/Å"]["rmse"]
        for name in ("further", "anew")
    )
    assert further < 0.2 * anew


def test_where_a_run_began_is_written_down_and_shown(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(begin(folder, out)) == 0
    digest, path = digest_of(folder / "before"), str(folder / "before")
    assert len(digest) == 32
    of_checkpoint = load_checkpoint(out / "best.pt").metadata["train_config"]
    for config in (dataclasses.asdict(read_run_config(out)), of_checkpoint):
        assert (config["init_from"], config["init_fingerprint"]) == (path, digest)
    capsys.readouterr()
    assert info([str(out)]) == 0
    assert f"begun from  {path}, fingerprint {digest}" in capsys.readouterr().out


def test_a_checkpoint_file_will_do_and_its_fingerprint_can_be_asked_for(folder, tmp_path, capsys):
    file = folder / "before" / "best.pt"
    digest = digest_of(str(file))
    more = f"--init-fingerprint {digest}"
    arguments = begin(folder, tmp_path / "run", more)
    arguments[1] = str(file)
    assert main(arguments) == 0
    more = f"--init-fingerprint {'0' * 32}"
    assert main(begin(folder, tmp_path / "other", more)) == 1
    assert f"`--init-from` must have the fingerprint {'0' * 32}" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--n-features 16", "`--n-features` must be 8, that of the model in"),
        ("--cutoff 4", "`--cutoff` must be 5.0, that of the model in"),
        ("--skip plain", "`--skip` must be 'weighted', that of the model in"),
        ("--repulsion zbl", "`--repulsion` must be 'none', that of the model in"),
    ],
)
def test_an_option_that_contradicts_the_model_is_refused(folder, tmp_path, capsys, option, message):
    assert main(begin(folder, tmp_path / "run", option)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option", ["--w-init one", "--readout-start matched", "--output-scale energy"]
)
def test_options_of_fresh_weights_are_refused(folder, tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        main(begin(folder, tmp_path / "run", option))
    assert "is for fresh weights" in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(
    "options", [{"offsets": "refit"}, {"new_elements": "add"}, {"init_fingerprint": "0" * 32}]
)
def test_options_of_a_trained_model_need_one(options):
    with pytest.raises(ValueError, match="needs `init_from`"):
        TrainConfig(**options)
    assert TrainConfig(init_from="runs/before", **options)


def test_a_preset_and_a_file_of_options_yield_to_the_model(folder, tmp_path):
    before = str(folder / "before")
    config = parse_command_line(["--init-from", before, "--preset", "md17"]).config
    assert (config.n_features, config.cutoff_function) == (8, "cosine")
    assert (config.readout_start, config.output_scale) == ("xavier", "forces")
    assert config.rho == 0.02
    (tmp_path / "o.toml").write_text(f'init_from = "{before}"\nlr = 1e-3\n')
    config = parse_command_line(["--config", str(tmp_path / "o.toml")]).config
    assert (config.init_from, config.n_features, config.lr) == (before, 8, 1e-3)


def test_a_run_is_resumed_without_the_model_it_began_from(folder, tmp_path):
    moved, out = tmp_path / "before.pt", tmp_path / "resumed"
    moved.write_bytes((folder / "before" / "best.pt").read_bytes())
    arguments = ["--init-from", str(moved), *begin(folder, out, "--epochs 1")[2:]]
    assert main(arguments) == 0
    moved.unlink()
    assert main(["--resume", str(out), "--epochs", "3"]) == 0
    assert load_checkpoint(out / "last.pt").metadata["epoch"] == 3


def test_a_run_that_stops_before_its_first_epoch_goes_on_bit_for_bit(folder, tmp_path, monkeypatch):
    before = tmp_path / "before.pt"
    before.write_bytes((folder / "before" / "best.pt").read_bytes())

    def arguments(out):
        # Filters are no part of a checkpoint's model, and dense ones have other bits.
        return [*begin(folder, out, "--filters dense")[2:], "--init-from", str(before)]

    def stop(*_):
        raise RuntimeError("the power went off")

    assert main(arguments(tmp_path / "whole")) == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "run_epoch", stop)
        with pytest.raises(RuntimeError, match="the power went off"):
            main(arguments(tmp_path / "stopped"))
    before.unlink()
    assert not (tmp_path / "stopped" / "best.pt").exists()
    assert main(["--resume", str(tmp_path / "stopped")]) == 0
    whole, stopped = (parameters(tmp_path / name, "last.pt") for name in ("whole", "stopped"))
    for name, value in whole.items():
        assert torch.equal(stopped[name], value), name


def test_new_elements_are_refused_or_added(folder, tmp_path, capsys):
    frames = water()
    write_hdf5(folder / "sulfur.h5", frames)
    sizes = "--n-train 5 --n-val 2"
    assert main(begin(folder, tmp_path / "run", sizes, data="sulfur.h5")) == 1
    told = capsys.readouterr().err
    assert "must hold only H, C, O, the elements of the model in" in told
    assert "got S; --new-elements add gives them embeddings" in told
    sizes += " --seed 3 --new-elements add --offsets refit --lr 1e-12 --ema 0"
    assert main(begin(folder, tmp_path / "run", sizes, data="sulfur.h5")) == 0
    before, after = (
        load_checkpoint(folder / "before" / "best.pt").model,
        load_checkpoint(tmp_path / "run" / "best.pt").model,
    )
    assert after.config.elements == (1, 6, 8, 16)
    old, new = before.embedding.weight, after.embedding.weight
    torch.testing.assert_close(new[[1, 6, 8]], old[[1, 6, 8]])
    assert not torch.allclose(new[16], old[16])
    # Its old structures are predicted as before, up to the moved energies of atoms.
    old_frames = read(folder / "old.h5")
    one, other = predict(before, old_frames), predict(after, old_frames)
    np.testing.assert_allclose(other.forces, one.forces, atol=1e-5)


def test_offsets_are_kept_or_refitted():
    frames = embedded.load().select(np.arange(24))
    shifted = dataclasses.replace(frames, energy=frames.energy + 300.0)
    config = TrainConfig(n_features=8, n_interactions=2, n_rbf=6, dtype="float64")
    before = build_model(config, frames, np.arange(16))
    found = {}
    for offsets in ("keep", "refit"):
        options = dataclasses.replace(config, init_from="before.pt", offsets=offsets)
        model = further_model(options, before, shifted, np.arange(16))
        found[offsets] = predict(model, shifted)
        assert model.offsets.scale == before.offsets.scale
    unmoved = predict(before, frames)
    np.testing.assert_allclose(found["keep"].energy, unmoved.energy, atol=1e-9)
    rest = found["refit"].energy[:16] - shifted.energy[:16]
    assert abs(rest.mean()) < 1e-9 and abs(found["keep"].energy - shifted.energy).min() > 200
    np.testing.assert_allclose(found["refit"].forces, unmoved.forces, atol=1e-9)


def test_kept_offsets_fit_those_of_new_elements_alone():
    frames = water(12)
    config = TrainConfig(n_features=8, n_interactions=2, n_rbf=6, dtype="float64")
    old = frames.select(np.arange(0, 12, 2))
    before = build_model(config, old, np.arange(6))
    options = dataclasses.replace(config, init_from="before.pt", new_elements="add")
    model = further_model(options, before, frames, np.arange(12))
    assert torch.equal(model.offsets.atomref[:16], before.offsets.atomref[:16])
    assert model.offsets.atomref[16] != 0
    rest = predict(model, frames).energy - frames.energy
    assert abs(rest[1::2].mean()) < 1e-9


def test_a_wall_makes_room_for_shorter_distances_and_remembers_the_old_ones():
    frames = water(12)
    apart, close = frames.select(np.arange(0, 12, 2)), water(12).select(np.arange(1, 12, 2))
    config = TrainConfig(n_features=8, n_interactions=2, n_rbf=6, repulsion="data")
    before = build_model(config, apart, np.arange(6))
    options = dataclasses.replace(config, init_from="before.pt", new_elements="add")
    squeezed = dataclasses.replace(close, positions=0.8 * close.positions)
    joined = frames.select(np.r_[0, 2])
    both = StructureSet(
        positions=np.concatenate([0.9 * joined.positions, squeezed.positions]),
        atomic_numbers=np.concatenate([joined.atomic_numbers, squeezed.atomic_numbers]),
        atom_ptr=np.arange(0, 3 * 8 + 1, 3),
        energy=np.concatenate([joined.energy, squeezed.energy]),
    )
    model = further_model(options, before, both, np.arange(8))
    old, new = before.pair_term.fitted(), model.pair_term.fitted()
    assert torch.isinf(old[0, 0]) == torch.isinf(new[0, 0])
    assert new[0, 1] == pytest.approx(_shortest(both, 1, 8), rel=1e-12) and new[0, 1] < old[0, 1]
    assert new[1, 2] == pytest.approx(_shortest(both, 8, 16), rel=1e-12)
    far = dataclasses.replace(apart, positions=1.2 * apart.positions)
    kept = further_model(
        dataclasses.replace(options, new_elements="refuse"), before, far, np.arange(6)
    )
    torch.testing.assert_close(kept.pair_term.fitted(), old)


def _shortest(structures: StructureSet, z: int, other: int) -> float:
    """By all pairs of every molecule."""
    found = []
    for m in range(len(structures)):
        atoms = slice(structures.atom_ptr[m], structures.atom_ptr[m + 1])
        numbers, positions = structures.atomic_numbers[atoms], structures.positions[atoms]
        for i in range(len(numbers)):
            for j in range(len(numbers)):
                if i != j and (numbers[i], numbers[j]) == (z, other):
                    found.append(np.linalg.norm(positions[i] - positions[j]))
    return min(found)


def test_labels_in_other_units_are_noticed(folder, tmp_path, capsys):
    write_hdf5(folder / "kcal.h5", own_labels(folder, 23.06))
    assert main(begin(folder, tmp_path / "run", data="kcal.h5")) == 1
    told = capsys.readouterr().err
    assert "-1.08e+04 eV per atom, 23.06 times those that" in told and "--units" in told
    assert main(begin(folder, tmp_path / "run", "--offsets refit", data="kcal.h5")) == 1
    told = capsys.readouterr().err
    times = float(re.search(r"forces in \S+ are about (\S+) times those", told).group(1))
    assert times == pytest.approx(23.06, rel=0.01) and "kcal/mol is 1/23.06 eV" in told
    assert not (tmp_path / "run").exists()
    # The file that is wrong is the one that is named.
    assert main(begin(folder, tmp_path / "run", data="new.h5 kcal.h5")) == 1
    assert f"energies in {folder / 'kcal.h5'}" in capsys.readouterr().err


def test_labels_of_another_method_need_refitted_offsets(folder, tmp_path, capsys):
    frames = embedded.load().select(np.arange(30, 60))
    write_hdf5(folder / "method.h5", dataclasses.replace(frames, energy=frames.energy + 90.0))
    assert main(begin(folder, tmp_path / "run", data="method.h5")) == 1
    assert "of another method (--offsets refit)" in capsys.readouterr().err
    assert main(begin(folder, tmp_path / "run", "--offsets refit", data="method.h5")) == 0


def test_replay_of_old_data_is_said(folder, tmp_path, capsys):
    arguments = begin(folder, tmp_path / "run", "--data-weights 1 5", data="old.h5 new.h5")
    assert main(arguments) == 0
    told = "".join(capsys.readouterr())
    assert "note: old.h5 is divided anew" in told and "new.h5 is divided anew" not in told
    assert told.count("before the first step: MAE energy") == 2


def test_a_model_that_scschnet_did_not_train_will_do(folder, tmp_path):
    model = load_checkpoint(folder / "before" / "best.pt").model
    save_checkpoint(tmp_path / "bare.pt", Checkpoint(model, {}))
    arguments = begin(folder, tmp_path / "run")
    arguments[1] = str(tmp_path / "bare.pt")
    assert main(arguments) == 0
    assert options_of(tmp_path / "bare.pt")["n_features"] == 8


def test_what_is_no_model_is_named(folder, tmp_path, capsys):
    for path, message in (
        ("absent", "but there is no"),
        (folder / "new.h5", "a file of structures"),
    ):
        assert main(["--init-from", str(path)]) == 2
        assert message in capsys.readouterr().err


def test_the_shortest_distances_are_kept_and_handed_on(folder, tmp_path):
    def kept(run):
        found = load_checkpoint(run / "best.pt").metadata["shortest_distances"]
        return {pair: found[pair] for pair in ("H-C", "C-C")}

    def trained_on(run, data):
        split = load_split(run / "split.npz", 30)
        frames = read(folder / data).select(split.train)
        pairs = {"H-C": (1, 6), "C-C": (6, 6)}
        return {pair: _shortest(frames, *elements) for pair, elements in pairs.items()}

    old = trained_on(folder / "before", "old.h5")
    assert kept(folder / "before") == pytest.approx(old, rel=1e-12)
    assert main(begin(folder, tmp_path / "run")) == 0
    new = trained_on(tmp_path / "run", "new.h5")
    both = {pair: min(old[pair], new[pair]) for pair in old}
    assert kept(tmp_path / "run") == pytest.approx(both, rel=1e-12)
