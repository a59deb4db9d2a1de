// The operators filter_tables, filter_tables_forward and filter_tables_backward for GPUs: all
// blocks in one batched product each, in float64 going forward.
#include "../../core/cuda/filter_table.hpp"

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include <array>
#include <tuple>
#include <vector>

#include "binding.hpp"

namespace scschnet::cuda {
namespace {

using at::Tensor;
using at::TensorList;

constexpr std::size_t per_block = 4;  // hidden weight, hidden bias, output weight, output bias

void check_parameters(const Tensor& rbf, const Tensor& prefilter, TensorList parameters) {
  TORCH_CHECK_VALUE(rbf.dim() == 2 && rbf.size(0) > 2 * prefilter_order,
                    "`rbf` must have shape (n_nodes, n_rbf) with more than ", 2 * prefilter_order,
                    " nodes, got ", rbf.sizes());
  check(rbf, "rbf", rbf.sizes(), at::kDouble, rbf);
  check(prefilter, "prefilter", {prefilter_order + 1}, at::kDouble, rbf);
  TORCH_CHECK_VALUE(!parameters.empty() && parameters.size() % per_block == 0,
                    "`parameters` must hold four tensors per block, got ", parameters.size());
  const Tensor& first = parameters[0];
  check_real(first, "parameters[0]");
  const std::int64_t n = first.dim() == 2 ? first.size(0) : -1;
  for (std::size_t k = 0; k < parameters.size(); k += per_block) {
    const auto dtype = first.scalar_type();
    check(parameters[k], "parameters", {n, rbf.size(1)}, dtype, rbf);
    check(parameters[k + 1], "parameters", {n}, dtype, rbf);
    check(parameters[k + 2], "parameters", {n, n}, dtype, rbf);
    check(parameters[k + 3], "parameters", {n}, dtype, rbf);
  }
}

/// Every parameter of all blocks, (n_blocks, ...), in float64: brought together in two launches.
std::array<Tensor, per_block> stacked(TensorList parameters) {
  const auto n_blocks = static_cast<std::int64_t>(parameters.size() / per_block);
  std::vector<Tensor> flat;
  for (std::size_t m = 0; m < per_block; ++m) {
    for (std::size_t k = m; k < parameters.size(); k += per_block)
      flat.push_back(parameters[k].reshape({-1}));
  }
  const Tensor all = at::cat(flat).to(at::kDouble);
  std::array<Tensor, per_block> by_kind;
  std::int64_t begin = 0;
  for (std::size_t m = 0; m < per_block; ++m) {
    const Tensor& first = parameters[m];
    std::vector<std::int64_t> shape{n_blocks};
    shape.insert(shape.end(), first.sizes().begin(), first.sizes().end());
    by_kind[m] = all.narrow(0, begin, n_blocks * first.numel()).view(shape);
    begin += n_blocks * first.numel();
  }
  return by_kind;
}

std::tuple<Tensor, Tensor, Tensor> filter_tables_forward_cuda(const Tensor& rbf,
                                                              const Tensor& prefilter,
                                                              TensorList parameters) {
  check_parameters(rbf, prefilter, parameters);
  const OnDevice device(rbf);
  const auto n_blocks = static_cast<std::int64_t>(parameters.size() / per_block);
  const FilterTableSizes sizes{rbf.size(0) - 2 * prefilter_order, rbf.size(1),
                               parameters[0].size(0)};
  const auto [hidden_weight, hidden_bias, output_weight, output_bias] = stacked(parameters);
  const Tensor basis = rbf.unsqueeze(0).expand({n_blocks, rbf.size(0), rbf.size(1)});
  const Tensor hidden =
      at::baddbmm(hidden_bias.unsqueeze(1), basis, hidden_weight.transpose(1, 2)).contiguous();
  const auto options = parameters[0].options();
  const std::vector<std::int64_t> shape{n_blocks, sizes.n_rows, sizes.n_filters};
  const Tensor coefficients = at::empty(shape, hidden.options()),
               rounded = at::empty(shape, options), slopes = at::empty(hidden.sizes(), options);
  const Tensor taps = prefilter.contiguous();
  with_scalar(options.dtype().toScalarType(), [&]<class Scalar>() {
    activate_samples(hidden.numel(), hidden.mutable_data_ptr<double>(),
                     slopes.mutable_data_ptr<Scalar>(), device.stream());
    prefilter_samples(sizes, n_blocks, taps.const_data_ptr<double>(),
                      hidden.const_data_ptr<double>(), coefficients.mutable_data_ptr<double>(),
                      rounded.mutable_data_ptr<Scalar>(), device.stream());
  });
  const Tensor tables =
      at::baddbmm(output_bias.unsqueeze(1), coefficients, output_weight.transpose(1, 2));
  return {tables.to(options.dtype().toScalarType()).contiguous(), rounded, slopes};
}

Tensor filter_tables_cuda(const Tensor& rbf, const Tensor& prefilter, TensorList parameters) {
  return std::get<0>(filter_tables_forward_cuda(rbf, prefilter, parameters));
}

std::vector<Tensor> filter_tables_backward_cuda(const Tensor& tables_bar, const Tensor& rbf,
                                                const Tensor& prefilter, const Tensor& coefficients,
                                                const Tensor& slopes, TensorList output_weights) {
  check_real(tables_bar, "tables_bar");
  TORCH_CHECK_VALUE(tables_bar.dim() == 3 && rbf.dim() == 2,
                    "`tables_bar` must have shape (n_blocks, n_rows, n_filters), got ",
                    tables_bar.sizes());
  const OnDevice device(rbf);
  const Tensor bar = tables_bar.contiguous();
  const std::int64_t n_blocks = bar.size(0), n_nodes = bar.size(1) + 2 * prefilter_order;
  const auto dtype = bar.scalar_type();
  check(rbf, "rbf", {n_nodes, rbf.size(1)}, at::kDouble, bar);
  check(prefilter, "prefilter", {prefilter_order + 1}, at::kDouble, bar);
  check(coefficients, "coefficients", bar.sizes(), dtype, bar);
  check(slopes, "slopes", {n_blocks, n_nodes, bar.size(2)}, dtype, bar);
  TORCH_CHECK_VALUE(n_blocks == static_cast<std::int64_t>(output_weights.size()),
                    "`output_weights` must hold one tensor for each of ", n_blocks, " blocks, got ",
                    output_weights.size());
  for (const Tensor& weight : output_weights)
    check(weight, "output_weights", {bar.size(2), bar.size(2)}, dtype, bar);
  const FilterTableSizes sizes{bar.size(1), rbf.size(1), bar.size(2)};
  const Tensor output_bar = at::bmm(bar.transpose(1, 2), coefficients);
  const Tensor coefficients_bar = at::bmm(bar, at::stack(output_weights)).contiguous();
  const Tensor hidden_bar = at::empty(slopes.sizes(), slopes.options());
  const Tensor taps = prefilter.contiguous(), held_slopes = slopes.contiguous();
  with_scalar(bar.scalar_type(), [&]<class Scalar>() {
    prefilter_backward(sizes, n_blocks, taps.const_data_ptr<double>(),
                       coefficients_bar.const_data_ptr<Scalar>(),
                       held_slopes.const_data_ptr<Scalar>(), hidden_bar.mutable_data_ptr<Scalar>(),
                       device.stream());
  });
  const Tensor basis =
      rbf.to(bar.scalar_type()).unsqueeze(0).expand({n_blocks, rbf.size(0), rbf.size(1)});
  const Tensor hidden_weight_bar = at::bmm(hidden_bar.transpose(1, 2), basis),
               hidden_bias_bar = hidden_bar.sum(1), output_bias_bar = bar.sum(1);
  std::vector<Tensor> parts, gradients;  // no two results share their memory
  for (std::int64_t b = 0; b < n_blocks; ++b) {
    for (const Tensor* of_blocks :
         {&hidden_weight_bar, &hidden_bias_bar, &output_bar, &output_bias_bar}) {
      parts.push_back(of_blocks->select(0, b));
      gradients.push_back(at::empty(parts.back().sizes(), parts.back().options()));
    }
  }
  at::_foreach_copy_(gradients, parts);  // in one launch
  return gradients;
}

}  // namespace
}  // namespace scschnet::cuda

TORCH_LIBRARY_IMPL(scschnet, SCSCHNET_CUDA_KEY, library) {
  library.impl("filter_tables", scschnet::cuda::filter_tables_cuda);
  library.impl("filter_tables_forward", scschnet::cuda::filter_tables_forward_cuda);
  library.impl("filter_tables_backward", scschnet::cuda::filter_tables_backward_cuda);
}
