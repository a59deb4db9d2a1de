"""`import scschnet`: every public name is there, whatever was imported before, and modules can be called."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import ase.build
import numpy as np
import pytest
from conftest import make_model

import scschnet
from scschnet.calculator import ScSchNetCalculator
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.data import embedded, from_atoms
from scschnet.evaluate import errors_in_detail
from scschnet.evaluate import predict as predict_set
from scschnet.nn.committee import Committee, Factors
from scschnet.runs.config import PRESETS, TrainConfig

MODULES = ("train", "evaluate", "predict", "export", "report", "select")


def test_every_public_name_is_there_and_typed():
    for name in scschnet.__all__:
        assert callable(getattr(scschnet, name))
        assert name in dir(scschnet)
    tree = ast.parse(Path(scschnet.__file__).read_text())
    (block,) = [
        node for node in tree.body if isinstance(node, ast.If) and "TYPE" in ast.dump(node.test)
    ]
    typed = {alias.asname or alias.name for line in block.body for alias in line.names}
    assert typed == set(scschnet.__all__)
    assert (Path(scschnet.__file__).parent / "py.typed").exists()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module `scschnet` has no attribute `tain`"):
        scschnet.tain  # noqa: B018


@pytest.mark.parametrize(
    "before",
    [
        "",
        "import scschnet.train.schedule, scschnet.export.writer as w",
        "from scschnet.predict import predict; from scschnet.evaluate import errors",
    ],
)
def test_modules_are_called_whatever_was_imported_before(before):
    code = f"{before}\nimport scschnet\nprint(*(callable(getattr(scschnet, n)) for n in {MODULES}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * len(MODULES)


def test_a_module_shows_the_signature_of_its_function():
    assert list(inspect.signature(scschnet.train).parameters) == ["config", "resume"]
    assert list(inspect.signature(scschnet.predict).parameters)[:2] == ["model", "structures"]


def test_predict_takes_atoms_files_and_sets(tmp_path):
    model = make_model()
    save_checkpoint(tmp_path / "model.pt", Checkpoint(model))
    molecules = [ase.build.molecule("CH3CH2OH"), ase.build.molecule("H2O")]
    found = scschnet.predict(model, molecules)
    assert found.energy.shape == (2,) and found.forces.shape == (12, 3) and found.stress is None
    for atoms, energy in zip(molecules, found.energy, strict=True):
        atoms.calc = ScSchNetCalculator(tmp_path / "model.pt")
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
    ase.io.write(tmp_path / "two.extxyz", molecules)
    for given in (tmp_path / "two.extxyz", from_atoms(molecules)):
        again = scschnet.predict(tmp_path / "model.pt", given)
        assert np.abs(again.energy - found.energy).max() < 1e-6  # a file has eight decimals
    one = scschnet.predict(model, molecules[0], forces=False)
    assert one.energy[0] == pytest.approx(found.energy[0]) and one.forces is None


def test_predict_gives_the_error_bars_of_a_committee():
    members = [make_model(seed=seed) for seed in (0, 1)]
    molecules = [ase.build.molecule("CH3CH2OH"), ase.build.molecule("H2O")]
    found = scschnet.predict(Committee(members, Factors(2.0, 3.0)), molecules)
    one, other = (scschnet.predict(member, molecules) for member in members)
    assert found.energy == pytest.approx((one.energy + other.energy) / 2)
    assert found.energy_std == pytest.approx(2.0 * np.abs(one.energy - other.energy) / 2)
    away = np.linalg.norm(one.forces - other.forces, axis=1) / 2
    assert found.forces_std == pytest.approx(3.0 * away)
    assert one.energy_std is None and one.forces_std is None
    alone = scschnet.predict(Committee(members), molecules, forces=False)
    assert alone.energy_std.shape == (2,) and alone.forces_std is None


def test_predict_refuses_what_the_model_does_not_know():
    with pytest.raises(ValueError, match=r"`structures` must hold only H, C, O.*got N"):
        scschnet.predict(make_model(), ase.build.molecule("NH3"))
    with pytest.raises(TypeError, match="`atoms` must be ASE's Atoms, got int"):
        scschnet.predict(make_model(), [3])


def test_atoms_bring_the_results_of_their_calculators(tmp_path):
    save_checkpoint(tmp_path / "model.pt", Checkpoint(make_model()))
    atoms = ase.build.molecule("H2O")
    assert not from_atoms(atoms).labeled["energy"].any()
    crystal = ase.Atoms("OH", positions=[[0, 0, 0], [1, 0, 0]], cell=[3, 3, 3], pbc=True)
    crystal.calc = ScSchNetCalculator(tmp_path / "model.pt")
    stress = crystal.get_stress(voigt=False)
    found = from_atoms([atoms, crystal])
    assert found.labeled["stress"].tolist() == [False, True]
    assert (
        np.array_equal(found.stress[1], stress)
        and found.energy[1] == crystal.calc.results["energy"]
    )
    assert np.array_equal(found.forces[3:], crystal.calc.results["forces"])


def test_evaluate_gives_the_errors_of_a_set():
    model, some = make_model(), embedded.load().select(np.arange(5))
    found = scschnet.evaluate(model, some)
    assert found == errors_in_detail(predict_set(model, some), some)
    assert {"energy", "forces", "forces_H"} <= set(found)
    with pytest.raises(
        ValueError, match=r"`structures` must hold .*energy.*to compare with, got none"
    ):
        scschnet.evaluate(model, ase.build.molecule("H2O"))
    with pytest.raises(ValueError, match="`structures` must be given with a model"):
        scschnet.evaluate(model)


def test_train_and_evaluate_from_python(tmp_path):
    config = scschnet.TrainConfig(
        n_train=8,
        n_val=2,
        n_test=5,
        n_features=4,
        n_interactions=1,
        n_rbf=6,
        epochs=1,
        out=str(tmp_path / "run"),
    )
    run = scschnet.train(config)
    found = scschnet.evaluate(run.path)
    assert found["energy"].mae == pytest.approx(run.read_test()["energy"]["eV"]["mae"], rel=1e-4)
    assert found["energy"].n == 5


def test_a_preset_is_applied_not_only_named():
    config = TrainConfig.from_preset("md17", epochs=7)
    assert (config.preset, config.epochs, config.n_features) == ("md17", 7, 128)
    for name, value in PRESETS["md17"].items():
        assert name == "epochs" or getattr(config, name) == value
    with pytest.raises(ValueError, match="`preset` must be one of quick, md17"):
        TrainConfig.from_preset("md18")


def test_the_page_about_the_api_has_every_public_name():
    page = (Path(scschnet.__file__).parents[1] / "docs" / "api.md").read_text()
    headings = {name for name in scschnet.__all__ if f"heading: scschnet.{name}" in page}
    assert headings | {"NeighborList"} == set(scschnet.__all__)
