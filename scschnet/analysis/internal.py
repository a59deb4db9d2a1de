"""Internal coordinates of a molecule: bonds, angles and torsions, and what kind of motion a vibration is."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.functional import jacobian, jvp

from scschnet.analysis.bonds import bonded
from scschnet.data import StructureSet
from scschnet.elements import symbol

KINDS = ("stretch", "bend", "torsion")
STRAIGHT = np.cos(np.radians(175.0))  # angles beyond have two bends instead of one, and no torsion
RANK = 1e-8  # smaller singular values, relative to the largest, are zero


@dataclass(frozen=True, eq=False)
class InternalCoordinates:
    """Primitive internal coordinates of one open structure; indices of atoms in rows.

    Args:
        bonds: (n_bonds, 2); both atoms are bonded (scschnet.analysis.bonds).
        angles: (n_angles, 3), the center in the middle.
        straight: angles of 180 degrees, (n_straight, 3).
        across: for each of these two unit vectors normal to it, (n_straight, 2, 3).
        torsions: (n_torsions, 4), along three bonds.
    """

    bonds: NDArray[np.int64]
    angles: NDArray[np.int64]
    straight: NDArray[np.int64]
    across: NDArray[np.float64]
    torsions: NDArray[np.int64]

    @property
    def counts(self) -> list[int]:
        """Numbers of stretches, bends and torsions."""
        return [len(self.bonds), len(self.angles) + 2 * len(self.straight), len(self.torsions)]

    def values(self, positions: Tensor) -> Tensor:
        """Stretches (Å), bends and torsions (radians), one after the other.

        Args:
            positions: (n_atoms, 3), Å.
        """
        return torch.cat(
            [self._lengths(positions), self._bends(positions), self._torsions(positions)]
        )

    def _lengths(self, positions: Tensor) -> Tensor:
        i, j = self.bonds.T
        return torch.linalg.vector_norm(positions[j] - positions[i], dim=1)

    def _bends(self, positions: Tensor) -> Tensor:
        i, j, k = self.angles.T
        cosines = (_unit(positions[i] - positions[j]) * _unit(positions[k] - positions[j])).sum(1)
        i, j, k = self.straight.T
        both = _unit(positions[i] - positions[j]) + _unit(positions[k] - positions[j])
        across = torch.einsum("sc,sac->sa", both, torch.from_numpy(self.across).to(positions))
        return torch.cat([torch.acos(cosines), across.flatten()])

    def _torsions(self, positions: Tensor) -> Tensor:
        i, j, k, m = self.torsions.T
        a, b, c = (positions[q] - positions[p] for p, q in ((i, j), (j, k), (k, m)))
        first, second = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
        along = torch.linalg.vector_norm(b, dim=1) * (a * second).sum(dim=1)
        return torch.atan2(along, (first * second).sum(dim=1))

    def classes(self, numbers: NDArray[np.int64]) -> list[list[str]]:
        """Names of the coordinates by elements, such as C-H, H-C-H and C-O, the bond that a torsion turns."""
        chains: list[list[tuple[int, ...]]] = [
            [tuple(row) for row in self.bonds],
            [tuple(row) for row in (*self.angles, *np.repeat(self.straight, 2, axis=0))],
            [tuple(row[1:3]) for row in self.torsions],
        ]
        return [[_chain(numbers, chain) for chain in some] for some in chains]


def _unit(r: Tensor) -> Tensor:
    return r / torch.linalg.vector_norm(r, dim=1, keepdim=True)


def _chain(numbers: NDArray[np.int64], atoms: tuple[int, ...]) -> str:
    names = [symbol(int(numbers[k])) for k in atoms]
    return "-".join(min(names, names[::-1], key=lambda way: [(n != "C", n == "H", n) for n in way]))


def internal_coordinates(structure: StructureSet) -> InternalCoordinates:
    """All bonds, angles and torsions of one structure without periodicity.

    Args:
        structure: exactly one.
    """
    adjacent = bonded(structure, 0)
    bonds = np.argwhere(np.triu(adjacent))
    angles: list[tuple[int, int, int]] = []
    straight: list[tuple[int, int, int]] = []
    across: list[NDArray[np.float64]] = []
    for j, near in enumerate(adjacent):
        for i, k in combinations(np.flatnonzero(near).tolist(), 2):
            e, f = (_direction(structure, j, other) for other in (i, k))
            if e @ f > STRAIGHT:
                angles.append((i, j, k))
            else:
                straight.append((i, j, k))
                across.append(np.linalg.svd(e[None])[2][1:])
    return InternalCoordinates(
        bonds.reshape(-1, 2),
        np.array(angles, dtype=np.int64).reshape(-1, 3),
        np.array(straight, dtype=np.int64).reshape(-1, 3),
        np.array(across, dtype=np.float64).reshape(-1, 2, 3),
        np.array(_chains(adjacent, set(angles)), dtype=np.int64).reshape(-1, 4),
    )


def _chains(
    adjacent: NDArray[np.bool_], bent: set[tuple[int, int, int]]
) -> list[tuple[int, int, int, int]]:
    """Atoms i, j, k, m along three bonds, each once, with two angles that are not straight."""
    return [
        (i, j, k, m)
        for j, k in np.argwhere(np.triu(adjacent)).tolist()
        for i in np.flatnonzero(adjacent[j]).tolist()
        for m in np.flatnonzero(adjacent[k]).tolist()
        if i != m and (min(i, k), j, max(i, k)) in bent and (min(j, m), k, max(j, m)) in bent
    ]


def _direction(structure: StructureSet, start: int, stop: int) -> NDArray[np.float64]:
    r = structure.positions[stop] - structure.positions[start]
    return np.asarray(r / np.linalg.norm(r))


@dataclass(frozen=True, eq=False)
class Motion:
    """What kind of motion each of several displacements is.

    Args:
        fractions: shares of the kinetic energy, (n_modes, 3) in the order of `KINDS`, each row adds up to 1.
            Stretch: what could not move with all bond lengths fixed. Bend: what of the rest could not move
            with all angles fixed, too. Torsion: what is left, torsions, out-of-plane motions and
            motions of molecules against each other.
        labels: such as "C-H stretch", "H-C-H bend", "torsion about C-O": the largest kind, and in it the
            class of coordinates that is displaced most.
        curvature: d^2 r / ds^2 of the path on which bond lengths change at constant rates, and as nearly as they
            can then angles, and then torsions, (n_modes, 3 n_atoms), 1/(amu Å), for orthonormal vectors.
    """

    fractions: NDArray[np.float64]
    labels: tuple[str, ...]
    curvature: NDArray[np.float64]


def motion(
    structure: StructureSet, masses: NDArray[np.float64], vectors: NDArray[np.float64]
) -> Motion:
    """Kinds of vibrations, and the curved paths along which internal coordinates change at constant rates.

    Args:
        structure: exactly one, without periodicity.
        masses: (n_atoms,), amu.
        vectors: orthonormal mass-weighted displacements, (n_modes, 3 n_atoms); atom i moves by
            q_i / sqrt(m_i).
    """
    coordinates = internal_coordinates(structure)
    root = np.sqrt(np.repeat(masses, 3))
    positions = torch.from_numpy(structure.positions.copy())
    moves = torch.from_numpy(vectors / root).reshape(len(vectors), *positions.shape)
    if not sum(coordinates.counts):
        still = np.zeros_like(vectors)
        return Motion(np.tile([0.0, 0.0, 1.0], (len(vectors), 1)), ("other",) * len(vectors), still)
    slopes = jacobian(coordinates.values, positions).flatten(1).numpy() / root
    along = [_along(coordinates.values, positions, move) for move in moves]
    rates, bends = (np.stack(some) for some in zip(*along, strict=True))
    ends = np.cumsum(coordinates.counts)
    fractions = _fractions([slopes[: ends[0]], slopes[: ends[1]]], vectors)
    classes = coordinates.classes(structure.atomic_numbers)
    labels = _labels(fractions, np.split(rates, ends[:2], axis=1), classes)
    curvature = _curvature(np.split(slopes, ends[:2]), np.split(bends, ends[:2], axis=1)) / root
    return Motion(fractions, labels, curvature)


def _along(
    function: Callable[[Tensor], Tensor], positions: Tensor, move: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and second derivative of coordinates along a straight line."""

    def slope(at: Tensor) -> Tensor:
        return jvp(function, at, move, create_graph=True)[1]

    first, second = jvp(slope, positions, move)
    return first.numpy(), second.numpy()


def _curvature(
    slopes: list[NDArray[np.float64]], bends: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Shortest curvature that undoes the second derivatives of stretches, then of bends, then of torsions.

    Coordinates are redundant, so that not all can change at constant rates; what comes first has its way.

    Args:
        slopes: derivatives of each kind of coordinates, (n, 3 n_atoms), mass-weighted.
        bends: their second derivatives along straight lines, (n_modes, n).
    """
    n = slopes[0].shape[1]
    free, found = np.eye(n), np.zeros((len(bends[0]), n))
    for slope, bend in zip(slopes, bends, strict=True):
        left, sizes, right = np.linalg.svd(slope @ free, full_matrices=False)
        kept = sizes > RANK * np.linalg.norm(slope)
        undone = (bend + found @ slope.T) @ left[:, kept] / sizes[kept]
        found -= undone @ right[kept]
        free -= right[kept].T @ right[kept]
    return found


def _fractions(
    spans: list[NDArray[np.float64]], vectors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of every vector in the first span, what it has more in the second, and the rest."""
    within = [np.zeros(len(vectors))]
    for span in spans:
        _, sizes, basis = np.linalg.svd(span, full_matrices=False)
        basis = basis[sizes > RANK * sizes.max(initial=0.0)]
        within.append(((vectors @ basis.T) ** 2).sum(axis=1))
    within.append((vectors**2).sum(axis=1))
    return np.diff(np.stack(within, axis=1), axis=1)


def _labels(
    fractions: NDArray[np.float64], rates: list[NDArray[np.float64]], classes: list[list[str]]
) -> tuple[str, ...]:
    labels = []
    for mode, kind in enumerate(fractions.argmax(axis=1)):
        sums: defaultdict[str, float] = defaultdict(float)
        for name, rate in zip(classes[kind], rates[kind][mode], strict=True):
            sums[name] += rate**2
        if not sums:
            labels.append("other")
            continue
        name = max(sums, key=lambda one: sums[one])
        labels.append(f"torsion about {name}" if kind == 2 else f"{name} {KINDS[kind]}")
    return tuple(labels)
