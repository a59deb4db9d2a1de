// Spline weights: one thread per pair, in double precision.
#include "spline.hpp"

#include "device.cuh"

namespace scschnet::cuda {
namespace {

constexpr int threads = 256;
constexpr int n_powers = 6;

/// Coefficient of t^(p - k) in derivative k of B_m.
__host__ __device__ constexpr double piece_coefficient(int m, int k, int p) {
  double factor = quintic_pieces[m][p] / 120;
  for (int q = 0; q < k; ++q) factor *= p - q;
  return factor;
}

/// Derivative k in t of piece m. The coefficients are constants of the program: with indices known
/// only at run time the table would be built on the stack for every one of them.
template <int m, int k, int p = n_powers - 1>
__host__ __device__ inline double piece(double t, double higher = 0) {
  constexpr double coefficient = piece_coefficient(m, k, p);
  const double value = higher * t + coefficient;
  if constexpr (p > k) {
    return piece<m, k, p - 1>(t, value);
  } else {
    return value;
  }
}

/// fc and its derivatives in d up to `order`, for a distance below the cutoff. Horner's scheme for
/// a polynomial and its derivatives: f[k] collects derivative k over k!.
__host__ __device__ inline void cutoff_derivatives(const SplineGrid& grid, int order, double d,
                                                   double* f) {
  const CutoffPieces& pieces = grid.cutoff_function;
  const double pieces_per_length = static_cast<double>(pieces.n_pieces) / grid.cutoff;
  const double u = d * pieces_per_length;
  auto piece = static_cast<Index>(u);
  if (piece >= pieces.n_pieces) piece = pieces.n_pieces - 1;  // u may round up to n_pieces
  const double y = 2 * (u - static_cast<double>(piece)) - 1;
  const double* const coefficients = pieces.coefficients + piece * pieces.n_coefficients;
  for (int k = 0; k <= order; ++k) f[k] = 0;
  for (Index p = pieces.n_coefficients; p-- > 0;) {
    for (int k = order; k > 0; --k) f[k] = f[k] * y + f[k - 1];
    f[0] = f[0] * y + coefficients[p];
  }
  double factor = 1;  // k! (dy / dd)^k
  for (int k = 0; k <= order; ++k) {
    f[k] *= factor;
    factor *= (k + 1) * 2 * pieces_per_length;
  }
}

/// weights[n] of tap m, by Leibniz' rule: sum_k binomial(n, k) fc^(n-k) B_m^(k) / step^k.
template <int m, int k = 0>
__host__ __device__ inline double weight(int n, double t, double inverse_step, const double* f,
                                         double factor = 1) {
  const double term = factor * f[n - k] * piece<m, k>(t);
  if constexpr (k + 1 < n_powers) {
    if (k < n) {
      const double next = factor * (inverse_step * (n - k) / (k + 1));
      return term + weight<m, k + 1>(n, t, inverse_step, f, next);
    }
  }
  return term;
}

/// The weights of order n of all taps from m on.
template <int m = 0, class Store>
__host__ __device__ inline void for_taps(int n, double t, double inverse_step, const double* f,
                                         const Store& store) {
  store(m, weight<m>(n, t, inverse_step, f));
  if constexpr (m + 1 < n_taps) for_taps<m + 1>(n, t, inverse_step, f, store);
}

template <class Distance, class Scalar>
__global__ void __launch_bounds__(threads)
    weigh(SplineGrid grid, const Distance* distances, Index n_pairs, int first_order, int n_orders,
          std::int32_t* bins, Scalar* weights) {
  const double end = grid.step * static_cast<double>(grid.n_rows - n_taps + 1);
  const double inverse_step = 1 / grid.step;
  constexpr double largest = 1.7976931348623157e308;
  for (Index p = thread_index(); p < n_pairs; p += n_threads()) {
    const double given = distances[p];
    const bool below = given < grid.cutoff;
    const bool good = given >= 0 && given <= largest && (given < end || !below);
    const bool inside = good && below;
    const double u = inside ? given * inverse_step : 0;
    const auto bin = static_cast<std::int32_t>(u);
    if (bins != nullptr) bins[p] = bin;
    double f[max_spline_order + 1];
    cutoff_derivatives(grid, first_order + n_orders - 1, inside ? given : 0, f);
    for (int n = 0; n < n_orders; ++n) {
      Scalar* const row = weights + (n * n_pairs + p) * n_taps;
      for_taps(first_order + n, u - bin, inverse_step, f, [&](int m, double value) {
        row[m] = static_cast<Scalar>(inside ? value : good ? 0.0 : nan(""));
      });
    }
  }
}

}  // namespace

template <class Distance, class Scalar>
void spline_weights(const SplineGrid& grid, const Distance* d, std::int64_t n_pairs,
                    int first_order, int n_orders, std::int32_t* bins, Scalar* weights,
                    Stream stream) {
  launch(weigh<Distance, Scalar>, one_per_thread(n_pairs, threads, stream), grid, d, n_pairs,
         first_order, n_orders, bins, weights);
}

template void spline_weights(const SplineGrid&, const float*, std::int64_t, int, int, std::int32_t*,
                             float*, Stream);
template void spline_weights(const SplineGrid&, const double*, std::int64_t, int, int,
                             std::int32_t*, float*, Stream);
template void spline_weights(const SplineGrid&, const float*, std::int64_t, int, int, std::int32_t*,
                             double*, Stream);
template void spline_weights(const SplineGrid&, const double*, std::int64_t, int, int,
                             std::int32_t*, double*, Stream);

}  // namespace scschnet::cuda
