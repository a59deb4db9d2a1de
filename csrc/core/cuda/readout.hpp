// Contract of the readout of a network on a GPU, g = C ssp(z) + c with a row z (n_hidden,) per
// atom, between the matrix products before and after it.
#pragma once

#include <cstdint>

#include "stream.hpp"

namespace scschnet::cuda {

/// The output layer of the readout, on the device.
template <class Scalar>
struct ReadoutLayer {
  std::int64_t n_hidden;
  const Scalar* weight;  ///< C, (n_hidden,)
  const Scalar* bias;    ///< c, one number
};

/// q = ssp(z), slope = ssp'(z), (n_rows, n_hidden), and g = C q + c, (n_rows,). `q` may be `z`.
/// z_bar = C slope, the cotangent of z in the derivative of the sum of g over the first n_local
/// rows, zero in the others; null: it is not wanted.
template <class Scalar>
void read_out(std::int64_t n_rows, std::int64_t n_local, const ReadoutLayer<Scalar>& layer,
              const Scalar* z, Scalar* q, Scalar* slope, Scalar* g, Scalar* z_bar, Stream stream);

/// The reverse of `read_out` from the cotangent g_bar (n_rows,) and, with derivatives (otherwise
/// null), from that of z_bar, which is z_dot (n_rows, n_hidden):
///   lambda = slope C (g_bar + (1 - slope) z_dot), the cotangent of z
///   output = g_bar q + slope z_dot, whose columns add up to the gradient of C
/// `lambda` may be `z_dot`.
template <class Scalar>
void reverse_readout(std::int64_t n_rows, const ReadoutLayer<Scalar>& layer, const Scalar* g_bar,
                     const Scalar* q, const Scalar* slope, const Scalar* z_dot, Scalar* lambda,
                     Scalar* output, Stream stream);

}  // namespace scschnet::cuda
