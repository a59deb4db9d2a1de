"""Committees from Python and ASE: folders, exported files, and what ASE does with error bars."""

import json
import pickle
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from conftest import make_model

import scschnet
from scschnet import ScSchNetCalculator
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.commands.predict import main as predict
from scschnet.committee import load, member_folders
from scschnet.data import embedded
from scschnet.evaluate.norm_statistics import norm_statistics
from scschnet.nn import SchNet
from scschnet.nn.committee import Committee, Factors
from scschnet.nn.unfamiliarity import KEY

BARS = ("energy_std", "energies_std", "forces_std")


def frames() -> list[Atoms]:
    """A molecule, and a crystal."""
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    crystal = Atoms("CO", [[0, 0, 0], [1.5, 1.5, 1.4]], cell=[3.0, 3.1, 3.2], pbc=True)
    return [water, crystal]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A committee of three with statistics of its training set, calibrated."""
    folder = tmp_path_factory.mktemp("committees") / "committee"
    ethanol = embedded.load().select(range(40))
    for k in range(3):
        member = folder / f"member-{k + 1}"
        member.mkdir(parents=True)
        model = make_model(seed=k, filters="spline").requires_grad_(False)
        statistics = norm_statistics(
            model, ethanol.select(range(30)), ethanol.select(range(30, 40))
        )
        save_checkpoint(member / "best.pt", Checkpoint(model, {KEY: statistics.to_json()}))
    (folder / "committee.toml").write_text("committee = 3\n")
    (folder / "error_bars.json").write_text(json.dumps({"energy": 2.0, "forces": 3.0}))
    return folder


@pytest.fixture(scope="module", params=["full", "portable"])
def file(request, folder) -> Path:
    path = folder.parent / f"{request.param}.pt"
    scschnet.export(folder, path, portable=request.param == "portable")
    return path


def evaluated(atoms: Atoms, calculator: ScSchNetCalculator) -> Atoms:
    atoms.calc = calculator
    atoms.get_forces()
    return atoms


def test_a_folder_becomes_a_committee(folder):
    committee = scschnet.load(folder)
    assert isinstance(committee, Committee) and len(committee.members) == 3
    assert committee.factors == Factors(2.0, 3.0) and not committee.training
    assert not any(p.requires_grad for p in committee.parameters())
    assert isinstance(scschnet.load(member_folders(folder)[0]), SchNet)


def test_the_calculator_gives_mean_and_error_bars(folder):
    for atoms in frames():
        alone = []
        for member in member_folders(folder):
            evaluated(atoms, ScSchNetCalculator(member))
            alone.append(dict(atoms.calc.results) | {"unfamiliarity": atoms.calc.unfamiliarity})
        found = evaluated(atoms, ScSchNetCalculator(folder)).calc.results
        assert type(found["energy_std"]) is float
        for name in ("energy", "energies", "forces", *(["stress"] if atoms.pbc.any() else [])):
            mean = np.mean([one[name] for one in alone], axis=0)
            np.testing.assert_allclose(found[name], mean, rtol=1e-12, atol=1e-12)
        forces = np.array([one["forces"] for one in alone])
        squares = np.square(forces - forces.mean(axis=0)).sum(axis=2)
        np.testing.assert_allclose(found["forces_std"], 3.0 * np.sqrt(squares.mean(axis=0)))
        energies = [one["energies"] for one in alone]
        np.testing.assert_allclose(found["energies_std"], 2.0 * np.std(energies, axis=0))
        assert found["energy_std"] == pytest.approx(2.0 * np.std([one["energy"] for one in alone]))
        scores = np.mean([one["unfamiliarity"] for one in alone], axis=0)
        np.testing.assert_allclose(atoms.calc.unfamiliarity, scores, rtol=1e-12)


def test_an_exported_file_is_the_folder_it_came_from(folder, file):
    """In ASE, all results of both, unfamiliarity included."""
    calculators = ScSchNetCalculator(folder), ScSchNetCalculator(file)
    for atoms in frames():
        one, other = (dict(evaluated(atoms, calculator).calc.results) for calculator in calculators)
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_allclose(other[name], value, atol=1e-10, rtol=1e-9, err_msg=name)
        scores = [calculator.unfamiliarity for calculator in calculators]
        np.testing.assert_allclose(*scores, rtol=1e-9)


def test_an_exported_single_model_has_no_error_bars(folder, tmp_path):
    member = member_folders(folder)[0]
    scschnet.export(member, tmp_path / "one.pt")
    for path in (member, tmp_path / "one.pt"):
        atoms = evaluated(frames()[1], ScSchNetCalculator(path))
        assert not set(BARS) & set(atoms.calc.results)
        with pytest.raises(PropertyNotImplementedError):
            atoms.calc.get_property("forces_std", atoms)
    stress = atoms.get_stress()
    np.testing.assert_allclose(
        stress, evaluated(frames()[1], ScSchNetCalculator(member)).get_stress()
    )


def test_error_bars_are_properties_of_ase(folder, tmp_path):
    """They can be asked for, copied, exported, and written and read again in ASE's own formats."""
    calculator = ScSchNetCalculator(folder)
    atoms = frames()[1]
    atoms.calc = calculator
    bars = calculator.get_property("forces_std", atoms)
    assert bars.shape == (2,) and set(BARS) < set(calculator.implemented_properties)
    assert set(BARS).isdisjoint(ScSchNetCalculator.implemented_properties)
    assert calculator.export_properties()["energy_std"] == calculator.results["energy_std"]
    copied = SinglePointCalculator(atoms, **calculator.results)
    np.testing.assert_array_equal(copied.results["forces_std"], bars)
    for name in ("a.extxyz", "a.traj", "a.json"):
        ase.io.write(tmp_path / name, atoms)
        again = ase.io.read(tmp_path / name).calc.results
        for key in BARS:
            np.testing.assert_allclose(again[key], calculator.results[key], rtol=1e-7, err_msg=name)
    with ase.db.connect(tmp_path / "a.db") as db:
        db.write(atoms)
        assert db.get(id=1).energy == pytest.approx(calculator.results["energy"])


def test_a_new_geometry_has_new_error_bars(folder, file):
    for calculator in (ScSchNetCalculator(folder), ScSchNetCalculator(file)):
        atoms = evaluated(frames()[0], calculator)
        before = atoms.calc.results["forces_std"]
        atoms.positions[0] += 0.1
        atoms.get_potential_energy()
        assert np.abs(calculator.get_property("forces_std", atoms) - before).max() > 1e-6


def test_predict_writes_error_bars(folder, file, tmp_path):
    ase.io.write(tmp_path / "in.extxyz", frames())
    for path in (folder, file):
        assert (
            predict([str(path), str(tmp_path / "in.extxyz"), "-o", str(tmp_path / "out.xyz")]) == 0
        )
        text = (tmp_path / "out.xyz").read_text()
        assert "forces_std:R:1" in text and "energies_std:R:1" in text and " energy_std=" in text
        for got, atoms in zip(ase.io.read(tmp_path / "out.xyz", index=":"), frames(), strict=True):
            expected = evaluated(atoms, ScSchNetCalculator(folder)).calc.results
            for key in BARS:
                np.testing.assert_allclose(got.calc.results[key], expected[key], atol=1e-7)


def test_a_calculator_takes_a_committee(folder):
    committee = load(folder)
    calculator = ScSchNetCalculator(committee, dtype="float32")
    atoms = evaluated(frames()[0], calculator)
    assert calculator.unfamiliarity is None
    expected = evaluated(frames()[0], ScSchNetCalculator(folder)).calc.results
    np.testing.assert_allclose(atoms.calc.results["forces_std"], expected["forces_std"], rtol=1e-3)
    assert next(committee.parameters()).dtype == torch.float64
    assert len(pickle.dumps(committee)) > 0


def test_the_dtype_of_an_exported_file_is_its_own(file):
    assert ScSchNetCalculator(file, dtype="float64")
    with pytest.raises(
        ValueError, match=r"`dtype` must be float64, that of the exported file .*float32"
    ):
        ScSchNetCalculator(file, dtype="float32")


def test_wrong_elements_and_coincident_atoms(folder, file):
    for calculator in (ScSchNetCalculator(folder), ScSchNetCalculator(file)):
        for atoms, message in (
            (Atoms("Cu"), "`atoms` must hold only H, C, O"),
            (Atoms("H2", np.zeros((2, 3))), "different points"),
        ):
            atoms.calc = calculator
            with pytest.raises(ValueError, match=message):
                atoms.get_forces()


def test_damaged_folders(folder, tmp_path):
    broken = tmp_path / "committee"
    broken.mkdir()
    (broken / "committee.toml").write_text("commitee = 3\n")
    with pytest.raises(ValueError, match=r"committee.toml must give the number of members"):
        load(broken)
    (broken / "committee.toml").write_text("committee = 2\n")
    with pytest.raises(
        FileNotFoundError, match=r"committee of 2, but .*member-1 has no best.pt yet; go on"
    ):
        load(broken)
    for k, member in enumerate(member_folders(folder)[:2]):
        (broken / f"member-{k + 1}").symlink_to(member)
    assert load(broken).factors == Factors()
    (broken / "error_bars.json").write_text('{"energy": "many"}')
    with pytest.raises(
        ValueError, match=r"error_bars.json must hold the factors energy and forces"
    ):
        load(broken)
