"""SevenNet:

python3 -m venv ENVIRONMENTS/sevennet
ENVIRONMENTS/sevennet/bin/pip install torch==2.13.0 sevenn==0.13.0

SevenNet-0 (11 July 2024), the universal potential that comes with the package: it was trained on crystals of 89 elements, and is
larger than what water alone needs. 5 Å, float32; its ASE calculator makes a list in every call.
"""

import sys

import torch
from protocol import serve, step_of_dynamics
from sevenn.calculator import SevenNetCalculator


def prepare(case: dict, structures: list):
    """A step of dynamics."""
    (atoms,) = structures
    atoms.calc = SevenNetCalculator("7net-0", device="cpu")
    return step_of_dynamics(atoms)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(sys.argv[1] == "best")
    serve(prepare)
