"""SchNet with weighted skip connections. Public names, nothing else."""

import pkgutil

# In a checkout, `python -m scschnet...` finds these Python files first; the compiled parts come from the installed copy.
__path__ = pkgutil.extend_path(__path__, __name__)

from scschnet.neighbors import NeighborList, batch_neighbor_list, neighbor_list  # noqa: E402

__all__ = ["NeighborList", "batch_neighbor_list", "neighbor_list"]
__version__ = "0.1.0"
