"""Training as a user runs it: results, run folder, resume after kill -9, signals, failures."""

import copy
import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from scschnet.checkpoint import load_checkpoint, save_checkpoint
from scschnet.commands.evaluate import main as evaluate
from scschnet.commands.train import main, parse_command_line
from scschnet.data import Split, embedded, load_split, save_split, write_hdf5
from scschnet.evaluate import errors, predict
from scschnet.nn import SchNet
from scschnet.runs.config import read_run_config
from scschnet.train import loop

SMALL = (
    "--n-features 8 --n-interactions 2 --n-rbf 6 --n-train 24 --n-val 6 --batch-size 4 --threads 1"
)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> Path:
    """Forty frames of the embedded set as an MD17 file."""
    frames = embedded.load().select(np.arange(40))
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(
        path,
        R=frames.positions.reshape(40, 9, 3),
        z=frames.atomic_numbers[:9],
        E=frames.energy,
        F=frames.forces.reshape(40, 9, 3),
        e_unit="eV",
        r_unit="Angstrom",
        f_unit="eV/Angstrom",
    )
    return path


@pytest.fixture(scope="module", autouse=True)
def no_reports():
    """Reports take seconds each and have their own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scschnet.commands.train.describe", lambda run: None)
        yield


def command(data: Path, out: Path, more: str = "") -> list[str]:
    return f"--data {data} --out {out} {SMALL} --epochs 6 {more}".split()


def weights(run: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return load_checkpoint(run / name).model.state_dict()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def finished(small_data, tmp_path_factory) -> Path:
    """A run that was never interrupted."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    assert main(command(small_data, run)) == 0
    return run


def test_run_folder(finished, small_data):
    assert {p.name for p in finished.iterdir()} >= {
        "config.toml", "split.npz", "metrics.csv", "contributions.csv", "best.pt", "last.pt", "test.json",
    }  # fmt: skip
    metrics = rows(finished / "metrics.csv")
    assert [int(r["epoch"]) for r in metrics] == list(range(1, 7))
    assert [int(r["step"]) for r in metrics] == [6 * k for k in range(1, 7)]
    contributions = rows(finished / "contributions.csv")
    assert [(int(r["epoch"]), int(r["layer"])) for r in contributions] == [
        (epoch, layer) for epoch in range(1, 7) for layer in range(3)
    ]
    split = load_split(finished / "split.npz", 40)
    assert (len(split.train), len(split.val), len(split.test)) == (24, 6, 10)
    test = json.loads((finished / "test.json").read_text())
    best = load_checkpoint(finished / "best.pt").model
    frames = loop.read_structures(parse_command_line(command(small_data, finished)).config)
    found = errors(predict(best, frames, split.test), frames.select(split.test))
    assert test["energy"]["eV"]["mae"] == pytest.approx(found["energy"].mae, rel=1e-12)
    assert test["forces"]["kcal/mol/Å"]["rmse"] == pytest.approx(
        found["forces"].rmse * 23.0605, rel=1e-5
    )


def test_recorded_contributions_are_those_of_equation_5(small_data, tmp_path):
    # One batch per epoch and a vanishing learning rate: w_hat is that of the initial model.
    run = tmp_path / "run"
    assert (
        main(command(small_data, run, "--batch-size 24 --epochs 1 --lr 1e-12 --dtype float64")) == 0
    )
    model = load_checkpoint(run / "best.pt").model
    frames = loop.read_structures(parse_command_line(command(small_data, run)).config)
    batch = loop.collate(frames, load_split(run / "split.npz", 40).train, 5.0)
    with torch.no_grad():
        norms = model(**batch.inputs, correction_norms=True)["correction_norms"].mean(dim=1)
    for row in rows(run / "contributions.csv"):
        layer = int(row["layer"])
        assert float(row["weight"]) == pytest.approx(1 / 3, rel=1e-7)  # set in float32
        assert float(row["mean_norm"]) == pytest.approx(norms[layer].item(), rel=1e-9)
        assert float(row["normalized_weight"]) == pytest.approx(norms[layer].item() / 3, rel=1e-7)


def test_the_same_seed_gives_the_same_weights(finished, small_data, tmp_path):
    assert main(command(small_data, tmp_path / "again")) == 0
    for name, value in weights(finished).items():
        assert torch.equal(value, weights(tmp_path / "again")[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("epochs_before_kill", [0, 2, 4])
def test_killed_and_resumed_ends_with_the_same_bits(
    finished, small_data, tmp_path, epochs_before_kill
):
    run = tmp_path / "killed"
    with start(command(small_data, run)) as process:
        wait_for_epochs(process, run, epochs_before_kill)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    with (run / "metrics.csv").open("a") as file:
        file.write("99,1")  # as if it died while it wrote a row
    assert main(["--resume", str(run)]) == 0
    assert_same_run(run, finished)


def test_training_state_of_an_older_version_is_refused(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    content = torch.load(run / "last.pt", weights_only=True)
    content["training"]["optimizer"]["param_groups"][0]["params"] = [0, 1, 2]
    torch.save(content, run / "last.pt")
    assert main(["--resume", str(run)]) != 0
    assert "optimizer of 3 parameters, expected one of all together" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_finish_the_step_and_resume_in_mid_epoch(finished, small_data, tmp_path, signum):
    run = tmp_path / "stopped"
    with start(command(small_data, run)) as process:
        wait_for_epochs(process, run, 1)
        process.send_signal(signum)
        message = process.communicate()[1]
    if process.returncode != 0:  # zero only if it was done before the signal came
        assert process.returncode == 128 + signum
        assert "the state is saved, go on with --resume" in message
        assert main(["--resume", str(run)]) == 0
    assert_same_run(run, finished)


@pytest.mark.slow
def test_every_step_can_be_the_last_one(finished, small_data, tmp_path, monkeypatch):
    run = tmp_path / "stepwise"
    step = loop.Training._step

    def stop_and_step(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(loop.Training, "_step", stop_and_step)
    assert main(command(small_data, run)) == 128 + signal.SIGTERM
    for _ in range(6 * 6 - 1):
        assert main(["--resume", str(run)]) == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert main(["--resume", str(run)]) == 0
    assert_same_run(run, finished)


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "scschnet.train", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for_epochs(process: subprocess.Popen, run: Path, n: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if n == 0 and (run / "config.toml").exists():
            return
        if n > 0 and (run / "last.pt").exists() and len(rows(run / "metrics.csv")) >= n:
            return
        time.sleep(0.002)
    assert process.poll() == 0, process.communicate()[1]


def assert_same_run(run: Path, finished: Path) -> None:
    for file in ("last.pt", "best.pt"):
        expected = weights(finished, file)
        for name, value in weights(run, file).items():
            assert torch.equal(value, expected[name]), (file, name)
    assert (run / "contributions.csv").read_text() == (finished / "contributions.csv").read_text()
    assert (run / "test.json").read_text() == (finished / "test.json").read_text()
    without_time = [
        {k: v for k, v in r.items() if k != "seconds"} for r in rows(run / "metrics.csv")
    ]
    for row, expected_row in zip(without_time, rows(finished / "metrics.csv"), strict=True):
        assert row == {k: v for k, v in expected_row.items() if k != "seconds"}


@pytest.mark.parametrize(
    "options",
    [
        "--skip plain",
        "--schedule sgdr --restart-period 2",
        "--schedule plateau --ema 0",
        "--schedule constant --clip 0",
        "--rho 1 --output-scale energy --epochs 60",
        "--w-init random --cutoff-function none --cutoff 20 --rbf-range 5",
        "--dtype float64 --w-init one",
        "--optimizer adam",
    ],
)
def test_options_lower_the_loss(small_data, tmp_path, options):
    larger = "--n-features 24 --n-rbf 25 --epochs 20"
    assert main(command(small_data, tmp_path / "run", f"{larger} {options}")) == 0
    losses = [float(row["train_loss"]) for row in rows(tmp_path / "run" / "metrics.csv")]
    assert losses[-1] < 0.8 * losses[0]


def test_spline_and_dense_filters_train_alike(small_data, tmp_path):
    """Table truncation (5e-7 in the derivative of a filter) is all the difference, amplified by 36 steps."""
    for filters in ("spline", "dense"):
        options = f"--filters {filters} --dtype float64 --n-features 16 --n-rbf 25"
        assert main(command(small_data, tmp_path / filters, options)) == 0
    both = (rows(tmp_path / name / "metrics.csv") for name in ("spline", "dense"))
    for mine, theirs in zip(*both, strict=True):
        assert float(mine["train_loss"]) == pytest.approx(float(theirs["train_loss"]), rel=1e-6)
        assert float(mine["val_loss"]) == pytest.approx(float(theirs["val_loss"]), rel=1e-6)


def test_patience_stops_early(small_data, tmp_path):
    assert main(command(small_data, tmp_path / "run", "--lr 1e-12 --patience 2 --epochs 50")) == 0
    assert len(rows(tmp_path / "run" / "metrics.csv")) < 50


def test_a_loss_that_is_not_finite_stops(small_data, tmp_path, capsys):
    assert main(command(small_data, tmp_path / "run", "--lr 1e30 --clip 0")) == 1
    assert "are not finite in epoch" in (text := capsys.readouterr().err) or "the loss is" in text


def test_a_lost_network_is_named(small_data, tmp_path, capsys):
    arguments = "--schedule sgdr --restart-period 3 --lr 1.5 --clip 0 --epochs 12 --ema 0"
    main(command(small_data, tmp_path / "run", arguments))
    # Whether it is lost for good or breaks down, the user is told.
    text = capsys.readouterr().err
    said = ("the network may be lost", "not finite", "the loss is", "the network is lost")
    assert any(words in text for words in said)


def test_filters_that_become_too_steep_stop(small_data, tmp_path, capsys, monkeypatch):
    """A network that is lost may end so, too: with the remedy, and the best parameters kept."""
    refine, calls = SchNet.refine_filters, []

    def refuse(model: SchNet) -> float:
        calls.append(model)
        if len(calls) == 3:  # before the first step, and after the first and second epoch
            raise ValueError("no table reaches `tolerance` 2e-06")
        return refine(model)

    monkeypatch.setattr(SchNet, "refine_filters", refuse)
    assert main(command(small_data, tmp_path / "run", "--epochs 4")) == 1
    text = capsys.readouterr().err
    assert "error: the filters became too steep in epoch 2: no table reaches" in text
    assert "a smaller --lr or --clip 3 helps" in text
    assert (tmp_path / "run" / "best.pt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--n-train 50", "`--n-train` + `--n-val` + `--n-test` must be at most 40"),
        (
            "--stress-weight 1",
            "has stress for none of 40 structures, but `--stress-weight` > 0 asks",
        ),
        ("--data absent.npz", "absent.npz"),
        ("--split-file absent.npz", "absent.npz"),
    ],
)
def test_unusable_data_is_named(small_data, tmp_path, capsys, options, message):
    assert main(command(small_data, tmp_path / "run", options)) == 1
    assert message in capsys.readouterr().err


def test_a_run_is_never_overwritten(finished, small_data, capsys):
    assert main(command(small_data, finished)) == 1
    assert f"holds a run; go on with it by --resume {finished}" in capsys.readouterr().err


def test_run_folders_are_numbered(small_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = f"--data {small_data} {SMALL} --epochs 1".split()
    assert main(arguments) == main(arguments) == main(arguments) == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == ["small", "small-2", "small-3"]


def test_unwritable_run_folder(small_data, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(command(small_data, tmp_path / "file" / "run")) == 1
    assert "cannot make the run folder" in capsys.readouterr().err


@pytest.mark.slow
def test_real_training_reaches_its_accuracy(tmp_path):
    """1,000 frames of ethanol: forces to 2.7 kcal/mol/Å (rms force 26) in 12 short epochs."""
    options = "--n-features 32 --n-interactions 3 --epochs 12 --seed 1 --threads 1"
    assert main(f"--out {tmp_path / 'run'} {options}".split()) == 0
    test = json.loads((tmp_path / "run" / "test.json").read_text())
    assert test["forces"]["kcal/mol/Å"]["mae"] < 2.7
    assert test["energy"]["kcal/mol"]["mae"] < 1.1


def test_a_missing_gpu_leaves_no_folder(small_data, tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(command(small_data, tmp_path / "run", "--device cuda")) == 1
    assert "`--device` must be cpu, torch finds no CUDA device, got cuda" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_resuming_a_finished_run_says_so(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = (run / "last.pt").read_bytes()
    assert main(["--resume", str(run)]) == 0
    assert "is finished: 6 of 6 epochs; more --epochs go on" in capsys.readouterr().err
    assert (run / "last.pt").read_bytes() == before


def test_a_run_opens_from_another_folder(small_data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(small_data.parent)
    run = tmp_path / "run"
    assert main(command(Path(small_data.name), run)) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["--resume", str(run), "--epochs", "7"]) == 0
    assert evaluate([str(run)]) == 0
    assert "10 structures" in capsys.readouterr().out


@pytest.mark.slow
def test_what_a_run_says_fits_an_ascii_log(finished):
    for module in ("info", "evaluate"):
        done = subprocess.run(
            [sys.executable, "-m", f"scschnet.{module}", str(finished)],
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert r"\xc5" in done.stdout


def test_two_trainings_never_share_a_folder(tmp_path):
    """Neither a new run nor a resumed one, as long as the other is alive; kill -9 frees the folder."""
    script = (
        "import sys, time; from pathlib import Path; from scschnet.runs.lock import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); time.sleep(60)"
    )
    out = tmp_path / "run"
    small = ["--out", str(out), "--epochs", "1", "--n-train", "20", "--n-val", "5", "--n-test", "5"]
    small += ["--n-features", "4", "--n-interactions", "1"]
    assert main(small) == 0
    assert not (out / ".lock").exists()
    with subprocess.Popen(
        [sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "held\n"
            before = (out / "metrics.csv").read_text()
            with pytest.raises(BlockingIOError, match=rf"in use by process {other.pid} on "):
                loop.train(read_run_config(out), out)
            assert main(["--resume", str(out), "--epochs", "2"]) == 1
            assert (out / "metrics.csv").read_text() == before
        finally:
            other.kill()
    assert main(["--resume", str(out), "--epochs", "2"]) == 0
    rows = (out / "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "2"]


@pytest.mark.parametrize("name", ["best.pt", "metrics.csv", "test.json", "report.html"])
def test_files_of_others_are_not_written_over(tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    (tmp_path / "job.log").write_text("a log does not matter")
    assert main(["--out", str(tmp_path), "--epochs", "1"]) == 1
    assert f"holds {name}, which a run writes" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / ".lock").exists()


def test_changed_options_are_noticed(small_data, tmp_path, capsys):
    """Options edited in config.toml, on resume and in evaluate; those that may change, and restored ones, are none."""
    out = tmp_path / "run"
    assert main(command(small_data, out, "--epochs 1")) == 0
    config = (out / "config.toml").read_text()
    resume = ["--resume", str(out), "--epochs", "2"]
    for old, new, words in (
        ("lr = 0.004", "lr = 0.5", "`lr` in it was 0.004 and is 0.5"),
        ('units = ""', 'units = "eV"', "`units` in it was '' and is 'eV'"),
        ("rho = 0.9", "rho = 0.1", "`rho` in it was 0.9 and is 0.1"),
    ):
        assert old in config
        (out / "config.toml").write_text(config.replace(old, new))
        for run, arguments in ((main, resume), (evaluate, [str(out)])):
            assert run(arguments) == 1
            assert words in capsys.readouterr().err
    (out / "config.toml").write_text(config.replace("log_every = 0", "log_every = 7"))
    assert evaluate([str(out)]) == 0
    assert main(resume) == 0


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("n_train", "inf", "`n_train` must be"),
        ("n_features", 2**63 - 1, "`--n-features` must lie between 2 and 10000"),
        ("n_features", 2**63, "`--n-features` must lie between 2 and 10000"),
        ("n_rbf", 2**63 - 1, "`--n-rbf` must lie between 2 and 10000"),
        ("cutoff", 1e300, "`--cutoff` must lie between 0.01 and 1000 Å, got 1e+300"),
        ("cutoff", 1e-300, "`--cutoff` must lie between 0.01 and 1000 Å, got 1e-300"),
        ("rbf_range", 1e-300, "`--rbf-range` must lie between 0.01 and 1000 Å, got 1e-300"),
        ("epochs", 2**63 - 1, "`epochs` must be at most"),
    ],
)
def test_absurd_numbers_are_refused_before_a_run_folder_is_made(
    small_data, tmp_path, capsys, option, value, words
):
    file, out = tmp_path / "my.toml", tmp_path / "run"
    file.write_text(f"{option} = {value}\n")
    assert main(["--config", str(file), "--data", str(small_data), "--out", str(out)]) in (1, 2)
    told = capsys.readouterr().err.splitlines()
    assert words in told[-1] and len(told) == 1
    assert not out.exists()


def doctored(state, rng):
    """A training state with one entry that is gone, or is something else."""
    keys = []

    def walk(here, path):
        items = here.items() if isinstance(here, dict) else enumerate(here)
        for key, value in items:
            keys.append((*path, key))
            if isinstance(value, (dict, list)):
                walk(value, (*path, key))

    walk(state, ())
    *path, last = keys[rng.integers(len(keys))]
    here = state
    for key in path:
        here = here[key]
    wrong = (None, "text", -1, [], {}, float("nan"), torch.zeros(3), True)
    if isinstance(here, dict) and rng.random() < 0.3:
        del here[last]
    else:
        here[last] = wrong[rng.integers(len(wrong))]
    return ".".join(map(str, [*path, last]))


def test_a_doctored_state_is_refused_or_goes_on(finished, tmp_path, capsys):
    """A training state in a whole file, in which an entry is missing or of another kind: a sentence, never a traceback."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    whole = load_checkpoint(out / "last.pt")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        training = copy.deepcopy(whole.training)
        what = doctored(training, rng)
        save_checkpoint(out / "last.pt", dataclasses.replace(whole, training=training))
        code = main(["--resume", str(out), "--epochs", "6"])
        assert code in (0, 1), what
        refused += code
        told = capsys.readouterr().err
        assert "Traceback" not in told, what
        assert code == 0 or "error: " in told, what
    assert refused > 20


@pytest.mark.parametrize(
    "device", ["gpu", "CUDA", "mps", "meta", "xpu", "cuda:", "cuda:-1", "cuda:x", "", "cpu:1", "0"]
)
def test_devices_that_are_none(small_data, tmp_path, capsys, device):
    assert main([*command(small_data, tmp_path / "run", ""), "--device", device]) == 1
    assert f"`--device` must be cpu, cuda or cuda:N, got {device!r}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_changed_data_are_noticed(tmp_path, capsys):
    """Frames in another order, other labels, parts that changed places: on resume and in evaluate; restored, all is well."""
    structures = embedded.load().select(np.arange(40))
    file, out = tmp_path / "data.h5", tmp_path / "run"

    def write(chosen, shift=0.0):
        part = structures.select(chosen)
        write_hdf5(file, dataclasses.replace(part, energy=part.energy + shift))

    write(np.arange(40))
    small = ["--data", str(file), "--out", str(out), "--epochs", "1", "--n-train", "20"]
    small += ["--n-val", "5", "--n-features", "4", "--n-interactions", "1"]
    assert main(small) == 0
    split = (out / "split.npz").read_bytes()
    resume = ["--resume", str(out), "--epochs", "2"]

    def refused(words):
        for command, arguments in ((main, resume), (evaluate, [str(out)])):
            assert command(arguments) == 1
            told = capsys.readouterr().err
            assert "are no longer those it was trained on" in told and words in told

    write(np.arange(40)[::-1])
    refused("or their order")
    write(np.arange(40), shift=1e-6)
    refused("changed: energies")
    write(np.arange(40))
    parts = load_split(out / "split.npz")
    save_split(out / "split.npz", Split(parts.test, parts.val, parts.train))
    refused("changed: the parts")
    (out / "split.npz").write_bytes(split)
    assert main(resume) == 0 and evaluate([str(out)]) == 0
