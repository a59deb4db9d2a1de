"""Harmonic vibrations of a model, and how much of every one's stiffness each layer makes, exact.

With mass-weighted normal modes q_k of the Hessian H, M the masses, and H^(l) of scschnet.analysis.hessian:

    M^(-1/2) H M^(-1/2) q_k = omega_k^2 q_k
    omega_k^2 = sum_l q_k^T M^(-1/2) H^(l) M^(-1/2) q_k                                   "straight"
              = sum_l ( q_k^T M^(-1/2) H^(l) M^(-1/2) q_k + dE^(l)/dr . r''_k )            "curved"

At a minimum the forces add up to zero, but those of the layers do not vanish one by one. So a layer's share
depends on the path along which the atoms leave the minimum, of which all have the tangent q_k: a straight line,
or the path with curvature r''_k on which bond lengths, angles and torsions change at constant rates
(scschnet.analysis.internal). Both sums are exact. Translations and rotations are projected out (Wilson, Decius
and Cross 1955). Splitting vibrations over layers is ours, not the paper's. How firmly the training set holds
frequencies and shares: scschnet.analysis.mode_rigidity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_masses
from ase.optimize import BFGS
from ase.thermochemistry import HarmonicThermo, IdealGasThermo
from ase.units import _amu, _e, _hbar, invcm
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from scschnet.analysis.hessian import PAIR, split_hessian
from scschnet.analysis.infrared import dipole_gradients, has_dipole, intensities
from scschnet.analysis.internal import motion
from scschnet.data import StructureSet, collate
from scschnet.nn import SchNet

ENERGY = _hbar * 1e10 / np.sqrt(_e * _amu)
"""hbar omega in eV of omega^2 = 1 eV/(Å^2 amu)."""
WAVENUMBER = ENERGY / invcm
"""The same in 1/cm."""
FORCE = 1e-9  # eV/Å, largest force of a relaxed structure
LINEAR = 1e-5  # a rotation that moves atoms less than that, relative to the largest one, is none


@dataclass(frozen=True, eq=False)
class ModeRigidity:
    """Standard deviations of what is said of normal modes, from scschnet.analysis.mode_rigidity.

    Args:
        frequencies: (n_modes,), 1/cm.
        shares: of the layers, as fractions of omega^2, (n_modes, n_layers).
        depth: of the mean layers, (n_modes,).
    """

    frequencies: NDArray[np.float64]
    shares: NDArray[np.float64]
    depth: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Modes:
    """Normal modes of one structure, in rising order of omega^2; translations and rotations left out.

    Args:
        structure: the relaxed one.
        masses: (n_atoms,), amu.
        squares: omega^2, (n_modes,), eV/(Å^2 amu); negative: imaginary.
        vectors: q_k, orthonormal, mass-weighted, (n_modes, 3 n_atoms).
        names: of the shares: v0 for the embedding, v1 to vL for the blocks, and "pair term".
        straight: shares in omega^2, (n_modes, n_shares), eV/(Å^2 amu); they add up to `squares`.
        curved: the same along curved paths; None for a periodic structure.
        fractions: of the kinetic energy in stretch, bend and torsion, (n_modes, 3); None likewise.
        labels: what kind of motion each is; empty for a periodic structure.
        infrared: integrated absorption, (n_modes,), km/mol; None without a dipole moment.
        rigidity: standard deviations; None where they were not asked for.
    """

    structure: StructureSet
    masses: NDArray[np.float64]
    squares: NDArray[np.float64]
    vectors: NDArray[np.float64]
    names: tuple[str, ...]
    straight: NDArray[np.float64]
    curved: NDArray[np.float64] | None
    fractions: NDArray[np.float64] | None
    labels: tuple[str, ...]
    infrared: NDArray[np.float64] | None = None
    rigidity: ModeRigidity | None = None

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """(n_modes,), 1/cm; an imaginary one as a negative number."""
        return np.sign(self.squares) * np.sqrt(np.abs(self.squares)) * WAVENUMBER

    @property
    def shares(self) -> NDArray[np.float64]:
        """Shares as fractions of omega^2, along curved paths where there are any, (n_modes, n_shares)."""
        chosen = self.straight if self.curved is None else self.curved
        return np.asarray(chosen / self.squares[:, None])

    @property
    def of_layers(self) -> NDArray[np.float64]:
        """`shares` without that of the pair term, (n_modes, n_layers)."""
        return self.shares[:, [name != PAIR for name in self.names]]

    @property
    def depth(self) -> NDArray[np.float64]:
        """Mean layer of every mode, sum_l l |share_l| / sum_l |share_l| without the pair term, (n_modes,)."""
        sizes = np.abs(self.of_layers)
        return np.asarray(sizes @ np.arange(sizes.shape[1]) / sizes.sum(axis=1))

    @property
    def n_moving(self) -> NDArray[np.float64]:
        """About how many atoms move, 1 / sum_i e_i^2 with e_i the share of atom i in the kinetic energy, (n_modes,)."""
        shares = (self.vectors.reshape(len(self.vectors), -1, 3) ** 2).sum(axis=2)
        return np.asarray(1.0 / (shares**2).sum(axis=1))


def relax(atoms: Atoms, steps: int = 1000) -> None:
    """Move atoms to where no force is larger than 1e-9 eV/Å, in place; the cell stays.

    Args:
        atoms: with a calculator.
        steps: at most.

    Raises:
        ValueError: if forces are still larger after all steps.
    """
    optimizer = BFGS(atoms, logfile=None)
    if not optimizer.run(fmax=FORCE, steps=steps):
        largest = float(np.abs(atoms.get_forces()).max())
        raise ValueError(
            f"the structure is not relaxed after {steps} steps: the largest force is {largest:.1e} eV/Å; "
            "begin from another one"
        )


def normal_modes(model: SchNet, structure: StructureSet) -> Modes:
    """Normal modes of a relaxed structure, with every layer's share.

    Args:
        model: in float64, its parameters asking for no gradients.
        structure: exactly one; of a periodic one the vibrations in which all cells move alike (Gamma).

    Raises:
        ValueError: if there is not exactly one structure, it has no vibrations, or the model does not know an
            element.
    """
    split = split_hessian(model, structure)
    masses = atomic_masses[structure.atomic_numbers]
    root = np.sqrt(np.repeat(masses, 3))
    inner = _vibrations(structure, masses)
    if not len(inner):
        raise ValueError(
            "`structure` must have vibrations, got one atom"
            + (" in a cell; repeat the cell" if structure.pbc.any() else "")
        )
    hessian = energy_hessian(model, structure) / np.outer(root, root)
    squares, mixing = np.linalg.eigh(inner @ hessian @ inner.T)
    vectors = mixing.T @ inner
    vectors *= np.sign(vectors[np.arange(len(vectors)), np.abs(vectors).argmax(axis=1)])[:, None]
    moves = vectors / root
    straight = np.einsum("ka,sab,kb->ks", moves, split.hessians, moves)
    curved, fractions = None, None
    labels: tuple[str, ...] = ()
    if not structure.pbc.any():
        kinds = motion(structure, masses, vectors)
        curved = straight + kinds.curvature @ split.gradients.T
        fractions, labels = kinds.fractions, kinds.labels
    infrared = None
    if has_dipole(model) and not structure.pbc.any():
        infrared = intensities(dipole_gradients(model, structure), vectors, masses)
    return Modes(
        *(structure, masses, squares, vectors, split.names, straight, curved, fractions, labels),
        infrared=infrared,
    )


def completeness(modes: Modes) -> float:
    """How far shares are from adding up to omega^2, relative to it: the largest of all modes."""
    kinds = [modes.straight] if modes.curved is None else [modes.straight, modes.curved]
    off = [np.abs(shares.sum(axis=1) / modes.squares - 1.0).max() for shares in kinds]
    return float(max(off))


def energy_hessian(model: SchNet, structure: StructureSet) -> NDArray[np.float64]:
    """Hessian of the model's own energy, nothing split, (3 n_atoms, 3 n_atoms), eV/Å^2.

    Args:
        model: as in `normal_modes`.
        structure: exactly one.
    """
    batch = collate(structure, [0], model.config.cutoff)
    with torch.enable_grad():
        batch.positions.requires_grad_()
        forces = model(**batch.inputs)["forces"].flatten()
        rows = [
            torch.autograd.grad(-force, batch.positions, retain_graph=True, allow_unused=True)[0]
            for force in forces
            if force.requires_grad
        ]
    n = len(forces)
    filled = [torch.zeros(n) if row is None else row.flatten() for row in rows]
    hessian = torch.stack(filled).double().numpy() if filled else np.zeros((n, n))
    return np.asarray(0.5 * (hessian + hessian.T))


def _vibrations(structure: StructureSet, masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal mass-weighted displacements without translations and rotations, (n_modes, 3 n_atoms)."""
    weights = np.sqrt(masses)[:, None]
    r = structure.positions - masses @ structure.positions / masses.sum()
    axes = np.eye(3)
    outer = [weights * axis for axis in axes]
    if not structure.pbc.any():
        turns = np.linalg.svd(weights * r)[2]  # principal axes
        outer += [weights * np.cross(axis, r) for axis in turns]
    sizes = np.array([np.linalg.norm(one) for one in outer])
    kept = np.stack(
        [one.ravel() for one, size in zip(outer, sizes, strict=True) if size > LINEAR * sizes.max()]
    )
    return np.linalg.svd(kept)[2][len(kept) :]


@dataclass(frozen=True, eq=False)
class ModesOverRuns:
    """The modes of the first run, and those of other runs that are most alike.

    Args:
        first: of the first run; order and labels of all modes are its.
        frequencies: (n_runs, n_modes), 1/cm.
        shares: fractions of omega^2, (n_runs, n_modes, n_shares).
        depth: mean layers, (n_runs, n_modes).
        overlaps: |q . q'| with the mode of the first run, (n_runs, n_modes).
        distances: rms distance of the relaxed atoms from the first run's, turned onto them, (n_runs,), Å.
        rigidity: root mean squares over the runs; None if one of them has none.
    """

    first: Modes
    frequencies: NDArray[np.float64]
    shares: NDArray[np.float64]
    depth: NDArray[np.float64]
    overlaps: NDArray[np.float64]
    distances: NDArray[np.float64]
    rigidity: ModeRigidity | None


def over_runs(found: Sequence[Modes]) -> ModesOverRuns:
    """Match the modes of several runs by their overlap, one to one.

    Args:
        found: of each run, of one and the same molecule.

    Raises:
        ValueError: if there is none, the numbers of layers differ, or the atoms do.
    """
    if not found:
        raise ValueError("`found` must hold at least one run")
    first = found[0]
    for other in found[1:]:
        if other.names != first.names:
            raise ValueError(
                f"runs must have the same layers, got {', '.join(first.names)} and {', '.join(other.names)}"
            )
        if not np.array_equal(other.structure.atomic_numbers, first.structure.atomic_numbers):
            raise ValueError("runs must have modes of the same atoms in the same order")
    orders, overlaps, distances = zip(*(_matched(first, one) for one in found), strict=True)
    pairs = list(zip(found, orders, strict=True))
    return ModesOverRuns(
        first,
        np.stack([one.frequencies[k] for one, k in pairs]),
        np.stack([one.shares[k] for one, k in pairs]),
        np.stack([one.depth[k] for one, k in pairs]),
        np.stack(overlaps),
        np.array(distances),
        _mean_rigidity([one.rigidity for one in found], orders),
    )


def _mean_rigidity(
    found: Sequence[ModeRigidity | None], orders: Sequence[NDArray[np.int64]]
) -> ModeRigidity | None:
    pairs = [(one, k) for one, k in zip(found, orders, strict=True) if one is not None]
    if len(pairs) < len(found):
        return None
    names = ("frequencies", "shares", "depth")
    squares = (np.stack([getattr(one, name)[k] ** 2 for one, k in pairs]) for name in names)
    return ModeRigidity(*(np.sqrt(of_runs.mean(axis=0)) for of_runs in squares))


def _matched(first: Modes, other: Modes) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """Which mode of `other` is like each of `first`, how much, and how far the structures are apart."""
    turn, distance = np.eye(3), 0.0
    if not first.structure.pbc.any():
        turn, distance = _turned(first, other)
    there = (other.vectors.reshape(len(other.vectors), -1, 3) @ turn.T).reshape(other.vectors.shape)
    overlap = np.abs(first.vectors @ there.T)
    rows, order = linear_sum_assignment(overlap, maximize=True)
    return order, overlap[rows, order], distance


def _turned(first: Modes, other: Modes) -> tuple[NDArray[np.float64], float]:
    """Rotation of `other` onto `first` and the rms distance left (Kabsch 1976, doi:10.1107/S0567739476001873)."""
    a, b = (
        one.structure.positions - one.masses @ one.structure.positions / one.masses.sum()
        for one in (first, other)
    )
    u, _, v = np.linalg.svd(a.T @ (first.masses[:, None] * b))
    turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
    return turn, float(np.sqrt(((a - b @ turn.T) ** 2).sum(axis=1).mean()))


def thermochemistry(
    modes: Modes, temperature: float, pressure: float, symmetry_number: int
) -> dict[str, float] | None:
    """Zero-point energy and thermal corrections at one temperature: an ideal gas, or a solid's vibrations at Gamma.

    Args:
        modes: all frequencies real, or nothing is returned.
        temperature: K.
        pressure: Pa, of the gas.
        symmetry_number: rotations that leave the molecule as it is.

    Returns:
        What to add to the potential energy, eV, by name; a closed shell is assumed. None if a mode is imaginary.
    """
    if modes.squares.min() <= 0:
        return None
    quanta = np.sqrt(modes.squares) * ENERGY
    found = {"zero-point energy": float(quanta.sum() / 2)}
    if modes.structure.pbc.any():
        solid = HarmonicThermo(quanta)
        found["internal energy"] = float(solid.get_internal_energy(temperature, verbose=False))
        found["T times entropy"] = float(
            temperature * solid.get_entropy(temperature, verbose=False)
        )
        found["Helmholtz energy"] = found["internal energy"] - found["T times entropy"]
        return found
    atoms = Atoms(modes.structure.atomic_numbers, modes.structure.positions)
    linear = len(quanta) == 3 * len(atoms) - 5
    gas = IdealGasThermo(
        quanta,
        "linear" if linear else "nonlinear",
        atoms=atoms,
        symmetrynumber=symmetry_number,
        spin=0,
    )
    found["enthalpy"] = float(gas.get_enthalpy(temperature, verbose=False))
    found["T times entropy"] = float(
        temperature * gas.get_entropy(temperature, pressure, verbose=False)
    )
    found["Gibbs energy"] = found["enthalpy"] - found["T times entropy"]
    return found
