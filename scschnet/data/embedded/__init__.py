"""The default set: 2,000 frames of MD17 ethanol, shipped with the package. Origin: ORIGIN.md."""

from __future__ import annotations

from pathlib import Path

from scschnet.data.readers import read
from scschnet.data.structure import StructureSet

NAME = "ethanol.npz"


def path() -> Path:
    """Where the file lies."""
    return Path(__file__).with_name(NAME)


def load() -> StructureSet:
    """The 2,000 frames in eV and Å, in the order of the trajectory."""
    return read(path(), require=("energy", "forces"))
