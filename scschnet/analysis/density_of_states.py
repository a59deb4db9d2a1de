"""The vibrational density of states of a trajectory: where on the axis of frequencies its atoms move.

g(nu) = sum_i m_i |v_i(nu)|^2 / (k_B T),   normalized so that its integral is 3 per atom

the power spectrum of mass-weighted velocities, which is the Fourier transform of their autocorrelation
(Dickey and Paskin 1969, doi:10.1103/PhysRev.188.1407), averaged over pieces (Welch 1967). Unlike harmonic
frequencies it knows temperature and anharmonicity, and counts translations and rotations near zero.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.units import _c
from numpy.typing import NDArray
from scipy.signal import welch

RESOLUTION = 8.0  # 1/cm, of the pieces, if the trajectory is long enough for two of them


@dataclass(frozen=True, eq=False)
class DensityOfStates:
    """A density of states.

    Args:
        wavenumbers: (n,), 1/cm, evenly spaced from 0.
        values: (n,), states per 1/cm; they add up to three per atom.
        seconds: length of the trajectory.
        from_positions: whether velocities were differences of positions, since the file has none.
    """

    wavenumbers: NDArray[np.float64]
    values: NDArray[np.float64]
    seconds: float
    from_positions: bool


def density_of_states(
    velocities: NDArray[np.float64], masses: NDArray[np.float64], interval: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wavenumbers and density of states of velocities.

    Args:
        velocities: at even intervals, (n_frames, n_atoms, 3), any unit.
        masses: (n_atoms,), any unit.
        interval: between frames, fs.

    Returns:
        Wavenumbers (n,), 1/cm, and states per 1/cm (n,).

    Raises:
        ValueError: if there are fewer than 16 frames, the interval is not positive, or nothing moves.
    """
    n_frames = len(velocities)
    if not interval > 0:
        raise ValueError(f"`interval` must be positive, got {interval}")
    if n_frames < 16:
        raise ValueError(f"a density of states needs at least 16 frames, got {n_frames}")
    rate = 1e15 / interval / (_c * 100)  # samples per cm of light: wavenumbers are its frequencies
    piece = min(n_frames // 2, int(np.ceil(rate / RESOLUTION)))
    moves = velocities.reshape(n_frames, -1) * np.sqrt(np.repeat(masses, 3))
    wavenumbers, power = welch(moves, fs=rate, nperseg=piece, detrend=False, axis=0)
    total = power.sum(axis=1)
    if not total.sum() > 0:
        raise ValueError("a density of states needs atoms that move, but all velocities are zero")
    step = wavenumbers[1]
    return wavenumbers, total * (moves.shape[1] / (total.sum() * step))


def of_trajectory(path: str | os.PathLike[str], atoms: Atoms, interval: float) -> DensityOfStates:
    """Density of states of a trajectory file.

    Args:
        path: of any format that ASE reads. Velocities are taken from it, or else are differences of positions to the
            nearest image, whose spectrum is corrected for the interval.
        atoms: the structure that it should be of.
        interval: between frames, fs.

    Raises:
        ValueError: if it holds other atoms than `atoms`, or as in `density_of_states`.
    """
    moved, velocities = _read(ase.io.iread(Path(path), index=":"), atoms, path)
    from_positions = velocities is None
    chosen = moved if velocities is None else velocities
    wavenumbers, values = density_of_states(chosen, atoms.get_masses(), interval)
    if from_positions:  # a mean over the interval: the velocity's spectrum times sinc^2
        values = values / np.sinc(wavenumbers * (_c * 100 * interval * 1e-15)) ** 2
        values *= 3 * len(atoms) / (values.sum() * wavenumbers[1])
    return DensityOfStates(wavenumbers, values, len(chosen) * interval * 1e-15, from_positions)


def _read(
    frames: Iterable[Atoms], atoms: Atoms, path: str | os.PathLike[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """How far atoms move from frame to frame, and velocities, or None unless every frame has them."""
    moved: list[NDArray[np.float64]] = []
    velocities: list[NDArray[np.float64]] = []
    before = None
    for k, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, atoms.numbers):
            raise ValueError(
                f"`--trajectory` must hold the atoms of the structure, {atoms.get_chemical_formula()} in its order, "
                f"got {frame.get_chemical_formula()} in frame {k} of {path}"
            )
        if before is not None:
            moved.append(find_mic(frame.positions - before, frame.cell, frame.pbc)[0])
        before = frame.positions.copy()
        if frame.has("momenta") and len(velocities) == k:
            velocities.append(frame.get_velocities())
    none = np.zeros((0, len(atoms), 3))
    whole = len(velocities) == len(moved) + 1
    return np.stack(moved) if moved else none, np.stack(velocities) if whole else None
