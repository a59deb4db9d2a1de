"""metatomic: an exported model as a file for i-PI, eOn, torch-sim and others. Needs `pip install metatomic-torch`."""

import os
from typing import Dict, List, Optional  # noqa: UP035  (metatomic compares the annotations)

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    System,
)

from scschnet.export import load_exported
from scschnet.export.torchscript import torchscript_deprecation_ignored


class MetatomicPotential(torch.nn.Module):
    """A potential as metatomic calls it, with an energy that autograd differentiates once.

    The potential returns forces and virial and no graph. The energy given on is linear in the distance from the
    positions and the cell it was evaluated at, with their derivatives as coefficients.

    Args:
        potential: what an exported file holds.
    """

    def __init__(self, potential: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.potential = potential

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels] = None,  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        """The energies of systems, eV, if they are asked for.

        Args:
            systems: positions and cell in Å, float64.
            outputs: what is asked for.
            selected_atoms: must be None: energies of a part of the atoms have no derivative here.
        """
        results: Dict[str, TensorMap] = {}  # noqa: UP006
        if "energy" not in outputs:
            return results
        if selected_atoms is not None:
            raise ValueError("`selected_atoms` must be None: the energy is that of all atoms")
        energies: List[torch.Tensor] = []  # noqa: UP006
        for system in systems:
            energies.append(self.energy(system))
        samples = torch.arange(len(systems), dtype=torch.int32, device=systems[0].positions.device)
        nothing = torch.zeros([1, 1], dtype=torch.int32, device=samples.device)
        block = TensorBlock(
            values=torch.stack(energies).reshape(-1, 1),
            samples=Labels(["system"], samples.reshape(-1, 1)),
            components=torch.jit.annotate(List[Labels], []),  # noqa: UP006
            properties=Labels(["energy"], nothing),
        )
        results["energy"] = TensorMap(keys=Labels(["_"], nothing), blocks=[block])
        return results

    def energy(self, system: System) -> torch.Tensor:
        """Energy of a system, eV, with its derivatives in positions and cell."""
        r, cell = system.positions, system.cell
        at_r, at_cell = r.detach(), cell.detach()
        found = self.potential(at_r, system.types.long(), at_cell, system.pbc, False, False)
        forces = found["forces"]
        total = found["energy"] - (forces * (r - at_r)).sum()
        if bool(system.pbc.any()) and bool(torch.linalg.det(at_cell).abs() > 0):
            # dE/dstrain = -virial = sum_i r_i (dE/dr_i) + cell^T dE/dcell
            of_cell = -found["virial"] + at_r.t() @ forces
            total = total + (torch.linalg.solve(at_cell.t(), of_cell) * (cell - at_cell)).sum()
        return total


def save_metatomic(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Write a file for metatomic; the program that loads it needs `libscschnet_ops.so` as an extension.

    Args:
        path: file written by `scschnet export`.
        out: file to write, .pt.

    Raises:
        ValueError: if the file is no exported model.
    """
    exported = load_exported(path)
    metadata = exported.metadata
    capabilities = ModelCapabilities(
        outputs={"energy": ModelOutput(unit="eV", sample_kind="system")},
        atomic_types=list(metadata["elements"]),
        interaction_range=metadata["cutoff"] * metadata["n_interactions"],
        length_unit="angstrom",
        supported_devices=["cpu"],
        dtype="float64",
    )
    with torchscript_deprecation_ignored():
        model = MetatomicPotential(exported.module).eval()
        AtomisticModel(model, ModelMetadata(name="scschnet"), capabilities).save(os.fspath(out))
