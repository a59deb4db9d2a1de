// The search for the pairs of one structure: by comparing all points with all, or through a grid.
#pragma once

#include <cstdint>
#include <vector>

#include "../neighbor_list.hpp"
#include "buffer.hpp"
#include "cell_grid.hpp"
#include "images.hpp"
#include "kernels.hpp"
#include "pair.hpp"

namespace scschnet::cpu {

/// Rows in the order in which they were found. With a grid that is the order of the centers in
/// space.
struct Rows {
  Scratch<std::int32_t> slots;    ///< the neighbors of all centers, one row after another
  Scratch<std::int32_t> counts;   ///< neighbors of each center
  Scratch<std::int32_t> centers;  ///< each row's center, an atom of the whole batch
  std::int64_t n_slots = 0, n_rows = 0;

  void clear() { n_slots = n_rows = 0; }
};

/// The atoms and images that slots refer to.
struct SlotTable {
  Scratch<ImageAtom> images;
  std::int64_t count = 0;
};

/// A cutoff, and the number `square` for which d2 < square exactly when sqrt(d2) < cutoff. The
/// rounded square of the cutoff is not that number.
struct Cutoff {
  double length, square;
  /// Throws std::invalid_argument naming `cutoff` unless it is positive and finite.
  explicit Cutoff(double cutoff);
};

/// One structure of a batch.
template <class Scalar>
struct StructureInput {
  const Scalar* positions;  ///< of the whole batch
  std::int64_t begin, end;  ///< its atoms
  const double* cell;
  const bool* pbc;
};

/// With fewer points than this, comparing all with all is faster than a grid. Slots are then in the
/// order of the points.
constexpr std::int64_t grid_from = 321;

/// Finds the rows of one structure at a time, with one or several threads, and keeps its scratch
/// memory for the next one. Structures that are searched at the same time need a Search each.
class Search {
 public:
  /// Appends the rows of a structure to rows[0] .. rows[n_threads - 1], one per thread, and its
  /// points to `table`. Writes the slots of its atoms to atom_slot[begin] .. atom_slot[end - 1].
  /// With `half` rows keep only the pairs of the half list.
  template <class Scalar>
  void run(const StructureInput<Scalar>& input, const Cutoff& cutoff, const Kernels& kernels,
           bool half, int n_threads, Rows* const* rows, SlotTable& table, std::int32_t* atom_slot);

 private:
  struct Context;
  template <class Scalar>
  void compare_all(const StructureInput<Scalar>& input, const Context& context, Rows& rows,
                   std::int32_t first_slot, std::int32_t* atom_slot);
  template <class Scalar>
  void use_grid(const StructureInput<Scalar>& input, const Context& context, int n_threads,
                Rows* const* rows);

  ImageFinder finder_;
  Points points_;
  CellGrid grid_;
  std::vector<BlockWalker> walkers_;
  Scratch<std::int32_t> slots_, indices_;
};

}  // namespace scschnet::cpu
