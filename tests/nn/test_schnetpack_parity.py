"""Weights of SchNetPack 2.2.0 in our model: same energies, forces, stress on real structures.

The numbers come from golden/schnetpack_2.2.0.npz, made by golden/make_schnetpack.py. Measure: the
largest absolute difference over the root mean square of SchNetPack's values, for MD17 (ethanol,
aspirin, salicylic acid), QM9 and periodic water each on its own. Energies are compared with and
without SchNetPack's offsets (mean and atomrefs), which are a thousand times larger and hide errors.
"""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from scschnet.data.batch import Batch, collate
from scschnet.data.structure import StructureSet
from scschnet.nn.schnetpack import from_schnetpack

GOLDEN = Path(__file__).parents[1] / "golden" / "schnetpack_2.2.0.npz"
CUTOFF = 5.0
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float64_centers": torch.float64,
}
SETS = ["md17", "qm9", "water"]
DECLARED = {
    "elements": [1, 6, 7, 8, 9],
    "energy_unit": 1.0,
    "readout_activation": "shifted_softplus",
}


@functools.cache
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


def state_dict(name="rbf21", dtype=torch.float64):
    begin = f"{name}/state_dict/"
    return {
        key.removeprefix(begin): torch.tensor(value, dtype=dtype)
        for key, value in golden().items()
        if key.startswith(begin)
    }


def structures(set_name):
    """The structures of one data set, as a batch, and their numbers and those of their atoms."""
    g = golden()
    chosen = np.flatnonzero(np.char.startswith(g["names"], set_name))
    every = StructureSet(
        **{key: g[key] for key in ("positions", "atomic_numbers", "atom_ptr", "cells", "pbc")}
    )
    atoms = np.flatnonzero(np.isin(every.idx_m, chosen))
    return collate(every, chosen, CUTOFF), chosen, atoms


def predict(model, batch: Batch):
    """Energies, forces, stress, and the energies without offsets, as arrays."""
    model.filters = "dense"  # what SchNetPack does
    with torch.no_grad():
        result = model(**batch.inputs, stress=True)
        network = result["energies"] - model.offsets.shift
        network -= model.offsets.atomref[batch.atomic_numbers]
        result["network_energy"] = (
            torch.zeros(len(batch)).double().index_add(0, batch.idx_m, network)
        )
    return {key: value.double().numpy() for key, value in result.items()}


def difference(found, expected):
    """Largest absolute difference over the root mean square of `expected`."""
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.sqrt(np.mean(expected.astype(float) ** 2))


def differences(name, variant, set_name):
    """`difference` of each quantity, for the model `name` in one variant of make_schnetpack.py."""
    batch, chosen, atoms = structures(set_name)
    result = predict(from_schnetpack(state_dict(name, DTYPES[variant]), **DECLARED), batch)
    rows = {"energy": chosen, "network_energy": chosen, "forces": atoms}
    if set_name == "water":
        rows["stress"] = chosen
    return {
        key: difference(result[key], golden()[f"{name}/{variant}/{key}"][index])
        for key, index in rows.items()
    }


@pytest.mark.parametrize("set_name", SETS)
@pytest.mark.parametrize(("name", "variant"), [("rbf21", "float64"), ("rbf20", "float64_centers")])
def test_float64_equals_schnetpack(name, variant, set_name):
    found = differences(name, variant, set_name)
    assert max(found.values()) < 1e-12, found  # 3e-14 when written; 1e-10 is what was promised


@pytest.mark.parametrize("set_name", SETS)
@pytest.mark.parametrize("name", ["rbf20", "rbf21"])
def test_float32_equals_schnetpack(name, set_name):
    found = differences(name, "float32", set_name)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("set_name", SETS)
def test_float64_with_rounded_centers_differs_by_that_rounding_alone(set_name):
    """SchNetPack as installed keeps the centers of 20 Gaussians in float32; ours are exact."""
    found = differences("rbf20", "float64", set_name)
    assert max(found.values()) < 5e-6, found


def test_golden_numbers_are_of_2_2_0_and_not_trivial():
    g = golden()
    assert "schnetpack 2.2.0" in g["versions"]
    for name in ("rbf20", "rbf21"):
        assert np.abs(g[f"{name}/float64/forces"]).max() > 1.0
        assert np.std(g[f"{name}/float64/network_energy"]) > 1.0
        assert all(value.any() for key, value in g.items() if key.startswith(f"{name}/state_dict"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_keep_their_dtype_and_offsets_are_float64(dtype):
    model = from_schnetpack(state_dict(dtype=dtype), **DECLARED)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.offsets.atomref.dtype == torch.float64
    assert model.config.elements == (1, 6, 7, 8, 9)
    assert (model.config.cutoff, model.config.rbf_range) == (5.0, None)


def test_state_dict_is_neither_changed_nor_shared():
    weights = state_dict()
    model = from_schnetpack(weights, **DECLARED)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    assert all(torch.equal(value, weights[key]) for key, value in state_dict().items())


def test_energy_unit_scales_energies_and_forces():
    batch, _, _ = structures("qm9")
    in_ev = predict(from_schnetpack(state_dict(), **DECLARED), batch)
    declared = {**DECLARED, "energy_unit": 27.2}
    in_hartree = predict(from_schnetpack(state_dict(), **declared), batch)
    for key in ("energy", "network_energy", "forces"):
        assert difference(in_hartree[key], 27.2 * in_ev[key]) < 1e-12


def test_weighted_skip_with_weights_one_is_the_same_function():
    batch, _, _ = structures("qm9")
    plain = predict(from_schnetpack(state_dict(), **DECLARED), batch)
    model = from_schnetpack(state_dict(), **DECLARED, skip="weighted")
    assert model.contribution_weights.requires_grad
    assert torch.equal(model.contribution_weights, torch.ones(3, dtype=torch.float64))
    assert difference(predict(model, batch)["forces"], plain["forces"]) < 1e-14


def test_several_offsets_add_up():
    weights = state_dict()
    weights["postprocessors.2.mean"] = torch.tensor([1.5])
    weights["postprocessors.2.atomref"] = torch.full((10,), 0.25)
    model = from_schnetpack(weights, **{**DECLARED, "energy_unit": 2.0})
    assert float(model.offsets.shift) == 2.0 * (-4.25 + 1.5)
    assert float(model.offsets.atomref[6]) == 2.0 * (
        float(weights["postprocessors.1.atomref"][6]) + 0.25
    )


def test_model_without_offsets():
    weights = {k: v for k, v in state_dict().items() if not k.startswith("postprocessors")}
    model = from_schnetpack(weights, **DECLARED)
    assert float(model.offsets.shift) == 0.0
    assert not model.offsets.atomref.any()


def test_cutoff_and_basis_are_read_from_their_float32_buffers():
    weights = state_dict()
    weights["representation.cutoff_fn.cutoff"] = torch.tensor([5.3]).double()
    weights["representation.radial_basis.offsets"] = torch.linspace(0.0, 4.1, 21).double()
    weights["representation.radial_basis.widths"] = torch.full((21,), 4.1 / 20).double()
    config = from_schnetpack(weights, **DECLARED).config
    assert (config.cutoff, config.rbf_range) == (5.3, 4.1)


BLOCK = "representation.interactions.0"
BASIS = "representation.radial_basis"
ERRORS = {
    "electronic embedding": (
        {"representation.electronic_embeddings.0.weight": torch.ones(1)},
        "`state_dict` must hold nothing but a SchNet with Gaussian basis .* "
        r"got also representation\.electronic_embeddings\.0\.weight",
    ),
    "mollifier": (
        {"representation.cutoff_fn.eps": torch.ones(1)},
        r"got also representation\.cutoff_fn\.eps",
    ),
    "scaled property": (
        {"postprocessors.2.scale": torch.ones(1)},
        r"got also postprocessors\.2\.scale",
    ),
    "second output": (
        {"output_modules.1.outnet.0.weight": torch.ones(8, 16)},
        r"got also output_modules\.1\.outnet\.0\.weight",
    ),
    "switch function": (
        {
            "representation.cutoff_fn.cutoff": None,
            "representation.cutoff_fn.switch_on": torch.ones(1),
        },
        r"`state_dict` must have the key representation\.cutoff_fn\.cutoff, "
        r"got representation\.cutoff_fn\.switch_on",
    ),
    "Bessel basis": (
        {f"{BASIS}.offsets": None, f"{BASIS}.widths": None, f"{BASIS}.freqs": torch.ones(21)},
        r"must have the key representation\.radial_basis\.offsets, "
        r"got representation\.radial_basis\.freqs",
    ),
    "no readout": (
        {f"output_modules.0.outnet.{k}.{p}": None for k in (0, 1) for p in ("weight", "bias")},
        r"must have the key output_modules\.0\.outnet\.0\.weight, got ",
    ),
    "moved centers": (
        {f"{BASIS}.offsets": torch.linspace(0.5, 5.0, 21)},
        r"`representation\.radial_basis\.offsets` must be those of Gaussians evenly spaced "
        "from 0 to 5.0 Å, 0 at 0, got 0.5",
    ),
    "trained widths": (
        {f"{BASIS}.widths": torch.full((21,), 0.3)},
        r"`representation\.radial_basis\.widths` must be .* 0.25 at 0, got 0.3",
    ),
    "centered basis": (
        {f"{BASIS}.offsets": torch.zeros(21)},
        r"`representation\.radial_basis\.offsets` must end at a positive distance, got 0.0",
    ),
    "one Gaussian": (
        {f"{BASIS}.offsets": torch.zeros(1)},
        r"`representation\.radial_basis\.offsets` must have at least 2 centers, got 1",
    ),
    "centers of two axes": (
        {f"{BASIS}.offsets": torch.zeros(1, 21)},
        r"`representation\.radial_basis\.offsets` must have 1 axes, got shape \(1, 21\)",
    ),
    "other number of filters": (
        {f"{BLOCK}.in2f.weight": torch.ones(8, 16).double()},
        r"`representation\.interactions\.0\.in2f\.weight` must have shape \(16, 16\), "
        r"got \(8, 16\)",
    ),
    "other hidden width": (
        {"output_modules.0.outnet.0.weight": torch.ones(16, 16).double()},
        r"`output_modules\.0\.outnet\.0\.weight` must have shape \(8, 16\), got \(16, 16\)",
    ),
    "missing block part": (
        {f"{BLOCK}.f2out.1.bias": None},
        r"must have the key representation\.interactions\.0\.f2out\.1\.bias, "
        r"got representation\.interactions\.0\.f2out\.1\.weight$",
    ),
    "not finite": (
        {f"{BLOCK}.f2out.0.bias": torch.full((16,), torch.nan).double()},
        r"`representation\.interactions\.0\.f2out\.0\.bias` must be finite, "
        "got a value that is not",
    ),
    "short atomrefs": (
        {"postprocessors.1.atomref": torch.zeros(9)},
        r"`postprocessors\.1\.atomref` must reach element 9 of `elements`, got shape \(9,\)",
    ),
    "short embedding": (
        {"representation.embedding.weight": torch.zeros(9, 16).double()},
        r"`elements` must be below 9, the rows of representation\.embedding\.weight, got 9",
    ),
}
TYPE_ERRORS = {
    "not a tensor": (
        {f"{BLOCK}.in2f.weight": 1.0},
        r"`representation\.interactions\.0\.in2f\.weight` must be a tensor, got float",
    ),
    "integers": (
        {f"{BLOCK}.f2out.0.bias": torch.zeros(16, dtype=torch.int64)},
        r"`representation\.interactions\.0\.f2out\.0\.bias` must hold real numbers, "
        "got torch.int64",
    ),
    "mixed dtypes": (
        {f"{BLOCK}.f2out.0.bias": torch.zeros(16)},
        r"`representation\.interactions\.0\.f2out\.0\.bias` must be torch.float64 as "
        r"representation\.embedding\.weight, got torch.float32",
    ),
    "half precision": (
        {"representation.embedding.weight": torch.zeros(100, 16).half()},
        r"`representation\.embedding\.weight` must be float32 or float64, got torch.float16",
    ),
}


def changed(changes):
    """A state dict with entries replaced, or removed where None."""
    return {key: value for key, value in {**state_dict(), **changes}.items() if value is not None}


@pytest.mark.parametrize("case", ERRORS)
def test_unsupported_models_are_refused(case):
    changes, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        from_schnetpack(changed(changes), **DECLARED)


@pytest.mark.parametrize("case", TYPE_ERRORS)
def test_wrong_types_are_refused(case):
    changes, message = TYPE_ERRORS[case]
    with pytest.raises(TypeError, match=message):
        from_schnetpack(changed(changes), **DECLARED)


def test_keys_of_a_training_task_are_named():
    weights = {f"model.{key}": value for key, value in state_dict().items()}
    message = r"must have the key representation.* got model\..*: take `model.state_dict\(\)`"
    with pytest.raises(ValueError, match=message):
        from_schnetpack(weights, **DECLARED)


def test_empty_state_dict_is_refused():
    with pytest.raises(ValueError, match=r"must have the key .*, got no keys"):
        from_schnetpack({}, **DECLARED)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        (
            "readout_activation",
            "silu",
            "`readout_activation` must be shifted_softplus, .* got silu",
        ),
        ("energy_unit", 0.0, "`energy_unit` must be positive and finite, got 0.0"),
        ("energy_unit", float("inf"), "`energy_unit` must be positive and finite, got inf"),
        ("elements", [], "`elements` must be "),
        ("skip", "none", "`skip` must be one of weighted, plain, got none"),
    ],
)
def test_arguments_out_of_range_are_refused(argument, value, message):
    with pytest.raises(ValueError, match=message):
        from_schnetpack(state_dict(), **{**DECLARED, argument: value})
