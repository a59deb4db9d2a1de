"""The model against the oracle, its derivatives against finite differences, its symmetries."""

import dataclasses
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import reference
import torch
from conftest import make_model, make_structures
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from scschnet.data import StructureSet, collate
from scschnet.elements import symbol
from scschnet.nn import ModelConfig, SchNet
from scschnet.nn.activation import shifted_softplus
from scschnet.nn.basis import GaussianBasis
from scschnet.nn.cutoff import CosineCutoff

CONFIG = {"n_interactions": 2, "n_rbf": 7, "cutoff": 4.0, "cutoff_function": "cosine"}


def parameters_of(model: SchNet) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in model.state_dict().items()}


def evaluate(model: SchNet, structures: StructureSet, indices=None, **outputs):
    batch = collate(structures, np.arange(len(structures)) if indices is None else indices, 4.0)
    with torch.no_grad():
        return model(**batch.inputs, **outputs)


def one(structures: StructureSet, m: int):
    atoms = slice(structures.atom_ptr[m], structures.atom_ptr[m + 1])
    return (
        structures.positions[atoms],
        structures.atomic_numbers[atoms],
        structures.cells[m],
        structures.pbc[m],
    )


@pytest.mark.parametrize("cutoff_function", ["cosine", "none"])
@pytest.mark.parametrize("skip", ["weighted", "plain"])
@pytest.mark.parametrize(("filters", "accuracy"), [("dense", 1e-13), ("spline", 1e-10)])
def test_energies_equal_the_oracle(structures, skip, cutoff_function, filters, accuracy):
    model = make_model(skip=skip, cutoff_function=cutoff_function, filters=filters)
    result = evaluate(model, structures)
    config = CONFIG | {"cutoff_function": cutoff_function}
    for m in range(len(structures)):
        positions, numbers, cell, pbc = one(structures, m)
        pairs = reference.neighbor_pairs(positions, cell, pbc, 4.0)
        expected = reference.energies(parameters_of(model), config, positions, numbers, cell, pairs)
        atoms = slice(structures.atom_ptr[m], structures.atom_ptr[m + 1])
        np.testing.assert_allclose(result["energies"][atoms], expected, rtol=accuracy)
        np.testing.assert_allclose(result["energy"][m], expected.sum(), rtol=accuracy)


@pytest.mark.parametrize("filters", ["dense", "spline"])
def test_float32_network_stays_close_to_the_oracle(structures, filters):
    # Energies of order 10^4 eV: only the network's part of order 1 carries float32 rounding.
    result = evaluate(make_model(torch.float32, filters=filters), structures)
    expected = evaluate(make_model(torch.float64), structures)
    assert result["energy"].dtype == result["forces"].dtype == torch.float64
    # Parameters themselves differ by float32 rounding.
    np.testing.assert_allclose(result["energy"], expected["energy"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(result["forces"], expected["forces"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("m", [0, 3])
def test_forces_equal_differences_of_the_oracle(model, structures, m):
    positions, numbers, cell, pbc = one(structures, m)
    expected = reference.forces(parameters_of(model), CONFIG, positions, numbers, cell, pbc)
    forces = evaluate(model, structures, [m])["forces"].numpy()
    assert np.abs(expected).max() > 0.02
    np.testing.assert_allclose(forces, expected, atol=1e-7)


def test_stress_equals_differences_of_the_oracle(model, structures):
    positions, numbers, cell, pbc = one(structures, 1)
    expected = reference.stress(parameters_of(model), CONFIG, positions, numbers, cell, pbc)
    stress = evaluate(model, structures, [1], stress=True)["stress"][0].numpy()
    assert np.abs(expected).max() > 1e-3
    # Pairs that cross the cutoff when strained jump in f'': the differences are good to about 1e-6.
    np.testing.assert_allclose(stress, expected, atol=2e-6)
    np.testing.assert_allclose(stress, stress.T, atol=1e-13)


def test_stress_of_an_open_structure_is_nan(model, structures):
    stress = evaluate(model, structures, stress=True)["stress"]
    assert torch.isnan(stress[3:]).all() and not torch.isnan(stress[:3]).any()


def test_a_batch_equals_its_members(model, structures):
    together = evaluate(model, structures, stress=True)
    for m in range(len(structures)):
        alone = evaluate(model, structures, [m], stress=True)
        atoms = slice(structures.atom_ptr[m], structures.atom_ptr[m + 1])
        torch.testing.assert_close(together["energy"][m], alone["energy"][0], rtol=1e-14, atol=0)
        torch.testing.assert_close(together["forces"][atoms], alone["forces"], rtol=0, atol=1e-13)
        torch.testing.assert_close(
            together["stress"][m], alone["stress"][0], rtol=0, atol=1e-14, equal_nan=True
        )


@pytest.mark.parametrize("chosen", [[0], range(5)])
def test_no_sum_depends_on_the_order_of_threads(structures, chosen):
    """`index_add` and `scatter_add` on a GPU give other bits on every run: the fused evaluation has none."""

    class Seen(TorchDispatchMode):
        names: ClassVar[set[str]] = set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.names.add(str(function).split(".")[1])
            return function(*args, **(kwargs or {}))

    model = make_model(filters="spline")
    batch = collate(structures, chosen, model.config.cutoff)
    with Seen():
        result = model(**batch.inputs, stress=True)
        loss = result["energy"].sum() + result["forces"].square().sum()
        torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert "schnet" in Seen.names
    assert not {name for name in Seen.names if name.startswith(("index_add", "scatter"))}
    energies = [result["energies"][batch.idx_m == m].sum() for m in range(len(chosen))]
    torch.testing.assert_close(result["energy"], torch.stack(energies), rtol=1e-14, atol=0)


def test_positions_to_energy_and_forces_is_twice_differentiable(model, structures):
    batch = collate(structures, [0, 3], 4.0)
    inputs = {k: v for k, v in batch.inputs.items() if k != "positions"}

    def energy_and_forces(positions):
        result = model(positions, **inputs)
        return result["energy"], result["forces"]

    positions = batch.positions.clone().requires_grad_()
    assert torch.autograd.gradcheck(energy_and_forces, positions)
    assert torch.autograd.gradgradcheck(
        lambda r: model(r, **inputs, forces=False)["energy"], positions
    )


@pytest.mark.parametrize("m", [0, 1, 3])
def test_hessian_equals_differences_of_the_forces(model, structures, m):
    """Second derivatives through autograd, W'' included, against forces of the fused operator."""
    batch = collate(structures, [m], 4.0)
    inputs = {name: value for name, value in batch.inputs.items() if name != "positions"}

    def energy(positions):
        return model(positions, **inputs, forces=False)["energy"][0]

    def forces(positions):
        with torch.no_grad():
            return model(positions.reshape(-1, 3), **inputs)["forces"].flatten()

    n, h = batch.positions.numel(), 2e-5
    hessian = torch.autograd.functional.hessian(energy, batch.positions).reshape(n, n)
    r, steps = batch.positions.flatten(), h * torch.eye(n, dtype=torch.float64)
    differences = torch.stack([(forces(r - step) - forces(r + step)) / (2 * h) for step in steps])
    assert differences.abs().max() > 0.1
    torch.testing.assert_close(hessian, differences, rtol=0, atol=1e-9)
    torch.testing.assert_close(hessian, hessian.T, rtol=0, atol=1e-13)
    moved_together = hessian.reshape(n, -1, 3).sum(1)
    torch.testing.assert_close(moved_together, torch.zeros(n, 3).double(), rtol=0, atol=1e-13)
    curvature = torch.autograd.functional.jvp(
        lambda x: model(x, **inputs)["forces"], batch.positions, batch.positions
    )[1]
    torch.testing.assert_close(curvature.flatten(), -hessian @ r, rtol=0, atol=1e-12)


def test_force_loss_gradient_of_every_parameter(model, structures):
    batch = collate(structures, [1, 3], 4.0)

    def loss():
        result = model(**batch.inputs)
        return result["energy"].square().mean() * 1e-6 + result["forces"].square().mean()

    model.zero_grad()
    loss().backward()
    for name, parameter in model.named_parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        k = int(gradient.abs().argmax())
        before, h = flat[k].item(), 1e-5
        flat[k] = before + h
        above = loss().item()
        flat[k] = before - h
        below = loss().item()
        flat[k] = before
        assert gradient[k].item() == pytest.approx((above - below) / (2 * h), rel=1e-5, abs=1e-9), (
            name
        )


def test_results_carry_gradients_only_where_asked(model, structures):
    batch = collate(structures, [0], 4.0)
    assert model(**batch.inputs)["forces"].requires_grad
    with torch.no_grad():
        assert not model(**batch.inputs)["forces"].requires_grad
    model.requires_grad_(False)
    assert not model(**batch.inputs)["forces"].requires_grad


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_symmetries(seed):
    model, structures = make_model(filters="spline"), make_structures(seed)
    rng = np.random.default_rng(seed)
    before = evaluate(model, structures, stress=True)
    rotation = Rotation.random(random_state=seed).as_matrix()
    order = np.concatenate([a + rng.permutation(b - a) for a, b in _ranges(structures)])
    moved = dataclasses.replace(
        structures,
        positions=(structures.positions @ rotation.T + rng.normal(size=3) * 10)[order],
        atomic_numbers=structures.atomic_numbers[order],
        cells=structures.cells @ rotation.T,
    )
    after = evaluate(model, moved, stress=True)
    torch.testing.assert_close(after["energy"], before["energy"], rtol=1e-12, atol=0)
    expected = before["forces"].numpy()[order] @ rotation.T
    np.testing.assert_allclose(after["forces"], expected, atol=1e-9)
    stress = rotation @ before["stress"][:3].numpy() @ rotation.T
    np.testing.assert_allclose(after["stress"][:3], stress, atol=1e-9)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_moving_an_atom_by_lattice_vectors_changes_nothing(seed):
    model, structures = make_model(), make_structures(seed)
    rng = np.random.default_rng(seed)
    jumps = (
        rng.integers(-3, 4, size=(len(structures.positions), 3)) * structures.pbc[structures.idx_m]
    )
    moved = dataclasses.replace(
        structures,
        positions=structures.positions
        + np.einsum("ak,akx->ax", jumps, structures.cells[structures.idx_m]),
    )
    before, after = evaluate(model, structures), evaluate(model, moved)
    torch.testing.assert_close(after["energy"], before["energy"], rtol=1e-12, atol=0)
    torch.testing.assert_close(after["forces"], before["forces"], rtol=0, atol=1e-9)


def _ranges(structures: StructureSet):
    return zip(structures.atom_ptr[:-1], structures.atom_ptr[1:], strict=True)


def test_weights_of_one_make_plain_schnet(structures):
    weighted, plain = make_model(w_init="one"), make_model(skip="plain")
    plain.load_state_dict(weighted.state_dict())
    one, other = evaluate(weighted, structures), evaluate(plain, structures)
    assert torch.equal(one["energy"], other["energy"])
    assert torch.equal(one["forces"], other["forces"])
    assert "contribution_weights" in dict(weighted.named_parameters())
    assert "contribution_weights" not in dict(plain.named_parameters())


def test_initial_contribution_weights():
    config = ModelConfig(elements=(1,), n_interactions=6)
    uniform = SchNet(config).contribution_weights
    torch.testing.assert_close(uniform, torch.full((7,), 1 / 7))
    assert torch.equal(SchNet(config, w_init="one").contribution_weights, torch.ones(7))
    torch.manual_seed(1)
    random = SchNet(config, w_init="random").contribution_weights
    assert random.sum().item() == pytest.approx(1.0, abs=1e-6) and (random > 0).all()
    assert random.std() > 0.01


def test_correction_norms_are_those_of_the_oracle(model, structures):
    norms = evaluate(model, structures, correction_norms=True)["correction_norms"]
    assert norms.shape == (3, len(structures.positions))
    positions, numbers, cell, pbc = one(structures, 0)
    pairs = reference.neighbor_pairs(positions, cell, pbc, 4.0)
    layers = reference.corrections(parameters_of(model), CONFIG, positions, numbers, cell, pairs)
    expected = [np.linalg.norm(v, axis=1) for v in layers]
    np.testing.assert_allclose(norms[:, :4], expected, rtol=1e-8)


def test_offsets_stay_float64_when_the_network_is_cast():
    model = make_model().float().half().double()
    assert model.offsets.atomref.dtype == torch.float64
    assert model.offsets.shift.item() == -2.5
    assert model.embedding.weight.dtype == torch.float64


def test_no_atoms(model):
    empty = StructureSet(np.zeros((0, 3)), np.zeros(0, int), np.array([0, 0]))
    result = evaluate(model, empty)
    assert result["energy"].tolist() == [0.0] and result["forces"].shape == (0, 3)


def test_rbf_range_sets_the_last_gaussian():
    model = make_model(cutoff=9.0, rbf_range=4.0)
    assert model.radial_basis.centers[-1] == 4.0


def test_functions_of_the_distance():
    d = torch.tensor([0.0, 2.0, 3.999, 4.0, 5.0], dtype=torch.float64)
    expected = [reference.cosine_cutoff(x, 4.0) for x in d.tolist()]
    np.testing.assert_allclose(CosineCutoff(4.0)(d), expected, atol=1e-16)
    basis = [reference.gaussian_basis(x, 7, 4.0) for x in d.tolist()]
    np.testing.assert_allclose(GaussianBasis(7, 4.0)(d), basis, atol=1e-19)
    x = torch.linspace(-30, 30, 61, dtype=torch.float64)
    np.testing.assert_allclose(
        shifted_softplus(x), reference.shifted_softplus(x.numpy()), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"elements": (8, 1)}, "`elements` must be ascending and distinct, got (8, 1)"),
        ({"elements": ()}, "`elements` must be ascending and distinct, got ()"),
        ({"elements": (1, 200)}, "`elements` must lie between 1 and 118, got (1, 200)"),
        ({"n_features": 1}, "`n_features` must lie between 2 and 10000, got 1"),
        ({"n_interactions": -1}, "`n_interactions` must lie between 0 and 10000, got -1"),
        ({"n_rbf": 1}, "`n_rbf` must lie between 2 and 10000, got 1"),
        ({"cutoff": -1.0}, "`cutoff` must lie between 0.01 and 1000 Å, got -1"),
        ({"rbf_range": -2.0}, "`rbf_range` must lie between 0.01 and 1000 Å, got -2"),
        ({"skip": "both"}, "`skip` must be one of weighted, plain, got both"),
        ({"cutoff_function": "hard"}, "`cutoff_function` must be one of cosine, none, got hard"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError) as caught:
        SchNet(ModelConfig(**({"elements": (1,)} | options)))
    assert str(caught.value) == message


def test_bad_start_of_the_weights_is_named():
    with pytest.raises(ValueError, match="`w_init` must be one of uniform, random, one, got zero"):
        SchNet(ModelConfig(elements=(1,)), w_init="zero")


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_tables_follow_the_parameters(structures, fused, frozen):
    spline, dense = make_model(filters="spline"), make_model(filters="dense")
    optimizer = torch.optim.Adam(spline.parameters(), lr=0.05, fused=fused)
    for _ in range(3):
        spline.requires_grad_(not frozen)
        evaluate(spline, structures)  # fills whatever is kept
        spline.requires_grad_(True)
        optimizer.zero_grad()
        batch = collate(structures, [0, 3], 4.0)
        spline(**batch.inputs)["forces"].square().sum().backward(inputs=list(spline.parameters()))
        optimizer.step()
        if frozen:  # as a moving average does
            with torch.no_grad():
                torch._foreach_mul_(list(spline.parameters()), 1.01)
        spline.requires_grad_(not frozen)
        dense.load_state_dict(spline.state_dict())
        found, expected = evaluate(spline, structures), evaluate(dense, structures)
        np.testing.assert_allclose(found["forces"], expected["forces"], atol=1e-6)


@pytest.mark.parametrize("filters", ["dense", "spline"])
def test_a_model_without_blocks_knows_elements_alone(structures, filters):
    model = make_model(n_interactions=0, filters=filters)
    assert model.refine_filters() == 0.0
    result = evaluate(model, structures, stress=True)
    assert not result["forces"].any() and not result["stress"][:3].any()
    for z in (1, 6, 8):
        assert len(result["energies"][structures.atomic_numbers == z].unique()) == 1


# ---- forward mode, threads, inference mode


def _energy_of(model, seed=3):
    """Energy as a function of positions, and positions of a molecule."""
    batch = collate(make_structures(seed).select([3]), [0], model.config.cutoff)
    rest = {name: value for name, value in batch.inputs.items() if name != "positions"}
    return lambda r: model(r, **rest, forces=False)["energy"].sum(), batch.inputs["positions"]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("repulsion", ["none", "zbl"])
def test_forward_mode_gives_the_derivatives(model, frozen, repulsion):
    """They were silently zero: the operators know nothing of tangents."""
    filters = model.filters
    model = make_model(filters=filters, repulsion=repulsion).eval().requires_grad_(not frozen)
    energy, positions = _energy_of(model)
    tangent = torch.randn_like(positions)
    r = positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(r), r)
    true = (gradient * tangent).sum().detach()
    assert true.abs() > 1e-3
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(energy(forward_ad.make_dual(positions, tangent))).tangent
    found = {
        "forward_ad": dual,
        "jvp": torch.func.jvp(energy, (positions,), (tangent,))[1],
        "jacfwd": (torch.func.jacfwd(energy)(positions) * tangent).sum(),
    }
    for name, value in found.items():
        torch.testing.assert_close(value.detach(), true, rtol=1e-5, atol=1e-6, msg=name)
    hessian = torch.func.hessian(energy)(positions).detach()
    exact = torch.autograd.functional.hessian(energy, positions)
    torch.testing.assert_close(hessian, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own
def test_forward_mode_in_a_parameter(model):
    model.requires_grad_(False)
    energy, positions = _energy_of(model)
    with forward_ad.dual_level():
        bias = model.readout.output.bias
        del model.readout.output.bias
        model.readout.output.bias = forward_ad.make_dual(bias.detach(), torch.ones_like(bias))
        tangent = forward_ad.unpack_dual(energy(positions)).tangent
    torch.testing.assert_close(tangent, model.offsets.scale * len(positions))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_transforms_of_torch_that_are_refused(model):
    model.requires_grad_(False)
    model.filters = "spline"
    energy, positions = _energy_of(model)
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.vmap):
        given = positions[None] if transform is torch.func.vmap else positions
        with pytest.raises(RuntimeError, match=r"functorch transforms|Batching rule not impl"):
            transform(energy)(given)


def test_threads_that_share_a_model_without_cutoff_function():
    """Tables are as long as the largest distance; a thread must not take those of another one."""
    model = make_model(cutoff=30.0, rbf_range=3.0, cutoff_function="none", filters="spline")
    model.eval().requires_grad_(False).refine_filters()
    molecule = make_structures().select([3])
    batches = [
        collate(replace(molecule, positions=molecule.positions * (1 + 0.5 * k)), [0], 30.0)
        for k in range(6)
    ]
    expected = [model(**batch.inputs)["energy"].item() for batch in batches]
    barrier, wrong = threading.Barrier(4), []
    before = sys.getswitchinterval()

    def work(first: int) -> None:
        barrier.wait()
        for k in range(first, first + 150):
            energy = model(**batches[k % 6].inputs)["energy"].item()
            if energy != expected[k % 6]:
                wrong.append(energy)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(before)
    assert not wrong


def test_a_model_made_in_inference_mode():
    batch = collate(make_structures(), range(5), 4.0)
    expected = make_model(filters="spline").requires_grad_(False)(**batch.inputs)
    with torch.inference_mode():
        made = make_model(filters="spline").requires_grad_(False)
        for _ in range(2):
            found = made(**batch.inputs)
            torch.testing.assert_close(found["forces"], expected["forces"])
    torch.testing.assert_close(made(**batch.inputs)["energy"], expected["energy"])


@pytest.mark.parametrize("wrong", [7, 0, -3, 500])
@pytest.mark.parametrize("filters", ["spline", "dense"])
def test_elements_that_were_not_trained_on_are_refused(structures, filters, wrong):
    model = make_model(filters=filters)
    batch = collate(structures, np.arange(1), model.config.cutoff)
    batch.atomic_numbers[1] = wrong
    words = re.escape(f", the elements the model was trained on, got {symbol(wrong)}")
    with pytest.raises(ValueError, match=words):
        model(**batch.inputs)
