// The operators pair_vectors, pair_forces and pair_forces_backward for GPUs.
#include "../../core/cuda/pair_geometry.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <optional>
#include <stdexcept>
#include <tuple>

#include "binding.hpp"

namespace scschnet::cuda {
namespace {

using at::Tensor;

std::tuple<Tensor, Tensor> pair_vectors_cuda(const Tensor& positions, const Tensor& cells,
                                             const Tensor& idx_m, const Tensor& idx_i,
                                             const Tensor& idx_j, const Tensor& shifts,
                                             const Tensor& pairs) {
  const std::int64_t n_atoms = positions.size(0), n_full = idx_i.size(0), n_pairs = pairs.size(0);
  check(positions, "positions", {n_atoms, 3}, at::kDouble, positions);
  check(cells, "cells", {cells.size(0), 3, 3}, at::kDouble, positions);
  check(idx_m, "idx_m", {n_atoms}, at::kLong, positions);
  check(idx_i, "idx_i", {n_full}, at::kLong, positions);
  check(idx_j, "idx_j", {n_full}, at::kLong, positions);
  check(shifts, "shifts", {n_full, 3}, at::kInt, positions);
  check(pairs, "pairs", {n_pairs}, at::kLong, positions);
  const OnDevice device(positions);
  const auto c = [](const Tensor& t) { return t.contiguous(); };
  const Tensor r = c(positions), h = c(cells), m = c(idx_m), i = c(idx_i), j = c(idx_j),
               s = c(shifts), chosen = c(pairs);
  const Tensor r_ij = at::empty({n_pairs, 3}, r.options()),
               d_ij = at::empty({n_pairs}, r.options());
  cuda::pair_vectors(
      {n_pairs, chosen.const_data_ptr<std::int64_t>(), i.const_data_ptr<std::int64_t>(),
       j.const_data_ptr<std::int64_t>(), s.const_data_ptr<std::int32_t>()},
      n_atoms, r.const_data_ptr<double>(), h.const_data_ptr<double>(),
      m.const_data_ptr<std::int64_t>(), r_ij.mutable_data_ptr<double>(),
      d_ij.mutable_data_ptr<double>(), device.stream());
  return {r_ij, d_ij};
}

/// Pairs and their geometry, contiguous and checked.
struct Geometry {
  Tensor r_ij, d_ij, row_ptr, idx_j, idx_m;

  Geometry(const Tensor& r, const Tensor& d, const Tensor& rows, const Tensor& j, const Tensor& m)
      : r_ij(r.contiguous()),
        d_ij(d.contiguous()),
        row_ptr(rows.contiguous()),
        idx_j(j.contiguous()),
        idx_m(m.contiguous()) {
    const std::int64_t n_pairs = d_ij.size(0), n_atoms = idx_m.size(0);
    check(d_ij, "d_ij", {n_pairs}, at::kDouble, r_ij);
    check(r_ij, "r_ij", {n_pairs, 3}, at::kDouble, r_ij);
    check(row_ptr, "row_ptr", {n_atoms + 1}, at::kLong, r_ij);
    check(idx_j, "idx_j", {n_pairs}, at::kLong, r_ij);
    check(idx_m, "idx_m", {n_atoms}, at::kLong, r_ij);
    check_number_of_pairs(n_pairs);
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

std::tuple<Tensor, Tensor> pair_forces_cuda(const Tensor& g_d, const Tensor& r_ij,
                                            const Tensor& d_ij, const Tensor& row_ptr,
                                            const Tensor& idx_j, const Tensor& idx_m,
                                            std::int64_t n_structures,
                                            const std::optional<Tensor>& given_partners) {
  const Geometry geometry(r_ij, d_ij, row_ptr, idx_j, idx_m);
  check(g_d, "g_d", geometry.d_ij.sizes(), at::kDouble, geometry.r_ij);
  const OnDevice device(geometry.r_ij);
  const DirectedPairs pairs = geometry.pairs();
  const std::int64_t n_pairs = geometry.d_ij.size(0);
  const HeldPartners held(given_partners, pairs.n_atoms, n_pairs, geometry.row_ptr, geometry.idx_j,
                          device.stream());
  const Tensor g = g_d.contiguous(),
               scratch = scratch_bytes(pair_forces_scratch_bytes(pairs.n_atoms, n_structures), g);
  const Tensor forces = at::empty({pairs.n_atoms, 3}, g.options()),
               virial = at::empty({n_structures, 3, 3}, g.options());

  try {
    cuda::pair_forces(pairs, held.partners, g.const_data_ptr<double>(), n_structures,
                      forces.mutable_data_ptr<double>(),
                      n_structures > 0 ? virial.mutable_data_ptr<double>() : nullptr,
                      scratch.mutable_data_ptr(), device.stream());
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
  return {forces, virial};
}

Tensor pair_forces_backward_cuda(const Tensor& forces_bar, const Tensor& virial_bar,
                                 const Tensor& r_ij, const Tensor& d_ij, const Tensor& row_ptr,
                                 const Tensor& idx_j, const Tensor& idx_m) {
  const Geometry geometry(r_ij, d_ij, row_ptr, idx_j, idx_m);
  check(forces_bar, "forces_bar", {geometry.idx_m.size(0), 3}, at::kDouble, geometry.r_ij);
  check(virial_bar, "virial_bar", {virial_bar.size(0), 3, 3}, at::kDouble, geometry.r_ij);
  const OnDevice device(geometry.r_ij);
  const Tensor f = forces_bar.contiguous(), w = virial_bar.contiguous();
  const Tensor g_bar = at::zeros_like(geometry.d_ij);
  cuda::pair_forces_backward(geometry.pairs(), f.const_data_ptr<double>(),
                             w.size(0) > 0 ? w.const_data_ptr<double>() : nullptr,
                             g_bar.mutable_data_ptr<double>(), device.stream());
  return g_bar;
}

}  // namespace
}  // namespace scschnet::cuda

TORCH_LIBRARY_IMPL(scschnet, SCSCHNET_CUDA_KEY, library) {
  library.impl("pair_vectors", scschnet::cuda::pair_vectors_cuda);
  library.impl("pair_forces", scschnet::cuda::pair_forces_cuda);
  library.impl("pair_forces_backward", scschnet::cuda::pair_forces_backward_cuda);
}
