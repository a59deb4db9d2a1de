// The operators of the convolution with tabulated filters for GPUs. Gradients: cfconv_autograd.cpp,
// which dispatches.
#include "../../core/cuda/cfconv.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <torch/library.h>

#include <tuple>

#include "../../core/cuda/spline.hpp"
#include "../pairs.hpp"
#include "binding.hpp"

namespace scschnet::cuda {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

void check_pairs(const Pairs& p, const Tensor& x) {
  check_real(x, "x");
  const std::int64_t n_pairs = p.d_ij.dim() == 1 ? p.d_ij.size(0) : -1;
  check_real(p.d_ij, "d_ij");
  check(p.d_ij, "d_ij", {n_pairs}, p.d_ij.scalar_type(), x);
  check(p.bins, "bins", {n_pairs}, at::kInt, x);
  check(p.idx_j, "idx_j", {n_pairs}, at::kLong, x);
  check(p.row_ptr, "row_ptr", {x.size(0) + 1}, at::kLong, x);
  TORCH_CHECK_VALUE(p.weights.dim() == 3 && p.weights.size(0) > 0,
                    "`weights` must have shape (n_orders, n_pairs, 6), got ", p.weights.sizes());
  check(p.weights, "weights", {p.weights.size(0), n_pairs, n_taps}, x.scalar_type(), x);
  check_cutoff_pieces(p.cutoff_pieces, p.d_ij);
  check_number_of_pairs(n_pairs);
}

void check_features(const Tensor& x, const char* name, const Tensor& like) {
  TORCH_CHECK_VALUE(like.dim() == 2, "`x` must have shape (n_atoms, n_features), got ",
                    like.sizes());
  check(x, name, like.sizes(), like.scalar_type(), like);
}

void check_table(const Tensor& table, const Tensor& x) {
  TORCH_CHECK_VALUE(table.dim() == 2 && x.dim() == 2 && table.size(0) >= n_taps,
                    "`table` must have shape (n_rows, n_features), got ", table.sizes());
  check(table, "table", {table.size(0), x.size(1)}, x.scalar_type(), x);
}

void check_factor(const Tensor& v, const Tensor& x, const Pairs& p) {
  check(v, "v", p.d_ij.sizes(), x.scalar_type(), x);
}

/// Weights of the filter's derivative of this order, times v if given: those at hand, or new ones.
template <class Scalar>
Tensor weights_of(const Pairs& p, std::int64_t n_rows, std::int64_t order, const OptionalTensor& v,
                  Stream stream) {
  TORCH_CHECK_VALUE(order >= 0 && order <= max_spline_order, "`order` must lie between 0 and ",
                    max_spline_order, ", got ", order);
  Tensor weights;
  if (order < p.weights.size(0)) {
    weights = p.weights.select(0, order);
  } else {
    weights = at::empty({p.d_ij.size(0), n_taps}, p.weights.options());
    const Tensor d = p.d_ij.contiguous(), pieces = p.cutoff_pieces.contiguous();
    const SplineGrid grid = spline_grid(p.step, p.cutoff, pieces, n_rows);
    with_scalar(d.scalar_type(), [&]<class Distance>() {
      spline_weights(grid, d.const_data_ptr<Distance>(), d.size(0), static_cast<int>(order), 1,
                     nullptr, weights.mutable_data_ptr<Scalar>(), stream);
    });
  }
  return v.has_value() ? at::mul(weights, v->unsqueeze(1)) : weights.contiguous();
}

template <class Scalar>
const Scalar* read(const Tensor& tensor) {
  return tensor.const_data_ptr<Scalar>();
}

template <class Scalar>
FilterTable<Scalar> table_of(const Tensor& table) {
  return {table.const_data_ptr<Scalar>(), table.size(0), table.size(1)};
}

Tensor cfconv_derivative_cuda(const Tensor& x, const OptionalTensor& v, const Tensor& table,
                              SCSCHNET_PAIRS_PARAMETERS, std::int64_t order) {
  const Pairs p = SCSCHNET_PAIRS;
  check_table(table, x);
  check_pairs(p, x);
  if (v.has_value()) check_factor(*v, x, p);
  const OnDevice device(x);
  const Tensor from = x.contiguous(), rows = table.contiguous(),
               y = at::empty(x.sizes(), x.options());
  with_scalar(x.scalar_type(), [&]<class Scalar>() {
    HeldPairs<Scalar> held(row_ptr, idx_j, bins, device.stream());
    held.set_weights(weights_of<Scalar>(p, rows.size(0), order, v, device.stream()), {});
    cuda::cfconv(held.pairs, table_of<Scalar>(rows), read<Scalar>(from),
                 y.mutable_data_ptr<Scalar>(), device.stream());
  });
  return y;
}

Tensor cfconv_cuda(const Tensor& x, const Tensor& table, SCSCHNET_PAIRS_PARAMETERS) {
  return cfconv_derivative_cuda(x, {}, table, d_ij, bins, weights, row_ptr, idx_j, step, cutoff,
                                cutoff_pieces, 0);
}

Tensor cfconv_dot_cuda(const Tensor& a, const Tensor& b, const Tensor& table,
                       SCSCHNET_PAIRS_PARAMETERS, std::int64_t order) {
  const Pairs p = SCSCHNET_PAIRS;
  check_table(table, a);
  check_pairs(p, a);
  check_features(b, "b", a);
  const OnDevice device(a);
  const Tensor a_held = a.contiguous(), b_held = b.contiguous(), rows = table.contiguous(),
               dot = at::empty({d_ij.size(0)}, a.options());
  with_scalar(a.scalar_type(), [&]<class Scalar>() {
    HeldPairs<Scalar> held(row_ptr, idx_j, bins, device.stream());
    held.set_weights(weights_of<Scalar>(p, rows.size(0), order, {}, device.stream()), {});
    const Tensor scratch =
        at::empty({dot_scratch_size<Scalar>(a.size(1), d_ij.size(0))}, a.options());
    cuda::cfconv_dot(held.pairs, table_of<Scalar>(rows), read<Scalar>(a_held), read<Scalar>(b_held),
                     dot.mutable_data_ptr<Scalar>(), false, scratch.mutable_data_ptr<Scalar>(),
                     device.stream());
  });
  return dot;
}

std::tuple<Tensor, Tensor> cfconv_backward_cuda(const Tensor& y_bar, const Tensor& x,
                                                const Tensor& table, SCSCHNET_PAIRS_PARAMETERS) {
  const Pairs p = SCSCHNET_PAIRS;
  check_table(table, x);
  check_pairs(p, x);
  check_features(y_bar, "y_bar", x);
  const OnDevice device(x);
  const Tensor y_held = y_bar.contiguous(), x_held = x.contiguous(), rows = table.contiguous(),
               x_bar = at::empty(x.sizes(), x.options()),
               d_bar = at::empty({d_ij.size(0)}, x.options());
  with_scalar(x.scalar_type(), [&]<class Scalar>() {
    HeldPairs<Scalar> held(row_ptr, idx_j, bins, device.stream());
    held.set_weights(weights_of<Scalar>(p, rows.size(0), 0, {}, device.stream()),
                     weights_of<Scalar>(p, rows.size(0), 1, {}, device.stream()));
    const Tensor scratch =
        at::empty({dot_scratch_size<Scalar>(x.size(1), d_ij.size(0))}, x.options());
    cuda::cfconv_backward(held.pairs, table_of<Scalar>(rows), read<Scalar>(y_held),
                          read<Scalar>(x_held), x_bar.mutable_data_ptr<Scalar>(),
                          d_bar.mutable_data_ptr<Scalar>(), false,
                          scratch.mutable_data_ptr<Scalar>(), device.stream());
  });
  return {x_bar, d_bar};
}

Tensor cfconv_double_backward_cuda(const Tensor& u, const Tensor& v, const Tensor& x,
                                   const Tensor& table, SCSCHNET_PAIRS_PARAMETERS) {
  const Pairs p = SCSCHNET_PAIRS;
  check_table(table, x);
  check_pairs(p, x);
  check_features(u, "u", x);
  check_factor(v, x, p);
  const OnDevice device(x);
  const Tensor u_held = u.contiguous(), v_held = v.contiguous(), x_held = x.contiguous(),
               rows = table.contiguous(), out = at::empty(x.sizes(), x.options());
  with_scalar(x.scalar_type(), [&]<class Scalar>() {
    HeldPairs<Scalar> held(row_ptr, idx_j, bins, device.stream());
    held.set_weights(weights_of<Scalar>(p, rows.size(0), 0, {}, device.stream()),
                     weights_of<Scalar>(p, rows.size(0), 1, {}, device.stream()));
    cuda::cfconv_double_backward(held.pairs, table_of<Scalar>(rows), read<Scalar>(u_held),
                                 read<Scalar>(v_held), read<Scalar>(x_held),
                                 out.mutable_data_ptr<Scalar>(), device.stream());
  });
  return out;
}

void check_rows(std::int64_t n_rows) {
  TORCH_CHECK_VALUE(n_rows >= n_taps, "`n_rows` must be at least ", n_taps, ", got ", n_rows);
}

Tensor cfconv_table_gradient_cuda(const Tensor& a, const Tensor& b, const OptionalTensor& v,
                                  SCSCHNET_PAIRS_PARAMETERS, std::int64_t n_rows,
                                  std::int64_t order) {
  const Pairs p = SCSCHNET_PAIRS;
  check_features(b, "b", a);
  check_pairs(p, a);
  if (v.has_value()) check_factor(*v, a, p);
  check_rows(n_rows);
  const OnDevice device(a);
  const Tensor a_held = a.contiguous(), b_held = b.contiguous(),
               bar = at::empty({n_rows, a.size(1)}, a.options());
  with_scalar(a.scalar_type(), [&]<class Scalar>() {
    HeldPairs<Scalar> held(row_ptr, idx_j, bins, device.stream());
    held.set_weights(weights_of<Scalar>(p, n_rows, order, v, device.stream()), {});
    const Tensor scratch =
        at::empty({table_gradient_scratch_size(1, n_rows, a.size(1), d_ij.size(0))}, a.options());
    const HeldPairsByBin<Scalar> by_bin(held.pairs, n_rows, a_held, device.stream());
    cuda::cfconv_table_gradient(held.pairs, by_bin.sorted, 1, {nullptr, n_rows, a.size(1)},
                                read<Scalar>(a_held), read<Scalar>(b_held),
                                bar.mutable_data_ptr<Scalar>(), scratch.mutable_data_ptr<Scalar>(),
                                device.stream());
  });
  return bar;
}

Tensor cfconv_backward_table_gradient_cuda(const Tensor& u, const Tensor& v, const Tensor& y_bar,
                                           const Tensor& x, SCSCHNET_PAIRS_PARAMETERS,
                                           std::int64_t n_rows) {
  const Pairs p = SCSCHNET_PAIRS;
  check_features(u, "u", x);
  check_features(y_bar, "y_bar", x);
  check_pairs(p, x);
  check_factor(v, x, p);
  check_rows(n_rows);
  const OnDevice device(x);
  const Tensor u_held = u.contiguous(), v_held = v.contiguous(), y_held = y_bar.contiguous(),
               x_held = x.contiguous(), bar = at::empty({n_rows, x.size(1)}, x.options());
  with_scalar(x.scalar_type(), [&]<class Scalar>() {
    HeldPairs<Scalar> held(row_ptr, idx_j, bins, device.stream());
    held.set_weights(weights_of<Scalar>(p, n_rows, 0, {}, device.stream()),
                     weights_of<Scalar>(p, n_rows, 1, {}, device.stream()));
    const Tensor scratch =
        at::empty({table_gradient_scratch_size(1, n_rows, x.size(1), d_ij.size(0))}, x.options());
    const HeldPairsByBin<Scalar> by_bin(held.pairs, n_rows, x_held, device.stream());
    const Scalar* const no_lambda = nullptr;
    cuda::cfconv_total_table_gradient(
        held.pairs, by_bin.sorted, 1, {nullptr, n_rows, x.size(1)}, no_lambda, read<Scalar>(u_held),
        read<Scalar>(v_held), read<Scalar>(y_held), read<Scalar>(x_held),
        bar.mutable_data_ptr<Scalar>(), scratch.mutable_data_ptr<Scalar>(), device.stream());
  });
  return bar;
}

}  // namespace
}  // namespace scschnet::cuda

TORCH_LIBRARY_IMPL(scschnet, SCSCHNET_CUDA_KEY, library) {
  library.impl("cfconv", scschnet::cuda::cfconv_cuda);
  library.impl("cfconv_backward", scschnet::cuda::cfconv_backward_cuda);
  library.impl("cfconv_double_backward", scschnet::cuda::cfconv_double_backward_cuda);
  library.impl("cfconv_backward_table_gradient",
               scschnet::cuda::cfconv_backward_table_gradient_cuda);
  library.impl("cfconv_derivative", scschnet::cuda::cfconv_derivative_cuda);
  library.impl("cfconv_dot", scschnet::cuda::cfconv_dot_cuda);
  library.impl("cfconv_table_gradient", scschnet::cuda::cfconv_table_gradient_cuda);
}
