"""Several sets as one: labels that some of them lack, weights, reference energies, and which file a structure is of."""

import numpy as np
import pytest
from conftest import make_structures

from scschnet.data import StructureSet, join
from scschnet.data.fingerprint import fingerprint
from scschnet.data.split import Split


def molecules(**labels) -> StructureSet:
    """Two structures, of one and of two atoms."""
    return StructureSet(
        positions=np.arange(9.0).reshape(3, 3),
        atomic_numbers=np.array([8, 1, 1]),
        atom_ptr=np.array([0, 1, 3]),
        **labels,
    )


def test_structures_follow_each_other_and_know_their_file():
    one, other = make_structures(), molecules()
    joined = join([one, other])
    assert len(joined) == 7 and joined.file_index.tolist() == [0] * 5 + [1] * 2
    for k, part in enumerate((one, other)):
        found = joined.select(joined.file_index == k)
        for name in ("positions", "atomic_numbers", "atom_ptr", "cells", "pbc"):
            np.testing.assert_array_equal(getattr(found, name), getattr(part, name))


def test_labels_that_a_file_lacks_are_absent_for_its_structures():
    joined = join([molecules(energy=[1.0, 2.0]), molecules(forces=np.ones((3, 3)))])
    assert joined.labeled["energy"].tolist() == [True, True, False, False]
    assert joined.labeled["forces"].tolist() == [False, False, True, True]
    assert joined.stress is None
    joined.check_values()


def test_weights_of_files_multiply_those_of_structures():
    weighted = molecules(weights=[1.0, 3.0])
    assert join([molecules(), weighted]).weights.tolist() == [1, 1, 1, 3]
    assert join([molecules(), weighted], [2.0, 5.0]).weights.tolist() == [2, 2, 5, 15]
    assert join([weighted], [4.0]).weights.tolist() == [4, 12]
    assert join([molecules(), molecules()]).weights is None


def test_isolated_atoms_stay_marked():
    marked = molecules(isolated=np.array([True, False]))
    assert join([molecules(), marked]).isolated.tolist() == [False, False, True, False]


def test_reference_energies_are_merged_if_they_agree():
    hydrogen, both = np.array([0, -13.6]), np.array([0, -13.6, 0, 0, 0, 0, 0, 0, -2040.0])
    merged = join([molecules(atomref=hydrogen), molecules(atomref=both), molecules()]).atomref
    np.testing.assert_array_equal(merged, both)
    assert join([molecules(), molecules()]).atomref is None
    with pytest.raises(ValueError, match=r"that of H is -13\.6000 eV in one and -13\.5000 eV"):
        join([molecules(atomref=hydrogen), molecules(atomref=np.array([0, -13.5]))])


def test_one_set_is_the_set_itself_and_repeats_keep_their_file():
    one = make_structures()
    assert join([one]) is one
    assert join([one, molecules()]).select([6, 0, 6]).file_index.tolist() == [1, 0, 1]


def test_the_fingerprint_covers_every_file_and_its_weight():
    split = Split(np.arange(2), np.arange(2, 3), np.arange(3, 4))
    first, second = molecules(energy=[1.0, 2.0]), molecules(energy=[3.0, 4.0])
    before = fingerprint(join([first, second]), split)
    assert fingerprint(join([first, second]), split) == before
    changed = fingerprint(join([first, molecules(energy=[3.0, 4.5])]), split)
    assert changed["labels"] != before["labels"] and changed["structures"] == before["structures"]
    for other in (join([first, second], (1.0, 5.0)), join([second, first])):
        assert fingerprint(other, split)["labels"] != before["labels"]
