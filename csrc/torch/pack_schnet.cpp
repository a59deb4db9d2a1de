// The operator scschnet::pack_schnet: the weights of a network laid out for matrix products once,
// for schnet_evaluate. With few atoms, as in dynamics of a molecule, that would take longer
// than all the rest. For CPUs only.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "meta.hpp"
#include "schnet_input.hpp"

namespace scschnet {
namespace {

using at::Tensor;
using at::TensorList;

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
  // Zeros where an instruction set needs less room than others.
  Tensor packed = at::zeros({packed_size(sizes, tables.scalar_type())}, tables.options());
  if (tables.scalar_type() == at::kDouble) {
    cpu::schnet_pack<double>(sizes, parameters_of<double>(in), packed.mutable_data_ptr<double>(),
                             torch_threads(sizes), best_instruction_set());
  } else {
    cpu::schnet_pack<float>(sizes, parameters_of<float>(in), packed.mutable_data_ptr<float>(),
                            torch_threads(sizes), best_instruction_set());
  }
  return packed;
}

// ---- shapes alone

/// The size is a function of numbers: a compiler that keeps shapes open fixes them here.
Tensor pack_schnet_meta(const Tensor& tables, const Tensor&, TensorList parameters) {
  const auto fixed = [](const c10::SymInt& size) { return size.guard_int(__FILE__, __LINE__); };
  SchnetSizes sizes{};
  sizes.n_blocks = fixed(tables.sym_size(0));
  check_number_of_parameters(parameters, sizes.n_blocks);
  sizes.n_features = fixed(tables.sym_size(2));
  sizes.n_hidden = fixed(parameters[parameters_per_block * sizes.n_blocks].sym_size(0));
  return at::empty({packed_size(sizes, tables.scalar_type())}, on_meta(tables));
}

}  // namespace

void check_packed(const SchnetInput& in, const Tensor& packed) {
  const auto dtype = in.features.scalar_type();
  const std::int64_t size = packed_size(in.sizes(), dtype);
  TORCH_CHECK_VALUE(packed.sizes() == at::IntArrayRef{size} && packed.is_contiguous(),
                    "`packed` must be what pack_schnet made, ", size,
                    " numbers, contiguous, got shape ", packed.sizes(), " and strides ",
                    packed.strides());
  TORCH_CHECK_TYPE(packed.scalar_type() == dtype, "`packed` must be ", dtype,
                   " like `features`, got ", packed.scalar_type());
}

}  // namespace scschnet

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  library.def(
      "pack_schnet(Tensor tables, Tensor contribution_weights, Tensor[] parameters) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("pack_schnet", scschnet::pack_schnet_cpu);
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("pack_schnet", scschnet::pack_schnet_meta);
}
