// Points sorted into a grid of columns, and the walk over it in blocks of centers with their
// candidates.
//
//     from above (x, y)                     one column from the side (z upward)
//     +-----+-----+-----+-----+
//     |     |  o  |  o  |     |             +-----+
//     +-----+-----+-----+-----+             |     |
//     |  o  |  o  |  o  |  o  |             |- - -| <- high_z + reach   a run: points that are
//     +-----+-----+-----+-----+             | bin |                     consecutive in memory
//     |  o  |  o  | (X) |  o  |             |=====|
//     +-----+-----+-----+-----+             | (X) |    a block: the atoms of up to 3 bins, or
//     |     |  o  |  o  |  o  |             |=====|    of fewer if these have 8 already
//     +-----+-----+-----+-----+             | bin |
//        about one cutoff wide              |- - -| <- low_z - reach
//                                           +-----+ bins are a sixth of the cutoff high
//
// X is the column of the centers of a block, and o are columns within reach of them. Each gives one
// run of points. All runs are copied one after the other into contiguous arrays, the candidates,
// and then every center of the block is compared with all of them by one loop (Kernels::sweep).
// Copying pays because a loop over a single array has full vectors and no branches
// (kernels_isa.cpp).
#pragma once

#include <cstdint>

#include "buffer.hpp"
#include "images.hpp"
#include "kernels.hpp"

namespace scschnet::cpu {

/// Columns along z, about one cutoff wide, each cut into thin bins. The points of a column are in
/// memory from low to high z, so that one center finds its candidates in one run per column. The
/// grid owns the sorted coordinates; a point's index in them is its place.
class CellGrid {
 public:
  /// Sorts the points. `reach`, in Å, is the cutoff plus what rounding may add. Writes the sources
  /// of the points to sorted[place], and for each atom i of this structure its slot, which is its
  /// place plus first_slot, to atom_slot[i].
  void build(const Points& points, float reach, std::int32_t first_slot, ImageAtom* sorted,
             std::int32_t* atom_slot);

  int n_columns() const { return nx_ * ny_; }
  /// Number of atoms in a column, not counting images.
  std::int64_t atoms_in_column(int column) const;

 private:
  friend class BlockWalker;
  void choose_bins(const Points& points);
  void sort(const Points& points, ImageAtom* sorted, std::int32_t* atom_slot);

  float reach_ = 0;
  std::int32_t first_slot_ = 0;
  int nx_ = 1, ny_ = 1, nz_ = 1;
  float low_[3] = {}, width_[3] = {};
  Scratch<std::int32_t> bin_of_point_;
  Scratch<std::int32_t> start_;  ///< (n_bins + 1,) place of each bin's first point
  Scratch<float> x_, y_, z_;     ///< by place
  Scratch<std::uint8_t> is_atom_;
};

/// Some centers that are close together, and all points that may be their neighbors. It points into
/// the memory of the walker, until the next block.
struct Block {
  Candidates candidates;
  const std::int32_t* centers;  ///< indices into the candidates
  int n_centers;
};

/// Visits the atoms of a range of columns, block by block, in an order that depends on the grid
/// alone. A walker owns its scratch memory, so each thread has its own.
class BlockWalker {
 public:
  /// Calls visit(block) for each block of the columns [first, last).
  template <class Visit>
  void walk(const CellGrid& grid, const Kernels& kernels, int first, int last, const Visit& visit) {
    for (int column = first; column < last; ++column) {
      for (int bin = 0; bin < grid.nz_;) {
        bin = collect_centers(grid, column, bin);
        if (block_.n_centers == 0) continue;
        collect_candidates(grid, kernels);
        visit(block_);
      }
    }
  }

 private:
  int collect_centers(const CellGrid& grid, int column, int first_bin);
  void collect_candidates(const CellGrid& grid, const Kernels& kernels);
  void find_runs(const CellGrid& grid);
  void add_run(const CellGrid& grid, int column, float low_z, float high_z);

  Block block_{};
  Scratch<std::int32_t> places_, centers_;
  Scratch<Run> runs_;
  std::int64_t n_runs_ = 0, n_candidates_ = 0;
  Scratch<float> x_, y_, z_;
  Scratch<std::int32_t> candidate_slots_;
};

}  // namespace scschnet::cpu
