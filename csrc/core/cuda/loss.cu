// Energies of structures: a warp each. The loss: one block for all errors of a batch, which are few
// (some thousands), so that one launch takes the place of about twenty small ones of torch.
#include "loss.hpp"

#include "device.cuh"

namespace scschnet::cuda {
namespace {

constexpr int threads = 256;
constexpr int loss_threads = 1024;

/// A warp per structure; it finds its first atom by adding the sizes before its own.
template <class Scalar>
__global__ void __launch_bounds__(threads)
    add_energies(Index n_structures, const Index* sizes, const Index* atomic_numbers,
                 const Scalar* g, EnergyTerms terms, double* energies) {
  for (Index m = warp_index(); m < n_structures; m += n_warps()) {
    Index first = 0;
    for (Index k = lane_index(); k < m; k += warp_size) first += sizes[k];
    first = warp_sum(first);
    double sum = 0;
    for (Index i = first + lane_index(); i < first + sizes[m]; i += warp_size)
      sum += g[i] * *terms.scale + (*terms.shift + terms.atomref[atomic_numbers[i]]);
    sum = warp_sum(sum);
    if (lane_index() == 0) energies[m] = sum;
  }
}

/// A thread per atom.
template <class Scalar>
__global__ void __launch_bounds__(threads)
    spread_energies(Index n_atoms, Index n_structures, const Index* idx_m, const double* scale,
                    const double* energies_bar, Scalar* g_bar) {
  for (Index i = thread_index(); i < n_atoms; i += n_threads()) {
    const Index m = idx_m[i];
    g_bar[i] = m < n_structures ? static_cast<Scalar>(*scale * energies_bar[m]) : Scalar(0);
  }
}

/// The sum over the threads of a block, a tree of warps: always in the same order, and known to the
/// first thread alone. Shared: a number for every warp.
__device__ double block_sum(double value) {
  __shared__ double of_warps[loss_threads / warp_size];
  value = warp_sum(value);
  if (lane_index() == 0) of_warps[threadIdx.x / warp_size] = value;
  __syncthreads();
  const auto n_warps_of_block = static_cast<int>(blockDim.x) / warp_size;
  return warp_sum(lane_index() < n_warps_of_block ? of_warps[lane_index()] : 0.0);
}

/// What the errors of a row are multiplied by: those of an atom's share of an extensive quantity.
__device__ double share(const SquaredErrors& e, Index structure, bool times_volume) {
  if (!e.per_atom) return 1;
  const Index size = e.sizes[structure] > 1 ? e.sizes[structure] : 1;
  return (times_volume ? e.volumes[structure] : 1.0) / static_cast<double>(size);
}

/// One quantity: this thread's part of its loss, and the derivative of all of it. `structure` tells
/// that of a row, `row_share` its share, both only where the row has a label.
template <class StructureOf, class Share, class Exists>
__device__ double square(const Labeled& q, const double* weights, double over,
                         const StructureOf& structure_of, const Share& row_share,
                         const Exists& exists) {
  double loss = 0;
  for (Index k = threadIdx.x; k < q.n_rows * q.n_columns; k += blockDim.x) {
    const Index row = k / q.n_columns;
    double bar = 0;
    if (q.labels[k] == q.labels[k] && exists(row)) {
      const double factor = row_share(row), difference = (q.values[k] - q.labels[k]) * factor,
                   weight = (weights ? weights[structure_of(row)] : 1.0) * q.factor / over;
      loss += difference * difference * weight;
      bar = 2 * difference * factor * weight;
    }
    q.bar[k] = bar;
  }
  return loss;
}

/// One block.
__global__ void __launch_bounds__(loss_threads) add_squares(SquaredErrors e, double* loss) {
  const auto own = [](Index row) { return row; };
  const auto of_atom = [&](Index row) { return e.idx_m[row]; };
  const auto one = [](Index) { return 1.0; };
  const auto always = [](Index) { return true; };
  const auto per_size = [&](Index row) { return share(e, row, false); };
  const auto per_volume = [&](Index row) { return share(e, row, true); };
  const auto has_volume = [&](Index row) { return e.volumes[row] > 0; };
  double sum = square(e.energy, e.weights, *e.all_structures, own, per_size, always);
  sum += square(e.forces, e.weights, *e.all_atoms, of_atom, one, always);
  sum += square(e.stress, e.weights, *e.all_structures, own, per_volume, has_volume);
  sum = block_sum(sum);
  if (threadIdx.x == 0) *loss = sum;
}

/// A block per layer.
template <class Scalar>
__global__ void __launch_bounds__(loss_threads)
    average(Index n_atoms, Index n_structures, const Index* idx_m, const Scalar* norms,
            const double* all_atoms, double* means) {
  const Scalar* const row = norms + blockIdx.x * n_atoms;
  double sum = 0;
  for (Index i = threadIdx.x; i < n_atoms; i += blockDim.x) {
    if (idx_m[i] < n_structures) sum += static_cast<double>(row[i]);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) means[blockIdx.x] = sum / *all_atoms;
}

}  // namespace

template <class Scalar>
void sum_energies(std::int64_t n_structures, const std::int64_t* sizes,
                  const std::int64_t* atomic_numbers, const Scalar* g, const EnergyTerms& terms,
                  double* energies, Stream stream) {
  launch(add_energies<Scalar>, one_per_warp(n_structures, threads, stream), n_structures, sizes,
         atomic_numbers, g, terms, energies);
}

template <class Scalar>
void sum_energies_backward(std::int64_t n_atoms, std::int64_t n_structures,
                           const std::int64_t* idx_m, const double* scale,
                           const double* energies_bar, Scalar* g_bar, Stream stream) {
  launch(spread_energies<Scalar>, one_per_thread(n_atoms, threads, stream), n_atoms, n_structures,
         idx_m, scale, energies_bar, g_bar);
}

void squared_errors(const SquaredErrors& errors, double* loss, Stream stream) {
  launch(add_squares, LaunchShape{dim3(1), loss_threads, 0, stream}, errors, loss);
}

template <class Scalar>
void mean_norms(std::int64_t n_layers, std::int64_t n_atoms, std::int64_t n_structures,
                const std::int64_t* idx_m, const Scalar* norms, const double* all_atoms,
                double* means, Stream stream) {
  launch(average<Scalar>,
         LaunchShape{dim3(static_cast<unsigned>(n_layers)), loss_threads, 0, stream}, n_atoms,
         n_structures, idx_m, norms, all_atoms, means);
}

#define SCSCHNET_INSTANTIATE(Scalar)                                                      \
  template void sum_energies(std::int64_t, const std::int64_t*, const std::int64_t*,      \
                             const Scalar*, const EnergyTerms&, double*, Stream);         \
  template void sum_energies_backward(std::int64_t, std::int64_t, const std::int64_t*,    \
                                      const double*, const double*, Scalar*, Stream);     \
  template void mean_norms(std::int64_t, std::int64_t, std::int64_t, const std::int64_t*, \
                           const Scalar*, const double*, double*, Stream);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cuda
