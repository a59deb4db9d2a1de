"""The fused operator `schnet` against twins in plain torch: the same table, and the dense model."""

import math

import pytest
import torch
from torch import Tensor, nn

import scschnet.ops  # loads the operators

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

    def spline(self, dtype: torch.dtype) -> Tensor:
        """(2, n_pairs, 6): of the filter and its derivative."""

        d = self.d.clone().requires_grad_()
        w = spline_weights(d, self.bins)
        z = [torch.autograd.grad(w[:, m].sum(), d, retain_graph=True)[0] for m in range(6)]
        w, z = w.detach(), torch.stack(z, 1)
        return torch.stack([w, z]).to(dtype)

    def fused(self, leaves: list[Tensor], derivatives: bool = True):
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
        )

    def twin(self, leaves: list[Tensor], spline: Tensor) -> tuple[Tensor, Tensor]:
        """Readout and norms, with the weights of the filter given."""
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
        w1, c1, w2, c2 = parameters[-4:]
        return (ssp(out @ w1.T + c1) @ w2.T + c2).squeeze(1), torch.stack(norms)

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
    g, g_d, norms = case.fused(ours)
    g_twin, g_d_twin, norms_twin = case.twin_with_derivatives(theirs)
    assert distance(g, g_twin) < 1e-12
    assert distance(g_d, g_d_twin) < 1e-11
    assert distance(norms, norms_twin) < 1e-12 and not norms.requires_grad
    got = gradients(case.loss(g, g_d), ours)
    expected = gradients(case.loss(g_twin, g_d_twin), theirs)
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.shape == b.shape and distance(a, b) < 1e-11, k
