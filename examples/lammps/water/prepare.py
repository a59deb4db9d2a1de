"""Writes water.data, the start of in.water: a frame of the set that the model was trained on.

python prepare.py water64_pbc.npz
"""

import sys

import ase
import ase.io

import scschnet.data

frame = scschnet.data.read(sys.argv[1]).select([0])
water = ase.Atoms(frame.atomic_numbers, frame.positions, cell=frame.cells[0], pbc=True)
water.wrap()
ase.io.write(
    "water.data", water, format="lammps-data", specorder=["H", "O"], masses=True, units="metal"
)
print(f"water.data: {len(water)} atoms")
