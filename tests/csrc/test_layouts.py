"""The same numbers in another layout of memory give the same bits, or an error that says what is wrong.

Wrong forces from inputs that are not contiguous are a bug that other programs had: an operator that reads past strides
computes something, of the right shape and size.
"""

import ase
import numpy as np
import pytest
import torch
from conftest import make_model, make_structures
from operator_arguments import operators
from torch import Tensor

import scschnet
from scschnet.data import StructureSet, collate
from scschnet.export import load_exported

OPERATORS = {
    f"{name}-{str(dtype).removeprefix('torch.')}": found
    for dtype in (torch.float64, torch.float32)
    for name, found in operators(dtype).items()
}


def strided(t: Tensor) -> Tensor:
    """Every other number along the first axis; what lies between is wrong."""
    wide = torch.full((2 * len(t), *t.shape[1:]), 10**9 if t.dtype != torch.bool else 1).to(t.dtype)
    wide[::2] = t
    return wide[::2]


def transposed(t: Tensor) -> Tensor:
    """As Fortran has it: the first axis runs fastest."""
    axes = tuple(reversed(range(t.dim())))
    return t.permute(axes).contiguous().permute(axes)


def shifted(t: Tensor) -> Tensor:
    """Contiguous, but aligned to one number."""
    wide = t.new_zeros(t.numel() + 1)
    wide[1:] = t.flatten()
    return wide[1:].view(t.shape)


def sliced(t: Tensor) -> Tensor:
    """Columns of a wider matrix."""
    wide = t.new_ones((*t.shape[:-1], t.shape[-1] + 3))
    wide[..., 2:-1] = t
    return wide[..., 2:-1]


def expanded(t: Tensor) -> Tensor:
    """One row for all: with strides of zero."""
    return t[:1].expand(t.shape)


LAYOUTS = (strided, transposed, shifted, sliced, expanded)


def outcome(operator, arguments) -> list:
    """The bits of the results, or the error."""
    try:
        found = operator(*arguments)
    except (ValueError, TypeError) as error:
        return [str(error)]
    parts = found if isinstance(found, tuple | list) else [found]
    if operator is torch.ops.scschnet.schnet:
        parts = parts[:4]  # the state has gaps of no meaning
    flat = [t for part in parts for t in (part if isinstance(part, list) else [part])]
    return [t.contiguous().numpy().tobytes() for t in flat]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name, layout):
    operator, right = OPERATORS[name]
    tried = 0
    for k, value in enumerate(right):
        if isinstance(value, Tensor) and value.dim():
            other = layout(value)
        elif isinstance(value, list):
            other = [layout(t) for t in value]
        else:
            continue
        same = [t.contiguous() for t in other] if isinstance(other, list) else other.contiguous()
        expected = outcome(operator, [*right[:k], same, *right[k + 1 :]])
        found = outcome(operator, [*right[:k], other, *right[k + 1 :]])
        refused = len(found) == 1 and isinstance(found[0], str) and "contiguous" in found[0]
        assert found == expected or refused, f"argument {k}"
        tried += 1
    assert tried


def in_other_layouts(array: np.ndarray):
    """Copies of an array: Fortran's order, strided, backwards, read-only, of other bytes' order."""
    backwards = array[::-1].copy()[::-1]
    read_only = array.copy()
    read_only.flags.writeable = False
    wide = np.repeat(array, 2, axis=0)
    wide[1::2] = 1
    yield from (np.asfortranarray(array), wide[::2], backwards, read_only)
    yield array.astype(array.dtype.newbyteorder(">"))


@pytest.fixture(scope="module")
def crystal() -> ase.Atoms:
    one = make_structures().select([0])
    return ase.Atoms(one.atomic_numbers, one.positions, cell=one.cells[0], pbc=True)


@pytest.fixture(scope="module")
def model():
    return make_model(filters="spline").eval().requires_grad_(False)


def test_neighbor_list(crystal):
    given = {"positions": crystal.positions, "cell": crystal.cell.array, "pbc": crystal.pbc}
    expected = scschnet.neighbor_list("ijdDS", cutoff=6.0, **given)
    assert len(expected[0]) > 50
    for name in given:
        for other in in_other_layouts(given[name]):
            found = scschnet.neighbor_list("ijdDS", cutoff=6.0, **given | {name: other})
            for one, two in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, two)


def test_batch(model):
    structures = make_structures()
    names = ("positions", "atomic_numbers", "atom_ptr", "cells", "pbc")
    given = {name: getattr(structures, name) for name in names}
    expected = model(**collate(structures, range(5), 4.0).inputs)["forces"]
    for name in given:
        for other in in_other_layouts(given[name]):
            batch = collate(StructureSet(**given | {name: other}), range(5), 4.0)
            assert torch.equal(model(**batch.inputs)["forces"], expected)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_calculator(model, crystal):
    expected = crystal.copy()
    expected.calc = scschnet.ScSchNetCalculator(model)
    for name in ("positions", "numbers", "cell"):
        array = crystal.cell.array if name == "cell" else crystal.arrays[name]
        for other in in_other_layouts(array):
            atoms = crystal.copy()
            if name == "cell":
                atoms.cell.array = other
            else:
                atoms.arrays[name] = other
            atoms.calc = scschnet.ScSchNetCalculator(model)
            if name == "positions" and not other.dtype.isnative:
                with pytest.raises(ValueError, match="byte order"):
                    atoms.get_potential_energy()
                continue
            assert atoms.get_potential_energy() == expected.get_potential_energy()
            np.testing.assert_array_equal(atoms.get_forces(), expected.get_forces())
            np.testing.assert_array_equal(atoms.get_stress(), expected.get_stress())


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS[:4], ids=lambda f: f.__name__)
def test_exported_file(tmp_path, model, crystal, layout, portable):
    scschnet.export(model, tmp_path / "m.pt", portable=portable)
    file = load_exported(tmp_path / "m.pt")
    z, r = torch.tensor(crystal.numbers), torch.tensor(crystal.positions)
    of_cell = [r, z, torch.tensor(crystal.cell.array), torch.tensor(crystal.pbc)]
    i, j = torch.triu_indices(len(z), len(z), 1)
    of_pairs = [z, i.contiguous(), j.contiguous(), r[j] - r[i]]
    for call, given, rest in (
        (file.forward, of_cell, (True, True)),
        (file.forward_pairs, of_pairs, (len(z), False, True, True)),
    ):
        expected = call(*given, *rest)
        for k in range(4):
            found = call(*given[:k], layout(given[k]), *given[k + 1 :], *rest)
            assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("filters", ["dense", "spline"])
@pytest.mark.parametrize("layout", LAYOUTS[:4], ids=lambda f: f.__name__)
def test_model(filters, layout):
    """Parameters, too: a state may be loaded into a model that was made of views."""
    model = make_model(filters=filters).eval().requires_grad_(False)
    inputs = collate(make_structures(), range(5), 4.0).inputs
    expected = model(**inputs, stress=True)
    for name in inputs:
        found = model(**inputs | {name: layout(inputs[name])}, stress=True)
        assert torch.equal(found["forces"], expected["forces"]), name
        assert torch.equal(found["energy"], expected["energy"]), name
    for parameter in model.parameters():
        parameter.data = layout(parameter.data)
    found = model(**inputs, stress=True)
    torch.testing.assert_close(found["forces"], expected["forces"], rtol=1e-12, atol=1e-12)
