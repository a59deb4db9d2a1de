// Rows of the model, from the owners of ghosts.
#include "rows.hpp"

#include <algorithm>

namespace scschnet::lammps {

void Rows::start(const Atoms& atoms, int n_centers, const int* centers) {
  row_of_.assign(atoms.n_all, -1);
  atom_of_.clear();
  atomic_numbers_.clear();
  owners_.clear();
  for (int k = 0; k < n_centers; ++k) add(centers[k], atoms.atomic_numbers[centers[k]]);
  n_local_ = n_centers;
}

void Rows::add(int atom, std::int64_t atomic_number) {
  if (atom >= 0) row_of_[atom] = n_rows();
  atom_of_.push_back(atom);
  atomic_numbers_.push_back(atomic_number);
}

void Rows::merge_images(const Atoms& atoms, int n_centers, const int* centers, const double* owners,
                        int rank) {
  start(atoms, n_centers, centers);
  remote_.clear();
  for (int ghost = atoms.n_local; ghost < atoms.n_all; ++ghost) {
    if (atoms.atomic_numbers[ghost] == 0) continue;
    const auto whose = static_cast<std::int64_t>(owners[ghost]);
    if (owning_rank(whose) == rank) {
      row_of_[ghost] = row_of_[owned_index(whose)];
    } else {
      remote_.emplace_back(whose, ghost);
    }
  }
  std::sort(remote_.begin(), remote_.end());
  std::int64_t last = -1;
  for (const auto& [whose, ghost] : remote_) {
    if (whose == last) {
      row_of_[ghost] = n_rows() - 1;
    } else {
      add(ghost, atoms.atomic_numbers[ghost]);
      owners_.push_back(whose);
    }
    last = whose;
  }
}

void Rows::keep_images(const Atoms& atoms, int n_centers, const int* centers) {
  start(atoms, n_centers, centers);
  for (int ghost = atoms.n_local; ghost < atoms.n_all; ++ghost) {
    const std::int64_t z = atoms.atomic_numbers[ghost];
    if (z != 0) add(ghost, z);
  }
}

void Rows::add_empty_row(std::int64_t atomic_number) {
  add(-1, atomic_number);
}

double Rows::memory() const {
  return static_cast<double>(sizeof(int) * (row_of_.capacity() + atom_of_.capacity()) +
                             sizeof(std::int64_t) *
                                 (atomic_numbers_.capacity() + owners_.capacity()) +
                             sizeof(remote_[0]) * remote_.capacity());
}

}  // namespace scschnet::lammps
