// What the convolution's operators share: the arguments that describe the pairs, their checks, and
// threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "../core/cfconv.hpp"

namespace scschnet {

/// The last arguments of every operator on pairs. Derivatives are taken in `d_ij` alone: `bins` and
/// `weights` are computed from it once per geometry (operator spline_weights) and shared by all
/// convolutions.
struct Pairs {
  at::Tensor d_ij;     ///< (n_pairs,) Å
  at::Tensor bins;     ///< (n_pairs,) int32
  at::Tensor weights;  ///< (n_orders, n_pairs, 6): of the filter and its first derivatives; more
                       ///< orders cost time only
  at::Tensor row_ptr;  ///< (n_atoms + 1,) int64
  at::Tensor idx_j;    ///< (n_pairs,) int64
  double step;
  double cutoff;
  at::Tensor cutoff_pieces;  ///< (n_pieces, n_coefficients) float64, see CutoffPieces
};

/// Schema of these arguments, and their types and names in a C++ signature.
#define SCSCHNET_PAIRS_SCHEMA                                                                  \
  "Tensor d_ij, Tensor bins, Tensor weights, Tensor row_ptr, Tensor idx_j, float step, float " \
  "cutoff, "                                                                                   \
  "Tensor cutoff_pieces"
#define SCSCHNET_PAIRS_PARAMETERS                                                     \
  const at::Tensor &d_ij, const at::Tensor &bins, const at::Tensor &weights,          \
      const at::Tensor &row_ptr, const at::Tensor &idx_j, double step, double cutoff, \
      const at::Tensor &cutoff_pieces
#define SCSCHNET_PAIRS_ARGUMENTS(pairs)                                                      \
  (pairs).d_ij, (pairs).bins, (pairs).weights, (pairs).row_ptr, (pairs).idx_j, (pairs).step, \
      (pairs).cutoff, (pairs).cutoff_pieces
#define SCSCHNET_PAIRS                                               \
  Pairs {                                                            \
    d_ij, bins, weights, row_ptr, idx_j, step, cutoff, cutoff_pieces \
  }

/// Raises ValueError or TypeError unless `cutoff_pieces` is a matrix of float64 on the device of
/// `like`.
[[gnu::visibility("default")]] void check_cutoff_pieces(const at::Tensor& cutoff_pieces,
                                                        const at::Tensor& like);

// Indices on a CPU are read before core follows them: a wrong one would lead into foreign memory.
// One pass over a pair's 12 bytes, where a convolution reads hundreds.

/// Raises ValueError unless there can be so many atoms; a number near the largest of all would
/// overflow where rows are counted.
inline void check_n_atoms(std::int64_t n_atoms) {
  constexpr std::int64_t most = std::int64_t{1} << 40;
  TORCH_CHECK_VALUE(n_atoms >= 0, "`n_atoms` must not be negative, got ", n_atoms);
  TORCH_CHECK_VALUE(n_atoms <= most, "`n_atoms` must be at most ", most, ", got ", n_atoms);
}

/// Raises ValueError naming the index unless all its entries lie between 0 and end - 1; `index` is
/// contiguous and int64.
void check_range(const at::Tensor& index, const char* name, std::int64_t end);

/// Raises ValueError unless `row_ptr`, contiguous and int64, ascends from 0 to the number of pairs.
void check_rows(const at::Tensor& row_ptr, std::int64_t n_pairs);

/// Raises ValueError unless the six rows from every bin on lie in a table; `bins` is contiguous and
/// int32.
void check_bins(const at::Tensor& bins, std::int64_t n_rows);

/// The grid that operators pass to core; `cutoff_pieces`, contiguous, must outlive it.
inline SplineGrid spline_grid(double step, double cutoff, const at::Tensor& cutoff_pieces,
                              std::int64_t n_rows) {
  return {step,
          cutoff,
          {cutoff_pieces.const_data_ptr<double>(), cutoff_pieces.size(0), cutoff_pieces.size(1)},
          n_rows};
}

/// Calls work(b) for b = 0 .. n - 1 on torch's threads.
template <class Work>
void parallel_for(std::int64_t n, const Work& work);

namespace detail {
void parallel_for(std::int64_t n, void (*call)(std::int64_t, const void*), const void* work);
}

template <class Work>
void parallel_for(std::int64_t n, const Work& work) {
  detail::parallel_for(
      n, [](std::int64_t b, const void* w) { (*static_cast<const Work*>(w))(b); }, &work);
}

}  // namespace scschnet
