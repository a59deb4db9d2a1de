"""What the data of a run hold, as rows of a table: contents, units, statistics, and what looks wrong."""

import numpy as np
from numpy.typing import NDArray

from scschnet.analysis.filters import shortest_pairs
from scschnet.data import StructureSet, evenly
from scschnet.data.summary import duplicates, energy_outliers, force_outliers, net_forces
from scschnet.elements import symbol
from scschnet.runs.run import Run
from scschnet.units import energy_factor

AT_MOST = 20_000  # structures that are searched for duplicates, outliers and short distances


def contents(run: Run) -> list[tuple[str, str]]:
    """Where the data come from and what they hold."""
    structures, split = run.structures, run.split
    sizes = structures.n_atoms
    symbols = " ".join(symbol(int(z)) for z in structures.elements)
    rows = [
        ("source", run.config.source),
        *([("begun from", run.config.init_from)] if run.config.init_from else []),
        ("units as read", structures.info.get("units as read", "eV, Å")),
        ("structures", f"{len(structures):,}, of {sizes.min()} to {sizes.max()} atoms"),
        ("elements", symbols),
        (
            "split",
            f"{len(split.train):,} train, {len(split.val):,} validation, {len(split.test):,} test",
        ),
    ]
    for name, has in structures.labeled.items():
        rows.append((f"with {name}", f"{int(has.sum()):,} of {len(structures):,}"))
    periodic = int(structures.pbc.any(axis=1).sum())
    rows.append(("periodic", f"{periodic:,} of {len(structures):,}"))
    return rows


def checks(structures: StructureSet) -> list[tuple[str, str]]:
    """Statistics and what looks wrong, over at most 20,000 structures spread evenly."""
    some = evenly(structures, 10**12, AT_MOST)
    kcal = energy_factor("kcal/mol")
    rows = []
    if len(some) < len(structures):
        rows.append(("checked below", f"{len(some):,} structures, spread evenly"))
    energies = relative_energies(some)
    if energies.size:
        rows.append(
            (
                "energy, less that of its composition",
                f"standard deviation {energies.std():.4g} eV "
                f"({energies.std() / kcal:.4g} kcal/mol)",
            )
        )
    if some.forces is not None and some.labeled["forces"].any():
        forces = some.forces[~np.isnan(some.forces[:, 0])]
        rms, net = np.sqrt(np.square(forces).mean()), net_forces(some)
        rows.append(("force component", f"rms {rms:.4g}, largest {np.abs(forces).max():.4g} eV/Å"))
        rows.append(("net force of a structure", f"rms {np.sqrt(np.square(net).mean()):.2g} eV/Å"))
    repeats, strange, strong = duplicates(some), energy_outliers(some), force_outliers(some)
    rows.append(("exact duplicates", f"{len(repeats):,}"))
    rows.append(("energy outliers", f"{len(strange):,} beyond 10 robust standard deviations"))
    rows.append(("force outliers", f"{len(strong):,} beyond 10 times the median largest force"))
    return rows


def shared_structures(run: Run) -> int:
    """Test structures that are bit for bit in the training part, too; of at most 20,000 each."""
    train = evenly(run.part("train"), 10**12, AT_MOST)
    if not len(run.split.test):
        return 0
    test = evenly(run.part("test"), 10**12, AT_MOST)
    seen = {_fingerprint(train, m) for m in range(len(train))}
    return sum(_fingerprint(test, m) in seen for m in range(len(test)))


def _fingerprint(structures: StructureSet, m: int) -> bytes:
    atoms = slice(structures.atom_ptr[m], structures.atom_ptr[m + 1])
    numbers, positions = structures.atomic_numbers[atoms], structures.positions[atoms]
    return numbers.tobytes() + positions.tobytes() + structures.cells[m].tobytes()


def shortest_rows(structures: StructureSet) -> list[tuple[str, float]]:
    """The shortest distance of every two elements, Å, over at most 20,000 structures."""
    found = shortest_pairs(evenly(structures, 10**12, AT_MOST))
    return [("-".join(symbol(z) for z in pair), value[0]) for pair, value in found.items()]


def relative_energies(structures: StructureSet) -> NDArray[np.float64]:
    """Energies less the least squares fit of one energy per element, eV; empty without labels."""
    known = structures.labeled["energy"]
    if structures.energy is None or not known.any():
        return np.zeros(0)
    columns = np.searchsorted(structures.elements, structures.atomic_numbers)
    composition = np.zeros((len(structures), len(structures.elements)))
    np.add.at(composition, (structures.idx_m, columns), 1.0)
    composition, energy = composition[known], structures.energy[known]
    return energy - composition @ np.linalg.lstsq(composition, energy, rcond=None)[0]
