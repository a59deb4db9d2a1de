// Gradients of the table, by pairs that are sorted by bin: all pairs of one bin add to the same six
// rows, so that a lane keeps the six sums of its feature in registers and writes them once.
//
//   sorted pairs   b=0 0 0 0 | 1 1 1 1 1 1 1 1 | 2 2 | 3 3 3 3 3 3 ...
//   stretches      [----- 0 -----][----- 1 -----][----- 2 -----]        one warp and 32 features
//   each slots written    0+0   0+1       1+1   1+2     2+3                  stretch + bin: never
//   twice
//
// From one slot to the next along the list, the stretch or the bin grows, so that their sum names a
// slot uniquely, and neither atomics nor clearing is needed. A second kernel adds for every row r
// the sums of tap m that the stretches of bin r - m have written, in order.
#include "cfconv.hpp"

#include "device.cuh"

namespace scschnet::cuda {
namespace {

constexpr int stretch_features = warp_size;
constexpr int gradient_warps = 4;
constexpr int group = 4;  // pairs whose rows are loaded together

/// Values of one feature that the rows of a pair's table get, times w and times v z.
template <class Scalar>
struct Terms {
  Scalar of_w, of_z;
};

/// a_i b_j + a_j b_i
template <class Scalar>
struct Plain {
  static constexpr bool with_slope = false;
  const Scalar *a, *b;

  /// Of another block.
  __device__ Plain at_block(Index offset) const { return {a + offset, b + offset}; }

  __device__ Terms<Scalar> at(Index i, Index j) const { return {a[i] * b[j] + a[j] * b[i], 0}; }
};

template <class Scalar>
struct Total {
  static constexpr bool with_slope = true;
  const Scalar *lambda, *u, *y_bar, *x;  // lambda may be null

  __device__ Total at_block(Index offset) const {
    return {lambda == nullptr ? lambda : lambda + offset, u + offset, y_bar + offset, x + offset};
  }

  __device__ Terms<Scalar> at(Index i, Index j) const {
    const Scalar y_i = y_bar[i], y_j = y_bar[j], x_i = x[i], x_j = x[j];
    Scalar of_w = u[i] * y_j + u[j] * y_i;
    if (lambda != nullptr) of_w += lambda[i] * x_j + lambda[j] * x_i;
    return {of_w, y_i * x_j + y_j * x_i};
  }
};

/// A pair as the lanes read it.
template <class Scalar>
struct PairStage {
  Scalar w[n_taps], z[n_taps];
  std::int32_t i, j, bin;
};

/// Stretches of equal length: many enough to fill a device, few enough that their sums stay small
/// against the rows that are read for them.
struct Stretches {
  Index length, number;

  explicit Stretches(Index n_pairs) {
    constexpr Index shortest = 64, most = 4096;
    const Index fair = (n_pairs + most - 1) / most;
    length = fair < shortest ? shortest : (fair + warp_size - 1) / warp_size * warp_size;
    number = (n_pairs + length - 1) / length;
  }
};

__host__ __device__ constexpr Index slices_of(Index n_features) {
  return (n_features + stretch_features - 1) / stretch_features;
}

/// A warp per stretch; blockIdx.y: 32 features of a network's block. Shared: 32 pairs for each
/// warp, 8 KiB in float32. parts (n_blocks, n_slots, n_taps, n_features).
template <class Scalar, class Source>
__global__ void __launch_bounds__(gradient_warps* warp_size)
    sum_stretches(const Scalar* w, const Scalar* z, const Scalar* v, PairsByBin sorted,
                  Index n_bins, Index length, Index n_slots, Index n_features, Index n_atoms,
                  Source of_first, Scalar* parts) {
  __shared__ PairStage<Scalar> stages[gradient_warps][warp_size];
  PairStage<Scalar>* const stage = stages[threadIdx.x / warp_size];
  const int lane = lane_index();
  const Index n_slices = slices_of(n_features), block = blockIdx.y / n_slices;
  const Index feature = blockIdx.y % n_slices * stretch_features + lane;
  const Source source = of_first.at_block(block * n_atoms * n_features);
  const bool alive = feature < n_features;
  const Index own = alive ? feature : 0, stretch = warp_index();
  const Index last = sorted.starts[n_bins * sorted.stride], begin = stretch * length;
  const Index end = begin + length < last ? begin + length : last;
  if (begin >= end) return;

  Scalar sums[n_taps]{};
  std::int32_t bin = sorted.pairs[begin].bin;
  const auto store = [&] {
    Scalar* const slot = parts + (block * n_slots + stretch + bin) * n_taps * n_features + own;
#pragma unroll
    for (int m = 0; m < n_taps; ++m) {
      if (alive) slot[m * n_features] = sums[m];
      sums[m] = 0;
    }
  };
  for (Index base = begin; base < end; base += warp_size) {
    __syncwarp();  // the stage has been read
    if (base + lane < end) {
      const BinnedPair pair = sorted.pairs[base + lane];
      PairStage<Scalar>& to = stage[lane];
      to.i = pair.center;
      to.j = pair.other;
      to.bin = pair.bin;
#pragma unroll
      for (int m = 0; m < n_taps; ++m) {
        to.w[m] = w[static_cast<Index>(pair.pair) * n_taps + m];
        if (Source::with_slope)
          to.z[m] = v[pair.pair] * z[static_cast<Index>(pair.pair) * n_taps + m];
      }
    }
    __syncwarp();
    const int count = end - base < warp_size ? static_cast<int>(end - base) : warp_size;
    for (int s = 0; s < count; s += group) {
      Terms<Scalar> terms[group];
#pragma unroll
      for (int k = 0; k < group; ++k) {
        const PairStage<Scalar>& pair = stage[s + k < count ? s + k : s];
        terms[k] = source.at(pair.i * n_features + own, pair.j * n_features + own);
      }
#pragma unroll
      for (int k = 0; k < group; ++k) {
        if (s + k >= count) break;
        const PairStage<Scalar>& pair = stage[s + k];
        if (pair.bin != bin) {  // for all lanes
          store();
          bin = pair.bin;
        }
#pragma unroll
        for (int m = 0; m < n_taps; ++m) {
          sums[m] += pair.w[m] * terms[k].of_w;
          if (Source::with_slope) sums[m] += pair.z[m] * terms[k].of_z;
        }
      }
    }
  }
  store();
}

/// A thread per entry of a table.
template <class Scalar>
__global__ void add_stretches(PairsByBin sorted, Index n_blocks, Index n_bins, Index length,
                              Index n_slots, Index n_rows, Index n_features, const Scalar* parts,
                              Scalar* table_bar) {
  for (Index k = thread_index(); k < n_blocks * n_rows * n_features; k += n_threads()) {
    const Index row = k / n_features % n_rows, feature = k % n_features;
    const Scalar* const of_block =
        parts + k / n_features / n_rows * n_slots * n_taps * n_features + feature;
    Scalar sum = 0;
    for (int m = 0; m < n_taps; ++m) {
      const Index bin = row - m;
      if (bin < 0 || bin >= n_bins) continue;
      const auto begin = static_cast<std::int32_t>(sorted.starts[bin * sorted.stride]),
                 end = static_cast<std::int32_t>(sorted.starts[(bin + 1) * sorted.stride]),
                 step = static_cast<std::int32_t>(length);
      if (begin == end) continue;
      for (std::int32_t s = begin / step; s <= (end - 1) / step; ++s)
        sum += of_block[((s + bin) * n_taps + m) * n_features];
    }
    table_bar[k] = sum;
  }
}

template <class Scalar, class Source>
void gradient(const PairsBothWays<Scalar>& pairs, const PairsByBin& sorted, Index n_blocks,
              const Scalar* v, const FilterTable<Scalar>& table, const Source& source,
              Scalar* table_bar, Scalar* scratch, Stream stream) {
  const Stretches stretches(pairs.n_pairs);
  const Index n_bins = n_bins_of(table.n_rows), n_slots = stretches.number + n_bins;
  const dim3 blocks(static_cast<unsigned>((stretches.number + gradient_warps - 1) / gradient_warps),
                    static_cast<unsigned>(n_blocks * slices_of(table.n_features)));
  launch(sum_stretches<Scalar, Source>, LaunchShape{blocks, gradient_warps * warp_size, 0, stream},
         pairs.half.w, pairs.half.z, v, sorted, n_bins, stretches.length, n_slots, table.n_features,
         pairs.half.n_atoms, source, scratch);
  const Index n_entries = n_blocks * table.n_rows * table.n_features;
  launch(add_stretches<Scalar>, one_per_thread(n_entries, 256, stream), sorted, n_blocks, n_bins,
         stretches.length, n_slots, table.n_rows, table.n_features, scratch, table_bar);
}

}  // namespace

std::int64_t table_gradient_scratch_size(std::int64_t n_blocks, std::int64_t n_rows,
                                         std::int64_t n_features, std::int64_t n_pairs) {
  return n_blocks * (Stretches(n_pairs).number + n_bins_of(n_rows)) * n_taps * n_features;
}

template <class Scalar>
void cfconv_table_gradient(const PairsBothWays<Scalar>& pairs, const PairsByBin& sorted,
                           std::int64_t n_blocks, const FilterTable<Scalar>& table, const Scalar* a,
                           const Scalar* b, Scalar* table_bar, Scalar* scratch, Stream stream) {
  const Scalar* const no_v = nullptr;
  gradient(pairs, sorted, n_blocks, no_v, table, Plain<Scalar>{a, b}, table_bar, scratch, stream);
}

template <class Scalar>
void cfconv_total_table_gradient(const PairsBothWays<Scalar>& pairs, const PairsByBin& sorted,
                                 std::int64_t n_blocks, const FilterTable<Scalar>& table,
                                 const Scalar* lambda, const Scalar* u, const Scalar* v,
                                 const Scalar* y_bar, const Scalar* x, Scalar* table_bar,
                                 Scalar* scratch, Stream stream) {
  gradient(pairs, sorted, n_blocks, v, table, Total<Scalar>{lambda, u, y_bar, x}, table_bar,
           scratch, stream);
}

#define SCSCHNET_INSTANTIATE(Scalar)                                                               \
  template void cfconv_table_gradient(const PairsBothWays<Scalar>&, const PairsByBin&,             \
                                      std::int64_t, const FilterTable<Scalar>&, const Scalar*,     \
                                      const Scalar*, Scalar*, Scalar*, Stream);                    \
  template void cfconv_total_table_gradient(                                                       \
      const PairsBothWays<Scalar>&, const PairsByBin&, std::int64_t, const FilterTable<Scalar>&,   \
      const Scalar*, const Scalar*, const Scalar*, const Scalar*, const Scalar*, Scalar*, Scalar*, \
      Stream);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cuda
