"""Operators that only files exported by earlier versions call, and such a file; `spline_weights` is in test_seams.py."""

from pathlib import Path

import pytest
import torch
from conftest import make_structures
from test_schnet_op import Case
from test_schnet_packed import arguments_of, pack

from scschnet import ops
from scschnet.export import load_exported

FILE = Path(__file__).parents[1] / "golden" / "exported_0.2.0.pt"
# Energy, and the sums of squares of forces and virial, of the structures of conftest, as version 0.2.0 evaluated it.
EXPECTED = (
    (-4125.207207345936, 0.001873084517147224, 0.0007646170390764593),
    (-4089.13318531131, 0.0004751615373607603, 0.0033070652477902407),
    (-2075.4722937288197, 0.000661874682027858, 0.0010879063869306327),
    (-3123.4873947647957, 0.01882239573611865, 0.017027930989824688),
    (-1032.5688641413035, 0.0, 0.0),
)
OPS = torch.ops.scschnet


def test_a_file_of_version_0_2_0_gives_what_it_gave():
    model = load_exported(FILE)
    structures = make_structures()
    for k, expected in enumerate(EXPECTED):
        s = structures.select([k])
        arrays = (s.positions, s.atomic_numbers, s.cells[0], s.pbc[0])
        result = model.forward(*(torch.tensor(array) for array in arrays))
        found = (result["energy"], *(result[name].square().sum() for name in ("forces", "virial")))
        assert [float(value) for value in found] == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_packed_weights_that_were_not_optional(dtype):
    arguments = arguments_of(Case(), dtype)
    packed, how = pack(arguments), (len(arguments[0]) - 2, False, True, True)
    found = OPS.schnet_evaluate_packed(*arguments, packed, *how)
    for one, other in zip(found, ops.schnet_evaluate(*arguments, *how, packed), strict=True):
        assert torch.equal(one, other)
