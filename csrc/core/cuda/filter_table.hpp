// Contract of what filter tables need on a GPU beside matrix products (which the caller makes, in
// float64, for all blocks at once): activation, prefilter, and their gradients. See
// ../filter_table.hpp.
#pragma once

#include <cstdint>

#include "../filter_table.hpp"
#include "stream.hpp"

namespace scschnet::cuda {

/// From hidden = rbf A1 + b1 (n_blocks, n_nodes, n_filters): samples = ssp(hidden), written over
/// it, and slopes = ssp'.
template <class Scalar>
void activate_samples(std::int64_t n, double* hidden, Scalar* slopes, Stream stream);

/// coefficients (n_blocks, n_rows, n_filters) = P[samples], in double and rounded. prefilter
/// (prefilter_order + 1,).
template <class Scalar>
void prefilter_samples(const FilterTableSizes& sizes, std::int64_t n_blocks,
                       const double* prefilter, const double* samples, double* coefficients,
                       Scalar* rounded, Stream stream);

/// hidden_bar (n_blocks, n_nodes, n_filters) = slopes o P^T[coefficients_bar].
template <class Scalar>
void prefilter_backward(const FilterTableSizes& sizes, std::int64_t n_blocks,
                        const double* prefilter, const Scalar* coefficients_bar,
                        const Scalar* slopes, Scalar* hidden_bar, Stream stream);

}  // namespace scschnet::cuda
