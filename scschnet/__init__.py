"""SchNet with weighted skip connections. Public names, nothing else."""

import os
import pkgutil
import sys

if "torch" not in sys.modules:
    # Threads that wait for each other by spinning for long stand in each other's way on a busy machine. libgomp reads
    # this when torch loads it; benchmarks/threads.md has the measurement.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# In a checkout, `python -m scschnet...` finds these Python files first; the compiled parts come from the installed copy.
__path__ = pkgutil.extend_path(__path__, __name__)

from scschnet.calculator import ScSchNetCalculator
from scschnet.committee import load
from scschnet.export import export
from scschnet.neighbors import NeighborList, batch_neighbor_list, neighbor_list
from scschnet.nn import ModelConfig, SchNet
from scschnet.nn.schnetpack import from_schnetpack
from scschnet.select import select

__all__ = [
    "ModelConfig",
    "NeighborList",
    "ScSchNetCalculator",
    "SchNet",
    "batch_neighbor_list",
    "export",
    "from_schnetpack",
    "load",
    "neighbor_list",
    "select",
]
__version__ = "0.2.0"
