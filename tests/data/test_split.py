"""Splits: by seed, round trip, SchNetPack's keys, errors."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scschnet.data.split import Split, load_split, random_split, save_split


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 2**32))
def test_random_split_takes_every_structure_once(n_train, n_val, n_test, seed):
    n = n_train + n_val + n_test
    split = random_split(n, n_train, n_val, seed)
    assert (len(split.train), len(split.val), len(split.test)) == (n_train, n_val, n_test)
    assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(n))


def test_seed_decides():
    one, same, other = (random_split(100, 50, 20, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train, same.train)
    assert not np.array_equal(one.train, other.train)
    # golden: NumPy 2.4, default_rng(1).permutation(10)[:3], sorted
    assert random_split(10, 3, 2, 1).train.tolist() == sorted(
        np.random.default_rng(1).permutation(10)[:3]
    )


def test_round_trip_leaves_one_file(tmp_path):
    split = random_split(20, 10, 5, 0)
    save_split(tmp_path / "split.npz", split)
    back = load_split(tmp_path / "split.npz", n_structures=20)
    for name in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(back, name), getattr(split, name))
        assert getattr(back, name).dtype == np.int64
    assert os.listdir(tmp_path) == ["split.npz"]


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    save_split(tmp_path / "split.npz", random_split(20, 10, 5, 0))

    def full_disk(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_split(tmp_path / "split.npz", random_split(20, 1, 1, 0))
    assert os.listdir(tmp_path) == ["split.npz"]
    assert len(load_split(tmp_path / "split.npz").train) == 10


def test_reads_schnetpack_keys(tmp_path):
    np.savez(tmp_path / "s.npz", train_idx=[3, 1], val_idx=[2], test_idx=np.zeros(0, int))
    split = load_split(tmp_path / "s.npz")
    assert split.train.tolist() == [3, 1] and split.val.tolist() == [2] and split.test.size == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (10, 8, 3, 0),
            "`n_train` + `n_val` must be at most 10 (the structures there are), got 8 + 3",
        ),
        ((10, -1, 3, 0), "`n_train` must not be negative, got -1"),
        ((10, 1, -3, 0), "`n_val` must not be negative, got -3"),
        ((10, 1, 3, -5), "`seed` must not be negative, got -5"),
    ],
)
def test_bad_sizes(arguments, message):
    with pytest.raises(ValueError) as caught:
        random_split(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (
            ([0, 1], [1], []),
            ValueError,
            "`train` and `val` must not share structures, got 1 shared, first 1",
        ),
        (([0], [1], [0]), ValueError, "`train` and `test` must not share"),
        (([0], [1, 2], [2]), ValueError, "`val` and `test` must not share"),
        (([0, 4, 4], [1], []), ValueError, "`train` must not repeat an index, got 4 twice"),
        (([-1], [1], []), ValueError, "`train` must hold indices from 0, got -1"),
        (([0.0], [1], []), TypeError, "`train` must hold integers, got float64"),
        (([[0]], [1], []), ValueError, "`train` must have shape (n,), got (1, 1)"),
    ],
)
def test_bad_parts(parts, error, message):
    with pytest.raises(error) as caught:
        Split(*map(np.array, parts))
    assert message in str(caught.value)


def test_split_of_another_set(tmp_path):
    save_split(tmp_path / "s.npz", random_split(20, 10, 5, 0))
    with pytest.raises(ValueError, match="must lie in a set of 12 structures, got index"):
        load_split(tmp_path / "s.npz", n_structures=12)


def test_files_that_are_no_split(tmp_path):
    np.savez(tmp_path / "other.npz", a=[1])
    with pytest.raises(ValueError, match=r"must have the keys train, val and test, got \['a'\]"):
        load_split(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("train: 1 2 3")
    with pytest.raises(ValueError, match=r"must be an \.npz file of index arrays"):
        load_split(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError):
        load_split(tmp_path / "absent.npz")


def test_a_file_whose_records_count_as_encrypted_is_named(tmp_path):
    save_split(tmp_path / "split.npz", Split(np.arange(3), np.arange(3, 5), np.arange(5, 6)))
    content = bytearray((tmp_path / "split.npz").read_bytes())
    start = content.find(b"PK\x01\x02")
    while start >= 0:
        content[start + 8] |= 1
        start = content.find(b"PK\x01\x02", start + 1)
    (tmp_path / "split.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"split\.npz` must be an \.npz file of index arrays, got"):
        load_split(tmp_path / "split.npz")
