"""Continuous-filter convolution with filters evaluated for every pair: plain, and the reference."""

from torch import Tensor


def cfconv(x: Tensor, filters: Tensor, idx_i: Tensor, idx_j: Tensor) -> Tensor:
    """Sum each atom's neighbors, weighted feature by feature with the pair's filters.

    y_i = sum_j x_j o W_ij      Schuett et al. 2017, arXiv:1706.08566

    Args:
        x: (n_atoms, n_filters).
        filters: W_ij including the cutoff function, (n_pairs, n_filters).
        idx_i: center of each pair, (n_pairs,) int64.
        idx_j: neighbor of each pair, (n_pairs,) int64.

    Returns:
        (n_atoms, n_filters); differentiable as often as needed in `x` and `filters`.
    """
    messages = x.index_select(0, idx_j) * filters
    return x.new_zeros(x.shape).index_add(0, idx_i, messages)
