"""Pair vectors, forces and virials in one pass against plain torch."""

import numpy as np
import pytest
import torch
from conftest import make_structures
from torch import Tensor

from scschnet import ops
from scschnet.data import collate
from scschnet.nn.error_bars import trial_forces
from scschnet.nn.geometry import pair_forces, pair_vectors, pair_virial

NAMES = ("r_ij", "d_ij", "row_ptr", "idx_j", "idx_m")


def geometry() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Arguments of a batch of molecules and crystals for `pair_vectors`, and what `pair_forces` wants of it."""
    structures = make_structures()
    inputs = collate(structures, range(len(structures)), 3.0).inputs
    n_atoms = len(inputs["atomic_numbers"])
    pairs, row_ptr, idx_j = ops.half_list(
        inputs["idx_i"], inputs["idx_j"], inputs["shifts"], n_atoms
    )
    full = {k: inputs[k] for k in ("positions", "cells", "idx_m", "idx_i", "idx_j", "shifts")}
    r_ij, d_ij = ops.pair_vectors(**full, pairs=pairs)
    half = {"r_ij": r_ij, "d_ij": d_ij, "row_ptr": row_ptr, "idx_j": idx_j}
    return full | {"pairs": pairs}, half | {"idx_m": inputs["idx_m"]}


def test_vectors_are_those_of_plain_torch():
    full, half = geometry()
    pairs = full.pop("pairs")
    for name in ("idx_i", "idx_j", "shifts"):
        full[name] = full[name][pairs]
    expected = pair_vectors(**full)
    assert len(expected) > 10
    torch.testing.assert_close(half["r_ij"], expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(half["d_ij"], expected.norm(dim=1), rtol=1e-14, atol=1e-14)


def test_forces_and_virial_are_those_of_plain_torch():
    full, half = geometry()
    n_atoms, n_structures = len(full["positions"]), len(full["cells"])
    g_d = torch.randn(len(half["d_ij"]), dtype=torch.float64)
    forces, virial = ops.pair_forces(g_d, **half, n_structures=n_structures)
    g_ij = (g_d / half["d_ij"])[:, None] * half["r_ij"]
    idx_i = full["idx_i"][full["pairs"]]
    expected = pair_forces(g_ij, idx_i, half["idx_j"], n_atoms)
    torch.testing.assert_close(forces, expected, rtol=1e-12, atol=1e-12)
    expected = pair_virial(g_ij, half["r_ij"], half["idx_m"][idx_i], n_structures)
    torch.testing.assert_close(virial, expected, rtol=1e-12, atol=1e-12)


def test_forces_without_the_virial():
    _, half = geometry()
    n = int(half["idx_m"].max()) + 1
    g_d = torch.randn(len(half["d_ij"]), dtype=torch.float64, requires_grad=True)
    expected, _ = ops.pair_forces(g_d, **half, n_structures=n)
    forces, virial = ops.pair_forces(g_d, **half, n_structures=0)
    assert torch.equal(forces, expected)
    assert virial.shape == (0, 3, 3)
    assert torch.autograd.gradcheck(lambda g: ops.pair_forces(g, **half, n_structures=0)[0], g_d)
    assert torch.autograd.gradgradcheck(
        lambda g: ops.pair_forces(g, **half, n_structures=0)[0].square(), g_d
    )


def test_gradients_of_all_orders():
    _, half = geometry()
    n = int(half["idx_m"].max()) + 1
    g_d = torch.randn(len(half["d_ij"]), dtype=torch.float64, requires_grad=True)

    def squared(g: Tensor) -> tuple[Tensor, Tensor]:
        forces, virial = ops.pair_forces(g, **half, n_structures=n)
        return forces.square(), virial.square()

    assert torch.autograd.gradcheck(squared, g_d)
    assert torch.autograd.gradgradcheck(squared, g_d)


def test_no_gradients_in_the_geometry():
    _, half = geometry()
    half["r_ij"].requires_grad_()
    g_d = torch.ones(len(half["d_ij"]), dtype=torch.float64)
    forces, _ = ops.pair_forces(g_d, **half, n_structures=int(half["idx_m"].max()) + 1)
    with pytest.raises(NotImplementedError, match="not differentiable in `r_ij`"):
        forces.sum().backward()


def test_operators_follow_their_declarations():
    full, half = geometry()
    torch.library.opcheck(torch.ops.scschnet.pair_vectors.default, tuple(full.values()))
    g_d = torch.randn(len(half["d_ij"]), dtype=torch.float64, requires_grad=True)
    arguments = (g_d, *(half[name] for name in NAMES), int(half["idx_m"].max()) + 1)
    torch.library.opcheck(torch.ops.scschnet.pair_forces.default, arguments)


def test_without_pairs():
    empty, index = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    forces, virial = ops.pair_forces(
        empty,
        empty.reshape(0, 3),
        empty,
        torch.zeros(3, dtype=torch.int64),
        index,
        index.new_zeros(2),
        1,
    )
    assert torch.equal(forces, torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(virial, torch.zeros(1, 3, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "wrong", "error", "message"),
    [
        ("positions", lambda t: t.float(), TypeError, "`positions` must be Double, got Float"),
        ("positions", lambda t: t[:, :2], ValueError, r"`positions` must have shape \["),
        ("cells", lambda t: t[0], ValueError, "`cells` must have shape"),
        ("idx_m", lambda t: t + 100, ValueError, "`idx_m` must lie between 0 and"),
        ("pairs", lambda t: t - 1, ValueError, "`pairs` must lie between 0 and"),
        ("idx_i", lambda t: t + 100, ValueError, "`idx_i` must lie between 0 and"),
        ("idx_j", lambda t: t - 1, ValueError, "`idx_j` must lie between 0 and"),
        ("shifts", lambda t: t.long(), TypeError, "`shifts` must be Int, got Long"),
    ],
)
def test_arguments_of_vectors_are_checked(name, wrong, error, message):
    full, _ = geometry()
    full[name] = wrong(full[name])
    with pytest.raises(error, match=message):
        ops.pair_vectors(**full)


def test_distances_are_the_lengths_of_the_vectors():
    r_ij = torch.randn(1000, 3, dtype=torch.float64)
    expected = torch.tensor([float(np.sqrt(x * x + y * y + z * z)) for x, y, z in r_ij.tolist()])
    torch.testing.assert_close(ops.pair_distances(r_ij), expected.double(), rtol=1e-7, atol=0)
    torch.testing.assert_close(
        ops.pair_distances(r_ij), torch.linalg.vector_norm(r_ij, dim=1), rtol=1e-15, atol=0
    )
    for strided in (r_ij.t().contiguous().t(), r_ij.repeat_interleave(2, 0)[::2]):
        assert torch.equal(ops.pair_distances(strided), ops.pair_distances(r_ij))
    assert ops.pair_distances(r_ij[:0]).shape == (0,)
    torch.library.opcheck(torch.ops.scschnet.pair_distances.default, (r_ij,))
    with pytest.raises(ValueError, match="`r_ij` must have shape"):
        ops.pair_distances(r_ij[:, :2])
    with pytest.raises(TypeError, match="`r_ij` must be Double, got Float"):
        ops.pair_distances(r_ij.float())


@pytest.mark.parametrize(
    ("name", "wrong", "error", "message"),
    [
        ("g_d", lambda t: t.float(), TypeError, "`g_d` must be Double, got Float"),
        ("g_d", lambda t: t[1:], ValueError, "`g_d` must have shape"),
        ("r_ij", lambda t: t[1:], ValueError, "`r_ij` must have shape"),
        ("row_ptr", lambda t: t.flip(0), ValueError, "`row_ptr` must ascend"),
        ("idx_j", lambda t: t + 100, ValueError, "`idx_j` must lie between 0 and"),
        ("idx_m", lambda t: t + 100, ValueError, "`idx_m` must lie between 0 and"),
    ],
)
def test_arguments_of_forces_are_checked(name, wrong, error, message):
    _, half = geometry()
    arguments = {"g_d": torch.ones_like(half["d_ij"])} | half
    arguments[name] = wrong(arguments[name])
    with pytest.raises(error, match=message):
        ops.pair_forces(**arguments, n_structures=int(half["idx_m"].max()) + 1)


@pytest.mark.parametrize("reach", [1.7, 3.0, 9.0])
def test_trial_sizes_are_those_of_plain_torch(reach):
    full, half = geometry()
    del half["idx_m"]
    idx_i, n_atoms = full["idx_i"][full["pairs"]], len(full["positions"])
    pairs = (idx_i, half["idx_j"], half["r_ij"], half["d_ij"])
    expected = trial_forces(*pairs, n_atoms, half=True, reach=reach)
    found = ops.trial_sizes(**half, reach=reach)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    assert (found == 1e-4).any() == (expected == 1e-4).any()
    torch.library.opcheck(torch.ops.scschnet.trial_sizes.default, (*half.values(), reach))
    with pytest.raises(ValueError, match="`reach` must be positive, got -1"):
        ops.trial_sizes(**half, reach=-1.0)
    with pytest.raises(ValueError, match="`r_ij` must have shape"):
        ops.trial_sizes(**half | {"r_ij": half["r_ij"][:, :2]}, reach=reach)
    with pytest.raises(ValueError, match="`idx_j`"):
        ops.trial_sizes(**half | {"idx_j": half["idx_j"] + n_atoms}, reach=reach)


def test_partners_are_for_gpus():
    _, half = geometry()
    partners = torch.zeros(8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="`partners` are for GPUs only, got some on cpu"):
        ops.pair_forces(torch.ones_like(half["d_ij"]), **half, n_structures=0, partners=partners)
