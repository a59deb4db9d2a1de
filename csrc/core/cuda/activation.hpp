// Contract of the atomwise steps of a network on a GPU between its matrix products.
#pragma once

#include <cstdint>

#include "stream.hpp"

namespace scschnet::cuda {

/// s = ssp(z) and slope = ssp'(z), n numbers. `s` may be `z`.
template <class Scalar>
void activate(std::int64_t n, const Scalar* z, Scalar* s, Scalar* slope, Stream stream);

/// Cotangent of z from that of s = ssp(z), lambda, and from that of the tangent s_dot = slope
/// z_dot: lambda_z = slope lambda + z_bar (1 - slope) z_dot, with z_bar = slope s_bar the cotangent
/// of z_dot. May be `lambda`.
template <class Scalar>
void activate_backward(std::int64_t n, const Scalar* lambda, const Scalar* slope,
                       const Scalar* z_bar, const Scalar* z_dot, Scalar* lambda_z, Stream stream);

/// x = before + v, out += weight[0] v, norms = |v| for every row (n_features,) of n_rows; `before`
/// null: the embedding, x is not written and out = weight[0] v. weight is on the device.
template <class Scalar>
void add_correction(std::int64_t n_rows, std::int64_t n_features, const Scalar* weight,
                    const Scalar* v, const Scalar* before, Scalar* x, Scalar* out, Scalar* norms,
                    Stream stream);

/// The tangent of `add_correction`, and what the weight is multiplied with in the derivative: x_dot
/// = before + v_dot, out_dot += weight[0] v_dot (`before` null: x_dot = v_dot, out_dot = weight[0]
/// v_dot), dots = out_bar v_dot summed over each row.
template <class Scalar>
void add_tangent(std::int64_t n_rows, std::int64_t n_features, const Scalar* weight,
                 const Scalar* v_dot, const Scalar* out_bar, const Scalar* before, Scalar* x_dot,
                 Scalar* out_dot, double* dots, Stream stream);

/// The reverse of `add_correction`: lambda_v = weight[0] lambda_out + lambda_x (null: without), and
/// for the gradient of the weight dots = lambda_out (x - before) summed over each row, added to
/// `dots` if `add`; `before` null: of x alone.
template <class Scalar>
void reverse_correction(std::int64_t n_rows, std::int64_t n_features, const Scalar* weight,
                        const Scalar* lambda_out, const Scalar* lambda_x, const Scalar* x,
                        const Scalar* before, bool add, Scalar* lambda_v, double* dots,
                        Stream stream);

}  // namespace scschnet::cuda
