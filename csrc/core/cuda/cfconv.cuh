// What the convolution's kernels share: packs of features, how work is divided, and the list of an
// atom's neighbors staged in shared memory.
#pragma once

#include "cfconv.hpp"
#include "device.cuh"

namespace scschnet::cuda {

/// `width` features of one row, one 16-byte load if width is full_width.
template <class Scalar, int width>
struct alignas(width * sizeof(Scalar)) Pack {
  Scalar at[width];
};

template <class Scalar>
constexpr int full_width = 16 / static_cast<int>(sizeof(Scalar));

/// Lanes that own one row of a slice of features; a warp works on two neighbors at a time.
constexpr int lanes_per_row = 16;
constexpr int rows_per_warp = warp_size / lanes_per_row;
constexpr int conv_threads = 512;

/// Features of a slice: with full packs 256 bytes, the feature_block of the CPU.
template <int width>
constexpr int slice_features = lanes_per_row * width;

/// How a convolution is divided: blockIdx.y is a slice of the features, blockIdx.x a contiguous
/// range of atoms, one warp works on one atom.
struct ConvolutionPlan {
  Index n_slices;
  Index n_chunks;
  bool table_in_shared;
  std::size_t shared_bytes;  ///< staged neighbors, then the table if it is there
};

/// Chooses so that the processors are full. The table goes to shared memory if a slice fits and is
/// read often enough to be worth the copy: reads of table rows against rows copied.
inline ConvolutionPlan plan_convolution(const DeviceLimits& device, Index n_atoms, Index n_pairs,
                                        Index n_rows, Index n_features, int features_per_slice,
                                        Index bytes_per_row, Index stage_bytes) {
  constexpr Index worth_copying = 8;                  // a guess, to be measured
  constexpr Index most_blocks = 1024 / conv_threads;  // the kernels use up to 64 registers
  const Index n_slices = (n_features + features_per_slice - 1) / features_per_slice;
  const Index table_bytes = n_rows * bytes_per_row, reserved_bytes = 1024;
  const Index block_bytes = table_bytes + stage_bytes + reserved_bytes;
  const bool fits = table_bytes + stage_bytes <= device.shared_per_block;
  const Index resident = fits ? device.shared_per_processor / block_bytes : 0;
  const Index per_processor = resident < 1 ? 1 : resident > most_blocks ? most_blocks : resident;
  const auto chunks = [&](Index blocks_per_processor) {
    const Index wanted = device.n_processors * blocks_per_processor / n_slices,
                most = (n_atoms * warp_size + conv_threads - 1) / conv_threads;
    return wanted < 1 ? 1 : wanted > most ? most : wanted;
  };
  const Index copied = chunks(per_processor) * n_rows, read = 2 * n_pairs * n_taps;
  const bool in_shared = fits && read > worth_copying * copied;
  return {n_slices, chunks(in_shared ? per_processor : most_blocks), in_shared,
          static_cast<std::size_t>(stage_bytes + (in_shared ? table_bytes : 0))};
}

/// A neighbor with its weights, one or two sets of them.
template <class Scalar, int n_sets>
struct alignas((n_sets * n_taps * sizeof(Scalar) + 8) % 16 == 0 ? 16 : 8) Neighbor {
  Scalar weights[n_sets][n_taps];
  std::int32_t bin;
  std::int32_t other;
};

/// Neighbors of a warp in shared memory, so that weights are read 16 bytes at a time and no byte is
/// lost: where a neighbor does not fill whole 16 bytes, its weights do, and the rest has an array
/// of its own. Two blocks with a table of 326 rows (5 A, 1/64 A) then fit on a multiprocessor.
template <class Scalar, int n_sets>
class Stage {
 public:
  using Staged = Neighbor<Scalar, n_sets>;
  static constexpr int bytes = warp_size * static_cast<int>(sizeof(Staged));

  __device__ explicit Stage(unsigned char* memory) : memory_(memory) {}

  __device__ void put(int s, const Staged& neighbor) const {
    if constexpr (whole) {
      reinterpret_cast<Staged*>(memory_)[s] = neighbor;
    } else {
#pragma unroll
      for (int k = 0; k < n_sets * n_taps; ++k)
        weights()[s].of[k] = neighbor.weights[k / n_taps][k % n_taps];
      rest()[s] = {neighbor.bin, neighbor.other};
    }
  }

  __device__ Staged at(int s) const {
    if constexpr (whole) {
      return reinterpret_cast<const Staged*>(memory_)[s];
    } else {
      Staged neighbor;
#pragma unroll
      for (int k = 0; k < n_sets * n_taps; ++k)
        neighbor.weights[k / n_taps][k % n_taps] = weights()[s].of[k];
      neighbor.bin = rest()[s].bin;
      neighbor.other = rest()[s].other;
      return neighbor;
    }
  }

 private:
  struct alignas(16) Weights {
    Scalar of[n_sets * n_taps];
  };
  struct alignas(8) Rest {
    std::int32_t bin, other;
  };
  static constexpr bool whole = sizeof(Staged) % 16 == 0;
  static_assert(whole || sizeof(Weights) + sizeof(Rest) == sizeof(Staged));

  __device__ Weights* weights() const { return reinterpret_cast<Weights*>(memory_); }
  __device__ Rest* rest() const {
    return reinterpret_cast<Rest*>(memory_ + warp_size * sizeof(Weights));
  }

  unsigned char* memory_;
};

/// Which pair stands at place e among an atom's own pairs and then those where it is the partner.
struct Place {
  Index pair;
  std::int32_t other;
};

template <class Scalar>
__host__ __device__ Place neighbor_at(const PairsBothWays<Scalar>& pairs, Index i, int e) {
  const Index begin = pairs.half.row_ptr[i], n_own = pairs.half.row_ptr[i + 1] - begin;
  if (e < n_own) {
    return {begin + e, static_cast<std::int32_t>(pairs.half.idx_j[begin + e])};
  }
  const Index entry = pairs.partners.col_ptr[i] + e - n_own;
  return {pairs.partners.col_pair[entry], pairs.partners.col_center[entry]};
}

/// Pairs that stand with the atom, and with those where it is the partner.
template <class Scalar>
__host__ __device__ int n_own_pairs(const PairsBothWays<Scalar>& pairs, Index i) {
  return static_cast<int>(pairs.half.row_ptr[i + 1] - pairs.half.row_ptr[i]);
}
template <class Scalar>
__host__ __device__ int n_neighbors(const PairsBothWays<Scalar>& pairs, Index i) {
  return n_own_pairs(pairs, i) +
         static_cast<int>(pairs.partners.col_ptr[i + 1] - pairs.partners.col_ptr[i]);
}

/// One lane's part of a row: features first .. first + width - 1, zeros beyond the last feature.
template <class Scalar, int width>
struct FeatureSlice {
  int first;  // narrow numbers: registers are scarce
  int n_features;

  __device__ FeatureSlice(Index n)
      : first(static_cast<int>(blockIdx.y) * slice_features<width> +
              lane_index() % lanes_per_row * width),
        n_features(static_cast<int>(n)) {}

  /// Rows are multiples of the width long: a pack is inside or outside.
  __device__ bool inside() const { return first < n_features; }

  __device__ Pack<Scalar, width> load(const Scalar* rows, int row) const {
    Pack<Scalar, width> pack{};
    if (inside()) pack = *reinterpret_cast<const Pack<Scalar, width>*>(rows + place(row));
    return pack;
  }

  __device__ void store(Scalar* rows, int row, const Pack<Scalar, width>& pack) const {
    if (inside()) *reinterpret_cast<Pack<Scalar, width>*>(rows + place(row)) = pack;
  }

  __device__ Index place(int row) const { return static_cast<Index>(row) * n_features + first; }
};

/// The slice of the table: a copy in shared memory, or the table itself.
template <class Scalar, int width, bool in_shared>
struct TableSlice {
  const Scalar* rows;
  FeatureSlice<Scalar, width> features;

  /// All threads of the block.
  __device__ TableSlice(const FilterTable<Scalar>& table,
                        const FeatureSlice<Scalar, width>& features_, unsigned char* shared)
      : rows(table.rows), features(features_) {
    if constexpr (in_shared) {
      auto* const copy = reinterpret_cast<Scalar*>(shared);
      const int n_rows = static_cast<int>(table.n_rows), step = static_cast<int>(blockDim.x);
      for (int r = static_cast<int>(threadIdx.x) / lanes_per_row; r < n_rows;
           r += step / lanes_per_row) {
        const auto pack = features.load(table.rows, r);
        *reinterpret_cast<Pack<Scalar, width>*>(copy + r * slice_features<width> + offset()) = pack;
      }
      rows = copy;
      __syncthreads();
    }
  }

  __device__ static int offset() { return lane_index() % lanes_per_row * width; }

  __device__ Pack<Scalar, width> load(int row) const {
    if constexpr (in_shared) {
      return *reinterpret_cast<const Pack<Scalar, width>*>(rows + row * slice_features<width> +
                                                           offset());
    } else {
      // A table has fewer than 2^32 numbers: its address stays out of registers, which are scarce.
      const unsigned at = static_cast<unsigned>(row) * static_cast<unsigned>(features.n_features) +
                          static_cast<unsigned>(features.first);
      Pack<Scalar, width> pack{};
      if (features.inside()) pack = *reinterpret_cast<const Pack<Scalar, width>*>(rows + at);
      return pack;
    }
  }

  /// filters[s] = sum_m weights[s][m] row[bin + m]: every row is read once.
  template <int n_sets>
  __device__ void evaluate(const Neighbor<Scalar, n_sets>& neighbor,
                           Pack<Scalar, width> (&filters)[n_sets]) const {
#pragma unroll
    for (int m = 0; m < n_taps; ++m) {
      const Pack<Scalar, width> row = load(neighbor.bin + m);
#pragma unroll
      for (int set = 0; set < n_sets; ++set) {
#pragma unroll
        for (int k = 0; k < width; ++k) {
          const Scalar term = neighbor.weights[set][m] * row.at[k];
          filters[set].at[k] = m == 0 ? term : filters[set].at[k] + term;
        }
      }
    }
  }
};

template <class Scalar, int width>
__device__ void add_product(Pack<Scalar, width>& sum, const Pack<Scalar, width>& a,
                            const Pack<Scalar, width>& b) {
#pragma unroll
  for (int k = 0; k < width; ++k) sum.at[k] += a.at[k] * b.at[k];
}

/// The sum over the rows a warp works on at a time, in every lane.
template <class Scalar, int width>
__device__ void add_rows(Pack<Scalar, width>& sum) {
#pragma unroll
  for (int k = 0; k < width; ++k) {
    for (int distance = lanes_per_row; distance < warp_size; distance *= 2)
      sum.at[k] += __shfl_xor_sync(all_lanes, sum.at[k], distance);
  }
}

/// The sum over the lanes of one row, in all of them.
template <class Scalar>
__device__ Scalar sum_row(Scalar value) {
  for (int distance = lanes_per_row / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}

/// Are rows of so many features at this address made of whole, aligned packs?
template <class Scalar, class... Pointers>
bool has_full_packs(Index n_features, Pointers... arrays) {
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  return n_features % full_width<Scalar> == 0 && (aligned(arrays) && ...);
}

}  // namespace scschnet::cuda
