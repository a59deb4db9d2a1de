// Neighbor list: every structure has a grid of bins (one bin: brute force), a warp searches for one
// atom. Integer atomics fill the bins; sorting each bin by atom then makes the order independent of
// them. What is found when pairs are counted is kept, so that most atoms are searched for once.
#include "neighbor_list.hpp"

#include <cmath>
#include <limits>

#include "device.cuh"
#include "lattice.cuh"
#include "scan.hpp"

namespace scschnet::cuda {
namespace {

constexpr int threads = 256;

struct Fractions {
  double of[3];
};

/// Where an atom lies inside the cell; NaN if that needs double precision.
struct alignas(16) NearAtom {
  float at[3];
};

/// A pair that single precision could not rule out: place of atom j, and its image.
struct Candidate {
  std::int32_t slot, image[3];
};

/// A pair of an atom, as it was found when pairs were counted.
struct Kept {
  std::int64_t atom : 32, x : 10, y : 10, z : 10;  // atom j and its cell shift
};
constexpr int most_kept = 64;  // pairs of an atom

__device__ inline bool can_be_kept(const std::int32_t* shift) {
  constexpr int least = -512, most = 511;
  bool small = true;
  for (int a = 0; a < 3; ++a) small = small && shift[a] >= least && shift[a] <= most;
  return small;
}

/// Arrays of one search, in the scratch memory.
struct Scratch {
  Grid* grids;              // (n_structures,)
  unsigned long long* low;  // (n_structures, 3) ordered bits of the least fraction along open axes
  unsigned long long* high;
  Fractions* fractions;      // (n_atoms,) inside the cell
  std::int32_t* wrap;        // (n_atoms, 3)
  std::int32_t* bin;         // (n_atoms,)
  std::int32_t* counts;      // (n_bins,) atoms of a bin
  std::int32_t* cursors;     // (n_bins,) next to them
  Index* bin_ptr;            // (n_bins + 1,)
  std::int32_t* slots;       // (n_atoms,) atoms by bin, in any order within one
  BinnedAtom* atoms;         // (n_atoms,) by bin, sorted by atom within one
  NearAtom* near;            // (n_atoms,) the same in single precision
  std::int32_t* row_counts;  // (n_atoms,)
  Kept* kept;                // (n_atoms, most_kept) by place
  bool* all_kept;            // (n_atoms,) by place: whether these are all pairs of the atom
  void* scan;
  Index n_bins;

  Scratch(Index n_atoms, Index n_structures, Parts& parts)
      : n_bins(first_bin_of(n_atoms, n_structures) + 1) {
    grids = parts.take<Grid>(n_structures);
    low = parts.take<unsigned long long>(3 * n_structures);
    high = parts.take<unsigned long long>(3 * n_structures);
    fractions = parts.take<Fractions>(n_atoms);
    wrap = parts.take<std::int32_t>(3 * n_atoms);
    bin = parts.take<std::int32_t>(n_atoms);
    counts = parts.take<std::int32_t>(n_bins);
    cursors = parts.take<std::int32_t>(n_bins);
    bin_ptr = parts.take<Index>(n_bins + 1);
    slots = parts.take<std::int32_t>(n_atoms);
    atoms = parts.take<BinnedAtom>(n_atoms);
    near = parts.take<NearAtom>(n_atoms);
    row_counts = parts.take<std::int32_t>(n_atoms);
    kept = parts.take<Kept>(n_atoms * most_kept);
    all_kept = parts.take<bool>(n_atoms);
    const Index longest = n_atoms > n_bins ? n_atoms : n_bins;
    scan = parts.take<unsigned char>(scan_scratch_bytes(longest));
  }
};

/// Bits that are ordered like the numbers.
__host__ __device__ inline unsigned long long ordered_bits(double x) {
  unsigned long long bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits >> 63 ? ~bits : bits | (1ull << 63);
}
__host__ __device__ inline double from_ordered_bits(unsigned long long bits) {
  bits = bits >> 63 ? bits & ~(1ull << 63) : ~bits;
  double x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

template <class Scalar>
struct Input {
  Structures<Scalar> structures;
  Index n_atoms;
  double cutoff;
  double squared_cutoff;  // d2 < squared_cutoff exactly where sqrt(d2) < cutoff
};

__device__ inline void report(NeighborsFound* found, std::int64_t status) {
  if (status != 0) {
    atomicOr(reinterpret_cast<unsigned long long*>(&found->status),
             static_cast<unsigned long long>(status));
  }
}

template <class Scalar>
__device__ Index structure_of(const Input<Scalar>& in, Index atom) {
  const Index m = upper_bound(in.structures.atom_ptr, in.structures.n_structures + 1, atom) - 1;
  const Index last = in.structures.n_structures - 1;
  return m < 0 ? 0 : m > last ? last : m;
}

/// One thread per structure: its lattice.
template <class Scalar>
__global__ void prepare_lattices(Input<Scalar> in, Scratch s, NeighborsFound* found) {
  const Index n = in.structures.n_structures;
  for (Index m = thread_index(); m < n; m += n_threads()) {
    const double* cell = in.structures.cells ? in.structures.cells + 9 * m : nullptr;
    const bool* pbc = in.structures.pbc ? in.structures.pbc + 3 * m : nullptr;
    report(found, reduce_lattice(cell, pbc, s.grids[m]));
    const Index first = in.structures.atom_ptr[m], last = in.structures.atom_ptr[m + 1];
    if (first > last || (m == 0 && first != 0) || (m == n - 1 && last != in.n_atoms)) {
      report(found, neighbors_bad_atom_ptr);
    }
    for (int a = 0; a < 3; ++a) {
      s.low[3 * m + a] = ~0ull;
      s.high[3 * m + a] = 0;
    }
  }
}

/// Least and largest fraction along the open axes. The lanes of a warp agree first if they can.
__device__ void widen(const Scratch& s, Index m, const double* f, bool alive) {
  const Index first = __shfl_sync(all_lanes, m, 0);  // in every lane, before any condition
  const bool together = __all_sync(all_lanes, alive && m == first);
  for (int a = 0; a < 3; ++a) {
    unsigned long long low = ordered_bits(f[a]), high = low;
    if (together) {
      for (int distance = warp_size / 2; distance > 0; distance /= 2) {
        const unsigned long long other_low = __shfl_xor_sync(all_lanes, low, distance),
                                 other_high = __shfl_xor_sync(all_lanes, high, distance);
        low = other_low < low ? other_low : low;
        high = other_high > high ? other_high : high;
      }
    }
    if (!alive || s.grids[m].periodic[a] || (together && lane_index() != 0)) continue;
    atomicMin(&s.low[3 * m + a], low);
    atomicMax(&s.high[3 * m + a], high);
  }
}

/// One thread per atom: fractional coordinates, wrapped into the cell along periodic axes.
template <class Scalar>
__global__ void wrap_atoms(Input<Scalar> in, Scratch s, NeighborsFound* found) {
  constexpr double most_cells = 1e8, most_length = 1e12;
  const Index rounds = (in.n_atoms + n_threads() - 1) / n_threads();
  for (Index round = 0; round < rounds; ++round) {  // whole warps: see widen
    const Index i = round * n_threads() + thread_index();
    const bool alive = i < in.n_atoms;
    const Index m = alive ? structure_of(in, i) : 0;
    double f[3] = {0, 0, 0};
    if (alive) {
      const Grid& g = s.grids[m];
      const Scalar* r = in.structures.positions + 3 * i;
      for (int a = 0; a < 3; ++a) {
        f[a] = r[0] * g.inverse[a] + r[1] * g.inverse[3 + a] + r[2] * g.inverse[6 + a];
        const double most = g.periodic[a] ? most_cells : most_length;
        if (!(fabs(f[a]) < most)) {
          report(found, neighbors_bad_positions);
          f[a] = 0;
        }
        const double whole = g.periodic[a] ? floor(f[a]) : 0;
        s.wrap[3 * i + a] = static_cast<std::int32_t>(whole);
        f[a] -= whole;
        s.fractions[i].of[a] = f[a];
      }
    }
    widen(s, m, f, alive);
  }
}

/// A bad atom_ptr is reported; it must not lead outside the arrays either.
__device__ Index inside(Index atom, Index n_atoms) {
  return atom < 0 ? 0 : atom > n_atoms ? n_atoms : atom;
}

/// One thread per structure: its bins.
template <class Scalar>
__global__ void choose_grids(Input<Scalar> in, Scratch s) {
  for (Index m = thread_index(); m < in.structures.n_structures; m += n_threads()) {
    Grid& g = s.grids[m];
    const Index first = inside(in.structures.atom_ptr[m], in.n_atoms),
                last = inside(in.structures.atom_ptr[m + 1], in.n_atoms);
    g.first_bin = first_bin_of(first, m);
    for (int a = 0; a < 3; ++a) {
      const bool known = !g.periodic[a] && last > first;
      g.low[a] = known ? from_ordered_bits(s.low[3 * m + a]) : 0;
      g.span[a] = known ? from_ordered_bits(s.high[3 * m + a]) - g.low[a] : 1;
    }
    const Index capacity = first_bin_of(last, m + 1) - g.first_bin;
    choose_bins(in.cutoff, last - first, capacity > 1 ? capacity : 1, g);
    choose_near(in.cutoff, g);
  }
}

/// One thread per atom: which bin, and how many atoms each bin has.
template <class Scalar>
__global__ void count_bins(Input<Scalar> in, Scratch s) {
  for (Index i = thread_index(); i < in.n_atoms; i += n_threads()) {
    const Index bin = bin_of(s.grids[structure_of(in, i)], s.fractions[i].of);
    s.bin[i] = static_cast<std::int32_t>(bin < s.n_bins ? bin : s.n_bins - 1);
    atomicAdd(&s.counts[s.bin[i]], 1);
  }
}

/// One thread per atom: a place in its bin, whichever is free.
__global__ void fill_bins(Index n_atoms, Scratch s) {
  for (Index i = thread_index(); i < n_atoms; i += n_threads()) {
    const std::int32_t bin = s.bin[i];
    s.slots[s.bin_ptr[bin] + atomicAdd(&s.cursors[bin], 1)] = static_cast<std::int32_t>(i);
  }
}

/// One thread per place: moves its atom to where the atoms of the bin ascend.
template <class Scalar>
__global__ void sort_bins(Input<Scalar> in, Scratch s) {
  for (Index slot = thread_index(); slot < in.n_atoms; slot += n_threads()) {
    const std::int32_t atom = s.slots[slot];
    const Index begin = s.bin_ptr[s.bin[atom]], end = s.bin_ptr[s.bin[atom] + 1];
    Index place = begin;
    for (Index other = begin; other < end; ++other) place += s.slots[other] < atom;
    BinnedAtom binned;
    binned.atom = atom;
    for (int a = 0; a < 3; ++a) {
      binned.position[a] = in.structures.positions[3 * static_cast<Index>(atom) + a];
      binned.wrap[a] = s.wrap[3 * static_cast<Index>(atom) + a];
    }
    s.atoms[place] = binned;
    const Grid& g = s.grids[structure_of(in, atom)];
    for (int a = 0; a < 3; ++a)
      s.near[place].at[a] = is_near(binned) ? static_cast<float>(inside_cell(g, binned, a)) : NAN;
  }
}

constexpr int queue_length = 2 * warp_size;

/// Candidates of one atom, by one warp: single precision sorts out, and what it leaves is tested
/// exactly, 32 at a time, in the order of the candidates.
template <class Scalar, class Found>
class Search {
 public:
  __device__ Search(const Input<Scalar>& in, const Scratch& s, Index slot, Candidate* queue,
                    const Found& found)
      : in_(in),
        s_(s),
        slot_(static_cast<int>(slot)),
        queue_(queue),
        found_(found),
        g_(s.grids[structure_of(in, s.atoms[slot].atom)]) {}

  __device__ void run() {
    for_each_stretch(g_, s_.fractions[s_.atoms[slot_].atom].of,
                     [&](Index first_bin, Index last_bin, const std::int32_t* image) {
                       scan(static_cast<int>(s_.bin_ptr[first_bin]),
                            static_cast<int>(s_.bin_ptr[last_bin + 1]), image);
                     });
    if (n_queued_ > 0) test(n_queued_);
  }

 private:
  /// The atoms at places begin .. end - 1, in one image.
  __device__ void scan(int begin, int end, const std::int32_t* image) {
    const int lane = lane_index();
    const bool own_image = image[0] == 0 && image[1] == 0 && image[2] == 0;
    const BinnedAtom& i = s_.atoms[slot_];  // read again: registers are scarce
    float offset[3];
    for (int m = 0; m < 3; ++m) {
      double x = -inside_cell(g_, i, m);
      for (int a = 0; a < 3; ++a) x += image[a] * g_.vectors[3 * a + m];
      offset[m] = is_near(i) ? static_cast<float>(x) : NAN;
    }
    for (int base = begin; base < end; base += warp_size) {
      const int k = base + lane;
      bool is_candidate = k < end && !(k == slot_ && own_image);
      if (is_candidate) {
        const NearAtom j = s_.near[k];
        float square = 0;
        for (int m = 0; m < 3; ++m) square += (j.at[m] + offset[m]) * (j.at[m] + offset[m]);
        is_candidate = !(square > g_.near);
      }
      const unsigned hits = __ballot_sync(all_lanes, is_candidate);
      if (is_candidate) {
        queue_[n_queued_ + __popc(hits & ((1u << lane) - 1))] = {k, {image[0], image[1], image[2]}};
      }
      n_queued_ += __popc(hits);
      if (n_queued_ >= warp_size) test(warp_size);
    }
  }

  /// The first n of the queue; the others move up.
  __device__ void test(int n) {
    const int lane = lane_index();
    __syncwarp();  // the queue is written
    std::int32_t shift[3] = {0, 0, 0}, atom = 0;
    bool is_neighbor = lane < n;
    if (is_neighbor) {
      const Candidate candidate = queue_[lane];
      const BinnedAtom j = s_.atoms[candidate.slot];
      atom = j.atom;
      const BinnedAtom& i = s_.atoms[slot_];
      pair_shift(g_, i, j, candidate.image, shift);
      is_neighbor = squared_distance(g_, i, j, shift) < in_.squared_cutoff;
    }
    found_(is_neighbor, atom, shift);
    n_queued_ -= n;
    const Candidate next = queue_[lane < n_queued_ ? lane + n : lane];
    __syncwarp();  // the queue is read
    if (lane < n_queued_) queue_[lane] = next;
  }

  const Input<Scalar>& in_;
  const Scratch& s_;
  int slot_;
  Candidate* queue_;
  const Found& found_;
  const Grid& g_;
  int n_queued_ = 0;
};

/// Calls found(is neighbor, atom, shift) in every lane for stretches of up to 32 candidates of an
/// atom. Shared: queues, 8 KiB.
template <class Scalar, class Found>
__device__ void search(const Input<Scalar>& in, const Scratch& s, Index slot, const Found& found) {
  __shared__ Candidate queues[threads / warp_size][queue_length];
  Search<Scalar, Found>(in, s, slot, queues[threadIdx.x / warp_size], found).run();
}

/// Numbers the pairs that lanes have found, in the order of the lanes, from n_before on, which
/// counts them.
__device__ inline int next_place(bool is_neighbor, int& n_before) {
  const unsigned hits = __ballot_sync(all_lanes, is_neighbor);
  const int place = n_before + __popc(hits & ((1u << lane_index()) - 1));
  n_before += __popc(hits);
  return place;
}

/// A warp per atom, in the order of the bins: its number of neighbors, and these, if they are few.
template <class Scalar>
__global__ void __launch_bounds__(threads) count_rows(Input<Scalar> in, Scratch s) {
  for (Index slot = warp_index(); slot < in.n_atoms; slot += n_warps()) {
    if (lane_index() == 0) s.all_kept[slot] = true;
    __syncwarp();  // before a lane finds that they are not
    int count = 0;
    search(in, s, slot, [&](bool is_neighbor, std::int32_t j, const std::int32_t* shift) {
      const int k = next_place(is_neighbor, count);
      if (!is_neighbor) return;
      if (k < most_kept && can_be_kept(shift)) {
        s.kept[slot * most_kept + k] = {j, shift[0], shift[1], shift[2]};
      } else {
        s.all_kept[slot] = false;
      }
    });
    if (lane_index() == 0) s.row_counts[s.atoms[slot].atom] = count;
  }
}

/// Writes pair p of a list, if there is room.
__device__ inline void write_pair(const PairArrays& out, Index capacity, Index p, Index i, Index j,
                                  std::int32_t x, std::int32_t y, std::int32_t z) {
  if (p >= capacity) return;
  out.idx_i[p] = i;
  out.idx_j[p] = j;
  out.shifts[3 * p] = x;
  out.shifts[3 * p + 1] = y;
  out.shifts[3 * p + 2] = z;
}

/// A warp per atom: its row, from what was kept or by another search.
template <class Scalar>
__global__ void __launch_bounds__(threads, 3)
    fill_rows(Input<Scalar> in, Scratch s, const Index* row_ptr, Index capacity, PairArrays out) {
  for (Index slot = warp_index(); slot < in.n_atoms; slot += n_warps()) {
    const std::int32_t i = s.atoms[slot].atom;
    const Index begin = row_ptr[i];
    if (s.all_kept[slot]) {
      const Kept* const kept = s.kept + slot * most_kept;
      for (int k = lane_index(); k < s.row_counts[i]; k += warp_size)
        write_pair(out, capacity, begin + k, i, kept[k].atom, kept[k].x, kept[k].y, kept[k].z);
      continue;
    }
    int n_before = 0;
    search(in, s, slot, [&](bool is_neighbor, std::int32_t j, const std::int32_t* shift) {
      const int k = next_place(is_neighbor, n_before);
      if (is_neighbor) write_pair(out, capacity, begin + k, i, j, shift[0], shift[1], shift[2]);
    });
  }
}

/// One thread per place: what stands behind the last pair.
__global__ void pad_rows(Index n_atoms, const Index* row_ptr, Index capacity, PairArrays out) {
  for (Index p = row_ptr[n_atoms] + thread_index(); p < capacity; p += n_threads()) {
    out.idx_i[p] = n_atoms;
    out.idx_j[p] = 0;
    for (int a = 0; a < 3; ++a) out.shifts[3 * p + a] = 0;
  }
}

/// One thread per row: rows end where the arrays end.
__global__ void clamp_rows(Index n_atoms, Index capacity, Index* row_ptr) {
  for (Index i = thread_index(); i <= n_atoms; i += n_threads()) {
    if (row_ptr[i] > capacity) row_ptr[i] = capacity;
  }
}

__global__ void tell_number(Index n_atoms, const Index* row_ptr, NeighborsFound* found) {
  if (thread_index() == 0) found->n_pairs = row_ptr[n_atoms];
}

/// The cutoff squared such that d2 < it exactly where sqrt(d2) < cutoff.
double square_below(double cutoff) {
  double square = cutoff * cutoff;
  while (std::sqrt(square) >= cutoff) square = std::nextafter(square, 0.0);
  return std::nextafter(square, std::numeric_limits<double>::infinity());
}

template <class Scalar>
Input<Scalar> make_input(const Structures<Scalar>& structures, Index n_atoms, double cutoff) {
  if (!(cutoff > 0) || !std::isfinite(cutoff)) {
    throw std::invalid_argument("`cutoff` must be positive and finite, got " +
                                std::to_string(cutoff));
  }
  if (n_atoms > std::numeric_limits<std::int32_t>::max()) {
    throw std::invalid_argument("`positions` must hold fewer than 2^31 atoms, got " +
                                std::to_string(n_atoms));
  }
  return {structures, n_atoms, cutoff, square_below(cutoff)};
}

}  // namespace

const char* neighbor_error(std::int64_t status) {
  if (status & neighbors_bad_atom_ptr) {
    return "`atom_ptr` must begin at 0, ascend and end at the number of atoms";
  }
  if (status & neighbors_bad_cell) {
    return "`cell` must be finite and have linearly independent vectors along the periodic axes";
  }
  if (status & neighbors_bad_positions) {
    return "`positions` must be finite, less than 1e8 cells outside and 1e12 Angstrom apart";
  }
  return nullptr;
}

std::int64_t neighbor_scratch_bytes(std::int64_t n_atoms, std::int64_t n_structures) {
  Parts parts(nullptr);
  const Scratch counted(n_atoms, n_structures, parts);
  return parts.used();
}

template <class Scalar>
void count_neighbors(const Structures<Scalar>& input, std::int64_t n_atoms, double cutoff,
                     void* scratch, std::int64_t* row_ptr, NeighborsFound* found, Stream stream) {
  const Input<Scalar> in = make_input(input, n_atoms, cutoff);
  Parts parts(scratch);
  const Scratch s(n_atoms, input.n_structures, parts);
  fill_bytes(found, 0, sizeof(NeighborsFound), stream);
  if (n_atoms == 0) return fill_bytes(row_ptr, 0, sizeof(Index), stream);
  const LaunchShape by_atom = one_per_thread(n_atoms, threads, stream),
                    by_structure = one_per_thread(input.n_structures, threads, stream);
  launch(prepare_lattices<Scalar>, by_structure, in, s, found);
  launch(wrap_atoms<Scalar>, by_atom, in, s, found);
  launch(choose_grids<Scalar>, by_structure, in, s);
  clear(s.counts, s.cursors + s.n_bins, stream);
  launch(count_bins<Scalar>, by_atom, in, s);
  exclusive_scan(s.counts, s.n_bins, s.bin_ptr, s.scan, stream);
  launch(fill_bins, by_atom, n_atoms, s);
  launch(sort_bins<Scalar>, by_atom, in, s);
  launch(count_rows<Scalar>, one_per_warp(n_atoms, threads, stream), in, s);
  exclusive_scan(s.row_counts, n_atoms, row_ptr, s.scan, stream);
  launch(tell_number, one_per_thread(1, warp_size, stream), n_atoms, row_ptr, found);
}

template <class Scalar>
void write_neighbors(const Structures<Scalar>& input, std::int64_t n_atoms, double cutoff,
                     void* scratch, std::int64_t capacity, std::int64_t* row_ptr,
                     const PairArrays& output, Stream stream) {
  const Input<Scalar> in = make_input(input, n_atoms, cutoff);
  Parts parts(scratch);
  const Scratch s(n_atoms, input.n_structures, parts);
  if (n_atoms > 0) {
    launch(fill_rows<Scalar>, one_per_warp(n_atoms, threads, stream), in, s, row_ptr, capacity,
           output);
  }
  launch(clamp_rows, one_per_thread(n_atoms + 1, threads, stream), n_atoms, capacity, row_ptr);
  launch(pad_rows, one_per_thread(4096, threads, stream), n_atoms, row_ptr, capacity, output);
}

template void count_neighbors(const Structures<float>&, std::int64_t, double, void*, std::int64_t*,
                              NeighborsFound*, Stream);
template void count_neighbors(const Structures<double>&, std::int64_t, double, void*, std::int64_t*,
                              NeighborsFound*, Stream);
template void write_neighbors(const Structures<float>&, std::int64_t, double, void*, std::int64_t,
                              std::int64_t*, const PairArrays&, Stream);
template void write_neighbors(const Structures<double>&, std::int64_t, double, void*, std::int64_t,
                              std::int64_t*, const PairArrays&, Stream);

}  // namespace scschnet::cuda
