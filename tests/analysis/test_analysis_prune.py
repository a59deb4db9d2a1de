"""Pruned models: what is kept, what the bias takes over, training them on, and the command."""

import numpy as np
import pytest
import torch
from conftest import make_model, make_structures

from scschnet.checkpoint import load_checkpoint
from scschnet.commands.analysis import main
from scschnet.evaluate.corrections import batches, corrections, projected
from scschnet.runs.config import TrainConfig
from scschnet.runs.run import read_run
from scschnet.train.loop import train
from scschnet.train.prune import without_trailing_blocks


def test_the_first_blocks_are_kept_and_the_bias_takes_the_mean():
    model, structures = make_model(n_interactions=3).requires_grad_(False), make_structures()
    small = without_trailing_blocks(model, 1, structures)
    assert small.config.n_interactions == 1 and len(small.contribution_weights) == 2
    mean = torch.zeros(4, dtype=torch.float64)
    for batch in batches(model, structures):
        layers = corrections(model, batch).layers
        mean += projected(model, layers)[2:].sum(dim=(0, 1)) / 15
        kept = corrections(small.requires_grad_(False), batch).layers
        for old, new in zip(layers[:2], kept, strict=True):
            torch.testing.assert_close(new, old, rtol=0, atol=0)
    torch.testing.assert_close(small.readout.hidden.bias, model.readout.hidden.bias + mean)
    torch.testing.assert_close(small.contribution_weights, model.contribution_weights[:2])
    torch.testing.assert_close(small.offsets.atomref, model.offsets.atomref)


@pytest.mark.parametrize("blocks", [0, 2, 5])
def test_the_number_of_blocks_is_checked(blocks):
    with pytest.raises(ValueError, match=r"`blocks` must lie between 1 and 1, .* got"):
        without_trailing_blocks(make_model(), blocks, make_structures())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("prune") / "run"
    options = {"n_train": 40, "n_val": 10, "n_features": 8, "n_interactions": 2, "n_rbf": 12}
    train(TrainConfig(out=str(path), epochs=3, cutoff=4.0, **options))
    return path


def test_command_prunes_trains_measures_and_draws(run, tmp_path, capsys):
    out = tmp_path / "pareto.png"
    assert main(["prune", str(run), "--blocks", "1", "--epochs", "2", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    folder = run.with_name("run-1-blocks")
    pruned = load_checkpoint(folder / "best.pt").model
    assert pruned.config.n_interactions == 1
    before, after = read_run(run), read_run(folder)
    np.testing.assert_array_equal(before.split.train, after.split.train)
    assert after.config.lr == before.config.lr / 4
    assert str(folder) in printed and out.is_file()
    rows = out.with_suffix(".csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["blocks", "1", "2"]
    assert main(["prune", str(run), "--blocks", "2"]) == 1
    assert "`--blocks` must lie between 1 and 1" in capsys.readouterr().err
