"""docs/derivation.md is true: its program prints what it says, and its passes, written out, are the operator's."""

import math
import re
from pathlib import Path

import torch
from torch import Tensor

from scschnet import ops
from scschnet.nn.cutoff import CosineCutoff

PAGE = (Path(__file__).parents[2] / "docs/derivation.md").read_text()


def test_the_errors_of_tables_are_as_printed(capsys):
    """Up to the rounding to one digit and that of instruction sets."""
    (program, printed) = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", PAGE, re.S)[0]
    exec(compile(program, "docs/derivation.md", "exec"), {})
    found, expected = capsys.readouterr().out.splitlines(), printed.splitlines()
    assert len(found) == len(expected) == 5
    number = r"\d+e-\d+"
    for line, wanted in zip(found, expected, strict=True):
        assert re.sub(number, "", line) == re.sub(number, "", wanted)
        values = zip(re.findall(number, line), re.findall(number, wanted), strict=True)
        assert all(0.6 < float(a) / float(b) < 1.7 for a, b in values), line


N_ATOMS, N_FEATURES, N_HIDDEN, N_BLOCKS, N_ROWS = 7, 6, 3, 3, 38


def ssp(z: Tensor) -> Tensor:
    return torch.nn.functional.softplus(z) - math.log(2.0)


class Case:
    """A small network with random parameters, a half list, and the filters of its pairs."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return 0.5 * torch.randn(*shape, dtype=torch.float64, generator=generator)

        rows = [[j for j in range(i + 1, N_ATOMS) if (i + j) % 3] for i in range(N_ATOMS)]
        self.i = torch.tensor([i for i, row in enumerate(rows) for _ in row])
        self.j = torch.tensor([j for row in rows for j in row])
        counts = torch.tensor([0] + [len(row) for row in rows])
        self.row_ptr = counts.cumsum(0)
        d = 0.2 + 3.5 * torch.rand(len(self.i), dtype=torch.float64, generator=generator)
        pieces = CosineCutoff(4.0).pieces
        self.bins, self.weights = ops.spline_weights(d, 0.125, 4.0, pieces, N_ROWS, 2, d.dtype)
        self.x_0, self.tables = random(N_ATOMS, N_FEATURES), random(N_BLOCKS, N_ROWS, N_FEATURES)
        self.w, square = random(N_BLOCKS + 1), (N_FEATURES, N_FEATURES)
        shapes = [square, square, square[:1], square, square[:1]] * N_BLOCKS
        shapes += [(N_HIDDEN, N_FEATURES), (N_HIDDEN,), (1, N_HIDDEN), (1,)]
        self.parameters = [random(*shape) for shape in shapes]
        self.g_bar, self.v = random(N_ATOMS), random(len(d))
        self.out_cotangent = random(N_ATOMS, N_FEATURES)
        self.touched = self.bins[:, None] + torch.arange(6)
        self.filters, self.slopes = torch.einsum(
            "npm,lpmf->nlpf", self.weights, self.tables[:, self.touched]
        )

    def by_operator(self) -> tuple[Tensor, list[Tensor]]:
        """d_bar, and the gradients of S."""
        leaves = [self.x_0, self.tables, self.w, *self.parameters]
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        x_0, tables, w, *parameters = leaves
        pairs = (self.row_ptr, self.j, self.bins, self.weights)
        g, d_bar, _, out = ops.schnet(x_0, *pairs, tables, w, parameters, True, True)
        s = self.g_bar @ g + self.v @ d_bar + (self.out_cotangent * out).sum()
        return d_bar.detach(), list(torch.autograd.grad(s, leaves))

    def convolve(self, x: Tensor, filters: Tensor) -> Tensor:
        """Section 6: every pair of the half list adds to both of its atoms."""
        y = torch.zeros_like(x).index_add(0, self.i, x[self.j] * filters)
        return y.index_add(0, self.j, x[self.i] * filters)

    def both(self, a: Tensor, b: Tensor) -> Tensor:
        return a[self.i] * b[self.j] + a[self.j] * b[self.i]


def test_the_passes_are_those_of_the_operator():
    """Sections 1 to 4, line by line and under the page's names, against d_bar and all gradients."""
    case = Case()
    d_bar_expected, expected = case.by_operator()
    convolve, both, slope = case.convolve, case.both, torch.sigmoid
    W, W1, w, v = case.filters, case.slopes, case.w, case.v[:, None]
    *dense, C1, c, C2, _ = case.parameters
    W_in, B1, c1, B2, c2 = (dense[part::5] for part in range(5))
    blocks, zero = range(N_BLOCKS), torch.zeros_like(case.x_0)

    # 1, forward
    x, corrections, h, y, z, s = [case.x_0], [case.x_0], [], [], [], []
    for k in blocks:
        h.append(x[k] @ W_in[k].T)
        y.append(convolve(h[k], W[k]))
        z.append(y[k] @ B1[k].T + c1[k])
        s.append(ssp(z[k]))
        corrections.append(s[k] @ B2[k].T + c2[k])
        x.append(x[k] + corrections[-1])
    out = torch.einsum("l,lif->if", w, torch.stack(corrections))
    p = out @ C1.T + c

    # 2, derivative
    p_bar = slope(p) * C2
    out_bar, x_bar, d_bar = p_bar @ C1, zero, torch.zeros_like(case.v)
    v_bar, z_bar, y_bar, h_bar = ([zero] * N_BLOCKS for _ in range(4))
    for k in reversed(blocks):
        v_bar[k] = w[k + 1] * out_bar + x_bar
        z_bar[k] = slope(z[k]) * (v_bar[k] @ B2[k])
        y_bar[k] = z_bar[k] @ B1[k]
        h_bar[k] = convolve(y_bar[k], W[k])
        d_bar += (both(y_bar[k], h[k]) * W1[k]).sum(1)
        x_bar = x_bar + h_bar[k] @ W_in[k]
    torch.testing.assert_close(d_bar, d_bar_expected, rtol=1e-12, atol=1e-13)

    # 3, tangent
    x_dot, h_dot, y_dot, z_dot, s_dot, v_dot = [zero], [], [], [], [], []
    for k in blocks:
        h_dot.append(x_dot[k] @ W_in[k].T)
        y_dot.append(convolve(h_dot[k], W[k]) + convolve(h[k], v * W1[k]))
        z_dot.append(y_dot[k] @ B1[k].T)
        s_dot.append(slope(z[k]) * z_dot[k])
        v_dot.append(s_dot[k] @ B2[k].T)
        x_dot.append(x_dot[k] + v_dot[k])
    out_dot = torch.einsum("l,lif->if", w[1:], torch.stack(v_dot))
    q_dot = slope(p) * (out_dot @ C1.T)
    torch.testing.assert_close((C2 * q_dot).sum(), case.v @ d_bar, rtol=1e-12, atol=1e-13)

    # 3, reverse, and 4, the gradient of the tables
    g_bar = case.g_bar[:, None]
    lambda_p = slope(p) * g_bar * C2 + p_bar * (out_dot @ C1.T) * (1 - slope(p))
    lambda_out, lambda_x = lambda_p @ C1 + case.out_cotangent, zero
    of_tables, of_w = torch.zeros_like(case.tables), torch.zeros_like(w)
    of_dense: list[Tensor] = []
    for k in reversed(blocks):
        lambda_v = w[k + 1] * lambda_out + lambda_x
        lambda_z = slope(z[k]) * (lambda_v @ B2[k]) + z_bar[k] * z_dot[k] * (1 - slope(z[k]))
        lambda_y = lambda_z @ B1[k]
        lambda_h = convolve(lambda_y, W[k]) + convolve(y_bar[k], v * W1[k])
        of_W = both(lambda_y, h[k]) + both(h_dot[k], y_bar[k])
        of_W1 = v * both(y_bar[k], h[k])
        values = torch.einsum("npm,npf->pmf", case.weights, torch.stack([of_W, of_W1]))
        of_tables[k].index_add_(0, case.touched.flatten(), values.flatten(0, 1))
        of_w[k + 1] = (lambda_out * corrections[k + 1]).sum() + (out_bar * v_dot[k]).sum()
        of_block = [lambda_h.T @ x[k] + h_bar[k].T @ x_dot[k]]
        of_block += [lambda_z.T @ y[k] + z_bar[k].T @ y_dot[k], lambda_z.sum(0)]
        of_block += [lambda_v.T @ s[k] + v_bar[k].T @ s_dot[k], lambda_v.sum(0)]
        of_dense = of_block + of_dense
        lambda_x = lambda_x + lambda_h @ W_in[k]
    of_w[0] = (lambda_out * case.x_0).sum()
    of_readout = [lambda_p.T @ out + p_bar.T @ out_dot, lambda_p.sum(0)]
    of_readout += [(g_bar * ssp(p) + q_dot).sum(0)[None], case.g_bar.sum()[None]]
    got = [w[0] * lambda_out + lambda_x, of_tables, of_w, *of_dense, *of_readout]
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)
