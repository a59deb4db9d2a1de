// Spline weights: checks, and the choice of the instruction set.
#include "../spline.hpp"

#include <cmath>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "../neighbor_list.hpp"
#include "cfconv_kernels.hpp"

namespace scschnet {

std::int64_t least_spline_rows(double step, double cutoff) {
  return static_cast<std::int64_t>(std::floor(cutoff / step)) + n_taps;
}

namespace cpu {
namespace {

const SplineKernels& best_spline_kernels() {
#if defined(SCSCHNET_X86)
  static const InstructionSet best = available_instruction_sets().back();
  if (best >= InstructionSet::avx512) return spline_kernels_avx512;
  if (best == InstructionSet::avx2) return spline_kernels_avx2;
#endif
  return spline_kernels_generic;
}

void check(const SplineGrid& grid, int first_order, int n_orders) {
  int exponent = 0;
  if (!(grid.cutoff > 0) || !std::isfinite(grid.cutoff)) {
    throw std::invalid_argument("`cutoff` must be positive and finite, got " +
                                std::to_string(grid.cutoff));
  }
  if (!(grid.step > 0) || !std::isfinite(grid.step) || std::frexp(grid.step, &exponent) != 0.5) {
    throw std::invalid_argument("`step` must be a power of two, got " + std::to_string(grid.step));
  }
  if (grid.cutoff / grid.step > 1e6) {
    throw std::invalid_argument("`step` must be at least a millionth of the cutoff, got " +
                                std::to_string(grid.step));
  }
  if (grid.n_rows < n_taps || grid.n_rows > (std::int64_t{1} << 30)) {
    throw std::invalid_argument("`table` must have at least " + std::to_string(n_taps) +
                                " rows, got " + std::to_string(grid.n_rows));
  }
  if (first_order < 0 || n_orders < 0 || first_order + n_orders - 1 > max_spline_order) {
    throw std::invalid_argument(
        "`order` must lie between 0 and " + std::to_string(max_spline_order) + ", got " +
        std::to_string(first_order < 0 ? first_order : first_order + n_orders - 1));
  }
}

template <class Distance, class Scalar>
auto kernel() {
  const SplineKernels& kernels = best_spline_kernels();
  constexpr bool from_float = std::is_same_v<Distance, float>;
  if constexpr (std::is_same_v<Scalar, float>) {
    if constexpr (from_float)
      return kernels.float_to_float;
    else
      return kernels.double_to_float;
  } else {
    if constexpr (from_float)
      return kernels.float_to_double;
    else
      return kernels.double_to_double;
  }
}

}  // namespace

template <class Distance, class Scalar>
void spline_weights(const SplineGrid& grid, const Distance* d, std::int64_t n_pairs,
                    int first_order, int n_orders, std::int32_t* bins, Scalar* weights) {
  check(grid, first_order, n_orders);
  const std::int64_t bad =
      kernel<Distance, Scalar>()({grid, first_order, n_orders}, d, n_pairs, bins, weights);
  if (bad < 0) return;
  const double value = static_cast<double>(d[bad]);
  const std::string got = ", got " + std::to_string(value) + " for pair " + std::to_string(bad);
  if (std::isfinite(value) && value >= 0) {
    throw std::invalid_argument(
        "`d_ij` must lie within the table, which ends at " +
        std::to_string(grid.step * static_cast<double>(grid.n_rows - n_taps + 1)) + got);
  }
  throw std::invalid_argument("`d_ij` must be finite and not negative" + got);
}

template void spline_weights(const SplineGrid&, const float*, std::int64_t, int, int, std::int32_t*,
                             float*);
template void spline_weights(const SplineGrid&, const double*, std::int64_t, int, int,
                             std::int32_t*, float*);
template void spline_weights(const SplineGrid&, const float*, std::int64_t, int, int, std::int32_t*,
                             double*);
template void spline_weights(const SplineGrid&, const double*, std::int64_t, int, int,
                             std::int32_t*, double*);

}  // namespace cpu
}  // namespace scschnet
