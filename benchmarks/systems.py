"""Structures and models of the benchmarks. Real ones: of the repository, or of the folder given by --data."""

from pathlib import Path

import ase.build
import numpy as np
import pytest
import torch

from scschnet import data, ops
from scschnet.data import Batch, StructureSet, collate, embedded
from scschnet.nn import ModelConfig, SchNet

CUTOFF = 5.0  # Å
N_INTERACTIONS = 6
STORED = Path(__file__).parents[1] / "tests" / "files"


def ladder(*small: object, large: tuple = (), full: tuple = ()) -> list:
    """Values of a parameter: `large` ones are left out by --benchmark-disable, `full` ones unless --full is given."""
    marked = [pytest.param(value, marks=pytest.mark.large) for value in large]
    return [*small, *marked, *(pytest.param(value, marks=pytest.mark.full) for value in full)]


def water(n_atoms: int) -> StructureSet:
    """Liquid water, periodic: 64 molecules of a simulation, repeated to 192 k^3 atoms."""
    k = round((n_atoms / 192) ** (1 / 3))
    with np.load(STORED / "water64_2frames.npz") as file:
        atoms = ase.Atoms(file["z"], file["R"][0].astype(float), cell=file["cell"][0], pbc=True)
    atoms = atoms.repeat(k)
    assert len(atoms) == n_atoms
    return of_atoms(atoms)


def of_atoms(atoms: ase.Atoms) -> StructureSet:
    """One structure."""
    cell, pbc = atoms.cell.array[None], atoms.pbc[None]
    return StructureSet(
        atoms.positions, atoms.numbers, np.array([0, len(atoms)]), cells=cell, pbc=pbc
    )


def ethanol(n_structures: int, folder: Path | None = None) -> StructureSet:
    """Frames of MD17 ethanol."""
    return embedded.load().select(np.linspace(0, 1999, n_structures).astype(int))


def aspirin(n_structures: int, folder: Path | None = None) -> StructureSet:
    """Frames of MD17 aspirin; without data, clusters of as many atoms."""
    if folder is not None:
        frames = data.read(folder / "md17_aspirin.npz")
        return frames.select(np.linspace(0, len(frames) - 1, n_structures).astype(int))
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)
    clusters = [rng.permutation(grid)[:21] * 1.6 for _ in range(n_structures)]
    positions = np.concatenate(clusters) + rng.normal(scale=0.1, size=(21 * n_structures, 3))
    numbers = np.tile([6] * 9 + [1] * 8 + [8] * 4, n_structures)
    return StructureSet(positions, numbers, 21 * np.arange(n_structures + 1))


def qm9(n_structures: int, folder: Path | None = None) -> StructureSet:
    """Molecules of QM9 drawn at random; without data, its first twenty, which are smaller, again and again."""
    if folder is not None:
        molecules = data.read(folder / "qm9.npz")
        rng = np.random.default_rng(0)
        return molecules.select(rng.choice(len(molecules), n_structures, replace=False))
    return data.read(STORED / "qm9_first20.npz").select(np.arange(n_structures) % 20)


def batch_of(structures: StructureSet, device: str = "cpu") -> Batch:
    """All structures in one batch, with their list."""
    return collate(structures, range(len(structures)), CUTOFF).to(device)


def model_for(
    structures: StructureSet,
    n_features: int = 128,
    n_rbf: int = 50,
    n_interactions: int = N_INTERACTIONS,
    filters: str = "spline",
) -> SchNet:
    """Random weights."""
    torch.manual_seed(0)
    elements = tuple(int(z) for z in np.unique(structures.atomic_numbers))
    sizes = {"n_features": n_features, "n_rbf": n_rbf, "n_interactions": n_interactions}
    return SchNet(ModelConfig(elements=elements, cutoff=CUTOFF, **sizes), filters=filters)


def inputs_of(structures, stretch: float = 1.0) -> tuple[torch.Tensor, ...]:
    """What `forward` of an exported file takes."""
    positions, cell = stretch * structures.positions, stretch * structures.cells[0]
    arrays = (positions, structures.atomic_numbers, cell, structures.pbc[0])
    return tuple(map(torch.as_tensor, arrays))


def pairs_of(r, z, cell, pbc) -> tuple:
    """What its `forward_pairs` takes: each pair once."""
    ptr = torch.tensor([0, len(z)])
    i, j, shifts, _ = ops.neighbor_list(r, ptr, cell[None], pbc[None], CUTOFF)
    half, _, half_j = ops.half_list(i, j, shifts, len(z))
    i, shifts = i[half], shifts[half].double()
    return z, i, half_j, r[half_j] - r[i] + shifts @ cell, len(z), True
