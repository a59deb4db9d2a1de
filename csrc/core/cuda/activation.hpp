// Contract of the atomwise steps of a network on a GPU between its matrix products.
#pragma once

#include <cstdint>

#include "stream.hpp"

namespace scschnet::cuda {

/// s = ssp(z) and slope = ssp'(z), n numbers. `s` may be `z`.
template <class Scalar>
void activate(std::int64_t n, const Scalar* z, Scalar* s, Scalar* slope, Stream stream);

/// One block back through the sums x^(l) = x^(l-1) + v^(l) and out = sum over l of w_l v^(l): the
/// cotangent of v^(l-1) from that of v^(l), lambda, but for the product that the input layer of
/// block l adds: before = lambda + (w_(l-1) - w_l) lambda_out.
template <class Scalar>
struct BlockBefore {
  const Scalar* weight;  ///< w_l on the device, which stands behind w_(l-1)
  const Scalar *lambda, *lambda_out;
  Scalar* before;  ///< may be lambda; null: there is no block before
};

/// Cotangent of z from that of s = ssp(z), lambda, and from that of the tangent s_dot = slope
/// z_dot: lambda_z = slope lambda + z_bar (1 - slope) z_dot, with z_bar = slope s_bar the cotangent
/// of z_dot; these two null: slope lambda. May be `lambda`. Also begins the block before.
template <class Scalar>
void activate_backward(std::int64_t n, const Scalar* lambda, const Scalar* slope,
                       const Scalar* z_bar, const Scalar* z_dot, Scalar* lambda_z,
                       const BlockBefore<Scalar>& begin, Stream stream);

/// s_dot = slope z_dot, n numbers, and x_dot = before, to which the block's last product is to be
/// added; `before` null: x_dot is not written.
template <class Scalar>
void activate_tangent(std::int64_t n, const Scalar* slope, const Scalar* z_dot, Scalar* s_dot,
                      const Scalar* before, Scalar* x_dot, Stream stream);

/// x = before + v, out += weight[0] v, norms = |v| for every row (n_features,) of n_rows; `before`
/// null: the embedding, x is not written and out = weight[0] v. weight is on the device.
template <class Scalar>
void add_correction(std::int64_t n_rows, std::int64_t n_features, const Scalar* weight,
                    const Scalar* v, const Scalar* before, Scalar* x, Scalar* out, Scalar* norms,
                    Stream stream);

/// The layers of a network, 0 the embedding: what they sum up to, (n_rows, n_features) each.
template <class Scalar>
struct Layers {
  std::int64_t n_rows, n_features, n_blocks;
  const Scalar* weights;  ///< w, (n_blocks + 1,) on the device
  const Scalar* x_0;      ///< x^(0); null: zero
  const Scalar* x;        ///< x^(1) to x^(n_blocks), (n_blocks, n_rows, n_features)
};

/// Tangents of out: out_dot = sum over l of w_l v^(l), with v^(l) = x^(l) - x^(l-1) here tangents,
/// too, and v^(0) = 0. dots[l], l > 0: out_bar v^(l) summed over each row, (n_blocks + 1, n_rows).
/// At least one block.
template <class Scalar>
void add_tangents(const Layers<Scalar>& tangents, const Scalar* out_bar, Scalar* out_dot,
                  double* dots, Stream stream);

/// The reverse of out = sum over l of w_l v^(l): dots[l] = lambda_out v^(l) summed over each row,
/// for the gradients of the weights, added to `dots` for l > 0 if `add`; and the cotangent of the
/// last correction, lambda_v = w_(n_blocks) lambda_out.
template <class Scalar>
void reverse_sum(const Layers<Scalar>& layers, const Scalar* lambda_out, bool add, Scalar* lambda_v,
                 double* dots, Stream stream);

}  // namespace scschnet::cuda
