// Batches: the starts of their structures by one block, then a thread per structure, atom and pair;
// the latter two find their structure by bisection. The record of the steps: one block.
#include "training.hpp"

#include "device.cuh"

namespace scschnet::cuda {
namespace {

constexpr int threads = 256;

// ---- batches

/// Where the structures of a batch begin, (n_structures + 2,) each: the padding's, and its end.
struct Starts {
  Index *atoms, *pairs;
  Starts(Index n_structures, Parts& parts) {
    atoms = parts.take<Index>(n_structures + 2);
    pairs = parts.take<Index>(n_structures + 2);
  }
};

/// Sum over the threads of the block before this one; `total`: over all.
__device__ Index sum_before(Index value, Index* sums, Index& total) {
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();
  sums[t] = value;
  __syncthreads();
  for (int distance = 1; distance < threads; distance *= 2) {
    const Index before = t >= distance ? sums[t - distance] : 0;
    __syncthreads();
    sums[t] += before;
    __syncthreads();
  }
  total = sums[threads - 1];
  return sums[t] - value;
}

/// One block. Shared: 4 KiB.
__global__ void __launch_bounds__(threads)
    find_starts(const Index* order, const Index* step, ResidentArrays from, PaddedArrays to,
                Starts starts) {
  __shared__ Index atom_sums[threads];
  __shared__ Index pair_sums[threads];
  const Index n = to.n_structures + 1;
  const Index* const row = order + step[0] * n;
  Index atoms_before = 0, pairs_before = 0;
  for (Index base = 0; base < n; base += threads) {
    const Index k = base + threadIdx.x;
    Index n_atoms = 0, n_pairs = 0, of_atoms = 0, of_pairs = 0;
    if (k < n) {
      const Index* const structure = from.structures + 4 * row[k];
      n_atoms = structure[1];
      n_pairs = structure[3];
      to.chosen[k] = row[k];
      if (k < to.n_structures) to.sizes[k] = n_atoms;
    }
    const Index atom_start = atoms_before + sum_before(n_atoms, atom_sums, of_atoms),
                pair_start = pairs_before + sum_before(n_pairs, pair_sums, of_pairs);
    if (k < n) {
      starts.atoms[k] = atom_start;
      starts.pairs[k] = pair_start;
    }
    atoms_before += of_atoms;
    pairs_before += of_pairs;
  }
  if (threadIdx.x == 0) {
    to.row_ptr[to.n_atoms] = pairs_before < to.n_pairs ? pairs_before : to.n_pairs;
  }
}

__device__ void copy_rows(const Rows* rows, std::size_t n, Index source, Index to) {
  for (std::size_t r = 0; r < n; ++r) {
    const Index n_columns = rows[r].n_columns;
    for (Index k = 0; k < n_columns; ++k)
      rows[r].to[to * n_columns + k] = rows[r].from[source * n_columns + k];
  }
}

__device__ void gather_atom(const ResidentArrays& from, const PaddedArrays& to,
                            const Starts& starts, Index a) {
  const Index m = upper_bound(starts.atoms + 1, to.n_structures, a);
  const Index at = from.structures[4 * to.chosen[m]] + a - starts.atoms[m];
  const Index source = at < from.n_atoms ? at : from.n_atoms;
  const Index row = from.atoms[2 * source + 1] + starts.pairs[m];
  to.sources[a] = source;
  to.idx_m[a] = m;
  to.atomic_numbers[a] = from.atoms[2 * source];
  to.row_ptr[a] = row < to.n_pairs ? row : to.n_pairs;
  for (int k = 0; k < 3; ++k) to.positions[3 * a + k] = from.positions[3 * source + k];
  copy_rows(to.of_atoms, to.n_of_atoms, source, a);
}

/// Partners in structures that did not fit are replaced: nothing reads outside.
__device__ void gather_pair(const ResidentArrays& from, const PaddedArrays& to,
                            const Starts& starts, Index p) {
  const Index m = upper_bound(starts.pairs + 1, to.n_structures, p), last = to.n_atoms - 1;
  const Index at = from.structures[4 * to.chosen[m] + 2] + p - starts.pairs[m];
  const std::int32_t* const pair = from.pairs + 5 * (at < from.n_pairs ? at : from.n_pairs);
  const Index i = starts.atoms[m] + pair[0], j = starts.atoms[m] + pair[1];
  to.idx_i[p] = i < last ? i : last;
  to.idx_j[p] = j < last ? j : last;
  for (int k = 0; k < 3; ++k) to.shifts[3 * p + k] = pair[2 + k];
}

/// A thread per pair, atom and structure.
__global__ void __launch_bounds__(threads)
    gather_all(ResidentArrays from, PaddedArrays to, Starts starts) {
  const Index n = to.n_pairs + to.n_atoms + to.n_structures + 1;
  for (Index k = thread_index(); k < n; k += n_threads()) {
    const Index a = k - to.n_pairs, m = a - to.n_atoms;
    if (a < 0) {
      gather_pair(from, to, starts, k);
    } else if (m < 0) {
      gather_atom(from, to, starts, a);
    } else {
      copy_rows(to.of_structures, to.n_of_structures, to.chosen[m], m);
    }
  }
}

// ---- the plan of the steps

/// One warp, of which one thread works.
template <class Scalar>
__global__ void take_plan(const double* plan, const Index* step, Scalar* rate, double* n_structures,
                          double* n_atoms) {
  if (threadIdx.x != 0) return;
  const double* const row = plan + 3 * step[0];
  *rate = static_cast<Scalar>(row[0]);
  *n_structures = row[1];
  *n_atoms = row[2];
}

// ---- the record of the steps

/// Median of the first n of the values, in all threads of the block. Shared: 4 KiB.
__device__ double median(const double* values, Index n) {
  __shared__ double given[threads];
  __shared__ double ordered[threads];
  const int t = static_cast<int>(threadIdx.x);
  const bool alive = t < n;
  const double mine = alive && values[t] == values[t] ? values[t] : 1.7976931348623157e308;
  given[t] = mine;
  __syncthreads();
  int rank = 0;
  for (int other = 0; alive && other < n; ++other) {
    rank += given[other] < mine || (given[other] == mine && other < t);
  }
  if (alive) ordered[rank] = mine;
  __syncthreads();
  return n > 0 ? 0.5 * (ordered[(n - 1) / 2] + ordered[n / 2]) : 0.0;
}

__device__ bool is_finite(double x) {
  return x - x == 0;
}

/// One block.
template <class Scalar>
__global__ void __launch_bounds__(threads)
    add_step(const Scalar* gradient_norm, const double* loss, const double* n_structures,
             const double* norms, const Scalar* weights, double clip, double decay,
             StepRecord record) {
  const Index n_norms = record.counts[2], known = n_norms < record.n_kept ? n_norms : record.n_kept;
  const double norm = static_cast<double>(gradient_norm[0]);
  const double limit = clip * median(record.history, known);
  for (Index l = threadIdx.x; l < record.n_layers; l += threads) {
    const double normalized = static_cast<double>(weights[l]) * norms[l];
    record.sums[l] += norms[l];
    record.sums[record.n_layers + l] += normalized;
    record.sums[2 * record.n_layers + l] += normalized * normalized;
  }
  if (threadIdx.x != 0) return;
  const bool clipped = clip > 0 && known > 0 && norm > limit;
  record.factors[0] = clipped ? limit / norm : 1.0;
  if (record.totals[1] < 0 && !(is_finite(loss[0]) && is_finite(norm))) {
    record.totals[1] = static_cast<double>(record.counts[0]);
    record.totals[2] = loss[0];
    record.totals[3] = norm;
  }
  record.totals[0] += loss[0] * n_structures[0];
  record.history[n_norms % record.n_kept] = norm;
  for (int k = 0; k < 3; ++k) ++record.counts[k];
  const auto taken = static_cast<double>(record.counts[1]);
  const double grown = (1 + taken) / (10 + taken);
  record.factors[1] = 1 - (grown < decay ? grown : decay);
}

}  // namespace

std::int64_t gather_scratch_bytes(std::int64_t n_structures) {
  Parts parts(nullptr);
  const Starts counted(n_structures, parts);
  return parts.used();
}

void gather_batch(const std::int64_t* order, const std::int64_t* step, const ResidentArrays& from,
                  const PaddedArrays& to, void* scratch, Stream stream) {
  Parts parts(scratch);
  const Starts starts(to.n_structures, parts);
  launch(find_starts, LaunchShape{dim3(1), threads, 0, stream}, order, step, from, to, starts);
  const Index n = to.n_pairs + to.n_atoms + to.n_structures + 1;
  launch(gather_all, one_per_thread(n, threads, stream), from, to, starts);
}

template <class Scalar>
void begin_step(const double* plan, const std::int64_t* step, Scalar* rate, double* n_structures,
                double* n_atoms, Stream stream) {
  launch(take_plan<Scalar>, LaunchShape{dim3(1), warp_size, 0, stream}, plan, step, rate,
         n_structures, n_atoms);
}

template void begin_step(const double*, const std::int64_t*, float*, double*, double*, Stream);
template void begin_step(const double*, const std::int64_t*, double*, double*, double*, Stream);

template <class Scalar>
void record_step(const Scalar* gradient_norm, const double* loss, const double* n_structures,
                 const double* norms, const Scalar* weights, double clip, double decay,
                 const StepRecord& record, Stream stream) {
  static_assert(most_kept_norms == threads);
  launch(add_step<Scalar>, LaunchShape{dim3(1), threads, 0, stream}, gradient_norm, loss,
         n_structures, norms, weights, clip, decay, record);
}

template void record_step(const float*, const double*, const double*, const double*, const float*,
                          double, double, const StepRecord&, Stream);
template void record_step(const double*, const double*, const double*, const double*, const double*,
                          double, double, const StepRecord&, Stream);

}  // namespace scschnet::cuda
