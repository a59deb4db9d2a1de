// Contract of the continuous-filter convolution with tabulated filters, and of its derivatives.
//
// W and W' are the filter and its derivative in the distance, vectors over the features
// (spline.hpp); o multiplies feature by feature. Sums over j run over all neighbors of atom i, so
// they see both directions of every pair:
//
// clang-format off
//
//     cfconv                          y_i      = sum_j x_j o W_ij
//     cfconv_backward                 x_bar_i  = sum_j y_bar_j o W_ij
//                                     d_bar_ij = sum_f (y_bar_i x_j + y_bar_j x_i) W'_ij
//     cfconv_dot                      d_bar_ij alone
//     cfconv_double_backward          out_i    = sum_j [ u_j o W_ij + v_ij x_j o W'_ij ]
//     cfconv_table_gradient           table_bar from the cotangent of y
//     cfconv_backward_table_gradient  table_bar from the cotangents of x_bar and d_bar
//     cfconv_total_table_gradient     the sum of these two, in one pass over the pairs
//
// clang-format on
//
// The list is half: every pair of atoms stands once, in the row of one of its two atoms, and a
// kernel adds its two contributions, to i and to j. In formulas a bar marks a cotangent, as in
// docs/derivation.md, which derives all of them.
#pragma once

#include <cstdint>

#include "neighbor_list.hpp"  // InstructionSet
#include "spline.hpp"

namespace scschnet {

/// Half list of the pairs of neighbors with their spline weights. It points to arrays of the caller
/// and owns none. Of (i, j, S) and (j, i, -S), which are the same pair seen from its two ends, one
/// stands in the list, in the row of one of its atoms. A pair of an atom with its own image (i = j)
/// counts twice, once from each end, like any other. The same two atoms may form several pairs,
/// with different images.
template <class Scalar>
struct HalfPairs {
  std::int64_t n_atoms;
  /// (n_atoms + 1,) pairs row_ptr[i] .. row_ptr[i+1] - 1 stand in the row of atom i
  const std::int64_t* row_ptr;
  const std::int64_t* idx_j;  ///< (n_pairs,) the other atom; n_pairs = row_ptr[n_atoms]
  const std::int32_t* bins;   ///< (n_pairs,) first row of the table that the pair touches
  const Scalar* w;            ///< (n_pairs, n_taps) weights of W
  const Scalar* z = nullptr;  ///< (n_pairs, n_taps) weights of W'; may be null where only W is used
};

/// Filters of one convolution.
template <class Scalar>
struct FilterTable {
  const Scalar* rows;       ///< (n_rows, n_features)
  std::int64_t n_rows;      ///< above every bin + n_taps - 1
  std::int64_t n_features;  ///< also the row length of every per-atom array
};

/// Features first .. last - 1: the part of the work that one call does. It leaves the outputs of
/// other features as they are, so that several threads can fill one array.
struct FeatureRange {
  std::int64_t first;
  std::int64_t last;
};

/// Features that make up one unit of work: 256 bytes of a row. If all ranges begin at multiples of
/// it, a result is the same to the bit however the features are divided among calls and threads.
/// Ranges whose length is a multiple of half of it run at full speed.
template <class Scalar>
constexpr std::int64_t feature_block = 256 / static_cast<std::int64_t>(sizeof(Scalar));

/// Number of feature blocks; the last one may be shorter.
template <class Scalar>
constexpr std::int64_t n_feature_blocks(std::int64_t n_features) {
  return (n_features + feature_block<Scalar> - 1) / feature_block<Scalar>;
}

/// The features of block b, out of n_features.
template <class Scalar>
constexpr FeatureRange feature_range(std::int64_t b, std::int64_t n_features) {
  const std::int64_t first = b * feature_block<Scalar>, last = first + feature_block<Scalar>;
  return {first, last < n_features ? last : n_features};
}

// For all functions: Scalar is float or double. Per-atom arrays are (n_atoms, n_features),
// row-major, and do not overlap. Indices and bins are trusted; check them once per list. A call is
// serial and gives the same bits every time; different instruction sets round differently. It
// allocates scratch memory for at most a few feature blocks of the table (std::bad_alloc).
namespace cpu {

/// y_i = sum_j x_j o W_ij. The filter is whatever the weights in `pairs.w` make of the table: with
/// those of W' or W'', or with each pair's weights multiplied by a number, the same function
/// convolves with another filter.
template <class Scalar>
void cfconv(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table, const Scalar* x,
            FeatureRange range, Scalar* y, InstructionSet isa);

/// Writes x_bar_i = sum_j y_bar_j o W_ij, and *adds* to d_bar (n_pairs,) this range's part of
/// sum_f (y_bar_i x_j + y_bar_j x_i) W'_ij: the derivative in the distance of the pair, both
/// directions together. The sum over features runs block after block. To get the same bits from any
/// number of threads, give each feature block its own zeroed array and add these in order.
template <class Scalar>
void cfconv_backward(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                     const Scalar* y_bar, const Scalar* x, FeatureRange range, Scalar* x_bar,
                     Scalar* d_bar, InstructionSet isa);

/// Adds this range's part of sum_f (a_i b_j + a_j b_i) W_ij, with the weights `pairs.w`, to dot
/// (n_pairs,). With the weights of W' it gives d_bar alone, where nobody asks for x_bar. The sum
/// runs in the same order as in cfconv_backward.
template <class Scalar>
void cfconv_dot(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table, const Scalar* a,
                const Scalar* b, FeatureRange range, Scalar* dot, InstructionSet isa);

/// out_i = sum_j [ u_j o W_ij + v_ij x_j o W'_ij ], with one number v (n_pairs,) per pair, the same
/// for both directions. Training on forces needs it twice: for the tangent of y along the tangents
/// u of x and v of the distances; and for the cotangent of x from the cotangents u of y and v of
/// d_bar, with y_bar in the place of x.
template <class Scalar>
void cfconv_double_backward(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                            const Scalar* u, const Scalar* v, const Scalar* x, FeatureRange range,
                            Scalar* out, InstructionSet isa);

/// table_bar[k + m] = sum over pairs of w_m (a_i b_j + a_j b_i), with k the pair's bin: the
/// derivative in the table of sum_i a_i . y_i, where y is the convolution of b. Writes all n_rows
/// rows; `table.rows` is not read and may be null.
template <class Scalar>
void cfconv_table_gradient(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                           const Scalar* a, const Scalar* b, FeatureRange range, Scalar* table_bar,
                           InstructionSet isa);

/// The gradient in the table of the two results of cfconv_backward, from the cotangents u of x_bar
/// and v of d_bar:
///     table_bar[k + m] = sum over pairs of   w_m (u_i y_bar_j + u_j y_bar_i)
///                                        + v z_m (y_bar_i x_j + y_bar_j x_i)
template <class Scalar>
void cfconv_backward_table_gradient(const HalfPairs<Scalar>& pairs,
                                    const FilterTable<Scalar>& table, const Scalar* u,
                                    const Scalar* v, const Scalar* y_bar, const Scalar* x,
                                    FeatureRange range, Scalar* table_bar, InstructionSet isa);

/// The sum of the two above in one pass, with lambda the cotangent of y:
///     table_bar[k + m] = sum over pairs of   w_m (lambda_i x_j + lambda_j x_i
///                                                 + u_i y_bar_j + u_j y_bar_i)
///                                        + v z_m (y_bar_i x_j + y_bar_j x_i)
template <class Scalar>
void cfconv_total_table_gradient(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                                 const Scalar* lambda, const Scalar* u, const Scalar* v,
                                 const Scalar* y_bar, const Scalar* x, FeatureRange range,
                                 Scalar* table_bar, InstructionSet isa);

}  // namespace cpu
}  // namespace scschnet
