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
    """Lists of all structures, one after the other; they must have as many pairs as ours."""
    cutoff = case["cutoff"]
    in_order = case["program"] == "vesin_sorted"
    search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=in_order)

    def with_vesin(atoms) -> int:
        return len(
            search.compute(atoms.positions, atoms.cell.array, bool(atoms.pbc.all()), "ijS")[0]
        )

    # Given no cell, matscipy makes one first, which takes as long again.
    def cell_of(atoms) -> np.ndarray:
        return atoms.cell.array if atoms.pbc.any() else 30 * np.eye(3)

    def with_matscipy(atoms) -> int:
        arguments = {"positions": atoms.positions, "cell": cell_of(atoms), "pbc": atoms.pbc}
        return len(neighbour_list("ijS", cutoff=cutoff, **arguments)[0])

    def with_ase(atoms) -> int:
        arguments = (atoms.pbc, cell_of(atoms), atoms.positions, cutoff)
        return len(ase.neighborlist.primitive_neighbor_list("ijS", *arguments)[0])

    programs = {"vesin": with_vesin, "vesin_sorted": with_vesin}
    program = (programs | {"matscipy": with_matscipy, "ase": with_ase})[case["program"]]

    def run() -> int:
        return sum(map(program, structures))

    if run() != case["n_pairs"]:
        raise ValueError(f"{case['program']} finds {run()} pairs, ours are {case['n_pairs']}")
    return run


if __name__ == "__main__":
    serve(prepare)
