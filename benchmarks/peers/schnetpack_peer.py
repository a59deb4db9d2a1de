"""SchNetPack 2.2.0 (Python 3.12 or later):

python3.12 -m venv ENVIRONMENTS/schnetpack
ENVIRONMENTS/schnetpack/bin/pip install torch==2.13.0 schnetpack==2.2.0
"""

import sys

import schnetpack
import torch
from protocol import serve, step_of_dynamics
from schnetpack.interfaces import AtomsConverter, SpkCalculator
from schnetpack.transform import SkinNeighborList, VesinNeighborList


def model_of(case: dict):
    width, cutoff = case["n_features"], case["cutoff"]
    ssp = schnetpack.nn.activations.shifted_softplus
    outputs = [schnetpack.atomistic.Atomwise(width, activation=ssp, output_key="energy")]
    if case["kind"] != "train_energy":
        outputs.append(schnetpack.atomistic.Forces())
    return schnetpack.model.NeuralNetworkPotential(
        representation=schnetpack.representation.SchNet(
            n_atom_basis=width,
            n_interactions=case["n_interactions"],
            radial_basis=schnetpack.nn.GaussianRBF(case["n_rbf"], cutoff),
            cutoff_fn=schnetpack.nn.CosineCutoff(cutoff),
        ),
        input_modules=[schnetpack.atomistic.PairwiseDistances()],
        output_modules=outputs,
    )


def dynamics(case: dict, atoms, model):
    """A step with its ASE calculator; it moves so little that the list within the skin is never rebuilt."""
    skin = SkinNeighborList(VesinNeighborList(case["cutoff"]), cutoff_skin=0.3)
    atoms.calc = SpkCalculator(model, skin, energy_unit="eV")
    return step_of_dynamics(atoms)


def prepare(case: dict, structures: list):
    """A step of dynamics; else, with batch and list ready, a training step, or energy and forces."""
    torch.manual_seed(0)
    model = model_of(case)
    if case["kind"] == "md":
        return dynamics(case, structures[0], model)
    batch = AtomsConverter(neighbor_list=VesinNeighborList(case["cutoff"]))(structures)
    if case["kind"] == "evaluate":
        model.eval().requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    energy, forces = torch.randn(len(structures)), torch.randn_like(batch["_positions"])

    def run() -> None:
        result = model({**batch, "_positions": batch["_positions"].detach()})
        if case["kind"] == "evaluate":
            return
        optimizer.zero_grad()
        loss = (result["energy"] - energy).square().mean()
        if case["kind"] == "train_forces":
            loss = 0.1 * loss + 0.9 * (result["forces"] - forces).square().mean()
        loss.backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(sys.argv[1] == "best")
    serve(prepare)
