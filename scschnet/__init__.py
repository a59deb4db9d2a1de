"""SchNet with weighted skip connections. Public names, nothing else; each is imported when it is first used."""

import importlib
import os
import pkgutil
import sys
from typing import TYPE_CHECKING, Any

if "torch" not in sys.modules:
    # Threads that wait for each other by spinning for long stand in each other's way on a busy machine. libgomp reads
    # this when torch loads it; benchmarks/threads.md has the measurement.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# In a checkout, `python -m scschnet...` finds these Python files first; the compiled parts come from the installed copy.
__path__ = pkgutil.extend_path(__path__, __name__)

if TYPE_CHECKING:
    from scschnet.calculator import ScSchNetCalculator
    from scschnet.committee import load
    from scschnet.evaluate import evaluate
    from scschnet.export import export
    from scschnet.neighbors import NeighborList, batch_neighbor_list, neighbor_list
    from scschnet.nn import ModelConfig, SchNet
    from scschnet.nn.schnetpack import from_schnetpack
    from scschnet.predict import predict
    from scschnet.report import write_report as report
    from scschnet.runs.config import TrainConfig
    from scschnet.select import select
    from scschnet.train import train

__all__ = [
    "ModelConfig",
    "NeighborList",
    "ScSchNetCalculator",
    "SchNet",
    "TrainConfig",
    "batch_neighbor_list",
    "evaluate",
    "export",
    "from_schnetpack",
    "load",
    "neighbor_list",
    "predict",
    "report",
    "select",
    "train",
]
__version__ = "0.2.0"

# Where a name is, unless it is that of a module. A torch that is imported only when it is needed lets `scschnet --help`
# answer at once, and `scschnet doctor` answer where torch or the compiled parts do not load.
_HOMES = {
    "ModelConfig": "nn",
    "NeighborList": "neighbors",
    "ScSchNetCalculator": "calculator",
    "SchNet": "nn",
    "TrainConfig": "runs.config",
    "batch_neighbor_list": "neighbors",
    "from_schnetpack": "nn.schnetpack",
    "load": "committee",
    "neighbor_list": "neighbors",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"scschnet.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("__"):
        try:
            return importlib.import_module(f"scschnet.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"scschnet.{name}":
                raise
    raise AttributeError(f"module `scschnet` has no attribute `{name}`")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
