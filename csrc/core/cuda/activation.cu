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
                                      const Scalar* z_bar, const Scalar* z_dot, Scalar* lambda_z) {
  for (Index k = thread_index(); k < n; k += n_threads()) {
    lambda_z[k] = slope[k] * lambda[k] + z_bar[k] * (1 - slope[k]) * z_dot[k];
  }
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
    add_tangents(Index n_rows, Index n_features, const Scalar* weight, const Scalar* v_dot,
                 const Scalar* out_bar, const Scalar* before, Scalar* x_dot, Scalar* out_dot,
                 double* dots) {
  const Scalar w = weight[0];
  for (Index i = warp_index(); i < n_rows; i += n_warps()) {
    double sum = 0;
    for (Index f = lane_index(); f < n_features; f += warp_size) {
      const Index k = i * n_features + f;
      const Scalar v = v_dot[k];
      sum += static_cast<double>(out_bar[k]) * static_cast<double>(v);
      x_dot[k] = before == nullptr ? v : before[k] + v;
      out_dot[k] = before == nullptr ? w * v : out_dot[k] + w * v;
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) dots[i] = sum;
  }
}

/// A warp per row.
template <class Scalar>
__global__ void __launch_bounds__(threads)
    reverse_rows(Index n_rows, Index n_features, const Scalar* weight, const Scalar* lambda_out,
                 const Scalar* lambda_x, const Scalar* x, const Scalar* before, bool add,
                 Scalar* lambda_v, double* dots) {
  const Scalar w = weight[0];
  for (Index i = warp_index(); i < n_rows; i += n_warps()) {
    double sum = 0;
    for (Index f = lane_index(); f < n_features; f += warp_size) {
      const Index k = i * n_features + f;
      const Scalar lambda = lambda_out[k], v = before == nullptr ? x[k] : x[k] - before[k];
      sum += static_cast<double>(lambda) * static_cast<double>(v);
      lambda_v[k] = w * lambda + (lambda_x == nullptr ? Scalar(0) : lambda_x[k]);
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) dots[i] = add ? dots[i] + sum : sum;
  }
}

}  // namespace

template <class Scalar>
void activate(std::int64_t n, const Scalar* z, Scalar* s, Scalar* slope, Stream stream) {
  launch(activate_all<Scalar>, one_per_thread(n, threads, stream), n, z, s, slope);
}

template <class Scalar>
void activate_backward(std::int64_t n, const Scalar* lambda, const Scalar* slope,
                       const Scalar* z_bar, const Scalar* z_dot, Scalar* lambda_z, Stream stream) {
  launch(activate_all_backward<Scalar>, one_per_thread(n, threads, stream), n, lambda, slope, z_bar,
         z_dot, lambda_z);
}

template <class Scalar>
void add_correction(std::int64_t n_rows, std::int64_t n_features, const Scalar* weight,
                    const Scalar* v, const Scalar* before, Scalar* x, Scalar* out, Scalar* norms,
                    Stream stream) {
  launch(add_rows<Scalar>, one_per_warp(n_rows, threads, stream), n_rows, n_features, weight, v,
         before, x, out, norms);
}

template <class Scalar>
void add_tangent(std::int64_t n_rows, std::int64_t n_features, const Scalar* weight,
                 const Scalar* v_dot, const Scalar* out_bar, const Scalar* before, Scalar* x_dot,
                 Scalar* out_dot, double* dots, Stream stream) {
  launch(add_tangents<Scalar>, one_per_warp(n_rows, threads, stream), n_rows, n_features, weight,
         v_dot, out_bar, before, x_dot, out_dot, dots);
}

template <class Scalar>
void reverse_correction(std::int64_t n_rows, std::int64_t n_features, const Scalar* weight,
                        const Scalar* lambda_out, const Scalar* lambda_x, const Scalar* x,
                        const Scalar* before, bool add, Scalar* lambda_v, double* dots,
                        Stream stream) {
  launch(reverse_rows<Scalar>, one_per_warp(n_rows, threads, stream), n_rows, n_features, weight,
         lambda_out, lambda_x, x, before, add, lambda_v, dots);
}

#define SCSCHNET_INSTANTIATE(Scalar)                                                           \
  template void activate(std::int64_t, const Scalar*, Scalar*, Scalar*, Stream);               \
  template void activate_backward(std::int64_t, const Scalar*, const Scalar*, const Scalar*,   \
                                  const Scalar*, Scalar*, Stream);                             \
  template void add_correction(std::int64_t, std::int64_t, const Scalar*, const Scalar*,       \
                               const Scalar*, Scalar*, Scalar*, Scalar*, Stream);              \
  template void add_tangent(std::int64_t, std::int64_t, const Scalar*, const Scalar*,          \
                            const Scalar*, const Scalar*, Scalar*, Scalar*, double*, Stream);  \
  template void reverse_correction(std::int64_t, std::int64_t, const Scalar*, const Scalar*,   \
                                   const Scalar*, const Scalar*, const Scalar*, bool, Scalar*, \
                                   double*, Stream);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cuda
