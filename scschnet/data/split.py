"""Train, validation and test parts of a set: taken by seed, saved to and loaded from .npz."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scschnet.archive import ERRORS_OF_ZIPFILE
from scschnet.data.structure import StructureSet
from scschnet.files import replacing
from scschnet.kinds import Kind, expect

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the structures of each part; parts are disjoint and no index repeats.

    Args:
        train: (n_train,) int64.
        val: (n_val,) int64.
        test: (n_test,) int64.

    Raises:
        ValueError: if indices are negative, repeat, or lie in two parts.
        TypeError: if a part holds no integers.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in PARTS:
            part = np.asarray(getattr(self, name))
            if part.ndim != 1:
                raise ValueError(f"`{name}` must have shape (n,), got {part.shape}")
            if part.size and part.dtype.kind not in "iu":
                raise TypeError(f"`{name}` must hold integers, got {part.dtype}")
            if part.size and part.min() < 0:
                raise ValueError(f"`{name}` must hold indices from 0, got {part.min()}")
            object.__setattr__(self, name, part.astype(np.int64))
            if len(np.unique(part)) != len(part):
                raise ValueError(
                    f"`{name}` must not repeat an index, got {_first_repeat(part)} twice"
                )
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = np.intersect1d(getattr(self, one), getattr(self, other))
            if shared.size:
                raise ValueError(
                    f"`{one}` and `{other}` must not share structures, got {shared.size} shared, "
                    f"first {shared[0]}"
                )

    def check_range(self, n_structures: int) -> None:
        """Check that every index lies in a set of `n_structures`.

        Raises:
            ValueError: naming the part and the largest index.
        """
        for name in PARTS:
            part = getattr(self, name)
            if part.size and part.max() >= n_structures:
                raise ValueError(
                    f"`{name}` must lie in a set of {n_structures} structures, "
                    f"got index {part.max()}"
                )


def random_split(n: int, n_train: int, n_val: int, seed: int) -> Split:
    """Draw `n_train` and `n_val` of `n` structures at random; all others are the test part.

    The same seed gives the same split (NumPy's PCG64). Each part is sorted.

    Args:
        n: number of structures.
        n_train: size of the training part.
        n_val: size of the validation part.
        seed: not negative.

    Raises:
        ValueError: if a size is negative or the parts do not fit into `n`.
    """
    for name, value in (("n", n), ("n_train", n_train), ("n_val", n_val), ("seed", seed)):
        if value < 0:
            raise ValueError(f"`{name}` must not be negative, got {value}")
    if n_train + n_val > n:
        raise ValueError(
            f"`n_train` + `n_val` must be at most {n} (the structures there are), "
            f"got {n_train} + {n_val}"
        )
    order = np.random.default_rng(seed).permutation(n)
    train, val, test = np.split(order, [n_train, n_train + n_val])
    return Split(np.sort(train), np.sort(val), np.sort(test))


def save_split(path: str | os.PathLike[str], split: Split) -> None:
    """Write `split` to .npz under a temporary name and rename it: whole or not there."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, train=split.train, val=split.val, test=split.test)


def load_split(path: str | os.PathLike[str], n_structures: int | None = None) -> Split:
    """Read a split from .npz: keys train, val, test, or SchNetPack's train_idx and so on.

    Args:
        path: the .npz file.
        n_structures: size of the set it is meant for, checked if given.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no .npz, a part is missing, or an index does not fit.
    """
    expect(path, Kind.SPLIT, Kind.OTHER)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"`{path}` must be an .npz file of index arrays, got another file")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {key.removesuffix("_idx"): file[key] for key in file.files}
    except (*ERRORS_OF_ZIPFILE, AttributeError) as error:
        raise ValueError(f"`{path}` must be an .npz file of index arrays, got {error}") from error
    missing = [name for name in PARTS if name not in found]
    if missing:
        raise ValueError(f"`{path}` must have the keys train, val and test, got {sorted(found)}")
    try:
        split = Split(found["train"], found["val"], found["test"])
    except TypeError as error:
        raise ValueError(f"`{path}` must hold indices: {error}") from error
    if n_structures is not None:
        split.check_range(n_structures)
    return split


def _first_repeat(part: NDArray[np.int64]) -> int:
    values, counts = np.unique(part, return_counts=True)
    return int(values[counts > 1][0])


def evenly(structures: StructureSet, n_atoms: int, n_most: int | None = None) -> StructureSet:
    """Structures spread evenly over a set, as many as hold about `n_atoms` atoms, at least one.

    Args:
        structures: the set, not empty.
        n_atoms: atoms wanted.
        n_most: at most so many structures.

    Raises:
        ValueError: if the set is empty.
    """
    if not len(structures):
        raise ValueError("`structures` must hold at least one structure, got none")
    wanted = max(1, int(n_atoms / max(structures.n_atoms.mean(), 1.0)))
    wanted = min(wanted, len(structures), n_most or len(structures))
    chosen = np.linspace(0, len(structures) - 1, wanted).round().astype(np.int64)
    return structures.select(chosen)
