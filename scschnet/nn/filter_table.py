"""Filters as tables: quintic B-splines through the filters of all blocks on a grid of distances.

docs/derivation.md derives the splines, their prefilter, and how fine the grid must be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

from scschnet import ops
from scschnet.nn.activation import shifted_softplus
from scschnet.nn.basis import RadialBasis
from scschnet.nn.filter import FilterGenerator

PREFILTER_ORDER = 4
"""Nodes on each side that enter the coefficient of one node."""

TOLERANCE = 2e-6
"""The largest error of a table that is accepted, see `table_errors`; dense filters in float32 are off by 1e-6."""


@dataclass(frozen=True)
class FilterGrid:
    """The uniform grid of distances of a filter table; row k of the table belongs to the node (k - 2) step.

    Args:
        step: distance between nodes, Å, a power of two, so that d / step is exact.
        cutoff: largest distance that a table serves, Å.
    """

    step: float
    cutoff: float

    def __post_init__(self) -> None:
        if not 0.0 < self.cutoff < math.inf:
            raise ValueError(f"`cutoff` must be positive and finite, got {self.cutoff}")
        if not 0.0 < self.step < math.inf or math.frexp(self.step)[0] != 0.5:
            raise ValueError(f"`step` must be a power of two, got {self.step}")

    @property
    def n_rows(self) -> int:
        """Rows of a table, so that all distances up to the cutoff find the six rows that they read."""
        return math.floor(self.cutoff / self.step) + 6

    @property
    def refined(self) -> "FilterGrid":
        """The grid with half the step."""
        return FilterGrid(self.step / 2, self.cutoff)


@dataclass(frozen=True, eq=False)
class TableNodes:
    """The part of filter tables that does not depend on parameters: it stays valid as long as grid and basis do.

    Args:
        grid: grid of distances.
        rbf: radial basis on the nodes of the grid and some on each side of it, (n_nodes, n_rbf) float64.
        prefilter: weights from samples to coefficients, from the center outward, float64.
    """

    grid: FilterGrid
    rbf: Tensor
    prefilter: Tensor


def grid_step(width: float) -> float:
    """The largest power of two that resolves a radial basis.

    A sixth of the width is fine enough: the derivative of the filters is then off by 5e-7 of its size. A finer grid
    is not better, because the rounding error of rows in float32 enters the derivative divided by the step.

    Args:
        width: that of the basis functions, Å, positive.

    Returns:
        Å, at most `width` / 6.

    Raises:
        ValueError: if `width` is not positive and finite.
    """
    if not 0.0 < width < math.inf:
        raise ValueError(f"`width` must be positive and finite, got {width}")
    return math.ldexp(1.0, math.floor(math.log2(width / 6.0)))


def filter_tables(
    generators: Sequence[FilterGenerator],
    basis: RadialBasis,
    grid: FilterGrid,
    dtype: torch.dtype,
) -> Tensor:
    """Spline coefficients of the filters of several blocks, built by one operator.

    W_f(d) = sum_m B_m(t) table[k + m, f],  k = floor(d / step),  t = d / step - k    (csrc/core/spline.hpp)
    table = P[ssp(rbf A1 + b1)] A2 + b2,  P from samples on the nodes to coefficients, linear, with row sums of one

    The cutoff function is not part of a table. Samples are evaluated in float64 whatever the dtype, because tables
    from float32 samples are ten times less accurate.

    Args:
        generators: filter generators of the blocks, of one shape; at least one.
        basis: the radial basis that they share.
        grid: grid of distances.
        dtype: that of the tables, usually that of the model.

    Returns:
        (n_blocks, grid.n_rows, n_filters), differentiable in the parameters of the generators as often as
        needed.

    Raises:
        ValueError: if `generators` is empty or their shapes differ.
    """
    _check_shapes(generators)
    nodes = table_nodes(basis, grid, generators[0].hidden.weight.device)
    return tables_on(nodes, generators, dtype)


def table_nodes(basis: RadialBasis, grid: FilterGrid, device: torch.device) -> TableNodes:
    """Everything that `tables_on` needs besides parameters.

    Args:
        basis: radial basis.
        grid: grid of distances.
        device: the device on which tables will be made.

    Raises:
        ValueError: if the basis has trainable parameters.
    """
    first = -(2 + PREFILTER_ORDER)
    n_nodes = grid.n_rows + 2 * PREFILTER_ORDER
    nodes = torch.arange(first, first + n_nodes, dtype=torch.float64, device=device)
    prefilter = torch.tensor(prefilter_taps(PREFILTER_ORDER), dtype=torch.float64, device=device)
    rbf = basis(nodes * grid.step)
    if rbf.requires_grad:
        raise ValueError(
            f"a radial basis must have no trainable parameters, because filter tables have no gradient in it; "
            f"{type(basis).__name__} has some"
        )
    return TableNodes(grid, rbf, prefilter)


def tables_on(
    nodes: TableNodes, generators: Sequence[FilterGenerator], dtype: torch.dtype
) -> Tensor:
    """`filter_tables` on nodes that were made before, so that nothing is copied to the device.

    Args:
        nodes: from `table_nodes`.
        generators: filter generators of the blocks, of one shape; at least one.
        dtype: that of the tables.

    Returns:
        (n_blocks, n_rows, n_filters), as `filter_tables`.
    """
    parameters = [
        parameter if parameter.dtype == dtype else parameter.double()
        for g in generators
        for parameter in (g.hidden.weight, g.hidden.bias, g.output.weight, g.output.bias)
    ]
    return ops.filter_tables(nodes.rbf, nodes.prefilter, parameters).to(dtype)


@cache
def prefilter_taps(order: int) -> tuple[float, ...]:
    """Taps of the filter that turns samples into spline coefficients, from the center outward.

    Sampling a quintic spline at its nodes is 1 + D/4 + D^2/120 with the second difference D = (1, -2, 1). The filter
    is the power series of the inverse up to D^order, which is exact for polynomials of degree 2 order + 1.

    Args:
        order: number of taps besides the central one, not negative.
    """
    series = [Fraction(1)]
    for k in range(1, order + 1):
        before = series[k - 2] if k > 1 else Fraction(0)
        series.append(-series[k - 1] / 4 - before / 120)
    taps = [Fraction(0)] * (order + 1)
    for k, factor in enumerate(series):
        for s in range(k + 1):  # D^k has the binomial coefficients of 2k with alternating signs
            taps[s] += factor * (-1) ** (k - s) * math.comb(2 * k, k - s)
    return tuple(float(tap) for tap in taps)


def table_errors(
    tables: Tensor, generators: Sequence[FilterGenerator], basis: RadialBasis, grid: FilterGrid
) -> Tensor:
    """How far tables are from the networks they stand for, between the nodes.

    Both are evaluated in float64, at two distances in each bin up to the cutoff. The error includes the rounding of
    the tables.

    Args:
        tables: (n_blocks, grid.n_rows, n_filters).
        generators: filter generators of the blocks.
        basis: radial basis they share.
        grid: grid of distances.

    Returns:
        (n_blocks, 2): root mean square error of the filters W and of their derivatives W', each divided by
        the root mean square of W'. Not differentiable.
    """
    with torch.no_grad():
        n_cells = math.floor(grid.cutoff / grid.step)
        cells = torch.arange(n_cells, dtype=torch.float64, device=tables.device)
        d = torch.cat([cells + 0.29, cells + 0.71]) * grid.step
        exact, exact_slope = _filters_and_slopes(generators, basis, d)
        bins, weights = ops.spline_weights(
            d, grid.step, grid.cutoff, torch.ones_like(d[:1, None]), grid.n_rows, 2, torch.float64
        )
        rows = tables.double()[
            :, bins[:, None] + torch.arange(6, device=bins.device)
        ]  # (n_blocks, n_points, 6, n_filters)
        value, slope = torch.einsum("npm,bpmf->nbpf", weights, rows)
        scale = exact_slope.square().mean(dim=(1, 2)).sqrt()
        errors = [(value - exact), (slope - exact_slope)]
        return torch.stack([e.square().mean(dim=(1, 2)).sqrt() / scale for e in errors], dim=1)


def accurate_grid(
    generators: Sequence[FilterGenerator],
    basis: RadialBasis,
    cutoff: float,
    dtype: torch.dtype,
    tolerance: float = TOLERANCE,
) -> tuple[FilterGrid, float]:
    """The coarsest grid whose tables are accurate.

    The step begins at `grid_step` and is halved up to three times.

    Args:
        generators: filter generators of the blocks.
        basis: radial basis they share.
        cutoff: Å.
        dtype: of the tables.
        tolerance: largest error of the derivative W' relative to its size, see `table_errors`.

    Returns:
        The grid and its error, the largest over blocks.

    Raises:
        ValueError: if no grid reaches `tolerance`, with the best error.
    """
    grid = FilterGrid(grid_step(basis.width), cutoff)
    best = math.inf
    for _ in range(4):
        with torch.no_grad():
            tables = filter_tables(generators, basis, grid, dtype)
        error = float(table_errors(tables, generators, basis, grid)[:, 1].max())
        if error <= tolerance:
            return grid, error
        best = min(best, error)
        grid = grid.refined
    raise ValueError(
        f"no table reaches `tolerance` {tolerance:g}, the best is off by {best:.2g}: "
        "the filters are too steep for float32 tables, use dense filters"
    )


def _check_shapes(generators: Sequence[FilterGenerator]) -> None:
    if not generators:
        raise ValueError("`generators` must not be empty")
    shapes = {(tuple(g.hidden.weight.shape), tuple(g.output.weight.shape)) for g in generators}
    if len(shapes) > 1:
        raise ValueError(f"`generators` must have one shape, got {sorted(shapes)}")


def _stacked(
    generators: Sequence[FilterGenerator], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights and biases of both layers of all generators, stacked and converted to `dtype`."""
    return (
        torch.stack([g.hidden.weight for g in generators]).to(dtype),
        torch.stack([g.hidden.bias for g in generators]).to(dtype),
        torch.stack([g.output.weight for g in generators]).to(dtype),
        torch.stack([g.output.bias for g in generators]).to(dtype),
    )


def _filters_and_slopes(
    generators: Sequence[FilterGenerator], basis: RadialBasis, d: Tensor
) -> tuple[Tensor, Tensor]:
    """W and W' of the networks in float64, (n_blocks, n_points, n_filters) each."""
    hidden_weight, hidden_bias, output_weight, output_bias = _stacked(generators, torch.float64)

    h = 1e-4 * basis.width  # only the basis is differentiated numerically, with an error of 1e-10
    slope_of_basis = (
        8.0 * (basis(d + h) - basis(d - h)) - (basis(d + 2 * h) - basis(d - 2 * h))
    ) / (12.0 * h)
    hidden = basis(d) @ hidden_weight.transpose(1, 2) + hidden_bias.unsqueeze(1)
    slope = slope_of_basis @ hidden_weight.transpose(1, 2) * torch.sigmoid(hidden)
    output_weight = output_weight.transpose(1, 2)
    value = shifted_softplus(hidden) @ output_weight + output_bias.unsqueeze(1)
    return value, slope @ output_weight
