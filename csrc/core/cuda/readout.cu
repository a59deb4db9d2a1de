// The readout, forward and backward: a warp per atom.
#include "readout.hpp"

#include "activation.cuh"
#include "device.cuh"

namespace scschnet::cuda {
namespace {

constexpr int threads = 256;

/// A warp per row.
template <class Scalar>
__global__ void __launch_bounds__(threads)
    read_rows(Index n_rows, Index n_local, ReadoutLayer<Scalar> layer, const Scalar* z, Scalar* q,
              Scalar* slope, Scalar* g, Scalar* z_bar) {
  for (Index i = warp_index(); i < n_rows; i += n_warps()) {
    double sum = 0;
    for (Index f = lane_index(); f < layer.n_hidden; f += warp_size) {
      const Index k = i * layer.n_hidden + f;
      const Scalar weight = layer.weight[f];
      const Activated<Scalar> activated(z[k]);
      q[k] = activated.value;
      slope[k] = activated.slope;
      if (z_bar != nullptr) z_bar[k] = i < n_local ? weight * activated.slope : Scalar(0);
      sum += static_cast<double>(weight) * static_cast<double>(activated.value);
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) g[i] = static_cast<Scalar>(sum + static_cast<double>(layer.bias[0]));
  }
}

/// A warp per row.
template <class Scalar>
__global__ void __launch_bounds__(threads)
    reverse_rows(Index n_rows, ReadoutLayer<Scalar> layer, const Scalar* g_bar, const Scalar* q,
                 const Scalar* slope, const Scalar* z_dot, Scalar* lambda, Scalar* output) {
  for (Index i = warp_index(); i < n_rows; i += n_warps()) {
    const Scalar bar = g_bar[i];
    for (Index f = lane_index(); f < layer.n_hidden; f += warp_size) {
      const Index k = i * layer.n_hidden + f;
      const Scalar first = slope[k], dot = z_dot == nullptr ? Scalar(0) : z_dot[k];
      lambda[k] = first * layer.weight[f] * (bar + (1 - first) * dot);
      output[k] = bar * q[k] + first * dot;
    }
  }
}

}  // namespace

template <class Scalar>
void read_out(std::int64_t n_rows, std::int64_t n_local, const ReadoutLayer<Scalar>& layer,
              const Scalar* z, Scalar* q, Scalar* slope, Scalar* g, Scalar* z_bar, Stream stream) {
  launch(read_rows<Scalar>, one_per_warp(n_rows, threads, stream), n_rows, n_local, layer, z, q,
         slope, g, z_bar);
}

template <class Scalar>
void reverse_readout(std::int64_t n_rows, const ReadoutLayer<Scalar>& layer, const Scalar* g_bar,
                     const Scalar* q, const Scalar* slope, const Scalar* z_dot, Scalar* lambda,
                     Scalar* output, Stream stream) {
  launch(reverse_rows<Scalar>, one_per_warp(n_rows, threads, stream), n_rows, layer, g_bar, q,
         slope, z_dot, lambda, output);
}

#define SCSCHNET_INSTANTIATE(Scalar)                                                             \
  template void read_out(std::int64_t, std::int64_t, const ReadoutLayer<Scalar>&, const Scalar*, \
                         Scalar*, Scalar*, Scalar*, Scalar*, Stream);                            \
  template void reverse_readout(std::int64_t, const ReadoutLayer<Scalar>&, const Scalar*,        \
                                const Scalar*, const Scalar*, const Scalar*, Scalar*, Scalar*,   \
                                Stream);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cuda
