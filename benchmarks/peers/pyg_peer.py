"""PyTorch Geometric's SchNet:

    python3 -m venv ENVIRONMENTS/pyg
    ENVIRONMENTS/pyg/bin/pip install torch==2.13.0 torch_geometric==2.8.1 ase

It predicts energies and knows no periodic images, and its own search needs a further package: pairs are given, forces are
the derivative. Where torch.compile works, which is not in training on forces, it is used in the best setting.
"""

import sys

import numpy as np
import torch
from ase.neighborlist import neighbor_list
from protocol import serve
from torch_geometric.nn.models import SchNet


def batch_of(structures: list, cutoff: float) -> tuple[torch.Tensor, ...]:
    """Numbers, positions, structure of each atom, pairs and the shifts of their images."""
    starts = np.cumsum([0, *map(len, structures)])
    lists = [neighbor_list("ijS", atoms, cutoff) for atoms in structures]
    arrays = (
        np.concatenate([atoms.numbers for atoms in structures]),
        np.concatenate([atoms.positions for atoms in structures]).astype(np.float32),
        np.repeat(np.arange(len(structures)), np.diff(starts)),
        np.concatenate(
            [np.stack([j, i]) + n for (i, j, _), n in zip(lists, starts, strict=False)], axis=1
        ),
        np.concatenate(
            [s @ a.cell.array for (_, _, s), a in zip(lists, structures, strict=True)]
        ).astype(np.float32),
    )
    return tuple(map(torch.as_tensor, arrays))


def prepare(case: dict, structures: list):
    """A training step, or energy and forces; batch and list ready."""
    z, positions, idx_m, edges, shifts = batch_of(structures, case["cutoff"])
    with_forces = case["kind"] != "train_energy"

    def pairs(r, _idx_m):
        return edges, (r[edges[0]] - r[edges[1]] + shifts).norm(dim=-1)

    torch.manual_seed(0)
    width = {"hidden_channels": case["n_features"], "num_filters": case["n_features"]}
    depth = {"num_interactions": case["n_interactions"], "num_gaussians": case["n_rbf"]}
    model = SchNet(**width, **depth, cutoff=case["cutoff"], interaction_graph=pairs)
    compiled = sys.argv[1] == "best" and case["kind"] != "train_forces"
    network = torch.compile(model) if compiled else model
    if case["kind"] == "evaluate":
        model.eval().requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    energy, forces = torch.randn(len(structures)), torch.randn_like(positions)

    def run() -> None:
        r = positions.detach().requires_grad_(with_forces)
        found = network(z, r, idx_m)[:, 0]
        if case["kind"] == "evaluate":
            torch.autograd.grad(found.sum(), r)
            return
        optimizer.zero_grad()
        loss = (found - energy).square().mean()
        if with_forces:
            (slope,) = torch.autograd.grad(found.sum(), r, create_graph=True)
            loss = 0.1 * loss + 0.9 * (slope + forces).square().mean()
        loss.backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(sys.argv[1] == "best")
    serve(prepare)
