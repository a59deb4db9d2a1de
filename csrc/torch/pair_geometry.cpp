// The operators scschnet::pair_vectors, pair_distances and pair_forces: what the fused network
// needs around it, each in one pass. For gradients in positions there is scschnet/nn/geometry.py in
// plain torch.
#include "../core/pair_geometry.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "meta.hpp"
#include "pairs.hpp"

namespace scschnet {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const Tensor& tensor, const char* name, at::IntArrayRef sizes, at::ScalarType dtype) {
  TORCH_CHECK_VALUE(tensor.sizes() == sizes, "`", name, "` must have shape ", sizes, ", got ",
                    tensor.sizes());
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, "`", name, "` must be ", dtype, ", got ",
                   tensor.scalar_type());
}

std::tuple<Tensor, Tensor> pair_vectors(const Tensor& positions, const Tensor& cells,
                                        const Tensor& idx_m, const Tensor& idx_i,
                                        const Tensor& idx_j, const Tensor& shifts,
                                        const Tensor& pairs) {
  const std::int64_t n_atoms = positions.size(0), n_full = idx_i.size(0), n_pairs = pairs.size(0);
  check(positions, "positions", {n_atoms, 3}, at::kDouble);
  check(cells, "cells", {cells.size(0), 3, 3}, at::kDouble);
  check(idx_m, "idx_m", {n_atoms}, at::kLong);
  check(idx_i, "idx_i", {n_full}, at::kLong);
  check(idx_j, "idx_j", {n_full}, at::kLong);
  check(shifts, "shifts", {n_full, 3}, at::kInt);
  check(pairs, "pairs", {n_pairs}, at::kLong);
  const auto c = [](const Tensor& t) { return t.contiguous(); };
  const Tensor r = c(positions), h = c(cells), m = c(idx_m), i = c(idx_i), j = c(idx_j),
               s = c(shifts), chosen = c(pairs);
  check_range(m, "idx_m", h.size(0));
  check_range(chosen, "pairs", n_full);
  check_range(i, "idx_i", n_atoms);
  check_range(j, "idx_j", n_atoms);
  Tensor r_ij = at::empty({n_pairs, 3}, r.options()), d_ij = at::empty({n_pairs}, r.options());
  cpu::pair_vectors(
      {n_pairs, chosen.const_data_ptr<std::int64_t>(), i.const_data_ptr<std::int64_t>(),
       j.const_data_ptr<std::int64_t>(), s.const_data_ptr<std::int32_t>()},
      r.const_data_ptr<double>(), h.const_data_ptr<double>(), m.const_data_ptr<std::int64_t>(),
      r_ij.mutable_data_ptr<double>(), d_ij.mutable_data_ptr<double>());
  return {r_ij, d_ij};
}

/// torch's norm over rows of three takes eight times as long.
Tensor pair_distances_cpu(const Tensor& r_ij) {
  check(r_ij, "r_ij", {r_ij.dim() > 0 ? r_ij.size(0) : 0, 3}, at::kDouble);
  const Tensor r = r_ij.contiguous();
  const std::int64_t n_pairs = r.size(0);
  Tensor d_ij = at::empty({n_pairs}, r.options());
  cpu::pair_distances(n_pairs, r.const_data_ptr<double>(), d_ij.mutable_data_ptr<double>());
  return d_ij;
}

Tensor pair_distances_elsewhere(const Tensor& r_ij) {
  return at::linalg_vector_norm(r_ij, 2, at::IntArrayRef{1});
}

/// Pairs and their geometry, contiguous and checked.
struct Geometry {
  Tensor r_ij, d_ij, row_ptr, idx_j, idx_m;

  Geometry(const Tensor& r, const Tensor& d, const Tensor& rows, const Tensor& j, const Tensor& m,
           std::int64_t n_structures)
      : r_ij(r.contiguous()),
        d_ij(d.contiguous()),
        row_ptr(rows.contiguous()),
        idx_j(j.contiguous()),
        idx_m(m.contiguous()) {
    const std::int64_t n_pairs = d_ij.size(0), n_atoms = idx_m.size(0);
    check(d_ij, "d_ij", {n_pairs}, at::kDouble);
    check(r_ij, "r_ij", {n_pairs, 3}, at::kDouble);
    check(row_ptr, "row_ptr", {n_atoms + 1}, at::kLong);
    check(idx_j, "idx_j", {n_pairs}, at::kLong);
    check(idx_m, "idx_m", {n_atoms}, at::kLong);
    TORCH_CHECK_VALUE(n_structures >= 0, "`n_structures` must not be negative, got ", n_structures);
    check_range(idx_j, "idx_j", n_atoms);
    if (n_structures > 0) check_range(idx_m, "idx_m", n_structures);  // else nothing reads it
    check_rows(row_ptr, n_pairs);
  }

  DirectedPairs pairs() const {
    return {idx_m.size(0),
            row_ptr.const_data_ptr<std::int64_t>(),
            idx_j.const_data_ptr<std::int64_t>(),
            r_ij.const_data_ptr<double>(),
            d_ij.const_data_ptr<double>(),
            idx_m.const_data_ptr<std::int64_t>()};
  }
};

std::tuple<Tensor, Tensor> pair_forces_cpu(const Tensor& g_d, const Tensor& r_ij,
                                           const Tensor& d_ij, const Tensor& row_ptr,
                                           const Tensor& idx_j, const Tensor& idx_m,
                                           std::int64_t n_structures,
                                           const std::optional<Tensor>& partners) {
  TORCH_CHECK_VALUE(!partners, "`partners` are for GPUs only, got some on ", g_d.device());
  const Geometry geometry(r_ij, d_ij, row_ptr, idx_j, idx_m, n_structures);
  check(g_d, "g_d", geometry.d_ij.sizes(), at::kDouble);
  Tensor forces = at::zeros({geometry.idx_m.size(0), 3}, geometry.r_ij.options());
  Tensor virial = at::zeros({n_structures, 3, 3}, geometry.r_ij.options());
  cpu::pair_forces(geometry.pairs(), g_d.contiguous().const_data_ptr<double>(),
                   forces.mutable_data_ptr<double>(),
                   n_structures > 0 ? virial.mutable_data_ptr<double>() : nullptr);
  return {forces, virial};
}

Tensor pair_forces_backward_cpu(const Tensor& forces_bar, const Tensor& virial_bar,
                                const Tensor& r_ij, const Tensor& d_ij, const Tensor& row_ptr,
                                const Tensor& idx_j, const Tensor& idx_m) {
  const Geometry geometry(r_ij, d_ij, row_ptr, idx_j, idx_m, virial_bar.size(0));
  check(forces_bar, "forces_bar", {geometry.idx_m.size(0), 3}, at::kDouble);
  check(virial_bar, "virial_bar", {virial_bar.size(0), 3, 3}, at::kDouble);
  Tensor g_bar = at::empty_like(geometry.d_ij);
  const Tensor f = forces_bar.contiguous(), w = virial_bar.contiguous();
  cpu::pair_forces_backward(geometry.pairs(), f.const_data_ptr<double>(),
                            w.size(0) > 0 ? w.const_data_ptr<double>() : nullptr,
                            g_bar.mutable_data_ptr<double>());
  return g_bar;
}

// ---- shapes alone

std::tuple<Tensor, Tensor> pair_vectors_meta(const Tensor& positions, const Tensor&, const Tensor&,
                                             const Tensor&, const Tensor&, const Tensor&,
                                             const Tensor& pairs) {
  const auto n_pairs = pairs.sym_size(0);
  return {at::empty_symint({n_pairs, 3}, on_meta(positions)),
          at::empty_symint({n_pairs}, on_meta(positions))};
}

std::tuple<Tensor, Tensor> pair_forces_meta(const Tensor& g_d, const Tensor&, const Tensor&,
                                            const Tensor&, const Tensor&, const Tensor& idx_m,
                                            c10::SymInt n_structures,
                                            const std::optional<Tensor>&) {
  return {at::empty_symint({idx_m.sym_size(0), 3}, on_meta(g_d)),
          at::empty_symint({std::move(n_structures), 3, 3}, on_meta(g_d))};
}

Tensor pair_distances_meta(const Tensor& r_ij) {
  return at::empty_symint({r_ij.sym_size(0)}, on_meta(r_ij));
}

Tensor pair_forces_backward_meta(const Tensor&, const Tensor&, const Tensor&, const Tensor& d_ij,
                                 const Tensor&, const Tensor&, const Tensor&) {
  return at::empty_symint(d_ij.sym_sizes(), on_meta(d_ij));
}

// ---- autograd: forces and virial are linear in g_d

template <class Function>
auto operator_of(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

variable_list call_forces(const Tensor& g_d, const Tensor& r_ij, const Tensor& d_ij,
                          const Tensor& row_ptr, const Tensor& idx_j, const Tensor& idx_m,
                          std::int64_t n_structures, const std::optional<Tensor>& partners);

Tensor call_backward(const Tensor& forces_bar, const Tensor& virial_bar, const Tensor& r_ij,
                     const Tensor& d_ij, const Tensor& row_ptr, const Tensor& idx_j,
                     const Tensor& idx_m);

void check_no_gradients(AutogradContext* context, std::size_t first) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !context->needs_input_grad(first) && !context->needs_input_grad(first + 1),
      "scschnet::pair_forces is not differentiable in `r_ij` and `d_ij`; use plain torch "
      "(scschnet.nn.geometry) where positions need gradients");
}

struct BackwardFunction : torch::autograd::Function<BackwardFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& forces_bar,
                        const Tensor& virial_bar, const Tensor& r_ij, const Tensor& d_ij,
                        const Tensor& row_ptr, const Tensor& idx_j, const Tensor& idx_m) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({r_ij, d_ij, row_ptr, idx_j, idx_m});
    context->saved_data["n_structures"] = virial_bar.size(0);
    static const auto op =
        operator_of<decltype(pair_forces_backward_cpu)>("scschnet::pair_forces_backward");
    return op.call(forces_bar, virial_bar, r_ij, d_ij, row_ptr, idx_j, idx_m);
  }

  static variable_list backward(AutogradContext* context, const variable_list& bars) {
    check_no_gradients(context, 2);
    const auto s = context->get_saved_variables();
    auto both = call_forces(bars[0], s[0], s[1], s[2], s[3], s[4],
                            context->saved_data["n_structures"].toInt(), std::nullopt);
    both.resize(7);
    return both;
  }
};

struct ForcesFunction : torch::autograd::Function<ForcesFunction> {
  static variable_list forward(AutogradContext* context, const Tensor& g_d, const Tensor& r_ij,
                               const Tensor& d_ij, const Tensor& row_ptr, const Tensor& idx_j,
                               const Tensor& idx_m, std::int64_t n_structures,
                               const std::optional<Tensor>& partners) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({r_ij, d_ij, row_ptr, idx_j, idx_m});
    static const auto op = operator_of<decltype(pair_forces_cpu)>("scschnet::pair_forces");
    const auto [forces, virial] =
        op.call(g_d, r_ij, d_ij, row_ptr, idx_j, idx_m, n_structures, partners);
    return {forces, virial};
  }

  static variable_list backward(AutogradContext* context, const variable_list& bars) {
    check_no_gradients(context, 1);
    const auto s = context->get_saved_variables();
    variable_list gradients(8);
    gradients[0] = call_backward(bars[0], bars[1], s[0], s[1], s[2], s[3], s[4]);
    return gradients;
  }
};

variable_list call_forces(const Tensor& g_d, const Tensor& r_ij, const Tensor& d_ij,
                          const Tensor& row_ptr, const Tensor& idx_j, const Tensor& idx_m,
                          std::int64_t n_structures, const std::optional<Tensor>& partners) {
  return ForcesFunction::apply(g_d, r_ij, d_ij, row_ptr, idx_j, idx_m, n_structures, partners);
}

Tensor call_backward(const Tensor& forces_bar, const Tensor& virial_bar, const Tensor& r_ij,
                     const Tensor& d_ij, const Tensor& row_ptr, const Tensor& idx_j,
                     const Tensor& idx_m) {
  return BackwardFunction::apply(forces_bar, virial_bar, r_ij, d_ij, row_ptr, idx_j, idx_m);
}

std::tuple<Tensor, Tensor> pair_forces_autograd(const Tensor& g_d, const Tensor& r_ij,
                                                const Tensor& d_ij, const Tensor& row_ptr,
                                                const Tensor& idx_j, const Tensor& idx_m,
                                                std::int64_t n_structures,
                                                const std::optional<Tensor>& partners) {
  const auto both = call_forces(g_d, r_ij, d_ij, row_ptr, idx_j, idx_m, n_structures, partners);
  return {both[0], both[1]};
}

}  // namespace
}  // namespace scschnet

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  const auto define = [&library](const char* schema) {
    library.def(schema, {at::Tag::pt2_compliant_tag});
  };
  define(
      "pair_vectors(Tensor positions, Tensor cells, Tensor idx_m, Tensor idx_i, Tensor idx_j, "
      "Tensor shifts, Tensor pairs) -> (Tensor r_ij, Tensor d_ij)");
  define("pair_distances(Tensor r_ij) -> Tensor");
  define(
      "pair_forces(Tensor g_d, Tensor r_ij, Tensor d_ij, Tensor row_ptr, Tensor idx_j, Tensor "
      "idx_m, SymInt n_structures, Tensor? partners=None) -> (Tensor forces, Tensor virial)");
  define(
      "pair_forces_backward(Tensor forces_bar, Tensor virial_bar, Tensor r_ij, Tensor d_ij, Tensor "
      "row_ptr, Tensor idx_j, Tensor idx_m) -> Tensor");
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("pair_vectors", scschnet::pair_vectors);
  library.impl("pair_distances", scschnet::pair_distances_cpu);
  library.impl("pair_forces", scschnet::pair_forces_cpu);
  library.impl("pair_forces_backward", scschnet::pair_forces_backward_cpu);
}

TORCH_LIBRARY_IMPL(scschnet, CompositeExplicitAutograd, library) {
  library.impl("pair_distances", scschnet::pair_distances_elsewhere);
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("pair_vectors", scschnet::pair_vectors_meta);
  library.impl("pair_distances", scschnet::pair_distances_meta);
  library.impl("pair_forces", scschnet::pair_forces_meta);
  library.impl("pair_forces_backward", scschnet::pair_forces_backward_meta);
}

TORCH_LIBRARY_IMPL(scschnet, Autograd, library) {
  library.impl("pair_forces", scschnet::pair_forces_autograd);
  library.impl("pair_forces_backward", scschnet::call_backward);
}
