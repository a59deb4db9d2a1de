"""Layer energies and forces: complete, equal to the slow integral, and to the derivatives of the energies."""

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from conftest import make_model, make_structures

from scschnet.analysis.layers import completeness, layer_energies, mean_sigmoid
from scschnet.commands.analysis import main
from scschnet.evaluate import predict


@pytest.fixture(params=["dense", "spline"])
def model(request):
    return make_model(filters=request.param).requires_grad_(False)


def parameters_of(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def integrated(parameters, x_out, parts, n=4000):
    """eps^(l) by the midpoint rule: the integral of grad g(a x_out) . w v over a, gradients by hand."""
    c, b = parameters["readout.hidden.weight"], parameters["readout.hidden.bias"]
    out = parameters["readout.output.weight"][0]
    total = np.zeros(len(parts))
    for a in (np.arange(n) + 0.5) / n:
        inner = c @ (a * x_out) + b
        gradient = c.T @ (out / (1.0 + np.exp(-inner)))
        total += [gradient @ part for part in parts]
    return total / n * parameters["offsets.scale"]


def test_layer_energies_are_the_integral_along_the_path():
    model, structures = make_model().requires_grad_(False), make_structures()
    found = layer_energies(model, structures)
    parameters = parameters_of(model)
    config = {"n_interactions": 2, "n_rbf": 7, "cutoff": 4.0, "cutoff_function": "cosine"}
    start, stop = structures.atom_ptr[3:5]  # the molecule
    positions, numbers = structures.positions[start:stop], structures.atomic_numbers[start:stop]
    pairs = reference.neighbor_pairs(positions, np.zeros((3, 3)), (False,) * 3, 4.0)
    layers = reference.corrections(parameters, config, positions, numbers, np.zeros((3, 3)), pairs)
    weights = parameters["contribution_weights"]
    for i in range(stop - start):
        parts = [w * v[i] for w, v in zip(weights, layers, strict=True)]
        expected = integrated(parameters, sum(parts), parts)
        np.testing.assert_allclose(found.layers[:, start + i], expected, rtol=2e-7, atol=1e-9)


def test_layers_add_up_to_the_energies_and_forces(model):
    structures = make_structures()
    assert completeness(model, structures) < 1e-12
    found = layer_energies(model, structures, forces=True)
    expected = predict(model, structures)
    total = np.add.reduceat(found.base + found.layers.sum(axis=0), structures.atom_ptr[:-1])
    np.testing.assert_allclose(total, expected.energy, rtol=1e-13)
    assert found.forces is not None and expected.forces is not None
    np.testing.assert_allclose(found.forces.sum(axis=0), expected.forces, atol=1e-12)


def test_a_float32_model_is_complete_to_its_rounding():
    model = make_model(torch.float32, filters="spline", n_features=32).requires_grad_(False)
    assert completeness(model, make_structures()) < 1e-6


def test_layer_forces_are_the_slopes_of_the_layer_energies(model):
    structures = make_structures().select([0, 3])
    found = layer_energies(model, structures, forces=True)
    step, shape = 1e-5, structures.positions.shape
    direction = np.random.default_rng(1).normal(size=shape)
    energies = [
        layer_energies(model, _moved(structures, t * step * direction)).layers.sum(axis=1)
        for t in (-1, 1)
    ]
    slopes = (energies[1] - energies[0]) / (2 * step)
    np.testing.assert_allclose(-(found.forces * direction).sum(axis=(1, 2)), slopes, atol=1e-7)


def _moved(structures, by):
    return replace(structures, positions=structures.positions + by)


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e-9, 0.3, 0.999, 1.001, 30.0, 700.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_mean_sigmoid_is_accurate_on_every_path(size, sign):
    b = torch.linspace(-20, 20, 9, dtype=torch.float64)
    found = mean_sigmoid(torch.full((1, 9), sign * size, dtype=torch.float64), b)[0].numpy()
    if size > 1:
        start = b.numpy()
        expected = (np.logaddexp(0, start + sign * size) - np.logaddexp(0, start)) / (sign * size)
    else:
        nodes, weights = np.polynomial.legendre.leggauss(40)
        way = b.numpy()[:, None] + sign * size * 0.5 * (nodes + 1)
        expected = (np.exp(-np.logaddexp(0, -way)) * weights).sum(axis=1) / 2
    rounding = 1e-14 if size < 1 else 3e-9  # torch's softplus is linear beyond 20
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=rounding)


def test_mean_sigmoid_has_finite_slopes_at_zero():
    p = torch.zeros((1, 3), dtype=torch.float64, requires_grad=True)
    b = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    (slope,) = torch.autograd.grad(mean_sigmoid(p, b).sum(), p)
    sigmoid = torch.sigmoid(b)
    torch.testing.assert_close(slope[0], sigmoid * (1 - sigmoid) / 2)


def test_no_block_and_no_atom():
    model = make_model(n_interactions=0).requires_grad_(False)
    found = layer_energies(model, make_structures(), forces=True)
    assert found.layers.shape == (1, 15)
    assert found.forces is not None and not found.forces.any()
    empty = layer_energies(model, make_structures().select([]))
    assert empty.layers.shape == (1, 0) and empty.base.shape == (0,)


def test_unknown_elements_are_named():
    model = make_model(elements=(1, 6)).requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"only H, C, the elements the model was trained on, got O in"
    ):
        layer_energies(model, make_structures())


def test_command_needs_a_run(tmp_path, capsys):
    assert main(["layers", str(tmp_path)]) == 1
    assert "is a folder that holds no run" in capsys.readouterr().err
    (tmp_path / "best.pt").touch()
    assert main(["layers", str(tmp_path)]) == 1
    assert "is no run folder: it has no config.toml" in capsys.readouterr().err
