"""What every radial basis and cutoff function must fulfil, and that a new one needs nothing but itself."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import make_model
from torch import Tensor

from scschnet import ops
from scschnet.data import collate
from scschnet.nn.basis import RADIAL_BASES, RadialBasis, RadialBasisName
from scschnet.nn.cutoff import CUTOFF_FUNCTIONS, CutoffFunction, CutoffFunctionName
from scschnet.nn.filter import FilterGenerator
from scschnet.nn.filter_table import TOLERANCE, FilterGrid, accurate_grid, grid_step, table_nodes

CUTOFF = 5.0


class Mollifier(CutoffFunction):
    """exp(1 - 1 / (1 - (d / cutoff)^2)), infinitely smooth and not analytic at the cutoff."""

    def value(self, d_ij: Tensor) -> Tensor:
        return torch.exp(1.0 - 1.0 / (1.0 - (d_ij / self.cutoff).square()))


class Switch(CutoffFunction):
    """One up to 3.1 Å, then a polynomial: defined by parts."""

    def value(self, d_ij: Tensor) -> Tensor:
        t = ((d_ij - 3.1) / (self.cutoff - 3.1)).clamp(0.0, 1.0)
        return 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t.square())


class Jump(CutoffFunction):
    def value(self, d_ij: Tensor) -> Tensor:
        return (d_ij < 2.03).to(d_ij.dtype)


class Lorentzians(RadialBasis):
    """A basis of its own, as a user would add it."""

    def __init__(self, n_rbf: int, rbf_range: float) -> None:
        super().__init__(width=rbf_range / n_rbf, reach=math.inf)
        self.register_buffer("centers", torch.linspace(0, rbf_range, n_rbf).double(), False)

    def forward(self, d_ij: Tensor) -> Tensor:
        x = (d_ij[:, None] - self.centers.to(d_ij.dtype)) / self.width
        return 1.0 / (1.0 + x.square())


class Trainable(Lorentzians):
    def __init__(self, n_rbf: int, rbf_range: float) -> None:
        super().__init__(n_rbf, rbf_range)
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, d_ij: Tensor) -> Tensor:
        return self.factor * super().forward(d_ij)


def test_names_are_those_of_the_registries():
    assert set(get_args(RadialBasisName)) == set(RADIAL_BASES)
    assert set(get_args(CutoffFunctionName)) == set(CUTOFF_FUNCTIONS)


@pytest.mark.parametrize("basis", [*RADIAL_BASES.values(), Lorentzians])
@pytest.mark.parametrize(("n_rbf", "range_"), [(2, 1.5), (20, CUTOFF), (50, CUTOFF)])
def test_a_radial_basis_can_be_tabulated(basis, n_rbf, range_):
    """Finite on all nodes of a table, and so smooth that tables reach their accuracy; differentiable twice."""
    made = basis(n_rbf, range_)
    nodes = table_nodes(made, FilterGrid(grid_step(made.width), CUTOFF), torch.device("cpu"))
    assert nodes.rbf.dtype == torch.float64 and nodes.rbf.shape[1] == n_rbf
    assert nodes.rbf.isfinite().all()
    torch.manual_seed(0)
    generators = [FilterGenerator(n_rbf, 16).double() for _ in range(2)]
    _, error = accurate_grid(generators, made, CUTOFF, torch.float32)
    assert error <= TOLERANCE
    d = torch.tensor([0.3, 1.1, 2.7, 4.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(made, d)
    assert torch.autograd.gradgradcheck(made, d)
    assert made(d.float()).dtype == torch.float32
    assert not made.state_dict() and not list(made.parameters())


def test_the_bessel_basis_is_the_published_one():
    d = np.array([1e-9, 0.7, 2.0, 4.9])
    n = np.arange(1, 9)
    expected = np.sqrt(2 / CUTOFF) * np.sin(n * np.pi * d[:, None] / CUTOFF) / d[:, None]
    got = RADIAL_BASES["bessel"](8, CUTOFF)(torch.tensor([0.0, *d[1:]], dtype=torch.float64))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-15)


def test_a_basis_that_is_trained_is_refused():
    with pytest.raises(
        ValueError, match=r"must have no trainable parameters.*; Trainable has some"
    ):
        table_nodes(Trainable(4, CUTOFF), FilterGrid(0.25, CUTOFF), torch.device("cpu"))


@pytest.mark.parametrize("function", [*CUTOFF_FUNCTIONS.values(), Mollifier, Switch])
@pytest.mark.parametrize("cutoff", [2.9, CUTOFF])
def test_a_cutoff_function_is_what_the_operators_evaluate(function, cutoff):
    """Value and slope from the pieces equal the Python function; zero beyond the cutoff, in both."""
    if function is Switch and cutoff < 3.1:
        pytest.skip("begins beyond the cutoff")
    made = function(cutoff)
    assert made.pieces.dtype == torch.float64
    rng = np.random.default_rng(0)
    inside = rng.uniform(0, cutoff, 500)
    d = torch.tensor([0.0, *inside, math.nextafter(cutoff, 0), cutoff, 7.0], requires_grad=True)
    d = d.detach().double().requires_grad_()
    n_rows = FilterGrid(0.25, cutoff).n_rows
    _, weights = ops.spline_weights(d.detach(), 0.25, cutoff, made.pieces, n_rows, 2, torch.float64)
    value, slope = weights.sum(dim=2)  # the table of the filter one
    expected = made(d) + 0 * d
    (expected_slope,) = torch.autograd.grad(expected.sum(), d)
    tolerance = 1e-9 if function is Switch else 1e-13  # on the piece with the kink
    torch.testing.assert_close(value, expected.detach(), rtol=0, atol=tolerance)
    torch.testing.assert_close(slope, expected_slope, rtol=0, atol=1e3 * tolerance)
    assert not value[d >= cutoff].any() and not slope[d >= cutoff].any()
    if made.smooth:
        assert abs(float(value[-3])) < 1e-12 and abs(float(slope[-3])) < 1e-10
    assert made(d.detach().float()).dtype == torch.float32
    assert not made.state_dict() and not list(made.parameters())
    moved = made.to(torch.float32)
    assert moved.pieces.dtype == torch.float64


def test_a_cutoff_function_with_a_jump_is_refused():
    with pytest.raises(ValueError, match="must be smooth below the cutoff, got Jump"):
        Jump(CUTOFF)


def test_names_of_files_exported_before_are_understood():
    """Files before version 0.2 hand the name of a cutoff function to the operator."""
    d = torch.linspace(0, 6, 200, dtype=torch.float64)
    for name in ("cosine", "none"):
        pieces = CUTOFF_FUNCTIONS[name](CUTOFF).pieces
        for dtype in (torch.float32, torch.float64):
            now = ops.spline_weights(d, 0.25, CUTOFF, pieces, 26, 2, dtype)
            before = torch.ops.scschnet.spline_weights(d, 0.25, CUTOFF, name, 26, 2, dtype)
            assert torch.equal(now[0], before[0])
            torch.testing.assert_close(
                now[1], before[1], rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=1e-13
            )
    with pytest.raises(ValueError, match="`cutoff_function` must be one of cosine, none, got tanh"):
        torch.ops.scschnet.spline_weights(d, 0.25, CUTOFF, "tanh", 26, 2, torch.float64)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(RADIAL_BASES, "lorentzians", Lorentzians)
    monkeypatch.setitem(CUTOFF_FUNCTIONS, "mollifier", Mollifier)


@pytest.mark.parametrize(
    ("basis", "function"),
    [("bessel", "cosine"), ("gaussian", "none"), ("lorentzians", "mollifier")],
)
def test_every_evaluation_agrees(registered, structures, basis, function):
    """Dense and tabulated filters, the fused operator and the composed network, for bases and functions of any kind."""
    config = {"cutoff_function": function, "radial_basis": basis, "n_rbf": 7}
    model = make_model(filters="spline", **config)
    model.refine_filters()
    batch = collate(structures, np.arange(len(structures)), 4.0).inputs
    with torch.no_grad():
        fused = model(**batch, stress=True)
    moved = batch | {"positions": batch["positions"].clone().requires_grad_()}
    composed = model(**moved, stress=True)
    with torch.no_grad():
        dense = make_model(filters="dense", **config)(**batch, stress=True)
    for key in ("energies", "forces"):
        scale = float((dense[key] - dense[key].mean()).abs().max())
        torch.testing.assert_close(fused[key], composed[key].detach(), rtol=0, atol=1e-12 * scale)
        torch.testing.assert_close(fused[key], dense[key].detach(), rtol=0, atol=2e-6 * scale)
