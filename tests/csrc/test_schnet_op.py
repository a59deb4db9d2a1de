"""The fused operator `schnet` against twins in plain torch: the same table, and the dense model."""

import math

import numpy as np
import pytest
import torch
from conftest import make_model, make_structures
from torch import Tensor, nn

from scschnet.data import collate

STEP, CUTOFF = 0.125, 3.0
N_ROWS = int(CUTOFF / STEP) + 6


def spline_weights(d: Tensor, bins: Tensor) -> Tensor:
    """Cosine cutoff times the six quintic B-splines at d, (n_pairs, 6), with a fixed bin."""
    t = d / STEP - bins
    s = 1 - t
    b0, b5 = s**5, t**5
    b1 = 26 + t * (-50 + t * (20 + t * (20 + t * (-20 + 5 * t))))
    b2 = 66 + t**2 * (-60 + t**2 * (30 - 10 * t))
    b4 = 1 + t * (5 + t * (10 + t * (10 + t * (5 - 5 * t))))
    b3 = 120 - b0 - b1 - b2 - b4 - b5
    envelope = 0.5 * (1 + torch.cos(d * (math.pi / CUTOFF))) * (d < CUTOFF)
    return torch.stack([b0, b1, b2, b3, b4, b5], 1) / 120 * envelope[:, None]


class Case:
    """A random half list, tables and parameters."""

    def __init__(self, n_atoms=11, n_pairs=30, n_features=20, n_blocks=2, seed=0, plain=False):
        g = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        if n_pairs:  # the last atom stays alone; atoms may pair with themselves and several times
            i = torch.randint(0, n_atoms - 1, (n_pairs,), generator=g).sort().values
            self.idx_j = torch.randint(0, n_atoms - 1, (n_pairs,), generator=g)
        else:
            i = self.idx_j = torch.zeros(0, dtype=torch.int64)
        self.idx_i = i
        self.row_ptr = torch.searchsorted(i, torch.arange(n_atoms + 1)).to(torch.int64)
        self.d = 0.6 + 2.6 * torch.rand(n_pairs, generator=g, dtype=torch.float64)
        self.bins = torch.where(self.d < CUTOFF, self.d / STEP, 0.0).floor().to(torch.int32)
        f, h = n_features, max(n_features // 2, 1)
        self.features = normal(n_atoms, f)
        self.tables = 0.3 * normal(n_blocks, N_ROWS, f)
        self.weights = torch.ones(n_blocks + 1).double() if plain else normal(n_blocks + 1)
        self.parameters = []
        for _ in range(n_blocks):
            square = [normal(f, f) / f**0.5 for _ in range(3)]
            self.parameters += [square[0], square[1], normal(f), square[2], normal(f)]
        self.parameters += [normal(h, f) / f**0.5, normal(h), normal(1, h) / h**0.5, normal(1)]
        self.g_bar, self.v = normal(n_atoms), normal(n_pairs)

    def leaves(self, dtype: torch.dtype) -> list[Tensor]:
        values = [self.features, self.tables, self.weights, *self.parameters]
        return [t.detach().to(dtype).clone().requires_grad_() for t in values]

    @torch.enable_grad()
    def spline(self, dtype: torch.dtype) -> Tensor:
        """(2, n_pairs, 6): of the filter and its derivative."""

        d = self.d.clone().requires_grad_()
        w = spline_weights(d, self.bins)
        z = [torch.autograd.grad(w[:, m].sum(), d, retain_graph=True)[0] for m in range(6)]
        w, z = w.detach(), torch.stack(z, 1)
        return torch.stack([w, z]).to(dtype)

    def fused(
        self,
        leaves: list[Tensor],
        derivatives: bool = True,
        representation: bool = False,
        partners: Tensor | None = None,
    ):
        features, tables, weights, *parameters = leaves
        return torch.ops.scschnet.schnet(
            features,
            self.row_ptr,
            self.idx_j,
            self.bins,
            self.spline(features.dtype),
            tables,
            weights,
            parameters,
            derivatives,
            representation,
            partners=partners,
        )[:4]

    def twin_representation(self, leaves: list[Tensor]) -> Tensor:
        out, _ = self.twin_layers(leaves, spline_weights(self.d, self.bins))
        return out

    def twin(self, leaves: list[Tensor], spline: Tensor) -> tuple[Tensor, Tensor]:
        """Readout and norms, with the weights of the filter given."""
        out, norms = self.twin_layers(leaves, spline)
        w1, c1, w2, c2 = leaves[-4:]
        return (ssp(out @ w1.T + c1) @ w2.T + c2).squeeze(1), norms

    def twin_layers(self, leaves: list[Tensor], spline: Tensor) -> tuple[Tensor, Tensor]:
        """x^out, and the norms of the corrections."""
        x, tables, weights, *parameters = leaves
        out, norms = weights[0] * x, [x.norm(dim=1)]
        rows = self.bins.long()[:, None] + torch.arange(6)
        i, j = torch.cat([self.idx_i, self.idx_j]), torch.cat([self.idx_j, self.idx_i])
        for block, table in enumerate(tables):
            w_in, b1, c1, b2, c2 = parameters[5 * block : 5 * block + 5]
            filters = torch.einsum("pm,pmf->pf", spline, table[rows])
            message = (x @ w_in.T)[j] * torch.cat([filters, filters])
            y = torch.zeros_like(x).index_add(0, i, message)
            v = ssp(y @ b1.T + c1) @ b2.T + c2
            x = x + v
            out = out + weights[block + 1] * v
            norms.append(v.norm(dim=1))
        return out, torch.stack(norms)

    def twin_with_derivatives(self, leaves: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        d = self.d.clone().requires_grad_()
        g, norms = self.twin(leaves, spline_weights(d, self.bins))
        (g_d,) = torch.autograd.grad(g.sum(), d, create_graph=True, allow_unused=True)
        return g, torch.zeros_like(d) if g_d is None else g_d, norms

    def loss(self, g: Tensor, g_d: Tensor) -> Tensor:
        return (self.g_bar.to(g) * g + g**2).sum() + (self.v.to(g) * g_d + g_d**2).sum()


def ssp(x: Tensor) -> Tensor:
    return nn.functional.softplus(x) - math.log(2.0)


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(grads, leaves, strict=True)]


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference in units of the largest value of b."""
    if b.numel() == 0:
        return 0.0
    scale = max(b.abs().max().item(), 1e-3)
    return (a.double() - b.double()).abs().max().item() / scale


CASES = {
    "two blocks": {},
    "one block": {"n_blocks": 1},
    "no block": {"n_blocks": 0},
    "six blocks, 128 features": {"n_blocks": 6, "n_features": 128, "n_atoms": 9, "n_pairs": 36},
    "no pairs": {"n_pairs": 0},
    "no atoms": {"n_atoms": 0, "n_pairs": 0},
    "one feature": {"n_features": 1},
    "several row blocks": {"n_atoms": 211, "n_pairs": 900, "n_features": 48, "n_blocks": 3},
    "ragged": {"n_atoms": 103, "n_pairs": 500, "n_features": 70},
    "plain skip": {"plain": True},
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_twin_with_the_same_table(name):
    case = Case(**CASES[name])
    ours, theirs = case.leaves(torch.float64), case.leaves(torch.float64)
    g, g_d, norms, _ = case.fused(ours)
    g_twin, g_d_twin, norms_twin = case.twin_with_derivatives(theirs)
    assert distance(g, g_twin) < 1e-12
    assert distance(g_d, g_d_twin) < 1e-11
    assert distance(norms, norms_twin) < 1e-12 and not norms.requires_grad
    got = gradients(case.loss(g, g_d), ours)
    expected = gradients(case.loss(g_twin, g_d_twin), theirs)
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.shape == b.shape and distance(a, b) < 1e-11, k


@pytest.mark.parametrize("skip", ["weighted", "plain"])
@pytest.mark.parametrize("n_interactions", [1, 6])
def test_training_step_equals_the_dense_model(skip, n_interactions):
    structures = make_structures(3)
    batch = collate(structures, np.arange(len(structures)), 4.0)
    results = []
    for filters in ("dense", "spline"):
        model = make_model(skip=skip, n_interactions=n_interactions, filters=filters)
        model.filter_step = 2.0**-7
        result = model(**batch.inputs)
        loss = result["energy"].square().sum() + (result["forces"] + 0.1).square().sum()
        loss.backward()
        gradients_ = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        results.append([result["energies"], result["forces"], *gradients_.values()])
    for dense, fused in zip(*results, strict=True):
        assert distance(fused, dense) < 1e-9


@pytest.mark.parametrize("name", ["two blocks", "no block", "ragged", "no pairs"])
def test_energies_alone(name):
    case = Case(**CASES[name])
    ours, theirs = case.leaves(torch.float64), case.leaves(torch.float64)
    g, g_d, norms, _ = case.fused(ours, derivatives=False)
    assert g_d.shape == (0,)
    g_twin, norms_twin = case.twin(theirs, case.spline(torch.float64)[0])
    assert distance(g, g_twin) < 1e-12 and distance(norms, norms_twin) < 1e-12
    got = gradients((case.g_bar * g + g**2).sum(), ours)
    expected = gradients((case.g_bar * g_twin + g_twin**2).sum(), theirs)
    assert max(map(distance, got, expected)) < 1e-11


@pytest.mark.parametrize("only", ["g", "g_d"])
def test_a_loss_of_one_output(only):
    case = Case()
    ours, theirs = case.leaves(torch.float64), case.leaves(torch.float64)
    g, g_d, _, _ = case.fused(ours)
    g_twin, g_d_twin, _ = case.twin_with_derivatives(theirs)
    if only == "g":
        got, expected = gradients(g @ case.g_bar, ours), gradients(g_twin @ case.g_bar, theirs)
    else:
        got, expected = gradients(g_d @ case.v, ours), gradients(g_d_twin @ case.v, theirs)
    assert max(map(distance, got, expected)) < 1e-11


@pytest.mark.parametrize("name", ["six blocks, 128 features", "several row blocks", "ragged"])
def test_float32_errs_no_more_than_twice_plain_torch(name):
    case = Case(**CASES[name])
    exact = case.leaves(torch.float64)
    exact_g, exact_g_d, _ = case.twin_with_derivatives(exact)
    exact_gradients = gradients(case.loss(exact_g, exact_g_d), exact)

    fused = case.leaves(torch.float32)
    fused_g, fused_g_d, _, _ = case.fused(fused)
    plain = case.leaves(torch.float32)
    plain_g, plain_g_d = plain_float32(case, plain)

    def error(values: list[Tensor]) -> float:
        """Root mean square over all tensors, each in units of its own size."""
        references = [exact_g, exact_g_d, *exact_gradients]
        squares = [
            ((a.double() - b).square().mean() / b.square().mean()).item()
            for a, b in zip(values, references, strict=True)
        ]
        return math.sqrt(sum(squares) / len(squares))

    ours = error([fused_g, fused_g_d, *gradients(case.loss(fused_g, fused_g_d), fused)])
    theirs = error([plain_g, plain_g_d, *gradients(case.loss(plain_g, plain_g_d), plain)])
    assert 1e-8 < ours < 2 * theirs


def plain_float32(case: Case, leaves: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The twin in float32 with the same weights per pair, W' entering as the gradient of W in a dummy."""
    w, z = case.spline(torch.float32)
    t = torch.zeros(len(case.d), requires_grad=True)
    g, _ = case.twin(leaves, w + t[:, None] * z)
    (g_d,) = torch.autograd.grad(g.sum(), t, create_graph=True)
    return g, g_d


def test_gradients_equal_finite_differences():
    case = Case(n_atoms=6, n_pairs=9, n_features=6)
    leaves = case.leaves(torch.float64)
    got = gradients(case.loss(*case.fused(leaves)[:2]), leaves)
    generator = torch.Generator().manual_seed(1)
    for leaf, gradient in zip(leaves, got, strict=True):
        direction = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        values = []
        for h in (-2e-4, -1e-4, 1e-4, 2e-4):
            with torch.no_grad():
                moved = [t + h * direction if t is leaf else t for t in leaves]
                values.append(case.loss(*case.fused(moved)[:2]).item())
        slope = (8 * (values[2] - values[1]) - (values[3] - values[0])) / 12e-4
        assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-7, abs=1e-7)


def test_inference_equals_training_to_the_bit():
    case = Case(**CASES["several row blocks"])
    leaves = case.leaves(torch.float32)
    with torch.no_grad():
        frozen = case.fused(leaves)
    for a, b in zip(case.fused(leaves), frozen, strict=True):
        assert torch.equal(a, b) and not b.requires_grad


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_do_not_depend_on_run_or_threads(threads, dtype):
    case = Case(**CASES["several row blocks"])
    results = []
    for n_threads in (1, 1, 2, 3):
        threads(n_threads)
        leaves = case.leaves(dtype)
        g, g_d, norms, _ = case.fused(leaves)
        results.append([g, g_d, norms, *gradients(case.loss(g, g_d), leaves)])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_backward_may_run_again_and_memory_is_not_shared():
    case = Case(**CASES["several row blocks"])
    leaves = case.leaves(torch.float32)
    g, g_d, _, _ = case.fused(leaves)
    loss = case.loss(g, g_d)
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    kept = [t.clone() for t in first]
    other = Case(**CASES["several row blocks"], seed=5)
    other_leaves = other.leaves(torch.float32)
    gradients(other.loss(*other.fused(other_leaves)[:2]), other_leaves)
    again = torch.autograd.grad(loss, leaves)
    assert all(map(torch.equal, first, kept)) and all(map(torch.equal, first, again))


def test_inputs_need_not_be_contiguous():
    case = Case()
    leaves = case.leaves(torch.float64)
    expected = case.fused(leaves)
    with torch.no_grad():
        strided = [torch.stack([t, t], -1)[..., 0] for t in leaves]
    assert not strided[0].is_contiguous()
    for a, b in zip(case.fused(strided), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["two blocks", "no block", "several row blocks", "no pairs"])
def test_the_representation_and_its_gradients(name):
    """x^out against the twin, alone and beside the readout, whose gradients it must not disturb."""
    case = Case(**CASES[name])
    leaves, twins = case.leaves(torch.float64), case.leaves(torch.float64)
    g, g_d, _, out = case.fused(leaves, representation=True)
    expected = case.twin_representation(twins)
    assert distance(out, expected) < 1e-13
    cotangent = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(3))
    alone = gradients((cotangent * out).sum(), leaves[:3] + leaves[3:-4])
    of_twin = gradients((cotangent * expected).sum(), twins[:3] + twins[3:-4])
    for got, wanted in zip(alone, of_twin, strict=True):
        assert distance(got, wanted) < 1e-12
    leaves, twins = case.leaves(torch.float64), case.leaves(torch.float64)
    g, g_d, _, out = case.fused(leaves, representation=True)
    both = gradients(case.loss(g, g_d) + (cotangent * out).sum(), leaves)
    g, g_d, _ = case.twin_with_derivatives(twins)
    loss = case.loss(g, g_d) + (cotangent * case.twin_representation(twins)).sum()
    for got, wanted in zip(both, gradients(loss, twins), strict=True):
        assert distance(got, wanted) < 1e-11


def test_third_derivatives_are_refused():
    case = Case()
    leaves = case.leaves(torch.float64)
    loss = case.loss(*case.fused(leaves)[:2])
    (gradient,) = torch.autograd.grad(loss, leaves[1], create_graph=True)
    with pytest.raises(NotImplementedError, match="composed path"):
        gradient.sum().backward()


OPCHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)


@pytest.mark.parametrize("derivatives", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, from its tracer
def test_opcheck(derivatives):
    case = Case(n_atoms=5, n_pairs=7, n_features=6, n_blocks=1)
    features, tables, weights, *parameters = case.leaves(torch.float64)
    arguments = (
        features,
        case.row_ptr,
        case.idx_j,
        case.bins,
        case.spline(torch.float64),
        tables,
        weights,
        parameters,
        derivatives,
    )
    torch.library.opcheck(torch.ops.scschnet.schnet, arguments, test_utils=OPCHECKS)
    torch.library.opcheck(torch.ops.scschnet.schnet, (*arguments, True), test_utils=OPCHECKS)
    detached = torch.utils._pytree.tree_map_only(Tensor, Tensor.detach, arguments)
    state = torch.ops.scschnet.schnet(*detached, False, True)[4]
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.scschnet.schnet_backward,
        (case.g_bar, case.v if derivatives else None, detached[0], state, *detached),
        test_utils=utilities,
    )


@pytest.mark.parametrize("gradients", [True, False])
def test_partners_are_for_gpus(gradients):
    case, partners = Case(), torch.zeros(8, dtype=torch.uint8)
    with (
        torch.set_grad_enabled(gradients),
        pytest.raises(ValueError, match="`partners` are for GPUs only, got some on cpu"),
    ):
        case.fused(case.leaves(torch.float64), partners=partners)


WRONG = {
    "features": (lambda a: a[0][:, 0], ValueError, "`features` must have shape"),
    "features dtype": (lambda a: a[0].half(), TypeError, "`features` must be float32 or float64"),
    "row_ptr": (lambda a: a[1][:-1], ValueError, "`row_ptr` must have 12 entries"),
    "row_ptr order": (lambda a: a[1].flip(0), ValueError, "`row_ptr` must ascend"),
    "idx_j": (lambda a: a[2] + 11, ValueError, "`idx_j` must lie between"),
    "idx_j dtype": (lambda a: a[2].int(), TypeError, "`idx_j` must be Long"),
    "bins": (lambda a: a[3] + N_ROWS, ValueError, "`bins` must lie between"),
    "bins number": (lambda a: a[3][:-1], ValueError, "`bins` must have one entry per pair"),
    "weights": (lambda a: a[4][:1], ValueError, "`weights` must have at least 2 orders"),
    "weights dtype": (lambda a: a[4].float(), TypeError, "`weights` must be Double"),
    "tables": (lambda a: a[5][:, :4], ValueError, "`tables` must have shape"),
    "contribution_weights": (lambda a: a[6][1:], ValueError, "`contribution_weights` must have"),
    "parameters": (lambda a: a[7][1:], ValueError, "`parameters` must hold 5 tensors"),
    "parameter shape": (
        lambda a: [a[7][2], *a[7][1:]],
        ValueError,
        "`parameters` must have shape",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named(name):
    case = Case()
    features, tables, weights, *parameters = case.leaves(torch.float64)
    spline = case.spline(torch.float64)
    arguments = [features, case.row_ptr, case.idx_j, case.bins, spline, tables, weights, parameters]
    change, error, message = WRONG[name]
    position = ["features", "row_ptr", "idx_j", "bins", "weights", "tables", "contribution_weights"]
    word = name.split()[0]
    arguments[position.index(word) if word in position else 7] = change(arguments)
    with pytest.raises(error, match=message):
        torch.ops.scschnet.schnet(*arguments, True)
