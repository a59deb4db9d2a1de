// The operator scschnet::unfamiliarity: how unlike the training set atoms are, in one pass. In
// plain torch, where its equation is: scschnet/nn/unfamiliarity.py.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>

#include "meta.hpp"

namespace scschnet {
namespace {

using at::Tensor;

void check(const Tensor& tensor, const char* name, at::IntArrayRef sizes, at::ScalarType dtype) {
  TORCH_CHECK_VALUE(tensor.sizes() == sizes, "`", name, "` must have shape ", sizes, ", got ",
                    tensor.sizes());
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, "`", name, "` must be ", dtype, ", got ",
                   tensor.scalar_type());
}

/// || R^T (n - m) ||; `norms` of the blocks are `stride` apart.
double distance(std::int64_t n_blocks, const double* norms, std::int64_t stride, const double* mean,
                const double* whitening) {
  double squared = 0;
  for (std::int64_t column = 0; column < n_blocks; ++column) {
    double sum = 0;
    for (std::int64_t l = 0; l < n_blocks; ++l) {
      sum += (norms[l * stride] - mean[l]) * whitening[l * n_blocks + column];
    }
    squared += sum * sum;
  }
  return std::sqrt(squared);
}

Tensor unfamiliarity_cpu(const Tensor& correction_norms, const Tensor& atomic_numbers,
                         const Tensor& mean, const Tensor& whitening) {
  const std::int64_t n_atoms = atomic_numbers.numel(), n_rows = mean.size(0), n = mean.size(-1);
  check(correction_norms, "correction_norms", {n + 1, n_atoms}, at::kDouble);
  check(atomic_numbers, "atomic_numbers", {n_atoms}, at::kLong);
  check(mean, "mean", {n_rows, n}, at::kDouble);
  check(whitening, "whitening", {n_rows, n, n}, at::kDouble);
  const Tensor norms = correction_norms.contiguous(), z = atomic_numbers.contiguous(),
               m = mean.contiguous(), r = whitening.contiguous();
  const auto* row = z.const_data_ptr<std::int64_t>();
  const double* blocks = norms.const_data_ptr<double>() + n_atoms;  // behind the embedding's
  Tensor result = at::empty({n_atoms}, norms.options());
  auto* u = result.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < n_atoms; ++i) {
    TORCH_CHECK_VALUE(row[i] >= 0 && row[i] < n_rows, "`atomic_numbers` must lie between 0 and ",
                      n_rows - 1, ", got ", row[i]);
    u[i] = distance(n, blocks + i, n_atoms, m.const_data_ptr<double>() + row[i] * n,
                    r.const_data_ptr<double>() + row[i] * n * n);
  }
  return result;
}

Tensor unfamiliarity_meta(const Tensor& correction_norms, const Tensor& atomic_numbers,
                          const Tensor&, const Tensor&) {
  return at::empty_symint({atomic_numbers.sym_size(0)}, on_meta(correction_norms));
}

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  library.def(
      "unfamiliarity(Tensor correction_norms, Tensor atomic_numbers, Tensor mean, Tensor whitening)"
      " -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("unfamiliarity", unfamiliarity_cpu);
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("unfamiliarity", unfamiliarity_meta);
}

}  // namespace
}  // namespace scschnet
