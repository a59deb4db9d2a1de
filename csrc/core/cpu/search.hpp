// The search for the pairs of one structure: all points against all, or through a grid.
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

/// Rows in the order in which they were found, which is the order of the centers in space.
struct Rows {
  Scratch<std::int32_t> slots;    ///< the neighbors of one center after those of the other
  Scratch<std::int32_t> counts;   ///< per center
  Scratch<std::int32_t> centers;  ///< atom in the whole batch
  std::int64_t n_slots = 0, n_rows = 0;

  void clear() { n_slots = n_rows = 0; }
};

/// The points that slots refer to.
struct SlotTable {
  Scratch<ImageAtom> images;
  std::int64_t count = 0;
};

/// A cutoff and the number for which squared < `square` exactly when sqrt(squared) < cutoff.
struct Cutoff {
  double length, square;
  /// Throws std::invalid_argument naming `cutoff` unless it is positive and finite.
  explicit Cutoff(double cutoff);
};

/// One structure as the search sees it.
template <class Scalar>
struct StructureInput {
  const Scalar* positions;  ///< of the whole batch
  std::int64_t begin, end;  ///< its atoms
  const double* cell;
  const bool* pbc;
};

/// Fewer points than this are compared all with all, which is faster; slots then follow the points'
/// order.
constexpr std::int64_t grid_from = 321;

/// Finds rows, one structure at a time. Keeps scratch memory; one per thread, or one per structure
/// with several threads.
class Search {
 public:
  /// Appends the rows of a structure to rows[0] .. rows[n_threads - 1] and its points to `table`,
  /// and writes the slots of its atoms to atom_slot[begin] .. atom_slot[end].
  template <class Scalar>
  void run(const StructureInput<Scalar>& input, const Cutoff& cutoff, const Kernels& kernels,
           int n_threads, Rows* const* rows, SlotTable& table, std::int32_t* atom_slot);

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
