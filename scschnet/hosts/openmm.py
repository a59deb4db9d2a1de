"""OpenMM: an exported model as a force of a system. Needs OpenMM 8.4 or newer (`pip install openmm`)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

from scschnet.export import ExportedModel, load_exported
from scschnet.units import ENERGY

EV = 1.0 / ENERGY["kJ/mol"]  # the factor by which data in kJ/mol and kcal/mol are read
ANGSTROM = 0.1  # nm


def create_force(
    path: str | os.PathLike[str],
    atomic_numbers: Sequence[int],
    periodic: bool = False,
    particles: Sequence[int] | None = None,
) -> openmm.PythonForce:
    """A force for `System.addForce` that an exported model computes.

    OpenMM calls Python at every step; the cost is that of the model. The force is saved by `XmlSerializer` as the
    path of the model, not as the model.

    Args:
        path: file written by `scschnet export`.
        atomic_numbers: of the particles the force acts on, in their order.
        periodic: whether the system is periodic, with the box of the simulation; otherwise it is open.
        particles: indices of the particles the force acts on; None: all. The others do not exist for the model.

    Returns:
        The force, in OpenMM's units.

    Raises:
        ValueError: if the file is no exported model, if an element is unknown to it, or the numbers of atoms and
            particles differ.
    """
    compute = ForceComputation(path, atomic_numbers, periodic)
    force = openmm.PythonForce(compute)
    force.setUsesPeriodicBoundaryConditions(periodic)
    if particles is not None:
        if len(particles) != len(atomic_numbers):
            raise ValueError(
                f"`particles` must have {len(atomic_numbers)} entries, as `atomic_numbers`, got {len(particles)}"
            )
        force.setParticles(list(particles))
    return force


class ForceComputation:
    """What OpenMM calls with a state. Pickled as the arguments, for OpenMM's serializer.

    Args:
        path: file written by `scschnet export`.
        atomic_numbers: of the particles, in their order.
        periodic: whether the box of the state counts.
    """

    def __init__(
        self, path: str | os.PathLike[str], atomic_numbers: Sequence[int], periodic: bool
    ) -> None:
        self.path = Path(path).resolve()
        self.atomic_numbers = [int(z) for z in atomic_numbers]
        self.periodic = periodic
        self._model: ExportedModel = load_exported(self.path)
        if not self._model.metadata.get("energy", True):
            raise ValueError(
                f"{self.path.name} has no energy or forces: it was trained on properties alone"
            )
        known = self._model.metadata["elements"]
        unknown = sorted(set(self.atomic_numbers) - set(known))
        if unknown:
            raise ValueError(
                f"`atomic_numbers` must hold only {known}, the elements of {self.path.name}, got {unknown}"
            )
        self._numbers = torch.tensor(self.atomic_numbers, dtype=torch.int64)
        self._pbc = torch.full((3,), periodic)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self.path), self.atomic_numbers, self.periodic)

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        """Energy, kJ/mol, and forces (n_particles, 3), kJ/mol/nm, of a state with positions."""
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        if len(positions) != len(self.atomic_numbers):
            raise ValueError(
                f"`atomic_numbers` must have one entry per particle, {len(positions)}, got {len(self.atomic_numbers)}"
            )
        cell = np.zeros((3, 3))
        if self.periodic:
            cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        found = self._model.forward(
            torch.as_tensor(np.ascontiguousarray(positions), dtype=torch.float64),
            self._numbers,
            torch.as_tensor(np.ascontiguousarray(cell), dtype=torch.float64),
            self._pbc,
        )
        return float(found["energy"]) * EV, found["forces"].numpy() * (EV / ANGSTROM)
