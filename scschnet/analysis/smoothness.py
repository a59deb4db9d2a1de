"""Is the energy smooth along bonds? Bonds and contacts of a few structures, stretched and pressed.

Errors on structures out of dynamics say little about the surface between and beyond them, and dynamics feel both. Along
a bond or a contact the energy has one minimum and its slope no steps. Counted is what a model has beyond that. The idea
is that of the bond smoothness test of arXiv:2602.04861; what is counted, and how, is ours.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scschnet.analysis.bonds import covalent_radii
from scschnet.analysis.filters import along_a_pair, nearest_vector
from scschnet.data import StructureSet
from scschnet.evaluate import check_elements, predict
from scschnet.neighbors import batch_neighbor_list
from scschnet.nn import SchNet

STRUCTURES = 3
SCANS = 4  # of each kind, by two elements and whether they are bonded
PRESSED, STRETCHED = 0.75, 1.35  # of the distance,
FURTHEST = 0.5  # but by no more than so many Å
POINTS = 81
LOOK = 4.0  # Å, how far is looked for contacts
BONDED = 1.25  # times the sum of the covalent radii
DEPTH = 1e-3  # eV: shallower dents are rounding
STEP = 0.02  # eV/Å: smaller steps of the slope do no harm
CLOSER = 65  # points around a place where there may be one


@dataclass(frozen=True, eq=False)
class PairScan:
    """A bond or a contact that was pressed and stretched, all other atoms at rest.

    Args:
        atoms: structure, and two atoms counted in the set that was looked at.
        elements: their atomic numbers, ascending.
        bonded: whether it is a bond.
        distance: ascending, (n_points,), Å.
        energy: of the whole structure, relative to its lowest, (n_points,), eV.
        slope: of the energy in the distance, from the forces, (n_points,), eV/Å.
        jumps: distances at which the slope has a step, Å.
    """

    atoms: tuple[int, int, int]
    elements: tuple[int, int]
    bonded: bool
    distance: NDArray[np.float64]
    energy: NDArray[np.float64]
    slope: NDArray[np.float64]
    jumps: list[float]

    @property
    def extrema(self) -> NDArray[np.float64]:
        """Distances of the extrema of the energy beyond its lowest point, Å."""
        return self.distance[_turning_points(self.energy)]


def _turning_points(energy: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of maxima and minima, deeper than DEPTH, other than the lowest point and the ends.

    From the lowest point outwards the energy should only rise: every fall of more than DEPTH begins at a maximum, and
    every rise after it at a minimum.
    """
    lowest = int(energy.argmin())
    found: list[int] = []
    for way in (range(lowest, len(energy)), range(lowest, -1, -1)):
        rising, extreme = True, lowest
        for k in way:
            beyond = energy[k] - energy[extreme] if rising else energy[extreme] - energy[k]
            if beyond > 0.0:
                extreme = k
            elif beyond < -DEPTH:
                found.append(extreme)
                rising, extreme = not rising, k
    return np.array(sorted(found), dtype=np.int64)


def _suspects(slope: NDArray[np.float64]) -> NDArray[np.int64]:
    """Where the slope may have a step: its second difference is too large for a smooth curve on this grid.

    That of a smooth curve over neighbors is a quarter of that over next but one, at a kink half of it, at a step alike.
    """
    near = np.abs(slope[3:-1] - 2 * slope[2:-2] + slope[1:-3])
    far = np.abs(slope[4:] - 2 * slope[2:-2] + slope[:-4])
    places = np.flatnonzero((near > STEP / 2) & (near > 0.4 * far)) + 2
    if not len(places):
        return places
    return places[np.concatenate([[True], np.diff(places) > 2])]  # one step shows at two points


def scan_pairs(model: SchNet, structures: StructureSet) -> list[PairScan]:
    """Press and stretch bonds and contacts of a few structures.

    Of every two elements the nearest contacts and some bonds are taken, at most four of each, from three structures
    spread evenly. Distances run from 0.75 to 1.35 of what they were, but by no more than 0.5 Å.

    Args:
        model: with an energy.
        structures: of which some are looked at, best such as the model was not trained on.

    Raises:
        ValueError: if the model has no energy, or does not know an element.
    """
    model.require_energy()
    check_elements(model, structures)
    count = min(STRUCTURES, len(structures))
    few = np.linspace(0, len(structures) - 1, count).astype(int)
    found = []
    for (a, b, bonded), pairs in sorted(_chosen(structures, few).items()):
        for m, i, j in pairs:
            found.append(_scan(model, structures, m, i, j, (a, b), bonded))
    return found


def _chosen(
    structures: StructureSet, few: NDArray[np.int64]
) -> dict[tuple[int, int, bool], list[tuple[int, int, int]]]:
    """Elements and whether they are bonded, to structure and atoms of some pairs."""
    s = structures.select(few)
    first = structures.atom_ptr[few] - s.atom_ptr[:-1]
    i, j, shifts, _ = batch_neighbor_list(s.positions, s.atom_ptr, LOOK, s.cells, s.pbc)
    r_ij = s.positions[j] - s.positions[i]
    d_ij = np.linalg.norm(r_ij + np.einsum("pa,pab->pb", shifts, s.cells[s.idx_m[i]]), axis=1)
    z = s.atomic_numbers
    radii = covalent_radii[z]
    bonded = d_ij < BONDED * (radii[i] + radii[j])
    once = (i != j) & ((z[i] < z[j]) | ((z[i] == z[j]) & (i < j)))
    found = {}
    for a, b, bond in sorted({*zip(z[i[once]], z[j[once]], bonded[once], strict=True)}):
        of = np.flatnonzero(once & (z[i] == a) & (z[j] == b) & (bonded == bond))
        if bond:
            of = of[np.linspace(0, len(of) - 1, min(SCANS, len(of))).astype(int)]
        else:
            of = of[np.argsort(d_ij[of], kind="stable")[:SCANS]]
        m = s.idx_m[i[of]]
        atoms = zip(few[m], i[of] + first[m], j[of] + first[m], strict=True)
        found[int(a), int(b), bool(bond)] = [(int(n), int(p), int(q)) for n, p, q in atoms]
    return found


def _scan(
    model: SchNet,
    structures: StructureSet,
    m: int,
    i: int,
    j: int,
    elements: tuple[int, int],
    bonded: bool,
) -> PairScan:
    way = nearest_vector(structures, m, i, j)
    d = float(np.linalg.norm(way))
    first = structures.atom_ptr[m]

    def evaluate(distances: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        predicted = predict(model, along_a_pair(structures, m, i, j, distances / d))
        assert predicted.energy is not None and predicted.forces is not None
        forces = predicted.forces.reshape(len(distances), -1, 3)
        return predicted.energy, 0.5 * (forces[:, i - first] - forces[:, j - first]) @ (way / d)

    distance = np.linspace(max(PRESSED * d, d - FURTHEST), min(STRETCHED * d, d + FURTHEST), POINTS)
    energy, slope = evaluate(distance)
    jumps = []
    for k in _suspects(slope):
        closer = np.linspace(distance[k - 1], distance[k + 1], CLOSER)
        changes = np.diff(evaluate(closer)[1])
        away = np.abs(changes - np.median(changes))
        if away.max() > STEP:
            jumps.append(float(closer[away.argmax()]))
    return PairScan((m, i, j), elements, bonded, distance, energy - energy.min(), slope, jumps)
