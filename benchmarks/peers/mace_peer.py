"""MACE:

python3 -m venv ENVIRONMENTS/mace
ENVIRONMENTS/mace/bin/pip install torch==2.13.0 mace-torch==0.3.16

As small as its documentation suggests: 64 scalar channels (max_L 0), two layers, correlation 3, 5 Å, float32, random
weights; its ASE calculator makes a list with matscipy in every call.
"""

import sys

import numpy as np
import torch
from mace.calculators import MACECalculator
from mace.modules import ScaleShiftMACE, gate_dict, interaction_classes
from protocol import serve, step_of_dynamics


def model_of(cutoff: float) -> ScaleShiftMACE:
    from e3nn import o3  # loads only after mace

    block = interaction_classes["RealAgnosticResidualInteractionBlock"]
    return ScaleShiftMACE(
        r_max=cutoff,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=2,
        hidden_irreps=o3.Irreps("64x0e"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(2),
        avg_num_neighbors=53.0,
        atomic_numbers=[1, 8],
        correlation=3,
        gate=gate_dict["silu"],
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )


def prepare(case: dict, structures: list):
    """A step of dynamics."""
    (atoms,) = structures
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    model = model_of(case["cutoff"])
    atoms.calc = MACECalculator(models=[model], device="cpu", default_dtype="float32")
    return step_of_dynamics(atoms)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(sys.argv[1] == "best")
    serve(prepare)
