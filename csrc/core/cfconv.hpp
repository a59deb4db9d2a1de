// Contract of the continuous-filter convolution with tabulated filters, and of its derivatives.
//
// W and W' are the filter and its derivative, vectors over the features (spline.hpp); o multiplies
// feature by feature. Sums over j run over all neighbors of atom i, in both directions of every
// pair:
//
//     cfconv                   y_i = sum_j x_j o W_ij
//     cfconv_backward          x_bar_i = sum_j y_bar_j o W_ij,     d_bar_ij = sum_f (y_bar_i x_j +
//     y_bar_j x_i) W'_ij cfconv_double_backward   y_bar_bar_i = sum_j [ u_j o W_ij + v_ij x_j o
//     W'_ij ] cfconv_table_gradient    table_bar, see there cfconv_dot               d_bar_ij alone
#pragma once

#include <cstdint>

#include "neighbor_list.hpp"  // InstructionSet
#include "spline.hpp"

namespace scschnet {

/// Half list of the pairs of neighbors with their spline weights. Nothing is owned. Every
/// undirected pair (i, j, S) ~ (j, i, -S) stands once, in the row of one of its atoms. A pair of an
/// atom with its own image (i = j) counts twice, once each way, like any other. The same two atoms
/// may pair several times.
template <class Scalar>
struct HalfPairs {
  std::int64_t n_atoms;
  const std::int64_t*
      row_ptr;                ///< (n_atoms + 1,) pairs row_ptr[i] .. row_ptr[i+1] stand with atom i
  const std::int64_t* idx_j;  ///< (n_pairs,) the other atom, n_pairs = row_ptr[n_atoms]
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

/// Features first .. last - 1: the part of the work that a call does. Outputs of other features are
/// left alone.
struct FeatureRange {
  std::int64_t first;
  std::int64_t last;
};

/// The unit of work, 256 bytes. A result does not depend, to the bit, on how the features are
/// divided among calls and threads if ranges begin at multiples of it. Ranges whose length is a
/// multiple of half of it are fast.
template <class Scalar>
constexpr std::int64_t feature_block = 256 / static_cast<std::int64_t>(sizeof(Scalar));

/// Number of feature blocks, the last one perhaps shorter.
template <class Scalar>
constexpr std::int64_t n_feature_blocks(std::int64_t n_features) {
  return (n_features + feature_block<Scalar> - 1) / feature_block<Scalar>;
}

/// Block b of n_features features.
template <class Scalar>
constexpr FeatureRange feature_range(std::int64_t b, std::int64_t n_features) {
  const std::int64_t first = b * feature_block<Scalar>, last = first + feature_block<Scalar>;
  return {first, last < n_features ? last : n_features};
}

// All functions: Scalar is float or double; per-atom arrays are (n_atoms, n_features), row-major,
// not overlapping; indices and bins are trusted (check them once per list); each call is serial,
// gives the same bits every time, and allocates at most a few feature blocks of the table as
// scratch (std::bad_alloc). Instruction sets differ in rounding.
namespace cpu {

/// y_i = sum_j x_j o W_ij. With another set of weights in `pairs.w` (those of W' or W'', or
/// multiplied by one number per pair) the same function gives the convolution with another filter.
template <class Scalar>
void cfconv(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table, const Scalar* x,
            FeatureRange range, Scalar* y, InstructionSet isa);

/// x_bar_i = sum_j y_bar_j o W_ij; *adds* the features' part of sum_f (y_bar_i x_j + y_bar_j x_i)
/// W'_ij to d_bar (n_pairs,): the derivative in the distance of the pair, both directions together.
/// The sum over features runs block after block. For the same bits from several threads give each
/// block its own zeroed array and add these in order.
template <class Scalar>
void cfconv_backward(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                     const Scalar* y_bar, const Scalar* x, FeatureRange range, Scalar* x_bar,
                     Scalar* d_bar, InstructionSet isa);

/// Adds the features' part of sum_f (a_i b_j + a_j b_i) W_ij, weights `pairs.w`, to dot (n_pairs,):
/// d_bar alone, where nobody asks for x_bar. Order of the sum as above.
template <class Scalar>
void cfconv_dot(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table, const Scalar* a,
                const Scalar* b, FeatureRange range, Scalar* dot, InstructionSet isa);

/// out_i = sum_j [ u_j o W_ij + v_ij x_j o W'_ij ], v (n_pairs,) symmetric. Two passes of a force
/// training are this: the tangent of y along a tangent v of the distances (u: tangent of x), and
/// x_bar from the cotangents u of y and v of d_bar (with y_bar in the place of x).
template <class Scalar>
void cfconv_double_backward(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                            const Scalar* u, const Scalar* v, const Scalar* x, FeatureRange range,
                            Scalar* out, InstructionSet isa);

/// table_bar[k + m] = sum over pairs of w_m (a_i b_j + a_j b_i): the derivative of sum(a o y(b)) in
/// the table. Writes all n_rows rows; `table.rows` is not read and may be null.
template <class Scalar>
void cfconv_table_gradient(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                           const Scalar* a, const Scalar* b, FeatureRange range, Scalar* table_bar,
                           InstructionSet isa);

/// table_bar[k + m] = sum over pairs of w_m (u_i y_bar_j + u_j y_bar_i) + v z_m (y_bar_i x_j +
/// y_bar_j x_i): from the cotangents u of x_bar and v of d_bar.
template <class Scalar>
void cfconv_backward_table_gradient(const HalfPairs<Scalar>& pairs,
                                    const FilterTable<Scalar>& table, const Scalar* u,
                                    const Scalar* v, const Scalar* y_bar, const Scalar* x,
                                    FeatureRange range, Scalar* table_bar, InstructionSet isa);

/// The sum of the two above in one pass, with lambda the cotangent of y:
/// table_bar[k + m] = sum over pairs of w_m (lambda_i x_j + lambda_j x_i + u_i y_bar_j + u_j
/// y_bar_i)
///                                    + v z_m (y_bar_i x_j + y_bar_j x_i)
template <class Scalar>
void cfconv_total_table_gradient(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                                 const Scalar* lambda, const Scalar* u, const Scalar* v,
                                 const Scalar* y_bar, const Scalar* x, FeatureRange range,
                                 Scalar* table_bar, InstructionSet isa);

}  // namespace cpu
}  // namespace scschnet
