"""`python -m scschnet.info`: what it prints of exported models, checkpoints and runs."""

import json
from pathlib import Path

import pytest
from conftest import make_model

import scschnet
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.commands.info import main


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    metadata = {
        "epoch": 12,
        "train_config": {"data": "ethanol.npz", "n_train": 950, "n_val": 50},
    }
    save_checkpoint(folder / "best.pt", Checkpoint(make_model(), metadata))
    rows = ["epoch,layer,weight,mean_norm,normalized_weight,normalized_weight_std"]
    rows += [f"12,{k},0.5,{k}.25,{k}.125,0.1" for k in range(3)]
    (folder / "contributions.csv").write_text("\n".join(rows) + "\n")
    errors = {
        "n_test": 1000,
        "energy": {"n": 1000, "eV": {"mae": 0.0044, "rmse": 0.0062}},
        "forces": {"n": 27000, "eV/Å": {"mae": 0.02, "rmse": 0.03}},
    }
    (folder / "test.json").write_text(json.dumps(errors))
    return folder


def printed(capsys, *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def rows(text: str) -> dict[str, str]:
    return {line[:12].strip(): line[12:] for line in text.splitlines()[1:] if line}


def test_exported_model(run, tmp_path, capsys):
    path = tmp_path / "ethanol.pt"
    scschnet.export(run, path, dtype="float32")
    text = printed(capsys, path)
    assert text.startswith(f"{path}: sc-SchNet, exported (full, TorchScript, version 1)\n")
    found = rows(text)
    assert found["elements"] == "H C O  (in this order)"
    assert found["cutoff"] == "4 Å, cutoff function: cosine"
    assert found["ghosts"] == "4 Å deep with an exchange between blocks, 8 Å without"
    assert found["units"] == "eV, Angstrom"
    assert found["network"] == "2 blocks, 8 features, 7 functions (gaussian), float32"
    assert found["filters"].startswith("table with a step of 0.0625 Å, relative error of the slop")
    assert found["needs"] == "libscschnet_ops.so"
    assert found["trust"].startswith(
        "hosts run the program in this file; load it only if you trust"
    )
    assert found["training"] == "ethanol.npz, 950 + 50 structures, epoch 12"
    assert found["test errors"] == (
        "MAE / RMSE of 1000 structures: energy 0.0044 / 0.0062 eV, forces 0.02 / 0.03 eV/Å"
    )
    assert found["versions"].startswith(f"scschnet {scschnet.__version__}, torch 2")
    assert found["layer"].split() == ["w", "mean", "norm", "w_hat"]
    assert found["embedding"].split()[1:] == ["0.25", "0.125"]
    assert found["block 2"].split()[1:] == ["2.25", "2.125"]


def test_portable_and_gromacs_files_say_so(tmp_path, capsys):
    path = tmp_path / "m.pt"
    scschnet.export(make_model(skip="plain"), path, portable=True)
    text = printed(capsys, path)
    assert text.startswith(f"{path}: SchNet, exported (portable, TorchScript, version 1)\n")
    found = rows(text)
    assert found["needs"] == "nothing but torch"
    assert found["ghosts"] == "8 Å deep"
    assert found["training"] == "unknown"
    assert found["embedding"].split() == ["1", "–", "–"]
    scschnet.export(make_model(), path, host="gromacs")
    assert "exported for gromacs (full," in printed(capsys, path)


def test_checkpoint_and_run(run, capsys):
    text = printed(capsys, run / "best.pt")
    assert "sc-SchNet, a checkpoint, for Python and scschnet export\n" in text
    assert rows(text)["training"] == "ethanol.npz, 950 + 50 structures, epoch 12"
    assert "test errors" not in rows(text) and "needs" not in rows(text)
    assert "trust" not in rows(text)
    found = rows(printed(capsys, run))
    assert found["network"].endswith("float64")
    assert found["test errors"].startswith("MAE / RMSE of 1000 structures")
    assert found["block 1"].split()[1:] == ["1.25", "1.125"]


@pytest.mark.parametrize("content", [None, b"text", b"PK\x05\x06" + bytes(18)])
def test_anything_else_is_an_error_in_one_line(tmp_path, capsys, content):
    path = tmp_path / "m.pt"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(path) in error and error.count("\n") == 1
