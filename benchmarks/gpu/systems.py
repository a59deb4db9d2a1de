"""Systems that need no data: a liquid of water's density, and molecules of QM9's and aspirin's size."""

from dataclasses import replace

import numpy as np
import torch

from scschnet.data import StructureSet

SPACING = 2.152  # Å; 0.1003 atoms per Å^3 as in water: 52 neighbors within 5 Å


def liquid(shape: tuple[int, int, int]) -> StructureSet:
    """One periodic box of jittered lattice points, an oxygen for every two hydrogens.

    Args:
        shape: points along each axis.
    """
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    positions = SPACING * grid + rng.normal(scale=0.25, size=grid.shape)
    numbers = np.where(np.arange(len(grid)) % 3 == 0, 8, 1)
    cell = np.diag(SPACING * np.asarray(shape, float))
    return StructureSet(
        positions, numbers, np.array([0, len(grid)]), cells=cell[None], pbc=np.ones((1, 3), bool)
    )


def molecules(n_structures: int, n_atoms: int) -> StructureSet:
    """Open structures of jittered lattice points 1.6 Å apart."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    points = [rng.permutation(grid)[:n_atoms] * 1.6 for _ in range(n_structures)]
    positions = np.concatenate(points) + rng.normal(scale=0.1, size=(n_structures * n_atoms, 3))
    numbers = rng.choice([1, 6, 8], len(positions))
    return StructureSet(positions, numbers, np.arange(n_structures + 1) * n_atoms)


def labeled(structures: StructureSet) -> StructureSet:
    """The same with random energies and forces."""
    rng = np.random.default_rng(1)
    energy, forces = rng.normal(size=len(structures)), rng.normal(size=structures.positions.shape)
    return replace(structures, energy=energy, forces=forces)


def list_arguments(structures: StructureSet) -> tuple[torch.Tensor, ...]:
    """Arguments of the operator neighbor_list, on the GPU."""
    n = len(structures)
    cells = np.zeros((n, 3, 3)) if structures.cells is None else structures.cells
    pbc = np.zeros((n, 3), bool) if structures.pbc is None else structures.pbc
    arrays = (structures.positions, structures.atom_ptr, cells, pbc)
    return tuple(torch.as_tensor(np.asarray(a)).cuda() for a in arrays)
