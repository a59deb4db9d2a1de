"""Structures as a caller has them: a set, ASE's Atoms, or a file."""

import os
from collections.abc import Sequence
from typing import TypeAlias

from ase import Atoms

from scschnet.data.readers import read
from scschnet.data.readers.atoms import from_atoms
from scschnet.data.structure import StructureSet

Structures: TypeAlias = StructureSet | Atoms | Sequence[Atoms] | str | os.PathLike[str]


def structures_of(given: Structures, units: str | None = None) -> StructureSet:
    """The set that a caller means.

    Args:
        given: a set, one or several of ASE's Atoms, or a file that `read` reads.
        units: of a file that does not state them.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `read` and `from_atoms`.
    """
    if isinstance(given, StructureSet):
        return given
    if isinstance(given, (str, os.PathLike)):
        return read(given, units=units)
    return from_atoms(given)
