"""Sizes of models: those on the front, what is said of them, and the command, which goes on where it stopped."""

import csv
from pathlib import Path

import pytest

from scschnet.analysis.pareto import Measured
from scschnet.analysis.sizes import advice, front, weights_of
from scschnet.commands.analysis import main
from scschnet.runs.config import TrainConfig, read_run_config
from scschnet.runs.folder import RunFolder
from scschnet.train import ladder
from scschnet.train.loop import Interrupted, train


def model(features: int, blocks: int, micro: float, forces: float) -> Measured:
    return Measured(features, blocks, Path(), 1.0, forces, 1e-6 * micro, 1, 5.0)


def test_the_front_is_what_nothing_beats():
    found = [
        model(32, 1, 1.0, 0.9),
        model(32, 2, 2.0, 0.63),
        model(64, 1, 2.5, 0.7),  # dearer and worse than 32, 2
        model(64, 3, 4.0, 0.61),
        model(128, 6, 18.0, 0.6),
        model(128, 3, 18.0, 0.8),  # as dear, and worse
    ]
    expected = [
        one
        for one in found
        if not any(o.micro <= one.micro and o.forces < one.forces for o in found)
    ]
    assert front(found[::-1]) == expected == [found[0], found[1], found[3], found[4]]
    assert advice(found) == [
        "F=128, L=6 has the smallest error of the forces.",
        "F=64, L=3 is 4.5 times cheaper and its error is 2 % larger.",
        "F=32, L=2 is 9.0 times cheaper and its error is 5 % larger.",
        "F=32, L=1 is 18.0 times cheaper and its error is 50 % larger.",
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("sizes") / "run"
    options = {"n_train": 40, "n_val": 10, "n_features": 8, "n_interactions": 2, "n_rbf": 12}
    train(TrainConfig(out=str(path), epochs=2, cutoff=4.0, **options))
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_goes_on_where_it_stopped(run, monkeypatch, capsys):
    command = ["sizes", str(run), "--features", "4", "8", "--blocks", "1", "2"]
    folder = run.with_name("run-sizes")
    begun = []

    def interrupted(config, resume=None):
        begun.append((config.n_features, config.n_interactions, resume))
        if len(begun) == 2:  # its folder is there, its training is not done
            RunFolder.create(config, ladder_split(run)).test.unlink(missing_ok=True)
            raise Interrupted(2)
        return train(config, resume)

    def ladder_split(run):
        from scschnet.data import load_split

        return load_split(RunFolder(run).split)

    monkeypatch.setattr(ladder, "train", interrupted)
    assert main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert main(command) == 0
    printed = capsys.readouterr().out
    sizes = [(4, 1, None), (4, 2, None), (4, 2, folder / "F4-L2"), (8, 1, None)]
    assert begun == sizes  # the cheapest first, the run itself never
    for name in ("F4-L1", "F4-L2", "F8-L1"):
        assert RunFolder(folder / name).test.is_file()
        assert read_run_config(folder / name).epochs == 2
    table = rows(folder / "sizes.csv")
    assert [(row["features"], row["blocks"]) for row in table] == [
        ("4", "1"),
        ("4", "2"),
        ("8", "1"),
        ("8", "2"),
    ]
    assert table[-1]["run"] == str(run) and (folder / "sizes.png").is_file()
    assert printed.count("has the smallest error of the forces") == 1
    shares = [int(share) for share in weights_of(run).split()]
    assert len(shares) == 3 and abs(sum(shares) - 100) <= 2
    assert main(command) == 0 and begun == sizes


def test_sizes_for_which_there_is_no_time_are_named(run, tmp_path, capsys):
    command = ["sizes", str(run), "--features", "4", "--blocks", "1", "--minutes", "0"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    assert "no time was left for F=4, L=1: the same command goes on" in capsys.readouterr().out
    assert not (tmp_path / "out" / "F4-L1").exists()
