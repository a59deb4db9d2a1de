"""NEP by calorine:

python3 -m venv ENVIRONMENTS/nep
ENVIRONMENTS/nep/bin/pip install calorine==CALORINE

NEP4 of the usual size with random weights: training needs GPUMD, a CUDA program. Its ASE calculator makes a list of its own
in every call.
"""

import tempfile
from pathlib import Path

import numpy as np
from calorine.calculators import CPUNEP
from protocol import serve, step_of_dynamics

N_MAX, N_BASIS, N_NEURONS, L_MAX = 4, 8, 30, (4, 2)
HEAD = f"""nep4 2 H O
cutoff 6 5 200 150
n_max {N_MAX} {N_MAX}
basis_size {N_BASIS} {N_BASIS}
l_max {L_MAX[0]} {L_MAX[1]} 0
ANN {N_NEURONS} 0
"""


def write_potential(file: Path) -> None:
    """For two elements: two networks, one bias, radial and angular expansions of each pair, and scales of descriptors."""
    n_descriptors = (N_MAX + 1) * (1 + L_MAX[0] + 1)
    n_weights = 2 * (n_descriptors + 2) * N_NEURONS + 1 + 4 * 2 * (N_MAX + 1) * (N_BASIS + 1)
    weights = 0.01 * np.random.default_rng(0).normal(size=n_weights)
    numbers = [*weights, *np.ones(n_descriptors)]
    file.write_text(HEAD + "".join(f"{number:.7e}\n" for number in numbers))


def prepare(case: dict, structures: list):
    """A step of dynamics."""
    (atoms,) = structures
    file = Path(tempfile.mkdtemp()) / "nep.txt"  # read again when the first structure comes
    write_potential(file)
    atoms.calc = CPUNEP(str(file))
    return step_of_dynamics(atoms)


if __name__ == "__main__":
    serve(prepare)
