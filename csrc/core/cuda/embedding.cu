// The gradient of an embedding as a sum over the atoms of each element. There are few elements, and
// half of the atoms may be hydrogen: a block owns an element and 32 features, and its warps share
// the atoms in stretches, whose sums are added in order. Nothing is sorted and there are no
// atomics.
#include "embedding.hpp"

#include "device.cuh"

namespace scschnet::cuda {
namespace {

constexpr int stretches = 16;  // warps of a block
constexpr int group = 4;       // rows that are loaded together

/// Takes the first of the atoms that the bits stand for; -1 if there is none.
__device__ inline int take_first(unsigned& bits) {
  const int first = __ffs(static_cast<int>(bits)) - 1;
  bits &= bits - 1;  // zero stays zero
  return first;
}

/// blockIdx.x: element, blockIdx.y: 32 features, warp: a stretch of atoms. Shared: a number for
/// every thread.
template <class Scalar>
__global__ void __launch_bounds__(stretches* warp_size)
    add_atoms(Index n_atoms, Index n_features, const Index* atomic_numbers, const Scalar* bar,
              Scalar* weight_bar) {
  __shared__ Scalar sums[stretches][warp_size];
  const int lane = lane_index(), warp = static_cast<int>(threadIdx.x) / warp_size;
  const Index element = blockIdx.x, feature = blockIdx.y * static_cast<Index>(warp_size) + lane;
  const bool alive = feature < n_features;
  const WorkRange range = work_range(element > 0 ? n_atoms : 0, warp, stretches);
  Scalar sum = 0;
  for (Index base = range.begin; base < range.end; base += warp_size) {
    const Index atom = base + lane;
    unsigned of_element =
        __ballot_sync(all_lanes, atom < range.end && atomic_numbers[atom] == element);
    while (of_element != 0) {
      Scalar rows[group];
#pragma unroll
      for (int k = 0; k < group; ++k) {
        const int first = take_first(of_element);
        rows[k] = alive && first >= 0 ? bar[(base + first) * n_features + feature] : Scalar(0);
      }
#pragma unroll
      for (int k = 0; k < group; ++k) sum += rows[k];
    }
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || !alive) return;
  Scalar total = 0;
  for (int k = 0; k < stretches; ++k) total += sums[k][lane];
  weight_bar[element * n_features + feature] = total;
}

}  // namespace

template <class Scalar>
void embedding_gradient(std::int64_t n_atoms, std::int64_t n_rows, std::int64_t n_features,
                        const std::int64_t* atomic_numbers, const Scalar* bar, Scalar* weight_bar,
                        Stream stream) {
  const dim3 blocks(static_cast<unsigned>(n_rows),
                    static_cast<unsigned>((n_features + warp_size - 1) / warp_size));
  launch(add_atoms<Scalar>, LaunchShape{blocks, stretches * warp_size, 0, stream}, n_atoms,
         n_features, atomic_numbers, bar, weight_bar);
}

template void embedding_gradient(std::int64_t, std::int64_t, std::int64_t, const std::int64_t*,
                                 const float*, float*, Stream);
template void embedding_gradient(std::int64_t, std::int64_t, std::int64_t, const std::int64_t*,
                                 const double*, double*, Stream);

}  // namespace scschnet::cuda
