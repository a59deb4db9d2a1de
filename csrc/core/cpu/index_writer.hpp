// Expands rows of slots into the arrays of the caller.
#pragma once

#include <cstdint>

#include "../neighbor_list.hpp"
#include "kernels.hpp"

namespace scschnet::cpu {

/// Writes consecutive rows. The last few, and all of a result larger than the caches, go through a
/// small buffer: there a row may be written in whole vectors that reach beyond its end, and the
/// buffer is emptied by stores that do not read the caller's memory first (half the traffic).
class IndexWriter {
 public:
  /// The rows will fill the pairs [begin, end) of the arrays in `output`. Only idx_i, idx_j and
  /// shifts are written. `stream`: past the caches.
  IndexWriter(const PairArrays& output, std::int64_t begin, std::int64_t end, bool stream,
              const Kernels& kernels);

  void append(std::int64_t center, const CompactRow& row);
  /// Must follow the last row.
  void finish();

 private:
  static constexpr std::int64_t stage_pairs = 1024;
  static constexpr std::int64_t stage_room = stage_pairs + expand_overrun;

  void expand(std::int64_t center, const CompactRow& row, const RowTarget& to) const;
  void empty_stage();

  RowTarget output_;   ///< the caller's, at the next pair that is not in the stage
  std::int64_t left_;  ///< pairs that are still to be written there
  bool stream_;
  const Kernels& kernels_;
  std::int64_t n_staged_ = 0;
  alignas(64) std::int64_t staged_i_[stage_room];
  alignas(64) std::int64_t staged_j_[stage_room];
  alignas(64) std::int32_t staged_shifts_[3 * stage_room + 1];
};

}  // namespace scschnet::cpu
