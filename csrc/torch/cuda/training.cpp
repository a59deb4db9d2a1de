// The operators gather_batch and note_step, which exist for GPUs alone: scschnet/train has the same
// in plain torch for processors.
#include "../../core/cuda/training.hpp"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

#include "binding.hpp"

namespace scschnet::cuda {
namespace {

using at::Tensor;

/// chosen, sizes, sources, idx_m, positions, atomic_numbers, row_ptr, idx_i, idx_j, shifts
using Gathered =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

void check_contiguous(const Tensor& tensor, const char* name) {
  TORCH_CHECK_VALUE(tensor.is_contiguous(), "`", name, "` must be contiguous");
}

Gathered gather_batch_cuda(const Tensor& order, const Tensor& step, const Tensor& structures,
                           const Tensor& positions, const Tensor& atoms, const Tensor& pairs,
                           std::int64_t n_atoms, std::int64_t n_pairs) {
  TORCH_CHECK_VALUE(order.dim() == 2 && order.size(1) > 0,
                    "`order` must have shape (n_steps, n_structures + 1), got ", order.sizes());
  TORCH_CHECK_VALUE(n_atoms > 0 && n_pairs > 0, "`n_atoms` and `n_pairs` must be positive, got ",
                    n_atoms, " and ", n_pairs);
  check(order, "order", order.sizes(), at::kLong, order);
  check(step, "step", {1}, at::kLong, order);
  check(structures, "structures", {structures.size(0), 4}, at::kLong, order);
  check(positions, "positions", {positions.size(0), 3}, at::kDouble, order);
  check(atoms, "atoms", {positions.size(0), 2}, at::kLong, order);
  check(pairs, "pairs", {pairs.size(0), 5}, at::kInt, order);
  check_contiguous(order, "order");
  check_contiguous(structures, "structures");
  check_contiguous(positions, "positions");
  check_contiguous(atoms, "atoms");
  check_contiguous(pairs, "pairs");
  const OnDevice device(order);
  const std::int64_t n_structures = order.size(1) - 1;
  const auto index = order.options();
  const auto numbers = [&](std::int64_t n) { return at::empty({n}, index); };
  Gathered to{numbers(n_structures + 1),
              numbers(n_structures),
              numbers(n_atoms),
              numbers(n_atoms),
              at::empty({n_atoms, 3}, positions.options()),
              numbers(n_atoms),
              numbers(n_atoms + 1),
              numbers(n_pairs),
              numbers(n_pairs),
              at::empty({n_pairs, 3}, pairs.options())};
  const auto& [chosen, sizes, sources, idx_m, r, z, row_ptr, idx_i, idx_j, shifts] = to;
  const auto write = [](const Tensor& t) { return t.mutable_data_ptr<std::int64_t>(); };
  const Tensor scratch = scratch_bytes(gather_scratch_bytes(n_structures), order);
  gather_batch(order.const_data_ptr<std::int64_t>(), step.const_data_ptr<std::int64_t>(),
               {positions.size(0) - 1, pairs.size(0) - 1, structures.const_data_ptr<std::int64_t>(),
                positions.const_data_ptr<double>(), atoms.const_data_ptr<std::int64_t>(),
                pairs.const_data_ptr<std::int32_t>()},
               {n_structures, n_atoms, n_pairs, write(chosen), write(sizes), write(sources),
                write(idx_m), r.mutable_data_ptr<double>(), write(z), write(row_ptr), write(idx_i),
                write(idx_j), shifts.mutable_data_ptr<std::int32_t>()},
               scratch.mutable_data_ptr(), device.stream());
  return to;
}

void note_step_cuda(const Tensor& gradient_norm, const Tensor& loss, const Tensor& n_structures,
                    const Tensor& norms, const Tensor& weights, double clip, double decay,
                    const Tensor& counts, const Tensor& history, const Tensor& sums,
                    const Tensor& totals, const Tensor& factors) {
  const std::int64_t n_layers = norms.dim() == 1 ? norms.size(0) : -1,
                     n_kept = history.dim() == 1 ? history.size(0) : -1;
  check_real(gradient_norm, "gradient_norm");
  check(gradient_norm, "gradient_norm", {}, gradient_norm.scalar_type(), loss);
  check(loss, "loss", {}, at::kDouble, loss);
  check(n_structures, "n_structures", {}, at::kDouble, loss);
  check(norms, "norms", {n_layers}, at::kDouble, loss);
  check(weights, "weights", {n_layers}, gradient_norm.scalar_type(), loss);
  check(counts, "counts", {3}, at::kLong, loss);
  check(history, "history", {n_kept}, at::kDouble, loss);
  check(sums, "sums", {3, n_layers}, at::kDouble, loss);
  check(totals, "totals", {4}, at::kDouble, loss);
  check(factors, "factors", {2}, at::kDouble, loss);
  TORCH_CHECK_VALUE(n_kept <= most_kept_norms, "`history` must hold at most ", most_kept_norms,
                    " norms, got ", n_kept);
  for (const Tensor* tensor : {&norms, &weights, &counts, &history, &sums, &totals, &factors})
    check_contiguous(*tensor, "norms, weights, counts, history, sums, totals, factors");
  const OnDevice device(loss);
  const StepNotes notes{counts.mutable_data_ptr<std::int64_t>(),
                        history.mutable_data_ptr<double>(),
                        sums.mutable_data_ptr<double>(),
                        totals.mutable_data_ptr<double>(),
                        factors.mutable_data_ptr<double>(),
                        n_kept,
                        n_layers};
  with_scalar(gradient_norm.scalar_type(), [&]<class Scalar>() {
    note_step(gradient_norm.const_data_ptr<Scalar>(), loss.const_data_ptr<double>(),
              n_structures.const_data_ptr<double>(), norms.const_data_ptr<double>(),
              weights.const_data_ptr<Scalar>(), clip, decay, notes, device.stream());
  });
}

}  // namespace
}  // namespace scschnet::cuda

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  library.def(
      "gather_batch(Tensor order, Tensor step, Tensor structures, Tensor positions, Tensor atoms, "
      "Tensor pairs, int n_atoms, int n_pairs) -> (Tensor chosen, Tensor sizes, Tensor sources, "
      "Tensor idx_m, Tensor positions_out, Tensor atomic_numbers, Tensor row_ptr, Tensor idx_i, "
      "Tensor idx_j, Tensor shifts)",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "note_step(Tensor gradient_norm, Tensor loss, Tensor n_structures, Tensor norms, Tensor "
      "weights, float clip, float decay, Tensor(a!) counts, Tensor(b!) history, Tensor(c!) sums, "
      "Tensor(d!) totals, Tensor(e!) factors) -> ()",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(scschnet, SCSCHNET_CUDA_KEY, library) {
  library.impl("gather_batch", scschnet::cuda::gather_batch_cuda);
  library.impl("note_step", scschnet::cuda::note_step_cuda);
}
