"""Exported models against the model in Python: same numbers in every form, and from a process without scschnet."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model, make_structures
from test_schnet_evaluate import Halo
from torch import Tensor

import scschnet
from scschnet import ops
from scschnet.data import StructureSet, embedded
from scschnet.export import load_exported
from scschnet.export.portable import PortablePotential
from scschnet.export.potential import FullPotential

TOLERANCE = 1e-10  # eV, and eV/Å
MODELS = {
    "weighted": {},
    "plain": {"skip": "plain", "n_interactions": 3},
    "no_blocks": {"n_interactions": 0},
    "one_block": {"n_interactions": 1},
    "hard_edge": {"cutoff_function": "none", "cutoff": 30.0, "rbf_range": 3.0},
}
KINDS = ("full", "portable")


def frames() -> dict[str, StructureSet]:
    """Real molecules and a real liquid, and awkward cells."""
    ethanol, awkward = embedded.load(), make_structures()
    with np.load(Path(__file__).parents[1] / "files" / "water64_2frames.npz") as file:
        positions, numbers, cell = file["R"][1].astype(float), file["z"], file["cell"]
    ends = np.array([0, len(numbers)])
    water = StructureSet(positions, numbers, ends, cells=cell[1:], pbc=np.ones((1, 3), bool))
    names = ("skewed", "thin", "slab", "molecule", "atom")
    found = {name: awkward.select([k]) for k, name in enumerate(names)}
    nothing = StructureSet(np.zeros((0, 3)), np.zeros(0, int), np.array([0, 0]))
    return {"ethanol": ethanol.select([7]), "water": water, "empty": nothing, **found}


FRAMES = frames()
OPEN = [name for name, frame in FRAMES.items() if not frame.pbc.any()]


def arguments(frame: StructureSet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions, atomic numbers, cell and pbc."""
    arrays = (frame.positions, frame.atomic_numbers, frame.cells[0], frame.pbc[0])
    return tuple(torch.tensor(array) for array in arrays)


def half_list(frame: StructureSet, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """idx_i, idx_j and r_ij, every pair once."""
    r, z, cell, pbc = arguments(frame)
    n = len(z)
    i, j, shifts, _ = ops.neighbor_list(r, torch.tensor([0, n]), cell[None], pbc[None], cutoff)
    half, _, _ = ops.half_list(i, j, shifts, n)
    i, j, shifts = i[half], j[half], shifts[half]
    return i, j, r[j] - r[i] + shifts.double() @ cell


def expected(model, frame: StructureSet) -> dict[str, Tensor]:
    """What the model in Python says; the virial from its stress."""
    r, z, cell, pbc = arguments(frame)
    i, j, shifts, _ = ops.neighbor_list(
        r, torch.tensor([0, len(z)]), cell[None], pbc[None], model.config.cutoff
    )
    idx_m = torch.zeros(len(z), dtype=torch.int64)
    found = model(r, z, idx_m, cell[None], i, j, shifts, stress=True, correction_norms=True)
    found["virial"] = -found.pop("stress")[0] * torch.linalg.det(cell).abs()
    found["energy"] = found["energy"][0]
    return found


def assert_same(found: dict[str, Tensor], reference: dict[str, Tensor], tolerance=TOLERANCE):
    for name, value in reference.items():
        assert found[name].dtype == torch.float64, name
        if not value.isnan().any():  # an open structure has no stress
            torch.testing.assert_close(
                found[name],
                value.double(),
                rtol=1e-14,
                atol=tolerance,
                msg=lambda m, n=name: f"{n}: {m}",
            )


@pytest.fixture(scope="module")
def models():
    found = {
        name: make_model(filters="spline", **options).eval().requires_grad_(False)
        for name, options in MODELS.items()
    }
    for model in found.values():
        model.refine_filters()
    return found


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """Path of every model in every kind."""
    folder = tmp_path_factory.mktemp("exported")
    paths = {}
    for name, model in models.items():
        for kind in KINDS:
            paths[name, kind] = folder / f"{name}_{kind}.pt"
            scschnet.export(model, paths[name, kind], portable=kind == "portable")
    return paths


@pytest.fixture(scope="module")
def exported(files):
    return {key: load_exported(path) for key, path in files.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_structures_give_the_numbers_of_the_model(models, exported, name, kind):
    for label in OPEN if name == "hard_edge" else FRAMES:
        frame = FRAMES[label]
        reference = expected(models[name], frame)
        found = exported[name, kind].forward(*arguments(frame))
        assert_same(found, reference)
        assert set(found) == {"energy", "energies", "forces", "virial", "correction_norms"}
        extended = exported[name, kind].forward(*arguments(frame), layers=True, atom_virial=True)
        assert_same(extended, found, 1e-14)
        total = extended["base_energies"] + extended["layer_energies"].sum(0)
        torch.testing.assert_close(total, found["energies"], rtol=0, atol=TOLERANCE)
        assert extended["layer_energies"].shape == found["correction_norms"].shape
        virial = extended["atom_virial"].sum(0)
        torch.testing.assert_close(virial, found["virial"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("beyond", [0.0, 1.5])
def test_pairs_give_the_numbers_of_the_model(models, exported, name, kind, beyond):
    """Also with pairs beyond the cutoff in the list, as hosts with a skin have them."""
    for label in OPEN if name == "hard_edge" else FRAMES:
        frame = FRAMES[label]
        z, n = arguments(frame)[1], len(frame.positions)
        pairs = half_list(frame, models[name].config.cutoff + beyond)
        found = exported[name, kind].forward_pairs(
            z, *pairs, n, halo=False, layers=True, atom_virial=True
        )
        assert_same(found, expected(models[name], frame))
        by_structure = exported[name, kind].forward(
            *arguments(frame), layers=True, atom_virial=True
        )
        assert_same(found, by_structure)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_may_stand_either_way(models, exported, kind):
    frame = FRAMES["ethanol"]
    z, (i, j, r_ij) = arguments(frame)[1], half_list(frame, models["weighted"].config.cutoff)
    turn = torch.arange(len(i)) % 3 == 0
    i, j = torch.where(turn, j, i), torch.where(turn, i, j)
    r_ij = torch.where(turn[:, None], -r_ij, r_ij)
    order = torch.argsort(i, stable=True)
    found = exported["weighted", kind].forward_pairs(z, i[order], j[order], r_ij[order], 9, False)
    assert_same(found, expected(models["weighted"], frame))


def with_images(frame: StructureSet, deep: float) -> tuple[Tensor, Tensor]:
    """Positions of the atoms and of all their images within a distance, and whose images these are."""
    r, z, cell, pbc = arguments(frame)
    n = len(z)
    _, j, shifts, _ = ops.neighbor_list(r, torch.tensor([0, n]), cell[None], pbc[None], deep)
    images = torch.unique(torch.column_stack([j, shifts])[shifts.any(1)], dim=0)
    positions = torch.cat([r, r[images[:, 0]] + images[:, 1:].double() @ cell])
    return positions, torch.cat([torch.arange(n), images[:, 0]])


def assert_ghosts_change_nothing(found: dict[str, Tensor], owner: Tensor, model, frame):
    """Forces on ghosts belong to their owners; everything else is that of the periodic cell."""
    forces = found.pop("forces")
    n = len(frame.positions)
    found["forces"] = forces.new_zeros(n, 3).index_add(0, owner, forces)
    assert_same(found, expected(model, frame))
    torch.testing.assert_close(found["atom_virial"].sum(0), found["virial"], rtol=0, atol=TOLERANCE)
    total = found["base_energies"] + found["layer_energies"].sum(0)
    torch.testing.assert_close(total, found["energies"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["weighted", "plain", "one_block", "no_blocks"])
def test_wide_ghosts(models, exported, name, kind):
    """Images of a periodic cell as atoms of their own, as deep as they matter."""
    model, frame = models[name], FRAMES["skewed"]
    cutoff = model.config.cutoff
    positions, owner = with_images(frame, max(1, model.config.n_interactions) * cutoff + 0.1)
    z, n = arguments(frame)[1][owner], len(frame.positions)
    pairs = half_list(StructureSet(positions.numpy(), z.numpy(), np.array([0, len(z)])), cutoff)
    found = exported[name, kind].forward_pairs(z, *pairs, n, False, layers=True, atom_virial=True)
    assert_ghosts_change_nothing(found, owner, model, frame)


@pytest.mark.parametrize("name", ["weighted", "plain", "one_block", "no_blocks"])
def test_ghosts_with_a_halo(models, exported, name):
    """Ghosts one cutoff deep, their features copied between blocks, as in LAMMPS."""
    model, frame = models[name], FRAMES["skewed"]
    positions, owner = with_images(frame, model.config.cutoff)
    z, n = arguments(frame)[1][owner], len(frame.positions)
    big = StructureSet(positions.numpy(), z.numpy(), np.array([0, len(z)]))
    i, j, r_ij = half_list(big, model.config.cutoff)
    local = i < n  # pairs of two ghosts are left out; every other one has a local center already
    pairs = (i[local], j[local], r_ij[local])
    with Halo(owner.numpy(), n):
        found = exported[name, "full"].forward_pairs(
            z, *pairs, n, halo=True, layers=True, atom_virial=True
        )
    assert_ghosts_change_nothing(found, owner, model, frame)


def test_layer_energies_are_path_integrals(models, exported):
    """eps^(l) = integral over a in [0, 1] of grad g(a x^out) . w^(l) v^(l), by quadrature."""
    model, frame = models["weighted"], FRAMES["ethanol"]
    z, (i, j, r_ij) = arguments(frame)[1], half_list(frame, model.config.cutoff)
    d_ij, row_ptr = torch.linalg.vector_norm(r_ij, dim=1), ops.pair_rows(i, j, len(z))
    v = model.corrections(z, model.engine.spline_convolutions(d_ij, row_ptr, j))
    x_out = model.combine(v)
    integral = torch.zeros(len(v), len(z), dtype=torch.float64)
    for point, weight in zip(*np.polynomial.legendre.leggauss(24), strict=True):
        x = (0.5 * (point + 1) * x_out).requires_grad_()
        (slope,) = torch.autograd.grad(model.readout(x).sum(), x)
        for k in range(len(v)):
            part = (slope * model.contribution_weights[k] * v[k]).sum(1)
            integral[k] += 0.5 * weight * part
    found = exported["weighted", "full"].forward(*arguments(frame), layers=True)
    torch.testing.assert_close(
        found["layer_energies"], integral * model.offsets.scale, rtol=0, atol=TOLERANCE
    )
    at_zero = model.offsets(model.readout(torch.zeros_like(x_out)), z)
    torch.testing.assert_close(found["base_energies"], at_zero, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("shift", [0.0, 1e-9, 1e-3, 0.5, 3.0, 40.0])
def test_layer_energies_where_their_quotients_are_delicate(shift):
    """Rises of the softplus over tiny and over large arguments."""
    model = make_model(n_interactions=0, filters="spline").eval().requires_grad_(False)
    model.embedding.weight.mul_(shift)
    potential = FullPotential(model, ["H", "C", "O"])
    found = potential(*arguments(FRAMES["molecule"]), True, False)
    total = found["base_energies"] + found["layer_energies"].sum(0)
    torch.testing.assert_close(total, found["energies"], rtol=0, atol=TOLERANCE)


def test_portable_neighbors_in_random_cells():
    """Skewed and flat cells, any periodicity, atoms far outside: the pairs of scschnet's own neighbor list."""
    model = make_model(filters="spline", n_features=2, n_interactions=1, cutoff=2.7).eval()
    potential = PortablePotential(model.requires_grad_(False), ["H", "C", "O"])
    rng, tested = np.random.default_rng(0), 0
    for _ in range(60):
        n = int(rng.integers(1, 30))
        cell = rng.normal(size=(3, 3)) * rng.uniform(0.7, 6.0, (3, 1))
        if abs(np.linalg.det(cell)) < 2.0:
            continue
        positions = rng.uniform(-1.5, 2.5, (n, 3)) @ cell
        pbc = rng.random((1, 3)) < 0.6
        frame = StructureSet(
            positions, np.ones(n, int), np.array([0, n]), cells=cell[None], pbc=pbc
        )
        i, j, r_ij = half_list(frame, 2.7)
        r, _, box, periodic = arguments(frame)
        found_i, found_j, found_r, found_d = potential.half_pairs(r, box, periodic)
        assert sorted(pair_keys(i, j, r_ij)) == sorted(pair_keys(found_i, found_j, found_r))
        torch.testing.assert_close(found_d, torch.linalg.vector_norm(found_r, dim=1))
        tested += 1
    assert tested > 40


def pair_keys(i: Tensor, j: Tensor, r_ij: Tensor) -> list[tuple[int, ...]]:
    """Pairs with their vectors, rounded, the same whichever way they stand."""
    turn = (i > j) | ((i == j) & (r_ij @ torch.tensor([1.0, 0.61, 0.37]).double() < 0))
    low, high = torch.minimum(i, j), torch.maximum(i, j)
    vectors = torch.where(turn[:, None], -r_ij, r_ij).mul(1e6).round().long()
    return [tuple(row) for row in torch.column_stack([low, high, vectors]).tolist()]
