// Gradients of the table. A block is one warp: it owns 32 features and a stretch of consecutive
// pairs, whose contributions it adds in order to a table of its own, in shared memory if that fits
// (326 rows of 32 floats: 42 KB, five blocks per H200 processor). Every lane has its own column: no
// atomics, no races. A second kernel adds the tables of the stretches in order.
#include "cfconv.hpp"

#include "device.cuh"

namespace scschnet::cuda {
namespace {

constexpr int stretch_features = warp_size;
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

  __device__ Terms<Scalar> at(Index i, Index j) const { return {a[i] * b[j] + a[j] * b[i], 0}; }
};

template <class Scalar>
struct Total {
  static constexpr bool with_slope = true;
  const Scalar *lambda, *u, *y_bar, *x;  // lambda may be null

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

struct GradientPlan {
  Index n_slices, n_stretches;
  bool in_shared;
  std::size_t shared_bytes;  ///< staged pairs, then the table if it is there
};

template <class Scalar>
GradientPlan plan_gradient(Index n_rows, Index n_features, Index n_pairs) {
  constexpr Index shortest = 128;  // pairs that are worth a table to be added
  constexpr Index most_blocks = 16, stage_bytes = warp_size * sizeof(PairStage<Scalar>),
                  reserved_bytes = 1024;
  const DeviceLimits device = device_limits();
  const Index table_bytes = n_rows * stretch_features * static_cast<Index>(sizeof(Scalar));
  const bool in_shared = table_bytes + stage_bytes <= device.shared_per_block;
  const Index fitting =
      in_shared ? device.shared_per_processor / (table_bytes + stage_bytes + reserved_bytes)
                : most_blocks;
  const Index per_processor = fitting < 1 ? 1 : fitting > most_blocks ? most_blocks : fitting;
  const Index n_slices = (n_features + stretch_features - 1) / stretch_features;
  const Index wanted = n_slices > 0 ? device.n_processors * per_processor / n_slices : 1,
              most = (n_pairs + shortest - 1) / shortest;
  const Index stretches = wanted < most ? wanted : most;
  return {n_slices, stretches < 1 ? 1 : stretches, in_shared,
          static_cast<std::size_t>(stage_bytes + (in_shared ? table_bytes : 0))};
}

/// parts (n_stretches, n_rows, n_features). Where the table is, is known to the compiler: addresses
/// are then of shared memory, in steps that are constants.
template <class Scalar, class Source, bool in_shared>
__global__ void __launch_bounds__(warp_size)
    gather_stretches(PairsBothWays<Scalar> pairs, const Scalar* v, FilterTable<Scalar> table,
                     Source source, Scalar* parts) {
  SCSCHNET_DYNAMIC_SHARED(shared);
  auto* const stage = reinterpret_cast<PairStage<Scalar>*>(shared);
  const int lane = lane_index();
  const Index feature = blockIdx.y * static_cast<Index>(stretch_features) + lane,
              n_features = table.n_features;
  const bool alive = feature < n_features;
  const Index own = alive ? feature : 0;
  Scalar* const part = parts + blockIdx.x * table.n_rows * n_features + own;
  Scalar* column = part;
  if constexpr (in_shared) {
    column = reinterpret_cast<Scalar*>(shared + warp_size * sizeof(PairStage<Scalar>)) + lane;
  }
  const Index row_length = in_shared ? static_cast<Index>(stretch_features) : n_features;
  for (Index r = 0; alive && r < table.n_rows; ++r) column[r * row_length] = 0;

  const Index last = pairs.half.row_ptr[pairs.half.n_atoms];
  const WorkRange range = work_range(last, blockIdx.x, gridDim.x);
  for (Index base = range.begin; base < range.end; base += warp_size) {
    __syncwarp();  // the stage has been read
    if (base + lane < range.end) {
      const Index p = base + lane;
      PairStage<Scalar>& to = stage[lane];
      to.i = pairs.partners.centers[p];
      to.j = static_cast<std::int32_t>(pairs.half.idx_j[p]);
      to.bin = pairs.half.bins[p];
#pragma unroll
      for (int m = 0; m < n_taps; ++m) {
        to.w[m] = pairs.half.w[p * n_taps + m];
        to.z[m] = Source::with_slope ? v[p] * pairs.half.z[p * n_taps + m] : 0;
      }
    }
    __syncwarp();
    const int count = range.end - base < warp_size ? static_cast<int>(range.end - base) : warp_size;
    for (int s = 0; alive && s < count; s += group) {
      Terms<Scalar> terms[group];
#pragma unroll
      for (int k = 0; k < group; ++k) {
        const PairStage<Scalar>& pair = stage[s + k < count ? s + k : s];
        terms[k] = source.at(pair.i * n_features + own, pair.j * n_features + own);
      }
#pragma unroll
      for (int k = 0; k < group; ++k) {
        if (s + k >= count) break;
        const PairStage<Scalar> pair = stage[s + k];  // read before anything is written
        Scalar* const rows = column + pair.bin * row_length;
        Scalar sums[n_taps];
#pragma unroll
        for (int m = 0; m < n_taps; ++m) {
          Scalar added = pair.w[m] * terms[k].of_w;
          if (Source::with_slope) added += pair.z[m] * terms[k].of_z;
          sums[m] = rows[m * row_length] + added;
        }
#pragma unroll
        for (int m = 0; m < n_taps; ++m) rows[m * row_length] = sums[m];
      }
    }
  }
  for (Index r = 0; alive && in_shared && r < table.n_rows; ++r)
    part[r * n_features] = column[r * row_length];
}

/// A thread per entry of the table.
template <class Scalar>
__global__ void add_stretches(Index n_entries, Index n_stretches, const Scalar* parts,
                              Scalar* table_bar) {
  for (Index k = thread_index(); k < n_entries; k += n_threads()) {
    Scalar sum = 0;
    for (Index s = 0; s < n_stretches; ++s) sum += parts[s * n_entries + k];
    table_bar[k] = sum;
  }
}

template <class Scalar, class Source>
void gradient(const PairsBothWays<Scalar>& pairs, const Scalar* v, const FilterTable<Scalar>& table,
              const Source& source, Scalar* table_bar, Scalar* scratch, Stream stream) {
  const GradientPlan plan = plan_gradient<Scalar>(table.n_rows, table.n_features, pairs.n_pairs);
  const dim3 blocks(static_cast<unsigned>(plan.n_stretches), static_cast<unsigned>(plan.n_slices));
  const auto kernel = plan.in_shared ? gather_stretches<Scalar, Source, true>
                                     : gather_stretches<Scalar, Source, false>;
  launch(kernel, LaunchShape{blocks, warp_size, plan.shared_bytes, stream}, pairs, v, table, source,
         scratch);
  const Index n_entries = table.n_rows * table.n_features;
  launch(add_stretches<Scalar>, one_per_thread(n_entries, 256, stream), n_entries, plan.n_stretches,
         scratch, table_bar);
}

}  // namespace

template <class Scalar>
std::int64_t table_gradient_scratch_size(std::int64_t n_rows, std::int64_t n_features,
                                         std::int64_t n_pairs) {
  return plan_gradient<Scalar>(n_rows, n_features, n_pairs).n_stretches * n_rows * n_features;
}

template <class Scalar>
void cfconv_table_gradient(const PairsBothWays<Scalar>& pairs, const FilterTable<Scalar>& table,
                           const Scalar* a, const Scalar* b, Scalar* table_bar, Scalar* scratch,
                           Stream stream) {
  gradient(pairs, static_cast<const Scalar*>(nullptr), table, Plain<Scalar>{a, b}, table_bar,
           scratch, stream);
}

template <class Scalar>
void cfconv_total_table_gradient(const PairsBothWays<Scalar>& pairs,
                                 const FilterTable<Scalar>& table, const Scalar* lambda,
                                 const Scalar* u, const Scalar* v, const Scalar* y_bar,
                                 const Scalar* x, Scalar* table_bar, Scalar* scratch,
                                 Stream stream) {
  gradient(pairs, v, table, Total<Scalar>{lambda, u, y_bar, x}, table_bar, scratch, stream);
}

#define SCSCHNET_INSTANTIATE(Scalar)                                                            \
  template std::int64_t table_gradient_scratch_size<Scalar>(std::int64_t, std::int64_t,         \
                                                            std::int64_t);                      \
  template void cfconv_table_gradient(const PairsBothWays<Scalar>&, const FilterTable<Scalar>&, \
                                      const Scalar*, const Scalar*, Scalar*, Scalar*, Stream);  \
  template void cfconv_total_table_gradient(                                                    \
      const PairsBothWays<Scalar>&, const FilterTable<Scalar>&, const Scalar*, const Scalar*,   \
      const Scalar*, const Scalar*, const Scalar*, Scalar*, Scalar*, Stream);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cuda
