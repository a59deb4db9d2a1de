// The convolution and its derivatives for one block of features. The file is compiled once per
// instruction set, which SCSCHNET_KERNELS names, and exports one symbol and no other (see
// simd.hpp).
//
// Each kernel makes one pass over the half list, in the order of its rows:
//
//     for each atom i:                     x_i and the sum of atom i are in registers
//       for each pair p = (i, j) of its row:
//         W = sum_m w[p][m] row[bin + m]   six rows of the slice, one register each per 16 features
//         sum += W o x_j                   what j contributes to i: stays in registers
//         y_j += W o x_i                   what i contributes to j: read, changed, written
//       y_i += sum                         only now, after all pairs of the row
//
// Because the sum of a row reaches memory only at its end, a pair of an atom with its own image
// (j = i) counts twice, once from each end, as it should. Nothing is stored per pair and feature.
// One call owns all rows of its features, so no two threads write to one place.
//
// What bounds the speed (AVX-512, per pair and 16 features): the forward pass has 8 multiply-adds,
// reads 6 rows of the table and 2 more vectors, writes one, and broadcasts half of its 6 weights;
// so the first-level cache bounds it. In the other passes multiply-adds and cache are in balance.
#include "cfconv_kernels.hpp"
#include "features.hpp"

#define SCSCHNET_UNROLL _Pragma("GCC unroll 16")
#define SCSCHNET_INLINE inline __attribute__((always_inline))

namespace scschnet::cpu {
namespace {

/// The distance from one row of a slice to the next, known to the compiler: the addresses of the
/// six rows then cost no instructions.
template <int n>
struct Packed {
  static constexpr std::int64_t value = n;
};

/// The same for a table in place, known at run time.
struct Strided {
  std::int64_t value;
};

/// The six weights of one pair, each broadcast to all lanes of a register.
template <class Scalar, int n>
struct Taps {
  using F = Features<Scalar, n>;
  using Vector = typename F::Vector;
  Vector weight[n_taps];

  SCSCHNET_INLINE explicit Taps(const Scalar* weights) {
    SCSCHNET_UNROLL
    for (int m = 0; m < n_taps; ++m) weight[m] = F::broadcast(weights[m]);
  }

  /// The weighted sum of the six rows, for the features of one register that begins at `rows`.
  SCSCHNET_INLINE Vector of(const Scalar* rows, std::int64_t stride) const {
    Vector sum = weight[0] * F::load(rows);
    SCSCHNET_UNROLL
    for (int m = 1; m < n_taps; ++m) sum = weight[m] * F::load(rows + m * stride) + sum;
    return sum;
  }
};

/// One atom's features of this block, in registers.
template <class Scalar, int n>
struct Row {
  using F = Features<Scalar, n>;
  typename F::Vector part[F::registers];

  SCSCHNET_INLINE Row() {
    SCSCHNET_UNROLL
    for (int b = 0; b < F::registers; ++b) part[b] = typename F::Vector{};
  }
  SCSCHNET_INLINE explicit Row(const Scalar* p) {
    SCSCHNET_UNROLL
    for (int b = 0; b < F::registers; ++b) part[b] = F::load(p + b * F::lanes);
  }
  SCSCHNET_INLINE void add_to(Scalar* p) const {
    SCSCHNET_UNROLL
    for (int b = 0; b < F::registers; ++b)
      F::store(p + b * F::lanes, F::load(p + b * F::lanes) + part[b]);
  }
};

/// Adds to out[p] the sum over the lanes of a vector, one vector per pair p. Summing the lanes of a
/// single register is slow, so vectors wait until there are as many as lanes. Then a tree of
/// additions of neighboring lanes makes all sums at once, here with four lanes:
///
///     a0 a1 a2 a3 |
///     b0 b1 b2 b3 |->  a01 a23 b01 b23 |
///     c0 c1 c2 c3 |                    |->  a b c d      a01 = a0 + a1, a = a01 + a23
///     d0 d1 d2 d3 |->  c01 c23 d01 d23 |
template <class Scalar, int n>
class PairSums {
 public:
  using F = Features<Scalar, n>;
  using Vector = typename F::Vector;

  SCSCHNET_INLINE explicit PairSums(Scalar* out) : out_(out) {}

  SCSCHNET_INLINE void put(std::int64_t p, Vector v) {
    waiting_[p % F::lanes] = v;
    if (p % F::lanes == F::lanes - 1) {
      Scalar* const to = out_ + (p + 1 - F::lanes);
      F::store(to, F::load(to) + sums());
    }
  }

  /// Must follow the last pair: sums the vectors that still wait.
  SCSCHNET_INLINE void finish(std::int64_t n_pairs) {
    const std::int64_t rest = n_pairs % F::lanes;
    if (rest == 0) return;
    for (std::int64_t l = rest; l < F::lanes; ++l) waiting_[l] = Vector{};
    const Vector v = sums();
    for (std::int64_t l = 0; l < rest; ++l) out_[n_pairs - rest + l] += v[l];
  }

 private:
  SCSCHNET_INLINE Vector sums() const {
    Vector v[F::lanes];
    SCSCHNET_UNROLL
    for (int l = 0; l < F::lanes; ++l) v[l] = waiting_[l];
    SCSCHNET_UNROLL
    for (int width = F::lanes; width > 1; width /= 2) {
      SCSCHNET_UNROLL
      for (int l = 0; l < width / 2; ++l) v[l] = F::add_neighbors(v[2 * l], v[2 * l + 1]);
    }
    return v[0];
  }

  Scalar* out_;
  alignas(64) Vector waiting_[F::lanes];
};

template <class Scalar, int n>
void set_to_zero(const CfconvBlock<Scalar>& block, Scalar* y) {
  using F = Features<Scalar, n>;
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    SCSCHNET_UNROLL
    for (int b = 0; b < F::registers; ++b)
      F::store(y + i * block.stride + b * F::lanes, typename F::Vector{});
  }
}

// Every pass takes its block by value, so that the compiler knows that no store changes it.

template <class Scalar, int n, class Stride>
void forward(const CfconvBlock<Scalar> block, const Stride stride, const Scalar* x, Scalar* y) {
  using F = Features<Scalar, n>;
  set_to_zero<Scalar, n>(block, y);
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t begin = block.row_ptr[i], end = block.row_ptr[i + 1];
    if (begin == end) continue;
    const Row<Scalar, n> x_i(x + i * block.stride);
    Row<Scalar, n> sum;
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      const Scalar* const rows = block.table + block.bins[p] * stride.value;
      const Taps<Scalar, n> w(block.w + n_taps * p);
      SCSCHNET_UNROLL
      for (int b = 0; b < F::registers; ++b) {
        const int at = b * F::lanes;
        const auto W = w.of(rows + at, stride.value);
        sum.part[b] = W * F::load(x + j + at) + sum.part[b];
        F::store(y + j + at, W * x_i.part[b] + F::load(y + j + at));
      }
    }
    sum.add_to(y + i * block.stride);
  }
}

template <class Scalar, int n, class Stride>
void backward(const CfconvBlock<Scalar> block, const Stride stride, const Scalar* y_bar,
              const Scalar* x, Scalar* x_bar, Scalar* d_bar) {
  using F = Features<Scalar, n>;
  set_to_zero<Scalar, n>(block, x_bar);
  PairSums<Scalar, n> d_sums(d_bar);
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t begin = block.row_ptr[i], end = block.row_ptr[i + 1];
    if (begin == end) continue;
    const Row<Scalar, n> x_i(x + i * block.stride), y_bar_i(y_bar + i * block.stride);
    Row<Scalar, n> sum;
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      const Scalar* const rows = block.table + block.bins[p] * stride.value;
      const Taps<Scalar, n> w(block.w + n_taps * p), z(block.z + n_taps * p);
      typename F::Vector dot{};
      SCSCHNET_UNROLL
      for (int b = 0; b < F::registers; ++b) {
        const int at = b * F::lanes;
        const auto W = w.of(rows + at, stride.value), D = z.of(rows + at, stride.value);
        const auto y_bar_j = F::load(y_bar + j + at);
        sum.part[b] = W * y_bar_j + sum.part[b];
        F::store(x_bar + j + at, W * y_bar_i.part[b] + F::load(x_bar + j + at));
        dot = D * (y_bar_i.part[b] * F::load(x + j + at) + y_bar_j * x_i.part[b]) + dot;
      }
      d_sums.put(p, dot);
    }
    sum.add_to(x_bar + i * block.stride);
  }
  d_sums.finish(block.row_ptr[block.n_atoms]);
}

template <class Scalar, int n, class Stride>
void dot(const CfconvBlock<Scalar> block, const Stride stride, const Scalar* a, const Scalar* b,
         Scalar* out) {
  using F = Features<Scalar, n>;
  PairSums<Scalar, n> sums(out);
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t begin = block.row_ptr[i], end = block.row_ptr[i + 1];
    if (begin == end) continue;
    const Row<Scalar, n> a_i(a + i * block.stride), b_i(b + i * block.stride);
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      const Scalar* const rows = block.table + block.bins[p] * stride.value;
      const Taps<Scalar, n> w(block.w + n_taps * p);
      typename F::Vector sum{};
      SCSCHNET_UNROLL
      for (int c = 0; c < F::registers; ++c) {
        const int at = c * F::lanes;
        const auto both = a_i.part[c] * F::load(b + j + at) + F::load(a + j + at) * b_i.part[c];
        sum = w.of(rows + at, stride.value) * both + sum;
      }
      sums.put(p, sum);
    }
  }
  sums.finish(block.row_ptr[block.n_atoms]);
}

template <class Scalar, int n, class Stride>
void double_backward(const CfconvBlock<Scalar> block, const Stride stride, const Scalar* u,
                     const Scalar* v, const Scalar* x, Scalar* out) {
  using F = Features<Scalar, n>;
  set_to_zero<Scalar, n>(block, out);
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t begin = block.row_ptr[i], end = block.row_ptr[i + 1];
    if (begin == end) continue;
    const Row<Scalar, n> u_i(u + i * block.stride), x_i(x + i * block.stride);
    Row<Scalar, n> sum;
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      const Scalar* const rows = block.table + block.bins[p] * stride.value;
      const Taps<Scalar, n> w(block.w + n_taps * p), z(block.z + n_taps * p);
      const auto v_p = F::broadcast(v[p]);
      SCSCHNET_UNROLL
      for (int b = 0; b < F::registers; ++b) {
        const int at = b * F::lanes;
        const auto W = w.of(rows + at, stride.value), D = z.of(rows + at, stride.value) * v_p;
        sum.part[b] = W * F::load(u + j + at) + (D * F::load(x + j + at) + sum.part[b]);
        F::store(out + j + at, W * u_i.part[b] + (D * x_i.part[b] + F::load(out + j + at)));
      }
    }
    sum.add_to(out + i * block.stride);
  }
}

template <class Scalar, int n, class Stride>
void table_gradient(const CfconvBlock<Scalar> block, const Stride stride, const Scalar* a,
                    const Scalar* b, Scalar* table_bar) {
  using F = Features<Scalar, n>;
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t begin = block.row_ptr[i], end = block.row_ptr[i + 1];
    if (begin == end) continue;
    const Row<Scalar, n> a_i(a + i * block.stride), b_i(b + i * block.stride);
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      Scalar* const rows = table_bar + block.bins[p] * stride.value;
      const Taps<Scalar, n> w(block.w + n_taps * p);
      SCSCHNET_UNROLL
      for (int c = 0; c < F::registers; ++c) {
        const int at = c * F::lanes;
        const auto s = a_i.part[c] * F::load(b + j + at) + F::load(a + j + at) * b_i.part[c];
        SCSCHNET_UNROLL
        for (int m = 0; m < n_taps; ++m) {
          Scalar* const row = rows + m * stride.value + at;
          F::store(row, w.weight[m] * s + F::load(row));
        }
      }
    }
  }
}

template <class Scalar, int n, class Stride>
void backward_table_gradient(const CfconvBlock<Scalar> block, const Stride stride, const Scalar* u,
                             const Scalar* v, const Scalar* y_bar, const Scalar* x,
                             Scalar* table_bar) {
  using F = Features<Scalar, n>;
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t begin = block.row_ptr[i], end = block.row_ptr[i + 1];
    if (begin == end) continue;
    const std::int64_t own = i * block.stride;
    const Row<Scalar, n> u_i(u + own), y_bar_i(y_bar + own), x_i(x + own);
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      Scalar* const rows = table_bar + block.bins[p] * stride.value;
      const Taps<Scalar, n> w(block.w + n_taps * p), z(block.z + n_taps * p);
      const auto v_p = F::broadcast(v[p]);
      SCSCHNET_UNROLL
      for (int c = 0; c < F::registers; ++c) {
        const int at = c * F::lanes;
        const auto y_bar_j = F::load(y_bar + j + at);
        const auto s = u_i.part[c] * y_bar_j + F::load(u + j + at) * y_bar_i.part[c];
        const auto r = (y_bar_i.part[c] * F::load(x + j + at) + y_bar_j * x_i.part[c]) * v_p;
        SCSCHNET_UNROLL
        for (int m = 0; m < n_taps; ++m) {
          Scalar* const row = rows + m * stride.value + at;
          F::store(row, w.weight[m] * s + (z.weight[m] * r + F::load(row)));
        }
      }
    }
  }
}

template <class Scalar, int n, class Stride>
void total_table_gradient(const CfconvBlock<Scalar> block, const Stride stride,
                          const Scalar* lambda, const Scalar* u, const Scalar* v,
                          const Scalar* y_bar, const Scalar* x, Scalar* table_bar) {
  using F = Features<Scalar, n>;
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t begin = block.row_ptr[i], end = block.row_ptr[i + 1];
    if (begin == end) continue;
    const std::int64_t own = i * block.stride;
    const Row<Scalar, n> lambda_i(lambda + own), u_i(u + own), y_bar_i(y_bar + own), x_i(x + own);
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      Scalar* const rows = table_bar + block.bins[p] * stride.value;
      const Taps<Scalar, n> w(block.w + n_taps * p), z(block.z + n_taps * p);
      const auto v_p = F::broadcast(v[p]);
      SCSCHNET_UNROLL
      for (int c = 0; c < F::registers; ++c) {
        const int at = c * F::lanes;
        const auto y_bar_j = F::load(y_bar + j + at), x_j = F::load(x + j + at);
        const auto s = lambda_i.part[c] * x_j +
                       (F::load(lambda + j + at) * x_i.part[c] +
                        (u_i.part[c] * y_bar_j + F::load(u + j + at) * y_bar_i.part[c]));
        const auto r = (y_bar_i.part[c] * x_j + y_bar_j * x_i.part[c]) * v_p;
        SCSCHNET_UNROLL
        for (int m = 0; m < n_taps; ++m) {
          Scalar* const row = rows + m * stride.value + at;
          F::store(row, w.weight[m] * s + (z.weight[m] * r + F::load(row)));
        }
      }
    }
  }
}

/// Chooses the function compiled for the block's width, and for a slice or for the table in place.
#define SCSCHNET_WIDTH(function, n)                                 \
  case n:                                                           \
    return block.table_stride == n                                  \
               ? function<Scalar, n>(block, Packed<n>{}, arrays...) \
               : function<Scalar, n>(block, Strided{block.table_stride}, arrays...);
#define SCSCHNET_WIDTHS(function)                        \
  [](const CfconvBlock<Scalar>& block, auto... arrays) { \
    switch (block.width) {                               \
      SCSCHNET_WIDTH(function, block_widths<Scalar>[0])  \
      SCSCHNET_WIDTH(function, block_widths<Scalar>[1])  \
      SCSCHNET_WIDTH(function, block_widths<Scalar>[2])  \
      SCSCHNET_WIDTH(function, block_widths<Scalar>[3])  \
      SCSCHNET_WIDTH(function, block_widths<Scalar>[4])  \
    }                                                    \
  }

/// Rows of 256 bytes need the 32 registers that AVX-512 has.
template <class Scalar>
constexpr int widest = static_cast<int>((register_bytes == 64 ? 256 : 128) / sizeof(Scalar));

template <class Scalar>
constexpr CfconvKernels<Scalar> kernels{
    .widest = widest<Scalar>,
    .forward = SCSCHNET_WIDTHS(forward),
    .backward = SCSCHNET_WIDTHS(backward),
    .dot = SCSCHNET_WIDTHS(dot),
    .double_backward = SCSCHNET_WIDTHS(double_backward),
    .table_gradient = SCSCHNET_WIDTHS(table_gradient),
    .backward_table_gradient = SCSCHNET_WIDTHS(backward_table_gradient),
    .total_table_gradient = SCSCHNET_WIDTHS(total_table_gradient),
};

}  // namespace

#define SCSCHNET_JOIN_(a, b) a##b
#define SCSCHNET_JOIN(a, b) SCSCHNET_JOIN_(a, b)
extern const AllCfconvKernels SCSCHNET_JOIN(cfconv_, SCSCHNET_KERNELS){kernels<float>,
                                                                       kernels<double>};

}  // namespace scschnet::cpu
