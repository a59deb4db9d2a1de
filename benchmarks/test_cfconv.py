"""The convolution's kernels against the limits of the CPU, and against plain torch; the tables they read.

`of_fma`, `of_l1` and `of_l2` are fractions: of the multiply-add peak; of the reading rate of the first cache level, where
every vector read counts (weights that are broadcast too); of the second level, as if every table row came from there, which
is so for passes of 64 features (83 KiB of table) but for the rows that the first level still holds. The largest says
what bounds a kernel.
"""

import pytest
import torch

from benchmarks.measure import in_turns, measure, timed_by
from benchmarks.systems import CUTOFF, N_INTERACTIONS, aspirin, batch_of, ladder, qm9, water
from scschnet import ops
from scschnet.nn.basis import GaussianBasis
from scschnet.nn.cfconv import cfconv as dense_cfconv
from scschnet.nn.cutoff import CosineCutoff
from scschnet.nn.filter import FilterGenerator
from scschnet.nn.filter_table import FilterGrid, filter_tables, grid_step

pytestmark = pytest.mark.benchmark(group="convolution")
N_RBF = 50
SYSTEMS = {
    "water 192": lambda data: water(192),
    "water 1536": lambda data: water(1536),
    "50 aspirins": lambda data: aspirin(50, data),
    "100 QM9": lambda data: qm9(100, data),
}
# Per pair (both directions) and feature: operations, and per pair and vector of features: vectors read, of which table
# rows. Broadcast weights are shared by the 4 vectors of a pass (2 in table gradients).
WORK = {
    "P1 cfconv": (16, 6 + 2 + 6 / 4, 6),
    "P2 cfconv_backward": (34, 6 + 3 + 12 / 4, 6),
    "P3, P4 cfconv_double_backward": (34, 6 + 3 + 13 / 4, 6),
    "P5 cfconv_backward_table_gradient": (34, 6 + 3 + 13 / 2, 0),
    "P5 cfconv_table_gradient": (16, 6 + 2 + 6 / 2, 0),
    "cfconv_dot": (18, 6 + 2 + 6 / 4, 6),
}


class Case:
    """One system and number of features: what the kernels take."""

    def __init__(self, system: str, n_features: int, data, device: str) -> None:
        batch = batch_of(SYSTEMS[system](data), device)
        n_atoms = len(batch.positions)
        geometry = (
            batch.positions,
            batch.cells,
            batch.idx_m,
            batch.idx_i,
            batch.idx_j,
            batch.shifts,
        )
        half, row_ptr, idx_j = ops.half_list(batch.idx_i, batch.idx_j, batch.shifts, n_atoms)
        self.d = ops.pair_vectors(*geometry, half)[1]
        self.basis = GaussianBasis(N_RBF, CUTOFF).to(device)
        self.net = FilterGenerator(N_RBF, n_features).to(device)
        self.grid = FilterGrid(grid_step(self.basis.width), CUTOFF)
        self.cutoff_function = CosineCutoff(CUTOFF).to(device)
        with torch.no_grad():
            self.table = filter_tables([self.net], self.basis, self.grid, torch.float32)[0]
        self.pairs = ops.Pairs(
            self.d,
            *self.spline_weights(),
            row_ptr,
            idx_j,
            self.grid.step,
            CUTOFF,
            self.cutoff_function.pieces,
        )
        torch.manual_seed(0)
        shape = (n_atoms, n_features)
        self.u, self.x, self.y = (torch.randn(shape, device=device) for _ in range(3))
        self.v = torch.randn(len(half), device=device)
        self.i, self.j = batch.idx_i, batch.idx_j
        shifts = torch.einsum(
            "ps,psk->pk", batch.shifts.double(), batch.cells[batch.idx_m[batch.idx_i]]
        )
        r = batch.positions
        self.all_d = (r[batch.idx_j] - r[batch.idx_i] + shifts).norm(dim=1)
        self.sizes = {"n_atoms": n_atoms, "n_pairs": len(self.i), "n_features": n_features}

    def spline_weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        step, n_rows = self.grid.step, self.grid.n_rows
        return ops.spline_weights(
            self.d, step, CUTOFF, self.cutoff_function.pieces, n_rows, 2, torch.float32
        )

    def kernel(self, name: str):
        u, v, x, y, table, pairs = self.u, self.v, self.x, self.y, self.table, self.pairs
        n = self.grid.n_rows
        return {
            "P1 cfconv": lambda: ops.cfconv(x, table, pairs),
            "P2 cfconv_backward": lambda: ops.cfconv_backward(y, x, table, pairs),
            "P3, P4 cfconv_double_backward": lambda: ops.cfconv_double_backward(
                u, v, x, table, pairs
            ),
            "P5 cfconv_backward_table_gradient": lambda: ops.cfconv_backward_table_gradient(
                u, v, y, x, pairs, n
            ),
            "P5 cfconv_table_gradient": lambda: ops.cfconv_table_gradient(u, x, None, pairs, n, 0),
            "cfconv_dot": lambda: ops.cfconv_dot(y, x, table, pairs, 1),
        }[name]

    def dense(self, d: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """By torch's own operations: the filter network on all directed pairs."""
        filters = self.net(self.basis(d).float()) * self.cutoff_function(d).float()[:, None]
        return dense_cfconv(x, filters, self.i, self.j)


@pytest.mark.parametrize("n_features", ladder(128, full=(256,)))
@pytest.mark.parametrize(
    "system", ladder("water 192", large=("water 1536",), full=("50 aspirins", "100 QM9"))
)
@pytest.mark.parametrize("kernel", WORK)
def test_kernel(benchmark, kernel, system, n_features, data, device):
    case = Case(system, n_features, data, device)
    operations, vectors, rows = WORK[kernel]
    pair_features = len(case.d) * n_features
    reads = {"l1": 4 * vectors * pair_features, "l2": 4 * rows * pair_features}
    with torch.no_grad():
        measure(
            benchmark, case.kernel(kernel), device, operations * pair_features, reads, **case.sizes
        )


@pytest.mark.parametrize("system", ladder("water 192", large=("water 1536",)))
def test_spline_weights(benchmark, system, data, device):
    case = Case(system, 16, data, device)
    measure(benchmark, case.spline_weights, device, **case.sizes)


@pytest.mark.parametrize(
    "system", ladder("water 192", full=("water 1536", "50 aspirins", "100 QM9"))
)
def test_convolution_beside_dense(benchmark, system, data, threads):
    """Forward, and backward to features and distances, weights included; and torch with filters for every pair."""
    case = Case(system, 128, data, "cpu")
    d, x = case.d.requires_grad_(), case.x.requires_grad_()
    all_d = case.all_d.requires_grad_()

    def ours():
        bins, weights = case.spline_weights()
        pairs = case.pairs._replace(d_ij=d, bins=bins, weights=weights)
        torch.autograd.grad(ops.cfconv(x, case.table, pairs), (x, d), case.y)

    def dense():
        torch.autograd.grad(case.dense(all_d, x), (x, all_d), case.y)

    measure(benchmark, ours, **case.sizes)
    in_turns(benchmark, ours, {"dense filters, torch": timed_by(benchmark._timer, dense)})


@pytest.mark.parametrize("n_features", ladder(128, large=(256,)))
@pytest.mark.benchmark(group="filter tables")
def test_filter_tables(benchmark, n_features, device):
    """Of six blocks, in float64, as every training step makes them anew."""
    basis = GaussianBasis(N_RBF, CUTOFF).to(device)
    nets = [FilterGenerator(N_RBF, n_features).to(device) for _ in range(N_INTERACTIONS)]
    grid = FilterGrid(grid_step(basis.width), CUTOFF)
    products = 2 * grid.n_rows * N_INTERACTIONS * n_features * (N_RBF + n_features)
    with torch.no_grad():
        measure(
            benchmark,
            lambda: filter_tables(nets, basis, grid, torch.float32),
            device,
            n_rows=grid.n_rows,
            n_features=n_features,
            flop=products,
        )
