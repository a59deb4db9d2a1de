// Operators that describe pairs: half_list (every pair once), pair_rows (those of a host as rows),
// spline_weights (once per geometry), and close_pairs (on which a pair term acts).
#include "pairs.hpp"
#include "../core/neighbor_list.hpp"
#include "meta.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/stable/c/shim.h>  // torch_parallel_for: runs inside torch's own thread pool
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace scschnet {

using at::Tensor;

void check_cutoff_pieces(const Tensor& cutoff_pieces, const Tensor& like) {
  TORCH_CHECK_VALUE(cutoff_pieces.dim() == 2 && cutoff_pieces.sym_numel() > 0,
                    "`cutoff_pieces` must have shape (n_pieces, n_coefficients), got ",
                    cutoff_pieces.sym_sizes());
  TORCH_CHECK_TYPE(cutoff_pieces.scalar_type() == at::kDouble,
                   "`cutoff_pieces` must be float64, got ", cutoff_pieces.scalar_type());
  TORCH_CHECK_VALUE(cutoff_pieces.device() == like.device(), "`cutoff_pieces` must be on ",
                    like.device(), " like `d_ij`, got ", cutoff_pieces.device());
}

namespace {

/// Whether all entries lie between 0 and last: v and last - v have no sign then. Without a
/// comparison, so that the compiler finds vector instructions for it on every CPU.
template <class Integer>
bool all_between(const Integer* values, std::int64_t n, Integer last) {
  using Unsigned = std::make_unsigned_t<Integer>;
  Unsigned signs = 0;
  for (std::int64_t k = 0; k < n; ++k) {
    const auto v = static_cast<Unsigned>(values[k]);
    signs |= v | (static_cast<Unsigned>(last) - v);
  }
  return n == 0 || (last >= 0 && static_cast<Integer>(signs) >= 0);
}

/// Whether no entry is smaller than the one before. All must lie between 0 and half the largest.
bool ascends(const std::int64_t* values, std::int64_t n) {
  std::uint64_t signs = 0;
  for (std::int64_t k = 0; k + 1 < n; ++k) {
    signs |= static_cast<std::uint64_t>(values[k + 1]) - static_cast<std::uint64_t>(values[k]);
  }
  return static_cast<std::int64_t>(signs) >= 0;
}

/// The first entry that does not.
template <class Integer>
Integer first_outside(const Integer* values, std::int64_t n, Integer last) {
  return *std::find_if(values, values + n, [&](Integer v) { return v < 0 || v > last; });
}

}  // namespace

void check_range(const Tensor& index, const char* name, std::int64_t end) {
  const auto* const values = index.const_data_ptr<std::int64_t>();
  const std::int64_t n = index.size(0), last = end - 1;
  if (all_between(values, n, last)) return;
  TORCH_CHECK_VALUE(false, "`", name, "` must lie between 0 and ", last, ", got ",
                    first_outside(values, n, last));
}

void check_rows(const Tensor& row_ptr, std::int64_t n_pairs) {
  const std::int64_t n_atoms = row_ptr.size(0) - 1;
  const auto* const rows = row_ptr.const_data_ptr<std::int64_t>();
  const bool fits = rows[0] == 0 && rows[n_atoms] == n_pairs &&
                    all_between(rows, n_atoms + 1, n_pairs) && ascends(rows, n_atoms + 1);
  TORCH_CHECK_VALUE(fits, "`row_ptr` must ascend from 0 to the number of pairs, ", n_pairs,
                    ", got ", rows[0], " to ", rows[n_atoms]);
}

void check_bins(const Tensor& bins, std::int64_t n_rows) {
  const auto* const values = bins.const_data_ptr<std::int32_t>();
  const std::int64_t n = bins.size(0);
  const auto last = static_cast<std::int32_t>(std::min<std::int64_t>(n_rows - n_taps, INT32_MAX));
  if (all_between(values, n, last)) return;
  TORCH_CHECK_VALUE(false, "`bins` must lie between 0 and ", last,
                    ", six below the number of table rows, got ", first_outside(values, n, last));
}

namespace detail {

void parallel_for(std::int64_t n, void (*call)(std::int64_t, const void*), const void* work) {
  if (n <= 1 || at::get_num_threads() == 1 || at::in_parallel_region()) {
    for (std::int64_t b = 0; b < n; ++b) call(b, work);
    return;
  }
  struct Context {
    void (*call)(std::int64_t, const void*);
    const void* work;
    std::atomic<bool> failed{false};
    std::exception_ptr error;
  } context{call, work};
  const auto run = [](std::int64_t begin, std::int64_t end, void* data) {
    auto& c = *static_cast<Context*>(data);
    try {
      for (std::int64_t b = begin; b < end; ++b) c.call(b, c.work);
    } catch (...) {
      if (!c.failed.exchange(true)) c.error = std::current_exception();
    }
  };
  TORCH_CHECK(torch_parallel_for(0, n, 1, run, &context) == 0, "torch_parallel_for failed");
  if (context.error) std::rethrow_exception(context.error);
}

}  // namespace detail

namespace {

void check_index(const Tensor& index, const char* name) {
  TORCH_CHECK_TYPE(index.scalar_type() == at::kLong, "`", name, "` must be int64, got ",
                   index.scalar_type());
  TORCH_CHECK_VALUE(index.dim() == 1, "`", name, "` must have shape (n_pairs,), got ",
                    index.sizes());
}

/// is_in_half_list for a pair that a caller brings.
bool is_first(std::int64_t i, std::int64_t j, const std::int32_t* shift) {
  const std::int32_t s[3] = {shift[0], shift[1], shift[2]};
  TORCH_CHECK_VALUE(i != j || (s[0] | s[1] | s[2]) != 0,
                    "`idx_j` must not pair an atom with itself, got atom ", i,
                    " without a cell shift");
  return is_in_half_list(i, j, s);
}

/// (idx_i, idx_j (n_pairs,), shifts (n_pairs, 3) int32, n_atoms) -> pairs (n_half,): where in the
/// full list the pairs of the half list stand; row_ptr (n_atoms + 1,); idx_j (n_half,). Checks the
/// full list once and for all.
std::tuple<Tensor, Tensor, Tensor> half_list(const Tensor& idx_i, const Tensor& idx_j,
                                             const Tensor& shifts, std::int64_t n_atoms) {
  check_index(idx_i, "idx_i");
  check_index(idx_j, "idx_j");
  const std::int64_t n_pairs = idx_i.size(0);
  check_n_atoms(n_atoms);
  TORCH_CHECK_VALUE(idx_j.size(0) == n_pairs, "`idx_j` must have ", n_pairs,
                    " elements like `idx_i`, got ", idx_j.size(0));
  TORCH_CHECK_VALUE(shifts.sizes() == at::IntArrayRef({n_pairs, 3}), "`shifts` must have shape (",
                    n_pairs, ", 3), got ", shifts.sizes());
  TORCH_CHECK_TYPE(shifts.scalar_type() == at::kInt, "`shifts` must be int32, got ",
                   shifts.scalar_type());
  const Tensor i_held = idx_i.contiguous(), j_held = idx_j.contiguous(),
               shifts_held = shifts.contiguous();
  const auto* const i = i_held.const_data_ptr<std::int64_t>();
  const auto* const j = j_held.const_data_ptr<std::int64_t>();
  const auto* const shift = shifts_held.const_data_ptr<std::int32_t>();
  TORCH_CHECK_VALUE(n_pairs % 2 == 0,
                    "`idx_i`, `idx_j` must hold every pair both ways, got an odd number, ",
                    n_pairs);

  const auto options = at::TensorOptions().dtype(at::kLong);
  Tensor pairs = at::empty({n_pairs / 2}, options), half_j = at::empty({n_pairs / 2}, options);
  Tensor row_ptr = at::empty({n_atoms + 1}, options);
  auto* const to_pair = pairs.mutable_data_ptr<std::int64_t>();
  auto* const to_j = half_j.mutable_data_ptr<std::int64_t>();
  auto* const rows = row_ptr.mutable_data_ptr<std::int64_t>();
  std::int64_t n = 0, row = 0;
  rows[0] = 0;
  for (std::int64_t p = 0; p < n_pairs; ++p) {
    TORCH_CHECK_VALUE(i[p] >= 0 && i[p] < n_atoms, "`idx_i` must lie between 0 and ", n_atoms - 1,
                      ", got ", i[p]);
    TORCH_CHECK_VALUE(j[p] >= 0 && j[p] < n_atoms, "`idx_j` must lie between 0 and ", n_atoms - 1,
                      ", got ", j[p]);
    TORCH_CHECK_VALUE(i[p] >= row, "`idx_i` must be sorted, got ", i[p], " after ", row);
    while (row < i[p]) rows[++row] = n;
    if (!is_first(i[p], j[p], shift + 3 * p)) continue;
    TORCH_CHECK_VALUE(n < n_pairs / 2,
                      "`idx_i`, `idx_j` must hold every pair both ways, got more than ",
                      n_pairs / 2, " of ", n_pairs, " one way");
    to_pair[n] = p;
    to_j[n++] = j[p];
  }
  while (row < n_atoms) rows[++row] = n;
  TORCH_CHECK_VALUE(n == n_pairs / 2, "`idx_i`, `idx_j` must hold every pair both ways, got ", n,
                    " of ", n_pairs, " one way");
  return {pairs, row_ptr, half_j};
}

/// (idx_i, idx_j (n_pairs,), n_atoms) -> row_ptr (n_atoms + 1,). Checks the pairs of a host.
Tensor pair_rows(const Tensor& idx_i, const Tensor& idx_j, std::int64_t n_atoms) {
  check_n_atoms(n_atoms);
  for (const auto& [tensor, name] : {std::pair{&idx_i, "idx_i"}, {&idx_j, "idx_j"}}) {
    TORCH_CHECK_TYPE(tensor->scalar_type() == at::kLong, "`", name, "` must be int64, got ",
                     tensor->scalar_type());
    TORCH_CHECK_VALUE(tensor->sizes() == idx_i.sizes() && tensor->dim() == 1, "`", name,
                      "` must have one entry per pair, as `idx_i`, got ", tensor->sizes());
  }
  const Tensor centers = idx_i.contiguous(), partners = idx_j.contiguous();
  const auto* const i = centers.const_data_ptr<std::int64_t>();
  const auto* const j = partners.const_data_ptr<std::int64_t>();
  const std::int64_t n_pairs = centers.size(0);
  TORCH_CHECK_VALUE(all_between(i, n_pairs, n_atoms - 1) && all_between(j, n_pairs, n_atoms - 1),
                    "`idx_i` and `idx_j` must lie between 0 and the number of atoms, ", n_atoms);
  TORCH_CHECK_VALUE(ascends(i, n_pairs), "`idx_i` must ascend");
  Tensor row_ptr = at::zeros({n_atoms + 1}, centers.options());
  auto* const rows = row_ptr.mutable_data_ptr<std::int64_t>();
  for (std::int64_t p = 0; p < n_pairs; ++p) rows[i[p] + 1] = p + 1;  // the last of a row remains
  for (std::int64_t atom = 0; atom < n_atoms; ++atom) {
    rows[atom + 1] = std::max(rows[atom], rows[atom + 1]);
  }
  return row_ptr;
}

Tensor pair_rows_meta(const Tensor& idx_i, const Tensor&, c10::SymInt n_atoms) {
  return at::empty_symint({std::move(n_atoms) + 1}, on_meta(idx_i));
}

void check_distances(const Tensor& d_ij, at::ScalarType dtype) {
  TORCH_CHECK_VALUE(d_ij.dim() == 1, "`d_ij` must have shape (n_pairs,), got ", d_ij.sizes());
  TORCH_CHECK_TYPE(d_ij.scalar_type() == at::kDouble || d_ij.scalar_type() == at::kFloat,
                   "`d_ij` must be float32 or float64, got ", d_ij.scalar_type());
  TORCH_CHECK_TYPE(dtype == at::kDouble || dtype == at::kFloat,
                   "`dtype` must be float32 or float64, got ", dtype);
}

template <class Distance, class Scalar>
void fill(const SplineGrid& grid, const Tensor& d, std::int64_t n_orders, Tensor& bins,
          Tensor& weights) {
  try {
    cpu::spline_weights(grid, d.const_data_ptr<Distance>(), d.size(0), 0,
                        static_cast<int>(n_orders), bins.mutable_data_ptr<std::int32_t>(),
                        weights.mutable_data_ptr<Scalar>());
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
}

/// (d_ij (n_pairs,), step, cutoff, cutoff_pieces, n_rows, n_orders, dtype) -> bins (n_pairs,)
/// int32, weights (n_orders, n_pairs, 6). Not differentiable: the operators that use them
/// differentiate in d_ij.
std::tuple<Tensor, Tensor> spline_weights(const Tensor& d_ij, double step, double cutoff,
                                          const Tensor& cutoff_pieces, std::int64_t n_rows,
                                          std::int64_t n_orders, at::ScalarType dtype) {
  check_distances(d_ij, dtype);
  check_cutoff_pieces(cutoff_pieces, d_ij);
  TORCH_CHECK_VALUE(n_orders >= 1 && n_orders <= max_spline_order + 1,
                    "`n_orders` must lie between 1 and ", max_spline_order + 1, ", got ", n_orders);
  const Tensor d = d_ij.contiguous(), pieces = cutoff_pieces.contiguous();
  const SplineGrid grid = spline_grid(step, cutoff, pieces, n_rows);
  Tensor bins = at::empty({d.size(0)}, at::TensorOptions().dtype(at::kInt));
  Tensor weights = at::empty({n_orders, d.size(0), n_taps}, at::TensorOptions().dtype(dtype));
  const bool from_double = d.scalar_type() == at::kDouble;
  if (dtype == at::kDouble) {
    (from_double ? fill<double, double> : fill<float, double>)(grid, d, n_orders, bins, weights);
  } else {
    (from_double ? fill<double, float> : fill<float, float>)(grid, d, n_orders, bins, weights);
  }
  return {bins, weights};
}

std::tuple<Tensor, Tensor> spline_weights_meta(const Tensor& d_ij, double, double,
                                               const Tensor& cutoff_pieces, std::int64_t,
                                               std::int64_t n_orders, at::ScalarType dtype) {
  check_distances(d_ij, dtype);
  check_cutoff_pieces(cutoff_pieces, d_ij);
  const c10::SymInt n = d_ij.sym_size(0);
  return {at::empty_symint({n}, on_meta(d_ij).dtype(at::kInt)),
          at::empty_symint({n_orders, n, n_taps}, on_meta(d_ij).dtype(dtype))};
}

std::tuple<Tensor, Tensor> spline_weights_detached(const Tensor& d_ij, double step, double cutoff,
                                                   const Tensor& cutoff_pieces, std::int64_t n_rows,
                                                   std::int64_t n_orders, at::ScalarType dtype) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("scschnet::spline_weights", "pieces")
                             .typed<decltype(spline_weights)>();
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(d_ij, step, cutoff, cutoff_pieces, n_rows, n_orders, dtype);
}

/// (d_ij (n_pairs,), row_ptr (n_atoms + 1,), idx_j, atomic_numbers (n_atoms,), index (n_z,),
/// ranges (n, n)) -> near, idx_i, idx_j: the places and atoms of pairs with d_ij below
/// ranges[index[z_i], index[z_j]], in their order. Not differentiable.
std::tuple<Tensor, Tensor, Tensor> close_pairs(const Tensor& d_ij, const Tensor& row_ptr,
                                               const Tensor& idx_j, const Tensor& atomic_numbers,
                                               const Tensor& index, const Tensor& ranges) {
  const auto check = [](const Tensor& tensor, const char* name, at::IntArrayRef sizes,
                        at::ScalarType dtype) {
    TORCH_CHECK_VALUE(tensor.sizes() == sizes, "`", name, "` must have shape ", sizes, ", got ",
                      tensor.sizes());
    TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, "`", name, "` must be ", dtype, ", got ",
                     tensor.scalar_type());
  };
  const std::int64_t n_pairs = d_ij.numel(), n_atoms = atomic_numbers.numel(),
                     n = ranges.dim() > 0 ? ranges.size(0) : 0;
  check(d_ij, "d_ij", {n_pairs}, at::kDouble);
  check(row_ptr, "row_ptr", {n_atoms + 1}, at::kLong);
  check(idx_j, "idx_j", {n_pairs}, at::kLong);
  check(atomic_numbers, "atomic_numbers", {n_atoms}, at::kLong);
  check(index, "index", {index.numel()}, at::kLong);
  check(ranges, "ranges", {n, n}, at::kDouble);
  const Tensor d_held = d_ij.contiguous(), rows_held = row_ptr.contiguous(),
               j_held = idx_j.contiguous(), z_held = atomic_numbers.contiguous(),
               index_held = index.contiguous(), ranges_held = ranges.contiguous();
  check_range(j_held, "idx_j", n_atoms);
  check_rows(rows_held, n_pairs);
  check_range(z_held, "atomic_numbers", index.numel());
  check_range(index_held, "index", n);
  const auto* const d = d_held.const_data_ptr<double>();
  const auto* const rows = rows_held.const_data_ptr<std::int64_t>();
  const auto* const j = j_held.const_data_ptr<std::int64_t>();
  const auto* const z = z_held.const_data_ptr<std::int64_t>();
  const auto* const of_z = index_held.const_data_ptr<std::int64_t>();
  const auto* const range = ranges_held.const_data_ptr<double>();
  const double reach = n > 0 ? *std::max_element(range, range + n * n) : 0;
  std::vector<std::int64_t> near, centers;
  for (std::int64_t i = 0; i < n_atoms; ++i) {
    for (std::int64_t p = rows[i]; p < rows[i + 1]; ++p) {
      if (!(d[p] < reach) || !(d[p] < range[of_z[z[i]] * n + of_z[z[j[p]]]])) continue;
      near.push_back(p);
      centers.push_back(i);
    }
  }
  const auto n_near = static_cast<std::int64_t>(near.size());
  const auto made = [&](const auto& value_of) {
    Tensor found = at::empty({n_near}, at::TensorOptions().dtype(at::kLong));
    auto* const to = found.mutable_data_ptr<std::int64_t>();
    for (std::int64_t k = 0; k < n_near; ++k) to[k] = value_of(k);
    return found;
  };
  return {made([&](std::int64_t k) { return near[k]; }),
          made([&](std::int64_t k) { return centers[k]; }),
          made([&](std::int64_t k) { return j[near[k]]; })};
}

}  // namespace
}  // namespace scschnet

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  library.def(
      "half_list(Tensor idx_i, Tensor idx_j, Tensor shifts, int n_atoms) -> (Tensor pairs, Tensor "
      "row_ptr, Tensor "
      "idx_j)",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "close_pairs(Tensor d_ij, Tensor row_ptr, Tensor idx_j, Tensor atomic_numbers, Tensor index, "
      "Tensor ranges) -> (Tensor near, Tensor near_i, Tensor near_j)",
      {at::Tag::pt2_compliant_tag});
  library.def("pair_rows(Tensor idx_i, Tensor idx_j, SymInt n_atoms) -> Tensor",
              {at::Tag::pt2_compliant_tag});
  library.def(
      "spline_weights.pieces(Tensor d_ij, float step, float cutoff, Tensor cutoff_pieces, int "
      "n_rows, int n_orders, ScalarType dtype) -> (Tensor bins, Tensor weights)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("half_list", scschnet::half_list);
  library.impl("pair_rows", scschnet::pair_rows);
  library.impl("close_pairs", scschnet::close_pairs);
  library.impl("spline_weights.pieces", scschnet::spline_weights);
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("pair_rows", scschnet::pair_rows_meta);
  library.impl("spline_weights.pieces", scschnet::spline_weights_meta);
}

TORCH_LIBRARY_IMPL(scschnet, Autograd, library) {
  library.impl("spline_weights.pieces", scschnet::spline_weights_detached);
}
