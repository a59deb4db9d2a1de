// The operator scschnet::filter_tables: spline coefficients of the filters of all blocks, and their
// gradient in the parameters of the filter generators. filter_tables_forward is the same with what
// filter_tables_backward needs.
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "../core/filter_table.hpp"
#include "meta.hpp"
#include "pairs.hpp"

namespace scschnet {
namespace {

using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t per_block = 4;  // hidden weight, hidden bias, output weight, output bias

void check_basis(const Tensor& rbf, const Tensor& prefilter) {
  TORCH_CHECK_VALUE(rbf.dim() == 2 && rbf.scalar_type() == at::kDouble,
                    "`rbf` must have shape (n_nodes, n_rbf) and dtype float64, got ",
                    rbf.sym_sizes(), " and ", rbf.scalar_type());
  TORCH_CHECK_VALUE(prefilter.dim() == 1 && prefilter.sym_size(0) == prefilter_order + 1 &&
                        prefilter.scalar_type() == at::kDouble,
                    "`prefilter` must hold ", prefilter_order + 1, " float64, got ",
                    prefilter.sym_sizes(), " ", prefilter.scalar_type());
}

void check(const Tensor& rbf, const Tensor& prefilter, TensorList parameters) {
  check_basis(rbf, prefilter);
  TORCH_CHECK_VALUE(!parameters.empty() && parameters.size() % per_block == 0,
                    "`parameters` must hold four tensors per block, got ", parameters.size());
  const Tensor& first = parameters[0];
  TORCH_CHECK_TYPE(first.scalar_type() == at::kFloat || first.scalar_type() == at::kDouble,
                   "`parameters` must be float32 or float64, got ", first.scalar_type());
  TORCH_CHECK_VALUE(first.dim() == 2 && first.sym_size(1) == rbf.sym_size(1),
                    "`parameters[0]` must have ", rbf.sym_size(1), " inputs like `rbf`, got ",
                    first.sym_sizes());
  const auto n = first.sym_size(0);
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const Tensor& p = parameters[k];
    TORCH_CHECK_TYPE(p.scalar_type() == first.scalar_type(), "`parameters[", k,
                     "]` must have the dtype of the first, ", first.scalar_type(), ", got ",
                     p.scalar_type());
    const bool good = k % 4 == 0   ? p.sym_sizes() == first.sym_sizes()
                      : k % 4 == 2 ? p.dim() == 2 && p.sym_size(0) == n && p.sym_size(1) == n
                                   : p.dim() == 1 && p.sym_size(0) == n;
    TORCH_CHECK_VALUE(good, "`parameters[", k, "]` must fit ", n, " filters and ", rbf.sym_size(1),
                      " radial basis functions, got ", p.sym_sizes());
  }
}

std::vector<Tensor> contiguous(TensorList tensors) {
  std::vector<Tensor> result;
  result.reserve(tensors.size());
  for (const Tensor& tensor : tensors) result.push_back(tensor.contiguous());
  return result;
}

cpu::InstructionSet best_isa() {
  static const cpu::InstructionSet best = cpu::available_instruction_sets().back();
  return best;
}

template <class Scalar>
void fill_tables(const FilterTableSizes& sizes, const Tensor& prefilter, const Tensor& rbf,
                 const std::vector<Tensor>& parameters, Tensor& tables, Tensor& coefficients,
                 Tensor& slopes) {
  Scalar* const table = tables.mutable_data_ptr<Scalar>();
  Scalar* const coefficient = coefficients.mutable_data_ptr<Scalar>();
  Scalar* const slope = slopes.mutable_data_ptr<Scalar>();
  const double* const taps = prefilter.const_data_ptr<double>();
  const double* const basis = rbf.const_data_ptr<double>();
  const std::int64_t of_table = sizes.n_rows * sizes.n_filters,
                     of_nodes = sizes.n_nodes() * sizes.n_filters;
  parallel_for(tables.size(0), [&](std::int64_t b) {
    const auto parameter = [&](std::int64_t k) {
      return parameters[per_block * b + k].const_data_ptr<Scalar>();
    };
    cpu::filter_table<Scalar>(
        sizes, taps, basis, {parameter(0), parameter(1), parameter(2), parameter(3)},
        table + b * of_table, coefficient + b * of_table, slope + b * of_nodes, best_isa());
  });
}

/// (rbf (n_nodes, n_rbf) float64, prefilter (5,) float64, parameters) -> tables (n_blocks, n_nodes
/// - 8, n_filters) in the dtype of the parameters; coefficients and slopes for the gradient.
std::tuple<Tensor, Tensor, Tensor> filter_tables_forward(const Tensor& rbf, const Tensor& prefilter,
                                                         TensorList parameters) {
  check(rbf, prefilter, parameters);
  const FilterTableSizes sizes{rbf.size(0) - 2 * prefilter_order, rbf.size(1),
                               parameters[0].size(0)};
  TORCH_CHECK_VALUE(sizes.n_rows > 0, "`rbf` must have more than ", 2 * prefilter_order,
                    " nodes, got ", rbf.size(0));
  const auto n_blocks = static_cast<std::int64_t>(parameters.size()) / per_block;
  const auto options = parameters[0].options();
  Tensor tables = at::empty({n_blocks, sizes.n_rows, sizes.n_filters}, options);
  Tensor coefficients = at::empty_like(tables);
  Tensor slopes = at::empty({n_blocks, sizes.n_nodes(), sizes.n_filters}, options);
  const auto held = contiguous(parameters);
  if (tables.scalar_type() == at::kDouble) {
    fill_tables<double>(sizes, prefilter.contiguous(), rbf.contiguous(), held, tables, coefficients,
                        slopes);
  } else {
    fill_tables<float>(sizes, prefilter.contiguous(), rbf.contiguous(), held, tables, coefficients,
                       slopes);
  }
  return {tables, coefficients, slopes};
}

std::tuple<Tensor, Tensor, Tensor> filter_tables_forward_meta(const Tensor& rbf,
                                                              const Tensor& prefilter,
                                                              TensorList parameters) {
  check(rbf, prefilter, parameters);
  const auto n_blocks = static_cast<std::int64_t>(parameters.size()) / per_block;
  const auto options = on_meta(parameters[0]);
  const c10::SymInt n = parameters[0].sym_size(0), n_rows = rbf.sym_size(0) - 2 * prefilter_order;
  return {at::empty_symint({n_blocks, n_rows, n}, options),
          at::empty_symint({n_blocks, n_rows, n}, options),
          at::empty_symint({n_blocks, rbf.sym_size(0), n}, options)};
}

template <class Scalar>
void fill_gradients(const FilterTableSizes& sizes, const Tensor& prefilter, const Tensor& rbf,
                    const Tensor& bar, const Tensor& coefficients, const Tensor& slopes,
                    const std::vector<Tensor>& output_weights,
                    const std::vector<Tensor>& gradients) {
  const Scalar* const table_bar = bar.const_data_ptr<Scalar>();
  const Scalar* const coefficient = coefficients.const_data_ptr<Scalar>();
  const Scalar* const slope = slopes.const_data_ptr<Scalar>();
  const double* const taps = prefilter.const_data_ptr<double>();
  const Scalar* const basis = rbf.const_data_ptr<Scalar>();
  const std::int64_t of_table = sizes.n_rows * sizes.n_filters,
                     of_nodes = sizes.n_nodes() * sizes.n_filters;
  parallel_for(bar.size(0), [&](std::int64_t b) {
    const auto gradient = [&](std::int64_t k) {
      return gradients[per_block * b + k].mutable_data_ptr<Scalar>();
    };
    cpu::filter_table_backward<Scalar>(
        sizes, taps, basis, output_weights[b].const_data_ptr<Scalar>(), table_bar + b * of_table,
        coefficient + b * of_table, slope + b * of_nodes,
        {gradient(0), gradient(1), gradient(2), gradient(3)}, best_isa());
  });
}

/// Of filter_tables_backward: shapes and dtypes as filter_tables_forward left them.
void check_backward(const Tensor& tables_bar, const Tensor& rbf, const Tensor& prefilter,
                    const Tensor& coefficients, const Tensor& slopes, TensorList output_weights) {
  const auto dtype = tables_bar.scalar_type();
  const auto check = [&](const Tensor& tensor, const char* name, c10::SymIntArrayRef sizes) {
    TORCH_CHECK_VALUE(tensor.sym_sizes() == sizes, "`", name, "` must have shape ", sizes, ", got ",
                      tensor.sym_sizes());
    TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, "`", name, "` must be ", dtype,
                     " like `tables_bar`, got ", tensor.scalar_type());
  };
  TORCH_CHECK_VALUE(tables_bar.dim() == 3 && tables_bar.sym_size(1) > 0,
                    "`tables_bar` must have shape (n_blocks, n_rows, n_filters), got ",
                    tables_bar.sym_sizes());
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kDouble,
                   "`tables_bar` must be float32 or float64, got ", dtype);
  check_basis(rbf, prefilter);
  const c10::SymInt n_blocks = tables_bar.sym_size(0), n_rows = tables_bar.sym_size(1),
                    n = tables_bar.sym_size(2), n_nodes = n_rows + 2 * prefilter_order;
  TORCH_CHECK_VALUE(rbf.sym_size(0) == n_nodes, "`rbf` must have ", n_nodes,
                    " nodes, as many as `tables_bar` has rows and ", 2 * prefilter_order,
                    " more, got ", rbf.sym_size(0));
  check(coefficients, "coefficients", {n_blocks, n_rows, n});
  check(slopes, "slopes", {n_blocks, n_nodes, n});
  TORCH_CHECK_VALUE(n_blocks == static_cast<std::int64_t>(output_weights.size()),
                    "`output_weights` must hold one tensor for each of ", n_blocks, " blocks, got ",
                    output_weights.size());
  for (const Tensor& weight : output_weights) check(weight, "output_weights", {n, n});
}

/// Gradients in all parameters, in their order.
std::vector<Tensor> filter_tables_backward(const Tensor& tables_bar, const Tensor& rbf,
                                           const Tensor& prefilter, const Tensor& coefficients,
                                           const Tensor& slopes, TensorList output_weights) {
  check_backward(tables_bar, rbf, prefilter, coefficients, slopes, output_weights);
  const Tensor bar = tables_bar.contiguous(), kept = coefficients.contiguous(),
               kept_slopes = slopes.contiguous();
  const FilterTableSizes sizes{bar.size(1), rbf.size(1), bar.size(2)};
  const auto options = coefficients.options();
  std::vector<Tensor> gradients;
  for (std::int64_t b = 0; b < bar.size(0); ++b) {
    gradients.push_back(at::empty({sizes.n_filters, sizes.n_rbf}, options));
    gradients.push_back(at::empty({sizes.n_filters}, options));
    gradients.push_back(at::empty({sizes.n_filters, sizes.n_filters}, options));
    gradients.push_back(at::empty({sizes.n_filters}, options));
  }
  const Tensor basis = rbf.to(options.dtype()).contiguous();
  const auto weights = contiguous(output_weights);
  if (bar.scalar_type() == at::kDouble) {
    fill_gradients<double>(sizes, prefilter.contiguous(), basis, bar, kept, kept_slopes, weights,
                           gradients);
  } else {
    fill_gradients<float>(sizes, prefilter.contiguous(), basis, bar, kept, kept_slopes, weights,
                          gradients);
  }
  return gradients;
}

std::vector<Tensor> filter_tables_backward_meta(const Tensor& tables_bar, const Tensor& rbf,
                                                const Tensor& prefilter, const Tensor& coefficients,
                                                const Tensor& slopes, TensorList output_weights) {
  check_backward(tables_bar, rbf, prefilter, coefficients, slopes, output_weights);
  const c10::SymInt n = tables_bar.sym_size(2), n_rbf = rbf.sym_size(1);
  std::vector<Tensor> gradients;
  for (std::int64_t b = 0; b < tables_bar.size(0); ++b) {
    for (const auto& shape : {std::vector<c10::SymInt>{n, n_rbf}, {n}, {n, n}, {n}}) {
      gradients.push_back(at::empty_symint(shape, on_meta(tables_bar)));
    }
  }
  return gradients;
}

// ---- gradient

/// The tables in torch's own operations: for gradients of gradients.
Tensor composed_tables(const Tensor& rbf, const Tensor& prefilter,
                       const variable_list& parameters) {
  const Tensor taps = prefilter.cpu().contiguous();
  const std::int64_t n_rows = rbf.size(0) - 2 * prefilter_order;
  std::vector<Tensor> tables;
  for (std::size_t k = 0; k < parameters.size(); k += per_block) {
    const auto parameter = [&](std::size_t m) { return parameters[k + m].to(at::kDouble); };
    const Tensor samples =
        at::softplus(at::linear(rbf, parameter(0), parameter(1))) - std::log(2.0);
    const auto shifted = [&](std::int64_t s) {
      return samples.narrow(0, prefilter_order + s, n_rows);
    };
    const double* const tap = taps.const_data_ptr<double>();
    Tensor coefficients = shifted(0) * tap[0];
    for (int s = 1; s <= prefilter_order; ++s)
      coefficients = coefficients + (shifted(-s) + shifted(s)) * tap[s];
    tables.push_back(
        at::linear(coefficients, parameter(2), parameter(3)).to(parameters[k].scalar_type()));
  }
  return at::stack(tables);
}

std::tuple<Tensor, Tensor, Tensor> call_forward(const Tensor& rbf, const Tensor& prefilter,
                                                TensorList parameters) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("scschnet::filter_tables_forward", "")
                             .typed<decltype(filter_tables_forward)>();
  return op.call(rbf, prefilter, parameters);
}

struct FilterTables : torch::autograd::Function<FilterTables> {
  static Tensor forward(AutogradContext* ctx, TensorList parameters, const Tensor& rbf,
                        const Tensor& prefilter) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [tables, coefficients, slopes] = call_forward(rbf, prefilter, parameters);
    variable_list saved{rbf, prefilter, coefficients, slopes};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    ctx->save_for_backward(std::move(saved));
    return tables;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& bars) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("scschnet::filter_tables_backward", "")
                               .typed<decltype(filter_tables_backward)>();
    const variable_list saved = ctx->get_saved_variables();
    const variable_list parameters(saved.begin() + 4, saved.end());
    variable_list result;
    if (at::GradMode::is_enabled()) {
      result = torch::autograd::grad(
          {composed_tables(saved[0], saved[1], parameters)}, parameters, {bars[0]},
          /*retain_graph=*/true, /*create_graph=*/true, /*allow_unused=*/true);
    } else {
      std::vector<Tensor> output_weights;
      for (std::size_t k = 2; k < parameters.size(); k += per_block)
        output_weights.push_back(parameters[k]);
      result = op.call(bars[0], saved[0], saved[1], saved[2], saved[3], output_weights);
    }
    result.resize(parameters.size() + 2);
    return result;
  }
};

Tensor filter_tables_autograd(const Tensor& rbf, const Tensor& prefilter, TensorList parameters) {
  return FilterTables::apply(parameters, rbf, prefilter);
}

Tensor filter_tables(const Tensor& rbf, const Tensor& prefilter, TensorList parameters) {
  return std::get<0>(call_forward(rbf, prefilter, parameters));
}

}  // namespace
}  // namespace scschnet

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  const auto define = [&](const char* schema) {
    library.def(schema, {at::Tag::pt2_compliant_tag});
  };
  define("filter_tables(Tensor rbf, Tensor prefilter, Tensor[] parameters) -> Tensor");
  define(
      "filter_tables_forward(Tensor rbf, Tensor prefilter, Tensor[] parameters) -> (Tensor tables, "
      "Tensor coefficients, "
      "Tensor slopes)");
  define(
      "filter_tables_backward(Tensor tables_bar, Tensor rbf, Tensor prefilter, Tensor "
      "coefficients, Tensor slopes, "
      "Tensor[] output_weights) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("filter_tables", scschnet::filter_tables);
  library.impl("filter_tables_forward", scschnet::filter_tables_forward);
  library.impl("filter_tables_backward", scschnet::filter_tables_backward);
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("filter_tables", scschnet::filter_tables);
  library.impl("filter_tables_forward", scschnet::filter_tables_forward_meta);
  library.impl("filter_tables_backward", scschnet::filter_tables_backward_meta);
}

TORCH_LIBRARY_IMPL(scschnet, Autograd, library) {
  library.impl("filter_tables", scschnet::filter_tables_autograd);
}
