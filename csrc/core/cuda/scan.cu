// Running sums in two launches: sums of tiles, then every block adds the tiles before its own. One
// tile needs one launch.
#include "scan.hpp"

#include "device.cuh"

namespace scschnet::cuda {
namespace {

constexpr int scan_threads = 256;
constexpr int per_thread = 8;
constexpr Index tile = scan_threads * per_thread;

__host__ __device__ constexpr Index n_tiles(Index n) {
  return (n + tile - 1) / tile;
}

/// Sum over the threads of the block before this one; `total`: over all. Shared: 2 KiB.
__device__ Index block_exclusive_scan(Index value, Index& total) {
  __shared__ Index sums[scan_threads];
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();
  sums[t] = value;
  __syncthreads();
  for (int distance = 1; distance < scan_threads; distance *= 2) {
    const Index before = t >= distance ? sums[t - distance] : 0;
    __syncthreads();
    sums[t] += before;
    __syncthreads();
  }
  total = sums[scan_threads - 1];
  return sums[t] - value;
}

/// One block per tile: its sum.
__global__ void __launch_bounds__(scan_threads)
    sum_tiles(const std::int32_t* counts, Index n, Index* tile_sums) {
  const Index first = blockIdx.x * tile;
  Index sum = 0, total = 0;
  for (Index k = threadIdx.x; k < tile; k += scan_threads) {
    if (first + k < n) sum += counts[first + k];
  }
  block_exclusive_scan(sum, total);
  if (threadIdx.x == 0) tile_sums[blockIdx.x] = total;
}

/// One block per tile; a thread owns `per_thread` counts that follow each other.
__global__ void __launch_bounds__(scan_threads)
    scan_tiles(const std::int32_t* counts, Index n, const Index* tile_sums, Index* starts) {
  Index before = 0, of_tiles = 0, total = 0;
  for (Index k = threadIdx.x; k < blockIdx.x; k += scan_threads) before += tile_sums[k];
  block_exclusive_scan(before, of_tiles);
  const Index first = blockIdx.x * tile + static_cast<Index>(threadIdx.x) * per_thread;
  Index sum = 0;
  for (Index k = first; k < first + per_thread && k < n; ++k) sum += counts[k];
  Index running = of_tiles + block_exclusive_scan(sum, total);
  for (Index k = first; k < first + per_thread && k < n; ++k) {
    starts[k] = running;
    running += counts[k];
  }
  if (first < n && n <= first + per_thread) starts[n] = running;
}

}  // namespace

std::int64_t scan_scratch_bytes(std::int64_t n) {
  return (n_tiles(n) + 1) * static_cast<Index>(sizeof(Index));
}

void exclusive_scan(const std::int32_t* counts, std::int64_t n, std::int64_t* starts, void* scratch,
                    Stream stream) {
  if (n == 0) return fill_bytes(starts, 0, sizeof(Index), stream);
  auto* const tile_sums = static_cast<Index*>(scratch);
  const LaunchShape shape{dim3(static_cast<unsigned>(n_tiles(n))), scan_threads, 0, stream};
  if (n_tiles(n) > 1) launch(sum_tiles, shape, counts, n, tile_sums);
  launch(scan_tiles, shape, counts, n, tile_sums, starts);
}

}  // namespace scschnet::cuda
