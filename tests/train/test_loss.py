"""The loss against loops over structures; labels that are missing; weights; offsets and the split of small sets."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from conftest import make_model

from scschnet.commands.train import main
from scschnet.data import Split, StructureSet, collate, save_split
from scschnet.evaluate import Predictions
from scschnet.runs.config import TrainConfig
from scschnet.train.loss import Loss, labels_of
from scschnet.train.setup import (
    build_model,
    choose_split,
    describe,
    fit_offsets,
    lone_atoms,
    parse_atomic_energies,
    read_structures,
    resolve,
    threads_for,
)

SIZES = (1, 4, 2, 7, 3)


def structures(rng, weights=None, missing=()) -> StructureSet:
    """Periodic structures of several sizes with random labels; `missing` names (label, structure) without one."""
    n_atoms, n = sum(SIZES), len(SIZES)
    labels = {
        "energy": rng.normal(size=n),
        "forces": rng.normal(size=(n_atoms, 3)),
        "stress": rng.normal(size=(n, 3, 3)),
    }
    atom_ptr = np.cumsum([0, *SIZES])
    for name, m in missing:
        rows = slice(atom_ptr[m], atom_ptr[m + 1]) if name == "forces" else m
        labels[name][rows] = np.nan
    return StructureSet(
        positions=rng.uniform(0, 6, (n_atoms, 3)),
        atomic_numbers=rng.choice([1, 6, 8], n_atoms),
        atom_ptr=atom_ptr,
        cells=np.array([np.eye(3) * (6.0 + m) for m in range(n)]),
        pbc=np.ones((n, 3), bool),
        weights=weights,
        **labels,
    )


def predictions(rng) -> Predictions:
    n_atoms, n = sum(SIZES), len(SIZES)
    return Predictions(
        rng.normal(size=n), rng.normal(size=(n_atoms, 3)), rng.normal(size=(n, 3, 3))
    )


def by_loops(found, labels, rho, stress_weight, per_atom) -> float:
    """The formula of the docstring, structure by structure."""
    sums, counts = np.zeros(3), np.zeros(3)
    for m, size in enumerate(SIZES):
        atoms = slice(labels.atom_ptr[m], labels.atom_ptr[m + 1])
        weight = 1.0 if labels.weights is None else labels.weights[m]
        volume = (6.0 + m) ** 3
        parts = (
            (found.energy[m] - labels.energy[m]) / (size if per_atom else 1),
            found.forces[atoms] - labels.forces[atoms],
            (found.stress[m] - labels.stress[m]) * (volume / size if per_atom else 1),
        )
        for k, part in enumerate(parts):
            if not np.isnan(part).any():
                sums[k] += weight * np.square(part).sum()
                counts[k] += np.size(part)
    return float(np.dot([rho, 1 - rho, stress_weight], sums / counts))


CASES = {
    "whole": {},
    "weighted": {"weights": np.array([0.5, 2.0, 1.0, 0.0, 3.0])},
    "partial": {"missing": [("energy", 1), ("forces", 3), ("stress", 0), ("stress", 4)]},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["per_atom", "total"])
def test_loss_is_the_formula(case, kind):
    rng = np.random.default_rng(3)
    labels, found = structures(rng, **CASES[case]), predictions(rng)
    loss = Loss(TrainConfig(rho=0.3, stress_weight=0.7, loss=kind), labels)
    expected = by_loops(found, labels, 0.3, 0.7, kind == "per_atom")
    batch = collate(labels, range(len(labels)), 4.0)
    result = {name: torch.from_numpy(getattr(found, name)) for name in loss.weights}
    got = loss(result, labels_of(batch), len(labels), sum(SIZES))
    assert got.item() == pytest.approx(expected, rel=1e-12)
    assert loss.of(loss.errors(found, labels)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["per_atom", "total"])
def test_shares_of_a_batch_add_up(kind):
    rng = np.random.default_rng(4)
    labels, found = structures(rng, **CASES["partial"]), predictions(rng)
    loss = Loss(TrainConfig(rho=0.3, stress_weight=0.7, loss=kind), labels)
    total = 0.0
    for chosen in ([0, 3], [1], [2, 4]):
        atoms = np.concatenate([np.arange(*labels.atom_ptr[m : m + 2]) for m in chosen])
        rows = {"energy": chosen, "forces": atoms, "stress": chosen}
        result = {k: torch.from_numpy(getattr(found, k)[rows[k]]) for k in rows}
        total += loss(result, labels_of(collate(labels, chosen, 4.0)), 5, sum(SIZES)).item()
    assert total == pytest.approx(by_loops(found, labels, 0.3, 0.7, kind == "per_atom"))


def test_gradients_of_molecules_among_crystals_are_finite():
    """An open structure has no volume, so no stress; it counts in energy and forces."""
    labels = structures(np.random.default_rng(5))
    labels.cells[1], labels.pbc[1] = 0.0, False
    model = make_model(cutoff=4.0)
    loss = Loss(TrainConfig(stress_weight=1.0), labels)
    batch = collate(labels, range(len(labels)), 4.0)
    value = loss(model(**batch.inputs, stress=True), labels_of(batch), len(labels), sum(SIZES))
    gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    assert torch.isfinite(value)
    assert all(torch.isfinite(part).all() for part in gradients if part is not None)


def test_no_label_of_a_kind_is_an_error():
    labels = structures(np.random.default_rng(6), missing=[("stress", m) for m in range(5)])
    with pytest.raises(ValueError, match="no structure of the training part has stress"):
        Loss(TrainConfig(stress_weight=1.0), labels)


def test_a_validation_part_without_labels_is_an_error():
    """Its loss would be zero, and the first epoch the best one for good."""
    labels = structures(np.random.default_rng(6), missing=[("energy", 4)])
    loss = Loss(TrainConfig(stress_weight=0.0), labels.select([0, 1, 2, 3]))
    loss.check_validation(labels.select([3]))
    with pytest.raises(ValueError, match="energy is trained on, but no structure of the valid"):
        loss.check_validation(labels.select([4]))


def test_missing_energies_do_not_reach_the_offsets():
    rng = np.random.default_rng(7)
    whole = structures(rng)
    some = structures(np.random.default_rng(7), missing=[("energy", 2), ("forces", 0)])
    offsets = fit_offsets(some)
    expected = fit_offsets(whole.select([0, 1, 3, 4]))
    for one, other in zip(offsets, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def atoms_and_water(isolated=None) -> StructureSet:
    """H alone, O alone, and water, whose energy is -10 eV below its atoms."""
    return StructureSet(
        positions=np.array([[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0]]),
        atomic_numbers=np.array([1, 8, 8, 1, 1]),
        atom_ptr=np.array([0, 1, 2, 5]),
        cells=np.array([np.eye(3) * 20.0] * 3),
        pbc=np.ones((3, 3), bool) if isolated is not None else np.zeros((3, 3), bool),
        energy=np.array([-13.0, -2000.0, -2036.0]),
        isolated=isolated,
    )


@pytest.mark.parametrize("isolated", [None, np.array([True, True, False])])
def test_isolated_atoms_set_the_reference_energies(isolated):
    data = atoms_and_water(isolated)
    known = lone_atoms(TrainConfig(), data)
    assert known == {1: -13.0, 8: -2000.0}
    shift, _, atomref = fit_offsets(data.select([2]), known)
    assert shift == pytest.approx(-10.0 / 3)
    assert atomref[1] == -13.0
    assert atomref[8] == -2000.0


def test_a_primitive_cell_is_no_isolated_atom():
    assert lone_atoms(TrainConfig(), atoms_and_water(np.zeros(3, bool))) == {}


def test_atomic_energies_of_the_command_line():
    given = TrainConfig(atomic_energies="H=-13.5, O=-2041")
    assert lone_atoms(given, atoms_and_water()) == {1: -13.5, 8: -2041.0}
    for text in ("H", "H=x", "Q=1", "H=nan"):
        with pytest.raises(ValueError, match="`atomic_energies` must be like"):
            parse_atomic_energies(text)


def test_stress_is_trained_on_where_every_structure_has_it():
    whole = structures(np.random.default_rng(8))
    config = resolve(TrainConfig(n_train=3, n_val=1), whole)
    assert config.stress_weight == 1.0
    assert "trained on stress, too" in describe(config, whole, choose_split(config, whole))
    some = structures(np.random.default_rng(8), missing=[("stress", 0)])
    assert resolve(TrainConfig(n_train=3, n_val=1), some).stress_weight == 0.0
    assert resolve(TrainConfig(n_train=3, n_val=1, stress_weight=0.5), some).stress_weight == 0.5


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, (3, 1, 1)),  # smaller than the defaults: 8:1:1, at least one each
        ({"n_train": 0.6, "n_val": 0.2}, (3, 1, 1)),
        ({"n_train": 2, "n_val": 1, "n_test": 1}, (2, 1, 1)),
        ({"n_train": 4, "n_val": 1}, (4, 1, 0)),
    ],
)
def test_splits_fit_the_set(options, sizes):
    data = structures(np.random.default_rng(9))
    data.atomic_numbers[:] = 6
    config = resolve(TrainConfig(**options), data)
    split = choose_split(config, data)
    assert (len(split.train), len(split.val), len(split.test)) == sizes
    assert ("no structures are left to test" in describe(config, data, split)) == (not sizes[2])


def test_a_committee_shares_a_split():
    data = structures(np.random.default_rng(10))
    splits = [
        choose_split(resolve(TrainConfig(seed=seed, split_seed=7), data), data) for seed in (1, 2)
    ]
    np.testing.assert_array_equal(splits[0].train, splits[1].train)
    others = [choose_split(resolve(TrainConfig(seed=seed), data), data) for seed in range(8)]
    assert any(not np.array_equal(others[0].train, other.train) for other in others)


def split_file(path, train, val, test) -> TrainConfig:
    """Options that take the split from a file."""
    save_split(path, Split(*(np.array(part, dtype=np.int64) for part in (train, val, test))))
    return TrainConfig(split_file=str(path))


def test_elements_that_are_never_trained_on_are_left_out_and_named(tmp_path):
    data = structures(np.random.default_rng(11))
    data.atomic_numbers[:] = 6
    data.atomic_numbers[0] = 29  # of structure 0
    path = tmp_path / "split.npz"
    for train, val, test, known in (
        ([0, 1], [2], [3, 4], True),
        ([1], [2], [4, 0, 3], False),
        ([1], [2, 0], [3], False),
    ):
        config = split_file(path, train, val, test)
        split = choose_split(config, data)
        expected = [np.array([m for m in part if known or m != 0]) for part in (train, val, test)]
        for name, part in zip(("train", "val", "test"), expected, strict=True):
            np.testing.assert_array_equal(getattr(split, name), part)
        text = describe(config, data, split)
        note = "Cu in no training structure, so the model does not know it; 1 structures with it"
        assert (note in text) == (not known)
        assert (29 in build_model(config, data, split.train).config.elements) == known
    with pytest.raises(ValueError, match="elements in its part train that the part val has, got C"):
        choose_split(split_file(path, [1], [0], [2]), data)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_split_without_a_part_is_refused_before_the_training(part, tmp_path):
    data = structures(np.random.default_rng(11))
    parts = {"train": [0, 1, 2], "val": [3], "test": [4]} | {part: []}
    config = split_file(tmp_path / "split.npz", **parts)
    with pytest.raises(
        ValueError, match=f"split.npz must have structures in its part {part}, got none"
    ):
        choose_split(config, data)


def test_all_pairs_of_a_periodic_set_are_refused(tmp_path):
    atoms = bulk("Cu")
    atoms.calc = EMT()
    atoms.get_forces()
    write(tmp_path / "cu.extxyz", [atoms] * 3)
    config = TrainConfig(
        data=str(tmp_path / "cu.extxyz"), cutoff_function="none", cutoff=30.0, units="eV, Angstrom"
    )
    with pytest.raises(ValueError, match="`cutoff_function` none is for molecules"):
        read_structures(config)


def test_stress_stands_in_every_table(tmp_path, capsys, monkeypatch):
    """Periodic structures of two sizes: errors per atom, and stress in GPa beside eV/Å^3."""
    frames, rng = [], np.random.default_rng(12)
    for k in range(12):
        atoms = bulk("Cu", cubic=k % 2 == 0)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        atoms.get_stress()
        frames.append(atoms)
    write(tmp_path / "cu.extxyz", frames)
    monkeypatch.setattr("scschnet.commands.train.describe", lambda run: None)
    small = "--n-features 8 --n-interactions 1 --n-rbf 6 --epochs 2 --threads 1"
    out = tmp_path / "run"
    assert main(f"--data {tmp_path / 'cu.extxyz'} --out {out} {small}".split()) == 0
    shown = capsys.readouterr()
    assert "10 to train on, 1 for validation, 1 to test" in shown.err
    assert "950 to train on and 50 for validation leave nothing to test of 12" in shown.err
    assert "meV/atom" in shown.err and "GPa" in shown.err
    for text in ("energy per atom", "meV", "GPa", "eV/Å^3"):
        assert text in shown.out
    header, *rows = (out / "metrics.csv").read_text().splitlines()
    last = dict(zip(header.split(","), rows[-1].split(","), strict=True))
    names = ("val_stress_mae", "val_stress_rmse", "val_energy_per_atom_mae")
    assert all(float(last[name]) > 0 for name in names)


def test_small_batches_take_one_thread():
    data = structures(np.random.default_rng(13))
    assert threads_for(TrainConfig(batch_size=10), data) == 1
    assert threads_for(TrainConfig(batch_size=1000), data) == 0
