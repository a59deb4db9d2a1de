"""The operator for weights packed once: the same bits as `schnet`, and as long as no parameter changes."""

import pytest
import torch
from conftest import make_model, make_structures
from test_schnet_op import Case
from torch import Tensor

from scschnet import ops
from scschnet.data import collate


def arguments_of(case: Case, dtype: torch.dtype) -> list:
    """Those of `schnet` but for `derivatives`."""
    features, tables, weights, *parameters = (t.detach() for t in case.leaves(dtype))
    pairs = (case.row_ptr, case.idx_j, case.bins, case.spline(dtype))
    return [features, *pairs, tables, weights, parameters]


def pack(arguments: list) -> Tensor:
    return ops.pack_schnet(*arguments[5:])


SIZES = {
    "odd": {"n_features": 21},
    "no blocks": {"n_blocks": 0},
    "no pairs": {"n_pairs": 0},
    "several row blocks": {"n_atoms": 210, "n_pairs": 400, "n_features": 64},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("derivatives", [True, False])
def test_same_bits_as_without_packing(size, dtype, derivatives):
    arguments = arguments_of(Case(**SIZES[size]), dtype)
    packed = pack(arguments)
    for _ in range(2):  # the packed weights stay as they are
        how = (len(arguments[0]), False, derivatives, False)
        found = ops.schnet_evaluate(*arguments, *how, packed)
        expected = torch.ops.scschnet.schnet(*arguments, derivatives)
        for a, b in zip(found[:3], expected[:3], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("derivatives", [True, False])
def test_same_bits_with_ghosts(size, dtype, derivatives):
    arguments = arguments_of(Case(**SIZES[size]), dtype)
    how = (len(arguments[0]) - 2, False, derivatives, True)
    found = ops.schnet_evaluate(*arguments, *how, pack(arguments))
    for a, b in zip(found, ops.schnet_evaluate(*arguments, *how), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p: p[:-1], ValueError, "`packed` must be what pack_schnet made, "),
        (lambda p: p.double(), TypeError, "`packed` must be Float like `features`, got Double"),
        (lambda p: p.repeat(2)[::2], ValueError, "`packed` must be what pack_schnet made, "),
    ],
)
def test_other_packed_weights_are_named(change, error, message):
    arguments = arguments_of(Case(), torch.float32)
    with pytest.raises(error, match=message):
        ops.schnet_evaluate(*arguments, 3, False, True, False, change(pack(arguments)))


def test_wrong_parameters_are_named():
    arguments = arguments_of(Case(), torch.float32)
    with pytest.raises(ValueError, match="`parameters` must hold 5 tensors for each of 2 blocks"):
        ops.pack_schnet(arguments[5], arguments[6], arguments[7][1:])
    with pytest.raises(ValueError, match="`tables` must have shape"):
        ops.pack_schnet(arguments[5][0], arguments[6], arguments[7])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, from its tracer
def test_opcheck():
    arguments = arguments_of(Case(n_atoms=5, n_pairs=7, n_features=6), torch.float64)
    torch.library.opcheck(torch.ops.scschnet.pack_schnet, tuple(arguments[5:]))
    packed = pack(arguments)
    all_local = (*arguments, 5, False, True, True, packed)
    torch.library.opcheck(torch.ops.scschnet.schnet_evaluate, all_local)


CHANGES = {
    "in place": lambda m: m.readout.hidden.weight.mul_(1.1),
    "by another": lambda m: setattr(m.readout.output, "weight", twice(m.readout.output.weight)),
    "of a block": lambda m: m.interactions[1].hidden.bias.add_(0.1),
    "of a filter": lambda m: m.interactions[0].filter_generator.output.bias.add_(0.1),
    "of the weights": lambda m: m.contribution_weights.mul_(1.1),
    "of the embedding": lambda m: m.embedding.weight.mul_(1.1),
    "of all": lambda m: m.load_state_dict(make_model(seed=1).state_dict()),
    "assigned": lambda m: m.load_state_dict(make_model(seed=1).state_dict(), assign=True),
}


def twice(parameter: Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(2 * parameter, requires_grad=False)


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_a_frozen_model_follows_its_parameters(change):
    batch = collate(make_structures(), [0, 3], 4.0)
    kept = make_model(filters="spline").requires_grad_(False)
    before = kept(**batch.inputs)["energy"]
    CHANGES[change](kept)
    kept.requires_grad_(False)
    fresh = make_model(filters="spline").requires_grad_(False)
    fresh.load_state_dict(kept.state_dict())
    found, expected = kept(**batch.inputs), fresh(**batch.inputs)
    assert not torch.equal(found["energy"], before)
    assert torch.equal(found["energy"], expected["energy"])
    assert torch.equal(found["forces"], expected["forces"])


@pytest.mark.parametrize("trained", ["readout", "embedding", "contribution_weights"])
def test_a_model_of_which_a_part_is_frozen_has_the_others_gradients(trained):
    batch = collate(make_structures(), [0, 3], 4.0)
    found = []
    for filters in ("dense", "spline"):
        model = make_model(filters=filters).requires_grad_(False)
        model(**batch.inputs)  # keeps what can be kept
        part = getattr(model, trained).requires_grad_(True)
        result = model(**batch.inputs)
        (result["forces"].square().sum() + result["energy"].sum()).backward()
        leaves = [part] if isinstance(part, Tensor) else list(part.parameters())
        found.append([p.grad for p in leaves if p.grad is not None])
    assert found[0]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
