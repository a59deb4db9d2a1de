"""The whole network: the fused operator, and energies and forces from 192 to 98,304 atoms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.measure import in_turns, measure, timed_by
from benchmarks.systems import (
    CUTOFF,
    N_INTERACTIONS,
    aspirin,
    batch_of,
    ladder,
    model_for,
    qm9,
    water,
)
from scschnet import ops

LADDER = ladder(192, large=(1536, 12288), full=(98304,))


class Operator:
    """The fused network on a batch, tables and list given.

    Args:
        all_pairs: whether on all pairs; else on a single one, where only dense layers remain.
    """

    def __init__(self, structures, n_features: int, device: str, all_pairs: bool = True) -> None:
        batch, model = batch_of(structures, device), model_for(structures, n_features).to(device)
        n_atoms = len(batch.positions)
        half, row_ptr, half_j = ops.half_list(batch.idx_i, batch.idx_j, batch.shifts, n_atoms)
        if not all_pairs:
            half, row_ptr, half_j = half[:1], row_ptr.clamp(max=1), half_j[:1]
        geometry = (
            batch.positions,
            batch.cells,
            batch.idx_m,
            batch.idx_i,
            batch.idx_j,
            batch.shifts,
        )
        d = ops.pair_vectors(*geometry, half)[1]
        tables, grid = model.engine.tables(d)
        weigh = (
            d,
            grid.step,
            grid.cutoff,
            model.cutoff_function.pieces,
            grid.n_rows,
            2,
            torch.float32,
        )
        tables = tables.detach().requires_grad_()
        features = model.embedding(batch.atomic_numbers).detach().requires_grad_()
        weights, parameters = model.contribution_weights, model.dense_parameters()
        pairs = (row_ptr, half_j, *ops.spline_weights(*weigh))
        self.arguments = (features, *pairs, tables, weights, parameters, True)
        self.leaves = [features, tables, weights, *parameters]
        self.cotangents = [
            torch.randn(n_atoms, device=device),
            torch.randn(len(half), device=device),
        ]
        # Of the products of matrices; the first block saves some of them.
        block, readout = 2.0 * n_atoms * n_features**2, 1.0 * n_atoms * n_features**2
        self.forward_flops = (6 * N_INTERACTIONS - 1) * block + 2 * readout
        self.training_flops = (18 * N_INTERACTIONS - 3) * block + 6 * readout
        self.sizes = {"n_atoms": n_atoms, "n_pairs": 2 * len(half), "n_features": n_features}

    def forward(self):
        return ops.schnet(*self.arguments)

    def evaluate(self):
        with torch.no_grad():
            return self.forward()

    def train(self):
        g, g_d, _, _ = self.forward()
        return torch.autograd.grad([g, g_d], self.leaves, self.cotangents)


SYSTEMS = {
    "50 aspirins": lambda data: aspirin(50, data),
    "100 QM9": lambda data: qm9(100, data),
    "water 1536": lambda data: water(1536),
}


@pytest.mark.parametrize("pairs", ["all pairs", "one pair"])
@pytest.mark.parametrize("system", ladder("50 aspirins", large=("water 1536",), full=("100 QM9",)))
@pytest.mark.benchmark(group="network")
def test_forward(benchmark, system, pairs, data, device):
    """Energies, and the derivative in every distance."""
    operator = Operator(SYSTEMS[system](data), 128, device, pairs == "all pairs")
    flops = operator.forward_flops if pairs == "one pair" else 0.0
    measure(benchmark, operator.evaluate, device, products=flops, **operator.sizes)


@pytest.mark.parametrize("pairs", ["all pairs", "one pair"])
@pytest.mark.parametrize("system", ladder("50 aspirins", full=("100 QM9", "water 1536")))
@pytest.mark.benchmark(group="network")
def test_forward_and_backward(benchmark, system, pairs, data, device):
    """The same and the gradient of both in every parameter, as training on forces needs it."""
    operator = Operator(SYSTEMS[system](data), 128, device, pairs == "all pairs")
    flops = operator.training_flops if pairs == "one pair" else 0.0
    measure(benchmark, operator.train, device, products=flops, **operator.sizes)


def evaluation(structures, device: str = "cpu", filters: str = "spline", n_features: int = 128):
    """Energy and forces, list given."""
    batch = batch_of(structures, device)
    model = model_for(structures, n_features, filters=filters).to(device).requires_grad_(False)

    def evaluate():
        with torch.no_grad():
            return model(**batch.inputs)

    return evaluate, {"n_atoms": len(batch.positions), "n_pairs": len(batch.idx_i)}


@pytest.mark.parametrize("n_atoms", LADDER)
@pytest.mark.benchmark(group="energy and forces, water")
def test_energy_and_forces(benchmark, n_atoms, device, threads, peers):
    evaluate, sizes = evaluation(water(n_atoms), device)
    measure(benchmark, evaluate, device, **sizes)
    if n_atoms <= 1536:
        case = {"kind": "evaluate", "n_features": 128, "n_rbf": 50}
        case |= {"n_interactions": N_INTERACTIONS, "cutoff": CUTOFF}
        in_turns(benchmark, evaluate, peers.start("schnetpack pyg", water(n_atoms), **case))


@pytest.mark.parametrize("n_atoms", ladder(192, large=(12288,)))
@pytest.mark.benchmark(group="energy and forces, water")
def test_energy_and_forces_of_small_model(benchmark, n_atoms, device, threads):
    """F = 32."""
    evaluate, sizes = evaluation(water(n_atoms), device, n_features=32)
    measure(benchmark, evaluate, device, **sizes)


@pytest.mark.parametrize("n_atoms", ladder(192, large=(12288,)))
@pytest.mark.benchmark(group="energy and forces, water")
def test_energy_and_forces_of_shuffled_atoms(benchmark, n_atoms, device):
    """Atoms in random order, which caches see."""
    structures = water(n_atoms)
    order = np.random.default_rng(0).permutation(n_atoms)
    evaluate, sizes = evaluation(shuffled(structures, order), device)
    measure(benchmark, evaluate, device, **sizes)


def shuffled(structures, order):
    return replace(
        structures,
        positions=structures.positions[order],
        atomic_numbers=structures.atomic_numbers[order],
    )


@pytest.mark.parametrize("n_atoms", ladder(full=(192, 1536)))
@pytest.mark.benchmark(group="energy and forces, water")
def test_energy_and_forces_beside_dense(benchmark, n_atoms):
    """Our own network with filters evaluated for every pair."""
    evaluate, sizes = evaluation(water(n_atoms))
    dense, _ = evaluation(water(n_atoms), filters="dense")
    measure(benchmark, evaluate, **sizes)
    in_turns(benchmark, evaluate, {"dense filters": timed_by(benchmark._timer, dense)})
