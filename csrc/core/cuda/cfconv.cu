// Convolutions by gathering. A block owns a slice of the features (256 bytes of every row) and a
// contiguous range of atoms, and may hold its slice of the table in shared memory; a warp works on
// one atom, 16 lanes on one neighbor, so two neighbors at a time. The weights of 32 neighbors are
// loaded by the lanes in parallel, parked in shared memory and read back by broadcast. Sums run in
// the order of the list, whatever the scheduling: the same bits on every run.
#include "cfconv.hpp"

#include "cfconv.cuh"

namespace scschnet::cuda {
namespace {

constexpr int warps = conv_threads / warp_size;

/// What one thread of a convolution knows. Dynamic shared memory: staged neighbors, one row of 32
/// per warp, then the table.
template <class Scalar, int width, bool in_shared, int n_sets>
struct Work {
  const PairsBothWays<Scalar>& pairs;
  FeatureSlice<Scalar, width> features;
  TableSlice<Scalar, width, in_shared> table;
  Stage<Scalar, n_sets> stage;
  WorkRange atoms;

  /// Steps of the loop over neighbors that are unrolled, as far as 64 registers allow: with two
  /// sets of weights and the table in device memory, one step has eight loads of 16 bytes under
  /// way.
  static constexpr int at_once = n_sets == 1 || in_shared ? 2 : 1;

  __device__ Work(const PairsBothWays<Scalar>& pairs_, const FilterTable<Scalar>& table_,
                  unsigned char* shared)
      : pairs(pairs_),
        features(table_.n_features),
        table(table_, features, shared + warps * Stage<Scalar, n_sets>::bytes),
        stage(shared + threadIdx.x / warp_size * Stage<Scalar, n_sets>::bytes),
        atoms(work_range(pairs_.half.n_atoms, blockIdx.x, gridDim.x)) {}

  /// Calls call(neighbor, s) in all lanes for places begin .. end - 1 among the neighbors of atom
  /// i, two at a time, with zero weights behind the last one: s counts them in the stage, from its
  /// start. `load(neighbor, pair)` fills the weights; done(place) follows on a stage, with the
  /// place of its first neighbor.
  template <class Load, class Call, class Done>
  __device__ void for_neighbors(Index i, int begin, int end, const Load& load, const Call& call,
                                const Done& done) const {
    const int lane = lane_index(), sub = lane / lanes_per_row;
    for (int base = begin; base < end; base += warp_size) {
      Neighbor<Scalar, n_sets> mine{};
      mine.other = static_cast<std::int32_t>(i);
      if (base + lane < end) {
        const Place place = neighbor_at(pairs, i, base + lane);
        mine.other = place.other;
        mine.bin = pairs.half.bins[place.pair];
        load(mine, place.pair);
      }
      __syncwarp();  // the stage has been read
      stage.put(lane, mine);
      __syncwarp();
      const int count = end - base < warp_size ? end - base : warp_size;
#pragma unroll at_once
      for (int s = 0; s < count; s += rows_per_warp) call(stage.at(s + sub), s);
      done(base);
    }
  }

  template <class Load, class Call>
  __device__ void for_neighbors(Index i, int begin, int end, const Load& load,
                                const Call& call) const {
    for_neighbors(i, begin, end, load, call, [](int) {});
  }

  /// Calls work(atom) for the atoms of this warp.
  template <class Call>
  __device__ void for_atoms(const Call& call) const {
    const int end = static_cast<int>(atoms.end);
    for (int i = static_cast<int>(atoms.begin + threadIdx.x / warp_size); i < end; i += warps)
      call(i);
  }

  /// Adds what the halves of the warp have summed, and stores the row.
  __device__ void finish(int i, Pack<Scalar, width>& sum, Scalar* rows) const {
    add_rows(sum);
    if (lane_index() < lanes_per_row) features.store(rows, i, sum);
  }

  /// Loaders of weights.
  __device__ static void copy_weights(const Scalar* from, Index pair, Scalar* to) {
#pragma unroll
    for (int m = 0; m < n_taps; ++m) to[m] = from[pair * n_taps + m];
  }
};

template <class Scalar, int width, bool in_shared>
__global__ void __launch_bounds__(conv_threads, 2)
    convolve(PairsBothWays<Scalar> pairs, FilterTable<Scalar> table, const Scalar* x, Scalar* y) {
  SCSCHNET_DYNAMIC_SHARED(shared);
  using Own = Work<Scalar, width, in_shared, 1>;
  const Own work(pairs, table, shared);
  work.for_atoms([&](int i) {
    Pack<Scalar, width> sum{};
    work.for_neighbors(
        i, 0, n_neighbors(pairs, i),
        [&](auto& to, Index p) { Own::copy_weights(pairs.half.w, p, to.weights[0]); },
        [&](const auto& neighbor, int) {
          Pack<Scalar, width> filters[1];
          work.table.evaluate(neighbor, filters);
          add_product(sum, filters[0], work.features.load(x, neighbor.other));
        });
    work.finish(i, sum, y);
  });
}

template <class Scalar, int width, bool in_shared>
__global__ void __launch_bounds__(conv_threads, 2)
    convolve_tangent(PairsBothWays<Scalar> pairs, FilterTable<Scalar> table, const Scalar* u,
                     const Scalar* v, const Scalar* x, Scalar* out) {
  SCSCHNET_DYNAMIC_SHARED(shared);
  using Own = Work<Scalar, width, in_shared, 2>;
  const Own work(pairs, table, shared);
  work.for_atoms([&](int i) {
    Pack<Scalar, width> sum{};
    work.for_neighbors(
        i, 0, n_neighbors(pairs, i),
        [&](auto& to, Index p) {
          Own::copy_weights(pairs.half.w, p, to.weights[0]);
          Own::copy_weights(pairs.half.z, p, to.weights[1]);
#pragma unroll
          for (int m = 0; m < n_taps; ++m) to.weights[1][m] *= v[p];
        },
        [&](const auto& neighbor, int) {
          Pack<Scalar, width> filters[2];
          work.table.evaluate(neighbor, filters);
          add_product(sum, filters[0], work.features.load(u, neighbor.other));
          add_product(sum, filters[1], work.features.load(x, neighbor.other));
        });
    work.finish(i, sum, out);
  });
}

/// One number for each of an atom's own pairs: sum_f (a_i b_j + a_j b_i) D_f of the slice's
/// features. Lanes of half h keep those of neighbors h, h + 2, ... of a stage and store them
/// together.
template <class Scalar, int width>
struct Dots {
  const PairsBothWays<Scalar>& pairs;
  int i;
  Scalar* parts;  // (n_slices, n_pairs)
  Scalar mine = 0;

  __device__ void keep(int s, const Pack<Scalar, width>& slope, const Pack<Scalar, width>& a_i,
                       const Pack<Scalar, width>& a_j, const Pack<Scalar, width>& b_i,
                       const Pack<Scalar, width>& b_j) {
    Scalar sum = 0;
#pragma unroll
    for (int k = 0; k < width; ++k)
      sum += slope.at[k] * (a_i.at[k] * b_j.at[k] + a_j.at[k] * b_i.at[k]);
    sum = sum_row(sum);
    if (lane_index() % lanes_per_row == s / rows_per_warp) mine = sum;
  }

  __device__ void store(int base) const {
    const int lane = lane_index();
    const int place = base + lane % lanes_per_row * rows_per_warp + lane / lanes_per_row;
    const Index p = pairs.half.row_ptr[i] + place;
    if (p < pairs.half.row_ptr[i + 1]) parts[blockIdx.y * pairs.n_pairs + p] = mine;
  }
};

/// An atom's own pairs give d_bar and x_bar, those where it is the partner x_bar.
template <class Scalar, int width, bool in_shared>
__global__ void __launch_bounds__(conv_threads, 2)
    convolve_back(PairsBothWays<Scalar> pairs, FilterTable<Scalar> table, const Scalar* y_bar,
                  const Scalar* x, Scalar* x_bar, Scalar* parts) {
  SCSCHNET_DYNAMIC_SHARED(shared);
  using Own = Work<Scalar, width, in_shared, 2>;
  const Own work(pairs, table, shared);
  work.for_atoms([&](int i) {
    const Pack<Scalar, width> y_i = work.features.load(y_bar, i), x_i = work.features.load(x, i);
    const int n_own = n_own_pairs(pairs, i);
    Dots<Scalar, width> dots{pairs, i, parts};
    Pack<Scalar, width> sum{};
    work.for_neighbors(
        i, 0, n_own,
        [&](auto& to, Index p) {
          Own::copy_weights(pairs.half.w, p, to.weights[0]);
          Own::copy_weights(pairs.half.z, p, to.weights[1]);
        },
        [&](const auto& neighbor, int s) {
          Pack<Scalar, width> filters[2];
          work.table.evaluate(neighbor, filters);
          const Pack<Scalar, width> y_j = work.features.load(y_bar, neighbor.other);
          add_product(sum, filters[0], y_j);
          dots.keep(s, filters[1], y_i, y_j, x_i, work.features.load(x, neighbor.other));
        },
        [&](int base) { dots.store(base); });
    work.for_neighbors(
        i, n_own, n_neighbors(pairs, i),
        [&](auto& to, Index p) { Own::copy_weights(pairs.half.w, p, to.weights[0]); },
        [&](const auto& neighbor, int) {
          Pack<Scalar, width> filter{};
#pragma unroll
          for (int m = 0; m < n_taps; ++m) {
            const Pack<Scalar, width> row = work.table.load(neighbor.bin + m);
#pragma unroll
            for (int k = 0; k < width; ++k) filter.at[k] += neighbor.weights[0][m] * row.at[k];
          }
          add_product(sum, filter, work.features.load(y_bar, neighbor.other));
        });
    work.finish(i, sum, x_bar);
  });
}

template <class Scalar, int width, bool in_shared>
__global__ void __launch_bounds__(conv_threads)
    multiply_pairs(PairsBothWays<Scalar> pairs, FilterTable<Scalar> table, const Scalar* a,
                   const Scalar* b, Scalar* parts) {
  SCSCHNET_DYNAMIC_SHARED(shared);
  using Own = Work<Scalar, width, in_shared, 1>;
  const Own work(pairs, table, shared);
  work.for_atoms([&](int i) {
    const Pack<Scalar, width> a_i = work.features.load(a, i), b_i = work.features.load(b, i);
    Dots<Scalar, width> dots{pairs, i, parts};
    work.for_neighbors(
        i, 0, n_own_pairs(pairs, i),
        [&](auto& to, Index p) { Own::copy_weights(pairs.half.w, p, to.weights[0]); },
        [&](const auto& neighbor, int s) {
          Pack<Scalar, width> filters[1];
          work.table.evaluate(neighbor, filters);
          dots.keep(s, filters[0], a_i, work.features.load(a, neighbor.other), b_i,
                    work.features.load(b, neighbor.other));
        },
        [&](int base) { dots.store(base); });
  });
}

/// A thread per pair: adds the slices in order.
template <class Scalar>
__global__ void add_slices(Index n_atoms, const Index* row_ptr, Index n_pairs, Index n_slices,
                           const Scalar* parts, bool add, Scalar* dot) {
  const Index last = row_ptr[n_atoms];
  for (Index p = thread_index(); p < n_pairs; p += n_threads()) {
    Scalar sum = 0;
    for (Index s = 0; p < last && s < n_slices; ++s) sum += parts[s * n_pairs + p];
    dot[p] = add ? dot[p] + sum : sum;
  }
}

/// How a kernel with so many sets of weights and this width of packs is launched.
template <class Scalar, int width, int n_sets>
ConvolutionPlan plan(const PairsBothWays<Scalar>& pairs, const FilterTable<Scalar>& table) {
  return plan_convolution(device_limits(), pairs.half.n_atoms, pairs.n_pairs, table.n_rows,
                          table.n_features, slice_features<width>,
                          slice_features<width> * sizeof(Scalar),
                          warps * Stage<Scalar, n_sets>::bytes);
}

LaunchShape shape_of(const ConvolutionPlan& plan, Stream stream) {
  return {dim3(static_cast<unsigned>(plan.n_chunks), static_cast<unsigned>(plan.n_slices)),
          conv_threads, plan.shared_bytes, stream};
}

/// Launches kernel.template operator()<width, in_shared>() as the plan says. Returns the number of
/// slices.
#define SCSCHNET_LAUNCH_CONVOLUTION(n_sets, kernel, arrays, ...)                                \
  [&] {                                                                                         \
    const auto go = [&]<int width>() {                                                          \
      const ConvolutionPlan p = plan<Scalar, width, n_sets>(pairs, table);                      \
      if (pairs.half.n_atoms == 0 || table.n_features == 0) return p.n_slices;                  \
      if (p.table_in_shared) {                                                                  \
        launch(kernel<Scalar, width, true>, shape_of(p, stream), pairs, table, __VA_ARGS__);    \
      } else {                                                                                  \
        launch(kernel<Scalar, width, false>, shape_of(p, stream), pairs, table, __VA_ARGS__);   \
      }                                                                                         \
      return p.n_slices;                                                                        \
    };                                                                                          \
    return arrays ? go.template operator()<full_width<Scalar>>() : go.template operator()<1>(); \
  }()

template <class Scalar>
void finish_dot(const PairsBothWays<Scalar>& pairs, Index n_slices, const Scalar* parts, bool add,
                Scalar* dot, Stream stream) {
  launch(add_slices<Scalar>, one_per_thread(pairs.n_pairs, 256, stream), pairs.half.n_atoms,
         pairs.half.row_ptr, pairs.n_pairs, n_slices, parts, add, dot);
}

}  // namespace

template <class Scalar>
void cfconv(const PairsBothWays<Scalar>& pairs, const FilterTable<Scalar>& table, const Scalar* x,
            Scalar* y, Stream stream) {
  const bool full = has_full_packs<Scalar>(table.n_features, table.rows, x, y);
  SCSCHNET_LAUNCH_CONVOLUTION(1, convolve, full, x, y);
}

template <class Scalar>
std::int64_t dot_scratch_size(std::int64_t n_features, std::int64_t n_pairs) {
  // A launch chooses its slices also by the addresses of its arrays, which are not known here: room
  // for the narrowest.
  constexpr Index narrowest = slice_features<1>;
  return (n_features + narrowest - 1) / narrowest * n_pairs;
}

template <class Scalar>
void cfconv_backward(const PairsBothWays<Scalar>& pairs, const FilterTable<Scalar>& table,
                     const Scalar* y_bar, const Scalar* x, Scalar* x_bar, Scalar* d_bar, bool add,
                     Scalar* scratch, Stream stream) {
  const bool full = has_full_packs<Scalar>(table.n_features, table.rows, y_bar, x, x_bar);
  const Index n_slices =
      SCSCHNET_LAUNCH_CONVOLUTION(2, convolve_back, full, y_bar, x, x_bar, scratch);
  finish_dot(pairs, n_slices, scratch, add, d_bar, stream);
}

template <class Scalar>
void cfconv_dot(const PairsBothWays<Scalar>& pairs, const FilterTable<Scalar>& table,
                const Scalar* a, const Scalar* b, Scalar* dot, bool add, Scalar* scratch,
                Stream stream) {
  const bool full = has_full_packs<Scalar>(table.n_features, table.rows, a, b);
  const Index n_slices = SCSCHNET_LAUNCH_CONVOLUTION(1, multiply_pairs, full, a, b, scratch);
  finish_dot(pairs, n_slices, scratch, add, dot, stream);
}

template <class Scalar>
void cfconv_double_backward(const PairsBothWays<Scalar>& pairs, const FilterTable<Scalar>& table,
                            const Scalar* u, const Scalar* v, const Scalar* x, Scalar* out,
                            Stream stream) {
  const bool full = has_full_packs<Scalar>(table.n_features, table.rows, u, x, out);
  SCSCHNET_LAUNCH_CONVOLUTION(2, convolve_tangent, full, u, v, x, out);
}

#define SCSCHNET_INSTANTIATE(Scalar)                                                             \
  template void cfconv(const PairsBothWays<Scalar>&, const FilterTable<Scalar>&, const Scalar*,  \
                       Scalar*, Stream);                                                         \
  template std::int64_t dot_scratch_size<Scalar>(std::int64_t, std::int64_t);                    \
  template void cfconv_backward(const PairsBothWays<Scalar>&, const FilterTable<Scalar>&,        \
                                const Scalar*, const Scalar*, Scalar*, Scalar*, bool, Scalar*,   \
                                Stream);                                                         \
  template void cfconv_dot(const PairsBothWays<Scalar>&, const FilterTable<Scalar>&,             \
                           const Scalar*, const Scalar*, Scalar*, bool, Scalar*, Stream);        \
  template void cfconv_double_backward(const PairsBothWays<Scalar>&, const FilterTable<Scalar>&, \
                                       const Scalar*, const Scalar*, const Scalar*, Scalar*,     \
                                       Stream);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cuda
