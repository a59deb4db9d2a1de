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

constexpr int n_powers = 6;

/// How many distances there are in a chunk.
template <class Real>
constexpr int chunk = 256 / static_cast<int>(sizeof(Real));

/// of[k][m] are the coefficients of the k-th derivative in t of piece m.
template <class Real>
struct PieceDerivatives {
  Real of[n_powers][n_taps][n_powers] = {};
  constexpr PieceDerivatives() {
    double exact[n_powers][n_taps][n_powers] = {};
    for (int m = 0; m < n_taps; ++m) {
      for (int p = 0; p < n_powers; ++p) exact[0][m][p] = quintic_pieces[m][p] / 120;
    }
    for (int k = 1; k < n_powers; ++k) {
      for (int m = 0; m < n_taps; ++m) {
        for (int p = 0; p + 1 < n_powers; ++p) exact[k][m][p] = (p + 1) * exact[k - 1][m][p + 1];
      }
    }
    for (int k = 0; k < n_powers; ++k) {
      for (int m = 0; m < n_taps; ++m) {
        for (int p = 0; p < n_powers; ++p) of[k][m][p] = static_cast<Real>(exact[k][m][p]);
      }
    }
  }
};
template <class Real>
constexpr PieceDerivatives<Real> derivatives;

/// One value per distance of a chunk of Reals.
template <class Real, class Value = Real>
struct Lanes {
  alignas(64) Value at[chunk<Real>];
};

/// As many lanes of a chunk as a register holds.
#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX2__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

/// Horner's scheme for a polynomial of one piece and its first derivative, which the network takes
/// in every step: for four registers of lanes at a time, so that none waits for another.
template <class Real>
inline void value_and_slope(const CutoffPieces& fc, const Lanes<Real>& y, Lanes<Real>& value,
                            Lanes<Real>& slope) {
  using Register [[gnu::vector_size(register_bytes)]] = Real;
  constexpr int at_a_time = 4, step = at_a_time * register_bytes / static_cast<int>(sizeof(Real));
  for (int l = 0; l < chunk<Real>; l += step) {
    Register at[at_a_time], v[at_a_time] = {}, s[at_a_time] = {};
    std::memcpy(at, y.at + l, sizeof at);
    for (std::int64_t p = fc.n_coefficients; p-- > 0;) {
      const Real c = static_cast<Real>(fc.coefficients[p]);
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
template <class Real>
inline void all_derivatives(const CutoffPieces& fc, int order, const Lanes<Real>& y,
                            const std::int32_t* first, Lanes<Real>* f) {
  constexpr int n = chunk<Real>;
  for (int k = 0; k <= order; ++k) {
    for (int l = 0; l < n; ++l) f[k].at[l] = 0;
  }
  for (std::int64_t p = fc.n_coefficients; p-- > 0;) {
    for (int k = order; k > 0; --k) {
      for (int l = 0; l < n; ++l) f[k].at[l] = f[k].at[l] * y.at[l] + f[k - 1].at[l];
    }
    if (fc.n_pieces == 1) {
      const Real c = static_cast<Real>(fc.coefficients[p]);
      for (int l = 0; l < n; ++l) f[0].at[l] = f[0].at[l] * y.at[l] + c;
    } else {
      for (int l = 0; l < n; ++l)
        f[0].at[l] = f[0].at[l] * y.at[l] + static_cast<Real>(fc.coefficients[first[l] + p]);
    }
  }
}

/// Where the distances of a chunk lie in the table. Lanes behind the last distance hold zero.
template <class Real>
struct Places {
  Lanes<Real, double> d;
  Lanes<Real> inside;  // one for pairs below the cutoff and zero for others
  Lanes<Real> t;
  std::int32_t bin[chunk<Real>];

  template <class Distance>
  inline bool find(const SplineGrid& grid, double inverse_step, const Distance* distances,
                   int count) {
    constexpr int n = chunk<Real>;
    const double end = grid.step * static_cast<double>(grid.n_rows - n_taps + 1);
    const double largest = std::numeric_limits<double>::max();
    Lanes<Real, double> given{};
    for (int l = 0; l < count; ++l) given.at[l] = static_cast<double>(distances[l]);
    std::int64_t wrong = 0;  // as wide as a distance, so that both fill a register
    for (int l = 0; l < n; ++l) {
      const double r = given.at[l];
      const bool is_inside = r < grid.cutoff, is_in_table = r < end;
      const bool is_good = (r >= 0) & (r <= largest) & (is_in_table | !is_inside);
      wrong |= is_good ? 0 : 1;
      inside.at[l] = is_inside ? Real(1) : Real(0);
      d.at[l] = is_inside & is_in_table ? r : 0;
    }
    if (wrong != 0) return false;
    for (int l = 0; l < n; ++l) bin[l] = static_cast<std::int32_t>(d.at[l] * inverse_step);
    for (int l = 0; l < n; ++l) {
      t.at[l] = static_cast<Real>(d.at[l] * inverse_step - static_cast<double>(bin[l]));
    }
    return true;
  }
};

/// f[k] = the k-th derivative of fc in d, for k up to `order`.
template <class Real>
inline void cutoff_derivatives(const SplineGrid& grid, int order, const Places<Real>& places,
                               Lanes<Real>* f) {
  constexpr int n = chunk<Real>;
  const CutoffPieces& fc = grid.cutoff_function;
  const double pieces_per_length = static_cast<double>(fc.n_pieces) / grid.cutoff;
  Lanes<Real> y;
  if (order == 1 && fc.n_pieces == 1) {
    for (int l = 0; l < n; ++l) {
      y.at[l] = static_cast<Real>(2 * (places.d.at[l] * pieces_per_length) - 1);
    }
    value_and_slope(fc, y, f[0], f[1]);
  } else {
    std::int32_t first[n];  // of the coefficients of the lane's piece
    for (int l = 0; l < n; ++l) {
      const double u = places.d.at[l] * pieces_per_length;
      const auto piece = static_cast<std::int32_t>(u);
      const auto last = static_cast<std::int32_t>(fc.n_pieces - 1);  // u may round up to n_pieces
      const std::int32_t k = piece < last ? piece : last;
      first[l] = k * static_cast<std::int32_t>(fc.n_coefficients);
      y.at[l] = static_cast<Real>(2 * (u - k) - 1);
    }
    all_derivatives(fc, order, y, first, f);
  }
  double factor = 1;  // k! (dy / dd)^k
  for (int k = 0; k <= order; ++k) {
    const Real scale = static_cast<Real>(factor);
    for (int l = 0; l < n; ++l) f[k].at[l] *= scale * places.inside.at[l];
    factor *= (k + 1) * 2 * pieces_per_length;
  }
}

/// The k-th derivative in t of piece m.
template <class Real>
inline void piece(int k, int m, const Lanes<Real>& t, Lanes<Real>& value) {
  const Real* const c = derivatives<Real>.of[k][m];
  for (int l = 0; l < chunk<Real>; ++l) {
    Real v = c[5];
    v = v * t.at[l] + c[4];
    v = v * t.at[l] + c[3];
    v = v * t.at[l] + c[2];
    v = v * t.at[l] + c[1];
    value.at[l] = v * t.at[l] + c[0];
  }
}

/// The weights of the n-th derivative, by Leibniz' rule: sum_k binomial(n, k) fc^(n-k) B_m^(k) /
/// step^k.
template <class Real>
inline void combine(int n, double inverse_step, const Lanes<Real>* f,
                    const Lanes<Real> (*pieces_of)[n_taps], Lanes<Real>* weight) {
  for (int m = 0; m < n_taps; ++m) {
    for (int l = 0; l < chunk<Real>; ++l) weight[m].at[l] = f[n].at[l] * pieces_of[0][m].at[l];
    double factor = 1;
    for (int k = 1; k <= n && k < n_powers; ++k) {
      factor *= inverse_step * (n - k + 1) / k;
      const Real scale = static_cast<Real>(factor);
      for (int l = 0; l < chunk<Real>; ++l) {
        weight[m].at[l] += scale * f[n - k].at[l] * pieces_of[k][m].at[l];
      }
    }
  }
}

#if defined(__AVX512F__)

/// How 16 rows of six taps come from a register per tap: neighboring taps are put side by side,
/// which gives three registers of pairs for eight rows, and pairs are then dealt out in turn.
///
///     taps    a0 a1 a2 ...     b0 b1 b2 ...    ...     f0 f1 f2 ...
///     pairs   ab0 ab1 ...      cd0 cd1 ...     ef0 ef1 ...
///     rows    ab0 cd0 ef0 ab1 cd1 ef1 ab2 cd2 | ef2 ab3 cd3 ...
struct Transposition {
  alignas(64) std::int32_t side_by_side[2][16];  // lanes of two taps, for rows 0 to 7, and 8 to 15
  alignas(64) std::int64_t dealt[3][8];          // pairs of ab and cd
  alignas(64) std::int64_t last[3][8];           // pairs of ef
  __mmask8 is_last[3];
  constexpr Transposition() : side_by_side{}, dealt{}, last{}, is_last{} {
    for (int e = 0; e < 16; ++e) {
      for (int half = 0; half < 2; ++half) side_by_side[half][e] = 8 * half + e / 2 + e % 2 * 16;
    }
    for (int e = 0; e < 24; ++e) {
      const int part = e / 8, row = e / 3, pair = e % 3;
      dealt[part][e % 8] = pair == 1 ? 8 + row : row;
      last[part][e % 8] = row;
      if (pair == 2) is_last[part] = static_cast<__mmask8>(is_last[part] | 1 << e % 8);
    }
  }
};
constexpr Transposition transposition;

/// Sixteen whole rows at a time; returns how many rows were written.
inline int write_sixteens(const Lanes<float>* weight, int count, float* out) {
  int l = 0;
  for (; l + 16 <= count; l += 16) {
    for (int half = 0; half < 2; ++half) {
      const __m512i lanes = _mm512_load_si512(transposition.side_by_side[half]);
      __m512i pairs[3];
      for (int k = 0; k < 3; ++k) {
        const __m512 one = _mm512_load_ps(weight[2 * k].at + l),
                     other = _mm512_load_ps(weight[2 * k + 1].at + l);
        pairs[k] = _mm512_castps_si512(_mm512_permutex2var_ps(one, lanes, other));
      }
      float* to = out + (l + 8 * half) * n_taps;
      for (int part = 0; part < 3; ++part) {
        const __m512i both = _mm512_permutex2var_epi64(
            pairs[0], _mm512_load_si512(transposition.dealt[part]), pairs[1]);
        const __m512i rows =
            _mm512_mask_permutexvar_epi64(both, transposition.is_last[part],
                                          _mm512_load_si512(transposition.last[part]), pairs[2]);
        _mm512_storeu_si512(to + part * 16, rows);
      }
    }
  }
  return l;
}

#else

inline int write_sixteens(const Lanes<float>*, int, float*) {
  return 0;
}

#endif

/// Transposes the weights from one row per tap to one row per pair.
inline void write_rows(const Lanes<float>* weight, int count, float* out) {
  for (int l = write_sixteens(weight, count, out); l < count; ++l) {
#pragma GCC unroll 6
    for (int m = 0; m < n_taps; ++m) out[l * n_taps + m] = weight[m].at[l];
  }
}

/// The same, and rounds them to Scalar.
template <class Scalar>
inline void write_rows(const Lanes<double>* weight, int count, Scalar* out) {
  for (int l = 0; l < count; ++l) {
#pragma GCC unroll 6
    for (int m = 0; m < n_taps; ++m) out[l * n_taps + m] = static_cast<Scalar>(weight[m].at[l]);
  }
}

/// Computes in Real; where a distance lies, in double.
template <class Real, class Distance, class Scalar>
std::int64_t weights_in(const SplineOrders& orders, const Distance* d, std::int64_t n_pairs,
                        std::int32_t* bins, Scalar* weights) {
  const double inverse_step = 1 / orders.grid.step;
  const int last = orders.first_order + orders.n_orders - 1;
  constexpr std::int64_t size = chunk<Real>;
  Places<Real> places;
  Lanes<Real> f[max_spline_order + 1], pieces_of[n_powers][n_taps], weight[n_taps];
  for (std::int64_t begin = 0; begin < n_pairs; begin += size) {
    const auto count = static_cast<int>(n_pairs - begin < size ? n_pairs - begin : size);
    if (!places.find(orders.grid, inverse_step, d + begin, count)) {
      for (int l = 0; l < count; ++l) {
        if (!places.find(orders.grid, inverse_step, d + begin + l, 1)) return begin + l;
      }
    }
    if (bins != nullptr) {
      __builtin_memcpy(bins + begin, places.bin, count * sizeof(std::int32_t));
    }
    cutoff_derivatives(orders.grid, last, places, f);
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

/// What a network reads in float32, weights and slopes, is computed in float32, in half the time;
/// higher derivatives, which lose digits, are not.
template <class Distance, class Scalar>
std::int64_t spline_weights(const SplineOrders& orders, const Distance* d, std::int64_t n_pairs,
                            std::int32_t* bins, Scalar* weights) {
  if constexpr (sizeof(Scalar) == sizeof(float)) {
    if (orders.first_order + orders.n_orders <= 2) {
      return weights_in<float>(orders, d, n_pairs, bins, weights);
    }
  }
  return weights_in<double>(orders, d, n_pairs, bins, weights);
}

}  // namespace

#define SCSCHNET_JOIN_(a, b) a##b
#define SCSCHNET_JOIN(a, b) SCSCHNET_JOIN_(a, b)
extern const SplineKernels SCSCHNET_JOIN(spline_, SCSCHNET_KERNELS){
    spline_weights<float, float>, spline_weights<double, float>, spline_weights<float, double>,
    spline_weights<double, double>};

}  // namespace scschnet::cpu
