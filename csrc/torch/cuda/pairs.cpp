// The operators half_list, pair_rows and spline_weights for GPUs, and find_partners, which only
// they have.
#include "../../core/cuda/pairs.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/searchsorted.h>
#include <torch/library.h>

#include <cmath>
#include <optional>
#include <tuple>

#include "../../core/cuda/spline.hpp"
#include "../pairs.hpp"
#include "binding.hpp"

namespace scschnet::cuda {
namespace {

using at::Tensor;

/// That every pair stands both ways is trusted.
std::tuple<Tensor, Tensor, Tensor> half_list_cuda(const Tensor& idx_i, const Tensor& idx_j,
                                                  const Tensor& shifts, std::int64_t n_atoms) {
  TORCH_CHECK_VALUE(idx_i.dim() == 1, "`idx_i` must have shape (n_pairs,), got ", idx_i.sizes());
  const std::int64_t n_pairs = idx_i.size(0);
  check(idx_i, "idx_i", {n_pairs}, at::kLong, idx_i);
  check(idx_j, "idx_j", {n_pairs}, at::kLong, idx_i);
  check(shifts, "shifts", {n_pairs, 3}, at::kInt, idx_i);
  check_n_atoms(n_atoms);
  TORCH_CHECK_VALUE(n_pairs % 2 == 0,
                    "`idx_i`, `idx_j` must hold every pair both ways, got an odd number, ",
                    n_pairs);
  const OnDevice device(idx_i);
  const Tensor i = idx_i.contiguous(), j = idx_j.contiguous(), s = shifts.contiguous();
  const auto options = i.options();
  const Tensor pairs = at::empty({n_pairs / 2}, options),
               half_j = at::empty({n_pairs / 2}, options),
               row_ptr = at::empty({n_atoms + 1}, options);
  const Tensor scratch = scratch_bytes(half_list_scratch_bytes(n_atoms), i);
  cuda::half_list({n_atoms, n_pairs, i.const_data_ptr<std::int64_t>(),
                   j.const_data_ptr<std::int64_t>(), s.const_data_ptr<std::int32_t>()},
                  scratch.mutable_data_ptr(), pairs.mutable_data_ptr<std::int64_t>(),
                  row_ptr.mutable_data_ptr<std::int64_t>(), half_j.mutable_data_ptr<std::int64_t>(),
                  device.stream());
  return {pairs, row_ptr, half_j};
}

std::int64_t checked_partners_bytes(std::int64_t n_rows, std::int64_t n_pairs) {
  TORCH_CHECK_VALUE(n_rows > 0, "`row_ptr` must have one more entry than atoms, got none");
  check_number_of_pairs(n_pairs);
  return partners_bytes(n_rows - 1, n_pairs);
}

/// Bytes, laid out by core.
Tensor find_partners_cuda(const Tensor& row_ptr, const Tensor& idx_j) {
  check(row_ptr, "row_ptr", {row_ptr.numel()}, at::kLong, idx_j);
  check(idx_j, "idx_j", {idx_j.numel()}, at::kLong, idx_j);
  checked_partners_bytes(row_ptr.size(0), idx_j.size(0));
  const OnDevice device(idx_j);
  const Tensor rows = row_ptr.contiguous(), j = idx_j.contiguous();
  return HeldPartners(std::nullopt, rows.size(0) - 1, j.size(0), rows, j, device.stream()).memory;
}

/// A compiler that keeps shapes open fixes them here.
Tensor find_partners_meta(const Tensor& row_ptr, const Tensor& idx_j) {
  const auto size = [](const Tensor& t) { return t.sym_size(0).guard_int(__FILE__, __LINE__); };
  return at::empty({checked_partners_bytes(size(row_ptr), size(idx_j))},
                   idx_j.options().dtype(at::kByte).device(at::kMeta));
}

/// The order and range of the indices are trusted.
Tensor pair_rows_cuda(const Tensor& idx_i, const Tensor& idx_j, std::int64_t n_atoms) {
  TORCH_CHECK_VALUE(idx_i.dim() == 1, "`idx_i` must have shape (n_pairs,), got ", idx_i.sizes());
  check(idx_i, "idx_i", idx_i.sizes(), at::kLong, idx_i);
  check(idx_j, "idx_j", idx_i.sizes(), at::kLong, idx_i);
  check_n_atoms(n_atoms);
  return at::searchsorted(idx_i.contiguous(), at::arange(n_atoms + 1, idx_i.options()));
}

void check_grid(const SplineGrid& grid) {
  int exponent = 0;
  TORCH_CHECK_VALUE(grid.cutoff > 0 && std::isfinite(grid.cutoff),
                    "`cutoff` must be positive and finite, got ", grid.cutoff);
  TORCH_CHECK_VALUE(
      grid.step > 0 && std::isfinite(grid.step) && std::frexp(grid.step, &exponent) == 0.5,
      "`step` must be a power of two, got ", grid.step);
  TORCH_CHECK_VALUE(grid.n_rows >= n_taps, "`table` must have at least ", n_taps, " rows, got ",
                    grid.n_rows);
}

std::tuple<Tensor, Tensor> spline_weights_cuda(const Tensor& d_ij, double step, double cutoff,
                                               const Tensor& cutoff_pieces, std::int64_t n_rows,
                                               std::int64_t n_orders, at::ScalarType dtype) {
  TORCH_CHECK_VALUE(d_ij.dim() == 1, "`d_ij` must have shape (n_pairs,), got ", d_ij.sizes());
  check_real(d_ij, "d_ij");
  TORCH_CHECK_TYPE(dtype == at::kDouble || dtype == at::kFloat,
                   "`dtype` must be float32 or float64, got ", dtype);
  TORCH_CHECK_VALUE(n_orders >= 1 && n_orders <= max_spline_order + 1,
                    "`n_orders` must lie between 1 and ", max_spline_order + 1, ", got ", n_orders);
  check_cutoff_pieces(cutoff_pieces, d_ij);
  const OnDevice device(d_ij);
  const Tensor d = d_ij.contiguous(), pieces = cutoff_pieces.contiguous();
  const SplineGrid grid = spline_grid(step, cutoff, pieces, n_rows);
  check_grid(grid);
  const Tensor bins = at::empty({d.size(0)}, d.options().dtype(at::kInt)),
               weights = at::empty({n_orders, d.size(0), n_taps}, d.options().dtype(dtype));
  with_scalar(d.scalar_type(), [&]<class Distance>() {
    with_scalar(dtype, [&]<class Scalar>() {
      cuda::spline_weights(grid, d.const_data_ptr<Distance>(), d.size(0), 0,
                           static_cast<int>(n_orders), bins.mutable_data_ptr<std::int32_t>(),
                           weights.mutable_data_ptr<Scalar>(), device.stream());
    });
  });
  return {bins, weights};
}

}  // namespace
}  // namespace scschnet::cuda

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  library.def("find_partners(Tensor row_ptr, Tensor idx_j) -> Tensor",
              {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("find_partners", scschnet::cuda::find_partners_meta);
}

TORCH_LIBRARY_IMPL(scschnet, SCSCHNET_CUDA_KEY, library) {
  library.impl("find_partners", scschnet::cuda::find_partners_cuda);
  library.impl("half_list", scschnet::cuda::half_list_cuda);
  library.impl("pair_rows", scschnet::cuda::pair_rows_cuda);
  library.impl("spline_weights.pieces", scschnet::cuda::spline_weights_cuda);
}
