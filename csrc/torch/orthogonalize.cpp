// The operator scschnet::orthogonalize: Newton-Schulz iteration on a stack of matrices, on the CPU.
// Not differentiable: an optimizer's.
#include "../core/orthogonalize.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "meta.hpp"
#include "pairs.hpp"

namespace scschnet {
namespace {

using at::Tensor;

void check(const Tensor& matrices, std::int64_t steps) {
  TORCH_CHECK_VALUE(matrices.dim() == 3, "`matrices` must have shape (n, rows, columns), got ",
                    matrices.sym_sizes());
  TORCH_CHECK_TYPE(matrices.scalar_type() == at::kFloat || matrices.scalar_type() == at::kDouble,
                   "`matrices` must be float32 or float64, got ", matrices.scalar_type());
  TORCH_CHECK_VALUE(steps >= 0 && steps <= 1000, "`steps` must lie between 0 and 1000, got ",
                    steps);
}

template <class Scalar>
void fill(const Tensor& from, std::int64_t steps, const Tensor& to) {
  static const cpu::InstructionSet best = cpu::available_instruction_sets().back();
  const std::int64_t rows = from.size(1), columns = from.size(2), size = rows * columns;
  const Scalar* const matrix = from.const_data_ptr<Scalar>();
  Scalar* const result = to.mutable_data_ptr<Scalar>();
  parallel_for(from.size(0), [&](std::int64_t k) {
    cpu::orthogonalize<Scalar>(rows, columns, static_cast<int>(steps), matrix + k * size,
                               result + k * size, best);
  });
}

Tensor orthogonalize_cpu(const Tensor& matrices, std::int64_t steps) {
  check(matrices, steps);
  const Tensor from = matrices.contiguous();
  const Tensor to = at::empty_like(from);
  if (from.scalar_type() == at::kDouble) {
    fill<double>(from, steps, to);
  } else {
    fill<float>(from, steps, to);
  }
  return to;
}

Tensor orthogonalize_meta(const Tensor& matrices, std::int64_t steps) {
  check(matrices, steps);
  return at::empty_symint(matrices.sym_sizes(), on_meta(matrices));
}

}  // namespace
}  // namespace scschnet

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  library.def("orthogonalize(Tensor matrices, int steps) -> Tensor", {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("orthogonalize", scschnet::orthogonalize_cpu);
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("orthogonalize", scschnet::orthogonalize_meta);
}
