"""Heads against their slow twins, their gradients, and offsets that are taken from labels and undone."""

import dataclasses

import ase
import numpy as np
import pytest
import reference
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import atomic_masses
from conftest import make_model, make_structures

import scschnet
from scschnet.data import StructureSet, collate
from scschnet.nn import SchNet
from scschnet.nn.head import HEADS
from scschnet.properties import KNOWN, Property, parse_properties
from scschnet.train.setup import fit_heads

NAMES = tuple(f"p_{kind}" for kind in HEADS)


def molecules() -> StructureSet:
    """The one of the structures with atoms far from each other and from the origin, and shifted by 3 Å."""
    both = make_structures().select([3, 3])
    positions = both.positions.copy()
    positions[5:] += 3.0
    return dataclasses.replace(both, positions=positions, pbc=None, cells=None)


def head_model(filters: str = "dense", **config) -> SchNet:
    model = make_model(filters=filters, heads=[f"p_{kind}:{kind}" for kind in HEADS], **config)
    torch.nn.init.uniform_(model.head_weights, -0.9, 0.9)
    for _, head in model.named_heads():
        head.scale.fill_(1.3)
        head.offset.uniform_(-1.0, 1.0)
    return model


def parameters_of(model: SchNet) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("kind", list(HEADS))
def test_every_head_equals_its_slow_twin(kind):
    model, structures = head_model().requires_grad_(False), molecules()
    got = model(**collate(structures, [0, 1], 4.0).inputs)[f"p_{kind}"]
    numbers, positions = structures.atomic_numbers[:5], structures.positions[:5]
    pairs = reference.neighbor_pairs(positions, np.zeros((3, 3)), (False,) * 3, 4.0)
    config = dataclasses.asdict(model.config)
    values = reference.atom_values(
        parameters_of(model),
        config,
        positions,
        numbers,
        pairs,
        list(HEADS).index(kind),
        f"p_{kind}",
    )
    masses = atomic_masses[numbers]
    for shift in (0.0, 3.0):
        expected = reference.pooled(kind, values, positions + shift, masses)
        np.testing.assert_allclose(got[int(shift > 0)], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_every_head(name):
    """In the contribution weights, in a block and in the readout, against differences."""
    model, batch = head_model("spline"), collate(molecules(), [0, 1], 4.0).inputs
    loss = model(**batch, forces=False)[name].square().sum()
    chosen = [
        model.head_weights,
        model.interactions[0].output.weight,
        model.heads[name].readout.hidden.weight,
    ]
    found = torch.autograd.grad(loss, chosen)
    row = list(model.heads).index(name)
    others = torch.ones(len(NAMES), dtype=torch.bool)
    others[row] = False
    assert not found[0][others].any()
    for parameter, gradient in zip(chosen, found, strict=True):
        index = int(gradient.abs().argmax())
        flat, values = parameter.detach().view(-1), []
        for step in (1e-5, -2e-5):
            flat[index] += step
            with torch.no_grad():
                values.append(float(model(**batch, forces=False)[name].square().sum()))
        flat[index] += 1e-5
        difference = (values[0] - values[1]) / 2e-5
        assert float(gradient.view(-1)[index]) == pytest.approx(difference, rel=1e-6)


def test_a_dipole_does_not_depend_on_the_origin_and_turns_with_the_molecule():
    model, structures = head_model("spline").requires_grad_(False), molecules()
    found = model(**collate(structures, [0, 1], 4.0).inputs)
    torch.testing.assert_close(found["p_dipole"][0], found["p_dipole"][1], rtol=1e-9, atol=1e-9)
    for name in ("p_dipole_norm", "p_extent"):
        torch.testing.assert_close(found[name][0], found[name][1], rtol=1e-9, atol=1e-9)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    turned = dataclasses.replace(structures, positions=structures.positions @ turn.numpy())
    again = model(**collate(turned, [0, 1], 4.0).inputs)
    torch.testing.assert_close(again["p_dipole"], found["p_dipole"] @ turn, rtol=1e-5, atol=1e-5)


def labeled(labels: dict[Property, np.ndarray], n: int = 40) -> StructureSet:
    """Molecules of 2 to 5 atoms with these labels."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(2, 6, n)
    atoms = int(sizes.sum())
    return StructureSet(
        rng.normal(size=(atoms, 3)) * 2,
        rng.choice([1, 6, 8], atoms),
        np.concatenate([[0], np.cumsum(sizes)]),
        properties=labels,
    )


@pytest.mark.parametrize("kind", ["sum", "mean", "extent"])
def test_offsets_of_the_elements_are_found_in_the_labels(kind):
    """Labels that are nothing but offsets leave no spread, and a model whose readout says nothing gives them back."""
    p, offsets = Property("p", kind), {1: -13.5, 6: -1000.0, 8: 4.0}
    bare = labeled({})
    expected = []
    for m in range(len(bare)):
        atoms = slice(bare.atom_ptr[m], bare.atom_ptr[m + 1])
        numbers, positions = bare.atomic_numbers[atoms], bare.positions[atoms]
        values = np.array([offsets[int(z)] for z in numbers])
        expected.append(reference.pooled(kind, values, positions, atomic_masses[numbers]))
    structures = dataclasses.replace(bare, properties={p: np.array(expected)})
    model = make_model(heads=[p])
    fit_heads(model, structures)
    head = model.heads["p"]
    for z, offset in offsets.items():
        assert float(head.offset[z]) == pytest.approx(offset, rel=1e-9)
    assert float(head.spread) < 1e-6
    torch.nn.init.zeros_(head.readout.output.weight)
    torch.nn.init.zeros_(head.readout.output.bias)
    with torch.no_grad():
        got = model(**collate(structures, np.arange(40), 4.0).inputs)["p"]
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", list(HEADS))
def test_scale_and_spread_follow_the_labels(kind):
    """Labels a thousand times as large: scale and spread, too. A fresh model predicts numbers of their size."""
    rng = np.random.default_rng(0)
    labels = np.abs(rng.normal(size=(40, *HEADS[kind].shape)))
    p = Property("p", kind)
    heads = []
    for factor in (1.0, 1000.0):
        model = make_model(heads=[p])
        fit_heads(model, labeled({p: factor * labels}))
        heads.append(model.heads["p"])
    assert float(heads[1].scale) == pytest.approx(1000 * float(heads[0].scale), rel=1e-9)
    assert float(heads[1].spread) == pytest.approx(1000 * float(heads[0].spread), rel=1e-9)
    assert 0.1 < float(heads[0].spread) < 2.0


def test_names_of_properties():
    assert parse_properties(["mu", "x:mean"]) == (KNOWN["mu"], Property("x", "mean", ""))
    assert [given.text for given in parse_properties(["mu", "homo:mean"])] == ["mu", "homo:mean"]
    for wrong, message in {
        "polar": "must be among U0, mu, .*, or NAME:KIND for another one, got 'polar'",
        "energy:sum": "must not be named energy",
        "q_atoms:sum": "must not be named q_atoms",
        "a b:sum": "must name words",
    }.items():
        with pytest.raises(ValueError, match=message):
            parse_properties([wrong])
    with pytest.raises(ValueError, match="must name each once, got mu twice"):
        parse_properties(["mu", "mu:mean"])
    with pytest.raises(ValueError, match="must not be named items, a word of torch's"):
        make_model(heads=["items:sum"])
    with pytest.raises(ValueError, match="must name a property, since there is no energy"):
        make_model(energy=False)


def test_a_model_without_an_energy_says_nothing_of_it():
    model = head_model("spline", energy=False)
    found = model(**collate(molecules(), [0, 1], 4.0).inputs, stress=True)
    assert set(found) == set(NAMES)
    assert list(model.weights_by_property()) == list(NAMES)
    assert list(head_model().weights_by_property()) == ["energy", *NAMES]


def test_plain_schnet_has_no_weights_of_heads_to_train():
    model = head_model(skip="plain")
    assert "head_weights" not in dict(model.named_parameters())
    assert make_model(heads=["mu"], skip="plain").head_weights.eq(1.0).all()


def test_ase_gives_the_properties_of_a_model_and_of_its_exported_file(tmp_path):
    model = head_model(filters="spline").requires_grad_(False)
    scschnet.export(model, tmp_path / "model.pt")
    structures = molecules()
    atoms = ase.Atoms(structures.atomic_numbers[:5], structures.positions[:5])
    expected = model(**collate(structures, [0], 4.0).inputs)
    for path_or_model in (model, tmp_path / "model.pt"):
        atoms.calc = calculator = scschnet.ScSchNetCalculator(path_or_model)
        assert set(NAMES) < set(calculator.implemented_properties)
        atoms.get_forces()
        for name in NAMES:
            np.testing.assert_allclose(
                calculator.results[name], expected[name][0], rtol=0, atol=1e-5
            )
    atoms.set_cell(30 * np.eye(3))
    atoms.pbc = True
    atoms.get_forces()
    assert {n for n in NAMES if n in calculator.results} == {"p_sum", "p_mean"}
    with pytest.raises(PropertyNotImplementedError, match="means nothing for a periodic structure"):
        calculator.get_property("p_dipole", atoms)
