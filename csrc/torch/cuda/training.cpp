// Operators that exist for GPUs alone, each a launch or a few in the place of many small ones of
// torch: scschnet/train has the same in plain torch for CPUs. scschnet/ops.py joins those that are
// differentiated with their derivatives.
#include "../../core/cuda/training.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../../core/cuda/embedding.hpp"
#include "../../core/cuda/loss.hpp"
#include "binding.hpp"

namespace scschnet::cuda {
namespace {

using at::Tensor;
using at::TensorList;

/// chosen, sizes, sources, idx_m, positions, atomic_numbers, row_ptr, idx_i, idx_j, shifts,
/// of_structures, of_atoms
using Gathered = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                            Tensor, std::vector<Tensor>, std::vector<Tensor>>;

void check_contiguous(const Tensor& tensor, const char* name) {
  TORCH_CHECK_VALUE(tensor.is_contiguous(), "`", name, "` must be contiguous");
}

/// Checks arrays of `n_from` rows, lets `rows` point to them and to new ones of n_to rows, which it
/// returns.
std::vector<Tensor> rows_to_gather(TensorList arrays, const char* name, std::int64_t n_from,
                                   std::int64_t n_to, const Tensor& like, Rows* rows) {
  TORCH_CHECK_VALUE(arrays.size() <= most_rows, "`", name, "` must hold at most ", most_rows,
                    " arrays, got ", arrays.size());
  std::vector<Tensor> gathered;
  for (const Tensor& array : arrays) {
    TORCH_CHECK_VALUE(array.dim() > 0, "`", name, "` must have a row for each, got a number");
    auto sizes = array.sizes().vec();
    sizes[0] = n_from;
    check(array, name, sizes, at::kDouble, like);
    check_contiguous(array, name);
    sizes[0] = n_to;
    gathered.push_back(at::empty(sizes, array.options()));
    *rows++ = {array.const_data_ptr<double>(), gathered.back().mutable_data_ptr<double>(),
               array.numel() / n_from};
  }
  return gathered;
}

Gathered gather_batch_cuda(const Tensor& order, const Tensor& step, const Tensor& structures,
                           const Tensor& positions, const Tensor& atoms, const Tensor& pairs,
                           TensorList of_structures, TensorList of_atoms, std::int64_t n_atoms,
                           std::int64_t n_pairs) {
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
              at::empty({n_pairs, 3}, pairs.options()),
              {},
              {}};
  auto& [chosen, sizes, sources, idx_m, r, z, row_ptr, idx_i, idx_j, shifts, by_structure,
         by_atom] = to;
  const auto write = [](const Tensor& t) { return t.mutable_data_ptr<std::int64_t>(); };
  const Tensor scratch = scratch_bytes(gather_scratch_bytes(n_structures), order);
  PaddedArrays batch{.n_structures = n_structures,
                     .n_atoms = n_atoms,
                     .n_pairs = n_pairs,
                     .chosen = write(chosen),
                     .sizes = write(sizes),
                     .sources = write(sources),
                     .idx_m = write(idx_m),
                     .positions = r.mutable_data_ptr<double>(),
                     .atomic_numbers = write(z),
                     .row_ptr = write(row_ptr),
                     .idx_i = write(idx_i),
                     .idx_j = write(idx_j),
                     .shifts = shifts.mutable_data_ptr<std::int32_t>(),
                     .n_of_structures = of_structures.size(),
                     .n_of_atoms = of_atoms.size()};
  by_structure = rows_to_gather(of_structures, "of_structures", structures.size(0),
                                n_structures + 1, positions, batch.of_structures);
  by_atom =
      rows_to_gather(of_atoms, "of_atoms", positions.size(0), n_atoms, positions, batch.of_atoms);
  gather_batch(order.const_data_ptr<std::int64_t>(), step.const_data_ptr<std::int64_t>(),
               {positions.size(0) - 1, pairs.size(0) - 1, structures.const_data_ptr<std::int64_t>(),
                positions.const_data_ptr<double>(), atoms.const_data_ptr<std::int64_t>(),
                pairs.const_data_ptr<std::int32_t>()},
               batch, scratch.mutable_data_ptr(), device.stream());
  return to;
}

void begin_step_cuda(const Tensor& plan, const Tensor& step, const Tensor& rate,
                     const Tensor& n_structures, const Tensor& n_atoms) {
  check_real(rate, "rate");
  check(plan, "plan", {plan.size(0), 3}, at::kDouble, rate);
  check(step, "step", {1}, at::kLong, rate);
  check(rate, "rate", {}, rate.scalar_type(), rate);
  check(n_structures, "n_structures", {}, at::kDouble, rate);
  check(n_atoms, "n_atoms", {}, at::kDouble, rate);
  check_contiguous(plan, "plan");
  const OnDevice device(rate);
  with_scalar(rate.scalar_type(), [&]<class Scalar>() {
    begin_step(plan.const_data_ptr<double>(), step.const_data_ptr<std::int64_t>(),
               rate.mutable_data_ptr<Scalar>(), n_structures.mutable_data_ptr<double>(),
               n_atoms.mutable_data_ptr<double>(), device.stream());
  });
}

void record_step_cuda(const Tensor& gradient_norm, const Tensor& loss, const Tensor& n_structures,
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
  const StepRecord record{counts.mutable_data_ptr<std::int64_t>(),
                          history.mutable_data_ptr<double>(),
                          sums.mutable_data_ptr<double>(),
                          totals.mutable_data_ptr<double>(),
                          factors.mutable_data_ptr<double>(),
                          n_kept,
                          n_layers};
  with_scalar(gradient_norm.scalar_type(), [&]<class Scalar>() {
    record_step(gradient_norm.const_data_ptr<Scalar>(), loss.const_data_ptr<double>(),
                n_structures.const_data_ptr<double>(), norms.const_data_ptr<double>(),
                weights.const_data_ptr<Scalar>(), clip, decay, record, device.stream());
  });
}

Tensor embedding_gradient_cuda(const Tensor& bar, const Tensor& atomic_numbers,
                               std::int64_t n_rows) {
  check_real(bar, "bar");
  const std::int64_t n_atoms = atomic_numbers.size(0),
                     n_features = bar.dim() == 2 ? bar.size(1) : -1;
  check(bar, "bar", {n_atoms, n_features}, bar.scalar_type(), bar);
  check(atomic_numbers, "atomic_numbers", {n_atoms}, at::kLong, bar);
  const OnDevice device(bar);
  const Tensor rows = bar.contiguous(), numbers = atomic_numbers.contiguous(),
               weight_bar = at::empty({n_rows, n_features}, bar.options());
  with_scalar(bar.scalar_type(), [&]<class Scalar>() {
    embedding_gradient(n_atoms, n_rows, n_features, numbers.const_data_ptr<std::int64_t>(),
                       rows.const_data_ptr<Scalar>(), weight_bar.mutable_data_ptr<Scalar>(),
                       device.stream());
  });
  return weight_bar;
}

Tensor sum_energies_cuda(const Tensor& g, const Tensor& atomic_numbers, const Tensor& sizes,
                         const Tensor& scale, const Tensor& shift, const Tensor& atomref) {
  check_real(g, "g");
  const std::int64_t n_atoms = atomic_numbers.size(0), n_structures = sizes.size(0);
  check(g, "g", {n_atoms}, g.scalar_type(), g);
  check(atomic_numbers, "atomic_numbers", {n_atoms}, at::kLong, g);
  check(sizes, "sizes", {n_structures}, at::kLong, g);
  check(scale, "scale", {}, at::kDouble, g);
  check(shift, "shift", {}, at::kDouble, g);
  check(atomref, "atomref", {atomref.size(0)}, at::kDouble, g);
  const OnDevice device(g);
  const Tensor held = g.contiguous(), numbers = atomic_numbers.contiguous(),
               of_each = sizes.contiguous(), table = atomref.contiguous(),
               energies = at::empty({n_structures}, scale.options());
  with_scalar(g.scalar_type(), [&]<class Scalar>() {
    sum_energies(n_structures, of_each.const_data_ptr<std::int64_t>(),
                 numbers.const_data_ptr<std::int64_t>(), held.const_data_ptr<Scalar>(),
                 {scale.const_data_ptr<double>(), shift.const_data_ptr<double>(),
                  table.const_data_ptr<double>()},
                 energies.mutable_data_ptr<double>(), device.stream());
  });
  return energies;
}

Tensor sum_energies_backward_cuda(const Tensor& energies_bar, const Tensor& idx_m,
                                  const Tensor& scale, at::ScalarType dtype) {
  const std::int64_t n_atoms = idx_m.size(0), n_structures = energies_bar.size(0);
  check(energies_bar, "energies_bar", {n_structures}, at::kDouble, energies_bar);
  check(idx_m, "idx_m", {n_atoms}, at::kLong, energies_bar);
  check(scale, "scale", {}, at::kDouble, energies_bar);
  const OnDevice device(energies_bar);
  const Tensor bar = energies_bar.contiguous(), structure = idx_m.contiguous(),
               g_bar = at::empty({n_atoms}, bar.options().dtype(dtype));
  check_real(g_bar, "g_bar");
  with_scalar(dtype, [&]<class Scalar>() {
    sum_energies_backward(n_atoms, n_structures, structure.const_data_ptr<std::int64_t>(),
                          scale.const_data_ptr<double>(), bar.const_data_ptr<double>(),
                          g_bar.mutable_data_ptr<Scalar>(), device.stream());
  });
  return g_bar;
}

/// A quantity with its labels and its derivative, and the tensors that hold them.
struct HeldLabels {
  Tensor values, labels, bar;

  HeldLabels(const std::optional<Tensor>& values_, const std::optional<Tensor>& labels_,
             const char* name, at::IntArrayRef shape, const Tensor& like) {
    if (!values_.has_value() || !labels_.has_value()) return;
    check(*values_, name, shape, at::kDouble, like);
    check(*labels_, "labels", shape, at::kDouble, like);
    values = values_->contiguous();
    labels = labels_->contiguous();
    bar = at::empty(shape, like.options());
  }

  Labeled labeled(double factor) const {
    if (!values.defined()) return {};
    const std::int64_t n_rows = values.size(0);
    return {n_rows,
            n_rows > 0 ? values.numel() / n_rows : 1,
            values.const_data_ptr<double>(),
            labels.const_data_ptr<double>(),
            bar.mutable_data_ptr<double>(),
            factor};
  }
};

std::tuple<Tensor, std::vector<Tensor>> squared_errors_cuda(
    const std::optional<Tensor>& energy, const std::optional<Tensor>& forces,
    const std::optional<Tensor>& stress, const std::optional<Tensor>& energy_label,
    const std::optional<Tensor>& forces_label, const std::optional<Tensor>& stress_label,
    const Tensor& sizes, const Tensor& volumes, const Tensor& idx_m,
    const std::optional<Tensor>& weights, const Tensor& n_structures, const Tensor& n_atoms,
    at::ArrayRef<double> factors, bool per_atom) {
  const std::int64_t n = sizes.size(0), n_rows = idx_m.size(0);
  TORCH_CHECK_VALUE(factors.size() == 3, "`factors` must hold three numbers, got ", factors.size());
  check(volumes, "volumes", {n}, at::kDouble, volumes);
  check(sizes, "sizes", {n}, at::kLong, volumes);
  check(idx_m, "idx_m", {n_rows}, at::kLong, volumes);
  if (weights.has_value()) {
    const std::int64_t n_weights = weights->size(0);  // one more where there is padding
    check(*weights, "weights", {n_weights > n ? n + 1 : n}, at::kDouble, volumes);
  }
  check(n_structures, "n_structures", {}, at::kDouble, volumes);
  check(n_atoms, "n_atoms", {}, at::kDouble, volumes);
  const OnDevice device(volumes);
  const HeldLabels of_energy(energy, energy_label, "energy", {n}, volumes),
      of_forces(forces, forces_label, "forces", {n_rows, 3}, volumes),
      of_stress(stress, stress_label, "stress", {n, 3, 3}, volumes);
  const Tensor of_each = sizes.contiguous(), held_volumes = volumes.contiguous(),
               structure = idx_m.contiguous(),
               held_weights = weights.has_value() ? weights->contiguous() : Tensor(),
               loss = at::empty({}, volumes.options());
  squared_errors(
      {of_energy.labeled(factors[0]), of_forces.labeled(factors[1]), of_stress.labeled(factors[2]),
       n, of_each.const_data_ptr<std::int64_t>(), held_volumes.const_data_ptr<double>(),
       structure.const_data_ptr<std::int64_t>(),
       held_weights.defined() ? held_weights.const_data_ptr<double>() : nullptr,
       n_structures.const_data_ptr<double>(), n_atoms.const_data_ptr<double>(), per_atom},
      loss.mutable_data_ptr<double>(), device.stream());
  std::vector<Tensor> bars;
  for (const HeldLabels* held : {&of_energy, &of_forces, &of_stress}) {
    if (held->bar.defined()) bars.push_back(held->bar);
  }
  return {loss, bars};
}

void mean_norms_cuda(const Tensor& norms, const Tensor& idx_m, std::int64_t n_structures,
                     const Tensor& n_atoms, const Tensor& means) {
  check_real(norms, "norms");
  const std::int64_t n_layers = means.size(0), n_rows = idx_m.size(0);
  check(norms, "norms", {n_layers, n_rows}, norms.scalar_type(), norms);
  check(idx_m, "idx_m", {n_rows}, at::kLong, norms);
  check(n_atoms, "n_atoms", {}, at::kDouble, norms);
  check(means, "means", {n_layers}, at::kDouble, norms);
  check_contiguous(means, "means");
  const OnDevice device(norms);
  const Tensor rows = norms.contiguous(), structure = idx_m.contiguous();
  with_scalar(norms.scalar_type(), [&]<class Scalar>() {
    mean_norms(n_layers, n_rows, n_structures, structure.const_data_ptr<std::int64_t>(),
               rows.const_data_ptr<Scalar>(), n_atoms.const_data_ptr<double>(),
               means.mutable_data_ptr<double>(), device.stream());
  });
}

}  // namespace
}  // namespace scschnet::cuda

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  library.def(
      "gather_batch(Tensor order, Tensor step, Tensor structures, Tensor positions, Tensor atoms, "
      "Tensor pairs, Tensor[] of_structures, Tensor[] of_atoms, int n_atoms, int n_pairs) -> "
      "(Tensor chosen, Tensor sizes, Tensor sources, Tensor idx_m, Tensor positions_out, Tensor "
      "atomic_numbers, Tensor row_ptr, Tensor idx_i, Tensor idx_j, Tensor shifts, Tensor[] "
      "structure_rows, Tensor[] atom_rows)",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "begin_step(Tensor plan, Tensor step, Tensor(a!) rate, Tensor(b!) n_structures, Tensor(c!) "
      "n_atoms) -> ()",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "record_step(Tensor gradient_norm, Tensor loss, Tensor n_structures, Tensor norms, Tensor "
      "weights, float clip, float decay, Tensor(a!) counts, Tensor(b!) history, Tensor(c!) sums, "
      "Tensor(d!) totals, Tensor(e!) factors) -> ()",
      {at::Tag::pt2_compliant_tag});
  const auto define = [&library](const char* schema) {
    library.def(schema, {at::Tag::pt2_compliant_tag});
  };
  define("embedding_gradient(Tensor bar, Tensor atomic_numbers, int n_rows) -> Tensor");
  define(
      "sum_energies(Tensor g, Tensor atomic_numbers, Tensor sizes, Tensor scale, Tensor shift, "
      "Tensor atomref) -> Tensor");
  define(
      "sum_energies_backward(Tensor energies_bar, Tensor idx_m, Tensor scale, ScalarType dtype) -> "
      "Tensor");
  define(
      "squared_errors(Tensor? energy, Tensor? forces, Tensor? stress, Tensor? energy_label, "
      "Tensor? forces_label, Tensor? stress_label, Tensor sizes, Tensor volumes, Tensor idx_m, "
      "Tensor? weights, Tensor n_structures, Tensor n_atoms, float[] factors, bool per_atom) -> "
      "(Tensor loss, Tensor[] bars)");
  define(
      "mean_norms(Tensor norms, Tensor idx_m, int n_structures, Tensor n_atoms, Tensor(a!) means) "
      "-> ()");
}

TORCH_LIBRARY_IMPL(scschnet, SCSCHNET_CUDA_KEY, library) {
  library.impl("gather_batch", scschnet::cuda::gather_batch_cuda);
  library.impl("begin_step", scschnet::cuda::begin_step_cuda);
  library.impl("record_step", scschnet::cuda::record_step_cuda);
  library.impl("embedding_gradient", scschnet::cuda::embedding_gradient_cuda);
  library.impl("sum_energies", scschnet::cuda::sum_energies_cuda);
  library.impl("sum_energies_backward", scschnet::cuda::sum_energies_backward_cuda);
  library.impl("squared_errors", scschnet::cuda::squared_errors_cuda);
  library.impl("mean_norms", scschnet::cuda::mean_norms_cuda);
}
