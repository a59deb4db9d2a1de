// Which row of the model every atom of a rank is. Knows neither LAMMPS nor torch.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace scschnet::lammps {

/// The rank an atom belongs to and its index there, in one number that a double holds exactly.
constexpr std::int64_t owner(int rank, int index) {
  return (std::int64_t{rank} << 32) | index;
}

constexpr int owning_rank(std::int64_t owner) {
  return static_cast<int>(owner >> 32);
}

constexpr int owned_index(std::int64_t owner) {
  return static_cast<int>(owner & 0xffffffff);
}

/// Atoms of one rank as LAMMPS keeps them: local ones first, then ghosts.
struct Atoms {
  int n_local, n_all;
  const std::int64_t* atomic_numbers;  ///< (n_all,), 0: not in the model
};

/// Rows of the model: local atoms in the order of the neighbor list, then ghosts.
class Rows {
 public:
  /// One row per atom, however many images it has: images of local atoms are these atoms, images of
  /// one atom of another rank share a row. `owners` (n_all,), see owner(); `n_centers` local atoms,
  /// all of them in the model. Ghosts come in the order of their owners.
  void merge_images(const Atoms& atoms, int n_centers, const int* centers, const double* owners,
                    int rank);

  /// One row per image: local atoms and ghosts as they are.
  void keep_images(const Atoms& atoms, int n_centers, const int* centers);

  /// A last row without pairs, of any element: it makes every rank take part in the halo.
  void add_empty_row(std::int64_t atomic_number);

  int n_local() const { return n_local_; }
  int n_rows() const { return static_cast<int>(atom_of_.size()); }

  /// Row of a local atom or ghost, -1 if it is not in the model.
  int row(int atom) const { return row_of_[atom]; }

  /// The atom that stands for a row: for ghosts the image with the lowest index; -1 for an empty
  /// row.
  int atom(int row) const { return atom_of_[row]; }

  /// Owner of a ghost's row, if images are merged.
  std::int64_t owner_of(int row) const { return owners_[row - n_local_]; }

  std::int64_t* atomic_numbers() { return atomic_numbers_.data(); }  ///< (n_rows,)
  double memory() const;                                             ///< bytes

 private:
  void start(const Atoms& atoms, int n_centers, const int* centers);
  void add(int atom, std::int64_t atomic_number);

  int n_local_ = 0;
  std::vector<int> row_of_, atom_of_;
  std::vector<std::int64_t> atomic_numbers_, owners_;
  std::vector<std::pair<std::int64_t, int>> remote_;  ///< owner and index of ghosts, while merging
};

}  // namespace scschnet::lammps
