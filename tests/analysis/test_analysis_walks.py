"""Relevance of walks: complete, and equal to a sum over all walks, one by one."""

import csv
from collections import defaultdict

import numpy as np
import pytest
import torch
from ase.build import molecule
from conftest import make_model, make_structures

from scschnet.analysis.walks import (
    KINDS,
    kinds_of,
    plot_walks,
    relevances,
    summarize_walks,
)
from scschnet.data import StructureSet
from scschnet.nn.cutoff import CUTOFF_FUNCTIONS


def ssp(x):
    return np.logaddexp(0.0, x) - np.log(2.0)


def set_of(name: str) -> StructureSet:
    atoms = molecule(name)
    return StructureSet(atoms.positions, atoms.numbers, np.array([0, len(atoms)]))


class Brute:
    """Every walk of a small network, one by one, from its parameters and nothing else."""

    def __init__(self, model, structure):
        self.p = {name: value.numpy() for name, value in model.state_dict().items()}
        self.n, self.n_blocks = len(structure.positions), model.config.n_interactions
        self.x0 = self.p["embedding.weight"][structure.atomic_numbers]
        cutoff = CUTOFF_FUNCTIONS["cosine"](model.config.cutoff)
        r = structure.positions
        self.filters = np.zeros((self.n_blocks, self.n, self.n, self.x0.shape[1]))
        for i in range(self.n):
            for j in range(self.n):
                d = np.linalg.norm(r[j] - r[i])
                if i == j or d >= model.config.cutoff:
                    continue
                rbf = model.radial_basis(torch.tensor([d])).numpy()[0]
                for t in range(self.n_blocks):
                    hidden = ssp(self.dense(t, "filter_generator.hidden", rbf))
                    self.filters[t, i, j] = self.dense(
                        t, "filter_generator.output", hidden
                    ) * float(cutoff(torch.tensor([d])))
        self.find_gates()

    def dense(self, t, name, x):
        w, b = (self.p[f"interactions.{t}.{name}.{kind}"] for kind in ("weight", "bias"))
        return w @ x + b

    def find_gates(self):
        x, out = self.x0.copy(), self.p["contribution_weights"][0] * self.x0
        self.gates = []
        for t in range(self.n_blocks):
            messages = self.filters[t] * (x @ self.p[f"interactions.{t}.input.weight"].T)[None]
            h = np.stack([self.dense(t, "hidden", y) for y in messages.sum(axis=1)])
            self.gates.append(ssp(h) / h)
            v = np.stack([self.dense(t, "output", z) for z in ssp(h)])
            x, out = x + v, out + self.p["contribution_weights"][t + 1] * v
        h = out @ self.p["readout.hidden.weight"].T + self.p["readout.hidden.bias"]
        self.gates.append(ssp(h) / h)

    def features(self, level, i):
        """Walks that end in x_i^(level): atoms on the way, and the vector that they bring."""
        if level == 0:
            yield (i,), self.x0[i]
            return
        yield from self.features(level - 1, i)
        yield from self.corrections(level, i)

    def corrections(self, level, i):
        if level == 0:
            yield (i,), self.x0[i]
            return
        t = level - 1
        w2 = self.p[f"interactions.{t}.output.weight"]
        gate = self.gates[t][i]
        bias = w2 @ (gate * self.p[f"interactions.{t}.hidden.bias"])
        yield (i,), bias + self.p[f"interactions.{t}.output.bias"]
        for j in range(self.n):
            for path, vector in self.features(level - 1, j):
                message = self.filters[t, i, j] * (
                    self.p[f"interactions.{t}.input.weight"] @ vector
                )
                hidden = self.p[f"interactions.{t}.hidden.weight"] @ message
                yield (i, *path), w2 @ (gate * hidden)

    def relevances(self):
        c, out = self.p["readout.hidden.weight"], self.p["readout.output.weight"][0]
        sums, n_walks = defaultdict(float), 0
        for i in range(self.n):
            gate = self.gates[-1][i]
            sums[(i,)] += out @ (gate * self.p["readout.hidden.bias"])
            for level, weight in enumerate(self.p["contribution_weights"]):
                for path, vector in self.corrections(level, i):
                    sums[tuple(sorted(set(path)))] += out @ (gate * (c @ (weight * vector)))
                    n_walks += 1
        return {key: value * self.p["offsets.scale"] for key, value in sums.items()}, n_walks


@pytest.mark.parametrize(("skip", "blocks"), [("weighted", 3), ("plain", 2)])
def test_relevances_are_sums_over_all_walks(skip, blocks):
    model = make_model(skip=skip, n_interactions=blocks, n_features=6).requires_grad_(False)
    structure = set_of("H2CO")
    expected, n_walks = Brute(model, structure).relevances()
    assert n_walks > 4**blocks
    found = relevances(model, structure)
    seen = 0
    for sets, values in zip(found.sets, found.values, strict=True):
        for some, value in zip(sets, values, strict=True):
            assert value == pytest.approx(expected.get(tuple(some), 0.0), rel=1e-10, abs=1e-12)
            seen += tuple(some) in expected
    assert seen == len(expected)
    assert any(abs(value) > 1e-4 for key, value in expected.items() if len(key) == 4 - (blocks < 3))
    assert found.total == pytest.approx(sum(expected.values()), rel=1e-10)


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("repulsion", ["none", "zbl"])
def test_relevances_add_up_to_the_energy_above_its_zero(which, repulsion):
    model = make_model(repulsion=repulsion).requires_grad_(False)
    structure = make_structures().select([which])
    found = relevances(model, structure)
    assert found.off < 1e-10
    if len(structure.positions) <= 4:
        assert abs(found.rest) < 1e-10


def test_a_pair_term_is_a_matter_of_two_atoms():
    bare, model = make_model(), make_model(repulsion="zbl")
    water = set_of("H2O")  # squeezed to where nuclei repel
    structure = StructureSet(0.4 * water.positions, water.atomic_numbers, water.atom_ptr)
    without, found = (relevances(one.requires_grad_(False), structure) for one in (bare, model))
    np.testing.assert_allclose(found.values[0], without.values[0], rtol=1e-10)
    np.testing.assert_allclose(found.values[2], without.values[2], atol=1e-10)
    more = (found.values[1] - without.values[1]).sum()
    assert more == pytest.approx(found.total - without.total, rel=1e-9)
    assert more > 0


def test_atoms_beyond_all_messages_have_no_relevance_together():
    model = make_model().requires_grad_(False)
    atoms = molecule("H2O")
    far = np.concatenate([atoms.positions, atoms.positions + 40.0])
    numbers = np.concatenate([atoms.numbers, atoms.numbers])
    found = relevances(model, StructureSet(far, numbers, np.array([0, 6])))
    for sets, values in zip(found.sets, found.values, strict=True):
        apart = (sets < 3).any(axis=1) & (sets >= 3).any(axis=1)
        assert np.abs(values[apart]).max(initial=0.0) < 1e-12
    assert abs(found.rest) < 1e-10


def test_kinds_of_sets():
    ethylene = set_of("C2H4")  # C C H H H H, the first two hydrogens at the first carbon
    assert kinds_of(ethylene, np.array([[0, 1], [2, 3], [0, 2], [2, 4]])) == [
        "bond",
        "1-3 pair",
        "bond",
        "1-4 pair",
    ]
    assert kinds_of(ethylene, np.array([[0, 1, 2], [2, 3, 4]])) == ["angle", "other three"]
    assert kinds_of(ethylene, np.array([[0, 1, 2, 4], [0, 1, 2, 3]])) == ["torsion", "other four"]


def test_summary_figure_and_table(tmp_path):
    model = make_model().requires_grad_(False)
    water = set_of("H2O")
    both = StructureSet(
        np.concatenate([water.positions, 1.05 * water.positions]),
        np.tile(water.atomic_numbers, 2),
        np.array([0, 3, 6]),
    )
    found = summarize_walks(model, both)
    assert found.off < 1e-12
    assert {kind for kind, _ in found.kinds} == {"atom", "bond", "1-3 pair", "angle"}
    sums = sum(values for _, values, _ in found.by_kind())
    np.testing.assert_allclose(sums + found.rest, found.totals, rtol=1e-12)
    assert all(kind in KINDS for kind, _, _ in found.by_kind())
    plot_walks(found, tmp_path / "walks.png")
    with (tmp_path / "walks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows][-2:] == ["more atoms", "all walks, E - E_0"]
    assert ("bond", "H-O") in {(row["kind"], row["elements"]) for row in rows}


def test_what_cannot_be_taken_apart_is_named():
    model = make_model().requires_grad_(False)
    with pytest.raises(ValueError, match="`bodies` must be 1 to 4, got 5"):
        relevances(model, set_of("H2O"), bodies=5)
    with pytest.raises(ValueError, match="exactly one structure, got 2"):
        relevances(model, make_structures().select([0, 1]))
    many = StructureSet(
        np.random.default_rng(0).random((80, 3)) * 9, np.full(80, 6), np.array([0, 80])
    )
    with pytest.raises(ValueError, match=r"80 atoms have 1,\d+,\d+ sets of up to 4"):
        relevances(model, many)
