"""Batches: gathered rows, pairs equal to ASE's one structure at a time, labels, errors."""

import ase
import numpy as np
import pytest
import torch
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from scschnet.data.batch import INPUTS, Batch, collate
from scschnet.data.structure import StructureSet

CUTOFF = 3.0


def mixed_set(sizes: list[int], seed: int = 0) -> StructureSet:
    """Open and periodic structures by turns, with every label."""
    rng = np.random.default_rng(seed)
    n_structures, n_atoms = len(sizes), sum(sizes)
    periodic = np.arange(n_structures) % 2 == 1
    cells = np.where(periodic[:, None, None], 2.5 * np.eye(3) + rng.normal(0, 0.2, (3, 3)), 0.0)
    return StructureSet(
        positions=rng.uniform(-3, 3, (n_atoms, 3)),
        atomic_numbers=rng.integers(1, 10, n_atoms),
        atom_ptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        cells=cells,
        pbc=np.repeat(periodic[:, None], 3, axis=1),
        energy=rng.normal(size=n_structures),
        forces=rng.normal(size=(n_atoms, 3)),
        stress=rng.normal(size=(n_structures, 3, 3)),
    )


def pairs_by_ase(structures: StructureSet, index: int) -> set[tuple[int, ...]]:
    atoms = slice(structures.atom_ptr[index], structures.atom_ptr[index + 1])
    cell = structures.cells[index] if structures.pbc[index].any() else np.eye(3)
    idx_i, idx_j, shifts = primitive_neighbor_list(
        "ijS", structures.pbc[index], cell, structures.positions[atoms], CUTOFF
    )
    return {(i, j, *s) for i, j, s in zip(idx_i, idx_j, shifts, strict=True)}


@settings(max_examples=25)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data())
def test_batch_equals_its_members_one_by_one(sizes, data):
    structures = mixed_set(sizes)
    chosen = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=6))
    batch = collate(structures, chosen, CUTOFF)
    assert len(batch) == len(chosen)
    for new, old in enumerate(chosen):
        start, stop = batch.atom_ptr[new : new + 2].tolist()
        rows = slice(start, stop)
        old_rows = slice(structures.atom_ptr[old], structures.atom_ptr[old + 1])
        for name in ("positions", "atomic_numbers", "forces"):
            np.testing.assert_array_equal(
                getattr(batch, name)[rows], getattr(structures, name)[old_rows]
            )
        for name in ("cells", "energy", "stress"):
            np.testing.assert_array_equal(getattr(batch, name)[new], getattr(structures, name)[old])
        assert (batch.idx_m[rows] == new).all()
        mine = slice(*batch.row_ptr[[start, stop]].tolist())
        columns = (batch.idx_i[mine] - start, batch.idx_j[mine] - start, *batch.shifts[mine].T)
        got = list(zip(*(column.tolist() for column in columns), strict=True))
        assert len(got) == len(set(got))
        assert set(got) == pairs_by_ase(structures, old)


def test_dtypes_and_inputs():
    batch = collate(mixed_set([3, 2]), [1, 0], CUTOFF)
    assert tuple(batch.inputs) == INPUTS
    for name in ("positions", "cells", "energy", "forces", "stress"):
        assert getattr(batch, name).dtype == torch.float64
    for name in ("atomic_numbers", "idx_m", "idx_i", "idx_j", "row_ptr", "atom_ptr"):
        assert getattr(batch, name).dtype == torch.int64
    assert batch.shifts.dtype == torch.int32
    assert all(tensor.is_contiguous() for tensor in batch.inputs.values())


def test_labels_that_are_not_there_are_none():
    structures = mixed_set([2, 2])
    bare = StructureSet(structures.positions, structures.atomic_numbers, structures.atom_ptr)
    batch = collate(bare, [0], CUTOFF)
    assert batch.energy is None and batch.forces is None and batch.stress is None
    assert batch.to("meta").energy is None


def test_batch_does_not_share_memory_with_the_set():
    structures = mixed_set([3, 2])
    before = structures.positions.copy()
    collate(structures, [0, 1], CUTOFF).positions.zero_()
    np.testing.assert_array_equal(structures.positions, before)


def test_mask_and_empty_batch():
    structures = mixed_set([3, 2])
    assert collate(structures, np.array([False, True]), CUTOFF).positions.shape == (2, 3)
    empty = collate(structures, [], CUTOFF)
    assert len(empty) == 0 and empty.idx_i.numel() == 0 and empty.row_ptr.tolist() == [0]


def test_to_moves_every_tensor():
    batch = collate(mixed_set([3, 2]), [0, 1], CUTOFF).to("meta")
    assert isinstance(batch, Batch)
    assert {tensor.device.type for tensor in (*batch.inputs.values(), batch.forces)} == {"meta"}


@pytest.mark.parametrize(
    ("indices", "cutoff", "error", "message"),
    [
        ([5], CUTOFF, IndexError, "`indices` must lie in a set of 2 structures, got 5"),
        ([0.0], CUTOFF, ValueError, "`indices` must be 1-D integers or a mask"),
        ([0], -1.0, ValueError, "`cutoff` must be"),
        ([0], float("nan"), ValueError, "`cutoff` must be"),
    ],
)
def test_errors(indices, cutoff, error, message):
    with pytest.raises(error, match=message):
        collate(mixed_set([3, 2]), indices, cutoff)


def test_position_that_is_not_finite():
    structures = mixed_set([3, 2])
    structures.positions[4, 0] = np.nan
    with pytest.raises(ValueError, match="`positions` must be finite"):
        collate(structures, [0, 1], CUTOFF)


def test_real_molecule_has_all_pairs():
    water = ase.Atoms("OH2", [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    structures = StructureSet(water.positions, water.numbers, np.array([0, 3]))
    batch = collate(structures, [0], 5.0)
    assert batch.idx_i.tolist() == [0, 0, 1, 1, 2, 2]
    assert not batch.shifts.any()
