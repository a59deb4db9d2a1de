"""Makes schnetpack_2.2.0.npz: what SchNetPack's SchNet predicts for real structures.

Program: SchNetPack 2.2.0 (https://github.com/atomistic-machine-learning/schnetpack), PyTorch 2.13.0
on a CPU. It has its own environment, so that none of its dependencies enters that of the tests:

    python3.12 -m venv schnetpack-venv
    schnetpack-venv/bin/pip install torch==2.13.0 schnetpack==2.2.0
    schnetpack-venv/bin/python tests/golden/make_schnetpack.py DATA

SchNetPack 2.2.0 declares Python >= 3.12. DATA is a folder with md17_ethanol.npz, md17_aspirin.npz,
md17_salicylic_acid.npz (keys R, z, index: MD17, doi:10.1126/sciadv.1603015), qm9.npz (R, Z, offset,
index, atomref_z, atomref_U0: QM9, doi:10.1038/sdata.2014.22) and water64_pbc.npz (R, z, cell: 64
water molecules from the examples of DeePMD-kit, doi:10.1016/j.cpc.2018.03.016); positions in Å.

The file (no pickles) holds
    versions                                       of the programs that made it
    names positions atomic_numbers atom_ptr cells pbc   the structures, Å, laid end to end
    MODEL/state_dict/KEY                           float64 weights and buffers, of `MODELS` below
    MODEL/VARIANT/{energy,network_energy,forces,stress}   eV, eV/Å, eV/Å^3 (NaN for open structures)
`network_energy` is the energy before SchNetPack's postprocessors add mean and atomrefs. Variants:
    float32   `model.float()`
    float64   `model.double()`, where SchNetPack keeps the centers and widths of its Gaussians
              rounded to float32
    float64_centers   the same with these buffers recomputed in float64; equal to float64 where
              float32 holds the centers exactly, as for 21 Gaussians up to 5 Å, and so made for
              the other model only
"""

import argparse
import copy
import importlib.metadata
import platform
from pathlib import Path

import numpy as np
import schnetpack
import torch
from ase import Atoms
from schnetpack.interfaces import AtomsConverter
from schnetpack.transform import AddOffsets, ASENeighborList, CastTo64

CUTOFF = 5.0  # Å
HARTREE = 27.211386024367243  # eV; only sets the magnitude of the atomrefs
MODELS = {
    "rbf20": {"n_features": 32, "n_interactions": 3, "n_rbf": 20, "seed": 1},
    "rbf21": {"n_features": 16, "n_interactions": 2, "n_rbf": 21, "seed": 2},
}
MD17_FRAMES = {
    "md17_ethanol": (0, 3000, 9000),
    "md17_aspirin": (0, 5000),
    "md17_salicylic_acid": (0, 5000),
}
QM9_MOLECULES = (0, 180, 1000, 20000, 60000, 130000)  # the second has fluorine
WATER_FRAMES = (0,)
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float64_centers": torch.float64,
}


def read_structures(data: Path) -> tuple[list[str], list[Atoms]]:
    """The structures named above, and what to call them."""
    names, structures = [], []
    for name, frames in MD17_FRAMES.items():
        with np.load(data / f"{name}.npz") as file:
            for frame in frames:
                names.append(f"{name} frame {file['index'][frame]}")
                structures.append(Atoms(file["z"], file["R"][frame]))
    with np.load(data / "qm9.npz") as file:
        offset, numbers, positions = file["offset"], file["Z"], file["R"]
        for molecule in QM9_MOLECULES:
            atoms = slice(offset[molecule], offset[molecule + 1])
            names.append(f"qm9 dsgdb9nsd_{file['index'][molecule]:06d}")
            structures.append(Atoms(numbers[atoms], positions[atoms].astype(float)))
    with np.load(data / "water64_pbc.npz") as file:
        for frame in WATER_FRAMES:
            names.append(f"water64_pbc frame {frame}")
            positions = file["R"][frame].astype(float)
            structures.append(Atoms(file["z"], positions, cell=file["cell"][frame], pbc=True))
    return names, structures


def read_atomref(data: Path) -> torch.Tensor:
    """QM9's reference energies of single atoms, (100,), eV."""
    atomref = torch.zeros(100)
    with np.load(data / "qm9.npz") as file:
        energies = torch.tensor(file["atomref_U0"] * HARTREE, dtype=torch.float32)
        atomref[torch.tensor(file["atomref_z"].astype(int))] = energies
    return atomref


def build_model(n_features: int, n_interactions: int, n_rbf: int, seed: int, atomref: torch.Tensor):
    """A float64 SchNet with random weights and biases, SchNetPack's parts throughout."""
    ssp = schnetpack.nn.activations.shifted_softplus
    model = schnetpack.model.NeuralNetworkPotential(
        representation=schnetpack.representation.SchNet(
            n_atom_basis=n_features,
            n_interactions=n_interactions,
            radial_basis=schnetpack.nn.GaussianRBF(n_rbf, CUTOFF),
            cutoff_fn=schnetpack.nn.CosineCutoff(CUTOFF),
        ),
        input_modules=[
            schnetpack.atomistic.Strain(),
            schnetpack.atomistic.PairwiseDistances(),
        ],
        output_modules=[
            schnetpack.atomistic.Atomwise(n_features, activation=ssp, output_key="energy"),
            schnetpack.atomistic.Forces(calc_stress=True),
        ],
        postprocessors=[
            CastTo64(),
            AddOffsets(
                "energy",
                add_mean=True,
                add_atomrefs=True,
                atomrefs=atomref,
                property_mean=torch.tensor([-4.25]),
            ),
        ],
    ).double()
    torch.manual_seed(seed)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero at first, and zeros would hide a bias left behind
                parameter.normal_(std=0.1)
    return model.eval()


def recompute_centers(model) -> None:
    """Put the centers and widths of the Gaussians where float32 had rounded them away from."""
    basis = model.representation.radial_basis
    basis.offsets = torch.linspace(0.0, CUTOFF, basis.n_rbf, dtype=torch.float64)
    basis.widths = torch.full_like(basis.offsets, CUTOFF / (basis.n_rbf - 1))


def predict(model, structures: list[Atoms], dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Energies with and without offsets, forces and stress of all structures, as one batch."""
    convert = AtomsConverter(neighbor_list=ASENeighborList(CUTOFF), dtype=dtype)
    model.do_postprocessing = True
    result = {key: value.detach().numpy() for key, value in model(convert(structures)).items()}
    model.do_postprocessing = False
    result["network_energy"] = model(convert(structures))["energy"].detach().numpy()
    result["stress"][[not atoms.pbc.any() for atoms in structures]] = np.nan
    return result


def main() -> None:
    """Write schnetpack_2.2.0.npz beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the data sets, see the docstring")
    data = parser.parse_args().data
    torch.set_num_threads(1)
    names, structures = read_structures(data)
    atomref = read_atomref(data)
    programs = ("schnetpack", "torch", "numpy", "ase")
    versions = [f"{program} {importlib.metadata.version(program)}" for program in programs]
    versions.insert(0, f"python {platform.python_version()}")
    arrays = {
        "versions": np.array(versions),
        "names": np.array(names),
        "positions": np.concatenate([atoms.positions for atoms in structures]),
        "atomic_numbers": np.concatenate([atoms.numbers for atoms in structures]).astype(np.int64),
        "atom_ptr": np.cumsum([0, *map(len, structures)]),
        "cells": np.stack([atoms.cell.array for atoms in structures]),
        "pbc": np.stack([atoms.pbc for atoms in structures]),
    }
    for name, settings in MODELS.items():
        model = build_model(**settings, atomref=atomref)
        for key, value in model.state_dict().items():
            arrays[f"{name}/state_dict/{key}"] = value.numpy()
        for variant, dtype in DTYPES.items():
            if variant == "float64_centers" and name != "rbf20":
                continue
            cast = copy.deepcopy(model).to(dtype)
            if variant == "float64_centers":
                recompute_centers(cast)
            for key, value in sorted(predict(cast, structures, dtype).items()):
                arrays[f"{name}/{variant}/{key}"] = value
    out = Path(__file__).parent / f"schnetpack_{importlib.metadata.version('schnetpack')}.npz"
    np.savez_compressed(out, **arrays)
    print(f"{out}: {out.stat().st_size} bytes, {len(structures)} structures")


if __name__ == "__main__":
    main()
