"""The operator for hosts: ghosts with and without a halo against the same cell without ghosts."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from conftest import make_model
from torch import Tensor

import scschnet
from scschnet import ops
from scschnet.neighbors import neighbor_list

CUTOFF = 2.5


class System:
    """A periodic cell whose images beyond its faces are ghosts, or are not there."""

    def __init__(self, model, deep: int = 1, ghosts: bool = True):
        g = np.random.default_rng(3)
        n = 12
        cell = np.array([[4.2, 0, 0], [0.9, 4.0, 0], [0.3, -0.4, 4.4]])
        self.atoms = Atoms("HO" * (n // 2), g.random((n, 3)) @ cell, cell=cell, pbc=True)
        self.n_local, self.model = n, model
        i, j, S, d = neighbor_list("ijSd", self.atoms, CUTOFF)
        self.owner = np.arange(n)
        if not ghosts:
            keep = (i < j) | ((i == j) & (S[:, 0] * 9 + S[:, 1] * 3 + S[:, 2] > 0))
        elif deep == 1:  # ghosts one cutoff deep
            outside = S.any(1)
            images, where = np.unique(np.column_stack([j, S])[outside], axis=0, return_inverse=True)
            j[outside] = n + where
            self.owner = np.append(self.owner, images[:, 0])
            keep = outside | (i < j)
        else:
            i, j, d, keep = self.deep_ghosts(deep)
        self.i, self.j, self.d = (torch.tensor(x[keep]) for x in (i, j, d))
        self.z = torch.tensor(self.atoms.numbers[self.owner]).long()

    def deep_ghosts(self, deep: int):
        """All images within `deep` cutoffs, as atoms of an open structure."""
        i, j, S = neighbor_list("ijS", self.atoms, deep * CUTOFF)
        images = np.unique(np.column_stack([j, S])[S.any(1)], axis=0)
        self.owner = np.append(self.owner, images[:, 0])
        positions = self.atoms.positions[self.owner]
        positions[self.n_local :] += images[:, 1:] @ self.atoms.cell.array
        i, j, d = neighbor_list("ijd", Atoms(np.ones(len(positions)), positions), CUTOFF)
        return i, j, d, i < j

    def evaluate(self, halo: bool, derivatives=True, corrections=True):
        model = self.model
        tables, grid = model.engine.tables(self.d)
        bins, weights = ops.spline_weights(
            self.d,
            grid.step,
            grid.cutoff,
            model.cutoff_function.pieces,
            grid.n_rows,
            2,
            tables.dtype,
        )
        row_ptr = ops.pair_rows(self.i, self.j, len(self.z))
        return ops.schnet_evaluate(
            model.embedding(self.z),
            row_ptr,
            self.j,
            bins,
            weights,
            tables,
            model.contribution_weights,
            model.dense_parameters(),
            self.n_local,
            halo,
            derivatives,
            corrections,
        )

    def pair_sums(self, g_d: Tensor) -> Tensor:
        """Derivatives summed over the pairs of one distance, whatever rows they belong to."""
        _, where = torch.unique(self.d.round(decimals=10), return_inverse=True)
        return torch.zeros(int(where.max()) + 1, dtype=g_d.dtype).index_add(0, where, g_d)


CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int)


class Struct(ctypes.Structure):
    _fields_ = [("context", ctypes.c_void_p), ("forward", CALLBACK), ("reverse", CALLBACK)]


class Halo:
    """Registers a halo for which this process owns all ghosts; counts the calls."""

    def __init__(self, owner: np.ndarray, n_local: int):
        self.owner, self.n_local, self.calls = owner, n_local, []
        self.struct = Struct(None, CALLBACK(self.forward), CALLBACK(self.reverse))
        (folder,) = {
            Path(p) for p in scschnet.__path__ if (Path(p) / "libscschnet_ops.so").exists()
        }
        self.set_halo = ctypes.CDLL(str(folder / "libscschnet_ops.so")).scschnet_set_halo

    def rows(self, pointer: int, width: int, is_double: int) -> np.ndarray:
        number = ctypes.c_double if is_double else ctypes.c_float
        array = (number * (width * len(self.owner))).from_address(pointer)
        return np.frombuffer(array, number).reshape(-1, width)

    def forward(self, _, pointer, width, is_double):
        self.calls.append("forward")
        rows = self.rows(pointer, width, is_double)
        rows[self.n_local :] = rows[self.owner[self.n_local :]]

    def reverse(self, _, pointer, width, is_double):
        self.calls.append("reverse")
        rows = self.rows(pointer, width, is_double)
        np.add.at(rows, self.owner[self.n_local :], rows[self.n_local :].copy())

    def __enter__(self):
        self.set_halo(ctypes.byref(self.struct))
        return self

    def __exit__(self, *_):
        self.set_halo(None)


def model_of(n_interactions: int, dtype=torch.float64):
    torch.manual_seed(5)
    model = make_model(elements=(1, 8), n_features=20, n_interactions=n_interactions, cutoff=CUTOFF)
    return model.to(dtype).requires_grad_(False)


def assert_same(one, other, system_one, system_other, tolerance):
    for a, b in zip(one[:1] + one[2:], other[:1] + other[2:], strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        system_one.pair_sums(one[1]),
        system_other.pair_sums(other[1]),
        rtol=tolerance,
        atol=tolerance,
    )


@pytest.mark.parametrize("n_interactions", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_ghosts_with_a_halo_change_nothing(n_interactions, dtype, tolerance):
    model = model_of(n_interactions, dtype)
    without, with_ghosts = System(model, ghosts=False), System(model)
    with Halo(with_ghosts.owner, with_ghosts.n_local) as halo:
        found = with_ghosts.evaluate(halo=True)
    n = n_interactions - 1
    assert halo.calls == ["forward"] * n + ["reverse"] * n
    assert_same(found, without.evaluate(halo=True), with_ghosts, without, tolerance)


def test_ghosts_deep_enough_need_no_halo():
    model = model_of(2)
    without, deep = System(model, ghosts=False), System(model, deep=2)
    g, g_d, norms, v = deep.evaluate(halo=False)
    expected = without.evaluate(halo=False)
    for a, b in zip((g, norms, v), (expected[0], *expected[2:]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    # E is the sum over local atoms: images of a pair share its derivative
    torch.testing.assert_close(g_d.sum(), expected[1].sum())
    assert len(g) == deep.n_local < len(deep.z)


def test_without_ghosts_it_is_the_operator_of_training():
    model = model_of(3)
    system = System(model, ghosts=False)
    tables, grid = model.engine.tables(system.d)
    bins, weights = ops.spline_weights(
        system.d, grid.step, grid.cutoff, model.cutoff_function.pieces, grid.n_rows, 2, tables.dtype
    )
    row_ptr = ops.pair_rows(system.i, system.j, len(system.z))
    expected = ops.schnet(
        model.embedding(system.z),
        row_ptr,
        system.j,
        bins,
        weights,
        tables,
        model.contribution_weights,
        model.dense_parameters(),
        True,
    )
    found = system.evaluate(halo=False)
    for a, b in zip(found[:3], expected[:3], strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(found[3].norm(dim=2), found[2])


def test_only_what_was_asked_for():
    system = System(model_of(2), ghosts=False)
    g, g_d, _, v = system.evaluate(halo=False, derivatives=False, corrections=False)
    assert g_d.shape == (0,)
    assert v.shape == (0, 0, 0)
    assert torch.equal(g, system.evaluate(halo=False)[0])


def test_ghosts_without_a_registered_halo_are_an_error():
    system = System(model_of(2))
    with pytest.raises(ValueError, match="host has registered no halo"):
        system.evaluate(halo=True)


def test_pairs_of_ghosts_are_an_error_with_a_halo():
    model = model_of(2)
    system = System(model, deep=2)
    with Halo(system.owner, system.n_local), pytest.raises(ValueError, match="`row_ptr` must give"):
        system.evaluate(halo=True)


@pytest.mark.parametrize("n_local", [-1, 13])
def test_number_of_local_atoms_is_checked(n_local):
    system = System(model_of(1), ghosts=False)
    system.n_local = n_local
    with pytest.raises(ValueError, match="`n_local` must lie between 0 and"):
        system.evaluate(halo=True)


def test_pair_rows():
    i, j = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([3, 1, 2, 0, 1])
    assert ops.pair_rows(i, j, 4).tolist() == [0, 2, 2, 5, 5]
    empty = torch.zeros(0, dtype=torch.int64)
    assert ops.pair_rows(empty, empty, 2).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("i", "j", "message"),
    [
        ([1, 0], [0, 1], "`idx_i` must ascend"),
        ([0, 2], [0, 1], "must lie between 0 and the number of atoms, 2"),
        ([0, 1], [0, -1], "must lie between 0 and the number of atoms, 2"),
        ([0], [0, 1], "`idx_j` must have one entry per pair"),
    ],
)
def test_pair_rows_checks(i, j, message):
    with pytest.raises(ValueError, match=message):
        ops.pair_rows(torch.tensor(i), torch.tensor(j), 2)


def test_pair_rows_checks_the_dtype():
    with pytest.raises(TypeError, match="`idx_i` must be int64"):
        ops.pair_rows(torch.tensor([0.0]), torch.tensor([0]), 2)


def test_close_pairs():
    """Against the sentence that says what they are, pair by pair."""
    system = System(model_of(1), ghosts=False)
    row_ptr, index = ops.pair_rows(system.i, system.j, len(system.z)), torch.zeros(120).long()
    elements = system.z.unique()
    index[elements] = torch.arange(len(elements))
    ranges = torch.linspace(1.0, 3.0, len(elements) ** 2, dtype=torch.float64)
    ranges = ranges.view(len(elements), -1)
    ranges = 0.5 * (ranges + ranges.T)
    near, i, j = ops.close_pairs(system.d, row_ptr, system.j, system.z, index, ranges)
    pairs = list(zip(system.i.tolist(), system.j.tolist(), system.d.tolist(), strict=True))
    z = index[system.z]
    expected = [p for p, (a, b, d) in enumerate(pairs) if d < ranges[z[a], z[b]]]
    assert 0 < len(expected) < len(pairs) and near.tolist() == expected
    assert torch.equal(i, system.i[near]) and torch.equal(j, system.j[near])
    arguments = (system.d[:0], torch.zeros_like(row_ptr), system.j[:0], system.z, index, ranges)
    assert [len(found) for found in ops.close_pairs(*arguments)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("at", "wrong", "message"),
    [
        (0, torch.ones(2, dtype=torch.float64), "`row_ptr` must ascend from 0 to the number of"),
        (2, torch.tensor([2]), "`idx_j` must lie between 0 and 1, got 2"),
        (3, torch.tensor([0, 9]), "`atomic_numbers` must lie between 0 and 1, got 9"),
        (4, torch.tensor([0, 1]), "`index` must lie between 0 and 0, got 1"),
        (5, torch.ones(1, 2, dtype=torch.float64), "`ranges` must have shape"),
    ],
)
def test_close_pairs_checks(at, wrong, message):
    d = torch.ones(1, dtype=torch.float64)
    right = [d, torch.tensor([0, 1, 1]), torch.tensor([1]), torch.tensor([0, 1])]
    right += [torch.tensor([0, 0]), 2 * d[:, None]]
    assert [found.tolist() for found in ops.close_pairs(*right)] == [[0], [0], [1]]
    right[at] = wrong
    if at == 0:
        right[2] = torch.tensor([1, 1])
    with pytest.raises(ValueError, match=message):
        ops.close_pairs(*right)


def test_operators_follow_their_declarations():
    system = System(model_of(2), ghosts=False)
    model = system.model
    tables, grid = model.engine.tables(system.d)
    bins, weights = ops.spline_weights(
        system.d, grid.step, grid.cutoff, model.cutoff_function.pieces, grid.n_rows, 2, tables.dtype
    )
    row_ptr = ops.pair_rows(system.i, system.j, len(system.z))
    arguments = (
        *(model.embedding(system.z), row_ptr, system.j, bins, weights, tables),
        *(model.contribution_weights, model.dense_parameters(), system.n_local, True, True, True),
    )
    torch.library.opcheck(torch.ops.scschnet.schnet_evaluate.default, arguments)
    torch.library.opcheck(torch.ops.scschnet.pair_rows.default, (system.i, system.j, 12))
