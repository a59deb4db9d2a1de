"""The table of quantities: whoever has names of its own for them has one for each, and files keep their columns."""

from dataclasses import fields

import numpy as np
import pytest
from conftest import make_model

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
