// The loops of the neighbor list, which are compiled once per instruction set: they decide which
// candidates are neighbors, and write the pairs.
#pragma once

#include <cstdint>

namespace scschnet::cpu {

/// Points that may be neighbors of some centers. Whole vectors are read, so up to `sweep_padding`
/// entries behind the last one; entries up to the next multiple of it must lie far away.
struct Candidates {
  float* x;  ///< a center is moved far away, and put back, while its own row is made
  const float* y;
  const float* z;
  const std::int32_t* slot;  ///< what is written for a neighbor
  std::int64_t count;
};

/// Which squared distances count. Below `limit - tolerance` a candidate is a neighbor, and above
/// `limit + tolerance` it is none. In between, float32 coordinates cannot tell, and double
/// precision has to decide.
struct Limits {
  float limit;
  float tolerance;
};

/// Where rows are appended. `slots` must have room for all candidates of all centers and
/// `sweep_padding` more.
struct RowOutput {
  std::int32_t* slots;
  std::int32_t* counts;  ///< one per center
};

/// Consecutive points of the grid, of one column.
struct Run {
  std::int32_t begin, count;
};

/// Where candidates are copied to; `copy_overrun` more entries may be written.
struct CandidateArrays {
  float *x, *y, *z;
  std::int32_t* slot;
};

/// Where a row is written to; null where it is not wanted, as in PairArrays.
struct RowTarget {
  std::int64_t* idx_i;
  std::int64_t* idx_j;
  std::int32_t* shifts;
};

constexpr int sweep_padding = 16;
constexpr int expand_overrun = 16;
constexpr int copy_overrun = 48;
constexpr float far_away = 1e18f;

struct Kernels {
  /// Makes the rows of centers[0], centers[1], ..., which are indices into the candidates, until
  /// all are done or one has a candidate within the tolerance. Returns how many are done and moves
  /// `output` behind them. Neighbors keep the order of the candidates.
  int (*sweep)(const Candidates& candidates, const std::int32_t* centers, int n_centers,
               const Limits& limits, RowOutput& output);

  /// Copies runs one after the other, with slot = first_slot + index, and puts points far away
  /// behind the last one. Up to `copy_overrun` entries behind a run may be read.
  void (*copy_runs)(const float* x, const float* y, const float* z, std::int32_t first_slot,
                    const Run* runs, int n_runs, const CandidateArrays& to);

  /// Writes the pairs of one center. `images` and `center` are ImageAtoms, which are four integers
  /// each. Up to `expand_overrun` entries behind the row are read from `slots`, where they must be
  /// valid slots, and as many are written to `to`.
  void (*expand_row)(const std::int32_t* slots, std::int64_t count, const std::int32_t* images,
                     const std::int32_t* center, std::int64_t center_index, const RowTarget& to);
};

extern const Kernels kernels_generic;
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;

}  // namespace scschnet::cpu
