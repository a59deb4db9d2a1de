// Half lists, and two other orders of their pairs. Both are counting sorts, whose counters integer
// atomics fill in any order. By partner: every segment is sorted afterwards. By bin: a segment may
// be long, so that a counter is of a bin and a tile of pairs, and one warp deals out a tile in
// order.
#include "pairs.hpp"

#include "device.cuh"
#include "scan.hpp"

namespace scschnet::cuda {
namespace {

constexpr int threads = 256;

// ---- half list

/// Does the pair stand in the half list?
__device__ bool is_first(Index i, Index j, const std::int32_t* shift) {
  if (i != j) return i < j;
  for (int a = 0; a < 3; ++a) {
    if (shift[a] != 0) return shift[a] > 0;
  }
  return false;
}

/// First pair of the full list whose center is not below i.
__device__ Index row_begin(const FullList& full, Index i) {
  return upper_bound(full.idx_i, full.n_pairs, i - 1);
}

/// Calls found(is first, pair) in every lane for stretches of 32 pairs of atom i.
template <class Found>
__device__ void for_row(const FullList& full, Index i, const Found& found) {
  const Index end = row_begin(full, i + 1);
  for (Index base = row_begin(full, i); base < end; base += warp_size) {
    const Index p = base + lane_index();
    found(p < end && is_first(i, full.idx_j[p], full.shifts + 3 * p), p);
  }
}

/// A warp per atom.
__global__ void count_half_rows(FullList full, std::int32_t* counts) {
  for (Index i = warp_index(); i < full.n_atoms; i += n_warps()) {
    std::int32_t count = 0;
    for_row(full, i, [&](bool first, Index) { count += __popc(__ballot_sync(all_lanes, first)); });
    if (lane_index() == 0) counts[i] = count;
  }
}

/// A warp per atom.
__global__ void fill_half_rows(FullList full, const Index* row_ptr, Index* pairs, Index* idx_j) {
  for (Index i = warp_index(); i < full.n_atoms; i += n_warps()) {
    Index at = row_ptr[i];
    for_row(full, i, [&](bool first, Index p) {
      const unsigned hits = __ballot_sync(all_lanes, first);
      const Index to = at + __popc(hits & ((1u << lane_index()) - 1));
      at += __popc(hits);
      if (!first || to >= full.n_pairs / 2) return;
      pairs[to] = p;
      idx_j[to] = full.idx_j[p];
    });
  }
}

/// A thread per place behind the last pair, and per row that would end behind the arrays: where a
/// list does not hold every pair both ways.
__global__ void finish_half_rows(Index n_atoms, Index n_half, Index* row_ptr, Index* pairs,
                                 Index* idx_j) {
  for (Index p = row_ptr[n_atoms] + thread_index(); p < n_half; p += n_threads()) {
    pairs[p] = idx_j[p] = 0;
  }
  for (Index i = thread_index(); i <= n_atoms; i += n_threads()) {
    if (row_ptr[i] > n_half) row_ptr[i] = n_half;  // never changes what the loop above reads
  }
}

// ---- partners

/// An entry while its segment is not sorted yet.
struct Entry {
  std::int32_t pair, center;
};

struct PartnersScratch {
  Partners result;
  std::int32_t* counts;   // (n_atoms,)
  std::int32_t* cursors;  // (n_atoms,) next to them
  Entry* entries;         // (n_pairs,)
  void* scan;

  PartnersScratch(Index n_atoms, Index n_pairs, Parts& parts) {
    result.col_ptr = parts.take<Index>(n_atoms + 1);
    result.col_pair = parts.take<std::int32_t>(n_pairs);
    result.col_center = parts.take<std::int32_t>(n_pairs);
    result.centers = parts.take<std::int32_t>(n_pairs);
    counts = parts.take<std::int32_t>(n_atoms);
    cursors = parts.take<std::int32_t>(n_atoms);
    entries = parts.take<Entry>(n_pairs);
    scan = parts.take<unsigned char>(scan_scratch_bytes(n_atoms));
  }
};

/// A warp per center: centers of its pairs, and how often every atom is a partner.
__global__ void count_partners(Index n_atoms, const Index* row_ptr, const Index* idx_j,
                               std::int32_t* centers, std::int32_t* counts) {
  for (Index i = warp_index(); i < n_atoms; i += n_warps()) {
    for (Index p = row_ptr[i] + lane_index(); p < row_ptr[i + 1]; p += warp_size) {
      centers[p] = static_cast<std::int32_t>(i);
      atomicAdd(&counts[idx_j[p]], 1);
    }
  }
}

/// A warp per center: every pair to some free place of its partner's segment.
__global__ void scatter_partners(Index n_atoms, const Index* row_ptr, const Index* idx_j,
                                 const Index* col_ptr, std::int32_t* cursors, Entry* entries) {
  for (Index i = warp_index(); i < n_atoms; i += n_warps()) {
    for (Index p = row_ptr[i] + lane_index(); p < row_ptr[i + 1]; p += warp_size) {
      const Index j = idx_j[p];
      entries[col_ptr[j] + atomicAdd(&cursors[j], 1)] = {static_cast<std::int32_t>(p),
                                                         static_cast<std::int32_t>(i)};
    }
  }
}

/// A warp per partner: its entries to where they ascend by pair.
__global__ void sort_partners(Index n_atoms, const Entry* entries, Partners to) {
  for (Index j = warp_index(); j < n_atoms; j += n_warps()) {
    const Index begin = to.col_ptr[j], end = to.col_ptr[j + 1];
    for (Index k = begin + lane_index(); k < end; k += warp_size) {
      const Entry entry = entries[k];
      Index place = begin;
      for (Index other = begin; other < end; ++other) place += entries[other].pair < entry.pair;
      to.col_pair[place] = entry.pair;
      to.col_center[place] = entry.center;
    }
  }
}

// ---- by bin

/// A tile is a stretch of the list that one warp deals out; there are few, so that counters fit.
constexpr Index most_tiles = 1024;

__host__ __device__ constexpr Index pairs_per_tile(Index n_pairs) {
  const Index rounds = (n_pairs + most_tiles * warp_size - 1) / (most_tiles * warp_size);
  return (rounds < 1 ? 1 : rounds) * warp_size;
}

/// Counters stand bin after bin, and tile after tile within one: their running sum is where the
/// pairs of a bin and a tile begin among the sorted ones.
struct ByBinScratch {
  BinnedPair* pairs;     // (n_pairs,)
  Index* starts;         // (n_bins * n_tiles + 1,)
  std::int32_t* counts;  // (n_bins * n_tiles,) pairs that are not placed yet
  void* scan;
  Index n_tiles, n_counts;

  ByBinScratch(Index n_pairs, Index n_bins, Parts& parts) {
    const Index tile = pairs_per_tile(n_pairs);
    n_tiles = n_pairs > 0 ? (n_pairs + tile - 1) / tile : 1;
    n_counts = n_bins * n_tiles;
    pairs = parts.take<BinnedPair>(n_pairs);
    starts = parts.take<Index>(n_counts + 1);
    counts = parts.take<std::int32_t>(n_counts);
    scan = parts.take<unsigned char>(scan_scratch_bytes(n_counts));
  }
};

/// A thread per pair.
__global__ void __launch_bounds__(threads)
    count_by_bin(const Index* end, Index n_pairs, Index n_tiles, const std::int32_t* bins,
                 std::int32_t* counts) {
  const Index tile = pairs_per_tile(n_pairs);
  for (Index p = thread_index(); p < *end; p += n_threads())
    atomicAdd(&counts[bins[p] * n_tiles + p / tile], 1);
}

/// A warp per tile, 32 pairs at a time: those of one bin follow each other in the order of their
/// lanes, and the first of them takes the places from the bin's counter, which no other warp reads.
__global__ void __launch_bounds__(threads)
    deal_by_bin(const Index* end, Index n_pairs, Index n_tiles, const Index* idx_j,
                const std::int32_t* centers, const std::int32_t* bins, const Index* starts,
                std::int32_t* counts, BinnedPair* sorted) {
  const Index tile = pairs_per_tile(n_pairs);
  const int lane = lane_index();
  for (Index t = warp_index(); t < n_tiles; t += n_warps()) {
    for (Index base = t * tile; base < (t + 1) * tile && base < *end; base += warp_size) {
      const Index p = base + lane;
      const bool alive = p < *end;
      const std::int32_t bin = alive ? bins[p] : -1;
      const unsigned same = __match_any_sync(all_lanes, bin);
      const int rank = __popc(same & ((1u << lane) - 1));
      const Index counter = bin * n_tiles + t;
      const std::int32_t left = alive ? counts[counter] : 0;
      __syncwarp();  // all have read the counter
      if (alive && rank == 0) counts[counter] = left - __popc(same);
      __syncwarp();  // it is written
      if (!alive) continue;
      sorted[starts[counter + 1] - left + rank] = {static_cast<std::int32_t>(p), centers[p],
                                                   static_cast<std::int32_t>(idx_j[p]), bin};
    }
  }
}

struct HalfScratch {
  std::int32_t* counts;
  void* scan;
  HalfScratch(Index n_atoms, Parts& parts) {
    counts = parts.take<std::int32_t>(n_atoms);
    scan = parts.take<unsigned char>(scan_scratch_bytes(n_atoms));
  }
};

}  // namespace

std::int64_t half_list_scratch_bytes(std::int64_t n_atoms) {
  Parts parts(nullptr);
  const HalfScratch counted(n_atoms, parts);
  return parts.used();
}

void half_list(const FullList& full, void* scratch, std::int64_t* pairs, std::int64_t* row_ptr,
               std::int64_t* idx_j, Stream stream) {
  Parts parts(scratch);
  const HalfScratch s(full.n_atoms, parts);
  const LaunchShape by_atom = one_per_warp(full.n_atoms, threads, stream);
  launch(count_half_rows, by_atom, full, s.counts);
  exclusive_scan(s.counts, full.n_atoms, row_ptr, s.scan, stream);
  launch(fill_half_rows, by_atom, full, row_ptr, pairs, idx_j);
  launch(finish_half_rows, one_per_thread(full.n_atoms + 1, threads, stream), full.n_atoms,
         full.n_pairs / 2, row_ptr, pairs, idx_j);
}

std::int64_t partners_bytes(std::int64_t n_atoms, std::int64_t n_pairs) {
  Parts parts(nullptr);
  const PartnersScratch counted(n_atoms, n_pairs, parts);
  return parts.used();
}

Partners find_partners(std::int64_t n_atoms, std::int64_t n_pairs, const std::int64_t* row_ptr,
                       const std::int64_t* idx_j, void* memory, Stream stream) {
  Parts parts(memory);
  const PartnersScratch s(n_atoms, n_pairs, parts);
  const LaunchShape by_atom = one_per_warp(n_atoms, threads, stream);
  clear(s.counts, s.cursors + n_atoms, stream);
  launch(count_partners, by_atom, n_atoms, row_ptr, idx_j, s.result.centers, s.counts);
  exclusive_scan(s.counts, n_atoms, s.result.col_ptr, s.scan, stream);
  launch(scatter_partners, by_atom, n_atoms, row_ptr, idx_j, s.result.col_ptr, s.cursors,
         s.entries);
  launch(sort_partners, by_atom, n_atoms, s.entries, s.result);
  return s.result;
}

Partners partners_in(std::int64_t n_atoms, std::int64_t n_pairs, void* memory) {
  Parts parts(memory);
  return PartnersScratch(n_atoms, n_pairs, parts).result;
}

std::int64_t pairs_by_bin_bytes(std::int64_t n_pairs, std::int64_t n_bins) {
  Parts parts(nullptr);
  const ByBinScratch counted(n_pairs, n_bins, parts);
  return parts.used();
}

PairsByBin sort_by_bin(std::int64_t n_atoms, std::int64_t n_pairs, std::int64_t n_bins,
                       const std::int64_t* row_ptr, const std::int64_t* idx_j,
                       const std::int32_t* centers, const std::int32_t* bins, void* memory,
                       Stream stream) {
  Parts parts(memory);
  const ByBinScratch s(n_pairs, n_bins, parts);
  const Index* const end = row_ptr + n_atoms;
  clear(s.counts, s.counts + s.n_counts, stream);
  launch(count_by_bin, one_per_thread(n_pairs, threads, stream), end, n_pairs, s.n_tiles, bins,
         s.counts);
  exclusive_scan(s.counts, s.n_counts, s.starts, s.scan, stream);
  launch(deal_by_bin, one_per_warp(s.n_tiles, threads, stream), end, n_pairs, s.n_tiles, idx_j,
         centers, bins, s.starts, s.counts, s.pairs);
  return {s.starts, s.n_tiles, s.pairs};
}

}  // namespace scschnet::cuda
