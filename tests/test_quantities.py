"""The table of quantities: whoever has names of its own for them has one for each, and files keep their columns."""

import ast
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import make_model

import scschnet.quantities
from scschnet.commands.data import Reading
from scschnet.commands.evaluate import Options
from scschnet.data import Batch, StructureSet, collate, embedded
from scschnet.data.readers.raw import RawSet
from scschnet.evaluate import Predictions, display_units
from scschnet.quantities import ERRORS, NAMES, ON_DEMAND, QUANTITIES, Error, shown_errors
from scschnet.runs.config import TrainConfig
from scschnet.runs.folder import METRICS_HEADER, EpochMetrics
from scschnet.train.resident import Labels
from scschnet.units import ASE_UNITS, KINDS


def names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


@pytest.mark.parametrize("kind", [StructureSet, RawSet, Batch, Labels, Predictions])
def test_every_quantity_has_a_field(kind):
    assert set(NAMES) <= names(kind)


@pytest.mark.parametrize("kind", [TrainConfig, Options, Reading])
def test_every_quantity_has_an_option_for_its_name_in_files(kind):
    assert {f"{name}_key" for name in NAMES} <= names(kind)


def test_every_quantity_has_a_weight_a_unit_and_errors_in_that_unit():
    assert tuple(TrainConfig().label_weights) == NAMES
    for quantity in QUANTITIES:
        assert ASE_UNITS.of(quantity.name) == quantity.unit
        assert KINDS[quantity.name].factor(quantity.unit) == 1.0
        for units in quantity.errors.values():
            assert next(iter(units.items())) == (quantity.unit, 1.0)


def test_a_model_returns_every_quantity_in_its_shape():
    batch = collate(embedded.load(), [0, 1], 4.0)
    result = make_model()(**batch.inputs, **dict.fromkeys(ON_DEMAND, True))
    for quantity in QUANTITIES:
        rows = len(batch.positions) if quantity.per_atom else len(batch)
        assert result[quantity.name].shape == (rows, *quantity.shape)


def test_what_is_shown_is_one_of_the_errors():
    for per_atom in (False, True):
        assert tuple(shown_errors(per_atom)) == NAMES
        for shown in shown_errors(per_atom).values():
            assert shown.column in METRICS_HEADER
            units = ERRORS[shown.error]
            known = units.get(shown.unit.removesuffix("/atom"))
            assert known is None or known == shown.factor
    assert display_units("forces_H") == display_units("forces") != display_units("energy_per_atom")


def test_columns_of_the_metrics_stay_where_they_are():
    assert [
        *("epoch", "step", "learning_rate", "train_loss", "val_loss"),
        *("val_energy_mae", "val_energy_rmse", "val_forces_mae", "val_forces_rmse", "seconds"),
        *("val_energy_per_atom_mae", "val_energy_per_atom_rmse"),
        *("val_stress_mae", "val_stress_rmse"),
    ] == METRICS_HEADER


def test_errors_find_their_columns():
    found = {"stress": Error(1.0, 2.0, 9), "loss_energy": Error(5.0, 5.0, 1)}
    columns = EpochMetrics(3, 30, 0.1, 0.2, 0.3, 4.0, found).columns()
    assert set(METRICS_HEADER) <= set(columns)
    assert (columns["val_stress_mae"], columns["val_stress_rmse"]) == (1.0, 2.0)
    assert (columns["epoch"], columns["seconds"]) == (3, 4.0)
    assert np.isnan([columns["val_energy_mae"], columns["val_forces_rmse"]]).all()


# Where a quantity is spelled out, and why it cannot come from the table.
SPELLED_OUT = {
    "quantities.py": "the table",
    "properties.py": "names that no property of a head may have",
    "units.py": "ASE's and LAMMPS's kinds of units",
    "calculator.py": "ASE's names of results, and its order of six components",
    "hosts/torch_sim.py": "TorchSim's names of results",
    "hosts/metatomic.py": "metatomic's names of gradients",
    "commands/predict.py": "the results that ASE writes",
    "data/readers/__init__.py": "options of the command line",
    "data/readers/atoms.py": "ASE's names of results, and its order of six components",
    "data/readers/raw.py": "files hold a virial instead of a stress",
    "data/habits.py": "files hold a virial instead of a stress",
    "data/summary.py": "whether stress is consistent with energies, forces and volumes",
    "runs/config.py": "options of the command line",
    "train/setup.py": "the default of the option stress_weight",
    "nn/model.py": "where the model makes it",
    "export/potential.py": "where an exported file makes the virial",
    "export/committee.py": "the deviation of the virial",
    "export/compiled.py": "what a compiled file returns",
    "export/exported.py": "whether the virial is finite",
}


def test_quantities_are_spelled_out_only_where_they_must_be():
    """Data, loss, metrics, progress, evaluation, parity and report take names from the table."""
    package = Path(scschnet.quantities.__file__).parent
    found = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in ("stress", "virial")
    }
    assert found == set(SPELLED_OUT)
