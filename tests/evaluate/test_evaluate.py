"""Predictions and errors against loops, the command line, and parity plots."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from scschnet.analysis import parity, plots
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.commands.evaluate import main
from scschnet.data import Split, StructureSet, collate, embedded, save_split
from scschnet.evaluate import (
    MAX_ATOMS_PER_BATCH,
    Predictions,
    error,
    errors,
    errors_in_detail,
    in_units,
    predict,
)
from scschnet.nn import ModelConfig, SchNet

KCAL = 0.04336411530877085  # eV, CODATA 2014


def labeled(model: SchNet, structures: StructureSet, seed: int = 0) -> StructureSet:
    """The set with the model's own results plus noise as labels; stress only where there is a volume."""
    found = predict(model, structures, stress=True)
    rng = np.random.default_rng(seed)
    assert found.forces is not None and found.stress is not None
    return replace(
        structures,
        energy=found.energy + rng.normal(size=found.energy.shape),
        forces=found.forces + rng.normal(size=found.forces.shape),
        stress=found.stress + rng.normal(size=found.stress.shape),
    )


@pytest.fixture
def labels(model: SchNet, structures: StructureSet) -> StructureSet:
    return labeled(model, structures)


def test_predictions_are_those_of_one_structure_at_a_time(
    model: SchNet, structures: StructureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scschnet.evaluate.MAX_ATOMS_PER_BATCH", 6)
    order = [3, 0, 4, 2, 1, 1]
    done: list[int] = []
    found = predict(model, structures, order, stress=True, progress=done.append)
    assert sum(done) == len(order) and len(done) > 2
    assert found.forces is not None and found.stress is not None
    start = 0
    for place, index in enumerate(order):
        batch = collate(structures, [index], model.config.cutoff)
        with torch.no_grad():
            alone = model(**batch.inputs, stress=True)
        stop = start + len(alone["forces"])
        np.testing.assert_allclose(found.energy[place], alone["energy"][0], rtol=1e-13)
        np.testing.assert_allclose(found.forces[start:stop], alone["forces"], atol=1e-12)
        np.testing.assert_allclose(found.stress[place], alone["stress"][0], atol=1e-12)
        start = stop
    assert start == len(found.forces)


def test_predictions_may_be_of_nothing_and_only_of_energies(
    model: SchNet, structures: StructureSet
) -> None:
    empty = predict(model, structures, [], stress=True)
    assert empty.forces is not None and empty.stress is not None
    assert (empty.energy.shape, empty.forces.shape, empty.stress.shape) == ((0,), (0, 3), (0, 3, 3))
    energies = predict(model, structures, forces=False)
    assert energies.forces is None and energies.stress is None
    assert len(energies.energy) == len(structures)


def test_a_structure_larger_than_a_batch_is_predicted(model: SchNet) -> None:
    n = MAX_ATOMS_PER_BATCH + 1
    positions = np.arange(3 * n, dtype=float).reshape(n, 3) * 10.0
    big = StructureSet(positions, np.ones(n, dtype=np.int64), np.array([0, n, n]))
    energy = predict(model, big).energy
    assert energy[0] != 0.0 and energy[1] == 0.0


def test_errors_are_taken_where_there_are_labels() -> None:
    found = error(np.array([1.0, 2.0, 3.0, 9.0]), np.array([2.0, np.nan, 1.0, 9.0]))
    assert found.mae == pytest.approx(1.0)  # 1, 2, 0
    assert found.rmse == pytest.approx(np.sqrt(5 / 3))
    assert found.n == 3
    nothing = error(np.ones(2), np.full(2, np.nan))
    assert nothing.n == 0 and np.isnan(nothing.mae) and np.isnan(nothing.rmse)


def test_errors_in_detail_against_loops(model: SchNet, labels: StructureSet) -> None:
    predictions = predict(model, labels, stress=True)
    found = errors_in_detail(predictions, labels)
    assert labels.energy is not None and labels.forces is not None and labels.stress is not None
    assert predictions.forces is not None and predictions.stress is not None
    expected: dict[str, list[float]] = {}
    for m in range(len(labels)):
        difference = predictions.energy[m] - labels.energy[m]
        expected.setdefault("energy", []).append(difference)
        expected.setdefault("energy_per_atom", []).append(difference / labels.n_atoms[m])
        if m < 3:  # the others have no volume
            expected.setdefault("stress", []).extend(
                (predictions.stress[m] - labels.stress[m]).ravel()
            )
    for z, predicted, label in zip(
        labels.atomic_numbers, predictions.forces, labels.forces, strict=True
    ):
        for name in ("forces", f"forces_{ {1: 'H', 6: 'C', 8: 'O'}[z] }"):
            expected.setdefault(name, []).extend(predicted - label)
    assert set(found) == set(expected)
    for name, differences in expected.items():
        assert found[name].n == len(differences), name
        assert found[name].mae == pytest.approx(np.mean(np.abs(differences))), name
        assert found[name].rmse == pytest.approx(np.sqrt(np.mean(np.square(differences)))), name
    assert errors(predictions, labels) == {
        k: found[k] for k in ("energy", "energy_per_atom", "forces", "stress")
    }


def test_units_of_errors() -> None:
    one = error(np.array([1.0]), np.array([0.0]))
    for name, length in (("energy", ""), ("energy_per_atom", ""), ("forces_H", "/Å")):
        found = in_units(name, one)
        assert found["n"] == 1
        assert found[f"eV{length}"] == {"mae": 1.0, "rmse": 1.0}
        assert found[f"kcal/mol{length}"]["mae"] == pytest.approx(1 / KCAL, rel=1e-6)
    assert in_units("stress", one)["GPa"]["rmse"] == pytest.approx(160.2176621, rel=1e-8)


# ---- the command


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as a training on the embedded set leaves it, with an untrained model."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    config = ModelConfig(elements=(1, 6, 8), n_features=8, n_interactions=1)
    model = SchNet(config)
    model.offsets.shift.fill_(embedded.load().energy.mean() / 9)  # type: ignore[union-attr]
    save_checkpoint(folder / "best.pt", Checkpoint(model))
    (folder / "config.toml").write_text('data = ""\nunits = ""\nenergy_key = ""\n')
    parts = np.arange(50), np.arange(50, 60), np.arange(100, 160)
    save_split(folder / "split.npz", Split(*parts))
    return folder


def test_command_takes_the_test_part_of_the_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "errors.json"
    assert main([str(run), "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["part"] == "test" and found["n_structures"] == 60 and found["n_atoms"] == 540
    structures = embedded.load().select(np.arange(100, 160))
    model = SchNet(ModelConfig(elements=(1, 6, 8), n_features=8, n_interactions=1))
    model.load_state_dict(torch.load(run / "best.pt", weights_only=True)["state_dict"])
    for name, expected in errors(predict(model, structures), structures).items():
        unit = "eV" if name.startswith("energy") else "eV/Å"
        numbers = {"mae": expected.mae, "rmse": expected.rmse}
        assert found[name][unit] == pytest.approx(numbers, rel=1e-6)  # float32 network
    printed = capsys.readouterr()
    assert "test part: 60 structures, 540 atoms" in printed.out
    assert f"{found['forces_O']['eV/Å']['rmse']:#.4g} eV/Å" in printed.out
    assert str(out) in printed.out
    assert printed.err == ""  # no progress bar: this is no terminal


def test_table_is_aligned(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run)]) == 0
    header, *rows = capsys.readouterr().out.splitlines()[3:]
    assert [row.split()[0] for row in rows] == ["energy", "per", "forces", "H", "C", "O"]
    assert {len(row) for row in rows} == {len(header)}


def test_command_takes_a_part_or_a_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--part", "val"]) == 0
    assert "val part: 10 structures" in capsys.readouterr().out
    assert main([str(run / "best.pt"), "--part", "all"]) == 0
    assert "ethanol: 2,000 structures, 18,000 atoms" in capsys.readouterr().out
    assert main([str(run / "best.pt"), "--data", str(embedded.path()), "--part", "train"]) == 0
    assert "train part: 50 structures" in capsys.readouterr().out


def test_command_takes_a_file_with_undeclared_units(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ethanol = embedded.load().select(np.arange(5))
    assert ethanol.energy is not None and ethanol.forces is not None
    file = tmp_path / "ethanol.npz"
    np.savez(
        file,
        R=ethanol.positions.reshape(5, 9, 3),
        z=ethanol.atomic_numbers[:9],
        E=ethanol.energy / KCAL,
        F=ethanol.forces.reshape(5, 9, 3) / KCAL,
    )
    arguments = [str(run), "--data", str(file), "--json", str(tmp_path / "errors.json")]
    assert main(arguments) == 1
    assert "units" in capsys.readouterr().err
    assert main([*arguments, "--units", "kcal/mol, Angstrom"]) == 0
    found = json.loads((tmp_path / "errors.json").read_text())
    in_ev = tmp_path / "direct.json"
    assert main([str(run), "--data", str(embedded.path()), "--json", str(in_ev)]) == 0
    assert found["n_structures"] == 5
    assert (
        0.5
        < found["forces"]["eV/Å"]["mae"] / json.loads(in_ev.read_text())["forces"]["eV/Å"]["mae"]
        < 2
    )


def test_command_notes_the_runs_own_training_data(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("best.pt", "split.npz"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "config.toml").write_text(f'data = "{embedded.path()}"\n')
    assert main([str(tmp_path), "--data", str(embedded.path())]) == 0
    assert "training part included; --part test leaves it out" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "test part: 60 structures" in printed.out and printed.err == ""


def test_command_takes_a_checkpoint_beside_the_options_of_another_program(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes((run / "best.pt").read_bytes())
    (tmp_path / "config.toml").write_text("[server]\nport = 80\n")
    assert main([str(checkpoint), "--data", str(embedded.path())]) == 0
    assert capsys.readouterr().err == ""
    assert main([str(checkpoint)]) == 1
    assert f"{tmp_path / 'config.toml'}: unknown option `server`" in capsys.readouterr().err


def test_command_fails_with_a_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def message(*arguments: str | Path) -> str:
        assert main([str(argument) for argument in arguments]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err

    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes((run / "best.pt").read_bytes())
    data = embedded.path()
    (tmp_path / "folder").mkdir()
    assert "is a folder that holds no run" in message(tmp_path / "folder")
    assert "is no run folder, it has no config.toml" in message(checkpoint)
    assert "there is no" in message(checkpoint, "--data", data, "--part", "test")
    assert "`--data` must be a file of structures, but there is no" in message(
        run, "--data", tmp_path / "nowhere.npz"
    )
    assert "`--plot` must end in .png, .pdf or .svg" in message(run, "--plot", "figure.jpg")
    assert main([str(run), "--json", str(tmp_path / "missing" / "errors.json")]) == 1
    assert "missing` must be an existing folder, got none" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert "`--device` must be cpu" in message(run, "--device", "cuda")
    (tmp_path / "config.toml").write_text('data = "moved.npz"')
    assert "there is no moved.npz, which is relative to the folder" in message(checkpoint)
    (tmp_path / "config.toml").write_text("data = ")
    assert "is not valid TOML" in message(checkpoint)
    (tmp_path / "config.toml").write_text('data = ""')
    save_split(tmp_path / "split.npz", Split(*np.zeros((3, 0), dtype=np.int64)))
    assert "the test part in" in message(checkpoint)


def test_command_names_unknown_elements_and_missing_labels(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "strange.xyz"
    rows = [
        "1\nenergy=1.0\nH 0 0 0\n",
        "2\nenergy=2.0\nN 0 0 0\nF 0 0 1.4\n",
        "1\nenergy=0\nN 0 0 0\n",
    ]
    file.write_text("".join(rows))
    arguments = [str(run), "--data", str(file), "--units", "eV, Angstrom"]
    assert main(arguments) == 1
    assert (
        "must hold only H, C, O, the elements the model was trained on, got N, F in 2 of 3 structures"
        in capsys.readouterr().err
    )
    file.write_text("1\n\nH 0 0 0\n")
    assert main(arguments) == 1
    assert "energy, forces or stress" in capsys.readouterr().err


def test_wrong_usage_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["run", "--part", "half"], ["run", "--dta", "x"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    capsys.readouterr()


# ---- parity plots


def test_parity_panels_hold_the_labels_and_predictions(model: SchNet, labels: StructureSet) -> None:
    predictions = predict(model, labels, stress=True)
    energy, forces, stress = parity.parity_panels(predictions, labels)
    assert labels.energy is not None and labels.forces is not None
    np.testing.assert_allclose(
        energy.predicted - energy.reference, predictions.energy - labels.energy, atol=1e-9
    )
    assert np.abs(energy.reference).max() < 100.0  # thousands of eV per atom are gone
    assert np.abs(labels.energy).max() > 1000.0
    np.testing.assert_array_equal(forces.reference, labels.forces.ravel())
    assert stress.reference.size == 27 and np.isfinite(stress.predicted).all()


def test_energies_of_one_molecule_are_relative_to_their_mean(model: SchNet) -> None:
    ethanol = embedded.load().select(np.arange(20))
    assert ethanol.energy is not None
    (energy, _) = parity.parity_panels(predict(model, ethanol), ethanol)
    np.testing.assert_allclose(energy.reference, ethanol.energy - ethanol.energy.mean(), atol=1e-8)


@pytest.mark.parametrize("n", [1, 2000, 2001])
def test_a_panel_shows_points_or_density_and_the_errors(n: int) -> None:
    reference = np.random.default_rng(0).normal(size=n)
    panel = parity.Panel("energy", "eV", reference, reference + 0.25)
    with plots.figure_style():
        axes = plots.new_figure().add_subplot()
        parity.draw_parity(axes, panel)
    (shown,) = axes.collections
    if n > 2000:
        assert shown.get_array().sum() == n  # counts of the cells
    else:
        np.testing.assert_array_equal(shown.get_offsets()[:, 1], panel.predicted)
    assert axes.texts[0].get_text() == f"MAE 0.25 eV\nRMSE 0.25 eV\nn = {n:,}"
    assert axes.get_xlim() == axes.get_ylim()
    assert "(eV)" in axes.get_xlabel() and "(eV)" in axes.get_ylabel()


def test_command_draws_a_parity_plot(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "parity.png"
    assert main([str(run), "--plot", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    image = imread(out)
    ink = (image[:, :, :3] < 0.9).any(axis=2)
    assert image.shape[1] == pytest.approx(17.2 / 2.54 * 300, abs=1)
    assert ink.mean() > 0.01
    assert not ink[[0, -1]].any() and not ink[:, [0, -1]].any()


def test_a_parity_plot_of_nothing_is_an_error(structures: StructureSet, tmp_path: Path) -> None:
    nothing = Predictions(np.zeros(len(structures)), None, None)
    with pytest.raises(ValueError, match="`labels` must hold energy, forces or stress, got none"):
        parity.plot_parity(nothing, structures, tmp_path / "parity.png")
