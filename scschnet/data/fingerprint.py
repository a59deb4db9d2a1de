"""Digests of a set and its split: whether a run still sees what it was trained on."""

import hashlib

import numpy as np
from numpy.typing import ArrayLike

from scschnet.data.split import PARTS, Split
from scschnet.data.structure import StructureSet
from scschnet.quantities import NAMES

ROWS = 100_000  # read at a time: an array may be a file
WORDS = {
    "structures": "atoms, positions or cells of the structures, or their order",
    "labels": "energies, forces, stress, properties or weights",
    "split": "the parts to train, validate and test",
}


def fingerprint(structures: StructureSet, split: Split) -> dict[str, str]:
    """Digests of the structures, of their labels and of the split.

    Args:
        structures: the whole set, as read.
        split: its parts.

    Returns:
        Keys of `WORDS`, hexadecimal.
    """
    geometry = ("atom_ptr", "atomic_numbers", "positions", "cells", "pbc")
    return {
        "structures": _digest(*(getattr(structures, name) for name in geometry)),
        "labels": _digest(
            *(getattr(structures, name) for name in (*NAMES, "weights")),
            *structures.properties.values(),
        ),
        "split": _digest(*(getattr(split, name) for name in PARTS)),
    }


def changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What differs, in words; digests that a run does not have are not compared."""
    return [words for name, words in WORDS.items() if before.get(name, now[name]) != now[name]]


def _digest(*arrays: ArrayLike | None) -> str:
    digest = hashlib.sha256()
    for given in arrays:
        if given is None:
            digest.update(b"none")
            continue
        array = np.asarray(given)
        digest.update(f"{array.dtype}{array.shape}".encode())
        for start in range(0, len(array), ROWS):
            digest.update(np.ascontiguousarray(array[start : start + ROWS]).tobytes())
    return digest.hexdigest()[:32]
