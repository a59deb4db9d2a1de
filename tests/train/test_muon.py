"""The optimizer Muon: its step against the formula and against torch's, and what it leaves to Adam."""

import copy

import numpy as np
import pytest
import reference
import torch

from scschnet.nn import ModelConfig, SchNet
from scschnet.runs.config import TrainConfig
from scschnet.train.muon import matrices_of
from scschnet.train.state import TrainingState

LR = 3e-3
MOMENTUM, ITERATIONS, STEP = 0.98, 4, 1.6


def state_of(optimizer="muon", dtype=torch.float64):
    torch.manual_seed(0)
    model = SchNet(ModelConfig((1, 8), n_features=12, n_interactions=2, n_rbf=5)).to(dtype)
    return TrainingState(TrainConfig(optimizer=optimizer, lr=LR, ema=0.0), model)


def take_steps(state, n=4):
    """Steps along gradients that depend on the step alone; returns these, by step and parameter."""
    gradients = []
    for step in range(n):
        generator = torch.Generator().manual_seed(step)
        for part in state._gradient_parts:
            part.copy_(torch.randn(part.shape, generator=generator, dtype=torch.float64))
        gradients.append([part.clone() for part in state._gradient_parts])
        state.optimizer.step()
    return gradients


def test_matrices_are_the_weights_of_dense_layers_with_several_outputs():
    model = state_of().model
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(matrix)] for matrix in matrices_of(model)}
    for block in (0, 1):
        for layer in ("filter_generator.hidden", "filter_generator.output", "input", "hidden"):
            assert f"interactions.{block}.{layer}.weight" in found
    assert "readout.hidden.weight" in found
    for other in ("embedding.weight", "readout.output.weight", "contribution_weights"):
        assert other not in found
    assert len(found) == 2 * 5 + 1


def test_matrices_follow_the_formula():
    state = state_of()
    chosen = {id(matrix) for matrix in matrices_of(state.model)}
    expected = [p.detach().numpy().copy() for p in state.parameters]
    momenta = [np.zeros(p.shape) for p in state.parameters]
    for gradients in take_steps(state):
        for k, gradient in enumerate(gradients):
            if id(state.parameters[k]) in chosen:
                momenta[k] = MOMENTUM * momenta[k] + (1 - MOMENTUM) * gradient.numpy()
                along = (1 - MOMENTUM) * gradient.numpy() + MOMENTUM * momenta[k]
                expected[k] -= LR * STEP * reference.orthogonalize(along, ITERATIONS)
    for parameter, value in zip(state.parameters, expected, strict=True):
        if id(parameter) in chosen:
            np.testing.assert_allclose(parameter.detach().numpy(), value, atol=1e-12)


def test_everything_else_is_left_to_adam():
    muon, adam = state_of(), state_of("adam")
    chosen = {id(matrix) for matrix in matrices_of(muon.model)}
    take_steps(muon)
    take_steps(adam)
    compared = 0
    for one, other in zip(muon.parameters, adam.parameters, strict=True):
        if id(one) not in chosen:
            assert torch.equal(one, other)
            compared += 1
    assert (
        compared == 2 * 4 + 5
    )  # biases; embedding, contribution weights, readout's biases and output


def shape_factor(matrix):
    """torch's own."""
    rows, columns = matrix.shape
    return max(1.0, rows / columns) ** 0.5


def test_is_torchs_muon_in_higher_precision():
    """torch orthogonalizes in bfloat16, of eight bits: steps agree to some percent of their size."""
    state = state_of(dtype=torch.float32)
    matrices = matrices_of(state.model)
    twins = [torch.nn.Parameter(matrix.detach().clone()) for matrix in matrices]
    start = [twin.detach().clone() for twin in twins]
    theirs = torch.optim.Muon(
        [{"params": [twin], "lr": LR * STEP / shape_factor(twin)} for twin in twins],
        weight_decay=0.0,
        momentum=MOMENTUM,
        ns_steps=ITERATIONS,
    )
    places = [next(k for k, p in enumerate(state.parameters) if p is m) for m in matrices]
    for gradients in take_steps(state):
        for twin, place in zip(twins, places, strict=True):
            twin.grad = gradients[place].float()
        theirs.step()
    for ours, twin, before in zip(matrices, twins, start, strict=True):
        moved = (twin.detach() - before).norm()
        assert (ours.detach() - twin.detach()).norm() < 0.05 * moved


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_steps_go_on_after_saving_and_loading(optimizer):
    state, other = state_of(optimizer), state_of(optimizer)
    take_steps(state)
    saved = copy.deepcopy((state.state_dict(), state.model.state_dict()))  # as a file would
    other.load_state_dict(*saved)
    take_steps(state)
    take_steps(other)
    assert torch.equal(state.flat, other.flat)


def test_a_network_without_matrices_is_left_to_adam():
    model = SchNet(ModelConfig((1,), n_features=2, n_interactions=0))
    assert not matrices_of(model)
    assert type(TrainingState(TrainConfig(), model).optimizer) is torch.optim.Adam
