"""Loads the compiled torch operators; one documented function per operator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    minor = ".".join(running.split(".")[:2])
    if built.split(".")[:2] != minor.split("."):
        raise ImportError(
            f"scschnet was compiled with torch {built} but torch {running} is installed; install its wheel for "
            f"torch {minor}, or in a checkout compile it again: "
            "pip install --no-build-isolation --no-deps --force-reinstall ."
        )


def _load() -> None:
    check_torch_version(_C.build_torch, torch.__version__)
    library = _find_library("libscschnet_ops.so")
    if library is None:
        raise ImportError(f"libscschnet_ops.so is missing from {list(scschnet.__path__)}")
    torch.ops.load_library(str(library))


def _find_library(name: str) -> Path | None:
    for folder in scschnet.__path__:
        library = Path(folder) / name
        if library.is_file():
            return library
    return None


def _load_gpu_kernels() -> bool:
    """Whether there are operators for GPUs. Only a torch with CUDA can load their library."""
    library = _find_library("libscschnet_ops_cuda.so") if torch.version.cuda else None
    if library is None:
        return False
    torch.ops.load_library(str(library))
    return True


_load()
_GPU_KERNELS = _load_gpu_kernels()


def runs_on(device: torch.device) -> bool:
    """Whether the operators run on a device: on CPUs always, on a GPU if built for it.

    Args:
        device: where the tensors are.
    """
    return device.type == "cpu" or (device.type == "cuda" and _GPU_KERNELS)


def trains_on(device: torch.device) -> bool:
    """Whether there are operators for what surrounds the network in a training step: on a GPU alone.

    Args:
        device: where the tensors are.
    """
    return device.type == "cuda" and _GPU_KERNELS


def _neighbor_list_shapes(
    positions: Tensor, atom_ptr: Tensor, cells: Tensor, pbc: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_pairs = torch.library.get_ctx().new_dynamic_size()
    idx = positions.new_empty((n_pairs,), dtype=torch.int64)
    shifts = positions.new_empty((n_pairs, 3), dtype=torch.int32)
    row_ptr = positions.new_empty((positions.shape[0] + 1,), dtype=torch.int64)
    return idx, torch.empty_like(idx), shifts, row_ptr


for _name in ("neighbor_list", "half_neighbor_list"):
    torch.library.register_fake(f"scschnet::{_name}", _neighbor_list_shapes)


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


def half_neighbor_list(
    positions: Tensor, atom_ptr: Tensor, cells: Tensor, pbc: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`neighbor_list` with every pair once, the pairs and the order of `half_list`; on the CPU only.

    Args:
        positions: as in `neighbor_list`, like the following.
        atom_ptr: (n_structures + 1,) int64.
        cells: (n_structures, 3, 3).
        pbc: (n_structures, 3) bool.
        cutoff: Å.

    Returns:
        idx_i and idx_j (n_pairs,) int64; shifts (n_pairs, 3) int32; row_ptr (n_atoms + 1,) int64. Of (i, j, S) and
        (j, i, -S) the one with i < j, and of an atom with its own image the one whose S is positive in its first entry
        that is not zero.

    Raises:
        ValueError, TypeError: naming the argument that is wrong.
    """
    return torch.ops.scschnet.half_neighbor_list(positions, atom_ptr, cells, pbc, cutoff)


def _half_list_shapes(
    idx_i: Tensor, idx_j: Tensor, shifts: Tensor, n_atoms: int
) -> tuple[Tensor, Tensor, Tensor]:
    # One argument on `meta` is enough to get here: no result then lies on the CPU, where it would hold foreign memory.
    on_meta = any(tensor.device.type == "meta" for tensor in (idx_i, idx_j, shifts))
    device = "meta" if on_meta else idx_i.device
    pairs = idx_i.new_empty((idx_i.shape[0] // 2,), device=device)
    return pairs, idx_i.new_empty((n_atoms + 1,), device=device), torch.empty_like(pairs)


torch.library.register_fake("scschnet::half_list", _half_list_shapes)


def half_list(
    idx_i: Tensor, idx_j: Tensor, shifts: Tensor, n_atoms: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair of a full list once: of (i, j, S) and (j, i, -S) the one with i < j.

    Of a pair of an atom with its own image, i = j, the one whose first nonzero S is positive stays. Checks the
    full list; the operators on pairs rely on that and check indices no more.

    Args:
        idx_i: center of each pair, (n_pairs,) int64, sorted.
        idx_j: neighbor of each pair, (n_pairs,) int64.
        shifts: cell shift S of each pair, (n_pairs, 3) int32.
        n_atoms: number of atoms.

    Returns:
        pairs (n_pairs / 2,) int64, where in the full list they stand; row_ptr (n_atoms + 1,) int64, pairs
        row_ptr[i] .. row_ptr[i + 1] have center i; idx_j (n_pairs / 2,) int64. Not differentiable.

    Raises:
        ValueError, TypeError: naming the argument that is wrong: an index out of range, centers out of
            order, an atom paired with itself, or a pair that stands one way only (judged by numbers).
    """
    return torch.ops.scschnet.half_list(idx_i, idx_j, shifts, n_atoms)


def pair_vectors(
    positions: Tensor,
    cells: Tensor,
    idx_m: Tensor,
    idx_i: Tensor,
    idx_j: Tensor,
    shifts: Tensor,
    pairs: Tensor,
) -> tuple[Tensor, Tensor]:
    """Vectors r_ij = r_j - r_i + S cell and distances of chosen pairs of a full list, in one pass.

    Args:
        positions: (n_atoms, 3) float64, Å.
        cells: lattice vectors as rows, (n_structures, 3, 3) float64, Å.
        idx_m: structure of each atom, (n_atoms,) int64.
        idx_i: center of each pair of the full list, (n_full,) int64.
        idx_j: neighbor of each pair of the full list, (n_full,) int64.
        shifts: cell shift S of each pair of the full list, (n_full, 3) int32.
        pairs: which pairs, (n_pairs,) int64, from `half_list`.

    Returns:
        r_ij (n_pairs, 3) and d_ij (n_pairs,), Å. Not differentiable: see `scschnet.nn.geometry`.

    Raises:
        ValueError, TypeError: naming the argument that is wrong.
    """
    return torch.ops.scschnet.pair_vectors(positions, cells, idx_m, idx_i, idx_j, shifts, pairs)


def pair_forces(
    g_d: Tensor,
    r_ij: Tensor,
    d_ij: Tensor,
    row_ptr: Tensor,
    idx_j: Tensor,
    idx_m: Tensor,
    n_structures: int,
    partners: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Forces and virial from the derivative of the energy in every distance, in one pass.

    F_i = sum_j g_ij u_ij - sum_j g_ji u_ji,   W = -sum_pairs g_ij r_ij (x) u_ij,   u = r / d

    Args:
        g_d: derivative of the energy in the distance of each pair, (n_pairs,) float64, eV/Å.
        r_ij: pair vectors, (n_pairs, 3) float64, Å.
        d_ij: distances, (n_pairs,) float64, Å.
        row_ptr: (n_atoms + 1,) int64, pairs row_ptr[i] .. row_ptr[i + 1] have center i.
        idx_j: (n_pairs,) int64.
        idx_m: structure of each atom, (n_atoms,) int64.
        n_structures: number of structures; 0: the virial is not wanted, and `idx_m` is not read.
        partners: from `find_partners`, on a GPU alone; None: they are found again.

    Returns:
        forces (n_atoms, 3), eV/Å; virial W = -dE/dstrain of each structure, (n_structures, 3, 3), eV.
        Differentiable in `g_d` as often as needed.

    Raises:
        ValueError, TypeError: naming the argument that is wrong.
    """
    return torch.ops.scschnet.pair_forces(
        g_d, r_ij, d_ij, row_ptr, idx_j, idx_m, n_structures, partners
    )


def find_partners(row_ptr: Tensor, idx_j: Tensor) -> Tensor:
    """The pairs in which each atom is the partner, on a GPU: found once, several operators on a half list read them.

    Args:
        row_ptr: (n_atoms + 1,) int64, from `half_list`.
        idx_j: (n_pairs,) int64, from `half_list`.

    Returns:
        Bytes, for `partners` of `schnet` and `pair_forces` with the same list.

    Raises:
        ValueError, TypeError: naming the argument whose shape, dtype or device is wrong.
    """
    return torch.ops.scschnet.find_partners(row_ptr, idx_j)


def spline_weights(
    d_ij: Tensor,
    step: float,
    cutoff: float,
    cutoff_pieces: Tensor,
    n_rows: int,
    n_orders: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Where distances lie in a filter table, and with which weights: once per geometry, for all blocks.

    W^(n)_f(d_p) = sum_m weights[n, p, m] table[bins[p] + m, f],  W_f(d) = fc(d) sum_m B_m(t) table[k + m, f]
    B_m: the six quintic B-splines on a cell of the grid, k = floor(d / step), t = d / step - k

    Args:
        d_ij: pair distances, (n_pairs,) float32 or float64, Å; evaluated in float64.
        step: of the grid, Å, a power of two.
        cutoff: Å.
        cutoff_pieces: the cutoff function fc, (n_pieces, n_coefficients) float64, from `CutoffFunction.pieces`.
        n_rows: of the table; floor(cutoff / step) + 6 serve every distance below the cutoff.
        n_orders: 1 for the filter, 2 with its first derivative, up to 9.
        dtype: of the weights, float32 or float64.

    Returns:
        bins (n_pairs,) int32 and weights (n_orders, n_pairs, 6). A pair at or beyond the cutoff has zero
        weights. Not differentiable: the operators on pairs differentiate in `d_ij`.

    Raises:
        ValueError, TypeError: naming the argument that is wrong; a distance must be finite, not negative, and
            if it is below the cutoff within the table.
    """
    return torch.ops.scschnet.spline_weights.pieces(
        d_ij, step, cutoff, cutoff_pieces, n_rows, n_orders, dtype
    )


class Pairs(NamedTuple):
    """Half list and geometry of a batch, the last arguments of every operator on pairs.

    Every undirected pair stands once and counts both ways. Derivatives are taken in `d_ij`.
    """

    d_ij: Tensor
    """(n_pairs,) Å, float64 or the dtype of the features"""
    bins: Tensor
    """(n_pairs,) int32, from `spline_weights`"""
    weights: Tensor
    """(n_orders, n_pairs, 6), dtype of the features; orders that are missing are computed when needed"""
    row_ptr: Tensor
    """(n_atoms + 1,) int64, from `half_list`"""
    idx_j: Tensor
    """(n_pairs,) int64, from `half_list`"""
    step: float
    """of the grid, Å"""
    cutoff: float
    """Å"""
    cutoff_pieces: Tensor
    """(n_pieces, n_coefficients) float64, the cutoff function, from `CutoffFunction.pieces`"""


def filter_tables(rbf: Tensor, prefilter: Tensor, parameters: list[Tensor]) -> Tensor:
    """Spline coefficients of the filters of several blocks.

    table = P[ssp(rbf A1 + b1)] A2 + b2,  P: symmetric filter along the nodes

    Evaluated in float64 and rounded once; the gradient is evaluated in the dtype of the parameters.

    Args:
        rbf: radial basis on the nodes of a grid, (n_nodes, n_rbf) float64.
        prefilter: weights of P from the center outward, (5,) float64.
        parameters: of each block A1 (n_filters, n_rbf), b1, A2 (n_filters, n_filters) and b2, float32 or
            float64.

    Returns:
        (n_blocks, n_nodes - 8, n_filters), dtype of the parameters; differentiable in them as often as
        needed.

    Raises:
        ValueError, TypeError: naming the argument whose shape or dtype is wrong.
    """
    return torch.ops.scschnet.filter_tables(rbf, prefilter, parameters)


def cfconv(x: Tensor, table: Tensor, pairs: Pairs) -> Tensor:
    """Continuous-filter convolution with tabulated filters.

    y_i = sum_j x_j o W(d_ij)      arXiv:1706.08566

    Args:
        x: (n_atoms, n_features) float32 or float64.
        table: spline coefficients of the filters, (n_rows, n_features).
        pairs: half list and geometry.

    Returns:
        (n_atoms, n_features). Differentiable as often as needed in `x`, `table` and the distances; the same
        bits on every run and for any number of threads.

    Raises:
        ValueError, TypeError: naming the argument whose shape, dtype or value is wrong.
    """
    return torch.ops.scschnet.cfconv(x, table, *pairs)


def cfconv_backward(y_bar: Tensor, x: Tensor, table: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Gradient of `cfconv` in `x` and in the distances.

    x_bar_i = sum_j y_bar_j o W_ij,   d_bar_ij = sum_f (y_bar_i x_j + y_bar_j x_i) W'_ij

    Args:
        y_bar: cotangent of the output, (n_atoms, n_features).
        x: (n_atoms, n_features).
        table: (n_rows, n_features).
        pairs: half list and geometry.

    Returns:
        x_bar (n_atoms, n_features), d_bar (n_pairs,): derivative in the distance of the pair, both ways
        together. Differentiable as often as needed.
    """
    return torch.ops.scschnet.cfconv_backward(y_bar, x, table, *pairs)


def cfconv_double_backward(u: Tensor, v: Tensor, x: Tensor, table: Tensor, pairs: Pairs) -> Tensor:
    """Gradient of `cfconv_backward` in `y_bar`, which is also the tangent of `cfconv`.

    sum_j [ u_j o W_ij + v_ij x_j o W'_ij ]

    Args:
        u: cotangent of x_bar, (n_atoms, n_features).
        v: cotangent of d_bar, (n_pairs,).
        x: (n_atoms, n_features).
        table: (n_rows, n_features).
        pairs: half list and geometry.

    Returns:
        (n_atoms, n_features). Differentiable as often as needed.
    """
    return torch.ops.scschnet.cfconv_double_backward(u, v, x, table, *pairs)


def cfconv_backward_table_gradient(
    u: Tensor, v: Tensor, y_bar: Tensor, x: Tensor, pairs: Pairs, n_rows: int
) -> Tensor:
    """Gradient of `cfconv_backward` in the table, in one pass.

    table_bar[k + m] = sum over pairs of w_m (u_i y_bar_j + u_j y_bar_i) + v w'_m (y_bar_i x_j + y_bar_j x_i)

    Args:
        u: cotangent of x_bar, (n_atoms, n_features).
        v: cotangent of d_bar, (n_pairs,).
        y_bar: (n_atoms, n_features).
        x: (n_atoms, n_features).
        pairs: half list and geometry.
        n_rows: of the table.

    Returns:
        (n_rows, n_features). Differentiable as often as needed.
    """
    return torch.ops.scschnet.cfconv_backward_table_gradient(u, v, y_bar, x, *pairs, n_rows)


def cfconv_derivative(
    x: Tensor, v: Tensor | None, table: Tensor, pairs: Pairs, order: int
) -> Tensor:
    """Convolution with the n-th derivative of the filters in the distance.

    sum_j v_ij x_j o W^(n)(d_ij)

    With `cfconv_dot` and `cfconv_table_gradient` it forms a family closed under differentiation.

    Args:
        x: (n_atoms, n_features).
        v: factor per pair, the same both ways, (n_pairs,), or None for one.
        table: (n_rows, n_features).
        pairs: half list and geometry.
        order: n, 0 to 8.

    Returns:
        (n_atoms, n_features). Differentiable as often as needed.
    """
    return torch.ops.scschnet.cfconv_derivative(x, v, table, *pairs, order)


def cfconv_dot(a: Tensor, b: Tensor, table: Tensor, pairs: Pairs, order: int) -> Tensor:
    """Product of both atoms' features of every pair, weighted with the n-th derivative of the filters.

    sum_f (a_i b_j + a_j b_i) W^(n)(d_ij)

    Args:
        a: (n_atoms, n_features).
        b: (n_atoms, n_features).
        table: (n_rows, n_features).
        pairs: half list and geometry.
        order: n, 0 to 8.

    Returns:
        (n_pairs,). Differentiable as often as needed.
    """
    return torch.ops.scschnet.cfconv_dot(a, b, table, *pairs, order)


def cfconv_table_gradient(
    a: Tensor, b: Tensor, v: Tensor | None, pairs: Pairs, n_rows: int, order: int
) -> Tensor:
    """Gradient in the table of sum_i a_i o (sum_j v_ij b_j o W^(n)_ij).

    table_bar[k + m] = sum over pairs of v w^(n)_m (a_i b_j + a_j b_i)

    Args:
        a: (n_atoms, n_features).
        b: (n_atoms, n_features).
        v: factor per pair, (n_pairs,), or None for one.
        pairs: half list and geometry.
        n_rows: of the table.
        order: n, 0 to 8.

    Returns:
        (n_rows, n_features). Differentiable as often as needed.
    """
    return torch.ops.scschnet.cfconv_table_gradient(a, b, v, *pairs, n_rows, order)


def schnet(
    features: Tensor,
    row_ptr: Tensor,
    idx_j: Tensor,
    bins: Tensor,
    weights: Tensor,
    tables: Tensor,
    contribution_weights: Tensor,
    parameters: list[Tensor],
    derivatives: bool,
    representation: bool = False,
    partners: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A whole network in one operator: readout of every atom, and its derivative in every distance.

    x^out_i = sum_l w_l v_l,i,  g_i = readout(x^out_i),  g_d = d(sum_i g_i) / d d_ij      arXiv:1810.09751, Eq. 1 to 4

    Args:
        features: v_0, the embedding of every atom, (n_atoms, n_features) float32 or float64.
        row_ptr: (n_atoms + 1,) int64, from `half_list`.
        idx_j: (n_pairs,) int64, from `half_list`.
        bins: (n_pairs,) int32, from `spline_weights`.
        weights: (2, n_pairs, 6), from `spline_weights`; the second order may be left out without derivatives.
        tables: filters of all blocks, (n_blocks, n_rows, n_features).
        contribution_weights: w, (n_blocks + 1,).
        parameters: of each block the weight of its input layer, weight and bias of its hidden and of its output
            layer; then weight and bias of the hidden and of the output layer of the readout.
        derivatives: whether g_d is wanted.
        representation: whether x^out is wanted, for readout heads other than the energy's.
        partners: from `find_partners`, on a GPU alone; None: they are found again.

    Returns:
        g (n_atoms,); g_d (n_pairs,), both directions of the pair together, zero without derivatives; the norms of
        all v_l, (n_blocks + 1, n_atoms), not differentiable; x^out (n_atoms, n_features), or (n_atoms, 0) if not
        wanted. g, g_d and x^out can be differentiated once, in everything but the geometry; for Hessians compose
        the network of `cfconv`.

    Raises:
        ValueError, TypeError: naming the argument whose shape or dtype is wrong.
    """
    return torch.ops.scschnet.schnet(
        features,
        row_ptr,
        idx_j,
        bins,
        weights,
        tables,
        contribution_weights,
        parameters,
        derivatives,
        representation,
        False,
        partners,
    )[:4]


def pack_schnet(tables: Tensor, contribution_weights: Tensor, parameters: list[Tensor]) -> Tensor:
    """Weights of a network laid out for this CPU's matrix products, for `schnet_evaluate`; on the CPU only.

    Args:
        tables: as in `schnet`; of them only shape and dtype matter.
        contribution_weights: as in `schnet`; of them only shape and dtype matter.
        parameters: as in `schnet`.

    Returns:
        Numbers of no meaning elsewhere, one dimension, dtype of `tables`.

    Raises:
        ValueError, TypeError: naming the argument whose shape or dtype is wrong.
    """
    return torch.ops.scschnet.pack_schnet(tables, contribution_weights, parameters)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearly orthogonal matrices with the singular vectors of the given ones, as the optimizer Muon needs them.

    M = U S V^T -> about U V^T, by Newton-Schulz iteration:
    X <- a X + (b G + c G^2) X, G = X X^T, (a, b, c) = (3.4445, -4.7750, 2.0315), X = M / |M| at first.
    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; these coefficients leave singular values spread
    around one. A matrix of zeros stays one.

    Args:
        matrices: M, (n, rows, columns) float32 or float64.
        steps: iterations, not negative.

    Returns:
        Shape and dtype of `matrices`; not differentiable.

    Raises:
        ValueError, TypeError: naming the argument whose shape, dtype or value is wrong.
    """
    if matrices.device.type == "cpu":
        return torch.ops.scschnet.orthogonalize(matrices, steps)
    return _orthogonalize_composed(matrices, steps)


def _orthogonalize_composed(matrices: Tensor, steps: int) -> Tensor:
    """`orthogonalize` in torch's own operations, for other devices."""
    if matrices.shape[1] < matrices.shape[2]:
        return _orthogonalize_composed(matrices.mT, steps).mT
    norm = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    x = matrices / norm.clamp(min=torch.finfo(norm.dtype).tiny)
    for _ in range(steps):
        gram = x.mT @ x
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, x, polynomial, beta=3.4445)
    return x


def pair_distances(r_ij: Tensor) -> Tensor:
    """Lengths of the vectors of pairs, several times faster than torch's norm of rows of three.

    Args:
        r_ij: (n_pairs, 3) float64, Å.

    Returns:
        (n_pairs,) float64, Å. Not differentiable.

    Raises:
        ValueError, TypeError: if `r_ij` has another shape or dtype.
    """
    return torch.ops.scschnet.pair_distances(r_ij)


def pair_rows(idx_i: Tensor, idx_j: Tensor, n_atoms: int) -> Tensor:
    """Checks the pairs a host brings, and says where those of each atom begin.

    Args:
        idx_i: center of each pair, (n_pairs,) int64, ascending.
        idx_j: partner of each pair, (n_pairs,) int64.
        n_atoms: number of atoms, ghosts included.

    Returns:
        row_ptr (n_atoms + 1,) int64: pairs row_ptr[i] .. row_ptr[i + 1] have center i.

    Raises:
        ValueError, TypeError: if an index is out of range, or centers are out of order.
    """
    return torch.ops.scschnet.pair_rows(idx_i, idx_j, n_atoms)


def close_pairs(
    d_ij: Tensor,
    row_ptr: Tensor,
    idx_j: Tensor,
    atomic_numbers: Tensor,
    index: Tensor,
    ranges: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs on which a pair term acts: those closer than the range of their two elements.

    Args:
        d_ij: distance of each pair, (n_pairs,) float64, Å.
        row_ptr: start of each center's pairs, (n_atoms + 1,) int64.
        idx_j: neighbor of each pair, (n_pairs,) int64.
        atomic_numbers: (n_atoms,) int64.
        index: place in `ranges` of every atomic number from 0 on, (n_z,) int64.
        ranges: of every two elements, (n_elements, n_elements) float64, Å.

    Returns:
        Their places, centers and neighbors, (n_near,) int64 each, in the order of the pairs. Not differentiable; on CPUs alone.

    Raises:
        ValueError, TypeError: naming the argument whose shape, dtype or value is wrong.
    """
    return torch.ops.scschnet.close_pairs(d_ij, row_ptr, idx_j, atomic_numbers, index, ranges)


def schnet_evaluate(
    features: Tensor,
    row_ptr: Tensor,
    idx_j: Tensor,
    bins: Tensor,
    weights: Tensor,
    tables: Tensor,
    contribution_weights: Tensor,
    parameters: list[Tensor],
    n_local: int,
    halo: bool,
    derivatives: bool,
    corrections: bool,
    packed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The network of `schnet` for programs that run one, with ghost atoms; not differentiable.

    Atoms 0 .. n_local - 1 are local, the others ghosts: atoms another process owns. Every pair of two local atoms
    stands once. With a halo, ghosts are one cutoff deep: a pair of a local atom with a ghost stands once, the local
    atom as center, pairs of ghosts do not, and between blocks the host brings the ghosts' features
    (csrc/torch/halo.h). Without one, ghosts are as many cutoffs deep as there are blocks and pair like local atoms.

    Args:
        features: v_0, (n_atoms, n_features) float32 or float64.
        row_ptr: (n_atoms + 1,) int64, from `pair_rows`.
        idx_j: (n_pairs,) int64.
        bins: (n_pairs,) int32, from `spline_weights`.
        weights: (2, n_pairs, 6), from `spline_weights`.
        tables: (n_blocks, n_rows, n_features).
        contribution_weights: (n_blocks + 1,).
        parameters: as in `schnet`.
        n_local: number of local atoms.
        halo: whether ghosts' features come from the host.
        derivatives: whether g_d is wanted.
        corrections: whether the corrections are wanted.
        packed: `parameters` as `pack_schnet` has laid them out, unchanged since: the same bits, earlier; on the CPU
            only.

    Returns:
        g (n_local,); g_d (n_pairs,), derivative of the sum of the local g in every distance (of a pair with a ghost
        of a halo: this process's part), empty without derivatives; the norms of all v_l (n_blocks + 1, n_local);
        v_l (n_blocks + 1, n_local, n_features), or empty (0, 0, 0).

    Raises:
        ValueError, TypeError: naming the argument that is wrong, or if a halo is needed and none is registered.
    """
    return torch.ops.scschnet.schnet_evaluate(
        features,
        row_ptr,
        idx_j,
        bins,
        weights,
        tables,
        contribution_weights,
        parameters,
        n_local,
        halo,
        derivatives,
        corrections,
        packed,
    )


def unfamiliarity(
    correction_norms: Tensor, atomic_numbers: Tensor, mean: Tensor, whitening: Tensor
) -> Tensor:
    """How unlike the training set every atom is, `scschnet.nn.unfamiliarity.unfamiliarity` in one pass.

    Args:
        correction_norms: (n_blocks + 1, n_atoms) float64.
        atomic_numbers: (n_atoms,) int64.
        mean: (n_rows, n_blocks) float64, a row per atomic number.
        whitening: (n_rows, n_blocks, n_blocks) float64.

    Returns:
        (n_atoms,) float64, not differentiable.

    Raises:
        ValueError, TypeError: naming the argument that is wrong.
    """
    return torch.ops.scschnet.unfamiliarity(correction_norms, atomic_numbers, mean, whitening)


def trial_sizes(r_ij: Tensor, d_ij: Tensor, row_ptr: Tensor, idx_j: Tensor, reach: float) -> Tensor:
    """How asymmetric the surroundings of atoms are: |t_ik| of `scschnet.nn.error_bars` in one pass. For CPUs only.

    Args:
        r_ij: vector of each pair of the half list, (n_pairs, 3) float64, Å.
        d_ij: its length, (n_pairs,) float64, Å.
        row_ptr: (n_atoms + 1,) int64, from `half_list`.
        idx_j: (n_pairs,) int64, from `half_list`.
        reach: R, Å.

    Returns:
        (n_atoms, 4) float64, no unit, at least 1e-4, not differentiable.

    Raises:
        ValueError, TypeError: naming the argument that is wrong.
    """
    return torch.ops.scschnet.trial_sizes(r_ij, d_ij, row_ptr, idx_j, reach)


class GatheredBatch(NamedTuple):
    """Structures end to end, filled up with atoms and pairs that count nothing."""

    chosen: Tensor
    """(n_structures + 1,) int64, the structures and that of the padding"""
    sizes: Tensor
    """(n_structures,) int64, atoms of each"""
    sources: Tensor
    """(n_atoms,) int64, where each atom stands in the flat arrays"""
    idx_m: Tensor
    """(n_atoms,) int64, structure of each atom"""
    positions: Tensor
    """(n_atoms, 3) float64, Å"""
    atomic_numbers: Tensor
    """(n_atoms,) int64"""
    row_ptr: Tensor
    """(n_atoms + 1,) int64; rows end before the padding pairs"""
    idx_i: Tensor
    """(n_pairs,) int64"""
    idx_j: Tensor
    """(n_pairs,) int64"""
    shifts: Tensor
    """(n_pairs, 3) int32"""
    of_structures: list[Tensor]
    """(n_structures + 1, ...) float64, rows of the structures and that of the padding"""
    of_atoms: list[Tensor]
    """(n_atoms, ...) float64, rows of the atoms"""


def gather_batch(
    order: Tensor,
    step: Tensor,
    structures: Tensor,
    positions: Tensor,
    atoms: Tensor,
    pairs: Tensor,
    of_structures: list[Tensor],
    of_atoms: list[Tensor],
    n_atoms: int,
    n_pairs: int,
) -> GatheredBatch:
    """A batch of a fixed shape, gathered from flat arrays on a GPU in two launches.

    The arrays have one row more than there are structures, atoms and pairs: what padding points to.

    Args:
        order: numbers of structures, last that of the padding, (n_steps, n_structures + 1) int64.
        step: row of `order` that is taken, (1,) int64.
        structures: first atom, atoms, first pair and pairs of each, (n + 1, 4) int64.
        positions: of all atoms, (n + 1, 3) float64, Å.
        atoms: atomic number, and first pair counted from that of the structure, (n + 1, 2) int64.
        pairs: both atoms counted from the first of the structure, and cell shift, (n + 1, 5) int32.
        of_structures: what else each structure has, (n + 1, ...) float64, up to six arrays.
        of_atoms: what else each atom has, likewise.
        n_atoms: of the result; one more than the structures have, at least.
        n_pairs: of the result.

    Returns:
        The batch. What does not fit is left out.

    Raises:
        ValueError, TypeError: naming the argument whose shape, dtype or device is wrong.
    """
    arrays = (structures, positions, atoms, pairs, of_structures, of_atoms)
    return GatheredBatch(*torch.ops.scschnet.gather_batch(order, step, *arrays, n_atoms, n_pairs))


def begin_step(
    plan: Tensor, step: Tensor, rate: Tensor, n_structures: Tensor, n_atoms: Tensor
) -> None:
    """Take a row of the plan of an epoch on a GPU, in one launch.

    Args:
        plan: learning rate, structures and atoms of every step, (n_steps, 3) float64.
        step: row that is taken, (1,) int64.
        rate: becomes the learning rate, () float32 or float64.
        n_structures: becomes the number of structures, () float64.
        n_atoms: becomes the number of atoms, () float64.

    Raises:
        ValueError, TypeError: naming the argument whose shape, dtype or device is wrong.
    """
    torch.ops.scschnet.begin_step(plan, step, rate, n_structures, n_atoms)


def record_step(
    gradient_norm: Tensor,
    loss: Tensor,
    n_structures: Tensor,
    norms: Tensor,
    weights: Tensor,
    clip: float,
    decay: float,
    counts: Tensor,
    history: Tensor,
    sums: Tensor,
    totals: Tensor,
    factors: Tensor,
) -> None:
    """Record a training step on a GPU in one launch: counts, sums, the clipping factor.

    Args:
        gradient_norm: (), dtype of the network.
        loss: () float64.
        n_structures: of the batch, () float64.
        norms: mean norm of every correction, (n_layers,) float64.
        weights: contribution weights, (n_layers,), dtype of the network.
        clip: a gradient longer than so many times the median of those in `history` is to be scaled down
            to that; 0: never.
        decay: largest one of the moving average; it grows to that as (1 + k) / (10 + k) with step k.
        counts: step of the epoch, steps in all, norms in all, (3,) int64; each grows by one.
        history: norms of gradients, number k at k mod n, (n,) float64, n at most 256; one is added.
        sums: of norms, normalized weights and their squares, (3, n_layers) float64; added to.
        totals: sum of losses times structures; first step with a loss or norm that is not finite, or -1,
            and both numbers; (4,) float64; added to.
        factors: becomes the factor of the gradient and the weight of the new parameters in the average,
            (2,) float64.

    Raises:
        ValueError, TypeError: naming the argument whose shape, dtype or device is wrong.
    """
    torch.ops.scschnet.record_step(
        gradient_norm,
        loss,
        n_structures,
        norms,
        weights,
        clip,
        decay,
        counts,
        history,
        sums,
        totals,
        factors,
    )


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, weight: Tensor, atomic_numbers: Tensor) -> Tensor:
        context.save_for_backward(atomic_numbers)
        context.n_rows = len(weight)
        return weight.index_select(0, atomic_numbers)

    @staticmethod
    @once_differentiable
    def backward(context: Any, bar: Tensor) -> tuple[Tensor, None]:
        (atomic_numbers,) = context.saved_tensors
        return torch.ops.scschnet.embedding_gradient(bar, atomic_numbers, context.n_rows), None


def embedding(weight: Tensor, atomic_numbers: Tensor) -> Tensor:
    """Rows of a table by atomic number, on a GPU; the gradient is summed by elements, in the order of the atoms.

    Args:
        weight: (n_rows, n_features) float32 or float64; row 0 is that of padding and gets no gradient.
        atomic_numbers: (n_atoms,) int64.

    Returns:
        (n_atoms, n_features). Differentiable once, in `weight`, with the same bits on every run.
    """
    return _Embedding.apply(weight, atomic_numbers)


class _SumEnergies(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        g: Tensor,
        atomic_numbers: Tensor,
        sizes: Tensor,
        idx_m: Tensor,
        *terms: Tensor,
    ) -> Tensor:
        scale, shift, atomref = terms
        context.save_for_backward(idx_m, scale)
        context.dtype = g.dtype
        numbers = (g, atomic_numbers, sizes)
        return torch.ops.scschnet.sum_energies(*numbers, scale, shift, atomref)

    @staticmethod
    @once_differentiable
    def backward(context: Any, bar: Tensor) -> tuple[Tensor | None, ...]:
        idx_m, scale = context.saved_tensors
        g_bar = torch.ops.scschnet.sum_energies_backward(bar, idx_m, scale, context.dtype)
        return g_bar, None, None, None, None, None, None


def sum_energies(
    g: Tensor,
    atomic_numbers: Tensor,
    sizes: Tensor,
    idx_m: Tensor,
    scale: Tensor,
    shift: Tensor,
    atomref: Tensor,
) -> Tensor:
    """Energies of structures from the numbers of their atoms, on a GPU in one launch.

    E_m = sum_i [ g_i * scale + shift + atomref[Z_i] ] over the atoms of structure m

    Args:
        g: (n_atoms,) float32 or float64.
        atomic_numbers: (n_atoms,) int64.
        sizes: (n_structures,) int64, atoms of each structure; they follow each other, padding comes last.
        idx_m: structure of each atom, (n_atoms,) int64; n_structures for padding.
        scale: () float64.
        shift: () float64.
        atomref: by atomic number, float64, eV.

    Returns:
        (n_structures,) float64, eV. Differentiable once, in `g`.

    Raises:
        ValueError, TypeError: naming the argument whose shape, dtype or device is wrong.
    """
    return _SumEnergies.apply(g, atomic_numbers, sizes, idx_m, scale, shift, atomref)


class _SquaredErrors(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        energy: Tensor | None,
        forces: Tensor | None,
        stress: Tensor | None,
        *rest: Any,
    ) -> Tensor:
        loss, bars = torch.ops.scschnet.squared_errors(energy, forces, stress, *rest)
        pairs = zip((energy, forces, stress), rest[:3], strict=True)
        context.counts = [value is not None and label is not None for value, label in pairs]
        context.n_others = len(rest)
        context.save_for_backward(*bars)
        return loss

    @staticmethod
    @once_differentiable
    def backward(context: Any, bar: Tensor) -> tuple[Tensor | None, ...]:
        scaled = iter(torch._foreach_mul(context.saved_tensors, bar))
        gradients = [next(scaled) if counts else None for counts in context.counts]
        return (*gradients, *[None] * context.n_others)


def squared_errors(
    values: Sequence[Tensor | None],
    labels: Sequence[Tensor | None],
    sizes: Tensor,
    volumes: Tensor,
    idx_m: Tensor,
    weights: Tensor | None,
    n_structures: Tensor,
    n_atoms: Tensor,
    factors: Sequence[float],
    per_atom: bool,
) -> Tensor:
    """The loss of a batch on a GPU, in one launch together with its derivatives.

    sum over quantities of factor / n times the sum of w_m (s_m (value - label))^2, where n is `n_structures` for energy and
    stress and `n_atoms` for forces; s is one, but `per_atom` it is 1 / atoms for energies and volume / atoms for stress.
    A label that is NaN counts nothing, nor does the stress of a structure without volume.

    Args:
        values: energy (n,), forces (n_rows, 3) and stress (n, 3, 3), float64; None: not trained on.
        labels: of the same.
        sizes: (n,) int64, atoms of each structure.
        volumes: (n,) float64, not positive or NaN without volume.
        idx_m: structure of each atom, (n_rows,) int64; n for padding.
        weights: (n,) float64, of each structure, or (n + 1,) with that of padding; None: all one.
        n_structures: over which means are taken, () float64.
        n_atoms: likewise.
        factors: of energy, forces and stress.
        per_atom: see above.

    Returns:
        () float64. Differentiable once, in `values`.

    Raises:
        ValueError, TypeError: naming the argument whose shape, dtype or device is wrong.
    """
    arrays = (sizes, volumes, idx_m, weights, n_structures, n_atoms)
    return _SquaredErrors.apply(*values, *labels, *arrays, list(factors), per_atom)


def mean_norms(
    norms: Tensor, idx_m: Tensor, n_structures: int, n_atoms: Tensor, means: Tensor
) -> None:
    """Mean norm of every correction over the atoms that are no padding, on a GPU in one launch.

    Args:
        norms: (n_layers, n_rows) float32 or float64.
        idx_m: structure of each atom, (n_rows,) int64.
        n_structures: an atom of this or a larger number is padding.
        n_atoms: over which the mean is taken, () float64.
        means: becomes the result, (n_layers,) float64.

    Raises:
        ValueError, TypeError: naming the argument whose shape, dtype or device is wrong.
    """
    torch.ops.scschnet.mean_norms(norms, idx_m, n_structures, n_atoms, means)
