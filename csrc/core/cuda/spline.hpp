// Contract of spline weights on a GPU.
#pragma once

#include <cstdint>

#include "../spline.hpp"
#include "stream.hpp"

namespace scschnet::cuda {

/// As cpu::spline_weights, on device arrays, with one difference: nothing is read back, so a
/// distance that is negative, not finite, or below the cutoff and beyond the table gets bin 0
/// and weights NaN. The grid is trusted.
template <class Distance, class Scalar>
void spline_weights(const SplineGrid& grid, const Distance* d, std::int64_t n_pairs,
                    int first_order, int n_orders, std::int32_t* bins, Scalar* weights,
                    Stream stream);

}  // namespace scschnet::cuda
