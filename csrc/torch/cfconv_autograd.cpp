// Gradients of the convolution's operators. The family is closed: the gradient of each operator is
// made of the others, so that derivatives of any order exist, in C++ hosts too. With W^(n) the n-th
// derivative of the filter in the distance:
//
// clang-format off
//
//     cfconv_derivative      y_i        = sum_j v_ij x_j o W^(n)_ij   (v: one per pair, or absent)
//     cfconv_dot             g_ij       = sum_f (a_i b_j + a_j b_i) W^(n)_ij
//     cfconv_table_gradient  bar[k + m] = sum_pairs v w^(n)_m (a_i b_j + a_j b_i)
//
// clang-format on
//
// and in one pass over the pairs for training: cfconv, cfconv_backward, cfconv_double_backward and
// cfconv_backward_table_gradient. Only the gradients that someone asked for are computed: the first
// backward of a force loss makes no table gradients, and loss.backward(inputs=parameters) no W''.
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "pairs.hpp"

namespace scschnet {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

#define SCSCHNET_PAIRS_TYPES                                                                 \
  const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, double, double, \
      const Tensor&

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// ---- the operators, by dispatch

Tensor call_cfconv(const Tensor& x, const Tensor& table, const Pairs& p) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, SCSCHNET_PAIRS_TYPES)>("scschnet::cfconv");
  return op.call(x, table, SCSCHNET_PAIRS_ARGUMENTS(p));
}

std::tuple<Tensor, Tensor> call_backward(const Tensor& y_bar, const Tensor& x, const Tensor& table,
                                         const Pairs& p) {
  static const auto op =
      find<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&,
                                      SCSCHNET_PAIRS_TYPES)>("scschnet::cfconv_backward");
  return op.call(y_bar, x, table, SCSCHNET_PAIRS_ARGUMENTS(p));
}

Tensor call_double_backward(const Tensor& u, const Tensor& v, const Tensor& x, const Tensor& table,
                            const Pairs& p) {
  static const auto op = find<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                     SCSCHNET_PAIRS_TYPES)>("scschnet::cfconv_double_backward");
  return op.call(u, v, x, table, SCSCHNET_PAIRS_ARGUMENTS(p));
}

Tensor call_backward_table_gradient(const Tensor& u, const Tensor& v, const Tensor& y_bar,
                                    const Tensor& x, const Pairs& p, const c10::SymInt& n_rows) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, SCSCHNET_PAIRS_TYPES,
                  c10::SymInt)>("scschnet::cfconv_backward_table_gradient");
  return op.call(u, v, y_bar, x, SCSCHNET_PAIRS_ARGUMENTS(p), n_rows);
}

Tensor call_derivative(const Tensor& x, const OptionalTensor& v, const Tensor& table,
                       const Pairs& p, std::int64_t order) {
  static const auto op =
      find<Tensor(const Tensor&, const OptionalTensor&, const Tensor&, SCSCHNET_PAIRS_TYPES,
                  std::int64_t)>("scschnet::cfconv_derivative");
  return op.call(x, v, table, SCSCHNET_PAIRS_ARGUMENTS(p), order);
}

Tensor call_dot(const Tensor& a, const Tensor& b, const Tensor& table, const Pairs& p,
                std::int64_t order) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, const Tensor&, SCSCHNET_PAIRS_TYPES, std::int64_t)>(
          "scschnet::cfconv_dot");
  return op.call(a, b, table, SCSCHNET_PAIRS_ARGUMENTS(p), order);
}

Tensor call_table_gradient(const Tensor& a, const Tensor& b, const OptionalTensor& v,
                           const Pairs& p, const c10::SymInt& n_rows, std::int64_t order) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, SCSCHNET_PAIRS_TYPES,
                  c10::SymInt, std::int64_t)>("scschnet::cfconv_table_gradient");
  return op.call(a, b, v, SCSCHNET_PAIRS_ARGUMENTS(p), n_rows, order);
}

// ---- what every gradient does

/// Keeps what is differentiable as variables, the rest as data.
void save(AutogradContext* ctx, const variable_list& variables, const Pairs& pairs) {
  variable_list all = variables;
  all.push_back(pairs.d_ij);
  ctx->save_for_backward(std::move(all));
  ctx->set_materialize_grads(false);
  ctx->saved_data["bins"] = pairs.bins;
  ctx->saved_data["weights"] = pairs.weights;
  ctx->saved_data["row_ptr"] = pairs.row_ptr;
  ctx->saved_data["idx_j"] = pairs.idx_j;
  ctx->saved_data["step"] = pairs.step;
  ctx->saved_data["cutoff"] = pairs.cutoff;
  ctx->saved_data["cutoff_pieces"] = pairs.cutoff_pieces;
}

/// The variables as saved, d_ij among the pairs.
struct Saved {
  variable_list variables;
  Pairs pairs;

  explicit Saved(AutogradContext* ctx) : variables(ctx->get_saved_variables()) {
    auto& data = ctx->saved_data;
    pairs = {variables.back(),           data["bins"].toTensor(),
             data["weights"].toTensor(), data["row_ptr"].toTensor(),
             data["idx_j"].toTensor(),   data["step"].toDouble(),
             data["cutoff"].toDouble(),  data["cutoff_pieces"].toTensor()};
  }
  const Tensor& operator[](std::size_t k) const { return variables[k]; }
};

/// a + b where either may be undefined.
Tensor sum(const Tensor& a, const Tensor& b) {
  return a.defined() ? (b.defined() ? a + b : a) : b;
}

OptionalTensor optional(const Tensor& v) {
  return v.defined() ? OptionalTensor(v) : std::nullopt;
}

Tensor times(const Tensor& v, const Tensor& x) {
  return v.defined() ? at::mul(v, x) : x;
}

using at::AutoDispatchBelowADInplaceOrView;
template <class Derived>
using Function = torch::autograd::Function<Derived>;

// Differentiable arguments come first and in the order of the gradients returned; `Pairs` is one
// argument without gradient.

struct Cfconv : Function<Cfconv> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& table,
                        const Tensor& d_ij, const Pairs& pairs) {
    save(ctx, {x, table}, pairs);
    (void)d_ij;
    const AutoDispatchBelowADInplaceOrView guard;
    return call_cfconv(x, table, pairs);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Tensor& y_bar = gradients[0];
    variable_list result(4);
    if (!y_bar.defined()) return result;
    const Saved saved(ctx);
    const Tensor &x = saved[0], &table = saved[1];
    const bool wants_x = ctx->needs_input_grad(0), wants_d = ctx->needs_input_grad(2);
    if (wants_x && wants_d) {
      std::tie(result[0], result[2]) = call_backward(y_bar, x, table, saved.pairs);
    } else if (wants_x) {
      result[0] = call_cfconv(y_bar, table, saved.pairs);
    } else if (wants_d) {
      result[2] = call_dot(y_bar, x, table, saved.pairs, 1);
    }
    if (ctx->needs_input_grad(1))
      result[1] = call_table_gradient(y_bar, x, {}, saved.pairs, table.sym_size(0), 0);
    return result;
  }
};

struct CfconvBackward : Function<CfconvBackward> {
  static variable_list forward(AutogradContext* ctx, const Tensor& y_bar, const Tensor& x,
                               const Tensor& table, const Tensor& d_ij, const Pairs& pairs) {
    save(ctx, {y_bar, x, table}, pairs);
    (void)d_ij;
    const AutoDispatchBelowADInplaceOrView guard;
    auto [x_bar, d_bar] = call_backward(y_bar, x, table, pairs);
    return {x_bar, d_bar};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Tensor &u = gradients[0], &v = gradients[1];
    variable_list result(5);
    if (!u.defined() && !v.defined()) return result;
    const Saved saved(ctx);
    const Tensor &y_bar = saved[0], &x = saved[1], &table = saved[2];
    const Pairs& pairs = saved.pairs;
    if (ctx->needs_input_grad(0)) {
      result[0] = !v.defined()   ? call_cfconv(u, table, pairs)
                  : !u.defined() ? call_derivative(x, v, table, pairs, 1)
                                 : call_double_backward(u, v, x, table, pairs);
    }
    if (ctx->needs_input_grad(1) && v.defined())
      result[1] = call_derivative(y_bar, v, table, pairs, 1);
    if (ctx->needs_input_grad(2)) {
      const c10::SymInt n_rows = table.sym_size(0);
      result[2] = !v.defined()   ? call_table_gradient(u, y_bar, {}, pairs, n_rows, 0)
                  : !u.defined() ? call_table_gradient(y_bar, x, v, pairs, n_rows, 1)
                                 : call_backward_table_gradient(u, v, y_bar, x, pairs, n_rows);
    }
    if (ctx->needs_input_grad(3)) {
      if (u.defined()) result[3] = call_dot(u, y_bar, table, pairs, 1);
      if (v.defined()) result[3] = sum(result[3], times(v, call_dot(y_bar, x, table, pairs, 2)));
    }
    return result;
  }
};

struct CfconvDoubleBackward : Function<CfconvDoubleBackward> {
  static Tensor forward(AutogradContext* ctx, const Tensor& u, const Tensor& v, const Tensor& x,
                        const Tensor& table, const Tensor& d_ij, const Pairs& pairs) {
    save(ctx, {u, v, x, table}, pairs);
    (void)d_ij;
    const AutoDispatchBelowADInplaceOrView guard;
    return call_double_backward(u, v, x, table, pairs);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Tensor& bar = gradients[0];
    variable_list result(6);
    if (!bar.defined()) return result;
    const Saved saved(ctx);
    const Tensor &u = saved[0], &v = saved[1], &x = saved[2], &table = saved[3];
    const Pairs& pairs = saved.pairs;
    if (ctx->needs_input_grad(0)) result[0] = call_cfconv(bar, table, pairs);
    if (ctx->needs_input_grad(1)) result[1] = call_dot(bar, x, table, pairs, 1);
    if (ctx->needs_input_grad(2)) result[2] = call_derivative(bar, v, table, pairs, 1);
    if (ctx->needs_input_grad(3))
      result[3] = call_backward_table_gradient(u, v, bar, x, pairs, table.sym_size(0));
    if (ctx->needs_input_grad(4)) {
      result[4] = call_dot(bar, u, table, pairs, 1) + v * call_dot(bar, x, table, pairs, 2);
    }
    return result;
  }
};

struct CfconvBackwardTableGradient : Function<CfconvBackwardTableGradient> {
  static Tensor forward(AutogradContext* ctx, const Tensor& u, const Tensor& v, const Tensor& y_bar,
                        const Tensor& x, const Tensor& d_ij, const Pairs& pairs,
                        const c10::SymInt& n_rows) {
    save(ctx, {u, v, y_bar, x}, pairs);
    (void)d_ij;
    const AutoDispatchBelowADInplaceOrView guard;
    return call_backward_table_gradient(u, v, y_bar, x, pairs, n_rows);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Tensor& table = gradients[0];  // in the place of a table
    variable_list result(7);
    if (!table.defined()) return result;
    const Saved saved(ctx);
    const Tensor &u = saved[0], &v = saved[1], &y_bar = saved[2], &x = saved[3];
    const Pairs& pairs = saved.pairs;
    if (ctx->needs_input_grad(0)) result[0] = call_cfconv(y_bar, table, pairs);
    if (ctx->needs_input_grad(1)) result[1] = call_dot(y_bar, x, table, pairs, 1);
    if (ctx->needs_input_grad(2)) result[2] = call_double_backward(u, v, x, table, pairs);
    if (ctx->needs_input_grad(3)) result[3] = call_derivative(y_bar, v, table, pairs, 1);
    if (ctx->needs_input_grad(4)) {
      result[4] = call_dot(u, y_bar, table, pairs, 1) + v * call_dot(y_bar, x, table, pairs, 2);
    }
    return result;
  }
};

struct CfconvDerivative : Function<CfconvDerivative> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& table,
                        const Tensor& d_ij, const OptionalTensor& v, const Pairs& pairs,
                        std::int64_t order) {
    save(ctx, {x, table, v.value_or(Tensor())}, pairs);
    (void)d_ij;
    ctx->saved_data["order"] = order;
    const AutoDispatchBelowADInplaceOrView guard;
    return call_derivative(x, v, table, pairs, order);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Tensor& bar = gradients[0];
    variable_list result(6);
    if (!bar.defined()) return result;
    const Saved saved(ctx);
    const Tensor &x = saved[0], &table = saved[1], &v = saved[2];
    const Pairs& pairs = saved.pairs;
    const std::int64_t order = ctx->saved_data["order"].toInt();
    if (ctx->needs_input_grad(0))
      result[0] = call_derivative(bar, optional(v), table, pairs, order);
    if (ctx->needs_input_grad(1)) {
      result[1] = call_table_gradient(bar, x, optional(v), pairs, table.sym_size(0), order);
    }
    if (ctx->needs_input_grad(2)) result[2] = times(v, call_dot(bar, x, table, pairs, order + 1));
    if (v.defined() && ctx->needs_input_grad(3)) result[3] = call_dot(bar, x, table, pairs, order);
    return result;
  }
};

struct CfconvDot : Function<CfconvDot> {
  static Tensor forward(AutogradContext* ctx, const Tensor& a, const Tensor& b, const Tensor& table,
                        const Tensor& d_ij, const Pairs& pairs, std::int64_t order) {
    save(ctx, {a, b, table}, pairs);
    (void)d_ij;
    ctx->saved_data["order"] = order;
    const AutoDispatchBelowADInplaceOrView guard;
    return call_dot(a, b, table, pairs, order);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Tensor& v = gradients[0];
    variable_list result(6);
    if (!v.defined()) return result;
    const Saved saved(ctx);
    const Tensor &a = saved[0], &b = saved[1], &table = saved[2];
    const Pairs& pairs = saved.pairs;
    const std::int64_t order = ctx->saved_data["order"].toInt();
    if (ctx->needs_input_grad(0)) result[0] = call_derivative(b, v, table, pairs, order);
    if (ctx->needs_input_grad(1)) result[1] = call_derivative(a, v, table, pairs, order);
    if (ctx->needs_input_grad(2))
      result[2] = call_table_gradient(a, b, v, pairs, table.sym_size(0), order);
    if (ctx->needs_input_grad(3)) result[3] = v * call_dot(a, b, table, pairs, order + 1);
    return result;
  }
};

struct CfconvTableGradient : Function<CfconvTableGradient> {
  static Tensor forward(AutogradContext* ctx, const Tensor& a, const Tensor& b, const Tensor& d_ij,
                        const OptionalTensor& v, const Pairs& pairs, const c10::SymInt& n_rows,
                        std::int64_t order) {
    save(ctx, {a, b, v.value_or(Tensor())}, pairs);
    (void)d_ij;
    ctx->saved_data["order"] = order;
    const AutoDispatchBelowADInplaceOrView guard;
    return call_table_gradient(a, b, v, pairs, n_rows, order);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const Tensor& table = gradients[0];  // in the place of a table
    variable_list result(7);
    if (!table.defined()) return result;
    const Saved saved(ctx);
    const Tensor &a = saved[0], &b = saved[1], &v = saved[2];
    const Pairs& pairs = saved.pairs;
    const std::int64_t order = ctx->saved_data["order"].toInt();
    if (ctx->needs_input_grad(0)) result[0] = call_derivative(b, optional(v), table, pairs, order);
    if (ctx->needs_input_grad(1)) result[1] = call_derivative(a, optional(v), table, pairs, order);
    if (ctx->needs_input_grad(2)) result[2] = times(v, call_dot(a, b, table, pairs, order + 1));
    if (v.defined() && ctx->needs_input_grad(3)) result[3] = call_dot(a, b, table, pairs, order);
    return result;
  }
};

// ---- kernels of the Autograd key

Tensor cfconv(const Tensor& x, const Tensor& table, SCSCHNET_PAIRS_PARAMETERS) {
  return Cfconv::apply(x, table, d_ij, SCSCHNET_PAIRS);
}

std::tuple<Tensor, Tensor> cfconv_backward(const Tensor& y_bar, const Tensor& x,
                                           const Tensor& table, SCSCHNET_PAIRS_PARAMETERS) {
  const variable_list result = CfconvBackward::apply(y_bar, x, table, d_ij, SCSCHNET_PAIRS);
  return {result[0], result[1]};
}

Tensor cfconv_double_backward(const Tensor& u, const Tensor& v, const Tensor& x,
                              const Tensor& table, SCSCHNET_PAIRS_PARAMETERS) {
  return CfconvDoubleBackward::apply(u, v, x, table, d_ij, SCSCHNET_PAIRS);
}

Tensor cfconv_backward_table_gradient(const Tensor& u, const Tensor& v, const Tensor& y_bar,
                                      const Tensor& x, SCSCHNET_PAIRS_PARAMETERS,
                                      c10::SymInt n_rows) {
  return CfconvBackwardTableGradient::apply(u, v, y_bar, x, d_ij, SCSCHNET_PAIRS, n_rows);
}

Tensor cfconv_derivative(const Tensor& x, const OptionalTensor& v, const Tensor& table,
                         SCSCHNET_PAIRS_PARAMETERS, std::int64_t order) {
  return CfconvDerivative::apply(x, table, d_ij, v, SCSCHNET_PAIRS, order);
}

Tensor cfconv_dot(const Tensor& a, const Tensor& b, const Tensor& table, SCSCHNET_PAIRS_PARAMETERS,
                  std::int64_t order) {
  return CfconvDot::apply(a, b, table, d_ij, SCSCHNET_PAIRS, order);
}

Tensor cfconv_table_gradient(const Tensor& a, const Tensor& b, const OptionalTensor& v,
                             SCSCHNET_PAIRS_PARAMETERS, c10::SymInt n_rows, std::int64_t order) {
  return CfconvTableGradient::apply(a, b, d_ij, v, SCSCHNET_PAIRS, n_rows, order);
}

}  // namespace
}  // namespace scschnet

TORCH_LIBRARY_IMPL(scschnet, Autograd, library) {
  library.impl("cfconv", scschnet::cfconv);
  library.impl("cfconv_backward", scschnet::cfconv_backward);
  library.impl("cfconv_double_backward", scschnet::cfconv_double_backward);
  library.impl("cfconv_backward_table_gradient", scschnet::cfconv_backward_table_gradient);
  library.impl("cfconv_derivative", scschnet::cfconv_derivative);
  library.impl("cfconv_dot", scschnet::cfconv_dot);
  library.impl("cfconv_table_gradient", scschnet::cfconv_table_gradient);
}
