"""What a trained model does inside: pictures, and the very numbers in them as CSV."""

from scschnet.analysis.contributions import plot_contributions, summarize
from scschnet.analysis.environments import (
    element_contributions,
    environment_contributions,
    trajectory_contributions,
)
from scschnet.analysis.importance import energy_importance, force_importance
from scschnet.analysis.layers import layer_energies
from scschnet.runs.contributions import read_contributions
from scschnet.runs.run import read_run

__all__ = [
    "element_contributions",
    "energy_importance",
    "environment_contributions",
    "force_importance",
    "layer_energies",
    "plot_contributions",
    "read_contributions",
    "read_run",
    "summarize",
    "trajectory_contributions",
]
