"""The runner of the paper's trainings: its plan, its commands, and that it goes on where it stopped."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper import make_results as results
from benchmarks.paper import run as runner
from benchmarks.paper import summarize
from scschnet.commands.train import parse_command_line


def test_plan_names_every_run_once_and_completes_the_molecules_first():
    folders = [run.folder for run in runner.plan()]
    assert len(set(folders)) == len(folders)
    first = folders[:24]
    for name in ("benzene", "ethanol", "salicylic_acid", "aspirin"):
        for skip in runner.SKIPS:
            for seed in (1, 2, 3):
                assert f"{name}-md17-{skip}-{seed}" in first


def test_presets_of_runs():
    def config(*run):
        return parse_command_line(runner.Run(*run).arguments(Path("data"), Path("runs"))).config

    ours, before = config("ethanol"), config("ethanol", "weighted", 1, "adam")
    assert (ours.optimizer, ours.cutoff_function, ours.rho) == ("muon", "none", 0.02)
    assert (before.optimizer, before.lr, before.epochs, before.rho) == ("adam", 2e-3, 150, 0.1)
    assert (before.cutoff, before.cutoff_function, before.rbf_range) == (30.0, "none", 5.0)
    paper = config("aspirin", "plain", 2, "paper")
    assert (paper.optimizer, paper.schedule, paper.batch_size) == ("adam", "sgdr", 50)


def test_every_command_is_one_that_the_training_takes(tmp_path):
    for run in runner.plan():
        config = parse_command_line(run.arguments(Path("data"), tmp_path)).config
        assert (config.skip, config.seed, config.threads) == (run.skip, run.seed, 1)
        assert config.out == str(tmp_path / run.folder)
        if run.name == "qm9":
            assert config.rho == 1.0 and config.energy_key == "U0"
        else:
            assert (config.n_train, config.n_val) == (950, 50)


def test_part_of_qm9_keeps_the_test_molecules_of_the_whole():
    part, larger = runner.qm9_part(1_000, 1), runner.qm9_part(5_000, 1)
    assert (len(part.train), len(part.val), len(part.test)) == (1_000, 1_000, 20_831)
    assert np.isin(part.train, larger.train).all()
    assert np.array_equal(part.test, larger.test) and np.array_equal(part.val, larger.val)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_budget(text, seconds):
    assert runner.seconds_of(text) == seconds


def test_bad_arguments():
    with pytest.raises(argparse.ArgumentTypeError, match="must be like 90s, 30m or 3h, got '3d'"):
        runner.seconds_of("3d")
    for bad in (["water"], ["ethanol", "--n-train", "100"], ["all", "--lr", "1"]):
        with pytest.raises(SystemExit) as error:
            runner.main(bad)
        assert error.value.code == 2


@pytest.mark.slow
def test_run_that_is_stopped_goes_on_and_is_not_repeated(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(runner.FILES, "ethanol", "")  # the embedded frames
    monkeypatch.setattr(runner.Run, "arguments", lambda run, data, runs: tiny(run, runs))
    arguments = ["ethanol", "--runs", str(tmp_path)]
    assert runner.main([*arguments, "--budget", "0.5s"]) != 0
    assert runner.main(arguments) == 0
    folder = tmp_path / "ethanol-md17-weighted-1"
    assert json.loads((folder / "cost.json").read_text())["cpu_seconds"] > 0
    written = (folder / "test.json").stat().st_mtime_ns
    assert runner.main(arguments) == 0
    assert (folder / "test.json").stat().st_mtime_ns == written
    assert runner.main([*arguments, "--list"]) == 0
    assert "finished  ethanol-md17-weighted-1" in capsys.readouterr().out
    assert_summarized_once(tmp_path, monkeypatch)


def assert_summarized_once(runs, monkeypatch):
    """A run that is summarized again takes the place of itself; others stay."""
    folder = runs / "tables"
    folder.mkdir()
    (folder / "runs.jsonl").write_text('{"run": "benzene-md17-plain-1"}\n')
    (folder / "curves.csv").write_text(
        ",".join(["run", "epoch", "layer", *summarize.COLUMNS]) + "\n"
    )
    monkeypatch.setattr(summarize, "RESULTS", folder)
    for _ in range(2):
        summarize.main(runs)
        lines = (folder / "runs.jsonl").read_text().splitlines()
        names = [json.loads(line)["run"] for line in lines]
        assert names == ["benzene-md17-plain-1", "ethanol-md17-weighted-1"]
    monkeypatch.setattr(results, "RESULTS", folder)
    (curve,) = results.read_curves().values()
    assert curve.epochs.tolist() == [1, 2] and curve.weight.shape == (2, 2)


def tiny(run, runs):
    """A training of seconds."""
    sizes = ["--n-features", "4", "--n-interactions", "1", "--n-train", "20", "--n-val", "5"]
    machine = ["--epochs", "2", "--threads", "1", "--seed", str(run.seed)]
    return [*sizes, *machine, "--out", str(runs / run.folder)]


def test_two_runners_do_not_share_a_run(tmp_path):
    run = runner.Run("ethanol")
    with runner.locked(run, tmp_path) as first, runner.locked(run, tmp_path) as second:
        assert first and not second


def test_names_of_run_folders_are_understood():
    for run in runner.plan():
        name, n_train, preset, skip, seed, extra = results.FOLDER.fullmatch(run.folder).groups()
        assert (name, int(n_train or 0), preset) == (run.name, run.n_train, run.preset)
        assert (skip, int(seed)) == (run.skip, run.seed)
        assert bool(extra) == bool(run.extra)


def test_means_errors_and_verdicts():
    assert results.number([0.5]) == "0.500"
    assert results.number([0.1, 0.2, 0.3]) == "0.200 ± 0.058"  # sample deviation 0.1 / sqrt(3)
    assert results.verdict([0.304], 0.30) == "met"  # the paper has two decimals
    assert results.verdict([0.36], 0.30) == "**missed** (+20%)"


def test_table_shows_what_was_not_run():
    lines = results.table_1([], "md17").splitlines()[2:]
    assert len(lines) == 18 and all("not run" in line for line in lines)


def test_stored_results_make_tables():
    runs = results.finished_runs()
    shown = {run.folder for run in runs if summarize.is_shown(run.folder)}
    assert shown == set(results.read_curves())
    for text in (results.table_1(runs, "md17"), results.learning_curve(runs), results.costs(runs)):
        widths = {line.count("|") for line in text.splitlines()}
        assert len(widths) == 1


def test_runs_with_other_options_have_rows_of_their_own():
    error = {"mae": 0.4, "rmse": 0.6}
    test = {"energy": {"kcal/mol": error}, "forces": {"kcal/mol/Å": error}}
    run = results.Finished("aspirin", 0, "md17", "weighted", 1, "rho-0.02", "", {"test": test})
    table = results.table_errors(results.other_rows([run]))
    assert "| aspirin, md17, sc-SchNet, rho-0.02 | 1 | 0.400 | 0.600 | 0.400 | 0.600 |" in table
    assert (
        "not run" in results.table_1([run], "md17").splitlines()[4]
    )  # not mixed with the plain ones
