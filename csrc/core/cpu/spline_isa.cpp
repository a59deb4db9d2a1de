// Spline weights, for a chunk of distances at a time: every loop over the lanes of a chunk becomes
// vector instructions. The file is compiled once per instruction set, which SCSCHNET_KERNELS names,
// and exports one symbol and no other (see simd.hpp).
//
//     d -> bin, t              where the distance lies             Places
//     d -> fc, fc', ...        cutoff function and derivatives     cutoff_derivatives
//     t -> B_m, B_m', ...      six splines and derivatives         piece
//     both -> weights          by Leibniz' rule                    combine
#include <limits>

#include "cfconv_kernels.hpp"

namespace scschnet::cpu {
namespace {

constexpr int chunk = 32;
constexpr int n_powers = 6;

/// of[k][m] are the coefficients of the k-th derivative in t of piece m.
struct PieceDerivatives {
  double of[n_powers][n_taps][n_powers] = {};
  constexpr PieceDerivatives() {
    for (int m = 0; m < n_taps; ++m) {
      for (int p = 0; p < n_powers; ++p) of[0][m][p] = quintic_pieces[m][p] / 120;
    }
    for (int k = 1; k < n_powers; ++k) {
      for (int m = 0; m < n_taps; ++m) {
        for (int p = 0; p + 1 < n_powers; ++p) of[k][m][p] = (p + 1) * of[k - 1][m][p + 1];
      }
    }
  }
};
constexpr PieceDerivatives derivatives;

/// One value per distance of a chunk.
struct Lanes {
  alignas(64) double at[chunk];
};

/// f[k] = the k-th derivative of fc in d, for k up to `order`. `inside` is one for pairs below the
/// cutoff and zero for others. This is Horner's scheme for a polynomial and its derivatives at
/// once: f[k] first collects the k-th derivative in y divided by k!, and is scaled at the end.
inline void cutoff_derivatives(const SplineGrid& grid, int order, const Lanes& d,
                               const Lanes& inside, Lanes* f) {
  const auto& [coefficients, n_pieces, n_coefficients] = grid.cutoff_function;
  const double pieces_per_length = static_cast<double>(n_pieces) / grid.cutoff;
  Lanes y;
  std::int32_t first[chunk];  // of the coefficients of the lane's piece
  for (int l = 0; l < chunk; ++l) {
    const double u = d.at[l] * pieces_per_length;
    const auto piece = static_cast<std::int32_t>(u);
    const auto last = static_cast<std::int32_t>(n_pieces - 1);  // u may round up to n_pieces
    const std::int32_t k = piece < last ? piece : last;
    first[l] = k * static_cast<std::int32_t>(n_coefficients);
    y.at[l] = 2 * (u - k) - 1;
  }
  for (int k = 0; k <= order; ++k) {
    for (int l = 0; l < chunk; ++l) f[k].at[l] = 0;
  }
  for (std::int64_t p = n_coefficients; p-- > 0;) {
    for (int k = order; k > 0; --k) {
      for (int l = 0; l < chunk; ++l) f[k].at[l] = f[k].at[l] * y.at[l] + f[k - 1].at[l];
    }
    if (n_pieces == 1) {
      for (int l = 0; l < chunk; ++l) f[0].at[l] = f[0].at[l] * y.at[l] + coefficients[p];
    } else {
      for (int l = 0; l < chunk; ++l)
        f[0].at[l] = f[0].at[l] * y.at[l] + coefficients[first[l] + p];
    }
  }
  double factor = 1;  // k! (dy / dd)^k
  for (int k = 0; k <= order; ++k) {
    for (int l = 0; l < chunk; ++l) f[k].at[l] *= factor * inside.at[l];
    factor *= (k + 1) * 2 * pieces_per_length;
  }
}

/// The k-th derivative in t of piece m.
inline void piece(int k, int m, const Lanes& t, Lanes& value) {
  const double* const c = derivatives.of[k][m];
  for (int l = 0; l < chunk; ++l) {
    double v = c[5];
    v = v * t.at[l] + c[4];
    v = v * t.at[l] + c[3];
    v = v * t.at[l] + c[2];
    v = v * t.at[l] + c[1];
    value.at[l] = v * t.at[l] + c[0];
  }
}

/// Where the distances of a chunk lie in the table. Lanes behind the last distance hold zero.
struct Places {
  Lanes d, inside, t;
  std::int32_t bin[chunk];

  template <class Distance>
  inline bool find(const SplineGrid& grid, double inverse_step, const Distance* distances,
                   int count) {
    const double end = grid.step * static_cast<double>(grid.n_rows - n_taps + 1);
    const double largest = std::numeric_limits<double>::max();
    int good = 0;
    for (int l = 0; l < chunk; ++l) {
      const double given = l < count ? static_cast<double>(distances[l]) : 0.0;
      good += given >= 0 && given <= largest && (given < end || given >= grid.cutoff);
      inside.at[l] = given < grid.cutoff ? 1 : 0;
      d.at[l] = given < grid.cutoff && given < end ? given : 0;
      const double u = d.at[l] * inverse_step;
      bin[l] = static_cast<std::int32_t>(u);
      t.at[l] = u - static_cast<double>(bin[l]);
    }
    return good == chunk;
  }
};

/// The weights of the n-th derivative, by Leibniz' rule: sum_k binomial(n, k) fc^(n-k) B_m^(k) /
/// step^k.
inline void combine(int n, double inverse_step, const Lanes* f, const Lanes (*pieces_of)[n_taps],
                    Lanes* weight) {
  for (int m = 0; m < n_taps; ++m) {
    for (int l = 0; l < chunk; ++l) weight[m].at[l] = f[n].at[l] * pieces_of[0][m].at[l];
    double factor = 1;
    for (int k = 1; k <= n && k < n_powers; ++k) {
      factor *= inverse_step * (n - k + 1) / k;
      for (int l = 0; l < chunk; ++l) {
        weight[m].at[l] += factor * f[n - k].at[l] * pieces_of[k][m].at[l];
      }
    }
  }
}

/// Transposes the weights from one row per tap to one row per pair, and rounds them to Scalar.
template <class Scalar>
inline void write_rows(const Lanes* weight, int count, Scalar* out) {
  alignas(64) Scalar rounded[n_taps][chunk];
  for (int m = 0; m < n_taps; ++m) {
    for (int l = 0; l < chunk; ++l) rounded[m][l] = static_cast<Scalar>(weight[m].at[l]);
  }
  for (int l = 0; l < count; ++l) {
#pragma GCC unroll 6
    for (int m = 0; m < n_taps; ++m) out[l * n_taps + m] = rounded[m][l];
  }
}

template <class Distance, class Scalar>
std::int64_t spline_weights(const SplineOrders& orders, const Distance* d, std::int64_t n_pairs,
                            std::int32_t* bins, Scalar* weights) {
  const double inverse_step = 1 / orders.grid.step;
  const int last = orders.first_order + orders.n_orders - 1;
  Places places;
  Lanes f[max_spline_order + 1], pieces_of[n_powers][n_taps], weight[n_taps];
  for (std::int64_t begin = 0; begin < n_pairs; begin += chunk) {
    const int count = n_pairs - begin < chunk ? static_cast<int>(n_pairs - begin) : chunk;
    if (!places.find(orders.grid, inverse_step, d + begin, count)) {
      for (int l = 0; l < count; ++l) {
        if (!places.find(orders.grid, inverse_step, d + begin + l, 1)) return begin + l;
      }
    }
    if (bins != nullptr) {
      __builtin_memcpy(bins + begin, places.bin, count * sizeof(std::int32_t));
    }
    cutoff_derivatives(orders.grid, last, places.d, places.inside, f);
    for (int k = 0; k <= last && k < n_powers; ++k) {
      for (int m = 0; m < n_taps; ++m) piece(k, m, places.t, pieces_of[k][m]);
    }
    for (int n = orders.first_order; n <= last; ++n) {
      combine(n, inverse_step, f, pieces_of, weight);
      write_rows(weight, count, weights + ((n - orders.first_order) * n_pairs + begin) * n_taps);
    }
  }
  return -1;
}

}  // namespace

#define SCSCHNET_JOIN_(a, b) a##b
#define SCSCHNET_JOIN(a, b) SCSCHNET_JOIN_(a, b)
extern const SplineKernels SCSCHNET_JOIN(spline_, SCSCHNET_KERNELS){
    spline_weights<float, float>, spline_weights<double, float>, spline_weights<float, double>,
    spline_weights<double, double>};

}  // namespace scschnet::cpu
