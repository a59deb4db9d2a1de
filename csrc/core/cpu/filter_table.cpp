// Filter tables: two matrix products with the activation and the prefilter between them, and the
// reverse of these.
//
//     rbf --A1, b1--> hidden --ssp--> samples --prefilter--> coefficients --A2, b2--> table
//     (n_nodes, n_rbf)         (n_nodes, n_filters)          (n_rows, n_filters)
//
// There are 2 prefilter_order more nodes than rows, so that every row has all the samples it needs.
// A call allocates and owns its intermediate arrays.
#include "../filter_table.hpp"

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "dense.hpp"
#include "filter_table_kernels.hpp"

namespace scschnet::cpu {
namespace {

const FilterTableKernels& filter_table_kernels(InstructionSet isa) {
  switch (isa) {
#if defined(SCSCHNET_X86)
    case InstructionSet::amx:
    case InstructionSet::avx512:
      return filter_table_kernels_avx512;
    case InstructionSet::avx2:
      return filter_table_kernels_avx2;
#endif
    default:
      return filter_table_kernels_generic;
  }
}

template <class Scalar>
const FilterTableLoops<Scalar>& loops_of(InstructionSet isa) {
  if constexpr (std::is_same_v<Scalar, float>) {
    return filter_table_kernels(isa).single_precision;
  } else {
    return filter_table_kernels(isa).double_precision;
  }
}

/// Uninitialized memory for a pass that writes all of it.
template <class Scalar>
std::unique_ptr<Scalar[]> unwritten(std::int64_t n) {
  return std::make_unique_for_overwrite<Scalar[]>(n);
}

template <class To, class From>
std::vector<To> converted(const From* values, std::int64_t n) {
  return std::vector<To>(values, values + n);
}

/// Packs B (k, n) of a product A B from B^T (n, k), in double precision.
template <class Scalar>
std::unique_ptr<double[]> packed_transposed(const DenseKernels<double>& dense, const Scalar* weight,
                                            std::int64_t k, std::int64_t n) {
  const std::vector<double> exact = converted<double>(weight, n * k);
  auto packed = unwritten<double>(packed_size<double>(k, n));
  dense.pack_transposed(exact.data(), k, n, packed.get());
  return packed;
}

}  // namespace

template <class Scalar>
void filter_table(const FilterTableSizes& sizes, const double* prefilter, const double* rbf,
                  const FilterParameters<const Scalar*>& parameters, Scalar* table,
                  Scalar* coefficients, Scalar* slopes, InstructionSet isa) {
  const auto& dense = dense_kernels<double>(isa);
  const auto& loops = loops_of<Scalar>(isa);
  const std::int64_t n_rows = sizes.n_rows, n = sizes.n_filters, n_nodes = sizes.n_nodes();
  const auto hidden_bias = converted<double>(parameters.hidden_bias, n);
  const auto output_bias = converted<double>(parameters.output_bias, n);
  const auto hidden_weight = packed_transposed(dense, parameters.hidden_weight, sizes.n_rbf, n);
  const auto output_weight = packed_transposed(dense, parameters.output_weight, n, n);

  const auto samples = unwritten<double>(n_nodes * n), exact = unwritten<double>(n_rows * n);
  dense.multiply(n_nodes, sizes.n_rbf, n, rbf, hidden_weight.get(), hidden_bias.data(), 0,
                 samples.get());
  loops.activate(n_nodes * n, samples.get(), slopes);
  loops.prefilter(n_rows, n, prefilter, samples.get() + prefilter_order * n, exact.get(),
                  coefficients);
  dense.multiply(n_rows, n, n, exact.get(), output_weight.get(), output_bias.data(), 0,
                 samples.get());
  std::transform(samples.get(), samples.get() + n_rows * n, table,
                 [](double v) { return static_cast<Scalar>(v); });
}

template <class Scalar>
void filter_table_backward(const FilterTableSizes& sizes, const double* prefilter,
                           const Scalar* rbf, const Scalar* output_weight, const Scalar* table_bar,
                           const Scalar* coefficients, const Scalar* slopes,
                           const FilterParameters<Scalar*>& gradients, InstructionSet isa) {
  const auto& dense = dense_kernels<Scalar>(isa);
  const std::int64_t n_rows = sizes.n_rows, n = sizes.n_filters, n_nodes = sizes.n_nodes();
  std::fill_n(gradients.output_weight, n * n, Scalar{0});
  std::fill_n(gradients.output_bias, n, Scalar{0});
  dense.add_outer(n_rows, n, n, table_bar, coefficients, 0, n, gradients.output_weight);
  dense.add_columns(n_rows, n, nullptr, table_bar, gradients.output_bias);

  const auto packed = unwritten<Scalar>(packed_size<Scalar>(n, n));
  const auto bar = unwritten<Scalar>(n_nodes * n);
  dense.pack(output_weight, n, n, packed.get());
  // The transpose of a symmetric filter is the same filter on rows with zeros around them.
  const std::int64_t border = 2 * prefilter_order * n, inside = n_rows * n;
  const auto padded = unwritten<Scalar>(border + inside + border);
  std::fill_n(padded.get(), border, Scalar{0});
  dense.multiply(n_rows, n, n, table_bar, packed.get(), nullptr, 0, padded.get() + border);
  std::fill_n(padded.get() + border + inside, border, Scalar{0});
  const auto taps = converted<Scalar>(prefilter, prefilter_order + 1);
  loops_of<Scalar>(isa).prefilter_times(n_nodes, n, taps.data(), padded.get() + prefilter_order * n,
                                        slopes, bar.get());

  std::fill_n(gradients.hidden_weight, n * sizes.n_rbf, Scalar{0});
  std::fill_n(gradients.hidden_bias, n, Scalar{0});
  dense.add_outer(n_nodes, n, sizes.n_rbf, bar.get(), rbf, 0, n, gradients.hidden_weight);
  dense.add_columns(n_nodes, n, nullptr, bar.get(), gradients.hidden_bias);
}

#define SCSCHNET_INSTANTIATE(S)                                                                   \
  template void filter_table(const FilterTableSizes&, const double*, const double*,               \
                             const FilterParameters<const S*>&, S*, S*, S*, InstructionSet);      \
  template void filter_table_backward(const FilterTableSizes&, const double*, const S*, const S*, \
                                      const S*, const S*, const S*, const FilterParameters<S*>&,  \
                                      InstructionSet);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cpu
