"""The convolution's operators and kernels: against loops, their gradients of any order, bits, errors."""

import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from scschnet import ops
from scschnet.nn.cutoff import CUTOFF_FUNCTIONS
from scschnet.ops import Pairs

CORE = Path(__file__).parents[2] / "csrc/core"
FLAGS = {
    "generic": [],
    "avx2": ["-mavx2", "-mfma", "-mbmi2"],
    "avx512": ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma", "-mbmi2"],
}
STEP, CUTOFF = 0.25, 2.1
N_ROWS = math.floor(CUTOFF / STEP) + 6


def cutoff_pieces(name, cutoff=CUTOFF):
    return CUTOFF_FUNCTIONS[name](cutoff).pieces


class Graph:
    """A random half list: isolated atoms, an atom with its own image, the same two atoms twice."""

    def __init__(
        self, seed=0, rows=((1, 2, 2), (1, 3), (), (4,), ()), cutoff_function="cosine", n_orders=2
    ):
        self.rng = np.random.default_rng(seed)
        self.n_atoms = len(rows)
        self.i = np.array([i for i, row in enumerate(rows) for _ in row], dtype=np.int64)
        self.j = np.array([j for row in rows for j in row], dtype=np.int64)
        counts = np.array([0, *(len(row) for row in rows)], dtype=np.int64)
        self.row_ptr = torch.tensor(np.cumsum(counts))
        self.d = self.rng.uniform(0.05, 2.05, len(self.j))
        self.cutoff_function, self.n_orders = cutoff_function, n_orders

    def pairs(self, dtype=torch.float64, d=None) -> Pairs:
        d = torch.tensor(self.d) if d is None else d
        bins, weights = ops.spline_weights(
            d, STEP, CUTOFF, cutoff_pieces(self.cutoff_function), N_ROWS, self.n_orders, dtype
        )
        j = torch.tensor(self.j)
        pieces = cutoff_pieces(self.cutoff_function)
        return Pairs(d, bins, weights, self.row_ptr, j, STEP, CUTOFF, pieces)

    def atoms(self, n_features, dtype=torch.float64, grad=False):
        values = torch.tensor(self.rng.normal(size=(self.n_atoms, n_features)), dtype=dtype)
        return values.requires_grad_(grad)

    def table(self, n_features, dtype=torch.float64, grad=False):
        values = torch.tensor(self.rng.normal(size=(N_ROWS, n_features)), dtype=dtype)
        return values.requires_grad_(grad)

    def factors(self, dtype=torch.float64, grad=False):
        return torch.tensor(self.rng.normal(size=len(self.j)), dtype=dtype).requires_grad_(grad)

    def filters(self, table, order):
        """W^(n) of every pair, (n_pairs, n_features)."""
        return np.array(
            [
                reference.spline_filter(
                    table.detach().double().numpy(), d, STEP, CUTOFF, self.cutoff_function, order
                )
                for d in self.d
            ]
        ).reshape(len(self.d), table.shape[1])

    def directed(self):
        """(pair, center, neighbor), both ways of every pair."""
        for p, (i, j) in enumerate(zip(self.i, self.j, strict=True)):
            yield p, i, j
            yield p, j, i


def conv(graph, x, v, W):
    y = np.zeros(x.shape)
    for p, i, j in graph.directed():
        y[i] += v[p] * x[j] * W[p]
    return y


def dot(graph, a, b, W):
    g = np.zeros(len(graph.d))
    for p, i, j in graph.directed():
        g[p] += a[i] @ (b[j] * W[p])
    return g


def table_gradient(graph, a, b, v, order):
    """Through the filter of every pair and row: its value for a table that is one in a single row."""
    out = np.zeros((N_ROWS, a.shape[1]))
    units = np.eye(N_ROWS)
    w = [
        reference.spline_filter(units, d, STEP, CUTOFF, graph.cutoff_function, order)
        for d in graph.d
    ]
    for p, i, j in graph.directed():
        out += v[p] * np.outer(w[p], a[i] * b[j])
    return out


def numpy(*tensors):
    return [t.detach().double().numpy() for t in tensors]


def assert_close(got, expected, dtype):
    # float32: rows of the table are of order one and steps 1/4, so that the n-th derivative is of order 4^n
    # and so is its rounding.
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    tolerance = {torch.float64: 1e-12, torch.float32: 5e-6}[dtype] * scale
    assert got.dtype == dtype
    np.testing.assert_allclose(got.detach().double().numpy(), expected, rtol=0, atol=tolerance)


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
EACH_CUTOFF_FUNCTION = pytest.mark.parametrize("cutoff_function", ["cosine", "none"])


@DTYPES
@EACH_CUTOFF_FUNCTION
@pytest.mark.parametrize("n_features", [1, 16, 37])
def test_family_matches_loops(dtype, cutoff_function, n_features):
    graph = Graph(cutoff_function=cutoff_function)
    pairs = graph.pairs(dtype)
    a, b = graph.atoms(n_features, dtype), graph.atoms(n_features, dtype)
    table, v = graph.table(n_features, dtype), graph.factors(dtype)
    a_, b_, v_ = numpy(a, b, v)
    one = np.ones_like(v_)
    for order in range(5):
        W = graph.filters(table, order)
        got = ops.cfconv_derivative(a, v, table, pairs, order)
        assert_close(got, conv(graph, a_, v_, W), dtype)
        got = ops.cfconv_derivative(a, None, table, pairs, order)
        assert_close(got, conv(graph, a_, one, W), dtype)
        assert_close(ops.cfconv_dot(a, b, table, pairs, order), dot(graph, a_, b_, W), dtype)
        got = ops.cfconv_table_gradient(a, b, v, pairs, N_ROWS, order)
        assert_close(got, table_gradient(graph, a_, b_, v_, order), dtype)
        got = ops.cfconv_table_gradient(a, b, None, pairs, N_ROWS, order)
        assert_close(got, table_gradient(graph, a_, b_, one, order), dtype)


@DTYPES
@EACH_CUTOFF_FUNCTION
@pytest.mark.parametrize("n_features", [3, 32, 100])
def test_fused_operators_match_loops(dtype, cutoff_function, n_features):
    graph = Graph(seed=1, cutoff_function=cutoff_function)
    pairs = graph.pairs(dtype)
    u, x, y_bar = (graph.atoms(n_features, dtype) for _ in range(3))
    table, v = graph.table(n_features, dtype), graph.factors(dtype)
    u_, x_, y_bar_, v_ = numpy(u, x, y_bar, v)
    W, D, one = graph.filters(table, 0), graph.filters(table, 1), np.ones_like(v_)
    assert_close(ops.cfconv(x, table, pairs), conv(graph, x_, one, W), dtype)
    x_bar, d_bar = ops.cfconv_backward(y_bar, x, table, pairs)
    assert_close(x_bar, conv(graph, y_bar_, one, W), dtype)
    assert_close(d_bar, dot(graph, y_bar_, x_, D), dtype)
    got = ops.cfconv_double_backward(u, v, x, table, pairs)
    assert_close(got, conv(graph, u_, one, W) + conv(graph, x_, v_, D), dtype)
    got = ops.cfconv_backward_table_gradient(u, v, y_bar, x, pairs, N_ROWS)
    expected = table_gradient(graph, u_, y_bar_, one, 0)
    assert_close(got, expected + table_gradient(graph, y_bar_, x_, v_, 1), dtype)


@settings(max_examples=30)
@given(
    rows=st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=6, max_size=6),
    n_features=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**16),
)
def test_any_graph_matches_loops(rows, n_features, dtype, seed):
    graph = Graph(seed, rows)
    pairs = graph.pairs(dtype)
    x, y_bar = graph.atoms(n_features, dtype), graph.atoms(n_features, dtype)
    table = graph.table(n_features, dtype)
    x_, y_bar_ = numpy(x, y_bar)
    one = np.ones(len(graph.d))
    assert_close(ops.cfconv(x, table, pairs), conv(graph, x_, one, graph.filters(table, 0)), dtype)
    _, d_bar = ops.cfconv_backward(y_bar, x, table, pairs)
    assert_close(d_bar, dot(graph, y_bar_, x_, graph.filters(table, 1)), dtype)
    got = ops.cfconv_table_gradient(y_bar, x, None, pairs, N_ROWS, 0)
    assert_close(got, table_gradient(graph, y_bar_, x_, one, 0), dtype)


def test_thousands_of_pairs_on_one_atom():
    rng = np.random.default_rng(0)
    graph = Graph(2, [(), tuple(rng.integers(0, 9, 3000)), (), (), (), (), (), (), ()])
    pairs, x, table = graph.pairs(), graph.atoms(20), graph.table(20)
    expected = conv(graph, *numpy(x), np.ones(3000), graph.filters(table, 0))
    np.testing.assert_allclose(ops.cfconv(x, table, pairs).numpy(), expected, atol=1e-10)


# ---- gradients


def operators(graph, n_features=3):
    """Every differentiable operator as a function of its differentiable tensors, and these."""
    d = torch.tensor(graph.d).requires_grad_()
    x, u, y = (graph.atoms(n_features, grad=True) for _ in range(3))
    table, v = graph.table(n_features, grad=True), graph.factors(grad=True)

    def p(distances):
        return graph.pairs(d=distances)

    return {
        "cfconv": (lambda x, t, d: ops.cfconv(x, t, p(d)), (x, table, d)),
        "cfconv_backward": (
            lambda y, x, t, d: ops.cfconv_backward(y, x, t, p(d)),
            (y, x, table, d),
        ),
        "cfconv_double_backward": (
            lambda u, v, x, t, d: ops.cfconv_double_backward(u, v, x, t, p(d)),
            (u, v, x, table, d),
        ),
        "cfconv_backward_table_gradient": (
            lambda u, v, y, x, d: ops.cfconv_backward_table_gradient(u, v, y, x, p(d), N_ROWS),
            (u, v, y, x, d),
        ),
        "cfconv_derivative": (
            lambda x, v, t, d: ops.cfconv_derivative(x, v, t, p(d), 1),
            (x, v, table, d),
        ),
        "cfconv_derivative without v": (
            lambda x, t, d: ops.cfconv_derivative(x, None, t, p(d), 2),
            (x, table, d),
        ),
        "cfconv_dot": (lambda x, y, t, d: ops.cfconv_dot(x, y, t, p(d), 1), (x, y, table, d)),
        "cfconv_table_gradient": (
            lambda x, y, v, d: ops.cfconv_table_gradient(x, y, v, p(d), N_ROWS, 1),
            (x, y, v, d),
        ),
        "cfconv_table_gradient without v": (
            lambda x, y, d: ops.cfconv_table_gradient(x, y, None, p(d), N_ROWS, 0),
            (x, y, d),
        ),
    }


NAMES = list(operators(Graph()))


@pytest.mark.parametrize("name", NAMES)
@EACH_CUTOFF_FUNCTION
def test_first_and_second_gradients(name, cutoff_function):
    function, inputs = operators(Graph(3, cutoff_function=cutoff_function))[name]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_with_respect_to_single_inputs(name):
    """Each gradient alone takes another way through the code than all together."""
    function, inputs = operators(Graph(4))[name]
    for k in range(len(inputs)):
        only = tuple(t if m == k else t.detach() for m, t in enumerate(inputs))
        assert torch.autograd.gradcheck(function, only)
        assert torch.autograd.gradgradcheck(function, only)


@pytest.mark.parametrize("n_orders", [1, 3])
def test_orders_not_at_hand_are_computed(n_orders):
    function, inputs = operators(Graph(5, n_orders=n_orders))["cfconv_backward"]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def chain(graph):
    """Forces of a small network with two convolutions, as a function of positions and tables."""
    i, j = torch.tensor(graph.i), torch.tensor(graph.j)
    offsets = torch.tensor(graph.rng.normal(size=(len(graph.j), 3)) * 0.4)
    x0 = graph.atoms(2)

    def forces(positions, table_1, table_2):
        r_ij = positions[j] - positions[i] + offsets
        pairs = graph.pairs(d=r_ij.norm(dim=1))
        x = torch.tanh(ops.cfconv(x0, table_1, pairs))
        energy = torch.sin(ops.cfconv(x + x0, table_2, pairs)).sum()
        return -torch.autograd.grad(energy, positions, create_graph=True)[0]

    positions = torch.tensor(graph.rng.normal(size=(graph.n_atoms, 3)) * 0.4).requires_grad_()
    return forces, (positions, graph.table(2, grad=True), graph.table(2, grad=True))


def test_third_derivatives_of_the_energy():
    """gradcheck of the forces is the Hessian, with W''; gradgradcheck goes to W'''."""
    forces, inputs = chain(Graph(6, rows=((1, 2), (1, 2), (), ())))
    assert torch.autograd.gradcheck(forces, inputs)
    assert torch.autograd.gradgradcheck(forces, inputs)


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "scschnet":
            name = func.name().split("::")[1]
            order = args[-1] if name in ("cfconv_derivative", "cfconv_dot") else None
            self.calls.append((name, order) if order is not None else name)
        return func(*args, **(kwargs or {}))


def test_only_gradients_asked_for_are_computed():
    graph = Graph(7)
    d = torch.tensor(graph.d).requires_grad_()
    weight, table = torch.randn(2, 2).double().requires_grad_(), graph.table(2, grad=True)
    x0, pairs = graph.atoms(2), graph.pairs(d=d)
    x = torch.tanh(ops.cfconv(x0 @ weight, table, pairs))
    energy = torch.sin(ops.cfconv(x, table, pairs)).sum()
    with Recorder() as first:
        (d_bar,) = torch.autograd.grad(energy, d, create_graph=True)
    assert sorted(map(str, first.calls)) == ["('cfconv_dot', 1)", "cfconv_backward"]
    loss = d_bar.square().sum()
    with Recorder() as second:
        loss.backward(inputs=[weight, table])
    assert ("cfconv_dot", 2) not in second.calls
    assert "cfconv_double_backward" in second.calls
    assert "cfconv_backward_table_gradient" in second.calls


def test_mixed_precision_of_distances():
    """Distances in float64 beside features in float32: bins are exact and the gradient is float64."""
    graph = Graph(8)
    d = torch.tensor(graph.d).requires_grad_()
    pairs = graph.pairs(torch.float32, d)
    x, table = graph.atoms(5, torch.float32), graph.table(5, torch.float32)
    ops.cfconv(x, table, pairs).sum().backward()
    assert d.grad.dtype == torch.float64
    expected = dot(graph, np.ones((5, 5)), *numpy(x), graph.filters(table, 1))
    np.testing.assert_allclose(d.grad.numpy(), expected, atol=2e-5)


# ---- torch's own checks


def test_opcheck():
    graph = Graph(9)
    pairs = graph.pairs(d=torch.tensor(graph.d).requires_grad_())
    x, y, u = (graph.atoms(3, grad=True) for _ in range(3))
    table, v = graph.table(3, grad=True), graph.factors(grad=True)
    o = torch.ops.scschnet
    for op, arguments in [
        (o.cfconv, (x, table, *pairs)),
        (o.cfconv_backward, (y, x, table, *pairs)),
        (o.cfconv_double_backward, (u, v, x, table, *pairs)),
        (o.cfconv_backward_table_gradient, (u, v, y, x, *pairs, N_ROWS)),
        (o.cfconv_derivative, (x, v, table, *pairs, 1)),
        (o.cfconv_derivative, (x, None, table, *pairs, 0)),
        (o.cfconv_dot, (x, y, table, *pairs, 2)),
        (o.cfconv_table_gradient, (x, y, v, *pairs, N_ROWS, 1)),
        (
            o.spline_weights.pieces,
            (pairs.d_ij, STEP, CUTOFF, cutoff_pieces("cosine"), N_ROWS, 2, torch.float32),
        ),
        (o.half_list, full_list(graph)),
    ]:
        torch.library.opcheck(op, arguments)


# ---- bits


@DTYPES
def test_same_bits_on_every_run_and_for_two_threads(dtype):
    rng = np.random.default_rng(1)
    graph = Graph(10, [tuple(rng.integers(0, 30, 25)) for _ in range(30)])
    pairs, n_features = graph.pairs(dtype), 200
    u, x, y = (graph.atoms(n_features, dtype) for _ in range(3))
    table, v = graph.table(n_features, dtype), graph.factors(dtype)

    def everything():
        return [
            ops.cfconv(x, table, pairs),
            *ops.cfconv_backward(y, x, table, pairs),
            ops.cfconv_double_backward(u, v, x, table, pairs),
            ops.cfconv_backward_table_gradient(u, v, y, x, pairs, N_ROWS),
            ops.cfconv_dot(x, y, table, pairs, 2),
            ops.cfconv_table_gradient(x, y, v, pairs, N_ROWS, 0),
        ]

    once = everything()
    again = everything()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        threaded = everything()
    finally:
        torch.set_num_threads(before)
    for a, b, c in zip(once, again, threaded, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_non_contiguous_arguments():
    graph = Graph(11)
    pairs, x, table = graph.pairs(), graph.atoms(6), graph.table(6)
    expected = ops.cfconv(x, table, pairs)
    strided = pairs._replace(
        idx_j=torch.stack([pairs.idx_j] * 2, 1)[:, 0],
        bins=torch.stack([pairs.bins] * 2, 1)[:, 0],
        weights=pairs.weights.transpose(0, 2).contiguous().transpose(0, 2),
        row_ptr=torch.stack([pairs.row_ptr] * 2, 1)[:, 0],
    )
    got = ops.cfconv(x.t().contiguous().t(), table.t().contiguous().t(), strided)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("rows", [(), ((), ()), ((),)])
def test_nothing(rows):
    """No atoms, no pairs."""
    graph = Graph(12, rows)
    pairs, x, table = graph.pairs(), graph.atoms(4, grad=True), graph.table(4, grad=True)
    y = ops.cfconv(x, table, pairs)
    assert y.shape == (len(rows), 4) and not y.any()
    y.sum().backward()
    assert not x.grad.any() and not table.grad.any()
    pairs = graph.pairs()
    assert ops.cfconv_dot(x, x, table, pairs, 2).shape == (0,)
    assert ops.cfconv(graph.atoms(0), graph.table(0), pairs).shape == (len(rows), 0)


# ---- spline weights


@pytest.mark.parametrize("distance", [torch.float32, torch.float64])
@DTYPES
def test_spline_weights_of_a_table_that_is_a_polynomial(distance, dtype):
    """Coefficients of d^3 from the blossom of the spline: the filter is d^3, its derivatives too."""
    nodes = (np.arange(N_ROWS) - 2) * STEP
    table = torch.tensor(
        nodes**3 - nodes * STEP**2 * 1.5
    )  # central moments of the B-spline: 1/2 step^2
    d = torch.tensor([0.0, 0.1, 0.25, 1.3, 2.09], dtype=distance)
    bins, weights = ops.spline_weights(d, STEP, CUTOFF, cutoff_pieces("none"), N_ROWS, 5, dtype)
    assert weights.shape == (5, 5, 6) and weights.dtype == dtype and bins.dtype == torch.int32
    rows = table[bins[:, None] + torch.arange(6)].to(dtype)
    values = (weights * rows).sum(2).double()
    x = d.double()
    expected = torch.stack([x**3, 3 * x**2, 6 * x, torch.full_like(x, 6), torch.zeros_like(x)])
    scale = torch.tensor([4.0**n for n in range(5)], dtype=torch.float64)[:, None]
    tolerance = {torch.float64: 1e-13, torch.float32: 2e-5}[dtype]
    assert ((values - expected).abs() <= tolerance * scale).all()


def test_pairs_beyond_the_cutoff_have_no_weight():
    d = torch.tensor([CUTOFF - 1e-3, CUTOFF, CUTOFF + 0.3, 1e6], dtype=torch.float64)
    bins, weights = ops.spline_weights(
        d, STEP, CUTOFF, cutoff_pieces("cosine"), N_ROWS, 4, torch.float64
    )
    assert weights[:, 0].any() and not weights[:, 1:].any()
    assert bins.tolist() == [8, 0, 0, 0]


def test_spline_weights_are_constants_for_autograd():
    d = torch.ones(3, dtype=torch.float64, requires_grad=True)
    bins, weights = ops.spline_weights(
        d, STEP, CUTOFF, cutoff_pieces("cosine"), N_ROWS, 2, torch.float64
    )
    assert not weights.requires_grad and not bins.requires_grad


# ---- half lists


def full_list(graph):
    """The full list of a half list, sorted by center, with shifts that tell the images apart."""
    entries = []
    for p, (i, j) in enumerate(zip(graph.i, graph.j, strict=True)):
        shift = (0, 0, p + 1) if i == j else (0, -p, 0)
        entries += [(i, j, *shift), (j, i, *(-s for s in shift))]
    entries = np.array(sorted(entries), dtype=np.int64).reshape(-1, 5)
    i, j, shifts = entries[:, 0], entries[:, 1], entries[:, 2:]
    shifts = torch.tensor(shifts, dtype=torch.int32)
    return torch.tensor(i), torch.tensor(j), shifts, graph.n_atoms


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=5, max_size=5))
def test_half_list_keeps_each_pair_once(rows):
    i, j, shifts, n_atoms = full_list(Graph(0, rows))
    pairs, row_ptr, half_j = ops.half_list(i, j, shifts, n_atoms)
    assert torch.equal(half_j, j[pairs])
    assert row_ptr[0] == 0 and row_ptr[-1] == len(pairs) == len(i) // 2
    centers = torch.repeat_interleave(torch.arange(n_atoms), row_ptr.diff())
    assert torch.equal(centers, i[pairs])
    keys = {(int(i[p]), int(j[p]), *shifts[p].tolist()) for p in pairs}
    mirrored = {(b, a, -x, -y, -z) for a, b, x, y, z in keys}
    everything = {(int(a), int(b), *s) for a, b, s in zip(i, j, shifts.tolist(), strict=True)}
    assert keys | mirrored == everything and not keys & mirrored


def test_half_list_convolves_like_the_full_list():
    graph = Graph(13)
    i, j, shifts, n_atoms = full_list(graph)
    pairs, row_ptr, half_j = ops.half_list(i, j, shifts, n_atoms)
    d_of = {}
    for p, s in enumerate(shifts.abs().sum(1).tolist()):
        d_of[p] = 0.3 + 0.2 * s  # by the shift, which both ways share
    d = torch.tensor([d_of[p] for p in range(len(i))], dtype=torch.float64)
    x, table = graph.atoms(4), graph.table(4)
    bins, weights = ops.spline_weights(
        d[pairs], STEP, CUTOFF, cutoff_pieces("cosine"), N_ROWS, 1, torch.float64
    )
    half = Pairs(d[pairs], bins, weights, row_ptr, half_j, STEP, CUTOFF, cutoff_pieces("cosine"))
    expected = np.zeros((n_atoms, 4))
    for p in range(len(i)):
        W = reference.spline_filter(table.numpy(), float(d[p]), STEP, CUTOFF, "cosine", 0)
        expected[i[p]] += x[j[p]].numpy() * W
    np.testing.assert_allclose(ops.cfconv(x, table, half).numpy(), expected, atol=1e-12)


# ---- errors


def index(*values):
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize(
    ("i", "j", "shifts", "n_atoms", "error", "message"),
    [
        (index(0, 1).int(), index(1, 0), 2, 2, TypeError, "`idx_i` must be int64"),
        (index(0, 1), index(1, 0).double(), 2, 2, TypeError, "`idx_j` must be int64"),
        (index(0, 1)[:, None], index(1, 0), 2, 2, ValueError, r"`idx_i` must have shape \(n_pairs,\)"),
        (index(0, 1), index(1, 0, 0), 2, 2, ValueError, "`idx_j` must have 2 elements"),
        (index(0, 1), index(1, 0), 3, 2, ValueError, r"`shifts` must have shape \(2, 3\), got \[3, 3\]"),
        (index(0, 1), index(1, 0), None, 2, TypeError, "`shifts` must be int32"),
        (index(0, 1), index(1, 0), 2, -1, ValueError, "`n_atoms` must not be negative"),
        (index(0, 2), index(1, 0), 2, 2, ValueError, "`idx_i` must lie between 0 and 1, got 2"),
        (index(-1, 1), index(1, 0), 2, 2, ValueError, "`idx_i` must lie between 0 and 1, got -1"),
        (index(0, 1), index(1, 2), 2, 2, ValueError, "`idx_j` must lie between 0 and 1, got 2"),
        (index(1, 0), index(0, 1), 2, 2, ValueError, "`idx_i` must be sorted, got 0 after 1"),
        (index(0, 0), index(0, 0), 2, 2, ValueError, "`idx_j` must not pair an atom with itself"),
        (index(0), index(1), 1, 2, ValueError, "every pair both ways, got an odd number, 1"),
        (index(0, 0), index(1, 1), 2, 2, ValueError, "every pair both ways, got more than 1 of 2"),
        (index(1, 1), index(0, 0), 2, 2, ValueError, "every pair both ways, got 0 of 2 one way"),
    ],
)  # fmt: skip
def test_half_list_errors(i, j, shifts, n_atoms, error, message):
    shifts = torch.zeros((2, 3)) if shifts is None else torch.zeros((shifts, 3), dtype=torch.int32)
    with pytest.raises(error, match=message):
        ops.half_list(i, j, shifts, n_atoms)


def spline_arguments(**changed):
    good = {
        "d_ij": torch.ones(2, dtype=torch.float64),
        "step": STEP,
        "cutoff": CUTOFF,
        "cutoff_pieces": cutoff_pieces("cosine"),
        "n_rows": N_ROWS,
        "n_orders": 2,
        "dtype": torch.float64,
    }
    return tuple((good | changed).values())


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"d_ij": torch.ones(2, 1)}, ValueError, r"`d_ij` must have shape \(n_pairs,\)"),
        ({"d_ij": index(1, 2)}, TypeError, "`d_ij` must be float32 or float64, got Long"),
        ({"d_ij": torch.tensor([1, math.nan])}, ValueError, "`d_ij` must be finite and not negative, got nan for pair 1"),
        ({"d_ij": torch.tensor([math.inf])}, ValueError, "`d_ij` must be finite and not negative, got inf"),
        ({"d_ij": torch.tensor([-0.5])}, ValueError, "`d_ij` must be finite and not negative, got -0.5"),
        ({"d_ij": torch.tensor([2.05]), "n_rows": 13}, ValueError, "`d_ij` must lie within the table, which ends at 2"),
        ({"step": 0.3}, ValueError, "`step` must be a power of two, got 0.3"),
        ({"cutoff": -1.0}, ValueError, "`cutoff` must be positive and finite, got -1"),
        ({"cutoff_pieces": torch.ones(3).double()}, ValueError, r"`cutoff_pieces` must have shape \(n_pieces, n_coefficients\), got \[3\]"),
        ({"cutoff_pieces": torch.ones(0, 3).double()}, ValueError, "`cutoff_pieces` must have shape"),
        ({"cutoff_pieces": torch.ones(1, 3)}, TypeError, "`cutoff_pieces` must be float64, got Float"),
        ({"n_rows": 5}, ValueError, "`table` must have at least 6 rows, got 5"),
        ({"n_orders": 0}, ValueError, "`n_orders` must lie between 1 and 9, got 0"),
        ({"n_orders": 10}, ValueError, "`n_orders` must lie between 1 and 9, got 10"),
        ({"dtype": torch.float16}, TypeError, "`dtype` must be float32 or float64, got Half"),
    ],
)  # fmt: skip
def test_spline_weights_errors(changed, error, message):
    with pytest.raises(error, match=message):
        ops.spline_weights(*spline_arguments(**changed))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x": torch.ones(5, 4).long()}, TypeError, "`x` must be float32 or float64, got Long"),
        ({"x": torch.ones(4, 4).double()}, ValueError, r"`x` must have shape \(5, 4\), got \[4, 4\]"),
        ({"table": torch.ones(14, 4)}, TypeError, "`table` must have the dtype of `x`, Double, got Float"),
        ({"table": torch.ones(14, 3).double()}, ValueError, r"`table` must have shape \(n_rows, n_features\)"),
        ({"table": torch.ones(6, 4).double()}, ValueError, "`bins` must lie between 0 and 0, six below"),
        ({"d_ij": torch.ones(6, 1).double()}, ValueError, r"`d_ij` must have shape \(n_pairs,\)"),
        ({"d_ij": torch.ones(6)}, TypeError, "`d_ij` must be float64 or have the dtype of `x`, Double, got Float"),
        ({"bins": torch.zeros(6).long()}, TypeError, "`bins` must be int32, got Long"),
        ({"bins": torch.zeros(5).int()}, ValueError, r"`bins` must have shape \(6,\) like `d_ij`, got \[5\]"),
        ({"bins": torch.full((6,), -1).int()}, ValueError, "`bins` must lie between 0 and 8, .*, got -1"),
        ({"bins": torch.full((6,), 9).int()}, ValueError, "`bins` must lie between 0 and 8, .*, got 9"),
        ({"weights": torch.ones(2, 6, 6)}, TypeError, "`weights` must have the dtype of `x`"),
        ({"weights": torch.ones(2, 5, 6).double()}, ValueError, r"`weights` must have shape \(n_orders, 6, 6\)"),
        ({"weights": torch.ones(6, 6).double()}, ValueError, r"`weights` must have shape \(n_orders, 6, 6\)"),
        ({"row_ptr": index(0, 6).int()}, TypeError, "`row_ptr` must be int64, got Int"),
        ({"row_ptr": index()}, ValueError, r"`row_ptr` must have shape \(n_atoms \+ 1,\)"),
        ({"row_ptr": index(0, 1, 2, 3, 4, 5)}, ValueError, "`row_ptr` must ascend from 0 to the number of pairs, 6, got 0 to 5"),
        ({"idx_j": torch.zeros(6).int()}, TypeError, "`idx_j` must be int64, got Int"),
        ({"idx_j": torch.zeros(7).long()}, ValueError, r"`idx_j` must have shape \(6,\) like `d_ij`, got \[7\]"),
        ({"cutoff_pieces": torch.ones(1, 3)}, TypeError, "`cutoff_pieces` must be float64, got Float"),
    ],
)  # fmt: skip
def test_cfconv_errors(changed, error, message):
    graph = Graph(14)
    arguments = {"x": graph.atoms(4), "table": graph.table(4)} | graph.pairs()._asdict() | changed
    x, table, *pairs = arguments.values()
    with pytest.raises(error, match=message):
        ops.cfconv(x, table, Pairs(*pairs))


def test_errors_of_the_other_operators():
    graph = Graph(15)
    pairs, x, table, v = graph.pairs(), graph.atoms(4), graph.table(4), graph.factors()
    single, wide = x.float(), graph.atoms(5)
    for error, message, call in [
        (TypeError, "`y_bar` must have the dtype of `x`", lambda: ops.cfconv_backward(single, x, table, pairs)),
        (ValueError, "`y_bar` must have shape", lambda: ops.cfconv_backward(wide, x, table, pairs)),
        (ValueError, "`u` must have shape", lambda: ops.cfconv_double_backward(wide, v, x, table, pairs)),
        (ValueError, "`v` must have shape", lambda: ops.cfconv_double_backward(x, v[1:], x, table, pairs)),
        (TypeError, "`v` must have the dtype", lambda: ops.cfconv_derivative(x, v.float(), table, pairs, 1)),
        (ValueError, "`order` must lie between 0 and 8, got 9", lambda: ops.cfconv_derivative(x, v, table, pairs, 9)),
        (ValueError, "`order` must lie between 0 and 8, got -1", lambda: ops.cfconv_dot(x, x, table, pairs, -1)),
        (ValueError, "`b` must have shape", lambda: ops.cfconv_dot(x, wide, table, pairs, 0)),
        (ValueError, "`b` must have shape", lambda: ops.cfconv_table_gradient(x, wide, None, pairs, N_ROWS, 0)),
        (ValueError, "`bins` must lie", lambda: ops.cfconv_table_gradient(x, x, None, pairs, 7, 0)),
        (ValueError, "`x` must have shape", lambda: ops.cfconv_backward_table_gradient(x, v, x, x[1:], pairs, N_ROWS)),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            call()


def test_an_unusable_order_is_named_in_a_high_derivative():
    """Distances that are bad only show when further orders are computed from them."""
    graph = Graph(16)
    pairs, x, table = graph.pairs(), graph.atoms(4), graph.table(4)
    bad = pairs._replace(d_ij=torch.full_like(pairs.d_ij, math.nan))
    with pytest.raises(ValueError, match="`d_ij` must be finite"):
        ops.cfconv_derivative(x, None, table, bad, 3)


# ---- the core


def compile_core(compiler, source, isa, output, *flags):
    command = [compiler, "-std=c++20", "-fPIC", "-ffp-contract=fast", *FLAGS[isa], *flags]
    command += [f"-DSCSCHNET_KERNELS=kernels_{isa}", "-c", str(CORE / "cpu" / source)]
    subprocess.run([*command, "-o", str(output)], check=True)


def instruction_sets(compiler):
    machine = subprocess.run(
        [compiler, "-dumpmachine"], capture_output=True, text=True, check=True
    ).stdout
    return list(FLAGS) if machine.startswith("x86_64") else ["generic"]


@pytest.mark.slow
def test_vector_code_exports_one_symbol(tmp_path):
    """See test_core_build: no code for newer CPUs may be linked into code for all."""
    compiler, nm = shutil.which("c++"), shutil.which("nm")
    if compiler is None or nm is None:
        pytest.skip("no C++ compiler or nm")
    for isa in instruction_sets(compiler):
        for name in ("cfconv", "filter_table", "spline"):
            output = tmp_path / f"{name}_{isa}.o"
            compile_core(compiler, f"{name}_isa.cpp", isa, output, "-O0")
            listing = subprocess.run(
                [nm, "-C", "--defined-only", "--extern-only", str(output)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.splitlines()
            assert [line.split()[-1] for line in listing] == [
                f"scschnet::cpu::{name}_kernels_{isa}"
            ]


@pytest.mark.slow
def test_core_in_cpp(tmp_path):
    """csrc/tests/test_cfconv.cpp: every pass, instruction set and type against loops."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    sets = instruction_sets(compiler)
    objects = []
    for isa in sets:
        for name in ("cfconv", "spline"):
            objects.append(tmp_path / f"{name}_{isa}.o")
            compile_core(compiler, f"{name}_isa.cpp", isa, objects[-1], "-O1")
        objects.append(tmp_path / f"kernels_{isa}.o")  # what isa.cpp refers to
        compile_core(compiler, "kernels_isa.cpp", isa, objects[-1], "-O0")
    program = tmp_path / "test_cfconv"
    command = [compiler, "-std=c++20", "-O1", "-o", str(program), *map(str, objects)]
    command += ["-DSCSCHNET_X86"] if len(sets) > 1 else []
    command += [str(CORE / "cpu" / f"{name}.cpp") for name in ("isa", "cfconv", "spline")]
    command.append(str(CORE.parent / "tests/test_cfconv.cpp"))
    subprocess.run(command, check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "cfconv: ok"
