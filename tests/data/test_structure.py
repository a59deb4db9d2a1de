"""StructureSet: checks, properties, selection, and the errors that name what is wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scschnet.data.structure import StructureSet, ragged_gather, structure_indices


def make_set(sizes: list[int], seed: int = 0, **labels: object) -> StructureSet:
    """Structures of the given sizes with random contents; every label unless replaced."""
    rng = np.random.default_rng(seed)
    n_atoms, n_structures = sum(sizes), len(sizes)
    values: dict[str, object] = {
        "cells": rng.normal(size=(n_structures, 3, 3)),
        "pbc": rng.random((n_structures, 3)) < 0.5,
        "energy": rng.normal(size=n_structures),
        "forces": rng.normal(size=(n_atoms, 3)),
        "stress": rng.normal(size=(n_structures, 3, 3)),
    }
    return StructureSet(
        positions=rng.normal(size=(n_atoms, 3)),
        atomic_numbers=rng.integers(1, 20, n_atoms),
        atom_ptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        **(values | labels),
    )


def test_defaults_are_open_and_unlabeled():
    structures = StructureSet(np.zeros((3, 3)), np.array([8, 1, 1]), np.array([0, 3]))
    assert len(structures) == 1
    assert not structures.pbc.any() and not structures.cells.any()
    assert structures.elements.tolist() == [1, 8]
    assert structures.n_atoms.tolist() == [3] and structures.idx_m.tolist() == [0, 0, 0]
    assert not any(mask.any() for mask in structures.labeled.values())
    assert "energy 0/1" in repr(structures)


def test_empty_set_and_structures_without_atoms():
    empty = StructureSet(np.zeros((0, 3)), np.zeros(0, int), np.array([0]))
    assert len(empty) == 0 and empty.elements.size == 0 and len(empty.select([])) == 0
    hollow = make_set([0, 2, 0])
    hollow.check_values()
    assert hollow.labeled["forces"].all()
    assert len(hollow.select([2, 0]).positions) == 0


def test_partial_labels_are_counted_and_accepted():
    structures = make_set([2, 3, 1])
    structures.energy[1] = np.nan
    structures.forces[:2] = np.nan
    structures.stress[2] = np.nan
    structures.check_values()
    assert structures.labeled["energy"].tolist() == [True, False, True]
    assert structures.labeled["forces"].tolist() == [False, True, True]
    assert structures.labeled["stress"].tolist() == [True, True, False]


@given(st.data())
def test_select_equals_slicing_one_by_one(data):
    sizes = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=8))
    structures = make_set(sizes)
    chosen = data.draw(st.lists(st.integers(-len(sizes), len(sizes) - 1), max_size=10))
    picked = structures.select(chosen)
    assert len(picked) == len(chosen)
    for new, old in enumerate(chosen):
        old %= len(sizes)
        atoms = slice(structures.atom_ptr[old], structures.atom_ptr[old + 1])
        new_atoms = slice(picked.atom_ptr[new], picked.atom_ptr[new + 1])
        for name in ("positions", "atomic_numbers", "forces"):
            expected, got = getattr(structures, name)[atoms], getattr(picked, name)[new_atoms]
            np.testing.assert_array_equal(got, expected)
        for name in ("cells", "pbc", "energy", "stress"):
            np.testing.assert_array_equal(
                getattr(picked, name)[new], getattr(structures, name)[old]
            )


def test_select_by_mask_and_info_is_kept():
    structures = make_set([1, 2, 3], info={"origin": "here"}, atomref=np.arange(20.0))
    picked = structures.select(np.array([True, False, True]))
    assert picked.n_atoms.tolist() == [1, 3]
    assert picked.info == {"origin": "here"} and picked.atomref is structures.atomref


def test_ragged_gather_of_nothing():
    rows, ptr = ragged_gather(np.array([0, 2, 5]), np.zeros(0, np.int64))
    assert rows.size == 0 and ptr.tolist() == [0]


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([0.5], ValueError, "`indices` must be 1-D integers or a mask of shape (3,), got float64"),
        ([[0]], ValueError, "of shape (1, 1)"),
        ([True], ValueError, "mask of shape (3,), got bool of shape (1,)"),
        ([0, 3], IndexError, "`indices` must lie in a set of 3 structures, got 3"),
        ([-4], IndexError, "got -4"),
    ],
)
def test_bad_indices(indices, error, message):
    with pytest.raises(error) as caught:
        structure_indices(indices, 3)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"positions": np.zeros((3, 2))},
            ValueError,
            "`positions` must have shape (3, 3), got (3, 2)",
        ),
        (
            {"positions": np.full((3, 3), "a")},
            TypeError,
            "`positions` must hold real numbers, got <U1",
        ),
        (
            {"atomic_numbers": np.ones(2, int)},
            ValueError,
            "`atomic_numbers` must have shape (3,), got (2,)",
        ),
        (
            {"atomic_numbers": np.ones(3)},
            TypeError,
            "`atomic_numbers` must hold integers, got float64",
        ),
        (
            {"atomic_numbers": np.array([1, 0, 1])},
            ValueError,
            "between 1 and 118, got 0 in structure 1",
        ),
        ({"atomic_numbers": np.array([1, 1, 119])}, ValueError, "got 119 in structure 1"),
        ({"atom_ptr": np.array([0, 2])}, ValueError, "`atom_ptr` must rise from 0 to 3"),
        ({"atom_ptr": np.array([0, 3, 2, 3])}, ValueError, "not rising"),
        ({"atom_ptr": np.zeros((1, 1), int)}, ValueError, "`atom_ptr` must have shape"),
        ({"cells": np.zeros((3, 3))}, ValueError, "`cells` must have shape (2, 3, 3), got (3, 3)"),
        ({"pbc": np.zeros((2, 3))}, TypeError, "`pbc` must hold booleans, got float64"),
        ({"pbc": np.zeros(3, bool)}, ValueError, "`pbc` must have shape (2, 3), got (3,)"),
        ({"energy": np.zeros(3)}, ValueError, "`energy` must have shape (2,), got (3,)"),
        ({"forces": np.zeros(3)}, ValueError, "`forces` must have shape (3, 3), got (3,)"),
        (
            {"stress": np.zeros((2, 6))},
            ValueError,
            "`stress` must have shape (2, 3, 3), got (2, 6)",
        ),
        (
            {"energy": np.zeros(2, complex)},
            TypeError,
            "`energy` must hold real numbers, got complex128",
        ),
    ],
)
def test_bad_arrays(change, error, message):
    good = {
        "positions": np.zeros((3, 3)),
        "atomic_numbers": np.ones(3, int),
        "atom_ptr": np.array([0, 1, 3]),
    }
    with pytest.raises(error) as caught:
        StructureSet(**(good | change))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "where", "value", "message"),
    [
        ("positions", (3, 1), np.nan, "`positions` must be finite, got nan in structure 1, atom 1"),
        ("cells", (1, 0, 0), np.inf, "`cells` must be finite, got inf in structure 1"),
        ("energy", 0, -np.inf, "`energy` must be finite, got -inf in structure 0"),
        ("forces", (4, 2), np.nan, "`forces` must be finite, got nan in structure 1, atom 2"),
        ("forces", (2, 0), np.nan, "`forces` must be finite, got"),
        ("forces", (2, 0), np.inf, "`forces` must be finite, got inf in structure 1, atom 0"),
        ("stress", (1, 2, 2), np.nan, "`stress` must be finite, got nan in structure 1"),
    ],
)
def test_values_that_are_not_finite_name_the_structure(name, where, value, message):
    structures = make_set([2, 3])
    getattr(structures, name)[where] = value
    with pytest.raises(ValueError) as caught:
        structures.check_values()
    assert message in str(caught.value)


def test_atomref_must_be_finite():
    with pytest.raises(ValueError, match="`atomref` must be finite"):
        make_set([1], atomref=np.array([0.0, np.nan])).check_values()
