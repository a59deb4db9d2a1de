// Sums of columns in two launches: of stretches of rows, and of these. However many matrices there
// are, they are the columns of one wide matrix, so that small ones wait for nothing.
#include "column_sums.hpp"

#include "device.cuh"

namespace scschnet::cuda {
namespace {

constexpr int threads = 256;
constexpr int n_warps_of_block = threads / warp_size;
constexpr Index most_stretches = 64;

/// At least eight rows for every warp of a block, which it loads without waiting.
__host__ __device__ constexpr Index n_stretches(Index n_rows) {
  constexpr Index rows = 8 * n_warps_of_block;
  const Index n = (n_rows + rows - 1) / rows;
  return n < 1 ? 1 : (n < most_stretches ? n : most_stretches);
}

/// 32 columns of a matrix are a tile; a tile of a matrix that is narrower holds no other one's.
__host__ __device__ constexpr Index tiles_of(Index n_columns) {
  return (n_columns + warp_size - 1) / warp_size;
}

template <class Scalar>
struct AllColumns {
  Columns<Scalar> of[most_columns];
  int n;

  __host__ __device__ Index n_tiles() const {
    Index tiles = 0;
    for (int k = 0; k < n; ++k) tiles += of[k].n_matrices * tiles_of(of[k].n_columns);
    return tiles;
  }
};

/// A tile of all: its columns and where the first one stands among these.
template <class Scalar>
struct Tile {
  Columns<Scalar> columns;
  Index matrix, first;

  __device__ Tile(const AllColumns<Scalar>& all, Index tile) {
    int k = 0;
    Index tiles = all.of[0].n_matrices * tiles_of(all.of[0].n_columns);
    while (tile >= tiles) {
      tile -= tiles;
      ++k;
      tiles = all.of[k].n_matrices * tiles_of(all.of[k].n_columns);
    }
    columns = all.of[k];
    matrix = tile / tiles_of(columns.n_columns);
    first = tile % tiles_of(columns.n_columns) * warp_size;
  }
};

/// blockIdx.x: tile, blockIdx.y: stretch of rows, lane: column; warps share the rows, and their
/// sums are added in order. Shared: a double for every thread. parts (n_stretches, n_tiles, 32).
template <class Scalar>
__global__ void __launch_bounds__(threads)
    sum_stretches_of_rows(Index n_rows, AllColumns<Scalar> all, double* parts) {
  __shared__ double sums[n_warps_of_block][warp_size];
  const int lane = lane_index(), warp = static_cast<int>(threadIdx.x) / warp_size;
  const Tile<Scalar> tile(all, blockIdx.x);
  const Index column = tile.first + lane, n_columns = tile.columns.n_columns;
  const WorkRange rows = work_range(n_rows, blockIdx.y, gridDim.y);
  double sum = 0;
  if (column < n_columns) {
    for (Index row = rows.begin + warp; row < rows.end; row += n_warps_of_block) {
      const Index k = (tile.matrix * n_rows + row) * n_columns + column;
      sum += tile.columns.doubles == nullptr ? static_cast<double>(tile.columns.numbers[k])
                                             : tile.columns.doubles[k];
    }
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0) return;
  double total = 0;
  for (int k = 0; k < n_warps_of_block; ++k) total += sums[k][lane];
  parts[(static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x) * warp_size + lane] = total;
}

/// A warp per tile, a thread per column.
template <class Scalar>
__global__ void __launch_bounds__(threads)
    add_stretches_of_rows(Index stretches, AllColumns<Scalar> all, const double* parts) {
  const Index n_tiles = all.n_tiles();
  for (Index t = warp_index(); t < n_tiles; t += n_warps()) {
    const Tile<Scalar> tile(all, t);
    const Index column = tile.first + lane_index();
    double sum = 0;
    for (Index s = 0; s < stretches; ++s)
      sum += parts[(s * n_tiles + t) * warp_size + lane_index()];
    if (column >= tile.columns.n_columns) continue;
    tile.columns.sums[tile.matrix * tile.columns.n_columns + column] = static_cast<Scalar>(sum);
  }
}

template <class Scalar>
AllColumns<Scalar> together(const std::vector<Columns<Scalar>>& columns) {
  if (columns.size() > most_columns) throw std::logic_error("more columns than fit together");
  AllColumns<Scalar> all{};
  for (const Columns<Scalar>& some : columns) all.of[all.n++] = some;
  return all;
}

}  // namespace

template <class Scalar>
std::int64_t column_sums_scratch_size(std::int64_t n_rows,
                                      const std::vector<Columns<Scalar>>& columns) {
  return n_stretches(n_rows) * together(columns).n_tiles() * warp_size;
}

template <class Scalar>
void sum_columns(std::int64_t n_rows, const std::vector<Columns<Scalar>>& columns, double* scratch,
                 Stream stream) {
  const AllColumns<Scalar> all = together(columns);
  const Index stretches = n_stretches(n_rows), n_tiles = all.n_tiles();
  const dim3 blocks(static_cast<unsigned>(n_tiles), static_cast<unsigned>(stretches));
  launch(sum_stretches_of_rows<Scalar>, LaunchShape{blocks, threads, 0, stream}, n_rows, all,
         scratch);
  launch(add_stretches_of_rows<Scalar>, one_per_warp(n_tiles, threads, stream), stretches, all,
         scratch);
}

#define SCSCHNET_INSTANTIATE(Scalar)                                                   \
  template std::int64_t column_sums_scratch_size(std::int64_t,                         \
                                                 const std::vector<Columns<Scalar>>&); \
  template void sum_columns(std::int64_t, const std::vector<Columns<Scalar>>&, double*, Stream);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cuda
