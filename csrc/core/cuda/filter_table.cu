// Activation and prefilter of filter tables: one thread per number.
#include "filter_table.hpp"

#include "activation.cuh"
#include "device.cuh"

namespace scschnet::cuda {
namespace {

constexpr int threads = 256;

template <class Scalar>
__global__ void activate(Index n, double* hidden, Scalar* slopes) {
  for (Index k = thread_index(); k < n; k += n_threads()) {
    const Activated<double> activated(hidden[k]);
    hidden[k] = activated.value;
    slopes[k] = static_cast<Scalar>(activated.slope);
  }
}

template <class Scalar>
__global__ void __launch_bounds__(threads)
    filter_samples(FilterTableSizes sizes, Index n_blocks, Index n_nodes, const double* prefilter,
                   const double* samples, double* coefficients, Scalar* rounded) {
  const Index of_table = sizes.n_rows * sizes.n_filters, f = sizes.n_filters;
  for (Index k = thread_index(); k < n_blocks * of_table; k += n_threads()) {
    const Index in_table = k % of_table;
    const double* center = samples + k / of_table * n_nodes * f + in_table + prefilter_order * f;
    double sum = prefilter[0] * center[0];
    for (int s = 1; s <= prefilter_order; ++s)
      sum += prefilter[s] * (center[-s * f] + center[s * f]);
    coefficients[k] = sum;
    rounded[k] = static_cast<Scalar>(sum);
  }
}

template <class Scalar>
__global__ void __launch_bounds__(threads)
    filter_backward(FilterTableSizes sizes, Index n_blocks, Index n_nodes, const double* prefilter,
                    const Scalar* coefficients_bar, const Scalar* slopes, Scalar* hidden_bar) {
  const Index f = sizes.n_filters, of_nodes = n_nodes * f;
  for (Index k = thread_index(); k < n_blocks * of_nodes; k += n_threads()) {
    const Index block = k / of_nodes, row = k % of_nodes / f - prefilter_order;
    const Scalar* column = coefficients_bar + block * sizes.n_rows * f + k % f;
    double sum = 0;
    for (int s = -prefilter_order; s <= prefilter_order; ++s) {
      if (row + s >= 0 && row + s < sizes.n_rows) {
        sum += prefilter[s < 0 ? -s : s] * static_cast<double>(column[(row + s) * f]);
      }
    }
    hidden_bar[k] = static_cast<Scalar>(sum * static_cast<double>(slopes[k]));
  }
}

}  // namespace

template <class Scalar>
void activate_samples(std::int64_t n, double* hidden, Scalar* slopes, Stream stream) {
  launch(activate<Scalar>, one_per_thread(n, threads, stream), n, hidden, slopes);
}

template <class Scalar>
void prefilter_samples(const FilterTableSizes& sizes, std::int64_t n_blocks,
                       const double* prefilter, const double* samples, double* coefficients,
                       Scalar* rounded, Stream stream) {
  launch(filter_samples<Scalar>,
         one_per_thread(n_blocks * sizes.n_rows * sizes.n_filters, threads, stream), sizes,
         n_blocks, sizes.n_nodes(), prefilter, samples, coefficients, rounded);
}

template <class Scalar>
void prefilter_backward(const FilterTableSizes& sizes, std::int64_t n_blocks,
                        const double* prefilter, const Scalar* coefficients_bar,
                        const Scalar* slopes, Scalar* hidden_bar, Stream stream) {
  launch(filter_backward<Scalar>,
         one_per_thread(n_blocks * sizes.n_nodes() * sizes.n_filters, threads, stream), sizes,
         n_blocks, sizes.n_nodes(), prefilter, coefficients_bar, slopes, hidden_bar);
}

#define SCSCHNET_INSTANTIATE(Scalar)                                                     \
  template void activate_samples(std::int64_t, double*, Scalar*, Stream);                \
  template void prefilter_samples(const FilterTableSizes&, std::int64_t, const double*,  \
                                  const double*, double*, Scalar*, Stream);              \
  template void prefilter_backward(const FilterTableSizes&, std::int64_t, const double*, \
                                   const Scalar*, const Scalar*, Scalar*, Stream);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cuda
