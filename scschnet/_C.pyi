from typing import Any

import numpy as np
from numpy.typing import NDArray

build_torch: str

def instruction_sets() -> list[str]: ...
def neighbor_list(
    quantities: str,
    positions: Any,
    cell: Any,
    pbc: Any,
    cutoff: Any,
    threads: int,
    isa: str | None = None,
) -> Any: ...
def batch_neighbor_list(
    positions: Any,
    atom_ptr: Any,
    cells: Any,
    pbc: Any,
    cutoff: Any,
    threads: int,
    isa: str | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]: ...
