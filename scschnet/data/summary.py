"""What a set holds, as numbers and as a table: labels, statistics, duplicates, outliers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scschnet.data.close_pairs import close_pairs
from scschnet.data.structure import StructureSet
from scschnet.units import energy_factor

ENERGY_OUTLIER = 10.0
"""An energy outlier lies this many robust standard deviations from the median."""
FORCE_OUTLIER = 10.0
"""A force outlier has a largest force of this many times the median over the structures."""

STRESS_FACTOR = 100.0
"""Stress contradicts forces where it is this many times larger than these can explain."""
_LEAST_SCALE = 0.01  # eV per atom; forces of perfect crystals are rounding and explain nothing
_CORRELATED = 0.9  # of steps in energy with the work of the stress: then the slope means something

_SYMBOLS_BY_NUMBER = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf "
    "Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
)
_SYMBOLS = _SYMBOLS_BY_NUMBER.split()


def duplicates(structures: StructureSet) -> list[tuple[int, int]]:
    """Structures whose elements, positions and cell are bit for bit those of an earlier one.

    Returns:
        (later, earlier) structure numbers.
    """
    seen: dict[bytes, int] = {}
    repeats = []
    for m in range(len(structures)):
        atoms = slice(structures.atom_ptr[m], structures.atom_ptr[m + 1])
        content = hashlib.blake2b(digest_size=16)
        for array in (structures.atomic_numbers[atoms], structures.positions[atoms]):
            content.update(np.ascontiguousarray(array).tobytes())
        content.update(structures.cells[m].tobytes() + structures.pbc[m].tobytes())
        earlier = seen.setdefault(content.digest(), m)
        if earlier != m:
            repeats.append((m, earlier))
    return repeats


def energy_outliers(structures: StructureSet) -> NDArray[np.int64]:
    """Structures whose energy per atom is far from what their composition explains, worst first.

    Composition: a least-squares fit of one energy per element. Far: see `ENERGY_OUTLIER`.
    """
    labeled = np.flatnonzero(structures.labeled["energy"] & (structures.n_atoms > 0))
    if structures.energy is None or len(labeled) < 3:
        return np.zeros(0, np.int64)
    counts = _element_counts(structures)[labeled]
    n_atoms = structures.n_atoms[labeled]
    per_atom = structures.energy[labeled] / n_atoms
    fractions = counts / n_atoms[:, None]
    fitted, *_ = np.linalg.lstsq(fractions, per_atom, rcond=None)
    residual = per_atom - fractions @ fitted
    residual -= np.median(residual)
    spread = 1.4826 * np.median(np.abs(residual))
    return labeled[_worst_first(np.abs(residual), ENERGY_OUTLIER * spread + _rounding(per_atom))]


def force_outliers(structures: StructureSet) -> NDArray[np.int64]:
    """Structures with a largest force far above the usual, worst first; see `FORCE_OUTLIER`."""
    labeled = np.flatnonzero(structures.labeled["forces"] & (structures.n_atoms > 0))
    if structures.forces is None or not len(labeled):
        return np.zeros(0, np.int64)
    filled = np.flatnonzero(structures.n_atoms > 0)
    norms = np.linalg.norm(structures.forces, axis=1)
    largest = np.zeros(len(structures))
    largest[filled] = np.maximum.reduceat(norms, structures.atom_ptr[filled])
    return labeled[_worst_first(largest[labeled], FORCE_OUTLIER * np.median(largest[labeled]))]


def net_forces(structures: StructureSet) -> NDArray[np.float64]:
    """Length of the sum of forces of each structure with forces, eV/Å."""
    if structures.forces is None:
        return np.zeros(0)
    filled = np.flatnonzero(structures.n_atoms > 0)
    if not len(filled):
        return np.zeros(0)
    sums = np.add.reduceat(structures.forces, structures.atom_ptr[filled])
    lengths = np.linalg.norm(sums, axis=1)
    return lengths[structures.labeled["forces"][filled]]


def stress_over_forces(structures: StructureSet) -> float | None:
    """How many times the stress exceeds what energies and forces would explain.

    The median of |stress| V / n over the larger of the rms force times the cube root of the volume of
    an atom and the spread of the energy per atom, at least 0.01 eV. Near 1 for stresses, near V for virials read as
    stresses, 160 for GPa read as eV/Å^3.

    Returns:
        None without periodic structures that have stress and forces.
    """
    labeled, volumes = structures.labeled, np.abs(np.linalg.det(structures.cells))
    chosen = labeled["stress"] & labeled["forces"] & (structures.n_atoms > 0) & (volumes > 0)
    if structures.stress is None or structures.forces is None or not chosen.any():
        return None
    volume = volumes[chosen] / structures.n_atoms[chosen]
    virial = np.linalg.norm(structures.stress[chosen], axis=(1, 2)) * volume
    rms = np.sqrt(
        np.nanmean(structures.forces[np.isin(structures.idx_m, np.flatnonzero(chosen))] ** 2)
    )
    scale = rms * np.cbrt(np.median(volume))
    both = chosen & labeled["energy"]
    if structures.energy is not None and both.any():
        scale = max(scale, (structures.energy[both] / structures.n_atoms[both]).std())
    return float(np.median(virial) / max(scale, _LEAST_SCALE))


def stress_slope(structures: StructureSet) -> float | None:
    """Slope of energy steps against the work of the stress, between structures of other volume.

    Of structures of one composition in the order of their volume: E_j - E_i against
    (tr s_i + tr s_j) (V_j - V_i) / 6. It is 1 where stress is (1/V) dE/dstrain, and -1 where its sign
    is that of a pressure, as VASP and LAMMPS have it.

    Returns:
        None where volume does not explain the energies (correlation below 0.9), so nothing follows.
    """
    labeled, volumes = structures.labeled, np.abs(np.linalg.det(structures.cells))
    chosen = np.flatnonzero(labeled["stress"] & labeled["energy"] & (volumes > 0))
    if structures.stress is None or structures.energy is None or len(chosen) < 4:
        return None
    counts = _element_counts(structures)[chosen]
    steps, work = [], []
    for composition in np.unique(counts, axis=0):
        same = chosen[(counts == composition).all(axis=1)]
        same = same[np.argsort(volumes[same], kind="stable")]
        trace = np.trace(structures.stress[same], axis1=1, axis2=2)
        n_atoms = composition.sum()
        steps.append(np.diff(structures.energy[same]) / n_atoms)
        work.append((trace[1:] + trace[:-1]) * np.diff(volumes[same]) / (6 * n_atoms))
    step, done = np.concatenate(steps), np.concatenate(work)
    norm = np.sqrt((step @ step) * (done @ done))
    if len(step) < 3 or not norm > 0 or abs(step @ done) < _CORRELATED * norm:
        return None
    return float((step @ done) / (done @ done))


def shortest_distance(structures: StructureSet) -> tuple[float, int] | None:
    """The shortest distance between two atoms, Å, periodic images included, and its structure.

    Returns:
        None if no two atoms are within 12 Å.
    """
    for cutoff in (1.5, 3.0, 6.0, 12.0):
        best = min(_shortest_by_chunk(structures, cutoff), default=None)
        if best is not None:
            return best
    return None


def summary_table(structures: StructureSet) -> str:
    """Everything above, one line each, as aligned text."""
    rows = {key: value for key, value in structures.info.items() if value}
    rows |= _contents(structures) | _energy_rows(structures) | _force_rows(structures)
    rows |= _check_rows(structures)
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def _contents(structures: StructureSet) -> dict[str, str]:
    n_structures, n_atoms = len(structures), structures.n_atoms
    rows = {"structures": f"{n_structures:,}"}
    if n_structures:
        rows["atoms"] = f"{n_atoms.min()} to {n_atoms.max()} each, {n_atoms.sum():,} in all"
    rows["elements"] = " ".join(_SYMBOLS[z] for z in structures.elements) or "none"
    for label, mask in structures.labeled.items():
        rows[label] = f"{int(mask.sum()):,}/{n_structures:,}"
    rows["periodic"] = _periodicity(structures)
    if structures.atomref is not None:
        filled = np.flatnonzero(structures.atomref)
        values = (f"{_SYMBOLS[z]} {structures.atomref[z]:.4f}" for z in filled)
        rows["reference energies"] = ", ".join(values) + " eV"
    return rows


def _periodicity(structures: StructureSet) -> str:
    n_axes = structures.pbc.sum(axis=1)
    kinds = {3: "in three directions", 2: "in two", 1: "in one", 0: "open"}
    found = [f"{int((n_axes == n).sum()):,} {kinds[n]}" for n in kinds if (n_axes == n).any()]
    text = ", ".join(found) or "none"
    volumes = np.abs(np.linalg.det(structures.cells[n_axes == 3]))
    if len(volumes):
        text += f"; volume {volumes.min():.2f} to {volumes.max():.2f} Å^3"
    return text


def _energy_rows(structures: StructureSet) -> dict[str, str]:
    chosen = structures.labeled["energy"] & (structures.n_atoms > 0)
    if structures.energy is None or not chosen.any():
        return {}
    energy = structures.energy[chosen]
    rows = {
        "energy, total": _spread(energy),
        "energy, per atom": _spread(energy / structures.n_atoms[chosen]),
    }
    table = structures.atomref
    if table is not None and structures.atomic_numbers.max() < len(table):
        counts = np.zeros((len(structures), len(table)))
        np.add.at(counts, (structures.idx_m, structures.atomic_numbers), 1)
        rows["energy, less reference"] = _spread(energy - (counts @ table)[chosen])
    return rows


def _force_rows(structures: StructureSet) -> dict[str, str]:
    net = net_forces(structures)
    if structures.forces is None or not len(net):
        return {}
    forces = structures.forces[~np.isnan(structures.forces[:, 0])]
    kcal = energy_factor("kcal/mol")
    rms, largest = np.sqrt((forces**2).mean()), np.abs(forces).max()
    return {
        "forces, component": f"rms {rms:.4f}, largest {largest:.4f} eV/Å "
        f"(rms {rms / kcal:.3f} kcal/mol/Å)",
        "forces, net": f"rms {np.sqrt((net**2).mean()):.2e}, largest {net.max():.2e} eV/Å",
    }


def _check_rows(structures: StructureSet) -> dict[str, str]:
    repeats = duplicates(structures)
    rows = {"duplicates": f"{len(repeats):,}"}
    if repeats:
        rows["duplicates"] += f", such as structure {repeats[0][0]} of {repeats[0][1]}"
    for name, found, limit in (
        ("energy outliers", energy_outliers(structures), f"{ENERGY_OUTLIER:.0f} robust deviations"),
        ("force outliers", force_outliers(structures), f"{FORCE_OUTLIER:.0f} times the median"),
    ):
        rows[name] = f"{len(found):,} beyond {limit}"
        if len(found):
            rows[name] += f", worst: structure {', '.join(map(str, found[:5]))}"
    rows |= _stress_rows(structures)
    shortest = shortest_distance(structures)
    if shortest is None:
        rows["shortest distance"] = "no two atoms within 12 Å"
    else:
        rows["shortest distance"] = f"{shortest[0]:.4f} Å in structure {shortest[1]}"
    return rows


def _stress_rows(structures: StructureSet) -> dict[str, str]:
    rows = {}
    ratio, slope = stress_over_forces(structures), stress_slope(structures)
    if ratio is not None:
        rows["stress, size"] = f"{ratio:.2g} times what energies and forces explain"
        if ratio > STRESS_FACTOR:
            rows["stress, size"] += ": CONTRADICTION; is it a virial, or in other units?"
    if slope is not None:
        rows["stress, sign"] = f"energy against its work over volume: slope {slope:.3g}"
        if slope < 0:
            rows["stress, sign"] += ": CONTRADICTION; its sign is that of a pressure"
        elif not 0.1 < slope < 10:
            rows["stress, sign"] += ": CONTRADICTION; it should be 1"
    return rows


def _spread(values: NDArray[np.float64]) -> str:
    std = values.std()
    return (
        f"mean {values.mean():.6f}, std {std:.6f}, {values.min():.6f} to {values.max():.6f} eV "
        f"(std {std / energy_factor('kcal/mol'):.4f} kcal/mol)"
    )


def _element_counts(structures: StructureSet) -> NDArray[np.float64]:
    """Atoms of each element that occurs, (n_structures, n_elements)."""
    elements = structures.elements
    counts = np.zeros((len(structures), len(elements)))
    columns = np.searchsorted(elements, structures.atomic_numbers)
    np.add.at(counts, (structures.idx_m, columns), 1)
    return counts


def _rounding(values: NDArray[np.float64]) -> float:
    """Equal energies have no spread; their rounding is no outlier."""
    return 1e-9 * float(np.abs(values).max(initial=0))


def _worst_first(values: NDArray[np.float64], limit: float) -> NDArray[np.int64]:
    beyond = np.flatnonzero(values > limit)
    return beyond[np.argsort(-values[beyond], kind="stable")]


def _shortest_by_chunk(structures: StructureSet, cutoff: float) -> Iterator[tuple[float, int]]:
    """Shortest distance below `cutoff` and its structure, for each chunk of structures with one."""
    for pairs in close_pairs(structures, cutoff):
        if len(pairs.d_ij):
            nearest = int(pairs.d_ij.argmin())
            yield float(pairs.d_ij[nearest]), int(pairs.idx_m[nearest])
