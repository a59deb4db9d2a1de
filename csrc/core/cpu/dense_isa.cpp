// The dense loops. The file is compiled once per instruction set, with SCSCHNET_KERNELS naming the
// table that it exports. It exports no other symbol, so that the linker can never take a function
// compiled for a newer CPU into code that runs on all.
//
// The matrix product C = A B, with AVX-512:
//
//                         +-----------+
//                       B | 4 vectors |    a panel: all rows of 64 float32 columns, without gaps
//                         |           |
//            k ->         +-----------+
//         +--------+      +-----------+
//       A | 6 rows |    C |   6 x 4   |    a tile of C, in 24 registers while k runs
//         |        |      | registers |
//         +--------+      +-----------+
//
// For each k, 4 vectors of B are loaded and 6 elements of A are broadcast: 10 loads for 24
// multiply-adds, so multiply-adds bound the speed. k runs over stretches that are short enough for
// their part of the panel to stay in the first-level cache. A is not packed: consecutive k are
// neighbors in its memory already.
#include <cmath>
#include <cstdint>

#include "dense_tables.hpp"

namespace scschnet::cpu {
namespace {

using Index = std::int64_t;

#if defined(__AVX512F__)
constexpr int vector_bytes = 64, panel = 4;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32, panel = 2;
#else
constexpr int vector_bytes = 16, panel = 2;
#endif
constexpr int tile_rows = 6;

template <class Scalar>
struct VectorOf {
  typedef Scalar Type __attribute__((vector_size(vector_bytes)));
  typedef Scalar Anywhere
      __attribute__((vector_size(vector_bytes), aligned(sizeof(Scalar)), may_alias));
};
template <class Scalar>
using Vector = typename VectorOf<Scalar>::Type;
template <class Scalar>
constexpr int width = vector_bytes / static_cast<int>(sizeof(Scalar));

template <class Scalar>
inline Vector<Scalar> load(const Scalar* p) {
  return *reinterpret_cast<const typename VectorOf<Scalar>::Anywhere*>(p);
}
template <class Scalar>
inline void store(Scalar* p, Vector<Scalar> v) {
  *reinterpret_cast<typename VectorOf<Scalar>::Anywhere*>(p) = v;
}

inline Index least(Index a, Index b) {
  return a < b ? a : b;
}

// ---- matrix products

/// A matrix whose element (i, k) is p[i * row + k * column].
template <class Scalar>
struct Strided {
  const Scalar* p;
  Index row, column;
};

/// A tile of C = init + A B over `depth` values of k. Rows of the packed B are n_vectors vectors
/// long.
template <class Scalar, int rows, int n_vectors>
inline void multiply_tile(Index depth, Strided<Scalar> a, const Scalar* __restrict b,
                          const Scalar* init, Index ld_init, Scalar* c, Index ldc) {
  constexpr int w = width<Scalar>;
  Vector<Scalar> sum[rows][n_vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < n_vectors; ++v)
      sum[i][v] = init ? load(init + i * ld_init + v * w) : Vector<Scalar>{};
  }
  for (Index k = 0; k < depth; ++k) {
    Vector<Scalar> bk[n_vectors];
#pragma GCC unroll 4
    for (int v = 0; v < n_vectors; ++v) bk[v] = load(b + v * w);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Scalar aik = a.p[i * a.row];
#pragma GCC unroll 4
      for (int v = 0; v < n_vectors; ++v) sum[i][v] += aik * bk[v];
    }
    a.p += a.column;
    b += n_vectors * w;
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < n_vectors; ++v) store(c + i * ldc + v * w, sum[i][v]);
  }
}

/// The same for a tile whose last vector reaches beyond column `valid`; C passes through a buffer.
template <class Scalar, int rows, int n_vectors>
void multiply_ragged_tile(Index depth, Strided<Scalar> a, const Scalar* b, const Scalar* init,
                          Index ld_init, Scalar* c, Index ldc, Index valid) {
  constexpr Index stride = n_vectors * width<Scalar>;
  Scalar tile[rows * stride] = {};
  if (init) {
    for (Index i = 0; i < rows; ++i) {
      for (Index f = 0; f < valid; ++f) tile[i * stride + f] = init[i * ld_init + f];
    }
  }
  multiply_tile<Scalar, rows, n_vectors>(depth, a, b, tile, stride, tile, stride);
  for (Index i = 0; i < rows; ++i) {
    for (Index f = 0; f < valid; ++f) c[i * ldc + f] = tile[i * stride + f];
  }
}

template <class Scalar, int rows, int n_vectors>
inline void tile_of(Index depth, Strided<Scalar> a, const Scalar* b, const Scalar* init,
                    Index ld_init, Scalar* c, Index ldc, Index valid) {
  if (valid == n_vectors * width<Scalar>) {
    multiply_tile<Scalar, rows, n_vectors>(depth, a, b, init, ld_init, c, ldc);
  } else {
    multiply_ragged_tile<Scalar, rows, n_vectors>(depth, a, b, init, ld_init, c, ldc, valid);
  }
}

/// All rows of C for one panel of B: tiles of 6 rows, then of 4, 2 and 1.
template <class Scalar, int n_vectors>
void multiply_rows(Index rows, Index depth, Strided<Scalar> a, const Scalar* b, const Scalar* init,
                   Index ld_init, Scalar* c, Index ldc, Index valid) {
  const auto tile = [&]<int n>(Index i) {
    tile_of<Scalar, n, n_vectors>(depth, {a.p + i * a.row, a.row, a.column}, b,
                                  init ? init + i * ld_init : nullptr, ld_init, c + i * ldc, ldc,
                                  valid);
    return i + n;
  };
  Index i = 0;
  while (i + tile_rows <= rows) i = tile.template operator()<tile_rows>(i);
  if (i + 4 <= rows) i = tile.template operator()<4>(i);
  if (i + 2 <= rows) i = tile.template operator()<2>(i);
  if (i < rows) tile.template operator()<1>(i);
}

template <class Scalar>
void multiply_panel(Index rows, Index depth, Strided<Scalar> a, const Scalar* b, Index vectors,
                    const Scalar* init, Index ld_init, Scalar* c, Index ldc, Index valid) {
  if (vectors == 1)
    return multiply_rows<Scalar, 1>(rows, depth, a, b, init, ld_init, c, ldc, valid);
  if (vectors == 2)
    return multiply_rows<Scalar, 2>(rows, depth, a, b, init, ld_init, c, ldc, valid);
  if constexpr (panel == 4) {
    if (vectors == 3)
      return multiply_rows<Scalar, 3>(rows, depth, a, b, init, ld_init, c, ldc, valid);
    multiply_rows<Scalar, 4>(rows, depth, a, b, init, ld_init, c, ldc, valid);
  }
}

constexpr Index stretch = 128;  // of k: 32 kB of a panel

/// Number of vectors in the panel that begins at column `first`; the last one may be narrower.
template <class Scalar>
inline Index panel_vectors(Index n, Index first) {
  return least(panel, (n - first + width<Scalar> - 1) / width<Scalar>);
}

template <class Scalar>
void multiply(Index rows, Index k, Index n, const Scalar* a, const Scalar* packed,
              const Scalar* init, Index ld_init, Scalar* c) {
  constexpr Index panel_width = panel * width<Scalar>;
  for (Index first = 0; first < n; first += panel_width) {
    const Index vectors = panel_vectors<Scalar>(n, first), valid = least(panel_width, n - first);
    const Scalar* from = init ? init + first : nullptr;
    Index ld_from = ld_init;
    for (Index begin = 0; begin == 0 || begin < k; begin += stretch) {
      multiply_panel<Scalar>(rows, least(stretch, k - begin), {a + begin, k, 1},
                             packed + first * k + begin * vectors * width<Scalar>, vectors, from,
                             ld_from, c + first, n, valid);
      from = c + first;
      ld_from = n;
    }
  }
}

template <class Scalar, class Read>
void pack_elements(Index k, Index n, Scalar* packed, Read read) {
  constexpr Index panel_width = panel * width<Scalar>;
  for (Index first = 0; first < n; first += panel_width) {
    const Index columns = panel_vectors<Scalar>(n, first) * width<Scalar>,
                valid = least(columns, n - first);
    Scalar* to = packed + first * k;
    for (Index row = 0; row < k; ++row, to += columns) {
      for (Index f = 0; f < valid; ++f) to[f] = read(row, first + f);
      for (Index f = valid; f < columns; ++f) to[f] = 0;
    }
  }
}

template <class Scalar>
void pack(const Scalar* b, Index k, Index n, Scalar* packed) {
  pack_elements(k, n, packed, [=](Index row, Index f) { return b[row * n + f]; });
}

/// Goes through B^T in squares whose side is one cache line, so that each line is read once.
template <class Scalar>
void pack_transposed(const Scalar* b, Index k, Index n, Scalar* packed) {
  constexpr Index panel_width = panel * width<Scalar>,
                  square = 64 / static_cast<Index>(sizeof(Scalar));
  for (Index first = 0; first < n; first += panel_width) {
    const Index columns = panel_vectors<Scalar>(n, first) * width<Scalar>,
                valid = least(columns, n - first);
    Scalar* to = packed + first * k;
    for (Index row = 0; row < k; row += square) {
      const Index row_end = least(k, row + square);
      for (Index f = 0; f < valid; ++f) {
        for (Index r = row; r < row_end; ++r) to[r * columns + f] = b[(first + f) * k + r];
      }
      for (Index r = row; r < row_end; ++r) {
        for (Index f = valid; f < columns; ++f) to[r * columns + f] = 0;
      }
    }
  }
}

template <class Scalar, int n_vectors>
inline void copy_vectors(Index rows, const Scalar* from, Index ld, Scalar* to) {
  for (Index r = 0; r < rows; ++r, from += ld, to += n_vectors * width<Scalar>) {
#pragma GCC unroll 16
    for (int v = 0; v < n_vectors; ++v)
      store(to + v * width<Scalar>, load(from + v * width<Scalar>));
  }
}

/// Copies `rows` rows of `columns` values into rows of n_vectors vectors, and fills these up with
/// zeros.
template <class Scalar, int n_vectors>
inline void copy_rows(Index rows, Index columns, const Scalar* from, Index ld, Scalar* to) {
  constexpr Index stride = n_vectors * width<Scalar>;
  if (columns == stride) return copy_vectors<Scalar, n_vectors>(rows, from, ld, to);
  for (Index r = 0; r < rows; ++r) {
    for (Index f = 0; f < columns; ++f) to[r * stride + f] = from[r * ld + f];
    for (Index f = columns; f < stride; ++f) to[r * stride + f] = 0;
  }
}

template <class Scalar>
void copy_panel(Index vectors, Index rows, Index columns, const Scalar* from, Index ld,
                Scalar* to) {
  if (vectors == 1) return copy_rows<Scalar, 1>(rows, columns, from, ld, to);
  if (vectors == 2) return copy_rows<Scalar, 2>(rows, columns, from, ld, to);
  if (vectors == 3) return copy_rows<Scalar, 3>(rows, columns, from, ld, to);
  copy_rows<Scalar, 4>(rows, columns, from, ld, to);
}

/// A product of G^T with panels of X, which are copied without gaps first. The columns of G are
/// read where they are, because the cache lines that one tile touches serve the next tiles too.
template <class Scalar>
void add_outer(Index rows, Index m, Index n, const Scalar* g, const Scalar* x, Index first,
               Index last, Scalar* c) {
  constexpr Index panel_width = panel * width<Scalar>, depth = 96;
  alignas(64) Scalar x_part[depth * panel_width];
  for (Index column = 0; column < n; column += panel_width) {
    const Index vectors = panel_vectors<Scalar>(n, column), valid = least(panel_width, n - column);
    for (Index begin = 0; begin < rows; begin += depth) {
      const Index length = least(depth, rows - begin);
      copy_panel(vectors, length, valid, x + begin * n + column, n, x_part);
      Scalar* to = c + first * n + column;
      multiply_panel<Scalar>(last - first, length, {g + begin * m + first, 1, m}, x_part, vectors,
                             to, n, to, n, valid);
    }
  }
}

// ---- the activation

/// exp(x) for -87 <= x <= 0. With x = n ln 2 + r, exp(r) is a polynomial with a relative error of
/// 3e-9, and n is added to the exponent.
inline float exp_of_negative(float x) {
  // After adding 1.5 * 2^23 the last bits of the sum are the nearest integer.
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  // ln 2 in two parts. The first has so few bits that its product with n is exact.
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float q = 1.395048322e-03f;
  q = q * r + 8.368890141e-03f;
  q = q * r + 4.166620591e-02f;
  q = q * r + 1.666651883e-01f;
  q = q * r + 5.000000095e-01f;
  const float y = (q * r * r + r) + 1.0f;
  const std::uint32_t exponent = (__builtin_bit_cast(std::uint32_t, shifted) + 127u) << 23;
  return y * __builtin_bit_cast(float, exponent);
}

/// ln(1 + w / 2) for -1 <= w <= 0 with an absolute error of 6e-9: w times a polynomial, so that it
/// is exact at zero.
inline float log_half(float w) {
  float p = 3.620845190e-03f;
  p = p * w + 1.009770007e-02f;
  p = p * w + 1.600339712e-02f;
  p = p * w + 9.029834095e-03f;
  p = p * w + 1.159351645e-02f;
  p = p * w + -1.419632534e-02f;
  p = p * w + 4.187422317e-02f;
  p = p * w + -1.249861284e-01f;
  p = p * w + 5.000002736e-01f;
  return p * w;
}

/// With e = exp(-|z|): ssp(z) = max(z, 0) + ln((1 + e) / 2), ssp'(z) = 1 / (1 + exp(-z)).
void activate(Index n, float* __restrict z, float* __restrict slope) {
  for (Index k = 0; k < n; ++k) {
    const float value = z[k];
    float x = -__builtin_fabsf(value);
    x = x < -87.0f ? -87.0f : x;  // comparisons let a NaN pass
    const float e = exp_of_negative(x);
    const float reciprocal = 1.0f / (1.0f + e);
    slope[k] = (value < 0 ? e : 1.0f) * reciprocal;
    z[k] = (value < 0 ? 0.0f : value) + log_half(e - 1.0f);
  }
}

void activate(Index n, double* __restrict z, double* __restrict slope) {
  for (Index k = 0; k < n; ++k) {
    const double value = z[k], e = std::exp(-std::fabs(value));
    slope[k] = (value < 0 ? e : 1.0) / (1.0 + e);
    z[k] = (value < 0 ? 0.0 : value) + (std::log1p(e) - 0.693147180559945309417);
  }
}

// ---- passes over results

template <class Scalar>
void product(Index n, const Scalar* a, const Scalar* b, Scalar* out) {
#pragma GCC ivdep
  for (Index k = 0; k < n; ++k) out[k] = a[k] * b[k];
}

template <class Scalar>
void product_sum(Index n, const Scalar* a, const Scalar* b, const Scalar* c, Scalar* out) {
#pragma GCC ivdep
  for (Index k = 0; k < n; ++k) out[k] = a[k] * b[k] + c[k];
}

template <class Scalar>
void weighted_sum(Index n, Scalar weight, const Scalar* a, const Scalar* b, Scalar* out) {
  if (!b) {
#pragma GCC ivdep
    for (Index k = 0; k < n; ++k) out[k] = weight * a[k];
    return;
  }
#pragma GCC ivdep
  for (Index k = 0; k < n; ++k) out[k] = weight * a[k] + b[k];
}

template <class Scalar>
void tangent_activate(Index n, const Scalar* __restrict slope, const Scalar* __restrict z_dot,
                      const Scalar* __restrict z_bar, Scalar* __restrict s_dot,
                      Scalar* __restrict curvature) {
  for (Index k = 0; k < n; ++k) {
    const Scalar dot = z_dot[k], derivative = slope[k];
    s_dot[k] = derivative * dot;
    curvature[k] = z_bar[k] * dot * (1 - derivative);
  }
}

/// The sum of term(k) over k < n, in `width` interleaved partial sums: the compiler can use
/// vectors, and the order of the additions is fixed.
template <class Scalar, class Term>
inline Scalar sum_of(Index n, Term term) {
  constexpr int w = width<Scalar>;
  Scalar part[w] = {};
  Index k = 0;
  for (; k + w <= n; k += w) {
#pragma GCC unroll 16
    for (int lane = 0; lane < w; ++lane) part[lane] += term(k + lane);
  }
  for (int lane = 0; k < n; ++k, ++lane) part[lane] += term(k);
  Scalar total = 0;
  for (int lane = 0; lane < w; ++lane) total += part[lane];
  return total;
}

template <class Scalar>
void row_norms(Index rows, Index n, const Scalar* x, Scalar* norms) {
  for (Index i = 0; i < rows; ++i, x += n) {
    const Scalar square = sum_of<Scalar>(n, [x](Index f) { return x[f] * x[f]; });
    norms[i] = static_cast<Scalar>(__builtin_sqrt(square));
  }
}

template <class Scalar>
void add_correction(Index rows, Index n, Scalar weight, const Scalar* v, const Scalar* x,
                    Scalar* x_out, Scalar* out, Scalar* norms) {
  for (Index i = 0; i < rows; ++i, v += n, x += n, x_out += n, out += n) {
#pragma GCC ivdep
    for (Index f = 0; f < n; ++f) {
      x_out[f] = x[f] + v[f];
      out[f] += weight * v[f];
    }
    row_norms(1, n, v, norms + i);
  }
}

constexpr Index sum_stretch = 1024;  // so many terms are summed in Scalar, their sums in double

template <class Scalar>
double dot(Index n, const Scalar* a, const Scalar* b) {
  double total = 0;
  for (Index begin = 0; begin < n; begin += sum_stretch, a += sum_stretch, b += sum_stretch) {
    total += sum_of<Scalar>(least(sum_stretch, n - begin), [=](Index k) { return a[k] * b[k]; });
  }
  return total;
}

template <class Scalar>
double dot_difference(Index n, const Scalar* a, const Scalar* b, const Scalar* c) {
  double total = 0;
  for (Index begin = 0; begin < n;
       begin += sum_stretch, a += sum_stretch, b += sum_stretch, c += sum_stretch) {
    total += sum_of<Scalar>(least(sum_stretch, n - begin),
                            [=](Index k) { return a[k] * (b[k] - c[k]); });
  }
  return total;
}

template <class Scalar>
void add_columns(Index rows, Index n, const Scalar* scale, const Scalar* a, Scalar* out) {
  for (Index i = 0; i < rows; ++i, a += n) {
    const Scalar factor = scale ? scale[i] : Scalar(1);
#pragma GCC ivdep
    for (Index f = 0; f < n; ++f) out[f] += factor * a[f];
  }
}

template <class Scalar>
constexpr DenseKernels<Scalar> kernels() {
  return {.pack = pack<Scalar>,
          .pack_transposed = pack_transposed<Scalar>,
          .multiply = multiply<Scalar>,
          .add_outer = add_outer<Scalar>,
          .activate = activate,
          .product = product<Scalar>,
          .product_sum = product_sum<Scalar>,
          .weighted_sum = weighted_sum<Scalar>,
          .tangent_activate = tangent_activate<Scalar>,
          .add_correction = add_correction<Scalar>,
          .row_norms = row_norms<Scalar>,
          .dot = dot<Scalar>,
          .dot_difference = dot_difference<Scalar>,
          .add_columns = add_columns<Scalar>};
}

}  // namespace

#define SCSCHNET_JOIN_(a, b) a##b
#define SCSCHNET_JOIN(a, b) SCSCHNET_JOIN_(a, b)
extern const DenseTables SCSCHNET_JOIN(dense_, SCSCHNET_KERNELS){kernels<float>(),
                                                                 kernels<double>()};

}  // namespace scschnet::cpu
