"""Energy conservation of molecular dynamics (NVE) with a trained model: tables and dense filters, float32 and float64.

    python -m benchmarks.nve RUN_FOLDER [--ps 10] [--timestep 0.5]      -> benchmarks/results/nve.json and .png

RUN_FOLDER: a training of ethanol, `python -m scschnet.train --data md17_ethanol.npz`. The molecule is first brought to
its energy minimum; then trajectories begin with velocities drawn for about `--kelvin` on average, the same for every
model, and are integrated by ASE's VelocityVerlet. Reported are the drift, the slope of a line through the total energy, and the
fluctuation, the root-mean-square distance from that line, both per atom: means over trajectories, with the standard
error of the mean.
"""

import argparse
import json
from pathlib import Path

import ase.build
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

import scschnet
from benchmarks.measure import processor
from scschnet import _C

RESULTS = Path(__file__).parent / "results"


def minimum(run: Path) -> Atoms:
    """Ethanol where its energy is lowest."""
    atoms = ase.build.molecule("CH3CH2OH")
    atoms.calc = scschnet.ScSchNetCalculator(run, dtype="float64")
    BFGS(atoms, logfile=None).run(fmax=1e-3, steps=200)
    return atoms


def start(resting: Atoms, kelvin: float, seed: int) -> Atoms:
    """A copy with velocities that keep it in place and do not turn it."""
    atoms, rng = resting.copy(), np.random.default_rng(seed)
    # Half of the energy becomes potential energy.
    momenta = np.sqrt(2 * kelvin * units.kB * atoms.get_masses())[:, None]
    atoms.set_momenta(momenta * rng.normal(size=(len(atoms), 3)))
    Stationary(atoms)
    ZeroRotation(atoms)
    return atoms


def total_energies(atoms: Atoms, timestep: float, n_steps: int, every: int) -> list[float]:
    """Potential and kinetic energy, eV, every few steps; the first is that of the start."""
    dynamics = VelocityVerlet(atoms, timestep * units.fs)
    found = [atoms.get_total_energy()]
    for _ in range(n_steps // every):
        dynamics.run(every)
        found.append(atoms.get_total_energy())
    return found


def conservation(times: np.ndarray, energies: np.ndarray, n_atoms: int) -> dict[str, float]:
    """Drift (eV / atom / ps) and fluctuation (eV / atom) of a total energy; times in ps."""
    slope, intercept = np.polyfit(times, energies, 1)
    rest = energies - (slope * times + intercept)
    return {
        "drift": float(slope) / n_atoms,
        "fluctuation": float(np.sqrt(np.mean(rest**2))) / n_atoms,
        "largest deviation": float(np.abs(energies - energies[0]).max()) / n_atoms,
    }


def summary(found: list[dict[str, float]]) -> dict[str, float | list[float]]:
    """Means over trajectories, and all drifts with the standard error of their mean."""
    drifts = [one["drift"] for one in found]
    means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    error = float(np.std(drifts, ddof=1) / np.sqrt(len(drifts)))
    return {**means, "standard error of the drift": error, "drifts": drifts}


def draw(times: np.ndarray, curves: dict[str, np.ndarray], file: Path) -> None:
    figure, axes = plt.subplots(
        len(curves), 1, figsize=(6, 5.5), sharex=True, sharey=True, layout="constrained"
    )
    for axis, (name, energies) in zip(axes, curves.items(), strict=True):
        axis.plot(times, 1e3 * (energies - energies[0]), lw=0.5)
        axis.set_title(name, fontsize=8)
    axes[-1].set_xlabel("ps")
    figure.supylabel("total energy of the molecule, meV")
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of a training of ethanol")
    parser.add_argument("--trajectories", type=int, default=4, help="of each kind, at least 2")
    parser.add_argument("--ps", type=float, default=10.0, help="length of each trajectory")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--kelvin", type=float, default=300.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    every = 10
    n_steps = int(1e3 * arguments.ps / arguments.timestep)
    resting = minimum(arguments.run)
    times = np.arange(n_steps // every + 1) * every * arguments.timestep / 1e3
    curves, trajectories = {}, {}
    for filters in ("spline", "dense"):
        for dtype in ("float32", "float64"):
            name, found = f"{filters}, {dtype}", []
            for seed in range(arguments.trajectories):
                moving = start(resting, arguments.kelvin, seed)
                moving.calc = scschnet.ScSchNetCalculator(arguments.run, dtype=dtype)
                moving.calc.model.filters = filters
                energies = total_energies(moving, arguments.timestep, n_steps, every)
                curves.setdefault(name, np.array(energies))
                found.append(conservation(times, np.array(energies), len(moving)))
            trajectories[name] = summary(found)
            print(name, trajectories[name], flush=True)
    report = {
        "processor": processor(),
        "instruction_sets": _C.instruction_sets(),
        "torch": torch.__version__,
        "timestep_fs": arguments.timestep,
        "ps": arguments.ps,
        "kelvin": arguments.kelvin,
        "n_atoms": len(resting),
        "trajectories": trajectories,
    }
    (RESULTS / "nve.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(times, curves, RESULTS / "nve.png")


if __name__ == "__main__":
    main()
