"""The operators on a GPU against the same operators on the CPU, which the other tests check.

Under NVIDIA's checkers (a build with `CMAKE_ARGS=-DCMAKE_CUDA_FLAGS=-lineinfo` names the lines):

    compute-sanitizer --tool memcheck --error-exitcode 1 python -m pytest tests/csrc/test_cuda_ops.py -p no:cacheprovider
    compute-sanitizer --tool racecheck --error-exitcode 1 python -m pytest tests/csrc/test_cuda_ops.py -k "conv or list"
    compute-sanitizer --tool synccheck --error-exitcode 1 python -m pytest tests/csrc/test_cuda_ops.py -k "conv or list"
    compute-sanitizer --tool initcheck --error-exitcode 1 python -m pytest tests/csrc/test_cuda_ops.py -k "conv or list"

with PYTORCH_NO_CUDA_MEMORY_CACHING=1 in the environment, so that the checkers see every array.
"""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from scschnet import ops
from scschnet.nn.cutoff import CUTOFF_FUNCTIONS

DEVICE = torch.device("cuda")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    # Said once in a process, where a thread of autograd begins with a product.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

STEP, CUTOFF = 0.125, 3.0
N_ROWS = int(CUTOFF / STEP) + 6


def test_the_kernels_are_there():
    assert ops.runs_on(DEVICE)


def on_gpu(*values):
    return [v.to(DEVICE) if isinstance(v, Tensor) else v for v in values]


def relative_error(got: Tensor, expected: Tensor) -> float:
    got, expected = got.double().cpu(), expected.double().cpu()
    assert got.shape == expected.shape
    assert torch.isfinite(got).all()
    scale = expected.abs().max().item() if expected.numel() else 1.0
    return ((got - expected).abs().max().item() if got.numel() else 0.0) / max(scale, 1e-30)


# ---- neighbor lists


def random_batch(seed: int, sizes: list[int], dtype=torch.float64, on_faces: float = 0.2):
    """Skewed, thin and open cells, atoms outside and on faces."""
    rng = np.random.default_rng(seed)
    positions, cells, pbc = [], [], []
    for n in sizes:
        cell = rng.uniform(2.5, 9.0) * (np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3)))
        f = rng.uniform(-1.5, 2.5, (n, 3))
        f[rng.random(n) < on_faces] = rng.integers(-4, 8, 3) / 4
        positions.append(f @ cell)
        cells.append(cell)
        pbc.append(rng.random(3) < 0.6)
    ptr = torch.tensor(np.concatenate([[0], np.cumsum(sizes)]), dtype=torch.int64)
    return (
        torch.tensor(np.concatenate(positions), dtype=dtype),
        ptr,
        torch.tensor(np.array(cells)),
        torch.tensor(np.array(pbc)),
    )


def as_rows(idx_i: Tensor, idx_j: Tensor, shifts: Tensor) -> np.ndarray:
    rows = torch.cat([idx_i[:, None], idx_j[:, None], shifts.long()], 1).cpu().numpy()
    return rows[np.lexsort(rows.T[::-1])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [[1], [0, 3, 20, 1], [40, 60], [3000], [700, 5, 0, 1200]])
def test_neighbor_list_is_that_of_the_cpu(sizes, dtype):
    for seed in range(4):
        batch = random_batch(seed, sizes, dtype)
        cutoff = 2.0 + 0.7 * seed if max(sizes) < 1000 else 1.0
        expected = torch.ops.scschnet.neighbor_list(*batch, cutoff)
        got = torch.ops.scschnet.neighbor_list(*on_gpu(*batch), cutoff)
        np.testing.assert_array_equal(as_rows(*got[:3]), as_rows(*expected[:3]))
        assert torch.equal(got[3].cpu(), expected[3])
        again = torch.ops.scschnet.neighbor_list(*on_gpu(*batch), cutoff)
        assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


def test_rows_of_open_molecules_are_sorted_by_neighbor():
    positions, ptr, cells, _ = random_batch(3, [30, 200])
    pbc = torch.zeros(2, 3, dtype=torch.bool)
    expected = torch.ops.scschnet.neighbor_list(positions, ptr, cells, pbc, 4.0)
    got = torch.ops.scschnet.neighbor_list(*on_gpu(positions, ptr, cells, pbc), 4.0)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))


def test_a_capacity_that_is_too_small_is_signaled_and_harmless():
    batch = on_gpu(*random_batch(0, [50]))
    exact = torch.ops.scschnet.neighbor_list(*batch, 3.0)
    n_pairs = exact[0].shape[0]
    within = torch.ops.scschnet.neighbor_list_within
    roomy = within(*batch, 3.0, n_pairs + 100)
    assert roomy[4].tolist() == [n_pairs, 0]
    for a, b in zip(roomy[:3], exact[:3], strict=True):
        assert torch.equal(a[:n_pairs], b)
    assert (roomy[0][n_pairs:] == 50).all()
    tight = within(*batch, 3.0, n_pairs // 2)
    assert tight[4].tolist() == [n_pairs, 0]
    assert int(tight[3][-1]) <= tight[0].shape[0]


def test_bad_geometries_are_errors():
    positions, ptr, cells, pbc = random_batch(0, [5])
    bad = positions.clone()
    bad[2, 1] = float("nan")
    with pytest.raises(ValueError, match="`positions`"):
        torch.ops.scschnet.neighbor_list(*on_gpu(bad, ptr, cells, pbc), 3.0)
    singular = torch.ones_like(cells)
    everywhere = torch.ones_like(pbc)
    with pytest.raises(ValueError, match="`cell`"):
        torch.ops.scschnet.neighbor_list(*on_gpu(positions, ptr, singular, everywhere), 3.0)
    with pytest.raises(ValueError, match="`cutoff`"):
        torch.ops.scschnet.neighbor_list(*on_gpu(positions, ptr, cells, pbc), -1.0)
    with pytest.raises(ValueError, match="`cells` must be on"):
        torch.ops.scschnet.neighbor_list(positions.to(DEVICE), ptr.to(DEVICE), cells, pbc, 3.0)


# ---- geometry


def test_half_list_and_geometry():
    positions, ptr, cells, pbc = random_batch(5, [40, 0, 25, 1], on_faces=0.0)  # no two on one spot
    cells = torch.where(pbc[:, :, None], cells, 0.0)
    idx_i, idx_j, shifts, _ = torch.ops.scschnet.neighbor_list(positions, ptr, cells, pbc, 3.0)
    idx_m = torch.repeat_interleave(torch.arange(4), ptr.diff())
    n = positions.shape[0]
    half = ops.half_list(idx_i, idx_j, shifts, n)
    gpu_half = ops.half_list(*on_gpu(idx_i, idx_j, shifts), n)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(gpu_half, half, strict=True))
    pairs, row_ptr, half_j = half
    arguments = (positions, cells, idx_m, idx_i, idx_j, shifts, pairs)
    r, d = ops.pair_vectors(*arguments)
    gpu_r, gpu_d = ops.pair_vectors(*on_gpu(*arguments))
    assert relative_error(gpu_r, r) < 1e-14
    assert relative_error(gpu_d, d) < 1e-14
    g = torch.randn(len(d), dtype=torch.float64)
    forces, virial = ops.pair_forces(g, r, d, row_ptr, half_j, idx_m, 4)
    on = on_gpu(g, r, d, row_ptr, half_j, idx_m)
    gpu_forces, gpu_virial = ops.pair_forces(*on, 4)
    assert relative_error(gpu_forces, forces) < 1e-13
    assert relative_error(gpu_virial, virial) < 1e-13
    assert torch.equal(ops.pair_forces(*on, 4)[0], gpu_forces)
    g_gpu = on[0].requires_grad_()
    assert gradcheck(lambda x: ops.pair_forces(x, *on[1:], 4), g_gpu, fast_mode=True)


@pytest.mark.parametrize("function", ["cosine", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spline_weights(function, dtype):
    d = torch.cat([torch.linspace(0, 2.999, 501), torch.tensor([0.125, 0.125 - 1e-16])]).double()
    d = torch.cat([d, torch.tensor([3.0, 9.0], dtype=torch.float64)])
    pieces = CUTOFF_FUNCTIONS[function](CUTOFF).pieces
    on = pieces.to(DEVICE)
    bins, weights = ops.spline_weights(d, STEP, CUTOFF, pieces, N_ROWS, 9, dtype)
    gpu_bins, gpu = ops.spline_weights(d.to(DEVICE), STEP, CUTOFF, on, N_ROWS, 9, dtype)
    assert torch.equal(gpu_bins.cpu(), bins)
    for order in range(9):
        assert relative_error(gpu[order], weights[order]) < (
            1e-6 if dtype == torch.float32 else 1e-12
        )
    bad = torch.tensor([-1.0, float("nan")], dtype=torch.float64, device=DEVICE)
    assert ops.spline_weights(bad, STEP, CUTOFF, on, N_ROWS, 1, dtype)[1].isnan().all()


# ---- convolutions


class Case:
    """A random half list with features, on the CPU in float64."""

    def __init__(self, n_atoms: int, n_pairs: int, n_features: int, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        i = torch.randint(0, n_atoms, (n_pairs,), generator=g).sort().values
        self.idx_j = torch.randint(0, n_atoms, (n_pairs,), generator=g)
        self.row_ptr = torch.searchsorted(i, torch.arange(n_atoms + 1))
        self.d = 0.4 + 2.8 * torch.rand(n_pairs, generator=g, dtype=torch.float64)
        self.table = normal(N_ROWS, n_features)
        self.a, self.b, self.u = (normal(n_atoms, n_features) for _ in range(3))
        self.v = normal(n_pairs)

    def pairs(self, dtype: torch.dtype, device: torch.device, d: Tensor | None = None) -> ops.Pairs:
        d = self.d.to(device) if d is None else d
        pieces = CUTOFF_FUNCTIONS["cosine"](CUTOFF).pieces.to(device)
        bins, weights = ops.spline_weights(d.detach(), STEP, CUTOFF, pieces, N_ROWS, 2, dtype)
        row_ptr, idx_j = self.row_ptr.to(device), self.idx_j.to(device)
        return ops.Pairs(d, bins, weights, row_ptr, idx_j, STEP, CUTOFF, pieces)

    def results(self, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """Every operator of the family once."""
        a, b, u, v, table = (
            t.to(device, dtype) for t in (self.a, self.b, self.u, self.v, self.table)
        )
        p = self.pairs(dtype, device)
        return [
            ops.cfconv(a, table, p),
            *ops.cfconv_backward(a, b, table, p),
            ops.cfconv_double_backward(u, v, b, table, p),
            ops.cfconv_backward_table_gradient(u, v, a, b, p, N_ROWS),
            ops.cfconv_derivative(a, v, table, p, 3),
            ops.cfconv_dot(a, b, table, p, 2),
            ops.cfconv_table_gradient(a, b, v, p, N_ROWS, 1),
            ops.cfconv_table_gradient(a, b, None, p, N_ROWS, 0),
        ]


SIZES = [(1, 0, 4), (11, 30, 1), (40, 900, 37), (70, 2500, 64), (300, 9000, 128), (120, 3000, 256)]


@pytest.mark.parametrize("sizes", SIZES)
def test_convolutions_in_double_precision(sizes):
    case = Case(*sizes)
    expected = case.results(torch.float64, torch.device("cpu"))
    for got, want in zip(case.results(torch.float64, DEVICE), expected, strict=True):
        assert relative_error(got, want) < 1e-12


@pytest.mark.parametrize("sizes", SIZES)
def test_convolutions_in_single_precision_err_no_more_than_twice_the_cpu(sizes):
    case = Case(*sizes)
    exact = case.results(torch.float64, torch.device("cpu"))
    on_cpu = case.results(torch.float32, torch.device("cpu"))
    for got, cpu, want in zip(case.results(torch.float32, DEVICE), on_cpu, exact, strict=True):
        assert relative_error(got, want) <= 2 * max(relative_error(cpu, want), 3e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convolutions_have_the_same_bits_on_every_run(dtype):
    case = Case(300, 9000, 128)
    first = case.results(dtype, DEVICE)
    for _ in range(5):
        assert all(map(torch.equal, first, case.results(dtype, DEVICE)))


def test_convolutions_are_differentiable_twice():
    case = Case(5, 12, 3)
    a, table, d = (t.to(DEVICE).requires_grad_() for t in (case.a, case.table, case.d))

    def conv(x: Tensor, rows: Tensor, distances: Tensor) -> Tensor:
        return ops.cfconv(x, rows, case.pairs(torch.float64, DEVICE, distances))

    assert gradcheck(conv, (a, table, d), fast_mode=True)
    assert gradgradcheck(conv, (a, table, d), fast_mode=True)


def test_rows_that_are_not_aligned():
    case = Case(40, 900, 64)
    p = case.pairs(torch.float32, DEVICE)
    x, table = case.a.float().to(DEVICE), case.table.float().to(DEVICE)
    shifted = torch.empty(x.numel() + 1, device=DEVICE)[1:].view_as(x).copy_(x)
    assert relative_error(ops.cfconv(shifted, table, p), ops.cfconv(x, table, p)) < 1e-6


# ---- filter tables


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_filter_tables_and_their_gradient(dtype):
    g = torch.Generator().manual_seed(0)
    rbf = torch.rand(48, 25, generator=g, dtype=torch.float64)
    prefilter = torch.tensor([2.2, -0.77, 0.19, -0.031, 0.0024], dtype=torch.float64)
    shapes = [(20, 25), (20,), (20, 20), (20,)] * 3
    parameters = [(0.3 * torch.randn(*s, generator=g)).to(dtype).requires_grad_() for s in shapes]
    twins = [p.detach().to(DEVICE).requires_grad_() for p in parameters]
    tables = ops.filter_tables(rbf, prefilter, parameters)
    gpu = ops.filter_tables(rbf.to(DEVICE), prefilter.to(DEVICE), twins)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    assert relative_error(gpu, tables) < tolerance
    bar = torch.randn(tables.shape, generator=g).to(dtype)
    expected = torch.autograd.grad(tables, parameters, bar)
    got = torch.autograd.grad(gpu, twins, bar.to(DEVICE))
    for one, other in zip(got, expected, strict=True):
        assert relative_error(one, other) < 10 * tolerance


@pytest.mark.parametrize("shape", [(6, 32, 32), (3, 40, 16), (3, 16, 40)])
def test_orthogonalize(shape):
    given = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert relative_error(ops.orthogonalize(given.to(DEVICE)), ops.orthogonalize(given)) < 1e-4


# ---- the fused network


def network(n_features: int, n_blocks: int, seed: int = 0) -> tuple[Case, list[Tensor]]:
    case = Case(60, 1500, n_features, seed)
    g = torch.Generator().manual_seed(seed + 1)
    f, h = n_features, n_features // 2

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64) / shape[-1] ** 0.5

    leaves = [normal(60, f), normal(n_blocks, N_ROWS, f), normal(n_blocks + 1)]
    for _ in range(n_blocks):
        leaves += [normal(f, f), normal(f, f), normal(f), normal(f, f), normal(f)]
    return case, [*leaves, normal(h, f), normal(h), normal(1, h), normal(1)]


def fused(case: Case, values: list[Tensor], dtype, device, derivatives: bool) -> list[Tensor]:
    """Outputs and gradients of a loss of energies, x^out and, with derivatives, g_d."""
    features, tables, weights, *parameters = leaves = [
        t.detach().to(device, dtype).requires_grad_() for t in values
    ]
    p = case.pairs(dtype, device)
    pairs = (p.row_ptr, p.idx_j, p.bins, p.weights)
    g, g_d, norms, x_out = ops.schnet(
        features, *pairs, tables, weights, parameters, derivatives, representation=True
    )
    loss = g.square().sum() + x_out.square().sum()
    if derivatives:
        loss = loss + (g_d.square() + case.v.to(g_d) * g_d).sum()
    grads = torch.autograd.grad(loss, leaves)
    return [g.detach(), g_d.detach(), norms, x_out.detach(), *grads]


@pytest.mark.parametrize("derivatives", [False, True])
@pytest.mark.parametrize(("n_features", "n_blocks"), [(8, 0), (20, 1), (64, 3), (128, 2)])
def test_fused_network(n_features, n_blocks, derivatives):
    case, values = network(n_features, n_blocks)
    cpu = torch.device("cpu")
    exact = fused(case, values, torch.float64, cpu, derivatives)
    for got, want in zip(
        fused(case, values, torch.float64, DEVICE, derivatives), exact, strict=True
    ):
        assert relative_error(got, want) < 1e-11
    on_cpu = fused(case, values, torch.float32, cpu, derivatives)
    on_device = fused(case, values, torch.float32, DEVICE, derivatives)
    for got, reference, want in zip(on_device, on_cpu, exact, strict=True):
        assert relative_error(got, want) <= 2 * max(relative_error(reference, want), 2e-6)
    again = fused(case, values, torch.float32, DEVICE, derivatives)
    assert all(map(torch.equal, on_device, again))


@pytest.mark.parametrize("n_local", [60, 45])
def test_evaluation_with_ghosts_that_are_computed(n_local):
    case, values = network(20, 2)

    def evaluate(device: torch.device) -> tuple[Tensor, ...]:
        features, tables, weights, *parameters = (t.to(device) for t in values)
        p = case.pairs(torch.float64, device)
        return ops.schnet_evaluate(
            features,
            p.row_ptr,
            p.idx_j,
            p.bins,
            p.weights,
            tables,
            weights,
            parameters,
            n_local,
            halo=False,
            derivatives=True,
            corrections=True,
        )

    for got, want in zip(evaluate(DEVICE), evaluate(torch.device("cpu")), strict=True):
        assert relative_error(got, want) < 1e-11
