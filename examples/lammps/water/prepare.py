"""Writes water.data, the start of in.water: one frame of the set that the model was trained on."""

from pathlib import Path

import ase
import ase.io
import numpy as np

FRAMES = Path(__file__).parents[3] / "tests" / "files" / "water64_2frames.npz"

with np.load(FRAMES) as frames:
    water = ase.Atoms(frames["z"], frames["R"][0], cell=frames["cell"][0], pbc=True)
water.wrap()
ase.io.write(
    "water.data", water, format="lammps-data", specorder=["H", "O"], masses=True, units="metal"
)
print(f"water.data: {len(water)} atoms")
