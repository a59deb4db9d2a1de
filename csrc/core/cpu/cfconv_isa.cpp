// The convolution and its derivatives for one block of features. Compiled once per instruction set,
// SCSCHNET_KERNELS naming it; exports one symbol and no other (see simd.hpp).
//
// One pass over the half list in the order of its rows. Row i keeps what belongs to atom i in
// registers; what belongs to atom j is read, changed and written. A row's own sum is added to
// memory at its end, after all its pairs, so that a pair of an atom with its own image (j = i)
// counts twice. Nothing is stored per pair and feature.
#include "cfconv_kernels.hpp"
#include "features.hpp"

#define SCSCHNET_UNROLL _Pragma("GCC unroll 16")

namespace scschnet::cpu {
namespace {

/// The six weights of one pair, each in all lanes, and the table rows that they belong to.
template <class Scalar, int n>
struct Taps {
  using F = Features<Scalar, n>;
  using Vector = typename F::Vector;
  Vector weight[n_taps];

  inline __attribute__((always_inline)) explicit Taps(const Scalar* weights) {
    SCSCHNET_UNROLL
    for (int m = 0; m < n_taps; ++m) weight[m] = F::broadcast(weights[m]);
  }

  /// The spline in the features that lie at `rows`. Two chains, so that they overlap.
  inline __attribute__((always_inline)) Vector operator()(const Scalar* rows,
                                                          std::int64_t stride) const {
    Vector even = weight[0] * F::load(rows), odd = weight[1] * F::load(rows + stride);
    even = weight[2] * F::load(rows + 2 * stride) + even;
    odd = weight[3] * F::load(rows + 3 * stride) + odd;
    even = weight[4] * F::load(rows + 4 * stride) + even;
    odd = weight[5] * F::load(rows + 5 * stride) + odd;
    return even + odd;
  }
};

/// Part of a row in registers.
template <class Scalar, int n>
struct Row {
  using F = Features<Scalar, n>;
  typename F::Vector part[F::registers];

  inline __attribute__((always_inline)) Row() {
    SCSCHNET_UNROLL
    for (int b = 0; b < F::registers; ++b) part[b] = typename F::Vector{};
  }
  inline __attribute__((always_inline)) explicit Row(const Scalar* p) {
    SCSCHNET_UNROLL
    for (int b = 0; b < F::registers; ++b) part[b] = F::load(p + b * F::lanes);
  }
  inline __attribute__((always_inline)) void add_to(Scalar* p) const {
    SCSCHNET_UNROLL
    for (int b = 0; b < F::registers; ++b)
      F::store(p + b * F::lanes, F::load(p + b * F::lanes) + part[b]);
  }
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

template <class Scalar, int n>
void forward(const CfconvBlock<Scalar>& block, const Scalar* x, Scalar* y) {
  using F = Features<Scalar, n>;
  set_to_zero<Scalar, n>(block, y);
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t end = block.row_ptr[i + 1];
    if (block.row_ptr[i] == end) continue;
    const Row<Scalar, n> x_i(x + i * block.stride);
    Row<Scalar, n> sum;
    for (std::int64_t p = block.row_ptr[i]; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      const Scalar* const rows = block.table + block.bins[p] * block.table_stride;
      const Taps<Scalar, n> w(block.w + n_taps * p);
      SCSCHNET_UNROLL
      for (int b = 0; b < F::registers; ++b) {
        const std::int64_t at = b * F::lanes;
        const auto W = w(rows + at, block.table_stride);
        sum.part[b] = W * F::load(x + j + at) + sum.part[b];
        F::store(y + j + at, W * x_i.part[b] + F::load(y + j + at));
      }
    }
    sum.add_to(y + i * block.stride);
  }
}

template <class Scalar, int n>
void backward(const CfconvBlock<Scalar>& block, const Scalar* y_bar, const Scalar* x, Scalar* x_bar,
              Scalar* d_bar) {
  using F = Features<Scalar, n>;
  set_to_zero<Scalar, n>(block, x_bar);
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t end = block.row_ptr[i + 1];
    if (block.row_ptr[i] == end) continue;
    const Row<Scalar, n> x_i(x + i * block.stride), y_bar_i(y_bar + i * block.stride);
    Row<Scalar, n> sum;
    for (std::int64_t p = block.row_ptr[i]; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      const Scalar* const rows = block.table + block.bins[p] * block.table_stride;
      const Taps<Scalar, n> w(block.w + n_taps * p), z(block.z + n_taps * p);
      typename F::Vector dot{};
      SCSCHNET_UNROLL
      for (int b = 0; b < F::registers; ++b) {
        const std::int64_t at = b * F::lanes;
        const auto W = w(rows + at, block.table_stride), D = z(rows + at, block.table_stride);
        const auto y_bar_j = F::load(y_bar + j + at);
        sum.part[b] = W * y_bar_j + sum.part[b];
        F::store(x_bar + j + at, W * y_bar_i.part[b] + F::load(x_bar + j + at));
        dot = D * (y_bar_i.part[b] * F::load(x + j + at) + y_bar_j * x_i.part[b]) + dot;
      }
      d_bar[p] += sum_of_lanes<Scalar, F::lanes>(dot);
    }
    sum.add_to(x_bar + i * block.stride);
  }
}

template <class Scalar, int n>
void dot(const CfconvBlock<Scalar>& block, const Scalar* a, const Scalar* b, Scalar* out) {
  using F = Features<Scalar, n>;
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t end = block.row_ptr[i + 1];
    if (block.row_ptr[i] == end) continue;
    const Row<Scalar, n> a_i(a + i * block.stride), b_i(b + i * block.stride);
    for (std::int64_t p = block.row_ptr[i]; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      const Scalar* const rows = block.table + block.bins[p] * block.table_stride;
      const Taps<Scalar, n> w(block.w + n_taps * p);
      typename F::Vector sum{};
      SCSCHNET_UNROLL
      for (int c = 0; c < F::registers; ++c) {
        const std::int64_t at = c * F::lanes;
        sum = w(rows + at, block.table_stride) *
                  (a_i.part[c] * F::load(b + j + at) + F::load(a + j + at) * b_i.part[c]) +
              sum;
      }
      out[p] += sum_of_lanes<Scalar, F::lanes>(sum);
    }
  }
}

template <class Scalar, int n>
void double_backward(const CfconvBlock<Scalar>& block, const Scalar* u, const Scalar* v,
                     const Scalar* x, Scalar* out) {
  using F = Features<Scalar, n>;
  set_to_zero<Scalar, n>(block, out);
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t end = block.row_ptr[i + 1];
    if (block.row_ptr[i] == end) continue;
    const Row<Scalar, n> u_i(u + i * block.stride), x_i(x + i * block.stride);
    Row<Scalar, n> sum;
    for (std::int64_t p = block.row_ptr[i]; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      const Scalar* const rows = block.table + block.bins[p] * block.table_stride;
      const Taps<Scalar, n> w(block.w + n_taps * p), z(block.z + n_taps * p);
      SCSCHNET_UNROLL
      for (int b = 0; b < F::registers; ++b) {
        const std::int64_t at = b * F::lanes;
        const auto W = w(rows + at, block.table_stride),
                   D = z(rows + at, block.table_stride) * v[p];
        sum.part[b] = W * F::load(u + j + at) + (D * F::load(x + j + at) + sum.part[b]);
        F::store(out + j + at, W * u_i.part[b] + (D * x_i.part[b] + F::load(out + j + at)));
      }
    }
    sum.add_to(out + i * block.stride);
  }
}

template <class Scalar, int n>
void table_gradient(const CfconvBlock<Scalar>& block, const Scalar* a, const Scalar* b,
                    Scalar* table_bar) {
  using F = Features<Scalar, n>;
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t end = block.row_ptr[i + 1];
    if (block.row_ptr[i] == end) continue;
    const Row<Scalar, n> a_i(a + i * block.stride), b_i(b + i * block.stride);
    for (std::int64_t p = block.row_ptr[i]; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      Scalar* const rows = table_bar + block.bins[p] * block.table_stride;
      const Taps<Scalar, n> w(block.w + n_taps * p);
      SCSCHNET_UNROLL
      for (int c = 0; c < F::registers; ++c) {
        const std::int64_t at = c * F::lanes;
        const auto s = a_i.part[c] * F::load(b + j + at) + F::load(a + j + at) * b_i.part[c];
        SCSCHNET_UNROLL
        for (int m = 0; m < n_taps; ++m) {
          Scalar* const row = rows + m * block.table_stride + at;
          F::store(row, w.weight[m] * s + F::load(row));
        }
      }
    }
  }
}

template <class Scalar, int n>
void backward_table_gradient(const CfconvBlock<Scalar>& block, const Scalar* u, const Scalar* v,
                             const Scalar* y_bar, const Scalar* x, Scalar* table_bar) {
  using F = Features<Scalar, n>;
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t end = block.row_ptr[i + 1];
    if (block.row_ptr[i] == end) continue;
    const Row<Scalar, n> u_i(u + i * block.stride), y_bar_i(y_bar + i * block.stride),
        x_i(x + i * block.stride);
    for (std::int64_t p = block.row_ptr[i]; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      Scalar* const rows = table_bar + block.bins[p] * block.table_stride;
      const Taps<Scalar, n> w(block.w + n_taps * p), z(block.z + n_taps * p);
      SCSCHNET_UNROLL
      for (int c = 0; c < F::registers; ++c) {
        const std::int64_t at = c * F::lanes;
        const auto y_bar_j = F::load(y_bar + j + at);
        const auto s = u_i.part[c] * y_bar_j + F::load(u + j + at) * y_bar_i.part[c];
        const auto r = (y_bar_i.part[c] * F::load(x + j + at) + y_bar_j * x_i.part[c]) * v[p];
        SCSCHNET_UNROLL
        for (int m = 0; m < n_taps; ++m) {
          Scalar* const row = rows + m * block.table_stride + at;
          F::store(row, w.weight[m] * s + (z.weight[m] * r + F::load(row)));
        }
      }
    }
  }
}

template <class Scalar, int n>
void total_table_gradient(const CfconvBlock<Scalar>& block, const Scalar* lambda, const Scalar* u,
                          const Scalar* v, const Scalar* y_bar, const Scalar* x,
                          Scalar* table_bar) {
  using F = Features<Scalar, n>;
  for (std::int64_t i = 0; i < block.n_atoms; ++i) {
    const std::int64_t end = block.row_ptr[i + 1];
    if (block.row_ptr[i] == end) continue;
    const Row<Scalar, n> l_i(lambda + i * block.stride), u_i(u + i * block.stride),
        y_bar_i(y_bar + i * block.stride), x_i(x + i * block.stride);
    for (std::int64_t p = block.row_ptr[i]; p < end; ++p) {
      const std::int64_t j = block.idx_j[p] * block.stride;
      Scalar* const rows = table_bar + block.bins[p] * block.table_stride;
      const Taps<Scalar, n> w(block.w + n_taps * p), z(block.z + n_taps * p);
      SCSCHNET_UNROLL
      for (int c = 0; c < F::registers; ++c) {
        const std::int64_t at = c * F::lanes;
        const auto y_bar_j = F::load(y_bar + j + at), x_j = F::load(x + j + at);
        const auto s = l_i.part[c] * x_j + F::load(lambda + j + at) * x_i.part[c] +
                       (u_i.part[c] * y_bar_j + F::load(u + j + at) * y_bar_i.part[c]);
        const auto r = (y_bar_i.part[c] * x_j + y_bar_j * x_i.part[c]) * v[p];
        SCSCHNET_UNROLL
        for (int m = 0; m < n_taps; ++m) {
          Scalar* const row = rows + m * block.table_stride + at;
          F::store(row, w.weight[m] * s + (z.weight[m] * r + F::load(row)));
        }
      }
    }
  }
}

/// The function of the block's width.
#define SCSCHNET_WIDTHS(function)                                           \
  [](const CfconvBlock<Scalar>& block, auto... arrays) {                    \
    switch (block.width) {                                                  \
      case block_widths<Scalar>[0]:                                         \
        return function<Scalar, block_widths<Scalar>[0]>(block, arrays...); \
      case block_widths<Scalar>[1]:                                         \
        return function<Scalar, block_widths<Scalar>[1]>(block, arrays...); \
      case block_widths<Scalar>[2]:                                         \
        return function<Scalar, block_widths<Scalar>[2]>(block, arrays...); \
      default:                                                              \
        return function<Scalar, 1>(block, arrays...);                       \
    }                                                                       \
  }

template <class Scalar>
constexpr CfconvKernels<Scalar> kernels{
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
