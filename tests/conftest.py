"""Fixtures shared by the tests: small models, and structures to evaluate them on."""

import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from scschnet.data import StructureSet
from scschnet.nn import ModelConfig, SchNet

TESTS = Path(__file__).parent
# Tests import `reference`, and cases of one another, by name; no two files share one.
sys.path[:0] = [str(TESTS), *(str(folder) for folder in sorted(TESTS.iterdir()) if folder.is_dir())]

torch.set_num_threads(1)

# The time of an example depends on what else the machine does.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def make_model(
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    w_init: str = "random",
    filters: str = "dense",
    **config,
) -> SchNet:
    """A small model with random parameters, offsets included; biases too, which start at zero.

    Filters are dense unless said otherwise: exactly the function that the oracle computes.
    """
    torch.manual_seed(seed)
    options = {
        "elements": (1, 6, 8),
        "n_features": 8,
        "n_interactions": 2,
        "n_rbf": 7,
        "cutoff": 4.0,
    }
    model = SchNet(ModelConfig(**(options | config)), w_init=w_init, filters=filters)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.uniform_(parameter, -0.5, 0.5)
    model.offsets.scale.fill_(1.7)
    model.offsets.shift.fill_(-2.5)
    model.offsets.atomref[[1, 6, 8]] = torch.tensor([-13.6, -1030.0, -2042.0], dtype=torch.float64)
    return model.to(dtype)


def make_structures(seed: int = 0) -> StructureSet:
    """Five structures: periodic ones (skewed, thinner than the cutoff, a slab), a molecule, one atom."""
    rng = np.random.default_rng(seed)
    skewed = np.array([[4.5, 0.0, 0.0], [1.5, 5.0, 0.0], [-0.7, 1.1, 6.0]])
    thin = np.diag([2.6, 3.1, 9.0])
    cells = np.stack([skewed, thin, np.diag([4.0, 5.0, 1.0]), np.zeros((3, 3)), np.zeros((3, 3))])
    pbc = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=bool)
    sizes = [4, 2, 3, 5, 1]
    positions = [
        rng.random((4, 3)) @ skewed,
        np.array([[0.1, 0.2, 0.3], [1.4, 1.7, 1.9]]),
        np.array([[0.0, 0.0, 0.0], [1.6, 0.4, 0.8], [0.3, 2.2, -0.9]]),
        np.array([[0, 0, 0], [1.1, 0.1, 0], [-0.4, 1.0, 0.2], [0.1, -0.5, 1.3], [3.5, 1, 1.0]]),
        np.array([[7.0, -3.0, 2.0]]),
    ]
    numbers = rng.choice([1, 6, 8], size=sum(sizes))
    atom_ptr = np.concatenate([[0], np.cumsum(sizes)])
    return StructureSet(np.concatenate(positions), numbers, atom_ptr, cells=cells, pbc=pbc)


@pytest.fixture(params=["dense", "spline"])
def model(request) -> SchNet:
    return make_model(filters=request.param)


@pytest.fixture
def structures() -> StructureSet:
    return make_structures()
