// The operators of the continuous-filter convolution with tabulated filters: checks, outputs,
// threads and shapes; the work is done by core, the gradients are in cfconv_autograd.cpp.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <stdexcept>
#include <tuple>
#include <vector>

#include "meta.hpp"
#include "pairs.hpp"

namespace scschnet {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// ---- checks

void check_dtype(const Tensor& tensor, const char* name, const Tensor& like,
                 const char* like_name) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == like.scalar_type(), "`", name,
                   "` must have the dtype of `", like_name, "`, ", like.scalar_type(), ", got ",
                   tensor.scalar_type());
}

void check_n_rows(const c10::SymInt& n_rows) {
  TORCH_CHECK_VALUE(n_rows >= 0, "`n_rows` must not be negative, got ", n_rows);
}

/// Everything that does not read data, so that it serves the shapes of tracing too. `x` names the
/// dtype.
void check_pairs(const Pairs& pairs, const Tensor& x, const char* name) {
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, "`", name,
                   "` must be float32 or float64, got ", x.scalar_type());
  TORCH_CHECK_VALUE(pairs.d_ij.dim() == 1, "`d_ij` must have shape (n_pairs,), got ",
                    pairs.d_ij.sizes());
  TORCH_CHECK_TYPE(
      pairs.d_ij.scalar_type() == at::kDouble || pairs.d_ij.scalar_type() == x.scalar_type(),
      "`d_ij` must be float64 or have the dtype of `", name, "`, ", x.scalar_type(), ", got ",
      pairs.d_ij.scalar_type());
  const auto n_pairs = pairs.d_ij.sym_size(0);
  TORCH_CHECK_TYPE(pairs.bins.scalar_type() == at::kInt, "`bins` must be int32, got ",
                   pairs.bins.scalar_type());
  TORCH_CHECK_VALUE(pairs.bins.dim() == 1 && pairs.bins.sym_size(0) == n_pairs,
                    "`bins` must have shape (", n_pairs, ",) like `d_ij`, got ",
                    pairs.bins.sym_sizes());
  check_dtype(pairs.weights, "weights", x, name);
  TORCH_CHECK_VALUE(pairs.weights.dim() == 3 && pairs.weights.sym_size(1) == n_pairs &&
                        pairs.weights.sym_size(2) == n_taps && pairs.weights.sym_size(0) > 0,
                    "`weights` must have shape (n_orders, ", n_pairs, ", ", n_taps, "), got ",
                    pairs.weights.sym_sizes());
  for (const auto& [index, index_name] :
       {std::pair{pairs.row_ptr, "row_ptr"}, std::pair{pairs.idx_j, "idx_j"}}) {
    TORCH_CHECK_TYPE(index.scalar_type() == at::kLong, "`", index_name, "` must be int64, got ",
                     index.scalar_type());
  }
  TORCH_CHECK_VALUE(pairs.row_ptr.dim() == 1 && pairs.row_ptr.sym_size(0) > 0,
                    "`row_ptr` must have shape (n_atoms + 1,), got ", pairs.row_ptr.sym_sizes());
  TORCH_CHECK_VALUE(pairs.idx_j.dim() == 1 && pairs.idx_j.sym_size(0) == n_pairs,
                    "`idx_j` must have shape (", n_pairs, ",) like `d_ij`, got ",
                    pairs.idx_j.sym_sizes());
  check_cutoff_pieces(pairs.cutoff_pieces, pairs.d_ij);
}

/// A per-atom array with as many features as `like`.
void check_features(const Tensor& x, const char* name, const Tensor& like, const char* like_name,
                    const Pairs& pairs) {
  check_dtype(x, name, like, like_name);
  const auto n_atoms = pairs.row_ptr.sym_size(0) - 1, n_features = like.sym_size(like.dim() - 1);
  TORCH_CHECK_VALUE(x.dim() == 2 && x.sym_size(0) == n_atoms && x.sym_size(1) == n_features, "`",
                    name, "` must have shape (", n_atoms, ", ", n_features, "), got ",
                    x.sym_sizes());
}

void check_table(const Tensor& table, const Tensor& like, const char* like_name) {
  check_dtype(table, "table", like, like_name);
  TORCH_CHECK_VALUE(table.dim() == 2 && like.dim() == 2 && table.sym_size(1) == like.sym_size(1),
                    "`table` must have shape (n_rows, n_features) with the features of `",
                    like_name, "`, ", like.sym_sizes(), ", got ", table.sym_sizes());
}

void check_pair_factor(const Tensor& v, const Tensor& like, const char* like_name,
                       const Pairs& pairs) {
  check_dtype(v, "v", like, like_name);
  TORCH_CHECK_VALUE(v.dim() == 1 && v.sym_size(0) == pairs.d_ij.sym_size(0),
                    "`v` must have shape (", pairs.d_ij.sym_size(0), ",) like `d_ij`, got ",
                    v.sym_sizes());
}

void check_order(std::int64_t order) {
  TORCH_CHECK_VALUE(order >= 0 && order <= max_spline_order, "`order` must lie between 0 and ",
                    max_spline_order, ", got ", order);
}

// ---- from tensors to core

cpu::InstructionSet best_isa() {
  static const cpu::InstructionSet best = cpu::available_instruction_sets().back();
  return best;
}

/// Arguments of core, and the tensors that hold their memory.
template <class Scalar>
struct CoreArguments {
  Pairs held;
  Tensor w, z, table_held;
  HalfPairs<Scalar> pairs;
  FilterTable<Scalar> table;

  CoreArguments(const Pairs& given, const Tensor& w_given, const Tensor& z_given,
                const Tensor& table_given, std::int64_t n_rows, std::int64_t n_features)
      : held(given),
        w(w_given),
        z(z_given),
        table_held(table_given.defined() ? table_given.contiguous() : Tensor()) {
    held.bins = held.bins.contiguous();
    held.row_ptr = held.row_ptr.contiguous();
    held.idx_j = held.idx_j.contiguous();
    check_rows(held.row_ptr, held.d_ij.size(0));
    check_range(held.idx_j, "idx_j", held.row_ptr.size(0) - 1);
    check_bins(held.bins, n_rows);
    pairs = {.n_atoms = held.row_ptr.size(0) - 1,
             .row_ptr = held.row_ptr.const_data_ptr<std::int64_t>(),
             .idx_j = held.idx_j.const_data_ptr<std::int64_t>(),
             .bins = held.bins.const_data_ptr<std::int32_t>(),
             .w = w.const_data_ptr<Scalar>(),
             .z = z.defined() ? z.const_data_ptr<Scalar>() : nullptr};
    table = {table_held.defined() ? table_held.const_data_ptr<Scalar>() : nullptr, n_rows,
             n_features};
  }
};

template <class Scalar>
void compute_weights(const Pairs& pairs, std::int64_t n_rows, std::int64_t order, Tensor& weights) {
  const Tensor d = pairs.d_ij.contiguous(), pieces = pairs.cutoff_pieces.contiguous();
  const SplineGrid grid = spline_grid(pairs.step, pairs.cutoff, pieces, n_rows);
  Scalar* const out = weights.mutable_data_ptr<Scalar>();
  try {
    if (d.scalar_type() == at::kDouble) {
      cpu::spline_weights(grid, d.const_data_ptr<double>(), d.size(0), static_cast<int>(order), 1,
                          nullptr, out);
    } else {
      cpu::spline_weights(grid, d.const_data_ptr<float>(), d.size(0), static_cast<int>(order), 1,
                          nullptr, out);
    }
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
}

/// Weights of the filter's derivative of this order, times v if given: those at hand, or new ones.
Tensor weights_of(const Pairs& pairs, std::int64_t n_rows, std::int64_t order,
                  const OptionalTensor& v = {}) {
  Tensor weights;
  if (order < pairs.weights.size(0)) {
    weights = pairs.weights.select(0, order).contiguous();
  } else {
    weights = at::empty({pairs.d_ij.size(0), n_taps}, pairs.weights.options());
    if (weights.scalar_type() == at::kDouble) {
      compute_weights<double>(pairs, n_rows, order, weights);
    } else {
      compute_weights<float>(pairs, n_rows, order, weights);
    }
  }
  return v.has_value() ? at::mul(weights, v->unsqueeze(1)) : weights;
}

/// Calls work(core arguments) for the scalar type.
template <class Work>
void with_core(const Pairs& pairs, const Tensor& w, const Tensor& z, const Tensor& table,
               std::int64_t n_rows, std::int64_t n_features, const Work& work) {
  if (w.scalar_type() == at::kDouble) {
    work(CoreArguments<double>(pairs, w, z, table, n_rows, n_features));
  } else {
    work(CoreArguments<float>(pairs, w, z, table, n_rows, n_features));
  }
}

template <class Scalar, class Work>
void for_each_block(std::int64_t n_features, const Work& work) {
  parallel_for(n_feature_blocks<Scalar>(n_features),
               [&](std::int64_t b) { work(feature_range<Scalar>(b, n_features), b); });
}

/// Calls work(range, sums to add to) for every feature block. Several threads get an array each,
/// which are added in order: the same additions as on one thread.
template <class Scalar, class Work>
void sum_over_blocks(std::int64_t n_features, const Tensor& sums, const Work& work) {
  const std::int64_t n_blocks = n_feature_blocks<Scalar>(n_features);
  if (n_blocks <= 1 || at::get_num_threads() == 1) {
    for_each_block<Scalar>(n_features, [&](FeatureRange range, std::int64_t) {
      work(range, sums.mutable_data_ptr<Scalar>());
    });
    return;
  }
  const Tensor parts = at::zeros({n_blocks, sums.size(0)}, sums.options());
  Scalar* const first = parts.mutable_data_ptr<Scalar>();
  for_each_block<Scalar>(n_features, [&](FeatureRange range, std::int64_t b) {
    work(range, first + b * sums.size(0));
  });
  for (std::int64_t b = 0; b < n_blocks; ++b) sums.add_(parts[b]);
}

// ---- the operators

Tensor cfconv_derivative(const Tensor& x, const OptionalTensor& v, const Tensor& table,
                         SCSCHNET_PAIRS_PARAMETERS, std::int64_t order) {
  const Pairs pairs = SCSCHNET_PAIRS;
  check_pairs(pairs, x, "x");
  check_table(table, x, "x");
  check_features(x, "x", table, "table", pairs);
  if (v.has_value()) check_pair_factor(*v, x, "x", pairs);
  check_order(order);
  const Tensor from = x.contiguous(), y = at::empty(x.sizes(), x.options());
  with_core(pairs, weights_of(pairs, table.size(0), order, v), {}, table, table.size(0),
            table.size(1), [&]<class Scalar>(const CoreArguments<Scalar>& c) {
              const Scalar* const in = from.const_data_ptr<Scalar>();
              Scalar* const out = y.mutable_data_ptr<Scalar>();
              for_each_block<Scalar>(c.table.n_features, [&](FeatureRange range, std::int64_t) {
                cpu::cfconv(c.pairs, c.table, in, range, out, best_isa());
              });
            });
  return y;
}

Tensor cfconv(const Tensor& x, const Tensor& table, SCSCHNET_PAIRS_PARAMETERS) {
  return cfconv_derivative(x, {}, table, d_ij, bins, weights, row_ptr, idx_j, step, cutoff,
                           cutoff_pieces, 0);
}

Tensor cfconv_dot(const Tensor& a, const Tensor& b, const Tensor& table, SCSCHNET_PAIRS_PARAMETERS,
                  std::int64_t order) {
  const Pairs pairs = SCSCHNET_PAIRS;
  check_pairs(pairs, a, "a");
  check_table(table, a, "a");
  check_features(a, "a", table, "table", pairs);
  check_features(b, "b", table, "table", pairs);
  check_order(order);
  const Tensor a_held = a.contiguous(), b_held = b.contiguous(),
               dot = at::zeros({d_ij.size(0)}, a.options());
  with_core(pairs, weights_of(pairs, table.size(0), order), {}, table, table.size(0), table.size(1),
            [&]<class Scalar>(const CoreArguments<Scalar>& c) {
              const Scalar* const in_a = a_held.const_data_ptr<Scalar>();
              const Scalar* const in_b = b_held.const_data_ptr<Scalar>();
              sum_over_blocks<Scalar>(
                  c.table.n_features, dot, [&](FeatureRange range, Scalar* sums) {
                    cpu::cfconv_dot(c.pairs, c.table, in_a, in_b, range, sums, best_isa());
                  });
            });
  return dot;
}

Tensor cfconv_table_gradient(const Tensor& a, const Tensor& b, const OptionalTensor& v,
                             SCSCHNET_PAIRS_PARAMETERS, std::int64_t n_rows, std::int64_t order) {
  const Pairs pairs = SCSCHNET_PAIRS;
  check_n_rows(n_rows);
  check_pairs(pairs, a, "a");
  TORCH_CHECK_VALUE(a.dim() == 2, "`a` must have shape (n_atoms, n_features), got ", a.sizes());
  check_features(a, "a", a, "a", pairs);
  check_features(b, "b", a, "a", pairs);
  if (v.has_value()) check_pair_factor(*v, a, "a", pairs);
  check_order(order);
  const Tensor a_held = a.contiguous(), b_held = b.contiguous(),
               bar = at::empty({n_rows, a.size(1)}, a.options());
  with_core(pairs, weights_of(pairs, n_rows, order, v), {}, {}, n_rows, a.size(1),
            [&]<class Scalar>(const CoreArguments<Scalar>& c) {
              const Scalar* const in_a = a_held.const_data_ptr<Scalar>();
              const Scalar* const in_b = b_held.const_data_ptr<Scalar>();
              Scalar* const out = bar.mutable_data_ptr<Scalar>();
              for_each_block<Scalar>(c.table.n_features, [&](FeatureRange range, std::int64_t) {
                cpu::cfconv_table_gradient(c.pairs, c.table, in_a, in_b, range, out, best_isa());
              });
            });
  return bar;
}

std::tuple<Tensor, Tensor> cfconv_backward(const Tensor& y_bar, const Tensor& x,
                                           const Tensor& table, SCSCHNET_PAIRS_PARAMETERS) {
  const Pairs pairs = SCSCHNET_PAIRS;
  check_pairs(pairs, x, "x");
  check_table(table, x, "x");
  check_features(x, "x", table, "table", pairs);
  check_features(y_bar, "y_bar", x, "x", pairs);
  const Tensor y_bar_held = y_bar.contiguous(), x_held = x.contiguous();
  const Tensor x_bar = at::empty(x.sizes(), x.options()),
               d_bar = at::zeros({d_ij.size(0)}, x.options());
  with_core(
      pairs, weights_of(pairs, table.size(0), 0), weights_of(pairs, table.size(0), 1), table,
      table.size(0), table.size(1), [&]<class Scalar>(const CoreArguments<Scalar>& c) {
        const Scalar* const in_y = y_bar_held.const_data_ptr<Scalar>();
        const Scalar* const in_x = x_held.const_data_ptr<Scalar>();
        Scalar* const out = x_bar.mutable_data_ptr<Scalar>();
        sum_over_blocks<Scalar>(c.table.n_features, d_bar, [&](FeatureRange range, Scalar* sums) {
          cpu::cfconv_backward(c.pairs, c.table, in_y, in_x, range, out, sums, best_isa());
        });
      });
  return {x_bar, d_bar};
}

Tensor cfconv_double_backward(const Tensor& u, const Tensor& v, const Tensor& x,
                              const Tensor& table, SCSCHNET_PAIRS_PARAMETERS) {
  const Pairs pairs = SCSCHNET_PAIRS;
  check_pairs(pairs, x, "x");
  check_table(table, x, "x");
  check_features(x, "x", table, "table", pairs);
  check_features(u, "u", x, "x", pairs);
  check_pair_factor(v, x, "x", pairs);
  const Tensor u_held = u.contiguous(), v_held = v.contiguous(), x_held = x.contiguous();
  const Tensor out = at::empty(x.sizes(), x.options());
  with_core(pairs, weights_of(pairs, table.size(0), 0), weights_of(pairs, table.size(0), 1), table,
            table.size(0), table.size(1), [&]<class Scalar>(const CoreArguments<Scalar>& c) {
              const Scalar* const in_u = u_held.const_data_ptr<Scalar>();
              const Scalar* const in_v = v_held.const_data_ptr<Scalar>();
              const Scalar* const in_x = x_held.const_data_ptr<Scalar>();
              Scalar* const to = out.mutable_data_ptr<Scalar>();
              for_each_block<Scalar>(c.table.n_features, [&](FeatureRange range, std::int64_t) {
                cpu::cfconv_double_backward(c.pairs, c.table, in_u, in_v, in_x, range, to,
                                            best_isa());
              });
            });
  return out;
}

Tensor cfconv_backward_table_gradient(const Tensor& u, const Tensor& v, const Tensor& y_bar,
                                      const Tensor& x, SCSCHNET_PAIRS_PARAMETERS,
                                      std::int64_t n_rows) {
  const Pairs pairs = SCSCHNET_PAIRS;
  check_n_rows(n_rows);
  check_pairs(pairs, x, "x");
  TORCH_CHECK_VALUE(x.dim() == 2, "`x` must have shape (n_atoms, n_features), got ", x.sizes());
  check_features(x, "x", x, "x", pairs);
  check_features(u, "u", x, "x", pairs);
  check_features(y_bar, "y_bar", x, "x", pairs);
  check_pair_factor(v, x, "x", pairs);
  const Tensor u_held = u.contiguous(), v_held = v.contiguous();
  const Tensor y_bar_held = y_bar.contiguous(), x_held = x.contiguous();
  const Tensor bar = at::empty({n_rows, x.size(1)}, x.options());
  with_core(pairs, weights_of(pairs, n_rows, 0), weights_of(pairs, n_rows, 1), {}, n_rows,
            x.size(1), [&]<class Scalar>(const CoreArguments<Scalar>& c) {
              const Scalar* const in_u = u_held.const_data_ptr<Scalar>();
              const Scalar* const in_v = v_held.const_data_ptr<Scalar>();
              const Scalar* const in_y = y_bar_held.const_data_ptr<Scalar>();
              const Scalar* const in_x = x_held.const_data_ptr<Scalar>();
              Scalar* const out = bar.mutable_data_ptr<Scalar>();
              for_each_block<Scalar>(c.table.n_features, [&](FeatureRange range, std::int64_t) {
                cpu::cfconv_backward_table_gradient(c.pairs, c.table, in_u, in_v, in_y, in_x, range,
                                                    out, best_isa());
              });
            });
  return bar;
}

// ---- shapes

Tensor like_x(const Tensor& x) {
  return at::empty_symint(x.sym_sizes(), on_meta(x));
}

Tensor cfconv_derivative_meta(const Tensor& x, const OptionalTensor&, const Tensor&,
                              SCSCHNET_PAIRS_PARAMETERS, std::int64_t) {
  check_pairs(SCSCHNET_PAIRS, x, "x");
  return like_x(x);
}

Tensor cfconv_meta(const Tensor& x, const Tensor&, SCSCHNET_PAIRS_PARAMETERS) {
  check_pairs(SCSCHNET_PAIRS, x, "x");
  return like_x(x);
}

Tensor cfconv_dot_meta(const Tensor& a, const Tensor&, const Tensor&, SCSCHNET_PAIRS_PARAMETERS,
                       std::int64_t) {
  check_pairs(SCSCHNET_PAIRS, a, "a");
  return at::empty_symint({d_ij.sym_size(0)}, on_meta(a));
}

Tensor cfconv_table_gradient_meta(const Tensor& a, const Tensor&, const OptionalTensor&,
                                  SCSCHNET_PAIRS_PARAMETERS, c10::SymInt n_rows, std::int64_t) {
  check_n_rows(n_rows);
  check_pairs(SCSCHNET_PAIRS, a, "a");
  return at::empty_symint({std::move(n_rows), a.sym_size(1)}, on_meta(a));
}

std::tuple<Tensor, Tensor> cfconv_backward_meta(const Tensor&, const Tensor& x, const Tensor&,
                                                SCSCHNET_PAIRS_PARAMETERS) {
  check_pairs(SCSCHNET_PAIRS, x, "x");
  return {like_x(x), at::empty_symint({d_ij.sym_size(0)}, on_meta(x))};
}

Tensor cfconv_double_backward_meta(const Tensor&, const Tensor&, const Tensor& x, const Tensor&,
                                   SCSCHNET_PAIRS_PARAMETERS) {
  check_pairs(SCSCHNET_PAIRS, x, "x");
  return like_x(x);
}

Tensor cfconv_backward_table_gradient_meta(const Tensor&, const Tensor&, const Tensor&,
                                           const Tensor& x, SCSCHNET_PAIRS_PARAMETERS,
                                           c10::SymInt n_rows) {
  check_n_rows(n_rows);
  check_pairs(SCSCHNET_PAIRS, x, "x");
  return at::empty_symint({std::move(n_rows), x.sym_size(1)}, on_meta(x));
}

}  // namespace
}  // namespace scschnet

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  const auto define = [&](const char* schema) {
    library.def(schema, {at::Tag::pt2_compliant_tag});
  };
  define("cfconv(Tensor x, Tensor table, " SCSCHNET_PAIRS_SCHEMA ") -> Tensor");
  define("cfconv_backward(Tensor y_bar, Tensor x, Tensor table, " SCSCHNET_PAIRS_SCHEMA
         ") -> (Tensor x_bar, Tensor d_bar)");
  define("cfconv_double_backward(Tensor u, Tensor v, Tensor x, Tensor table, " SCSCHNET_PAIRS_SCHEMA
         ") -> Tensor");
  define(
      "cfconv_backward_table_gradient(Tensor u, Tensor v, Tensor y_bar, Tensor "
      "x, " SCSCHNET_PAIRS_SCHEMA ", SymInt n_rows) -> Tensor");
  define("cfconv_derivative(Tensor x, Tensor? v, Tensor table, " SCSCHNET_PAIRS_SCHEMA
         ", int order) -> Tensor");
  define("cfconv_dot(Tensor a, Tensor b, Tensor table, " SCSCHNET_PAIRS_SCHEMA
         ", int order) -> Tensor");
  define("cfconv_table_gradient(Tensor a, Tensor b, Tensor? v, " SCSCHNET_PAIRS_SCHEMA
         ", SymInt n_rows, int order) -> Tensor");
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("cfconv", scschnet::cfconv);
  library.impl("cfconv_backward", scschnet::cfconv_backward);
  library.impl("cfconv_double_backward", scschnet::cfconv_double_backward);
  library.impl("cfconv_backward_table_gradient", scschnet::cfconv_backward_table_gradient);
  library.impl("cfconv_derivative", scschnet::cfconv_derivative);
  library.impl("cfconv_dot", scschnet::cfconv_dot);
  library.impl("cfconv_table_gradient", scschnet::cfconv_table_gradient);
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("cfconv", scschnet::cfconv_meta);
  library.impl("cfconv_backward", scschnet::cfconv_backward_meta);
  library.impl("cfconv_double_backward", scschnet::cfconv_double_backward_meta);
  library.impl("cfconv_backward_table_gradient", scschnet::cfconv_backward_table_gradient_meta);
  library.impl("cfconv_derivative", scschnet::cfconv_derivative_meta);
  library.impl("cfconv_dot", scschnet::cfconv_dot_meta);
  library.impl("cfconv_table_gradient", scschnet::cfconv_table_gradient_meta);
}
