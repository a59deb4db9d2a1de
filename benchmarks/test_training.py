"""Steps of training, and what surrounds them: batches, orthogonalization, whole epochs."""

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
    ethanol,
    ladder,
    model_for,
    qm9,
)
from scschnet import data as data_sets
from scschnet import ops
from scschnet.data import collate
from scschnet.runs.config import TrainConfig
from scschnet.train.loop import Training
from scschnet.train.loss import labels_of
from scschnet.train.processes import Processes
from scschnet.train.state import TrainingState

# Structures, features, Gaussians, whether forces are trained on.
STEPS = {
    "50 ethanols": (lambda data: ethanol(50), 128, 50, True),
    "50 aspirins": (lambda data: aspirin(50, data), 128, 50, True),
    "100 QM9": (lambda data: qm9(100, data), 256, 20, False),
}


def training_step(structures, n_features, n_rbf, with_forces, device="cpu", filters="spline"):
    """Forward, loss, backward and Adam; batch and list ready. Labels are noise."""
    batch = batch_of(structures, device)
    model = model_for(structures, n_features, n_rbf, filters=filters).to(device)
    state = TrainingState(TrainConfig(optimizer="adam", lr=5e-4, ema=0), model)
    energy = torch.randn(len(structures), dtype=torch.float64, device=device)
    forces = torch.randn_like(batch.positions)

    def step():
        result = model(**batch.inputs, forces=with_forces)
        loss = (result["energy"] - energy).square().mean()
        if with_forces:
            loss = 0.1 * loss + 0.9 * (result["forces"] - forces).square().mean()
        state.differentiate(loss)
        state.optimizer.step()

    return step, {"n_atoms": len(batch.positions), "n_pairs": len(batch.idx_i)}


@pytest.mark.parametrize("case", ladder("50 ethanols", large=("50 aspirins", "100 QM9")))
@pytest.mark.benchmark(group="training step")
def test_training_step(benchmark, case, data, device, threads, peers):
    make, n_features, n_rbf, with_forces = STEPS[case]
    structures = make(data)
    step, sizes = training_step(structures, n_features, n_rbf, with_forces, device)
    measure(benchmark, step, device, n_features=n_features, **sizes)
    asked = {"kind": "train_forces" if with_forces else "train_energy", "cutoff": CUTOFF}
    asked |= {"n_features": n_features, "n_rbf": n_rbf, "n_interactions": N_INTERACTIONS}
    in_turns(benchmark, step, peers.start("schnetpack pyg", structures, **asked))


@pytest.mark.parametrize("case", ladder(full=tuple(STEPS)))
@pytest.mark.benchmark(group="training step")
def test_training_step_beside_dense(benchmark, case, data):
    """Our own network with filters evaluated for every pair."""
    make, *options = STEPS[case]
    step, sizes = training_step(make(data), *options)
    dense, _ = training_step(make(data), *options, filters="dense")
    measure(benchmark, step, **sizes)
    in_turns(benchmark, step, {"dense filters": timed_by(benchmark._timer, dense)})


@pytest.mark.parametrize("width", ladder(64, large=(128,)))
@pytest.mark.benchmark(group="orthogonalize")
def test_orthogonalize(benchmark, width, device):
    """The square matrices of six blocks, as the optimizer Muon takes them."""
    matrices = torch.randn(4 * N_INTERACTIONS, width, width, device=device)
    products = 5 * 3 * 2.0 * width**3 * len(matrices)
    measure(
        benchmark,
        lambda: ops.orthogonalize(matrices),
        device,
        products=products,
        n_matrices=len(matrices),
    )


@pytest.mark.benchmark(group="batch")
def test_batch(benchmark, data):
    """100 molecules of QM9, others every time, gathered and with their list."""
    molecules = qm9(1000, None) if data is None else data_sets.read(data / "qm9.npz")
    rng = np.random.default_rng(0)

    def load():
        return collate(molecules, rng.integers(len(molecules), size=100), CUTOFF)

    measure(benchmark, load, n_atoms=len(load().positions))


@pytest.mark.parametrize(
    "case", ladder("ethanol, quick", large=("ethanol, adam",), full=("QM9, paper",))
)
@pytest.mark.benchmark(group="epoch", max_time=3.0)
def test_epoch(benchmark, case, data, tmp_path, pytestconfig):
    """Everything included, beside as many bare steps: forward, loss, backward and optimizer on batches that are ready."""
    training = Training(epoch_config(case, data, tmp_path, pytestconfig), Processes("cpu"), None)
    training.progress.message = lambda text: None
    batches = [
        collate(training.structures, chosen, training.config.cutoff)
        for chosen in training._batches()
    ]

    def epoch():
        training.run_epoch([])

    def bare_steps():
        for batch in batches:
            bare_step(training, batch)

    measure(benchmark, epoch, n_steps=len(batches))
    in_turns(benchmark, epoch, {"bare steps": timed_by(benchmark._timer, bare_steps)}, seconds=4.0)
    training.progress.close()


def epoch_config(case: str, data, folder, pytestconfig) -> TrainConfig:
    few = {"n_train": 30, "n_val": 10} if pytestconfig.option.benchmark_disable else {}
    common = {"out": str(folder / "run"), "threads": 1, "epochs": 10_000} | few
    if not case.startswith("QM9"):
        adam = {"optimizer": "adam", "lr": 2e-3} if case.endswith("adam") else {}
        return TrainConfig(**common, **adam)
    file = data / "qm9.npz" if data else None
    if file is None:
        pytest.skip("an epoch of QM9 needs --data")
    paper = TrainConfig(n_features=256, n_rbf=20, rho=1.0, loss="total", batch_size=100, ema=0.0)
    options = {"optimizer": "adam", "lr": 1e-4, "output_scale": "energy", "data": str(file)}
    return replace(paper, **options, n_train=1000, n_val=50, **common)


def bare_step(training: Training, batch) -> None:
    state, loss = training.state, training.loss
    result = state.model(**batch.inputs, **loss.derivatives)
    found = loss(result, labels_of(batch), len(batch.energy), len(batch.positions))
    state.differentiate(found)
    state.optimizer.step()
    found.item()
