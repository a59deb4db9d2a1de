// Points sorted into a grid of columns, and the walk over it in blocks of centers with their
// candidates.
#pragma once

#include <cstdint>

#include "buffer.hpp"
#include "images.hpp"
#include "kernels.hpp"

namespace scschnet::cpu {

/// Columns along z, about one cutoff wide, each cut into thin bins. The points of a column lie in
/// memory from low to high z, so that the candidates of one center are one run per column.
class CellGrid {
 public:
  /// Sorts the points. `reach` Å is the cutoff plus rounding. sorted[slot] receives their sources,
  /// atom_slot[i] the slot of the atom i of this structure; both hold `first_slot` + the place in
  /// the grid.
  void build(const Points& points, float reach, std::int32_t first_slot, ImageAtom* sorted,
             std::int32_t* atom_slot);

  int n_columns() const { return nx_ * ny_; }
  /// Number of atoms, not images, in a column.
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
  Scratch<std::int32_t> start_;  ///< (n_bins + 1,) places
  Scratch<float> x_, y_, z_;     ///< by place
  Scratch<std::uint8_t> is_atom_;
};

/// Some centers close together and everything that may be their neighbor.
struct Block {
  Candidates candidates;
  const std::int32_t* centers;  ///< indices into the candidates
  int n_centers;
};

/// Visits the atoms of a range of columns block by block, in an order that depends on the grid
/// alone. Keeps scratch memory; one walker per thread.
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
