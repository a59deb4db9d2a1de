"""`scschnet analysis modes`: its options, and what it prints and writes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from scschnet.analysis import modes as a
from scschnet.analysis import plots
from scschnet.analysis.density_of_states import DensityOfStates, of_trajectory
from scschnet.analysis.importance import rank_correlation
from scschnet.analysis.internal import KINDS
from scschnet.analysis.mode_figures import (
    plot_modes,
    wavenumber,
    write_animation,
    write_states,
    write_vectors,
)
from scschnet.analysis.mode_rigidity import mode_rigidity
from scschnet.analysis.mode_table import kind_of
from scschnet.analysis.modes import (
    ModesOverRuns,
    completeness,
    normal_modes,
    over_runs,
    relax,
    thermochemistry,
)
from scschnet.analysis.rigidity import missing, root_of
from scschnet.analysis.tables import table_beside
from scschnet.calculator import ScSchNetCalculator
from scschnet.commands.line import Runs, optional, out_option
from scschnet.data import StructureSet, read
from scschnet.kinds import Kind, expect
from scschnet.runs.compare import check_alike
from scschnet.runs.run import Run, read_run
from scschnet.units import ENERGY

FAR = 0.3  # Å rms: relaxed structures farther apart are perhaps other minima


@dataclass(frozen=True)
class Modes:
    """Harmonic vibrations of a relaxed structure, and how much of every one's stiffness each layer makes.

    omega^2 of every mode is split over the layers, exactly. Of several runs (seeds) modes are matched, and means and
    spreads are given. Draws the shares and the mean layer of every mode; a CSV, the modes as columns of an extended XYZ
    file, and their animation go beside the figure. Frequencies are harmonic; those of a periodic structure are at Gamma.
    A model with a dipole moment gives infrared intensities, a trajectory its vibrational density of states. Runs with error
    bars, from `scschnet analysis error-bars RUN`, give standard deviations of frequencies and shares from rigidity. The
    report shows the vibrations that lie in a run folder as modes.csv, where `--out RUN/modes.png` puts them.
    """

    runs: Runs
    """Run folders, one or more."""
    structure: Annotated[Path | None, optional("FILE")] = None
    """File with one structure to begin from; else the one of lowest energy that the first run held out."""
    units: Annotated[str, optional("UNITS")] = ""
    """Units of a file that does not state them, for example 'kcal/mol, Angstrom'."""
    out: Annotated[Path, out_option()] = Path("modes.png")
    """Figure to write: .png, .pdf or .svg."""
    trajectory: Annotated[Path | None, optional("FILE")] = None
    """Trajectory of the same atoms, whose density of states is drawn beside the harmonic frequencies."""
    interval: float = 0.0
    """Time between its frames, fs."""
    temperature: float = 298.15
    """Temperature of the thermochemistry, K."""
    pressure: float = 1e5
    """Pressure of the ideal gas, Pa."""
    symmetry_number: int = 1
    """Rotations that leave the molecule as it is: 12 for benzene, 2 for water, 1 for ethanol."""

    def __call__(self) -> None:
        """Relax, differentiate, draw, write and print."""
        plots.check_format(self.out)
        for name in ("temperature", "pressure", "symmetry_number"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        if self.trajectory is not None and not self.interval > 0:
            raise ValueError(
                f"`--trajectory` needs `--interval`, the time between its frames in fs, got {self.interval:g}"
            )
        check_alike(self.runs)
        runs = [read_run(path) for path in self.runs]
        start = self._start(runs[0])
        found = over_runs([_relaxed_modes(run, start) for run in runs])
        states = self._states(found.first)
        plot_modes(found, self.out, states)
        print(modes_table(found))
        if without := missing(runs):
            print(without)
        self._print_thermochemistry(found.first)
        self._warn(found)
        files = [self.out, table_beside(self.out)]
        files.append(write_vectors(self.out.with_suffix(".xyz"), found.first))
        animation = self.out.with_name(f"{self.out.stem}-animated.xyz")
        files.append(write_animation(animation, found.first))
        if states is not None:
            files.append(write_states(self.out.with_name(f"{self.out.stem}-states.csv"), states))
        print("\n" + "\n".join(map(str, files)))

    def _start(self, run: Run) -> StructureSet:
        if self.structure is None:
            return lowest(run)
        expect(self.structure, Kind.STRUCTURES, Kind.OTHER, option="--structure")
        structures = read(self.structure, units=self.units or None)
        if len(structures) != 1:
            raise ValueError(
                f"`--structure` must hold one structure, got {len(structures):,} in {self.structure}"
            )
        return structures

    def _states(self, modes: a.Modes) -> DensityOfStates | None:
        """Of the trajectory, if there is one."""
        if self.trajectory is None:
            return None
        expect(self.trajectory, Kind.STRUCTURES, Kind.OTHER, option="--trajectory")
        found = of_trajectory(self.trajectory, atoms_of(modes.structure), self.interval)
        if modes.frequencies.max() > found.wavenumbers[-1]:
            raise ValueError(
                f"`--interval` must be short enough for vibrations up to {modes.frequencies.max():.0f} 1/cm, but frames "
                f"{self.interval:g} fs apart show those up to {found.wavenumbers[-1]:.0f} 1/cm"
            )
        how = "differences of positions" if found.from_positions else "velocities"
        print(
            f"density of states of {found.seconds * 1e12:.2f} ps, from {how}, in steps of "
            f"{found.wavenumbers[1]:.1f} 1/cm\n"
        )
        return found

    def _print_thermochemistry(self, modes: a.Modes) -> None:
        found = thermochemistry(modes, self.temperature, self.pressure, self.symmetry_number)
        if found is None:
            print("no thermochemistry: a mode is imaginary, so this is no minimum")
            return
        print(f"to add to the potential energy at {self.temperature:g} K, first run:")
        for name, value in found.items():
            print(f"  {name:18}{value:10.4f} eV{value / ENERGY['kcal/mol']:10.2f} kcal/mol")

    def _warn(self, found: ModesOverRuns) -> None:
        for path, distance in zip(self.runs, found.distances, strict=True):
            if distance > FAR:
                print(
                    f"note: {path} relaxes to atoms {distance:.2f} Å (rms) from those of {self.runs[0]}, "
                    "perhaps another minimum"
                )


def lowest(run: Run) -> StructureSet:
    """The held-out structure of lowest energy.

    Raises:
        ValueError: if energies cannot be compared, because structures hold different atoms or lack one.
    """
    structures = run.held_out
    energy = structures.energy
    sizes = {tuple(np.sort(structures.select([m]).atomic_numbers)) for m in range(len(structures))}
    if len(sizes) > 1 or energy is None or not np.isfinite(energy).any():
        raise ValueError(
            f"give a structure with --structure: those of {run.path} hold different atoms or no energies, "
            "so none is the lowest"
        )
    return structures.select([int(np.nanargmin(energy))])


def atoms_of(structure: StructureSet) -> Atoms:
    """The only structure of a set, for ASE."""
    return Atoms(
        *(structure.atomic_numbers, structure.positions),
        cell=structure.cells[0],
        pbc=structure.pbc[0],
    )


def _relaxed_modes(run: Run, start: StructureSet) -> a.Modes:
    """Modes of a run's own minimum."""
    atoms = atoms_of(start)
    atoms.calc = ScSchNetCalculator(run.model)
    relax(atoms)
    ends = np.array([0, len(atoms)])
    relaxed = StructureSet(atoms.positions, atoms.numbers, ends, cells=start.cells, pbc=start.pbc)
    found = normal_modes(run.model, relaxed)
    root = root_of(run)
    if root is None:
        return found
    return replace(found, rigidity=mode_rigidity(run.model, found, root))


def modes_table(found: ModesOverRuns) -> str:
    """Frequencies, kinds and shares of all modes, and whether soft ones live in later blocks, as text."""
    first = found.first
    several = len(found.frequencies) > 1
    held = found.rigidity
    infrared = first.infrared
    lines = [
        f"{'1/cm':>8}{'' if held is None else '  ± rig.'}{'  ± runs' if several else ''}{'' if infrared is None else '  km/mol'}  {'motion':20}"
        f"{'atoms':>6}{'layer':>7}" + "".join(f"{name:>10}" for name in first.names)
    ]
    mean, shares = found.frequencies.mean(axis=0), found.shares.mean(axis=0)
    for k in range(len(mean)):
        spread = f"{found.frequencies[:, k].std(ddof=1):8.0f}" if several else ""
        rigid = "" if held is None else f"{held.frequencies[k]:8.1f}"
        word = first.labels[k] if first.labels else ""
        absorbed = "" if infrared is None else f"{infrared[k]:8.1f}"
        lines.append(
            f"{wavenumber(mean[k]):>8}{rigid}{spread}{absorbed}  {word:20}{first.n_moving[k]:6.1f}{found.depth[:, k].mean():7.2f}"
            + "".join(f"{100 * share:8.1f} %" for share in shares[k])
        )
    lines += _unsure(found)
    lines.append("\nmean layer, sum l |share_l| / sum |share_l|")
    kinds = np.array([kind_of(first, k) for k in range(len(mean))])
    for kind in KINDS:
        if (kinds == kind).any():
            lines.append(f"  {kind:8} {spread_of(found.depth[:, kinds == kind].mean(axis=1))}")
    if len(mean) > 2:
        of_runs = [
            rank_correlation(f, d) for f, d in zip(found.frequencies, found.depth, strict=True)
        ]
        lines.append(f"rank correlation of mean layer and frequency {spread_of(np.array(of_runs))}")
        of_runs = [rank_correlation(first.n_moving, d) for d in found.depth]
        lines.append(
            f"rank correlation of mean layer and moving atoms {spread_of(np.array(of_runs))}"
        )
    lines.append(f"shares add up to omega^2 within {completeness(first):.0e} of it")
    return "\n".join(lines)


def _unsure(found: ModesOverRuns) -> list[str]:
    """How sure shares are, in a line for each kind of standard deviation; the CSV has all of them."""
    kinds = {}
    if found.rigidity is not None:
        kinds["from rigidity"] = found.rigidity.shares
    if len(found.shares) > 1:
        kinds["over runs"] = found.shares.std(axis=0, ddof=1)
    return [
        f"standard deviation of a share {name}: {100 * np.median(std):.1f} % in the median, at most {100 * std.max():.1f} %"
        for name, std in kinds.items()
    ]


def spread_of(values: NDArray[np.float64]) -> str:
    """Mean over runs, and the sample standard deviation if there are several."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f} over {len(values)} runs"
