"""Neighbor lists from Python, float64 positions to i, j and S, beside ASE, matscipy and vesin."""

import ase
import pytest

from benchmarks.measure import in_turns, measure
from benchmarks.systems import CUTOFF, aspirin, batch_of, ethanol, ladder, of_atoms, qm9, water
from scschnet import batch_neighbor_list, neighbor_list, ops

pytestmark = pytest.mark.benchmark(group="neighbor list")
PEERS = "lists:ase lists:matscipy lists:vesin lists:vesin_sorted"
FEW_ATOMS = 2000  # ASE takes seconds for more
BYTES_PER_PAIR = 28  # i and j in 64 bit, S in 3 x 32


def system(name: str, data):
    if name == "2 atoms, skewed cell":
        cell = [[4.0, 0, 0], [1.9, 3.8, 0], [1.4, 1.3, 4.2]]
        return of_atoms(ase.Atoms("H2", [[0, 0, 0], [1.6, 1.6, 1.6]], cell=cell, pbc=True))
    if name.startswith("water"):
        return water(int(name.split()[1]))
    return {"ethanol": ethanol, "aspirin": aspirin}[name](1, data)


SYSTEMS = ladder(
    "ethanol",
    large=("aspirin", "2 atoms, skewed cell", "water 192", "water 1536", "water 12288"),
    full=("water 98304",),
)


@pytest.mark.parametrize("name", SYSTEMS)
def test_neighbor_list(benchmark, name, data, threads, peers):
    structures = system(name, data)
    cutoff = 10.0 if "skewed" in name else CUTOFF
    arguments = {"positions": structures.positions, "cutoff": cutoff, "threads": threads}
    if structures.pbc.any():
        arguments |= {"cell": structures.cells[0], "pbc": structures.pbc[0]}

    def search():
        return neighbor_list("ijS", **arguments)

    n_pairs = len(search()[0])
    moved = BYTES_PER_PAIR * n_pairs
    measure(benchmark, search, n_atoms=len(structures.positions), n_pairs=n_pairs, bytes=moved)
    names = PEERS if len(structures.positions) < FEW_ATOMS else PEERS.replace("lists:ase ", "")
    in_turns(benchmark, search, peers.start(names, structures, cutoff=cutoff, n_pairs=n_pairs))


def test_neighbor_lists_of_100_molecules(benchmark, data, threads, peers):
    """One call, beside loops of others over the molecules."""
    molecules = qm9(100, data)

    def search():
        return batch_neighbor_list(molecules.positions, molecules.atom_ptr, CUTOFF, threads=threads)

    n_pairs = len(search().idx_i)
    measure(benchmark, search, n_atoms=len(molecules.positions), n_pairs=n_pairs)
    others = peers.start("lists:matscipy lists:vesin", molecules, cutoff=CUTOFF, n_pairs=n_pairs)
    in_turns(benchmark, search, others)


@pytest.mark.parametrize("n_atoms", ladder(192, large=(12288,), full=(98304,)))
def test_half_list(benchmark, n_atoms, device):
    """Each pair once, as the network takes them."""
    batch = batch_of(water(n_atoms), device)
    arguments = (batch.idx_i, batch.idx_j, batch.shifts, n_atoms)
    measure(
        benchmark,
        lambda: ops.half_list(*arguments),
        device,
        n_atoms=n_atoms,
        n_pairs=len(batch.idx_i),
    )


@pytest.mark.parametrize("n_atoms", ladder(192, large=(12288,), full=(98304,)))
def test_pair_vectors(benchmark, n_atoms, device):
    batch = batch_of(water(n_atoms), device)
    half, _, _ = ops.half_list(batch.idx_i, batch.idx_j, batch.shifts, n_atoms)
    arguments = (batch.positions, batch.cells, batch.idx_m, batch.idx_i, batch.idx_j, batch.shifts)
    measure(
        benchmark,
        lambda: ops.pair_vectors(*arguments, half),
        device,
        n_atoms=n_atoms,
        n_pairs=len(half),
    )
