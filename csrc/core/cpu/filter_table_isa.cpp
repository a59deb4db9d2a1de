// The activation in double precision, and the prefilter. The file is compiled once per instruction
// set, which SCSCHNET_KERNELS names, and exports one symbol and no other (see simd.hpp).
#include "filter_table_kernels.hpp"

#include "../filter_table.hpp"
#include "features.hpp"

namespace scschnet::cpu {
namespace {

constexpr int lanes = register_bytes / static_cast<int>(sizeof(double));
using F = Features<double, lanes>;
using Vector = F::Vector;
typedef long long Bits __attribute__((vector_size(register_bytes)));

/// exp(x) for -708 <= x <= 0. With x = n ln 2 + r and |r| < 0.35, exp(r) is its Taylor series up to
/// r^13, and n is added to the exponent.
inline Vector exponential(Vector x) {
  const Vector shift = F::broadcast(6755399441055744.0);  // 1.5 * 2^52: n lands in the low bits
  const Vector shifted = x * 1.4426950408889634 + shift;
  const Vector n = shifted - shift;
  Vector r = x - n * 6.93147180369123816490e-01;  // ln 2 in two parts
  r = r - n * 1.90821492927058770002e-10;
  constexpr double inverse_factorials[14] = {1.0,
                                             1.0,
                                             1.0 / 2,
                                             1.0 / 6,
                                             1.0 / 24,
                                             1.0 / 120,
                                             1.0 / 720,
                                             1.0 / 5040,
                                             1.0 / 40320,
                                             1.0 / 362880,
                                             1.0 / 3628800,
                                             1.0 / 39916800,
                                             1.0 / 479001600,
                                             1.0 / 6227020800};
  Vector sum = F::broadcast(inverse_factorials[13]);
#pragma GCC unroll 16
  for (int k = 12; k >= 0; --k) sum = sum * r + inverse_factorials[k];
  Bits bits, exponent;
  __builtin_memcpy(&bits, &sum, sizeof bits);
  __builtin_memcpy(&exponent, &shifted, sizeof exponent);
  bits += exponent << 52;
  __builtin_memcpy(&sum, &bits, sizeof bits);
  return sum;
}

/// Replaces z by ssp(z), and sets slope = ssp'(z). With e = exp(-|z|), ssp is max(z, 0) + ln(1 + e)
/// - ln 2, and ssp' is 1 / (1 + e) for positive and e / (1 + e) for negative z. The logarithm is
/// ln(1 + e) = 2 artanh(e / (2 + e)); the series is cut after the 33rd power of its argument, which
/// is at most 1/3.
inline void softplus(Vector& z, Vector& slope) {
  const Vector zero{}, magnitude = z < zero ? -z : z;
  const Vector limit = F::broadcast(708.0);
  const Vector e = exponential(magnitude < limit ? -magnitude : -limit);
  const Vector inverse = 1.0 / ((1.0 + e) * (2.0 + e));
  const Vector s = e * (1.0 + e) * inverse, q = s * s;
  Vector sum = F::broadcast(1.0 / 33);
#pragma GCC unroll 16
  for (int k = 15; k >= 0; --k) sum = sum * q + 1.0 / (2 * k + 1);
  slope = (2.0 + e) * inverse * (z < zero ? e : F::broadcast(1.0));
  z = (z < zero ? zero : z) + (2.0 * s * sum - 0.693147180559945309417);
}

/// The activation of count <= lanes elements.
template <class Scalar>
inline void activate_some(int count, double* z, Scalar* slopes) {
  Vector value{}, slope;
  for (int l = 0; l < count; ++l) value[l] = z[l];
  softplus(value, slope);
  for (int l = 0; l < count; ++l) {
    z[l] = value[l];
    slopes[l] = static_cast<Scalar>(slope[l]);
  }
}

template <class Scalar>
void activate(std::int64_t n, double* z, Scalar* slopes) {
  using Narrow = Features<Scalar, lanes>;
  std::int64_t k = 0;
  for (; k + lanes <= n; k += lanes) {
    Vector value = F::load(z + k), slope;
    softplus(value, slope);
    F::store(z + k, value);
    Narrow::store(slopes + k, __builtin_convertvector(slope, typename Narrow::Vector));
  }
  activate_some(static_cast<int>(n - k), z + k, slopes + k);
}

constexpr std::int64_t chunk = 64;  // so many features of the rows in use fit the first-level cache

template <class Scalar>
void prefilter(std::int64_t n_rows, std::int64_t n, const double* taps, const double* in,
               double* out, Scalar* rounded) {
  for (std::int64_t first = 0; first < n; first += chunk) {
    const std::int64_t last = first + chunk < n ? first + chunk : n;
    for (std::int64_t k = 0; k < n_rows; ++k) {
      const double* const row = in + k * n;
      for (std::int64_t f = first; f < last; ++f) {
        double sum = taps[0] * row[f];
#pragma GCC unroll 8
        for (int s = 1; s <= prefilter_order; ++s)
          sum += taps[s] * (row[f - s * n] + row[f + s * n]);
        out[k * n + f] = sum;
        rounded[k * n + f] = static_cast<Scalar>(sum);
      }
    }
  }
}

template <class Scalar>
void prefilter_times(std::int64_t n_rows, std::int64_t n, const Scalar* taps, const Scalar* in,
                     const Scalar* factor, Scalar* out) {
  for (std::int64_t first = 0; first < n; first += chunk) {
    const std::int64_t last = first + chunk < n ? first + chunk : n;
    for (std::int64_t k = 0; k < n_rows; ++k) {
      const Scalar* const row = in + k * n;
      for (std::int64_t f = first; f < last; ++f) {
        Scalar sum = taps[0] * row[f];
#pragma GCC unroll 8
        for (int s = 1; s <= prefilter_order; ++s)
          sum += taps[s] * (row[f - s * n] + row[f + s * n]);
        out[k * n + f] = sum * factor[k * n + f];
      }
    }
  }
}

template <class Scalar>
constexpr FilterTableLoops<Scalar> loops{activate<Scalar>, prefilter<Scalar>,
                                         prefilter_times<Scalar>};

}  // namespace

#define SCSCHNET_JOIN_(a, b) a##b
#define SCSCHNET_JOIN(a, b) SCSCHNET_JOIN_(a, b)
extern const FilterTableKernels SCSCHNET_JOIN(filter_table_, SCSCHNET_KERNELS){loops<float>,
                                                                               loops<double>};

}  // namespace scschnet::cpu
