// The operator scschnet::schnet: a whole SchNet behind one call, and its gradient. Checks, memory,
// threads and autograd; the work is done by core. With `keep` it also returns what schnet_backward
// needs, which autograd asks for.
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "memory_pool.hpp"
#include "meta.hpp"
#include "schnet_input.hpp"

namespace scschnet {
namespace {

using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* use_composed_path =
    "scschnet::schnet is differentiable once, and not in the distances; for Hessians and third "
    "derivatives use the composed path (positions that require a gradient)";

struct Result {
  Tensor g, d_bar, norms, out, state;
};

template <class Scalar>
void run_forward(const SchnetInput& in, SchnetOptions options, Result& to) {
  const SchnetSizes sizes = in.sizes();
  to.state = pooled_empty({cpu::schnet_state_size<Scalar>(sizes, options)}, in.features.options());
  const SchnetOutputs<Scalar> outputs{
      to.g.mutable_data_ptr<Scalar>(),
      in.derivatives ? to.d_bar.mutable_data_ptr<Scalar>() : nullptr,
      to.norms.mutable_data_ptr<Scalar>(), nullptr,
      to.out.numel() > 0 ? to.out.mutable_data_ptr<Scalar>() : nullptr};
  cpu::schnet_forward<Scalar>(sizes, options, pairs_of<Scalar>(in), parameters_of<Scalar>(in),
                              outputs, to.state.mutable_data_ptr<Scalar>(), {},
                              torch_threads(sizes), best_instruction_set());
}

Result forward_on_cpu(const SchnetInput& in, bool keep, bool representation) {
  const auto options = in.features.options();
  const std::int64_t n_atoms = in.features.size(0);
  Result to{at::empty({n_atoms}, options),
            at::empty({in.derivatives ? in.idx_j.size(0) : 0}, options),
            at::empty({in.contribution_weights.size(0), n_atoms}, options),
            at::empty({n_atoms, representation ? in.features.size(1) : 0}, options), Tensor()};
  if (in.features.scalar_type() == at::kDouble) {
    run_forward<double>(in, {in.derivatives, keep}, to);
  } else {
    run_forward<float>(in, {in.derivatives, keep}, to);
  }
  return to;
}

using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

void refuse_partners(const std::optional<Tensor>& partners) {
  if (!partners) return;
  TORCH_CHECK_VALUE(false, "`partners` are for GPUs only, got some on ", partners->device());
}

Outputs schnet_cpu(SCSCHNET_NETWORK_PARAMETERS, bool derivatives, bool representation, bool keep,
                   const std::optional<Tensor>& partners) {
  refuse_partners(partners);
  const Result r =
      forward_on_cpu(checked_input(SCSCHNET_NETWORK, derivatives), keep, representation);
  return {r.g, r.d_bar, r.norms, r.out, keep ? r.state : at::empty({0}, features.options())};
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>>;

template <class Scalar>
void run_backward(const SchnetInput& in, const Cotangents& bars, const Tensor& state,
                  const Gradients& to) {
  const SchnetSizes sizes = in.sizes();
  const SchnetOptions options{in.derivatives, true};
  const std::int64_t n_kept = cpu::schnet_state_size<Scalar>(sizes, options);
  TORCH_CHECK_VALUE(state.sizes() == at::IntArrayRef{n_kept},
                    "`state` must be what schnet left with `keep`, ", n_kept,
                    " numbers, got shape ", state.sizes());
  const auto data = [](const Tensor& t) {
    return t.defined() ? t.const_data_ptr<Scalar>() : nullptr;
  };
  const Tensor scratch = pooled_empty(
      {cpu::schnet_scratch_size<Scalar>(sizes, bars.d_bar.defined())}, in.features.options());
  const auto& [features, tables, contribution_weights, parameters] = to;
  const auto gradients =
      pointers<Scalar*>(features, tables, contribution_weights, parameters,
                        [](const Tensor& t) { return t.mutable_data_ptr<Scalar>(); });
  cpu::schnet_backward<Scalar>(sizes, options, pairs_of<Scalar>(in), parameters_of<Scalar>(in),
                               state.const_data_ptr<Scalar>(), data(bars.g_bar), data(bars.d_bar),
                               data(bars.representation_bar), gradients,
                               scratch.mutable_data_ptr<Scalar>(), torch_threads(sizes),
                               best_instruction_set());
}

Gradients schnet_backward_cpu(const std::optional<Tensor>& g_bar, const std::optional<Tensor>& v,
                              const std::optional<Tensor>& out_bar, const Tensor& state,
                              SCSCHNET_NETWORK_PARAMETERS, bool derivatives,
                              const std::optional<Tensor>& partners) {
  refuse_partners(partners);
  const SchnetInput in = checked_input(SCSCHNET_NETWORK, derivatives);
  const Cotangents bars = checked_cotangents(in, g_bar, v, out_bar);
  const auto options = in.features.options();
  TORCH_CHECK_TYPE(state.scalar_type() == in.features.scalar_type(), "`state` must be ",
                   in.features.scalar_type(), " like `features`, got ", state.scalar_type());
  Gradients to{pooled_empty(in.features.sizes(), options),
               pooled_empty(in.tables.sizes(), options),
               at::empty(in.contribution_weights.sizes(), options),
               {}};
  for (const auto& parameter : in.parameters)
    std::get<3>(to).push_back(at::empty(parameter.sizes(), options));
  if (in.features.scalar_type() == at::kDouble) {
    run_backward<double>(in, bars, state.contiguous(), to);
  } else {
    run_backward<float>(in, bars, state.contiguous(), to);
  }
  return to;
}

// ---- shapes alone

/// The size of the state is a function of numbers: a compiler that keeps shapes open fixes them
/// here.
std::int64_t state_size(SCSCHNET_NETWORK_PARAMETERS, bool derivatives) {
  const auto fixed = [](const c10::SymInt& size) { return size.guard_int(__FILE__, __LINE__); };
  const std::int64_t n_blocks = fixed(tables.sym_size(0));
  const std::int64_t n_atoms = fixed(features.sym_size(0));
  const SchnetSizes sizes{n_atoms,
                          n_atoms,
                          n_atoms,
                          fixed(idx_j.sym_size(0)),
                          fixed(features.sym_size(1)),
                          fixed(parameters[parameters_per_block * n_blocks].sym_size(0)),
                          n_blocks,
                          fixed(tables.sym_size(1))};
  const SchnetOptions options{derivatives, true};
  return features.scalar_type() == at::kDouble ? cpu::schnet_state_size<double>(sizes, options)
                                               : cpu::schnet_state_size<float>(sizes, options);
}

Outputs schnet_meta(SCSCHNET_NETWORK_PARAMETERS, bool derivatives, bool representation, bool keep,
                    const std::optional<Tensor>&) {
  check_number_of_parameters(parameters, tables.sym_size(0));
  const std::int64_t n_kept = keep ? state_size(SCSCHNET_NETWORK, derivatives) : 0;
  const auto n_atoms = features.sym_size(0), n_layers = contribution_weights.sym_size(0),
             n_pairs = derivatives ? idx_j.sym_size(0) : c10::SymInt(0),
             n_features = representation ? features.sym_size(1) : c10::SymInt(0);
  return {at::empty_symint({n_atoms}, on_meta(features)),
          at::empty_symint({n_pairs}, on_meta(features)),
          at::empty_symint({n_layers, n_atoms}, on_meta(features)),
          at::empty_symint({n_atoms, n_features}, on_meta(features)),
          at::empty({n_kept}, on_meta(features))};
}

Gradients schnet_backward_meta(const std::optional<Tensor>&, const std::optional<Tensor>&,
                               const std::optional<Tensor>&, const Tensor&,
                               SCSCHNET_NETWORK_PARAMETERS, bool, const std::optional<Tensor>&) {
  const auto like = [](const Tensor& t) { return at::empty_symint(t.sym_sizes(), on_meta(t)); };
  Gradients to{like(features), like(tables), like(contribution_weights), {}};
  for (const auto& parameter : parameters) std::get<3>(to).push_back(like(parameter));
  return to;
}

// ---- autograd

template <class Function>
auto operator_of(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

/// Of schnet_backward: only there to say what is not possible.
struct BackwardFunction : torch::autograd::Function<BackwardFunction> {
  static variable_list forward(AutogradContext*, const std::optional<Tensor>& g_bar,
                               const std::optional<Tensor>& v, const std::optional<Tensor>& out_bar,
                               const Tensor& state, SCSCHNET_NETWORK_PARAMETERS, bool derivatives,
                               const std::optional<Tensor>& partners) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    static const auto op = operator_of<decltype(schnet_backward_cpu)>("scschnet::schnet_backward");
    const auto [features_bar, tables_bar, weights_bar, parameters_bar] =
        op.call(g_bar, v, out_bar, state, SCSCHNET_NETWORK, derivatives, partners);
    variable_list all{features_bar, tables_bar, weights_bar};
    all.insert(all.end(), parameters_bar.begin(), parameters_bar.end());
    return all;
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    TORCH_CHECK_NOT_IMPLEMENTED(false, use_composed_path);
  }
};

Gradients schnet_backward_autograd(const std::optional<Tensor>& g_bar,
                                   const std::optional<Tensor>& v,
                                   const std::optional<Tensor>& out_bar, const Tensor& state,
                                   SCSCHNET_NETWORK_PARAMETERS, bool derivatives,
                                   const std::optional<Tensor>& partners) {
  auto all =
      BackwardFunction::apply(g_bar, v, out_bar, state, SCSCHNET_NETWORK, derivatives, partners);
  return {all[0], all[1], all[2], std::vector<Tensor>(all.begin() + 3, all.end())};
}

// Positions among the arguments of schnet.
constexpr std::size_t weights_input = 4, tables_input = 5, contribution_weights_input = 6,
                      first_parameter = 7;

struct SchnetFunction : torch::autograd::Function<SchnetFunction> {
  static variable_list forward(AutogradContext* context, SCSCHNET_NETWORK_PARAMETERS,
                               bool derivatives, bool representation,
                               const std::optional<Tensor>& partners) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    static const auto op = operator_of<decltype(schnet_cpu)>("scschnet::schnet");
    auto [g, d_bar, norms, out, state] =
        op.call(SCSCHNET_NETWORK, derivatives, representation, true, partners);
    variable_list saved{
        state,  partners.value_or(Tensor()), features, row_ptr, idx_j, bins, weights,
        tables, contribution_weights};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    context->save_for_backward(saved);
    context->saved_data["derivatives"] = derivatives;
    context->set_materialize_grads(false);
    context->mark_non_differentiable({norms});
    return {g, d_bar, norms, out};
  }

  static variable_list backward(AutogradContext* context, const variable_list& cotangents) {
    const auto saved = context->get_saved_variables();
    const variable_list parameters(saved.begin() + 2 + first_parameter, saved.end());
    TORCH_CHECK_NOT_IMPLEMENTED(!context->needs_input_grad(weights_input), use_composed_path);
    const auto optional = [](const Tensor& t) {
      return t.defined() ? std::optional<Tensor>(t) : std::nullopt;
    };
    static const auto op = operator_of<decltype(schnet_backward_cpu)>("scschnet::schnet_backward");
    auto [features_bar, tables_bar, weights_bar, parameters_bar] =
        op.call(optional(cotangents[0]), optional(cotangents[1]), optional(cotangents[3]), saved[0],
                saved[2], saved[3], saved[4], saved[5], saved[6], saved[7], saved[8], parameters,
                context->saved_data["derivatives"].toBool(), optional(saved[1]));
    variable_list gradients(first_parameter);
    gradients[0] = features_bar;
    gradients[tables_input] = tables_bar;
    gradients[contribution_weights_input] = weights_bar;
    gradients.insert(gradients.end(), parameters_bar.begin(), parameters_bar.end());
    gradients.resize(gradients.size() + 3);  // derivatives, representation, partners
    return gradients;
  }
};

Outputs schnet_autograd(SCSCHNET_NETWORK_PARAMETERS, bool derivatives, bool representation,
                        bool keep, const std::optional<Tensor>& partners) {
  bool differentiable = false, tangents = false;
  const auto look_at = [&](const Tensor& tensor) {
    differentiable |= tensor.requires_grad();
    tangents |= tensor._fw_grad(0).defined();  // forward mode, which Function refuses
  };
  for (const Tensor* tensor : {&features, &weights, &tables, &contribution_weights})
    look_at(*tensor);
  for (const Tensor& parameter : parameters) look_at(parameter);
  if (!tangents && (!differentiable || !at::GradMode::is_enabled())) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    static const auto op = operator_of<decltype(schnet_cpu)>("scschnet::schnet");
    return op.call(SCSCHNET_NETWORK, derivatives, representation, keep, partners);
  }
  TORCH_CHECK_NOT_IMPLEMENTED(
      !keep, "scschnet::schnet with `keep` is not differentiable: autograd keeps the state itself");
  const auto results =
      SchnetFunction::apply(SCSCHNET_NETWORK, derivatives, representation, partners);
  return {results[0], results[1], results[2], results[3], at::empty({0}, features.options())};
}

}  // namespace
}  // namespace scschnet

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  const std::string arguments = SCSCHNET_NETWORK_SCHEMA ", bool derivatives";
  const auto define = [&library](const std::string& schema) {
    library.def(schema.c_str(), {at::Tag::pt2_compliant_tag});
  };
  define("schnet(" + arguments +
         ", bool representation=False, bool keep=False, Tensor? partners=None) -> (Tensor g, "
         "Tensor g_d, Tensor "
         "correction_norms, Tensor representation, Tensor state)");
  define("schnet_backward(Tensor? g_bar, Tensor? v, Tensor? representation_bar, Tensor state, " +
         arguments +
         ", Tensor? partners=None) -> (Tensor features_grad, Tensor tables_grad, Tensor "
         "contribution_weights_grad, "
         "Tensor[] parameter_grads)");
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("schnet", scschnet::schnet_cpu);
  library.impl("schnet_backward", scschnet::schnet_backward_cpu);
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("schnet", scschnet::schnet_meta);
  library.impl("schnet_backward", scschnet::schnet_backward_meta);
}

TORCH_LIBRARY_IMPL(scschnet, Autograd, library) {
  library.impl("schnet", scschnet::schnet_autograd);
  library.impl("schnet_backward", scschnet::schnet_backward_autograd);
}
