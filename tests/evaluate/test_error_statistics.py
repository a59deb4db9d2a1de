"""Error bars of a single model: their equations, their calibration, and the same numbers in every host."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from conftest import make_model

import scschnet
from scschnet import ScSchNetCalculator
from scschnet.analysis.unfamiliar import distorted
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.data import embedded
from scschnet.evaluate import predict
from scschnet.evaluate.error_statistics import (
    error_statistics,
    expected_coverage,
    features,
    standard_errors,
    store_error_statistics,
)
from scschnet.export import load_exported
from scschnet.neighbors import neighbor_list
from scschnet.nn.error_bars import NAMES, POWERS, ErrorBars, ErrorStatistics

ETHANOL = embedded.load().select(range(160))
TRAIN, VAL, TEST = (ETHANOL.select(range(a, b)) for a, b in ((0, 60), (60, 110), (110, 160)))


@pytest.fixture(scope="module")
def model():
    return make_model(filters="spline").requires_grad_(False)


@pytest.fixture(scope="module")
def labeled(model):
    """Validation and test structures whose force errors are normal and three times larger on oxygen."""

    def label(structures, seed):
        rng = np.random.default_rng(seed)
        found = predict(model, structures)
        size = np.where(structures.atomic_numbers == 8, 0.3, 0.1)[:, None]
        forces = found.forces + size * rng.normal(size=found.forces.shape)
        energy = found.energy + 0.01 * rng.normal(size=len(structures))
        return replace(structures, forces=forces, energy=energy)

    return label(VAL, 1), label(TEST, 2)


@pytest.fixture(scope="module")
def statistics(model, labeled):
    return error_statistics(model, TRAIN, labeled[0])


@pytest.fixture(scope="module")
def checkpoint(model, statistics, tmp_path_factory):
    file = tmp_path_factory.mktemp("bars") / "best.pt"
    save_checkpoint(file, Checkpoint(model, {}))
    store_error_statistics(file, statistics)
    return file


def frame(structures, k) -> Atoms:
    one = structures.select([k])
    return Atoms(one.atomic_numbers, one.positions)


def slow(statistics, x, numbers, positions):
    """The equations atom by atom."""
    forces, energies = [], []
    root = np.array(statistics.energy_root)
    for i, z in enumerate(numbers):
        e = statistics.elements.index(z)
        away = x[i] - np.array(statistics.mean[e])
        whitening = np.array(statistics.whitening[e])
        d = math.sqrt(away @ whitening @ whitening.T @ away)
        bracket = float(np.dot(statistics.linear, x[i]))
        for gamma, power in zip(statistics.trial, POWERS, strict=True):
            t = np.zeros(3)
            for j in range(len(numbers)):
                r = positions[j] - positions[i]
                d_ij = np.linalg.norm(r)
                if j != i and d_ij < statistics.reach:
                    t += (1 - d_ij / statistics.reach) ** power * r / d_ij
            bracket += gamma * math.log(max(np.linalg.norm(t), 1e-4))
        log_s = statistics.offset[e] + statistics.slope * math.log(d)
        log_s += max(0, 1 - statistics.slope) * max(0, math.log(d / statistics.quantile[e]))
        forces.append(
            math.exp(log_s + min(max(bracket, statistics.bounds[0]), statistics.bounds[1]))
        )
        energies.append(np.linalg.norm(x[i] @ root))
    return np.linalg.norm(x.sum(axis=0) @ root), np.array(energies), np.array(forces)


@pytest.mark.parametrize("by", [0.0, 0.3])
def test_error_bars_follow_the_equations(model, statistics, by):
    one = distorted(TEST.select([3]), by)
    found = standard_errors(model, one, statistics)
    x, _ = features(model, one, statistics.reach)
    energy, energies, forces = slow(statistics, x, one.atomic_numbers, one.positions)
    np.testing.assert_allclose(found.energy[0], energy, rtol=1e-9)
    np.testing.assert_allclose(found.energies, energies, rtol=1e-9)
    np.testing.assert_allclose(found.forces, forces, rtol=1e-7)


def test_error_bars_are_calibrated_on_structures_they_have_not_seen(model, labeled, statistics):
    test = labeled[1]
    found, predicted = standard_errors(model, test, statistics), predict(model, test)
    errors = np.linalg.norm(predicted.forces - test.forces, axis=1)
    for z, size in ((1, 0.1), (8, 0.3)):
        own = test.atomic_numbers == z
        assert np.sqrt(np.mean(found.forces[own] ** 2)) == pytest.approx(size * 3**0.5, rel=0.35)
    for multiple, expected in zip((1.0, 2.0), expected_coverage(3)[1:4:2], strict=True):
        assert (errors <= multiple * found.forces).mean() == pytest.approx(expected, abs=0.1)
    ratios = (predicted.energy - test.energy) / found.energy
    assert np.sqrt(np.mean(ratios**2)) == pytest.approx(1.0, rel=0.4)


def test_expected_coverage_is_that_of_normal_errors():
    rng = np.random.default_rng(0)
    for n in (1, 3):
        sizes = np.linalg.norm(rng.normal(size=(200_000, n)), axis=1) / n**0.5
        found = [(sizes <= k).mean() for k in (0.5, 1.0, 1.5, 2.0, 3.0)]
        np.testing.assert_allclose(expected_coverage(n), found, atol=0.005)


def test_strange_atoms_look_less_certain(model, statistics):
    medians = [
        np.median(standard_errors(model, distorted(TEST, by), statistics).forces)
        for by in (0.0, 0.1, 0.3, 0.6)
    ]
    assert medians == sorted(medians)


def test_unknown_elements_have_infinite_error_bars(statistics):
    x = torch.zeros(2, len(statistics.linear), dtype=torch.float64)
    trial = torch.ones(2, len(POWERS), dtype=torch.float64)
    energy, energies, forces, _ = ErrorBars(statistics)(x, torch.tensor([6, 14]), trial)
    assert energy == math.inf and energies[1] == math.inf and forces[1] == math.inf
    assert torch.isfinite(energies[0]) and torch.isfinite(forces[0])


def test_ase_and_exported_files_give_the_same_numbers(model, statistics, checkpoint, tmp_path):
    atoms = frame(TEST, 0)
    atoms.calc = ScSchNetCalculator(checkpoint)
    atoms.get_forces()
    results = atoms.calc.results
    expected = standard_errors(model, TEST.select([0]), statistics)
    np.testing.assert_allclose(results["energy_std"], expected.energy[0], rtol=1e-8)
    np.testing.assert_allclose(results["energies_std"], expected.energies, rtol=1e-8)
    np.testing.assert_allclose(results["forces_std"], expected.forces, rtol=1e-8)
    inputs = map(torch.tensor, (atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc))
    inputs = list(inputs)
    for portable in (False, True):
        file = tmp_path / f"{portable}.pt"
        said = scschnet.export(checkpoint, file, portable=portable)["error_bars"]
        assert said == {"kind": "one model", "n_val": statistics.n_val}
        exported = load_exported(file)
        whole = exported.forward(*inputs)
        for name in NAMES:
            np.testing.assert_allclose(whole[name], results[name], rtol=1e-8)
        # What a host adds up over its processes.
        root_mean_square = whole["energy_deviations"].square().mean().sqrt()
        np.testing.assert_allclose(root_mean_square, results["energy_std"], rtol=1e-8)
        with_ghosts = exported.forward_pairs(*_five_local(atoms), 5, False)
        assert with_ghosts["forces_std"].shape == (9,)
        for name in NAMES[1:]:
            np.testing.assert_allclose(with_ghosts[name][:5], whole[name][:5], rtol=1e-8)


def _five_local(atoms):
    """Atoms and half list of a host that owns the first five; the others are ghosts with their own pairs."""
    i, j, r = neighbor_list("ijD", atoms, 5.0)
    once = i < j
    return tuple(map(torch.tensor, (atoms.numbers, i[once], j[once], r[once])))


def test_a_model_without_error_bars_says_so(model):
    atoms = frame(TEST, 0)
    atoms.calc = ScSchNetCalculator(model)
    atoms.get_forces()
    assert not set(NAMES) & set(atoms.calc.results)
    with pytest.raises(
        PropertyNotImplementedError, match="the model has no error bars: scschnet analysis"
    ):
        atoms.calc.get_property("forces_std", atoms)


def test_statistics_survive_json_and_are_checked(model, statistics, labeled):
    again = ErrorStatistics.from_json(json.loads(json.dumps(statistics.to_json())))
    assert again.whitening == statistics.whitening
    with pytest.raises(ValueError, match="must be statistics of errors"):
        ErrorStatistics.from_json({"mean": []})
    with pytest.raises(ValueError, match="`whitening` must have shape"):
        ErrorStatistics.from_json(statistics.to_json() | {"whitening": [[1.0]]})
    with pytest.raises(ValueError, match="two or more validation structures"):
        error_statistics(model, TRAIN, labeled[0].select([0]))


@pytest.mark.parametrize("n_atoms", [0, 1, 128, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operator_follows_plain_torch(statistics, n_atoms, dtype):
    bars = ErrorBars(statistics)
    generator = torch.Generator().manual_seed(0)
    corrections = torch.randn(3, n_atoms, bars.n_features, generator=generator, dtype=dtype)
    weights = torch.tensor([0.2, -0.3, 1.1], dtype=dtype)
    numbers = torch.tensor([1, 6, 8, 14])[torch.arange(n_atoms) % 4]  # silicon is unknown
    trial = 0.1 + torch.rand(n_atoms, len(POWERS), generator=generator, dtype=torch.float64)
    x_out = torch.tensordot(weights, corrections, 1)
    tables = (bars.rows, bars.of_elements, bars.matrix, bars.bias, bars.trial)
    found = torch.ops.scschnet.error_bars(
        corrections, weights, numbers, trial, *tables, bars.slope, bars.low, bars.high
    )
    for own, expected in zip(found, bars(x_out, numbers, trial), strict=True):
        rounding = 100 * torch.finfo(dtype).eps
        torch.testing.assert_close(own, expected, rtol=rounding, atol=rounding)
