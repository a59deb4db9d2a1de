// Spline weights, for a chunk of distances at a time: every loop over the lanes of a chunk becomes
// vector instructions. The file is compiled once per instruction set, which SCSCHNET_KERNELS names,
// and exports one symbol and no other (see simd.hpp).
//
//     d -> bin, t              where the distance lies             Places
//     d -> fc, fc', ...        cutoff function and derivatives     cutoff_derivatives
//     t -> B_m, B_m', ...      six splines and derivatives         piece
//     both -> weights          by Leibniz' rule                    combine
#include <cstring>
#include <limits>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

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

/// As many lanes of a chunk as a register holds.
#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX2__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif
using Register [[gnu::vector_size(register_bytes)]] = double;

/// Horner's scheme for a polynomial of one piece and its first derivative, which the network takes
/// in every step: for four registers of lanes at a time, so that none waits for another.
inline void value_and_slope(const CutoffPieces& fc, const Lanes& y, Lanes& value, Lanes& slope) {
  constexpr int at_a_time = 4;
  for (int l = 0; l < chunk; l += at_a_time * register_bytes / 8) {
    Register at[at_a_time], v[at_a_time] = {}, s[at_a_time] = {};
    std::memcpy(at, y.at + l, sizeof at);
    for (std::int64_t p = fc.n_coefficients; p-- > 0;) {
      const double c = fc.coefficients[p];
#pragma GCC unroll 4
      for (int r = 0; r < at_a_time; ++r) s[r] = s[r] * at[r] + v[r];
#pragma GCC unroll 4
      for (int r = 0; r < at_a_time; ++r) v[r] = v[r] * at[r] + c;
    }
    std::memcpy(value.at + l, v, sizeof v);
    std::memcpy(slope.at + l, s, sizeof s);
  }
}

/// The same for any number of pieces, and derivatives up to `order`: f[k] collects the k-th
/// derivative in y divided by k!. Lane l has its coefficients from `first[l]` on.
inline void all_derivatives(const CutoffPieces& fc, int order, const Lanes& y,
                            const std::int32_t* first, Lanes* f) {
  for (int k = 0; k <= order; ++k) {
    for (int l = 0; l < chunk; ++l) f[k].at[l] = 0;
  }
  for (std::int64_t p = fc.n_coefficients; p-- > 0;) {
    for (int k = order; k > 0; --k) {
      for (int l = 0; l < chunk; ++l) f[k].at[l] = f[k].at[l] * y.at[l] + f[k - 1].at[l];
    }
    if (fc.n_pieces == 1) {
      for (int l = 0; l < chunk; ++l) f[0].at[l] = f[0].at[l] * y.at[l] + fc.coefficients[p];
    } else {
      for (int l = 0; l < chunk; ++l)
        f[0].at[l] = f[0].at[l] * y.at[l] + fc.coefficients[first[l] + p];
    }
  }
}

/// f[k] = the k-th derivative of fc in d, for k up to `order`. `inside` is one for pairs below the
/// cutoff and zero for others.
inline void cutoff_derivatives(const SplineGrid& grid, int order, const Lanes& d,
                               const Lanes& inside, Lanes* f) {
  const CutoffPieces& fc = grid.cutoff_function;
  const double pieces_per_length = static_cast<double>(fc.n_pieces) / grid.cutoff;
  Lanes y;
  if (order == 1 && fc.n_pieces == 1) {
    for (int l = 0; l < chunk; ++l) y.at[l] = 2 * (d.at[l] * pieces_per_length) - 1;
    value_and_slope(fc, y, f[0], f[1]);
  } else {
    std::int32_t first[chunk];  // of the coefficients of the lane's piece
    for (int l = 0; l < chunk; ++l) {
      const double u = d.at[l] * pieces_per_length;
      const auto piece = static_cast<std::int32_t>(u);
      const auto last = static_cast<std::int32_t>(fc.n_pieces - 1);  // u may round up to n_pieces
      const std::int32_t k = piece < last ? piece : last;
      first[l] = k * static_cast<std::int32_t>(fc.n_coefficients);
      y.at[l] = 2 * (u - k) - 1;
    }
    all_derivatives(fc, order, y, first, f);
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
    Lanes given{};
    for (int l = 0; l < count; ++l) given.at[l] = static_cast<double>(distances[l]);
    std::int64_t wrong = 0;  // as wide as a distance, so that both fill a register
    for (int l = 0; l < chunk; ++l) {
      const double r = given.at[l];
      const bool is_inside = r < grid.cutoff, is_in_table = r < end;
      const bool is_good = (r >= 0) & (r <= largest) & (is_in_table | !is_inside);
      wrong |= is_good ? 0 : 1;
      inside.at[l] = is_inside ? 1 : 0;
      d.at[l] = is_inside & is_in_table ? r : 0;
    }
    if (wrong != 0) return false;
    for (int l = 0; l < chunk; ++l) bin[l] = static_cast<std::int32_t>(d.at[l] * inverse_step);
    for (int l = 0; l < chunk; ++l) t.at[l] = d.at[l] * inverse_step - static_cast<double>(bin[l]);
    return true;
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

#if defined(__AVX512F__)

/// Number e of sixteen rows is tap e % 6 of row e / 6. Of the registers of taps each gives to every
/// register of the rows what is its own.
///
///     taps   a0 a1 a2 ...      b0 b1 b2 ...     ...      f0 f1 f2 ...
///     rows   a0 b0 c0 d0 e0 f0 a1 b1 c1 d1 e1 f1 a2 b2 c2 d2 | e2 f2 a3 ...
struct Transposition {
  alignas(64) std::int32_t row[n_taps][16];
  __mmask16 of_tap[n_taps][n_taps];
  constexpr Transposition() : row{}, of_tap{} {
    for (int e = 0; e < n_taps * 16; ++e) {
      row[e / 16][e % 16] = e / n_taps;
      of_tap[e / 16][e % n_taps] = static_cast<__mmask16>(of_tap[e / 16][e % n_taps] | 1 << e % 16);
    }
  }
};
constexpr Transposition transposition;

/// Sixteen whole rows at a time; returns how many rows were written.
inline int write_sixteens(const float (*rounded)[chunk], int count, float* out) {
  int l = 0;
  for (; l + 16 <= count; l += 16) {
    __m512 taps[n_taps];
    for (int m = 0; m < n_taps; ++m) taps[m] = _mm512_load_ps(rounded[m] + l);
    for (int part = 0; part < n_taps; ++part) {
      const __m512i row = _mm512_load_si512(transposition.row[part]);
      __m512 rows = _mm512_setzero_ps();
      for (int m = 0; m < n_taps; ++m) {
        rows = _mm512_mask_permutexvar_ps(rows, transposition.of_tap[part][m], row, taps[m]);
      }
      _mm512_storeu_ps(out + l * n_taps + part * 16, rows);
    }
  }
  return l;
}

#else

inline int write_sixteens(const float (*)[chunk], int, float*) {
  return 0;
}

#endif

inline int write_sixteens(const double (*)[chunk], int, double*) {
  return 0;
}

/// Transposes the weights from one row per tap to one row per pair, and rounds them to Scalar.
template <class Scalar>
inline void write_rows(const Lanes* weight, int count, Scalar* out) {
  alignas(64) Scalar rounded[n_taps][chunk];
  for (int m = 0; m < n_taps; ++m) {
    for (int l = 0; l < chunk; ++l) rounded[m][l] = static_cast<Scalar>(weight[m].at[l]);
  }
  for (int l = write_sixteens(rounded, count, out); l < count; ++l) {
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
