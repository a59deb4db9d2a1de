// Expands rows of slots into the caller's arrays of indices and shifts.
#pragma once

#include <cstdint>

#include "../neighbor_list.hpp"
#include "kernels.hpp"

namespace scschnet::cpu {

/// Writes consecutive rows. Rows are written in whole vectors, which reach beyond their end and are
/// overwritten by the next row:
///
///     caller's array   | row i      | row i+1  | row i+2       |  end
///     vectors          |-------|-------|
///                                   |-------|-------|
///                                              |-------|-------|-- must not be written
///
/// So the last few rows go through a small buffer of the writer, the stage. All rows of a result
/// that is larger than the caches do so too: the stage is emptied by stores that do not first read
/// the caller's memory, which halves the traffic. Each thread has its own writer.
class IndexWriter {
 public:
  /// The rows will fill the pairs [begin, end) of the arrays in `output`, of which only idx_i,
  /// idx_j and shifts are written. `stream`: whether to bypass the caches.
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

  RowTarget output_;   ///< the caller's arrays, at the first pair that is not written or staged
  std::int64_t left_;  ///< pairs that are still to be written there
  bool stream_;
  const Kernels& kernels_;
  std::int64_t n_staged_ = 0;
  alignas(64) std::int64_t staged_i_[stage_room];
  alignas(64) std::int64_t staged_j_[stage_room];
  alignas(64) std::int32_t staged_shifts_[3 * stage_room + 1];
};

}  // namespace scschnet::cpu
