"""Whole models on a GPU against the same weights on the CPU: energies, forces, gradients, programs."""

import numpy as np
import pytest
import torch
from conftest import make_model, make_structures
from torch import Tensor

from scschnet.data import collate

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    # Said once in a process, where a thread of autograd begins with a product.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]
DEVICE = torch.device("cuda")


def evaluate(model, device, **options) -> dict[str, Tensor]:
    """Outputs, and gradients of a loss of energies and forces in all parameters."""
    model = model.to(device)
    structures = make_structures()
    chosen = 2 * [*range(len(structures))]  # more than 16 atoms, where threads begin to share sums
    batch = collate(structures, chosen, model.config.cutoff).to(device)
    result = model(
        batch.positions,
        batch.atomic_numbers,
        batch.idx_m,
        batch.cells,
        batch.idx_i,
        batch.idx_j,
        batch.shifts,
        forces=True,
        correction_norms=True,
        **options,
    )
    loss = result["energy"].square().sum() * 1e-6 + result["forces"].square().sum()
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    named = zip((name for name, _ in model.named_parameters()), grads, strict=True)
    found = {f"d {name}": g for name, g in named if g is not None}
    return {k: v.detach().double().cpu() for k, v in {**result, **found}.items()}


def error(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max().clamp_min(1e-30))


@pytest.mark.parametrize("skip", ["weighted", "plain"])
def test_double_precision_agrees_with_the_cpu(skip):
    def build():
        return make_model(filters="spline", skip=skip, n_interactions=3, n_features=32)

    expected = evaluate(build(), torch.device("cpu"))
    for name, got in evaluate(build(), DEVICE).items():
        assert error(got, expected[name]) < 1e-10, name


def test_single_precision_errs_no_more_than_twice_the_dense_model():
    options = {"n_interactions": 3, "n_features": 64}
    exact = evaluate(make_model(filters="dense", **options), torch.device("cpu"))
    dense = evaluate(make_model(torch.float32, filters="dense", **options), torch.device("cpu"))
    on_device = evaluate(make_model(torch.float32, filters="spline", **options), DEVICE)
    for name, got in on_device.items():
        assert error(got, exact[name]) <= 2 * max(error(dense[name], exact[name]), 3e-6), name


def test_the_same_bits_on_every_run():
    runs = [evaluate(make_model(torch.float32, filters="spline"), DEVICE) for _ in range(3)]
    for run in runs[1:]:
        assert all(torch.equal(run[name], runs[0][name]) for name in runs[0])


def test_hessians_on_a_gpu():
    def hessian(device: torch.device) -> Tensor:
        model = make_model(filters="spline").to(device)
        batch = collate(make_structures(), [3], model.config.cutoff).to(device)

        def energy(r: Tensor) -> Tensor:
            rest = (batch.atomic_numbers, batch.idx_m, batch.cells)
            pairs = (batch.idx_i, batch.idx_j, batch.shifts)
            return model(r, *rest, *pairs, forces=False)["energy"].sum()

        return torch.autograd.functional.hessian(energy, batch.positions.double()).cpu()

    assert error(hessian(DEVICE), hessian(torch.device("cpu"))) < 1e-9


def test_refined_filters_are_those_of_the_cpu():
    on_cpu, on_gpu = make_model(filters="spline"), make_model(filters="spline").to(DEVICE)
    assert on_gpu.refine_filters() == pytest.approx(on_cpu.refine_filters(), rel=1e-3)
    assert on_gpu.filter_step == on_cpu.filter_step


def test_the_calculator():
    from ase.build import molecule

    from scschnet.calculator import ScSchNetCalculator

    atoms = molecule("CH3CH2OH")
    forces = []
    for device in ("cpu", "cuda"):
        atoms.calc = ScSchNetCalculator(make_model(filters="spline"), device=device)
        forces.append(atoms.get_forces())
    np.testing.assert_allclose(forces[1], forces[0], rtol=0, atol=1e-9 * np.abs(forces[0]).max())
