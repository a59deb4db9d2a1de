"""Several sets as one, whatever each of them is labeled with."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scschnet.data.structure import StructureSet
from scschnet.elements import symbol
from scschnet.properties import Property
from scschnet.quantities import QUANTITIES, Quantity

AGREE = 1e-6  # eV: reference energies that differ by more are those of two methods


def join(sets: Sequence[StructureSet], weights: Sequence[float] = ()) -> StructureSet:
    """The structures of all sets, one set after the other, with `file_index` counting the sets.

    A label that a set does not have is NaN for its structures; a set that says nothing of weights or isolated atoms has
    weights of 1 and no isolated atom.

    Args:
        sets: one or more.
        weights: how much each set counts in the loss; they multiply the weights of its structures. Empty: all 1.

    Returns:
        The joined set; of one set without weight the set itself.

    Raises:
        ValueError: if two sets have different energies of the same isolated atom, which is a sign of two methods.
    """
    if len(sets) == 1 and not weights:
        return sets[0]
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in sets])
        for name in ("positions", "atomic_numbers", "cells", "pbc")
    }
    sizes = np.concatenate([one.n_atoms for one in sets])
    joined |= {quantity.name: _labels(sets, quantity) for quantity in QUANTITIES}
    joined["properties"] = _properties(sets)
    if weights or any(one.weights is not None for one in sets):
        joined["weights"] = np.concatenate(
            [
                factor * (np.ones(len(one)) if one.weights is None else one.weights)
                for factor, one in zip(weights or np.ones(len(sets)), sets, strict=True)
            ]
        )
    if any(one.isolated is not None for one in sets):
        joined["isolated"] = np.concatenate(
            [np.zeros(len(one), bool) if one.isolated is None else one.isolated for one in sets]
        )
    if len(sets) == 1:
        return replace(sets[0], weights=joined["weights"])
    names = list(dict.fromkeys(name for one in sets for name in one.info))
    return StructureSet(
        **joined,
        atom_ptr=np.concatenate([[0], np.cumsum(sizes)]),
        atomref=_reference_energies(sets),
        file_index=np.repeat(np.arange(len(sets)), [len(one) for one in sets]),
        info={
            name: "; ".join(dict.fromkeys(one.info[name] for one in sets if name in one.info))
            for name in names
        },
    )


def _labels(sets: Sequence[StructureSet], quantity: Quantity) -> NDArray[np.float64] | None:
    labels = [getattr(one, quantity.name) for one in sets]
    if all(label is None for label in labels):
        return None
    rows = [len(one.positions) if quantity.per_atom else len(one) for one in sets]
    return np.concatenate(
        [
            np.full((n, *quantity.shape), np.nan) if label is None else label
            for n, label in zip(rows, labels, strict=True)
        ]
    )


def _properties(sets: Sequence[StructureSet]) -> dict[Property, NDArray[np.float64]]:
    """Of every property any set has; NaN for the structures of a set without it."""
    shapes = {given: label.shape[1:] for one in sets for given, label in one.properties.items()}
    return {
        given: np.concatenate(
            [one.properties.get(given, np.full((len(one), *shape), np.nan)) for one in sets]
        )
        for given, shape in shapes.items()
    }


def _reference_energies(sets: Sequence[StructureSet]) -> NDArray[np.float64] | None:
    """The tables of all sets as one; zero stands for an element that a table does not have."""
    tables = [one.atomref for one in sets if one.atomref is not None]
    if not tables:
        return None
    merged = np.zeros(max(map(len, tables)))
    for table in tables:
        known = merged[: len(table)]
        differ = (table != 0) & (known != 0) & (np.abs(table - known) > AGREE)
        if differ.any():
            z = int(np.flatnonzero(differ)[0])
            raise ValueError(
                f"files that are trained on together must have the same energies of isolated atoms, but that of "
                f"{symbol(z)} is {known[z]:.4f} eV in one and {table[z]:.4f} eV in another; were they computed by two "
                "methods?"
            )
        known[known == 0] = table[known == 0]
    return merged
