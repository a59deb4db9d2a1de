"""Structures that are ASE's Atoms already."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from scschnet.data.structure import StructureSet


def from_atoms(atoms: Atoms | Sequence[Atoms]) -> StructureSet:
    """A set of ASE's Atoms, with the results of their calculators, which are in eV and Å, as labels.

    Args:
        atoms: one or several. Nothing is computed: a result that is not there is no label.

    Raises:
        TypeError: if something else is among them.
        ValueError: if a value is not finite, or a structure is unusable, as for files.
    """
    frames = [atoms] if isinstance(atoms, Atoms) else list(atoms)
    for frame in frames:
        if not isinstance(frame, Atoms):
            raise TypeError(f"`atoms` must be ASE's Atoms, got {type(frame).__name__}")
    results = [dict(getattr(frame.calc, "results", {})) for frame in frames]
    structures = StructureSet(
        np.concatenate([np.zeros((0, 3)), *(frame.positions for frame in frames)]),
        np.concatenate([np.zeros(0, np.int64), *(frame.numbers for frame in frames)]),
        np.cumsum([0, *map(len, frames)]),
        cells=np.array([frame.cell.array for frame in frames]).reshape(-1, 3, 3),
        pbc=np.array([frame.pbc for frame in frames], dtype=bool).reshape(-1, 3),
        energy=np.array([found.get("energy", np.nan) for found in results]),
        forces=np.concatenate(
            [np.zeros((0, 3)), *map(_forces, results, frames)],
        ),
        stress=np.array([_stress(found) for found in results]).reshape(-1, 3, 3),
        info={"source": "ASE's Atoms", "units as read": "eV, Å"},
    )
    structures.check_values()
    return structures


def _forces(found: dict[str, Any], frame: Atoms) -> Any:
    return found.get("forces", np.full((len(frame), 3), np.nan))


def _stress(found: dict[str, Any]) -> Any:
    stress = np.asarray(found.get("stress", np.full(6, np.nan)))
    return voigt_6_to_full_3x3_stress(stress) if stress.shape == (6,) else stress
