// The operators scschnet::pack_schnet and scschnet::schnet_packed: the network of scschnet::schnet
// for parameters that stay as they are, whose weights are laid out for matrix products once. With
// few atoms, as in dynamics of a molecule, that would take longer than all the rest. Not
// differentiable; on processors only.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>

#include "memory_pool.hpp"
#include "schnet_input.hpp"

namespace scschnet {
namespace {

using at::Tensor;
using at::TensorList;
using Outputs = std::tuple<Tensor, Tensor, Tensor>;

std::int64_t packed_size(const SchnetSizes& sizes, at::ScalarType dtype) {
  return dtype == at::kDouble ? cpu::schnet_packed_size<double>(sizes)
                              : cpu::schnet_packed_size<float>(sizes);
}

Tensor pack_schnet_cpu(const Tensor& tables, const Tensor& contribution_weights,
                       TensorList parameters) {
  TORCH_CHECK_VALUE(tables.dim() == 3,
                    "`tables` must have shape (n_blocks, n_rows, n_features), got ",
                    tables.sizes());
  const auto integers = tables.options().dtype(at::kLong);
  const Tensor no_features = at::empty({0, tables.size(2)}, tables.options()),
               no_pairs = at::empty({0}, integers),
               no_weights = at::empty({1, 0, n_taps}, tables.options());
  const SchnetInput in =
      checked_input(no_features, at::zeros({1}, integers), no_pairs, no_pairs.to(at::kInt),
                    no_weights, tables, contribution_weights, parameters, false);
  const SchnetSizes sizes = in.sizes();
  Tensor packed = at::empty({packed_size(sizes, tables.scalar_type())}, tables.options());
  if (tables.scalar_type() == at::kDouble) {
    cpu::schnet_pack<double>(sizes, parameters_of<double>(in), packed.mutable_data_ptr<double>(),
                             torch_threads(), best_instruction_set());
  } else {
    cpu::schnet_pack<float>(sizes, parameters_of<float>(in), packed.mutable_data_ptr<float>(),
                            torch_threads(), best_instruction_set());
  }
  return packed;
}

template <class Scalar>
void run(const SchnetInput& in, const Tensor& packed, const Outputs& to) {
  const SchnetSizes sizes = in.sizes();
  const SchnetOptions options{in.derivatives, false};
  const auto& [g, d_bar, norms] = to;
  const Tensor state =
      pooled_empty({cpu::schnet_state_size<Scalar>(sizes, options)}, in.features.options());
  auto parameters = parameters_of<Scalar>(in);
  parameters.packed = packed.const_data_ptr<Scalar>();
  const SchnetOutputs<Scalar> outputs{g.mutable_data_ptr<Scalar>(),
                                      in.derivatives ? d_bar.mutable_data_ptr<Scalar>() : nullptr,
                                      norms.mutable_data_ptr<Scalar>(), nullptr};
  cpu::schnet_forward<Scalar>(sizes, options, pairs_of<Scalar>(in), parameters, outputs,
                              state.mutable_data_ptr<Scalar>(), {}, torch_threads(),
                              best_instruction_set());
}

Outputs schnet_packed_cpu(const Tensor& features, const Tensor& row_ptr, const Tensor& idx_j,
                          const Tensor& bins, const Tensor& weights, const Tensor& tables,
                          const Tensor& contribution_weights, TensorList parameters,
                          const Tensor& packed, bool derivatives) {
  const SchnetInput in = checked_input(features, row_ptr, idx_j, bins, weights, tables,
                                       contribution_weights, parameters, derivatives);
  check_packed(in, packed);
  const auto options = in.features.options();
  const std::int64_t n_atoms = in.features.size(0);
  const Outputs to{at::empty({n_atoms}, options),
                   at::empty({derivatives ? in.idx_j.size(0) : 0}, options),
                   at::empty({in.contribution_weights.size(0), n_atoms}, options)};
  if (in.features.scalar_type() == at::kDouble) {
    run<double>(in, packed, to);
  } else {
    run<float>(in, packed, to);
  }
  return to;
}

// ---- shapes alone

/// The size is a function of numbers: a compiler that keeps shapes open fixes them here.
Tensor pack_schnet_meta(const Tensor& tables, const Tensor&, TensorList parameters) {
  const auto fixed = [](const c10::SymInt& size) { return size.guard_int(__FILE__, __LINE__); };
  SchnetSizes sizes{};
  sizes.n_blocks = fixed(tables.sym_size(0));
  sizes.n_features = fixed(tables.sym_size(2));
  sizes.n_hidden = fixed(parameters[parameters_per_block * sizes.n_blocks].sym_size(0));
  return at::empty({packed_size(sizes, tables.scalar_type())}, tables.options());
}

Outputs schnet_packed_meta(const Tensor& features, const Tensor&, const Tensor& idx_j,
                           const Tensor&, const Tensor&, const Tensor&,
                           const Tensor& contribution_weights, TensorList, const Tensor&,
                           bool derivatives) {
  const auto n_atoms = features.sym_size(0),
             n_pairs = derivatives ? idx_j.sym_size(0) : c10::SymInt(0);
  return {at::empty_symint({n_atoms}, features.options()),
          at::empty_symint({n_pairs}, features.options()),
          at::empty_symint({contribution_weights.sym_size(0), n_atoms}, features.options())};
}

}  // namespace

void check_packed(const SchnetInput& in, const Tensor& packed) {
  const auto dtype = in.features.scalar_type();
  const std::int64_t size = packed_size(in.sizes(), dtype);
  TORCH_CHECK_VALUE(packed.sizes() == at::IntArrayRef{size} && packed.is_contiguous(),
                    "`packed` must be what pack_schnet made, ", size, " numbers, got shape ",
                    packed.sizes());
  TORCH_CHECK_TYPE(packed.scalar_type() == dtype, "`packed` must be ", dtype,
                   " like `features`, got ", packed.scalar_type());
}

}  // namespace scschnet

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  library.def(
      "pack_schnet(Tensor tables, Tensor contribution_weights, Tensor[] parameters) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "schnet_packed(Tensor features, Tensor row_ptr, Tensor idx_j, Tensor bins, Tensor weights, "
      "Tensor tables, Tensor contribution_weights, Tensor[] parameters, Tensor packed, bool "
      "derivatives) -> (Tensor g, Tensor g_d, Tensor correction_norms)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("pack_schnet", scschnet::pack_schnet_cpu);
  library.impl("schnet_packed", scschnet::schnet_packed_cpu);
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("pack_schnet", scschnet::pack_schnet_meta);
  library.impl("schnet_packed", scschnet::schnet_packed_meta);
}
