"""Trainings on properties: what is read, learned, shown, resumed, predicted and exported."""

import csv
import dataclasses
import json
import re
from contextlib import suppress
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from test_qm9 import molecules, written

import scschnet
from scschnet import export
from scschnet.analysis.properties import property_contributions
from scschnet.calculator import ScSchNetCalculator
from scschnet.commands import analysis, evaluate, predict
from scschnet.commands.train import main
from scschnet.data import collate, read
from scschnet.data.readers import write_hdf5
from scschnet.evaluate import predict as predictions_of
from scschnet.export import load_exported
from scschnet.properties import KNOWN, QM9, Property
from scschnet.quantities import quantity_of
from scschnet.runs.contributions import properties_of, read_contributions
from scschnet.runs.folder import RunFolder
from scschnet.train.loss import Loss, labels_of
from scschnet.train.setup import TrainConfig, build_model, fit_heads

FILE = Path(__file__).parents[1] / "files" / "qm9_first20.npz"
HARTREE, DEBYE = 27.211386, 0.20819434
ALL = [given.name for given in QM9]


def training(out: Path, *properties: str, data: Path = FILE, more: tuple[str, ...] = ()) -> Path:
    """A short training on 14 molecules, with 3 for validation and 3 to test."""
    sizes = ("--n-train", "14", "--n-val", "3", "--n-features", "8", "--n-interactions", "2")
    options = ("--data", str(data), "--out", str(out), "--epochs", "3", *sizes, *more)
    assert main([*options, "--properties", *properties]) == 0
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of all twelve."""
    return training(tmp_path_factory.mktemp("runs") / "all", *ALL)


@pytest.fixture(scope="module")
def homo(tmp_path_factory) -> Path:
    return training(tmp_path_factory.mktemp("runs") / "homo", "homo")


# ---- reading


def raw(name: str) -> np.ndarray:
    with np.load(FILE) as file:
        return file[name]


@pytest.mark.parametrize("name", ALL)
def test_archives_tar_and_hdf5_agree_in_the_units_of_the_properties(tmp_path, name):
    given = KNOWN[name]
    expected = raw(name) * (HARTREE if given.unit == "eV" else 1.0)
    from_npz = read(FILE, properties=[name]).properties[given]
    np.testing.assert_allclose(from_npz, expected, rtol=1e-6)
    tar = written(tmp_path / "q.tar.bz2", molecules(range(1, 21)))
    np.testing.assert_allclose(read(tar, properties=[name]).properties[given], from_npz, rtol=1e-12)
    write_hdf5(tmp_path / "q.h5", read(FILE, properties=[name]))
    assert read(tmp_path / "q.h5").properties.keys() == {given}
    again = read(tmp_path / "q.h5", properties=[name]).properties[given]
    np.testing.assert_array_equal(again, from_npz)


def test_values_of_a_kind_of_ones_own_are_taken_as_they_stand():
    found = read(FILE, properties=["homo:mean"]).properties
    np.testing.assert_array_equal(found[Property("homo", "mean")], raw("homo"))


def frames() -> list[Atoms]:
    """Molecules with a charge-like number, a dipole moment of ASE's, and no number in one frame."""
    structures, rng = read(FILE), np.random.default_rng(0)
    made = []
    for m in range(20):
        atoms = slice(structures.atom_ptr[m], structures.atom_ptr[m + 1])
        frame = Atoms(structures.atomic_numbers[atoms], structures.positions[atoms])
        if m != 3:
            frame.info["polar"] = float(rng.normal())
        dipole = rng.normal(size=3)
        frame.calc = SinglePointCalculator(frame, dipole=dipole, energy=-13.0 * len(frame))
        made.append(frame)
    return made


def test_properties_of_extended_xyz(tmp_path):
    path = tmp_path / "frames.extxyz"
    ase.io.write(path, frames())
    structures = read(path, properties=["polar:sum", "dipole:dipole"])
    polar = structures.properties[Property("polar", "sum")]
    assert np.flatnonzero(np.isnan(polar)).tolist() == [3]
    assert polar[0] == pytest.approx(frames()[0].info["polar"])
    assert structures.labeled["polar"].sum() == 19
    dipole = structures.properties[Property("dipole", "dipole")]
    np.testing.assert_allclose(dipole[5], frames()[5].get_dipole_moment(), rtol=1e-6)
    some = structures.select([3, 0])
    np.testing.assert_array_equal(some.properties[Property("polar", "sum")], polar[[3, 0]])


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        (
            ["mu"],
            "`properties` mu must be in D, but the file does not state its unit; mu:dipole_norm",
        ),
        (["gone:sum"], "must be in frames.extxyz, got gone, which is in none of its 20 frames"),
        (["polar"], "must be among U0, .*, or NAME:KIND for another one, got 'polar'"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, properties, message):
    path, made = tmp_path / "frames.extxyz", frames()
    for frame in made:
        frame.info["mu"] = 1.0
    ase.io.write(path, made)
    with pytest.raises(ValueError, match=message):
        read(path, properties=properties)


def test_a_key_that_an_archive_does_not_have(tmp_path):
    with pytest.raises(
        ValueError, match=r"`properties` must be a key of .*, got 'homs'; nearest: homo"
    ):
        read(FILE, properties=["homs:mean"])
    with pytest.raises(ValueError, match=r"must be among A, B, C, mu, .* for q.tar, got polar"):
        read(written(tmp_path / "q.tar", molecules([1]), "w"), properties=["polar:sum"])


def test_a_unit_that_does_not_fit_is_refused(tmp_path):
    with np.load(FILE) as file:
        arrays = {name: file[name] for name in file.files} | {"units": np.array("mu: Coulomb")}
    np.savez(tmp_path / "q.npz", **arrays)
    with pytest.raises(ValueError, match="mu must be in D, but the file states Coulomb"):
        read(tmp_path / "q.npz", properties=["mu"])


# ---- training


def test_all_twelve_are_learned_together_and_shown_everywhere(run, capsys):
    header, *rows = csv.reader((run / "metrics.csv").read_text().splitlines())
    for name in ALL:
        values = [float(row[header.index(f"val_{name}_mae")]) for row in rows]
        assert np.isfinite(values).all() and len(values) == 3
    test = json.loads((run / "test.json").read_text())
    assert test["homo"]["meV"]["mae"] == pytest.approx(1000 * test["homo"]["eV"]["mae"])
    assert set(test) == {"epoch", "n_test", *ALL} and set(test["mu"]) == {"n", "D"}
    assert properties_of(run) == ALL
    weights = scschnet.load(run).weights_by_property()
    assert list(weights) == ALL
    last = [read_contributions(run, name).weight[-1] for name in ALL]
    assert len({tuple(row) for row in last}) == 12  # each has its own
    found = property_contributions([run])
    np.testing.assert_allclose(found.shares.sum(axis=1), 1.0)
    assert (run / "properties.csv").is_file() and (run / "properties.png").is_file()
    report = (run / "report.html").read_text()
    assert all(f"<td>{name}</td>" in report or f">{name}<" in report for name in ALL)
    assert evaluate.main([str(run)]) == 0
    table = capsys.readouterr().out
    for name in ALL:
        (line,) = [line for line in table.splitlines() if line.split()[:1] == [name]]
        unit = "meV" if KNOWN[name].unit == "eV" else KNOWN[name].unit
        assert f"{test[name][unit]['mae']:#.4g}" in line
    analysis.main(["properties", str(run), "-o", str(run / "figure.svg")])
    assert capsys.readouterr().out.split()[0] == "w_hat"


def test_errors_of_each_of_several_files_have_the_units_of_properties(tmp_path, capsys):
    structures = read(FILE, properties=["homo", "mu"])
    for k, name in enumerate(("one", "two")):
        write_hdf5(tmp_path / f"{name}.h5", structures.select(np.arange(10 * k, 10 * k + 10)))
    both = ("--data", str(tmp_path / "one.h5"), str(tmp_path / "two.h5"))
    run = training(tmp_path / "run", "homo", "mu", more=both)
    capsys.readouterr()
    assert evaluate.main([str(run)]) == 0
    printed = capsys.readouterr().out
    for of_file in json.loads((run / "test.json").read_text())["files"]:
        shown = f"homo {of_file['homo']['eV']['mae']:.4g} eV, mu {of_file['mu']['D']['mae']:.4g} D"
        assert f"{of_file['file']}: MAE {shown}" in printed


def test_standardization_is_undone(run):
    """Errors in test.json are those of the model's numbers against the file's own, converted by hand."""
    model, split = scschnet.load(run), np.load(run / "split.npz")
    found = predictions_of(model, read(FILE, properties=ALL), split["test"])
    test = RunFolder(run).read_test()
    assert found.energy is None and found.forces is None
    for given in QM9:
        factor = HARTREE if given.unit == "eV" else 1.0
        wrong = np.abs(found.properties[given] - factor * raw(given.name)[split["test"]]).mean()
        assert test[given.name][given.unit]["mae"] == pytest.approx(wrong, rel=1e-5)


def test_properties_of_a_file_that_nobody_asked_for(tmp_path):
    """HDF5 keeps them; a training on energies alone, and one on a part of them, lets them be."""
    write_hdf5(tmp_path / "q.h5", read(FILE, properties=["mu", "homo"]))
    out = training(tmp_path / "one", "energy", data=tmp_path / "q.h5")
    assert properties_of(out) == ["energy"]
    assert properties_of(training(tmp_path / "two", "homo", data=tmp_path / "q.h5")) == ["homo"]


def test_the_loss_is_what_it_says(run):
    """sum_p weight_p MSE(p) / spread_p^2 over structures, per batch and of the validation part."""
    config = TrainConfig(
        data=str(FILE), properties=("mu", "homo"), property_weights="mu=3", n_features=8
    )
    structures = read(FILE, properties=["mu", "homo"])
    model = build_model(config, structures, np.arange(14))
    spreads = {name: float(head.spread) for name, head in model.named_heads()}
    loss = Loss(config, structures.select(np.arange(14)), spreads)
    batch = collate(structures, [0, 5, 7], 5.0)
    result = model(**batch.inputs, forces=False)
    got = float(loss(result, labels_of(batch), 3, len(batch.positions)).detach())
    expected = 0.0
    for name, weight in (("mu", 3.0), ("homo", 1.0)):
        wrong = result[name].detach().numpy() - structures.properties[KNOWN[name]][[0, 5, 7]]
        expected += weight * np.square(wrong / spreads[name]).mean()
    assert got == pytest.approx(expected, rel=1e-6)
    found = predictions_of(model, structures, [0, 5, 7])
    errors = loss.errors(found, structures.select([0, 5, 7]))
    assert loss.of(errors) == pytest.approx(expected, rel=1e-6)
    assert loss.derivatives == {"forces": False, "stress": False}


def test_a_property_of_some_structures_only(tmp_path):
    """Structures without it count nothing, and the loss means over those that have it."""
    path = tmp_path / "frames.extxyz"
    ase.io.write(path, frames())
    out = training(tmp_path / "run", "polar:sum", data=path)
    assert json.loads((out / "test.json").read_text())["polar"]["n"] in (2, 3)
    config = TrainConfig(data=str(path), properties=("polar:sum",))
    structures = read(path, properties=["polar:sum"])
    loss = Loss(config, structures, {"polar": 1.0})
    given = Property("polar", "sum")
    batch = collate(structures, [2, 3], 5.0)
    result = {"polar": batch.properties[given].nan_to_num() + 2.0}
    value = loss(result, labels_of(batch), 2, len(batch.positions))
    assert float(value) == pytest.approx(2.0**2 / 2 * 20 / 19)
    assert quantity_of(given, ()).unit == "as in the file"


def test_energy_forces_and_a_property_together(tmp_path):
    """The energy stays, with its own weights; a dipole moment of ASE's files is ASE's dipole moment."""
    path, made = tmp_path / "frames.extxyz", frames()
    rng = np.random.default_rng(0)
    for frame in made:
        frame.calc.results["forces"] = rng.normal(size=(len(frame), 3))
    ase.io.write(path, made)
    out = training(tmp_path / "run", "energy", "forces", "dipole:dipole", data=path)
    assert properties_of(out) == ["energy", "dipole"]
    test = json.loads((out / "test.json").read_text())
    assert {"energy", "energy_per_atom", "forces", "dipole"} < set(test)
    atoms = ase.io.read(path, 7)
    atoms.calc = ScSchNetCalculator(out)
    dipole = atoms.get_dipole_moment()
    assert dipole.shape == (3,) and np.isfinite(atoms.get_forces()).all()
    atoms.positions += 5.0
    np.testing.assert_allclose(atoms.get_dipole_moment(), dipole, atol=1e-5)
    atoms.cell, atoms.pbc = np.eye(3) * 20.0, True
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError, match="nothing for a periodic structure"):
        atoms.get_dipole_moment()
    assert predict.main([str(out), str(path), "-o", str(tmp_path / "p.extxyz")]) == 0
    first = ase.io.read(tmp_path / "p.extxyz", 0)
    known = ase.io.read(path, 0)
    np.testing.assert_allclose(first.info["REF_dipole"], known.get_dipole_moment(), rtol=1e-6)
    known.calc = ScSchNetCalculator(out)
    np.testing.assert_allclose(first.get_dipole_moment(), known.get_dipole_moment(), rtol=1e-6)


def test_a_model_without_an_energy(homo, tmp_path):
    """Trained, evaluated, in ASE and in predict; energies are refused everywhere, by name."""
    atoms = frames()[8]
    atoms.calc = calculator = ScSchNetCalculator(homo)
    value = calculator.get_property("homo", atoms)
    assert isinstance(value, float) and -20 < value < 0
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energy()
    ase.io.write(tmp_path / "one.extxyz", frames()[8])
    out = tmp_path / "p.extxyz"
    assert predict.main([str(homo), str(tmp_path / "one.extxyz"), "-o", str(out)]) == 0
    written_frame = ase.io.read(out)
    assert written_frame.info["homo"] == pytest.approx(value, abs=1e-6)
    assert written_frame.calc is None or "energy" not in written_frame.calc.results
    assert evaluate.main([str(homo), "--data", str(FILE)]) == 0


@pytest.mark.parametrize("command", ["elements", "layers", "shapley", "reach", "filters"])
def test_analyses_of_energies_are_refused_without_one(homo, tmp_path, capsys, command):
    options = [command, str(homo), "-o", str(tmp_path / "figure.svg")]
    assert analysis.main(options) == 1
    said = capsys.readouterr().err
    assert "the model has no energy or forces: it was trained on homo alone" in said


@pytest.mark.parametrize("portable", [False, True])
def test_an_exported_file_of_properties(homo, run, tmp_path, portable):
    for folder in (homo, run):
        path = tmp_path / f"{folder.name}.pt"
        metadata = export(folder, path, portable=portable, dtype="float64")
        assert metadata["energy"] is False
        atoms = frames()[11]
        exported = load_exported(path)
        inputs = (torch.tensor(atoms.positions), torch.tensor(atoms.numbers))
        got = exported.forward(*inputs, torch.zeros(3, 3).double(), torch.zeros(3).bool())
        assert "energy" not in got and "forces" not in got
        calculator = ScSchNetCalculator(folder, dtype="float64")
        for one in metadata["properties"]:
            expected = calculator.get_property(one["name"], atoms)
            assert float(got[one["name"]]) == pytest.approx(expected, rel=1e-7), one
    pair = torch.tensor([0]), torch.tensor([1]), torch.ones(1, 3).double()
    with pytest.raises(ValueError, match="trained on properties alone: it has no energy or forces"):
        exported.forward_pairs(torch.tensor([6, 1]), *pair, 2, False)
    with pytest.raises(ValueError, match="`host` must be left out for a model that was trained on"):
        export(homo, tmp_path / "g.pt", host="gromacs")


def test_a_resumed_run_ends_as_if_it_had_never_stopped(tmp_path):
    names = ("mu", "gap", "r2")
    whole = training(tmp_path / "whole", *names, more=("--w-init", "random"))
    part = tmp_path / "part"
    training(part, *names, more=("--w-init", "random", "--epochs", "3", "--patience", "0"))
    stopped = training(
        tmp_path / "stopped",
        *names,
        more=("--w-init", "random", "--schedule", "constant", "--epochs", "2"),
    )
    assert main(["--resume", str(stopped), "--epochs", "3"]) == 0
    same = training(
        tmp_path / "same", *names, more=("--w-init", "random", "--schedule", "constant")
    )
    for one, other in ((whole, part), (stopped, same)):
        a, b = (scschnet.load(folder / "last.pt").state_dict() for folder in (one, other))
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert (one / "contributions.csv").read_text() == (other / "contributions.csv").read_text()


def test_tables_of_older_runs_go_on_without_the_column(tmp_path):
    out = tmp_path / "run"
    options = [
        "--out",
        str(out),
        "--n-train",
        "20",
        "--n-val",
        "5",
        "--n-test",
        "5",
        "--epochs",
        "1",
    ]
    options += ["--n-features", "8", "--n-interactions", "1", "--schedule", "constant"]
    assert main(options) == 0
    table = out / "contributions.csv"
    rows = [line.rsplit(",", 1)[0] for line in table.read_text().splitlines()]
    table.write_text("\n".join(rows) + "\n")
    assert main(["--resume", str(out), "--epochs", "2"]) == 0
    lines = table.read_text().splitlines()
    assert len(lines) == 5 and all(line.count(",") == 5 for line in lines)
    assert properties_of(out) == ["energy"] and len(read_contributions(out).epochs) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--properties", "homo:tensor"), "homo must be of one of the kinds sum, mean, dipole"),
        (("--properties", "mu:dipole"), r"mu must have the shape \(3,\) of a dipole, got \(\)"),
        (("--properties", "homo", "--property-weights", "lumo=2"), "must be like .* got 'lumo=2'"),
        (("--properties", "homo", "--property-weights", "homo=0"), "positive .* got 'homo=0'"),
        (("--properties", "forces", "--rho", "1"), "must leave something to train on"),
    ],
)
def test_options_that_cannot_be(tmp_path, capsys, options, message):
    arguments = ["--data", str(FILE), "--out", str(tmp_path / "run"), *options]
    with suppress(SystemExit):  # what tyro finds wrong ends the process
        assert main(arguments) == 1
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_the_embedded_set_has_no_properties(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "run"), "--properties", "mu"]) != 0
    assert (
        "`--properties` mu must be in the data, but the embedded set has" in capsys.readouterr().err
    )


def test_properties_of_molecules_are_refused_for_periodic_structures(tmp_path, capsys):
    made = frames()
    for frame in made:
        frame.cell, frame.pbc = np.eye(3) * 30.0, True
    ase.io.write(tmp_path / "frames.extxyz", made)
    options = ("--data", str(tmp_path / "frames.extxyz"), "--out", str(tmp_path / "run"))
    assert main([*options, "--properties", "dipole:dipole"]) != 0
    assert (
        "20 of 20 structures are periodic, for which a dipole means nothing"
        in capsys.readouterr().err
    )


def test_heads_start_as_large_as_their_labels():
    """`readout_start` matched makes up for weights that sum to one, for heads as for the energy."""
    structures = read(FILE, properties=["homo"])
    made = [
        build_model(
            TrainConfig(properties=("homo",), readout_start=start), structures, np.arange(14)
        )
        for start in ("xavier", "matched")
    ]
    one, other = (model.heads["homo"].readout.hidden.weight for model in made)
    torch.testing.assert_close(other, 7 * one)
    with pytest.raises(ValueError, match="no structure of the training part has homo"):
        missing = {KNOWN["homo"]: np.full(20, np.nan)}
        fit_heads(made[0], dataclasses.replace(structures, properties=missing))
