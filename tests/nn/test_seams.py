"""What every radial basis and cutoff function must fulfil, and that a new one needs nothing but itself."""

import dataclasses
import math
from typing import get_args

import numpy as np
import pytest
import reference
import torch
from conftest import make_model, make_structures
from torch import Tensor

from scschnet import export, ops
from scschnet.analysis import importance, layers
from scschnet.commands.train import main
from scschnet.data import collate, embedded
from scschnet.export.torchscript import torchscript_deprecation_ignored
from scschnet.nn import SchNet
from scschnet.nn.basis import RADIAL_BASES, RadialBasis, RadialBasisName
from scschnet.nn.config import REGISTRIES
from scschnet.nn.cutoff import CUTOFF_FUNCTIONS, CutoffFunction, CutoffFunctionName
from scschnet.nn.filter import FilterGenerator
from scschnet.nn.filter_table import TOLERANCE, FilterGrid, accurate_grid, grid_step, table_nodes
from scschnet.nn.head import HEADS, Head
from scschnet.nn.pair_term import PAIR_TERMS, ZBL, PairTerm
from scschnet.train.setup import shortest_distances, without_pair_term

CUTOFF = 5.0


class Mollifier(CutoffFunction):
    """exp(1 - 1 / (1 - (d / cutoff)^2)), infinitely smooth and not analytic at the cutoff."""

    def value(self, d_ij: Tensor) -> Tensor:
        return torch.exp(1.0 - 1.0 / (1.0 - (d_ij / self.cutoff).square()))


class Switch(CutoffFunction):
    """One up to 3.1 Å, then a polynomial: defined by parts."""

    def value(self, d_ij: Tensor) -> Tensor:
        t = ((d_ij - 3.1) / (self.cutoff - 3.1)).clamp(0.0, 1.0)
        return 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t.square())


class Jump(CutoffFunction):
    def value(self, d_ij: Tensor) -> Tensor:
        return (d_ij < 2.03).to(d_ij.dtype)


class Lorentzians(RadialBasis):
    """A basis of its own, as a user would add it."""

    def __init__(self, n_rbf: int, rbf_range: float) -> None:
        super().__init__(width=rbf_range / n_rbf, reach=math.inf)
        self.register_buffer("centers", torch.linspace(0, rbf_range, n_rbf).double(), False)

    def forward(self, d_ij: Tensor) -> Tensor:
        x = (d_ij[:, None] - self.centers.to(d_ij.dtype)) / self.width
        return 1.0 / (1.0 + x.square())


class Trainable(Lorentzians):
    def __init__(self, n_rbf: int, rbf_range: float) -> None:
        super().__init__(n_rbf, rbf_range)
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, d_ij: Tensor) -> Tensor:
        return self.factor * super().forward(d_ij)


def test_names_are_those_of_the_registries():
    assert set(get_args(RadialBasisName)) == set(RADIAL_BASES)
    assert set(get_args(CutoffFunctionName)) == set(CUTOFF_FUNCTIONS)


@pytest.mark.parametrize("basis", [*RADIAL_BASES.values(), Lorentzians])
@pytest.mark.parametrize(("n_rbf", "range_"), [(2, 1.5), (20, CUTOFF), (50, CUTOFF)])
def test_a_radial_basis_can_be_tabulated(basis, n_rbf, range_):
    """Finite on all nodes of a table, and so smooth that tables reach their accuracy; differentiable twice."""
    made = basis(n_rbf, range_)
    nodes = table_nodes(made, FilterGrid(grid_step(made.width), CUTOFF), torch.device("cpu"))
    assert nodes.rbf.dtype == torch.float64 and nodes.rbf.shape[1] == n_rbf
    assert nodes.rbf.isfinite().all()
    torch.manual_seed(0)
    generators = [FilterGenerator(n_rbf, 16).double() for _ in range(2)]
    _, error = accurate_grid(generators, made, CUTOFF, torch.float32)
    assert error <= TOLERANCE
    d = torch.tensor([0.3, 1.1, 2.7, 4.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(made, d)
    assert torch.autograd.gradgradcheck(made, d)
    assert made(d.float()).dtype == torch.float32
    assert not made.state_dict() and not list(made.parameters())


def test_the_bessel_basis_is_the_published_one():
    d = np.array([1e-9, 0.7, 2.0, 4.9])
    n = np.arange(1, 9)
    expected = np.sqrt(2 / CUTOFF) * np.sin(n * np.pi * d[:, None] / CUTOFF) / d[:, None]
    got = RADIAL_BASES["bessel"](8, CUTOFF)(torch.tensor([0.0, *d[1:]], dtype=torch.float64))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-15)


def test_a_basis_that_is_trained_is_refused():
    with pytest.raises(
        ValueError, match=r"must have no trainable parameters.*; Trainable has some"
    ):
        table_nodes(Trainable(4, CUTOFF), FilterGrid(0.25, CUTOFF), torch.device("cpu"))


@pytest.mark.parametrize("function", [*CUTOFF_FUNCTIONS.values(), Mollifier, Switch])
@pytest.mark.parametrize("cutoff", [2.9, CUTOFF])
def test_a_cutoff_function_is_what_the_operators_evaluate(function, cutoff):
    """Value and slope from the pieces equal the Python function; zero beyond the cutoff, in both."""
    if function is Switch and cutoff < 3.1:
        pytest.skip("begins beyond the cutoff")
    made = function(cutoff)
    assert made.pieces.dtype == torch.float64
    rng = np.random.default_rng(0)
    inside = rng.uniform(0, cutoff, 500)
    d = torch.tensor([0.0, *inside, math.nextafter(cutoff, 0), cutoff, 7.0], requires_grad=True)
    d = d.detach().double().requires_grad_()
    n_rows = FilterGrid(0.25, cutoff).n_rows
    _, weights = ops.spline_weights(d.detach(), 0.25, cutoff, made.pieces, n_rows, 2, torch.float64)
    value, slope = weights.sum(dim=2)  # the table of the filter one
    expected = made(d) + 0 * d
    (expected_slope,) = torch.autograd.grad(expected.sum(), d)
    tolerance = 1e-9 if function is Switch else 1e-13  # on the piece with the kink
    torch.testing.assert_close(value, expected.detach(), rtol=0, atol=tolerance)
    torch.testing.assert_close(slope, expected_slope, rtol=0, atol=1e3 * tolerance)
    assert not value[d >= cutoff].any() and not slope[d >= cutoff].any()
    if made.smooth:
        assert abs(float(value[-3])) < 1e-12 and abs(float(slope[-3])) < 1e-10
    assert made(d.detach().float()).dtype == torch.float32
    assert not made.state_dict() and not list(made.parameters())
    moved = made.to(torch.float32)
    assert moved.pieces.dtype == torch.float64


def test_a_cutoff_function_with_a_jump_is_refused():
    with pytest.raises(ValueError, match="must be smooth below the cutoff, got Jump"):
        Jump(CUTOFF)


def test_names_of_files_exported_before_are_understood():
    """Files before version 0.2 hand the name of a cutoff function to the operator."""
    d = torch.linspace(0, 6, 200, dtype=torch.float64)
    for name in ("cosine", "none"):
        pieces = CUTOFF_FUNCTIONS[name](CUTOFF).pieces
        for dtype in (torch.float32, torch.float64):
            now = ops.spline_weights(d, 0.25, CUTOFF, pieces, 26, 2, dtype)
            before = torch.ops.scschnet.spline_weights(d, 0.25, CUTOFF, name, 26, 2, dtype)
            assert torch.equal(now[0], before[0])
            torch.testing.assert_close(
                now[1], before[1], rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=1e-13
            )
    with pytest.raises(ValueError, match="`cutoff_function` must be one of cosine, none, got tanh"):
        torch.ops.scschnet.spline_weights(d, 0.25, CUTOFF, "tanh", 26, 2, torch.float64)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(RADIAL_BASES, "lorentzians", Lorentzians)
    monkeypatch.setitem(CUTOFF_FUNCTIONS, "mollifier", Mollifier)


@pytest.mark.parametrize(
    ("basis", "function"),
    [("bessel", "cosine"), ("gaussian", "none"), ("lorentzians", "mollifier")],
)
def test_every_evaluation_agrees(registered, structures, basis, function):
    """Dense and tabulated filters, the fused operator and the composed network, for bases and functions of any kind."""
    config = {"cutoff_function": function, "radial_basis": basis, "n_rbf": 7}
    model = make_model(filters="spline", **config)
    model.refine_filters()
    batch = collate(structures, np.arange(len(structures)), 4.0).inputs
    with torch.no_grad():
        fused = model(**batch, stress=True)
    moved = batch | {"positions": batch["positions"].clone().requires_grad_()}
    composed = model(**moved, stress=True)
    with torch.no_grad():
        dense = make_model(filters="dense", **config)(**batch, stress=True)
    for key in ("energies", "forces"):
        scale = float((dense[key] - dense[key].mean()).abs().max())
        torch.testing.assert_close(fused[key], composed[key].detach(), rtol=0, atol=1e-12 * scale)
        torch.testing.assert_close(fused[key], dense[key].detach(), rtol=0, atol=2e-6 * scale)


class Yukawa(PairTerm):
    """A pair term of its own, as a user would add it; the model's elements do not matter to it."""

    def forward(self, z_i: Tensor, z_j: Tensor, d_ij: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.clamp(d_ij / self.cutoff, max=1.0)
        switch = (1.0 - x) ** 3
        slope = -3.0 * (1.0 - x) ** 2 / self.cutoff
        bare = 0.1 * (z_i + z_j).double() * torch.exp(-d_ij) / d_ij
        bare_slope = -bare * (1.0 + 1.0 / d_ij)
        return bare * switch, bare_slope * switch + bare * slope


@pytest.mark.parametrize("term", [*PAIR_TERMS.values(), Yukawa])
def test_a_pair_term_fulfils_its_contract(term):
    """Symmetric, with the slope it says, zero from the cutoff on, smooth to the second derivative, scriptable."""
    made = term((1, 6, 8, 29), 3.0)
    rng = np.random.default_rng(0)
    numbers = torch.tensor(rng.choice([1, 6, 8, 29], (2, 400)))
    d = torch.tensor(rng.uniform(0.05, 3.3, 400)).requires_grad_()
    phi, slope = made(*numbers, d)
    assert phi.dtype == slope.dtype == torch.float64 and float(phi.detach().max()) > 1.0
    (derivative,) = torch.autograd.grad(phi.sum(), d, create_graph=True)
    torch.testing.assert_close(slope, derivative, rtol=1e-10, atol=1e-12)
    (second,) = torch.autograd.grad(derivative.sum(), d)
    assert second.isfinite().all()
    assert torch.equal(made(numbers[1], numbers[0], d)[0], phi)
    reach = made.reach()
    assert reach.shape == () and reach.dtype == torch.float64 and 0 < float(reach) <= 3.0
    beyond = d.detach() >= reach
    assert beyond.any() and not phi[beyond].any() and not slope[beyond].any()
    own = made.ranges_of(*numbers)
    assert own.shape == d.shape and (own <= reach).all()
    assert not phi[d.detach() >= own].any() and not slope[d.detach() >= own].any()
    zero = torch.zeros(1, dtype=torch.int64)  # padding
    assert all(x.isfinite().all() for x in made(zero, zero, torch.ones(1).double()))
    with torchscript_deprecation_ignored():
        scripted = torch.jit.script(made)
    assert torch.equal(scripted(*numbers, d)[0], phi)
    assert not list(made.parameters())
    assert all(b.dtype in (torch.float64, torch.int64) for b in made.float().buffers())
    fitted = term((1, 6, 8, 29), 3.0)
    fitted.fit(torch.full((4, 4), 1.1, dtype=torch.float64))
    loaded = term((1, 6, 8, 29), 3.0)
    loaded.load_state_dict(fitted.state_dict())
    assert torch.equal(loaded(*numbers, d)[0], fitted(*numbers, d)[0])


def test_zbl_is_the_published_one():
    """Two bare copper nuclei nearby; and nothing from 0.8 of the covalent radii on."""
    zbl = ZBL((1, 29), 5.0)
    d, z = torch.tensor([0.05], dtype=torch.float64), torch.tensor([1])
    a = 0.46850 / (2 * 29**0.23)
    x = 0.05 / a
    terms = zip(
        [0.18175, 0.50986, 0.28022, 0.02817], [3.1998, 0.94229, 0.4029, 0.20162], strict=True
    )
    bare = 14.399645 * 29**2 / 0.05 * sum(c * math.exp(-b * x) for c, b in terms)
    copper = torch.tensor([29])
    assert float(zbl(copper, copper, d)[0]) == pytest.approx(
        bare, rel=1e-6
    )  # the switch is near one
    hydrogen = zbl(
        z, z, torch.tensor([0.8 * 0.62 - 1e-3, 0.8 * 0.62], dtype=torch.float64).expand(2)
    )
    assert 0 < float(hydrogen[0][0]) < 1e-5 and float(hydrogen[0][1]) == 0.0


def test_repulsion_of_the_data_begins_where_the_data_end():
    """Zero on the training structures, rising all the way below; strong where no bond is, soft where one is."""
    structures = make_structures()
    elements = tuple(int(z) for z in structures.elements)
    shortest = shortest_distances(structures, elements, 4.0)
    assert torch.equal(shortest, shortest.T) and shortest.isfinite().any()
    model = make_model(repulsion="data", elements=elements)
    model.pair_term.fit(shortest)
    batch = collate(structures, np.arange(len(structures)), 4.0)
    with torch.no_grad():
        got = model(**batch.inputs)
        bare = make_model(elements=elements)(**batch.inputs)
    assert torch.equal(got["energies"], bare["energies"])
    assert torch.equal(got["forces"], bare["forces"])
    for a, b in np.argwhere(shortest.isfinite().numpy()):
        r = float(shortest[a, b])
        d = torch.linspace(0.02, 1.0, 200, dtype=torch.float64) * r
        z_a, z_b = (torch.full((200,), elements[k]) for k in (a, b))
        phi, slope = model.pair_term(z_a, z_b, d)
        assert (slope[:-1] < 0).all() and float(phi[-1]) == 0.0 and float(slope[-1]) == 0.0
        bonded = r < 1.25 * float(model.pair_term.radii[a, b])
        bare_zbl, _ = model.pair_term.bare(torch.tensor([a]), torch.tensor([b]), d[:1])
        assert float(phi[0] / bare_zbl) == pytest.approx(1.0 if bonded else 1.5)


def test_a_training_measures_the_shortest_distances(tmp_path):
    """In the training part alone; what it measured is in the checkpoint."""
    from scschnet.checkpoint import load

    assert (
        main(
            [
                "--out",
                str(tmp_path / "run"),
                "--epochs",
                "1",
                "--n-train",
                "40",
                "--n-val",
                "10",
                "--n-test",
                "5",
                "--n-features",
                "8",
                "--n-interactions",
                "1",
                "--repulsion",
                "data",
            ]
        )
        == 0
    )
    model = load(tmp_path / "run")
    split = np.load(tmp_path / "run" / "split.npz")
    train = embedded.load().select(split["train"])
    expected = shortest_distances(train, model.config.elements, 5.0)
    met = expected.isfinite()  # an ethanol has one oxygen
    torch.testing.assert_close(model.pair_term.ranges[met], expected[met], rtol=2e-9, atol=0)


@pytest.fixture
def with_pair_term(monkeypatch):
    monkeypatch.setitem(PAIR_TERMS, "yukawa", Yukawa)
    monkeypatch.setitem(REGISTRIES, "repulsion", ("none", "zbl", "data", "yukawa"))


@pytest.mark.parametrize("filters", ["spline", "dense"])
def test_a_pair_term_is_added_to_the_network(with_pair_term, structures, filters):
    """Against loops over all pairs; fused, composed and dense alike; forces and stress are derivatives."""
    model = make_model(filters=filters, repulsion="yukawa")
    bare = make_model(filters=filters)
    batch = collate(structures, np.arange(len(structures)), 4.0)
    with torch.no_grad():
        got, without = (m(**batch.inputs, stress=True) for m in (model, bare))
    expected = np.zeros(len(batch.positions))
    for m in range(len(structures)):
        atoms = np.arange(structures.atom_ptr[m], structures.atom_ptr[m + 1])
        positions, cell = structures.positions[atoms], structures.cells[m]
        for i, j, shift in reference.neighbor_pairs(positions, cell, structures.pbc[m], 4.0):
            d = np.linalg.norm(positions[j] - positions[i] + np.dot(shift, cell))
            z = structures.atomic_numbers[atoms[i]] + structures.atomic_numbers[atoms[j]]
            expected[atoms[i]] += 0.5 * 0.1 * z * np.exp(-d) / d * (1 - d / 4.0) ** 3
    torch.testing.assert_close(
        got["energies"] - without["energies"], torch.tensor(expected), rtol=0, atol=1e-10
    )
    positions = batch.positions.clone().requires_grad_()
    composed = model(**(batch.inputs | {"positions": positions}), stress=True)
    (gradient,) = torch.autograd.grad(composed["energy"].sum(), positions)
    torch.testing.assert_close(got["forces"], -gradient, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        got["stress"][:2], composed["stress"][:2].detach(), rtol=0, atol=1e-10
    )


def test_the_split_over_layers_stays_complete_with_a_pair_term(with_pair_term, structures):
    model = make_model(filters="spline", repulsion="yukawa").requires_grad_(False)
    found = layers.layer_energies(model, structures, forces=True)
    result = model(**collate(structures, np.arange(len(structures)), 4.0).inputs)
    assert found.pair is not None and np.abs(found.pair).max() > 0.1
    np.testing.assert_allclose(
        found.base + found.layers.sum(axis=0), result["energies"], rtol=1e-13
    )
    forces = found.forces.sum(axis=0) + found.pair_forces
    np.testing.assert_allclose(forces, result["forces"], atol=1e-12)
    assert layers.completeness(model, structures) < 1e-11
    values = importance.coalition_energies(model, structures)
    np.testing.assert_allclose(values[-1], result["energy"], rtol=1e-13)
    np.testing.assert_allclose(
        importance.coalition_forces(model, structures)[-1], result["forces"], atol=1e-12
    )


@pytest.mark.parametrize("portable", [False, True])
def test_an_exported_pair_term(with_pair_term, tmp_path, portable):
    """The file equals the model; and ghosts, whose half belongs to another process, add up to the whole."""
    model = make_model(torch.float64, filters="spline", repulsion="yukawa").requires_grad_(False)
    model.refine_filters()
    path = tmp_path / "model.pt"
    export(model, path, portable=portable)
    with torchscript_deprecation_ignored():
        file = torch.jit.load(str(path))
    structures = make_structures()
    for m in (0, 3):
        one = collate(structures, np.array([m]), 4.0)
        expected = model(**one.inputs, stress=True)
        positions, cell = one.positions, one.cells[0]
        got = file(positions, one.atomic_numbers, cell, torch.tensor(structures.pbc[m]), True)
        torch.testing.assert_close(got["energies"], expected["energies"], rtol=1e-12, atol=0)
        torch.testing.assert_close(got["forces"], expected["forces"], rtol=0, atol=1e-9)
        whole = got["base_energies"] + got["layer_energies"].sum(0)
        torch.testing.assert_close(whole, got["energies"], rtol=1e-12, atol=0)
        assert float(got["pair_energies"].sum()) > 0.1
    # the molecule, its last two atoms as ghosts of one process and the first three as ghosts of the other
    z, r = one.atomic_numbers, one.positions
    forces, energy = torch.zeros_like(r), 0.0
    for own, ghosts in (([0, 1, 2], [3, 4]), ([3, 4], [0, 1, 2])):
        order = own + ghosts
        # ghosts are as deep as the whole molecule, and have their own pairs
        pairs = [
            (i, j)
            for i in range(5)
            for j in range(i + 1, 5)
            if (r[order[i]] - r[order[j]]).norm() < 4.0
        ]
        i, j = torch.tensor(pairs).T.contiguous()
        x = r[order]
        part = file.forward_pairs(z[order], i, j, x[j] - x[i], len(own), False, True)
        forces.index_add_(0, torch.tensor(order), part["forces"])
        energy += float(part["energy"])
    assert energy == pytest.approx(float(expected["energy"][0]), rel=1e-12)
    torch.testing.assert_close(forces, expected["forces"], rtol=0, atol=1e-9)


def test_offsets_are_fitted_to_what_the_pair_term_leaves(with_pair_term):
    """Labels that are nothing but offsets and the pair term leave no spread."""
    structures = make_structures()
    model = make_model(repulsion="zbl")
    batch = collate(structures, np.arange(len(structures)), 4.0)
    bare = make_model()
    with torch.no_grad():
        phi = model(**batch.inputs)["energy"] - bare(**batch.inputs)["energy"]
    assert float(phi.max()) > 0.01
    labels = phi.numpy() - 7.0 * structures.n_atoms
    left = without_pair_term(model, dataclasses.replace(structures, energy=labels))
    np.testing.assert_allclose(left.energy, -7.0 * structures.n_atoms, rtol=1e-12)


class Moment(Head):
    """A first moment of nuclear and other charges, not neutral: a head as a user would add it."""

    shape = (3,)

    def atom_values(self, x_out: Tensor, atomic_numbers: Tensor) -> Tensor:
        return self.readout(x_out).double() * atomic_numbers.double()

    def pool(
        self,
        values: Tensor,
        positions: Tensor,
        atomic_numbers: Tensor,
        idx_m: Tensor,
        n_structures: int,
    ) -> Tensor:
        moments = values.unsqueeze(1) * positions
        return positions.new_zeros([n_structures, 3]).index_add(0, idx_m, moments)

    def fit(self, labels: Tensor, positions: Tensor, atomic_numbers: Tensor, idx_m: Tensor) -> None:
        self.set_spread(labels, labels.new_ones(len(labels)))


@pytest.fixture
def with_heads(monkeypatch):
    monkeypatch.setitem(HEADS, "moment", Moment)


EVERY = ("m:moment", *(f"p_{kind}:{kind}" for kind in HEADS))


def head_model(**config) -> SchNet:
    model = make_model(filters="spline", heads=EVERY, **config)
    torch.nn.init.uniform_(model.head_weights, 0.1, 0.9)
    for _, head in model.named_heads():
        head.scale.fill_(1.3)
        head.offset.uniform_(-1.0, 1.0)
    return model


@pytest.mark.parametrize("head", [*HEADS.values(), Moment])
def test_a_head_fulfils_its_contract(head):
    """A number per atom, a value per structure, gradients in x^out, offsets in float64, scriptable; fits what it can."""
    torch.manual_seed(0)
    made = head(6, 10)
    x_out, z = torch.randn(4, 6, requires_grad=True), torch.tensor([1, 6, 8, 1])
    values = made.atom_values(x_out, z)
    assert values.shape == (4,) and values.dtype == torch.float64
    idx_m, positions = torch.tensor([0, 0, 2, 2]), torch.randn(4, 3).double()
    pooled = made.pool(values, positions, z, idx_m, 3)  # structure 1 has no atoms
    assert pooled.shape == (3, *head.shape) and pooled.isfinite().all()
    (gradient,) = torch.autograd.grad(pooled.square().sum(), x_out)
    assert gradient.isfinite().all() and gradient.abs().max() > 0
    with torchscript_deprecation_ignored():
        scripted = torch.jit.script(made)
    assert scripted.state_dict().keys() >= made.state_dict().keys()
    assert all(b.dtype == torch.float64 for b in made.float().buffers())
    assert all(p.dtype == torch.float32 for p in made.parameters())
    positions = torch.randn(60, 3).double()
    z, idx_m = torch.tensor([1, 6, 8]).repeat(20), torch.arange(20).repeat_interleave(3)
    labels = torch.randn(20, *head.shape).double() + 5.0
    made.fit(labels, positions, z, idx_m)
    assert float(made.spread) > 0 and float(made.scale) > 0
    assert all(b.isfinite().all() for b in made.buffers())
    loaded = head(6, 10)
    loaded.load_state_dict(made.state_dict())
    assert float(loaded.spread) == float(made.spread)


def test_heads_read_the_representation(with_heads, structures):
    """Parameters kept or trained, with forces or without, composed or dense: the same property, and the same energy."""
    model = head_model()
    batch = collate(structures, np.arange(len(structures)), 4.0).inputs
    moved = batch | {"positions": batch["positions"].clone().requires_grad_()}
    composed = model(**moved)
    fused = model(**batch)
    frozen = head_model().requires_grad_(False)(**batch)
    without = model(**batch, forces=False, correction_norms=True)
    assert composed["m"].shape == composed["p_dipole"].shape == (5, 3)
    norms = model(**batch, correction_norms=True)["correction_norms"]
    torch.testing.assert_close(without["correction_norms"], norms, rtol=1e-12, atol=1e-12)
    bare = make_model(filters="spline")
    bare.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(bare(**batch)["forces"], fused["forces"])
    for key in (*(name for name, _ in model.named_heads()), "energies", "forces"):
        torch.testing.assert_close(fused[key], composed[key], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(frozen[key], composed[key].detach(), rtol=1e-11, atol=1e-11)
        if key != "forces":
            torch.testing.assert_close(without[key], composed[key], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("forces", [False, True])
def test_heads_train_the_network(with_heads, structures, forces):
    """Gradients of a loss of properties, energy and forces with the fused operator equal those of autograd."""
    batch = collate(structures, np.arange(len(structures)), 4.0).inputs
    gradients = []
    for moving in (False, True):
        model = head_model()
        positions = batch["positions"].clone().requires_grad_(moving)
        result = model(**(batch | {"positions": positions}), forces=forces)
        loss = sum(result[name].square().sum() for name, _ in model.named_heads())
        loss = loss + 1e-6 * result["energy"].square().sum()
        if forces:
            loss = loss + result["forces"].square().sum()
        parameters = dict(model.named_parameters())
        gradients.append(torch.autograd.grad(loss, list(parameters.values())))
    for name, a, b in zip(parameters, *gradients, strict=True):
        scale = max(float(b.abs().max()), 1e-5)  # a constant charge on all atoms has no gradient
        assert float((a - b).abs().max()) < 1e-9 * scale, name


@pytest.mark.parametrize("portable", [False, True])
def test_an_exported_head(with_heads, tmp_path, portable):
    model = head_model().requires_grad_(False)
    model.refine_filters()
    path = tmp_path / "model.pt"
    export(model, path, portable=portable)
    with torchscript_deprecation_ignored():
        file = torch.jit.load(str(path))
    structures = make_structures()
    one = collate(structures, np.array([3]), 4.0)
    expected = model(**one.inputs)
    pbc = torch.tensor(structures.pbc[3])
    got = file(one.positions, one.atomic_numbers, one.cells[0], pbc)
    for name, _ in model.named_heads():
        torch.testing.assert_close(got[name], expected[name][0], rtol=1e-10, atol=1e-10)
    assert got["m_atoms"].shape == (5,)
    assert "layer_energies" not in got


def test_checkpoints_of_today_know_no_heads():
    """Names of parameters and options of models without heads are those of before."""
    model = make_model()
    assert not [name for name in model.state_dict() if "head" in name or "pair" in name]
    with pytest.raises(ValueError, match="`properties` polar must be of one of the kinds sum"):
        make_model(heads=("polar:tensor",))
