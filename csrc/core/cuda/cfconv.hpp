// Contract of the convolution with tabulated filters, and of its derivatives, on a GPU: the
// functions of ../cfconv.hpp on device arrays, all features in one call.
//
// The half list is given with its other side (pairs.hpp): every atom gathers from all its
// neighbors, nothing is scattered, there are no floating-point atomics, and every result has the
// same bits on every run of the same device. Indices and bins are trusted.
#pragma once

#include <cstdint>

#include "../cfconv.hpp"
#include "pairs.hpp"
#include "stream.hpp"

namespace scschnet::cuda {

/// Half list and partners on the device; `half.z` may be null where only W is used.
template <class Scalar>
struct PairsBothWays {
  HalfPairs<Scalar> half;
  Partners partners;
  std::int64_t n_pairs;  ///< size of the arrays of pairs; the list may end before
};

/// y_i = sum_j x_j o W_ij, with the weights `half.w`.
template <class Scalar>
void cfconv(const PairsBothWays<Scalar>& pairs, const FilterTable<Scalar>& table, const Scalar* x,
            Scalar* y, Stream stream);

/// Scalars of scratch memory for cfconv_backward and cfconv_dot.
template <class Scalar>
std::int64_t dot_scratch_size(std::int64_t n_features, std::int64_t n_pairs);

/// x_bar_i = sum_j y_bar_j o W_ij, written; d_bar_ij = sum_f (y_bar_i x_j + y_bar_j x_i) W'_ij,
/// written (`add`: added) for all n_pairs, zero behind the last pair.
template <class Scalar>
void cfconv_backward(const PairsBothWays<Scalar>& pairs, const FilterTable<Scalar>& table,
                     const Scalar* y_bar, const Scalar* x, Scalar* x_bar, Scalar* d_bar, bool add,
                     Scalar* scratch, Stream stream);

/// sum_f (a_i b_j + a_j b_i) W_ij with the weights `half.w`; `dot` as d_bar above.
template <class Scalar>
void cfconv_dot(const PairsBothWays<Scalar>& pairs, const FilterTable<Scalar>& table,
                const Scalar* a, const Scalar* b, Scalar* dot, bool add, Scalar* scratch,
                Stream stream);

/// out_i = sum_j [ u_j o W_ij + v_ij x_j o W'_ij ].
template <class Scalar>
void cfconv_double_backward(const PairsBothWays<Scalar>& pairs, const FilterTable<Scalar>& table,
                            const Scalar* u, const Scalar* v, const Scalar* x, Scalar* out,
                            Stream stream);

/// Scalars of scratch memory for table gradients.
std::int64_t table_gradient_scratch_size(std::int64_t n_blocks, std::int64_t n_rows,
                                         std::int64_t n_features, std::int64_t n_pairs);

/// Bins of a table: where its readers may begin.
constexpr std::int64_t n_bins_of(std::int64_t n_rows) {
  return n_rows - n_taps + 1;
}

/// The three table gradients of ../cfconv.hpp, of the tables of n_blocks blocks together: features
/// (n_blocks, n_atoms, n_features), table_bar (n_blocks, n_rows, n_features). `lambda` null:
/// cfconv_backward_table_gradient.
/// `sorted`: the pairs by the n_bins_of(n_rows) bins of the table. `table.rows` is not read. All
/// rows are written.
template <class Scalar>
void cfconv_table_gradient(const PairsBothWays<Scalar>& pairs, const PairsByBin& sorted,
                           std::int64_t n_blocks, const FilterTable<Scalar>& table, const Scalar* a,
                           const Scalar* b, Scalar* table_bar, Scalar* scratch, Stream stream);

template <class Scalar>
void cfconv_total_table_gradient(const PairsBothWays<Scalar>& pairs, const PairsByBin& sorted,
                                 std::int64_t n_blocks, const FilterTable<Scalar>& table,
                                 const Scalar* lambda, const Scalar* u, const Scalar* v,
                                 const Scalar* y_bar, const Scalar* x, Scalar* table_bar,
                                 Scalar* scratch, Stream stream);

/// `sort_by_bin` of pairs whose partners are known.
template <class Scalar>
PairsByBin sort_by_bin(const PairsBothWays<Scalar>& pairs, std::int64_t n_rows, void* memory,
                       Stream stream) {
  const auto& half = pairs.half;
  return sort_by_bin(half.n_atoms, pairs.n_pairs, n_bins_of(n_rows), half.row_ptr, half.idx_j,
                     pairs.partners.centers, half.bins, memory, stream);
}

}  // namespace scschnet::cuda
