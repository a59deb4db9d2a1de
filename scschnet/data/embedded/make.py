"""Makes ethanol.npz from a larger MD17 archive: python -m scschnet.data.embedded.make SOURCE OUT

Takes N_FRAMES frames evenly over those of the source, which are in the order of the trajectory, and
copies their numbers bit for bit, with the unit strings.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from scschnet.files import replacing

N_FRAMES = 2000


def make(source: Path, out: Path) -> None:
    """Write every n-th frame of `source` (keys R, z, E, F, index and units) to `out`."""
    with np.load(source, allow_pickle=False) as file:
        frames = np.linspace(0, len(file["E"]) - 1, N_FRAMES).round().astype(np.int64)
        arrays = {key: file[key][frames] for key in ("R", "E", "F", "index")}
        kept = {key: file[key] for key in ("z", "name", "theory", "e_unit", "r_unit", "f_unit")}
    with replacing(out) as temporary, temporary.open("wb") as target:
        np.savez_compressed(target, **arrays, **kept)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
