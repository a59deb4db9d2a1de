// Atomwise steps: one thread per number, or a warp per atom where a row is summed.
#include "activation.hpp"

#include "activation.cuh"

namespace scschnet::cuda {
namespace {

constexpr int threads = 256;

template <class Scalar>
__global__ void activate_all(Index n, const Scalar* z, Scalar* s, Scalar* slope) {
  for (Index k = thread_index(); k < n; k += n_threads()) {
    const Activated<Scalar> activated(z[k]);
    s[k] = activated.value;
    slope[k] = activated.slope;
  }
}

template <class Scalar>
__global__ void activate_all_backward(Index n, const Scalar* lambda, const Scalar* slope,
                                      const Scalar* z_bar, const Scalar* z_dot, Scalar* lambda_z,
                                      BlockBefore<Scalar> begin) {
  const Scalar change = begin.before == nullptr ? Scalar(0) : begin.weight[-1] - begin.weight[0];
  for (Index k = thread_index(); k < n; k += n_threads()) {
    const Scalar second = z_bar == nullptr ? Scalar(0) : z_bar[k] * (1 - slope[k]) * z_dot[k];
    lambda_z[k] = slope[k] * lambda[k] + second;
    if (begin.before != nullptr) begin.before[k] = begin.lambda[k] + change * begin.lambda_out[k];
  }
}

template <class Scalar>
__global__ void activate_all_tangents(Index n, const Scalar* slope, const Scalar* z_dot,
                                      Scalar* s_dot, const Scalar* before, Scalar* x_dot) {
  for (Index k = thread_index(); k < n; k += n_threads()) {
    s_dot[k] = slope[k] * z_dot[k];
    if (before != nullptr) x_dot[k] = before[k];
  }
}

/// A number of the correction of layer l.
template <class Scalar>
__device__ Scalar correction(const Layers<Scalar>& layers, Index l, Index k) {
  const Index size = layers.n_rows * layers.n_features;
  const Scalar x = l > 0 ? layers.x[(l - 1) * size + k] : layers.x_0[k];
  if (l > 1) return x - layers.x[(l - 2) * size + k];
  return l == 1 && layers.x_0 != nullptr ? x - layers.x_0[k] : x;
}

/// A warp per row.
template <class Scalar>
__global__ void __launch_bounds__(threads)
    add_rows(Index n_rows, Index n_features, const Scalar* weight, const Scalar* v,
             const Scalar* before, Scalar* x, Scalar* out, Scalar* norms) {
  const Scalar w = weight[0];
  for (Index i = warp_index(); i < n_rows; i += n_warps()) {
    double square = 0;
    for (Index f = lane_index(); f < n_features; f += warp_size) {
      const Index k = i * n_features + f;
      square += static_cast<double>(v[k]) * static_cast<double>(v[k]);
      if (before == nullptr) {
        out[k] = w * v[k];
      } else {
        x[k] = before[k] + v[k];
        out[k] += w * v[k];
      }
    }
    square = warp_sum(square);
    if (lane_index() == 0) norms[i] = static_cast<Scalar>(sqrt(square));
  }
}

/// A warp per row.
template <class Scalar>
__global__ void __launch_bounds__(threads)
    add_rows_of_tangents(Layers<Scalar> tangents, const Scalar* out_bar, Scalar* out_dot,
                         double* dots) {
  const Index n_features = tangents.n_features;
  for (Index i = warp_index(); i < tangents.n_rows; i += n_warps()) {
    for (Index l = 1; l <= tangents.n_blocks; ++l) {
      const Scalar w = tangents.weights[l];
      double sum = 0;
      for (Index k = i * n_features + lane_index(); k < (i + 1) * n_features; k += warp_size) {
        const Scalar v = correction(tangents, l, k);
        sum += static_cast<double>(out_bar[k]) * static_cast<double>(v);
        out_dot[k] = l == 1 ? w * v : out_dot[k] + w * v;
      }
      sum = warp_sum(sum);
      if (lane_index() == 0) dots[l * tangents.n_rows + i] = sum;
    }
  }
}

/// A warp per row of a layer.
template <class Scalar>
__global__ void __launch_bounds__(threads)
    reverse_layers(Layers<Scalar> layers, const Scalar* lambda_out, bool add, Scalar* lambda_v,
                   double* dots) {
  const Index n_rows = layers.n_rows, n_features = layers.n_features, last = layers.n_blocks;
  const Scalar w = layers.weights[last];
  for (Index row = warp_index(); row < (last + 1) * n_rows; row += n_warps()) {
    const Index l = row / n_rows, i = row - l * n_rows;
    double sum = 0;
    for (Index k = i * n_features + lane_index(); k < (i + 1) * n_features; k += warp_size) {
      const Scalar lambda = lambda_out[k];
      sum += static_cast<double>(lambda) * static_cast<double>(correction(layers, l, k));
      if (l == last) lambda_v[k] = w * lambda;
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) dots[row] = add && l > 0 ? dots[row] + sum : sum;
  }
}

}  // namespace

template <class Scalar>
void activate(std::int64_t n, const Scalar* z, Scalar* s, Scalar* slope, Stream stream) {
  launch(activate_all<Scalar>, one_per_thread(n, threads, stream), n, z, s, slope);
}

template <class Scalar>
void activate_backward(std::int64_t n, const Scalar* lambda, const Scalar* slope,
                       const Scalar* z_bar, const Scalar* z_dot, Scalar* lambda_z,
                       const BlockBefore<Scalar>& begin, Stream stream) {
  launch(activate_all_backward<Scalar>, one_per_thread(n, threads, stream), n, lambda, slope, z_bar,
         z_dot, lambda_z, begin);
}

template <class Scalar>
void activate_tangent(std::int64_t n, const Scalar* slope, const Scalar* z_dot, Scalar* s_dot,
                      const Scalar* before, Scalar* x_dot, Stream stream) {
  launch(activate_all_tangents<Scalar>, one_per_thread(n, threads, stream), n, slope, z_dot, s_dot,
         before, x_dot);
}

template <class Scalar>
void add_correction(std::int64_t n_rows, std::int64_t n_features, const Scalar* weight,
                    const Scalar* v, const Scalar* before, Scalar* x, Scalar* out, Scalar* norms,
                    Stream stream) {
  launch(add_rows<Scalar>, one_per_warp(n_rows, threads, stream), n_rows, n_features, weight, v,
         before, x, out, norms);
}

template <class Scalar>
void add_tangents(const Layers<Scalar>& tangents, const Scalar* out_bar, Scalar* out_dot,
                  double* dots, Stream stream) {
  launch(add_rows_of_tangents<Scalar>, one_per_warp(tangents.n_rows, threads, stream), tangents,
         out_bar, out_dot, dots);
}

template <class Scalar>
void reverse_sum(const Layers<Scalar>& layers, const Scalar* lambda_out, bool add, Scalar* lambda_v,
                 double* dots, Stream stream) {
  const Index n_layers = layers.n_blocks + 1;
  launch(reverse_layers<Scalar>, one_per_warp(n_layers * layers.n_rows, threads, stream), layers,
         lambda_out, add, lambda_v, dots);
}

#define SCSCHNET_INSTANTIATE(Scalar)                                                           \
  template void activate(std::int64_t, const Scalar*, Scalar*, Scalar*, Stream);               \
  template void activate_backward(std::int64_t, const Scalar*, const Scalar*, const Scalar*,   \
                                  const Scalar*, Scalar*, const BlockBefore<Scalar>&, Stream); \
  template void activate_tangent(std::int64_t, const Scalar*, const Scalar*, Scalar*,          \
                                 const Scalar*, Scalar*, Stream);                              \
  template void add_correction(std::int64_t, std::int64_t, const Scalar*, const Scalar*,       \
                               const Scalar*, Scalar*, Scalar*, Scalar*, Stream);              \
  template void add_tangents(const Layers<Scalar>&, const Scalar*, Scalar*, double*, Stream);  \
  template void reverse_sum(const Layers<Scalar>&, const Scalar*, bool, Scalar*, double*, Stream);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cuda
