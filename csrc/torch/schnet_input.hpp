// What the operators of a whole network share: their arguments, checked, and how these reach core.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "../core/schnet.hpp"

namespace scschnet {

constexpr std::int64_t parameters_per_block = 5;   ///< W_in, B1, c1, B2, c2
constexpr std::int64_t parameters_of_readout = 4;  ///< C1, c1, C2, c2

/// The first arguments of every operator of a whole network: their schema, their types and names in
/// a C++ signature, and the names alone, for a call. What they are says scschnet/ops.py.
#define SCSCHNET_NETWORK_SCHEMA                                                                 \
  "Tensor features, Tensor row_ptr, Tensor idx_j, Tensor bins, Tensor weights, Tensor tables, " \
  "Tensor contribution_weights, Tensor[] parameters"
#define SCSCHNET_NETWORK_PARAMETERS                                                          \
  [[maybe_unused]] const at::Tensor &features, [[maybe_unused]] const at::Tensor &row_ptr,   \
      [[maybe_unused]] const at::Tensor &idx_j, [[maybe_unused]] const at::Tensor &bins,     \
      [[maybe_unused]] const at::Tensor &weights, [[maybe_unused]] const at::Tensor &tables, \
      [[maybe_unused]] const at::Tensor &contribution_weights,                               \
      [[maybe_unused]] at::TensorList parameters
#define SCSCHNET_NETWORK \
  features, row_ptr, idx_j, bins, weights, tables, contribution_weights, parameters

/// These arguments, contiguous.
struct SchnetInput {
  at::Tensor features, row_ptr, idx_j, bins, weights, tables, contribution_weights;
  std::vector<at::Tensor> parameters;
  bool derivatives;
  at::Tensor partners;  ///< on GPUs, from the operator find_partners; undefined: not given

  /// Without ghosts.
  SchnetSizes sizes() const {
    const std::int64_t n_blocks = tables.size(0);
    return {.n_atoms = features.size(0),
            .n_local = features.size(0),
            .n_computed = features.size(0),
            .n_pairs = idx_j.size(0),
            .n_features = features.size(1),
            .n_hidden = parameters[parameters_per_block * n_blocks].size(0),
            .n_blocks = n_blocks,
            .n_rows = tables.size(1)};
  }
};

/// Raises ValueError or TypeError naming the argument whose shape, dtype, device or index is wrong.
/// Indices on a GPU are not read.
[[gnu::visibility("default")]] SchnetInput checked_input(SCSCHNET_NETWORK_PARAMETERS,
                                                         bool derivatives);

/// What schnet_backward gets beside these arguments: cotangents of the outputs, contiguous.
/// Undefined where there is none.
struct Cotangents {
  at::Tensor g_bar, d_bar, representation_bar;
};

/// Raises ValueError or TypeError naming the cotangent whose shape, dtype or device is wrong; an
/// absent `g_bar` is one of zeros.
[[gnu::visibility("default")]] Cotangents checked_cotangents(
    const SchnetInput& in, const std::optional<at::Tensor>& g_bar,
    const std::optional<at::Tensor>& d_bar, const std::optional<at::Tensor>& representation_bar);

/// Raises ValueError unless there are five parameters for each block and four of the readout.
void check_number_of_parameters(at::TensorList parameters, const c10::SymInt& n_blocks);

/// Raises ValueError or TypeError if `packed` is not what pack_schnet makes of these parameters.
void check_packed(const SchnetInput& in, const at::Tensor& packed);

/// torch's threads for a pass of this size: one alone where a pass is too short for threads to wait
/// for each other between its parts. (Results have the same bits with any number of threads.)
ParallelFor torch_threads(const SchnetSizes& sizes);

cpu::InstructionSet best_instruction_set();

template <class Scalar>
HalfPairs<Scalar> pairs_of(const SchnetInput& in) {
  const Scalar* w = in.weights.const_data_ptr<Scalar>();
  return {.n_atoms = in.features.size(0),
          .row_ptr = in.row_ptr.const_data_ptr<std::int64_t>(),
          .idx_j = in.idx_j.const_data_ptr<std::int64_t>(),
          .bins = in.bins.const_data_ptr<std::int32_t>(),
          .w = w,
          .z = in.weights.size(0) > 1 ? w + in.idx_j.size(0) * n_taps : nullptr};
}

/// Pointers to parameters or gradients; `pointer` maps a tensor to its data.
template <class Pointer, class Function>
SchnetParameters<Pointer> pointers(const at::Tensor& features, const at::Tensor& tables,
                                   const at::Tensor& contribution_weights,
                                   const std::vector<at::Tensor>& parameters,
                                   const Function& pointer) {
  SchnetParameters<Pointer> p{};
  p.features = pointer(features);
  p.tables = pointer(tables);
  p.contribution_weights = pointer(contribution_weights);
  const std::size_t n_blocks = parameters.size() / parameters_per_block;
  for (std::size_t l = 0; l < n_blocks; ++l) {
    const at::Tensor* block = &parameters[parameters_per_block * l];
    p.blocks.push_back({pointer(block[0]), pointer(block[1]), pointer(block[2]), pointer(block[3]),
                        pointer(block[4])});
  }
  const at::Tensor* readout = &parameters[parameters_per_block * n_blocks];
  p.readout = pointer(readout[0]);
  p.readout_bias = pointer(readout[1]);
  p.readout_output = pointer(readout[2]);
  p.readout_output_bias = pointer(readout[3]);
  return p;
}

template <class Scalar>
SchnetParameters<const Scalar*> parameters_of(const SchnetInput& in) {
  return pointers<const Scalar*>(in.features, in.tables, in.contribution_weights, in.parameters,
                                 [](const at::Tensor& t) { return t.const_data_ptr<Scalar>(); });
}

}  // namespace scschnet
