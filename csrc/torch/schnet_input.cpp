// Checks of the arguments of a whole network.
#include "schnet_input.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include "pairs.hpp"

namespace scschnet {
namespace {

using at::Tensor;

void check_matrix(const Tensor& tensor, const char* name, at::IntArrayRef sizes,
                  at::ScalarType dtype) {
  TORCH_CHECK_VALUE(tensor.sizes() == sizes, "`", name, "` must have shape ", sizes, ", got ",
                    tensor.sizes());
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, "`", name, "` must be ", dtype,
                   " like `features`, got ", tensor.scalar_type());
}

void check_index(const Tensor& tensor, const char* name, at::ScalarType dtype) {
  TORCH_CHECK_VALUE(tensor.dim() == 1, "`", name, "` must have one dimension, got shape ",
                    tensor.sizes());
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, "`", name, "` must be ", dtype, ", got ",
                   tensor.scalar_type());
}

void check_parameters(const SchnetInput& in) {
  const auto dtype = in.features.scalar_type();
  const std::int64_t n_blocks = in.tables.size(0), f = in.features.size(1);
  check_number_of_parameters(in.parameters, n_blocks);
  for (std::int64_t k = 0; k < parameters_per_block * n_blocks; ++k) {
    const bool bias = k % parameters_per_block == 2 || k % parameters_per_block == 4;
    if (bias) {
      check_matrix(in.parameters[k], "parameters", {f}, dtype);
    } else {
      check_matrix(in.parameters[k], "parameters", {f, f}, dtype);
    }
  }
  const auto* readout = &in.parameters[parameters_per_block * n_blocks];
  TORCH_CHECK_VALUE(readout[0].dim() == 2, "`parameters` must end with the readout, got shape ",
                    readout[0].sizes());
  const std::int64_t hidden = readout[0].size(0);
  check_matrix(readout[0], "parameters", {hidden, f}, dtype);
  check_matrix(readout[1], "parameters", {hidden}, dtype);
  check_matrix(readout[2], "parameters", {1, hidden}, dtype);
  check_matrix(readout[3], "parameters", {1}, dtype);
}

void check_shapes(const SchnetInput& in) {
  TORCH_CHECK_VALUE(in.features.dim() == 2 && in.features.size(1) > 0,
                    "`features` must have shape (n_atoms, n_features), got ", in.features.sizes());
  const auto dtype = in.features.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kDouble,
                   "`features` must be float32 or float64, got ", dtype);
  check_index(in.row_ptr, "row_ptr", at::kLong);
  check_index(in.idx_j, "idx_j", at::kLong);
  check_index(in.bins, "bins", at::kInt);
  TORCH_CHECK_VALUE(in.row_ptr.size(0) == in.features.size(0) + 1, "`row_ptr` must have ",
                    in.features.size(0) + 1, " entries, one more than atoms, got ",
                    in.row_ptr.size(0));
  TORCH_CHECK_VALUE(in.bins.size(0) == in.idx_j.size(0), "`bins` must have one entry per pair, ",
                    in.idx_j.size(0), ", got ", in.bins.size(0));
  const std::int64_t least_orders = in.derivatives ? 2 : 1;
  TORCH_CHECK_VALUE(in.weights.dim() == 3 && in.weights.size(0) >= least_orders,
                    "`weights` must have at least ", least_orders,
                    " orders of shape (n_pairs, 6), got ", in.weights.sizes());
  check_matrix(in.weights, "weights", {in.weights.size(0), in.idx_j.size(0), n_taps}, dtype);
  TORCH_CHECK_VALUE(in.tables.dim() == 3 && in.tables.size(1) >= n_taps,
                    "`tables` must have shape (n_blocks, n_rows, n_features), got ",
                    in.tables.sizes());
  check_matrix(in.tables, "tables", {in.tables.size(0), in.tables.size(1), in.features.size(1)},
               dtype);
  check_matrix(in.contribution_weights, "contribution_weights", {in.tables.size(0) + 1}, dtype);
  check_parameters(in);
}

void check_device(const SchnetInput& in, const Tensor& tensor, const char* name) {
  TORCH_CHECK_VALUE(tensor.device() == in.features.device(), "`", name, "` must be on ",
                    in.features.device(), " like `features`, got ", tensor.device());
}

void check_devices(const SchnetInput& in) {
  const auto check = [&](const Tensor& tensor, const char* name) {
    check_device(in, tensor, name);
  };
  check(in.row_ptr, "row_ptr");
  check(in.idx_j, "idx_j");
  check(in.bins, "bins");
  check(in.weights, "weights");
  check(in.tables, "tables");
  check(in.contribution_weights, "contribution_weights");
  for (const Tensor& parameter : in.parameters) check(parameter, "parameters");
}

/// That no index leads outside: a few microseconds, and no crash whatever list is given.
void check_indices(const SchnetInput& in) {
  check_rows(in.row_ptr, in.idx_j.size(0));
  check_range(in.idx_j, "idx_j", in.features.size(0));
  if (in.tables.size(0) > 0) check_bins(in.bins, in.tables.size(1));
}

}  // namespace

SchnetInput checked_input(SCSCHNET_NETWORK_PARAMETERS, bool derivatives) {
  SchnetInput in{features.contiguous(),
                 row_ptr.contiguous(),
                 idx_j.contiguous(),
                 bins.contiguous(),
                 weights.contiguous(),
                 tables.contiguous(),
                 contribution_weights.contiguous(),
                 {},
                 derivatives,
                 {}};
  in.parameters.reserve(parameters.size());
  for (const auto& parameter : parameters) in.parameters.push_back(parameter.contiguous());
  check_shapes(in);
  check_devices(in);
  if (in.features.is_cpu()) check_indices(in);
  return in;
}

Cotangents checked_cotangents(const SchnetInput& in, const std::optional<Tensor>& g_bar,
                              const std::optional<Tensor>& d_bar,
                              const std::optional<Tensor>& representation_bar) {
  const auto checked = [&](const Tensor& tensor, const char* name, at::IntArrayRef sizes) {
    check_matrix(tensor, name, sizes, in.features.scalar_type());
    check_device(in, tensor, name);
    return tensor.contiguous();
  };
  const std::int64_t n_atoms = in.features.size(0);
  Cotangents to;
  to.g_bar =
      g_bar ? checked(*g_bar, "g_bar", {n_atoms}) : at::zeros({n_atoms}, in.features.options());
  if (d_bar && in.derivatives) to.d_bar = checked(*d_bar, "v", {in.idx_j.size(0)});
  if (representation_bar && representation_bar->numel() > 0) {
    to.representation_bar = checked(*representation_bar, "representation_bar", in.features.sizes());
  }
  return to;
}

void check_number_of_parameters(at::TensorList parameters, const c10::SymInt& n_blocks) {
  TORCH_CHECK_VALUE(n_blocks * parameters_per_block + parameters_of_readout ==
                        static_cast<std::int64_t>(parameters.size()),
                    "`parameters` must hold 5 tensors for each of ", n_blocks,
                    " blocks and 4 of the readout, got ", parameters.size());
}

ParallelFor torch_threads(const SchnetSizes& sizes) {
  // Multiply-adds of the dense layers and of the pairs, forward alone: below these a pass takes
  // less than about a millisecond of one core.
  constexpr double worth_sharing = 2e7;
  const auto count = [](std::int64_t n) { return static_cast<double>(n); };
  const double per_block =
      count(sizes.n_features) *
      (3 * count(sizes.n_features) * count(sizes.n_computed) + 2 * n_taps * count(sizes.n_pairs));
  if (per_block * count(sizes.n_blocks) < worth_sharing) {
    return {1, [](std::int64_t n, const auto& task) {
              for (std::int64_t k = 0; k < n; ++k) task(k);
            }};
  }
  return {at::get_num_threads(), [](std::int64_t n, const auto& task) { parallel_for(n, task); }};
}

cpu::InstructionSet best_instruction_set() {
  static const cpu::InstructionSet best = cpu::available_instruction_sets().back();
  return best;
}

}  // namespace scschnet
