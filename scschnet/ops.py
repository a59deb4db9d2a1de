"""Loads the compiled torch operators; one documented function per operator."""

from pathlib import Path

import torch
from torch import Tensor

import scschnet
from scschnet import _C


def check_torch_version(built: str, running: str) -> None:
    """Stops with one clear sentence when torch is not the one the extension was compiled with.

    Args:
        built: torch version at compile time, for example "2.13.0+cpu".
        running: torch version now.

    Raises:
        ImportError: if major or minor version differ: torch's C++ interface changes between them.
    """
    if built.split(".")[:2] != running.split(".")[:2]:
        raise ImportError(
            f"scschnet was compiled with torch {built} but torch {running} is installed; rebuild it: "
            "pip install --no-build-isolation --no-deps --force-reinstall ."
        )


def _load() -> None:
    check_torch_version(_C.build_torch, torch.__version__)
    for folder in scschnet.__path__:
        library = Path(folder) / "libscschnet_ops.so"
        if library.is_file():
            torch.ops.load_library(str(library))
            return
    raise ImportError(f"libscschnet_ops.so is missing from {list(scschnet.__path__)}")


_load()


def _neighbor_list_shapes(
    positions: Tensor, atom_ptr: Tensor, cells: Tensor, pbc: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_pairs = torch.library.get_ctx().new_dynamic_size()
    idx = positions.new_empty((n_pairs,), dtype=torch.int64)
    shifts = positions.new_empty((n_pairs, 3), dtype=torch.int32)
    row_ptr = positions.new_empty((positions.shape[0] + 1,), dtype=torch.int64)
    return idx, torch.empty_like(idx), shifts, row_ptr


torch.library.register_fake("scschnet::neighbor_list", _neighbor_list_shapes)


def neighbor_list(
    positions: Tensor, atom_ptr: Tensor, cells: Tensor, pbc: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All pairs closer than `cutoff`, for a batch of structures, as torch tensors.

    Args:
        positions: (n_atoms, 3) float32 or float64, Å.
        atom_ptr: (n_structures + 1,) int64; structure m owns atoms atom_ptr[m] .. atom_ptr[m + 1].
        cells: (n_structures, 3, 3), rows are lattice vectors, Å; rows of open axes are ignored.
        pbc: (n_structures, 3) bool.
        cutoff: Å, positive; a pair exactly at the cutoff is left out.

    Returns:
        idx_i, idx_j (n_pairs,) int64, sorted by idx_i; shifts (n_pairs, 3) int32; row_ptr
        (n_atoms + 1,) int64, so that r_ij = positions[idx_j] - positions[idx_i] + shifts · cell.
        Not differentiable.

    Raises:
        ValueError, TypeError: naming the argument that is wrong.
    """
    return torch.ops.scschnet.neighbor_list(positions, atom_ptr, cells, pbc, cutoff)
