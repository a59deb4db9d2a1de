"""Neighbor lists, as NumPy arrays i, j and S:

python3 -m venv ENVIRONMENTS/lists
ENVIRONMENTS/lists/bin/pip install ase matscipy vesin
"""

import ase.neighborlist
import numpy as np
import vesin
from matscipy.neighbours import neighbour_list
from protocol import serve


def prepare(case: dict, structures: list):
    """Lists of all structures, one after the other."""
    cutoff = case["cutoff"]
    search = vesin.NeighborList(
        cutoff=cutoff, full_list=True, sorted=case["program"] == "vesin_sorted"
    )

    def with_vesin(atoms) -> None:
        search.compute(atoms.positions, atoms.cell.array, bool(atoms.pbc.all()), "ijS")

    def with_matscipy(atoms) -> None:
        # Given no cell, matscipy makes one first, which takes as long again.
        cell = atoms.cell.array if atoms.pbc.any() else 30 * np.eye(3)
        neighbour_list("ijS", positions=atoms.positions, cutoff=cutoff, cell=cell, pbc=atoms.pbc)

    def with_ase(atoms) -> None:
        cell = atoms.cell.array if atoms.pbc.any() else 30 * np.eye(3)
        ase.neighborlist.primitive_neighbor_list("ijS", atoms.pbc, cell, atoms.positions, cutoff)

    programs = {"vesin": with_vesin, "vesin_sorted": with_vesin}
    program = (programs | {"matscipy": with_matscipy, "ase": with_ase})[case["program"]]

    def run() -> None:
        for atoms in structures:
            program(atoms)

    return run


if __name__ == "__main__":
    serve(prepare)
