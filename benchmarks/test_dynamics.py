"""A step of molecular dynamics through ASE, neighbor list included."""

import ase
import numpy as np
import pytest
from ase import units
from ase.md.verlet import VelocityVerlet

from benchmarks.measure import in_turns, measure
from benchmarks.systems import CUTOFF, N_INTERACTIONS, ethanol, ladder, model_for, water
from scschnet import ScSchNetCalculator

pytestmark = pytest.mark.benchmark(group="step of dynamics, ASE")


def dynamics(structures) -> VelocityVerlet:
    """Random weights give random forces: the step is so short that the geometry stays as it is."""
    atoms = ase.Atoms(
        structures.atomic_numbers,
        structures.positions,
        cell=structures.cells[0],
        pbc=structures.pbc[0],
    )
    atoms.calc = ScSchNetCalculator(model_for(structures))
    spread = np.sqrt(300 * units.kB * atoms.get_masses())[:, None]  # 300 K
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    return VelocityVerlet(atoms, timestep=0.01 * units.fs)


@pytest.mark.parametrize("system", ladder("ethanol", large=("water 192", "water 1536")))
def test_step_through_ase(benchmark, system, threads, peers):
    structures = ethanol(1) if system == "ethanol" else water(int(system.split()[1]))
    steps = dynamics(structures)

    def step():
        steps.run(1)

    measure(benchmark, step, n_atoms=len(structures.positions))
    if len(structures.positions) < 1000:
        case = {"kind": "md", "n_features": 128, "n_rbf": 50}
        case |= {"n_interactions": N_INTERACTIONS, "cutoff": CUTOFF}
        in_turns(benchmark, step, peers.start("schnetpack", structures, **case))
