// Contract of lists of pairs on a GPU: half lists, and what a convolution reads beside one.
#pragma once

#include <cstdint>

#include "stream.hpp"

namespace scschnet::cuda {

/// A full list, sorted by center, on the device. Places behind the last pair may hold the center
/// n_atoms (see neighbor_list.hpp); they are not pairs.
struct FullList {
  std::int64_t n_atoms;
  std::int64_t n_pairs;
  const std::int64_t* idx_i;   ///< (n_pairs,)
  const std::int64_t* idx_j;   ///< (n_pairs,)
  const std::int32_t* shifts;  ///< (n_pairs, 3)
};

std::int64_t half_list_scratch_bytes(std::int64_t n_atoms);

/// The pairs of the half list, one of (i, j, S) and (j, i, -S): i < j, or i = j with the first
/// nonzero of S positive. Written: pairs (n_pairs / 2,), where they stand in the full list; row_ptr
/// (n_atoms + 1,); idx_j (n_pairs / 2,). Places behind the last pair hold 0 in both. The list is
/// trusted, but no place outside the arrays is written whatever it holds.
void half_list(const FullList& full, void* scratch, std::int64_t* pairs, std::int64_t* row_ptr,
               std::int64_t* idx_j, Stream stream);

/// The other side of a half list: the pairs in which an atom is the partner, ascending.
struct Partners {
  std::int64_t* col_ptr;     ///< (n_atoms + 1,) entries col_ptr[j] .. col_ptr[j+1] belong to atom j
  std::int32_t* col_pair;    ///< (n_pairs,) pair of the entry
  std::int32_t* col_center;  ///< (n_pairs,) its center
  std::int32_t* centers;     ///< (n_pairs,) center of every pair
};

/// Bytes for partners and scratch memory together.
std::int64_t partners_bytes(std::int64_t n_atoms, std::int64_t n_pairs);

/// Finds the partners of a half list of at most n_pairs < 2^31 pairs, in memory of partners_bytes,
/// which the result points into. The same on every run.
Partners find_partners(std::int64_t n_atoms, std::int64_t n_pairs, const std::int64_t* row_ptr,
                       const std::int64_t* idx_j, void* memory, Stream stream);

/// Where the partners lie in memory in which find_partners has written them.
Partners partners_in(std::int64_t n_atoms, std::int64_t n_pairs, void* memory);

/// A pair of a half list: its number, its atoms, and the first row of a table that it reads.
struct alignas(16) BinnedPair {
  std::int32_t pair, center, other, bin;
};

/// The pairs of a half list by bin, and by number within one.
struct PairsByBin {
  const std::int64_t*
      starts;  ///< pairs of bin b begin at starts[b * stride]; one bin more: the end
  std::int64_t stride;
  const BinnedPair* pairs;
};

/// Bytes for sorted pairs and scratch memory together.
std::int64_t pairs_by_bin_bytes(std::int64_t n_pairs, std::int64_t n_bins);

/// Sorts the pairs of a half list, in memory of pairs_by_bin_bytes, which the result points into.
/// bins (n_pairs,), from 0 to n_bins - 1; centers: of Partners. The same on every run.
PairsByBin sort_by_bin(std::int64_t n_atoms, std::int64_t n_pairs, std::int64_t n_bins,
                       const std::int64_t* row_ptr, const std::int64_t* idx_j,
                       const std::int32_t* centers, const std::int32_t* bins, void* memory,
                       Stream stream);

}  // namespace scschnet::cuda
