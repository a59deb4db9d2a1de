"""Filter tables: accuracy against the networks, gradients, the choice of the grid, errors."""

import math

import pytest
import torch

from scschnet import ops
from scschnet.nn.activation import shifted_softplus
from scschnet.nn.basis import GaussianBasis
from scschnet.nn.cutoff import CUTOFF_FUNCTIONS
from scschnet.nn.filter import FilterGenerator
from scschnet.nn.filter_table import (
    PREFILTER_ORDER,
    TOLERANCE,
    FilterGrid,
    accurate_grid,
    filter_tables,
    grid_step,
    prefilter_taps,
    table_errors,
)

CUTOFF = 5.0


def generators(n_rbf, scale=1.0, n_filters=32, n_blocks=2, seed=0):
    """Filter generators with random biases too, in float64."""
    torch.manual_seed(seed)
    made = [FilterGenerator(n_rbf, n_filters).double() for _ in range(n_blocks)]
    for parameter in [p for g in made for p in g.parameters()]:
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, -0.5, 0.5)
        parameter.data *= scale
    return made


def evaluate(table, d, grid, cutoff_function="none", order=0):
    """The tabulated filters at distances, in float64."""
    pieces = CUTOFF_FUNCTIONS[cutoff_function](grid.cutoff).pieces
    bins, weights = ops.spline_weights(
        d, grid.step, grid.cutoff, pieces, grid.n_rows, order + 1, torch.float64
    )
    rows = table.double()[bins[:, None] + torch.arange(6)]
    return (weights[order].unsqueeze(2) * rows).sum(1)


@pytest.mark.parametrize("n_rbf", [25, 50])
@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tables_are_as_accurate_as_the_dense_network(n_rbf, scale, dtype):
    """The target is 2e-6 of the derivative; the dense network in float32 has 1e-6."""
    basis = GaussianBasis(n_rbf, CUTOFF)
    nets = generators(n_rbf, scale)
    grid = FilterGrid(grid_step(basis.width), CUTOFF)
    tables = filter_tables(nets, basis, grid, dtype)
    assert tables.dtype == dtype and tables.shape == (2, grid.n_rows, 32)
    errors = table_errors(tables, nets, basis, grid)
    assert (errors[:, 1] < TOLERANCE).all()
    assert (errors[:, 0] < 5e-8).all()  # W, in units of W' 1 Å


def test_the_error_measured_is_the_error():
    """`table_errors` against autograd on other points."""
    basis, nets = GaussianBasis(25, CUTOFF), generators(25, 8.0)
    grid = FilterGrid(2 * grid_step(basis.width), CUTOFF)
    tables = filter_tables(nets, basis, grid, torch.float64)
    d = torch.linspace(0.0, CUTOFF - 1e-9, 1500, dtype=torch.float64, requires_grad=True)
    for net, table, error in zip(
        nets, tables, table_errors(tables, nets, basis, grid), strict=True
    ):
        value = net(basis(d))
        slope = torch.stack(
            [torch.autograd.grad(value[:, f].sum(), d, retain_graph=True)[0] for f in range(32)], 1
        )
        rms = slope.square().mean().sqrt()
        off = [(evaluate(table, d, grid) - value), (evaluate(table, d, grid, order=1) - slope)]
        expected = torch.stack([(o.square().mean().sqrt() / rms).detach() for o in off])
        assert torch.allclose(error, expected, rtol=0.1)


def test_the_cutoff_stays_outside_the_table():
    basis, (net,) = GaussianBasis(20, CUTOFF), generators(20, n_blocks=1)
    grid = FilterGrid(grid_step(basis.width), CUTOFF)
    d = torch.tensor([0.7, 3.3, 4.9999, CUTOFF], dtype=torch.float64)
    got = evaluate(filter_tables([net], basis, grid, torch.float64)[0], d, grid, "cosine").detach()
    expected = (net(basis(d)) * CUTOFF_FUNCTIONS["cosine"](CUTOFF)(d)[:, None]).detach()
    assert torch.allclose(got, expected, atol=1e-8)
    assert not got[-1].any()


def composed_tables(nets, basis, grid):
    """The tables from torch's own operations, in float64."""
    nodes = torch.arange(-6, grid.n_rows + 2, dtype=torch.float64) * grid.step
    taps = prefilter_taps(PREFILTER_ORDER)
    tables = []
    for net in nets:
        samples = shifted_softplus(net.hidden(basis(nodes)))
        coefficients = sum(
            taps[abs(s)] * samples[4 + s : 4 + s + grid.n_rows] for s in range(-4, 5)
        )
        tables.append(net.output(coefficients))
    return torch.stack(tables)


@pytest.mark.parametrize(("n_rbf", "n_filters"), [(7, 1), (20, 13), (25, 64), (50, 80)])
def test_tables_match_torchs_own_operations(n_rbf, n_filters):
    basis, nets = GaussianBasis(n_rbf, CUTOFF), generators(n_rbf, 5.0, n_filters, 3)
    grid = FilterGrid(2**-4, CUTOFF)
    expected = composed_tables(nets, basis, grid)
    tables = filter_tables(nets, basis, grid, torch.float64)
    assert torch.allclose(tables, expected, rtol=1e-13, atol=1e-13)
    bar = torch.randn_like(expected)
    parameters = [p for g in nets for p in g.parameters()]
    exact = torch.autograd.grad(expected, parameters, bar)
    for a, b in zip(exact, torch.autograd.grad(tables, parameters, bar), strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-11 * float(a.abs().max()))


def test_large_and_small_arguments_of_the_activation():
    """The network's own hidden layer is 0 or far from it."""
    basis, (net,) = GaussianBasis(4, 2.0), generators(4, 1.0, 9, 1)
    values = [0.0, 1e-300, -1e-9, 1e-3, -40.0, 40.0, -800.0, 800.0, -1e6]
    net.hidden.weight.data.zero_()
    net.hidden.bias.data = torch.tensor(values, dtype=torch.float64)
    net.output.weight.data = torch.eye(9, dtype=torch.float64)
    net.output.bias.data.zero_()
    grid = FilterGrid(0.25, 2.0)
    tables = filter_tables([net], basis, grid, torch.float64)
    expected = shifted_softplus(net.hidden.bias).detach()
    assert torch.allclose(tables[0].detach(), expected.expand_as(tables[0]), rtol=1e-14, atol=1e-15)
    tables.sum().backward()
    slope = torch.sigmoid(net.hidden.bias.detach()) * grid.n_rows
    assert torch.allclose(net.hidden.bias.grad, slope, rtol=1e-13, atol=1e-300)


def test_coefficients_reproduce_polynomials():
    """The prefilter of order 4 is exact to degree 9, the quintic spline to degree 5."""
    x = torch.arange(-6.0, 30.0, dtype=torch.float64) / 16
    grid = FilterGrid(1 / 16, 1.0)
    samples = torch.stack([x**5 - x**2, 3 * x**4 + 1, x**3, x, torch.ones_like(x)], 1)
    taps = prefilter_taps(PREFILTER_ORDER)
    n_rows = len(x) - 2 * PREFILTER_ORDER
    table = sum(taps[abs(s)] * samples[4 + s : 4 + s + n_rows] for s in range(-4, 5))
    d = torch.linspace(0, 1, 37, dtype=torch.float64)[:-1]
    expected = torch.stack([d**5 - d**2, 3 * d**4 + 1, d**3, d, torch.ones_like(d)], 1)
    assert torch.allclose(evaluate(table, d, grid), expected, atol=1e-13)


def test_prefilter_taps():
    # Schoenberg's expansion, computed apart from this code with 12 digits.
    assert prefilter_taps(3) == pytest.approx(
        [2.054166666667, -0.638541666667, 0.122916666667, -0.011458333333], abs=1e-12
    )
    assert prefilter_taps(4) == pytest.approx(
        [2.223090277778, -0.773680555556, 0.190486111111, -0.030763888889, 0.002413194444],
        abs=1e-12,
    )
    for order in range(7):
        taps = prefilter_taps(order)
        assert taps[0] + 2 * sum(taps[1:]) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("n_filters", [3, 8])
def test_gradients_reach_the_filter_weights(n_filters):
    basis, nets = GaussianBasis(4, 2.0), generators(4, n_filters=n_filters)
    grid = FilterGrid(0.25, 2.0)
    parameters = tuple(p for g in nets for p in g.parameters())

    def tables(*_):
        return filter_tables(nets, basis, grid, torch.float64)

    assert torch.autograd.gradcheck(tables, parameters)
    assert torch.autograd.gradgradcheck(tables, parameters)


def test_gradients_in_float32_are_those_of_float64():
    basis = GaussianBasis(25, CUTOFF)
    nets = generators(25)
    grid = FilterGrid(grid_step(basis.width), CUTOFF)
    bar = torch.randn(2, grid.n_rows, 32, dtype=torch.float64)
    parameters = [p for g in nets for p in g.parameters()]
    exact = torch.autograd.grad(filter_tables(nets, basis, grid, torch.float64), parameters, bar)
    for net in nets:
        net.float()
    parameters = [p for g in nets for p in g.parameters()]
    tables = filter_tables(nets, basis, grid, torch.float32)
    for a, b in zip(exact, torch.autograd.grad(tables, parameters, bar.float()), strict=True):
        assert b.dtype == torch.float32
        assert (a - b).abs().max() < 3e-6 * a.abs().max()


def test_a_grid_is_found_and_refined():
    basis = GaussianBasis(50, CUTOFF)
    for scale, refinements in ((1.0, 0), (5.0, 0), (20.0, 2)):
        grid, error = accurate_grid(generators(50, scale), basis, CUTOFF, torch.float32)
        assert grid.step == grid_step(basis.width) / 2**refinements
        assert error < TOLERANCE


def test_filters_too_steep_for_tables_are_refused():
    with pytest.raises(ValueError, match="no table reaches `tolerance` 2e-06, the best is off by"):
        accurate_grid(generators(25, 500.0), GaussianBasis(25, CUTOFF), CUTOFF, torch.float32)
    with pytest.raises(ValueError, match="no table reaches `tolerance` 1e-12"):
        accurate_grid(
            generators(25), GaussianBasis(25, CUTOFF), CUTOFF, torch.float32, tolerance=1e-12
        )


@pytest.mark.parametrize(
    ("width", "step"), [(0.1020408, 2**-6), (0.2083333, 2**-5), (0.09, 2**-7), (6.0, 1.0)]
)
def test_grid_step_is_a_power_of_two_below_a_sixth_of_the_width(width, step):
    assert grid_step(width) == step
    assert width / 12 < grid_step(width) <= width / 6


def test_a_grid_serves_every_distance_up_to_the_cutoff():
    for cutoff in (5.0, 4.999, 0.3):
        grid = FilterGrid(0.25, cutoff)
        d = torch.tensor([0.0, math.nextafter(cutoff, 0.0), cutoff], dtype=torch.float64)
        ops.spline_weights(
            d, 0.25, cutoff, torch.ones(1, 1).double(), grid.n_rows, 1, torch.float64
        )
    assert FilterGrid(0.25, 5.0).refined == FilterGrid(0.125, 5.0)


@pytest.mark.parametrize("step", [0.3, 0.0, -0.5, math.inf, math.nan])
def test_step_must_be_a_power_of_two(step):
    with pytest.raises(ValueError, match="`step` must be a power of two, got"):
        FilterGrid(step, CUTOFF)


def test_opcheck_and_bits():
    basis, nets = GaussianBasis(5, 2.0), generators(5, n_filters=3)
    parameters = [p for g in nets for p in g.parameters()]
    rbf = basis(torch.arange(-6, 20, dtype=torch.float64) * 0.25)
    taps = torch.tensor(prefilter_taps(PREFILTER_ORDER), dtype=torch.float64)
    torch.library.opcheck(torch.ops.scschnet.filter_tables, (rbf, taps, parameters))
    once = ops.filter_tables(rbf, taps, parameters)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        threaded = ops.filter_tables(rbf, taps, parameters)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(once, threaded)


def test_errors_of_the_operator():
    rbf, taps = torch.ones(20, 5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    good = [torch.ones(3, 5), torch.ones(3), torch.ones(3, 3), torch.ones(3)]

    def changed(k, tensor):
        return [*good[:k], tensor, *good[k + 1 :]]

    assert ops.filter_tables(rbf, taps, good).shape == (1, 12, 3)
    for error, message, arguments in [
        (ValueError, "`rbf` must have shape", (rbf.float(), taps, good)),
        (ValueError, "`rbf` must have more than 8 nodes, got 8", (rbf[:8], taps, good)),
        (ValueError, "`prefilter` must hold 5 float64", (rbf, taps[1:], good)),
        (ValueError, "`parameters` must hold four tensors per block, got 3", (rbf, taps, good[1:])),
        (ValueError, "`parameters` must hold four tensors per block, got 0", (rbf, taps, [])),
        (TypeError, "`parameters` must be float32 or float64", (rbf, taps, changed(0, good[0].half()))),
        (ValueError, r"`parameters\[0\]` must have 5 inputs", (rbf, taps, changed(0, torch.ones(3, 4)))),
        (TypeError, r"`parameters\[3\]` must have the dtype", (rbf, taps, changed(3, good[3].double()))),
        (ValueError, r"`parameters\[1\]` must fit 3 filters", (rbf, taps, changed(1, torch.ones(4)))),
        (ValueError, r"`parameters\[2\]` must fit 3 filters", (rbf, taps, changed(2, torch.ones(3, 2)))),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            ops.filter_tables(*arguments)


def test_errors():
    with pytest.raises(ValueError, match=r"`cutoff` must be positive and finite, got -1\.0"):
        FilterGrid(0.25, -1.0)
    with pytest.raises(ValueError, match=r"`width` must be positive and finite, got 0\.0"):
        grid_step(0.0)
    basis, grid = GaussianBasis(5, 2.0), FilterGrid(0.25, 2.0)
    with pytest.raises(ValueError, match="`generators` must not be empty"):
        filter_tables([], basis, grid, torch.float64)
    with pytest.raises(ValueError, match="`generators` must have one shape"):
        filter_tables([FilterGenerator(5, 3), FilterGenerator(5, 4)], basis, grid, torch.float64)
