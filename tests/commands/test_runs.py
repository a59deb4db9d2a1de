"""`scschnet runs`: what differs between runs, how good they are, and how long they took."""

import dataclasses
import json
from pathlib import Path

import pytest

from scschnet.commands.runs import duration, main
from scschnet.runs.compare import check_alike, differences, find_runs
from scschnet.runs.config import TrainConfig, write_config

HEADER = "epoch,step,learning_rate,train_loss,val_loss,val_energy_mae,val_energy_rmse,val_forces_mae,val_forces_rmse,seconds"


def make_run(folder: Path, test: dict | None = None, rows: int = 2, **options) -> Path:
    folder.mkdir(parents=True)
    write_config(folder / "config.toml", TrainConfig(out=str(folder), **options))
    lines = [
        f"{k + 1},{k},0.1,1,1,0.0433641,0.1,0.0867282,0.1,{100.4 * (k + 1)}" for k in range(rows)
    ]
    (folder / "metrics.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    if test is not None:
        (folder / "test.json").write_text(json.dumps(test))
    return folder


def error(unit: str, mae: float) -> dict:
    return {"n": 5, unit: {"mae": mae, "rmse": 2 * mae}}


TEST = {"n_test": 5, "energy": error("eV", 0.02168205), "forces": error("eV/Å", 0.0433641)}


def printed(capsys, *arguments: object) -> list[list[str]]:
    assert main([str(a) for a in arguments]) == 0
    return [line.split("  ") for line in capsys.readouterr().out.splitlines()]


def cells(row: list[str]) -> list[str]:
    return [cell.strip() for cell in row if cell.strip()]


def test_the_table_has_what_differs_errors_and_time(tmp_path, capsys):
    make_run(tmp_path / "runs" / "a", TEST, lr=2e-3, epochs=2)
    make_run(tmp_path / "runs" / "deep" / "b", lr=4e-3, epochs=2, threads=2)
    header, first, second = (cells(row) for row in printed(capsys, tmp_path / "runs"))
    assert header == ["run", "lr", "epochs", "energy kcal/mol", "forces kcal/mol/Å", "of", "time"]
    assert first[1:] == ["0.002", "2/2", "0.500", "1.00", "test", "0:03:21"]
    assert second[1:] == ["0.004", "2/2", "1.00", "2.00", "val", "0:03:21"]
    assert first[0] == str(tmp_path / "runs" / "a") and second[0].endswith("deep/b")


def test_errors_per_atom_have_their_unit(tmp_path, capsys):
    per_atom = TEST | {
        "energy_per_atom": error("eV", 0.003),
        "stress": error("eV/Å^3", 0.00624150907),
    }
    make_run(tmp_path / "a", per_atom)
    header, row = (cells(row) for row in printed(capsys, tmp_path))
    found = dict(zip(header, row, strict=True))
    assert found["energy meV/atom"] == "3.00" and found["forces meV/Å"] == "43.4"
    assert found["stress GPa"] == "1.00"


def test_runs_without_an_epoch_and_runs_that_cannot_be_read(tmp_path, capsys):
    make_run(tmp_path / "a", rows=0, epochs=7)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.toml").write_text("n_feature = 3")
    assert main([str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].split()[1:] == ["0/7", "val", "–"]
    assert captured.err.startswith(f"note: {tmp_path / 'b'} is left out: ")


@pytest.mark.parametrize("name", ["empty", "nowhere"])
def test_folders_without_runs_are_named(name, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / name)]) == 1
    error = capsys.readouterr().err
    assert name in error and error.count("\n") == 1


def test_a_run_itself_is_found_and_other_options_are_not(tmp_path):
    run = make_run(tmp_path / "runs" / "a")
    (tmp_path / "site").mkdir()
    assert find_runs(run) == find_runs(tmp_path) == [run]


def test_options_that_differ():
    one = TrainConfig()
    other = dataclasses.replace(one, lr=1.0, seed=3)
    assert differences([one, other, one]) == {"seed": [0, 3, 0], "lr": [4e-3, 1.0, 4e-3]}
    assert differences([one, other], ["seed"]) == {"lr": [4e-3, 1.0]}
    assert differences([one, one]) == {}


def test_time_is_read_like_a_clock():
    assert [duration(s) for s in (0.4, 61, 3723, float("nan"))] == [
        "0:00:00",
        "0:01:01",
        "1:02:03",
        "–",
    ]


def test_runs_that_differ_by_chance_alone_are_pooled(tmp_path):
    first = make_run(tmp_path / "a", seed=0, split_seed=0)
    second = make_run(tmp_path / "b", seed=1, threads=2)
    check_alike([first, second])
    for option in ({"lr": 1.0}, {"data": ("x.h5", "y.h5")}, {"properties": ("mu",)}):
        other = make_run(tmp_path / next(iter(option)), **option)
        name = next(iter(option))
        with pytest.raises(
            ValueError, match=rf"must differ in their seeds alone, but {name} differs"
        ):
            check_alike([first, other])


def test_runs_that_began_from_one_model_are_pooled_wherever_it_lay(tmp_path):
    one = {"init_fingerprint": "1" * 32}
    first = make_run(tmp_path / "a", init_from="old.pt", **one)
    second = make_run(tmp_path / "b", init_from="moved/old.pt", seed=1, **one)
    check_alike([first, second])
    other = make_run(tmp_path / "c", init_from="old.pt", init_fingerprint="2" * 32)
    for unlike in (other, make_run(tmp_path / "fresh")):
        with pytest.raises(ValueError, match="init_fingerprint differs"):
            check_alike([first, unlike])


def test_runs_that_began_from_runs_that_differ_by_chance_are_pooled(tmp_path):
    made = []
    for k, options in enumerate([{"seed": 0}, {"seed": 1}, {"lr": 1.0}]):
        old = make_run(tmp_path / f"old-{k}", **options)
        made.append(make_run(tmp_path / f"new-{k}", init_from=str(old), init_fingerprint=str(k)))
    check_alike(made[:2])
    with pytest.raises(ValueError, match="init_fingerprint differs"):
        check_alike(made)
