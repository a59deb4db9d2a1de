"""Memory of large systems is given back when the small ones that follow do not need it."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import numpy as np, torch
import scschnet
from scschnet import ops

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024

def positions(n):
    return np.random.default_rng(0).random((n, 3)) * (n / 0.1) ** (1 / 3)

def from_numpy(n):
    scschnet.neighbor_list("ijS", positions=positions(n), cutoff=5.0)

def from_torch(n):
    at = torch.from_numpy(positions(n))
    cells, pbc = torch.zeros(1, 3, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.bool)
    ops.neighbor_list(at, torch.tensor([0, n]), cells, pbc, 5.0)

torch.set_num_threads(1)
find = {"numpy": from_numpy, "torch": from_torch}[sys.argv[1]]
for _ in range(10):
    find(300)
before = resident()
find(200_000)
large = resident()
for _ in range(400):
    find(300)
print(before, large, resident())
"""


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_a_large_list_is_forgotten_after_small_ones(kind):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, kind],
        capture_output=True,
        text=True,
        check=True,
    )
    before, large, after = map(float, done.stdout.split())
    assert large - before > 150  # MB, or there is nothing to give back
    assert after - before < 30
