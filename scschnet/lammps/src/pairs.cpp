// Chooses pairs when the neighbor list is new, and finds those within the cutoff on every step.
#include "pairs.hpp"

#include <cmath>

namespace scschnet::lammps {
namespace {

/// Whether the first component that is not zero is positive: so of one of the two opposite vectors
/// between an atom and its images. They are lattice vectors, long against `tolerance`.
bool points_up(const double* from, const double* to, double tolerance) {
  for (int k = 0; k < 3; ++k) {
    const double r = to[k] - from[k];
    if (std::abs(r) > tolerance) return r > 0;
  }
  return false;
}

}  // namespace

void Pairs::choose(const FullList& list, const Rows& rows, const double* const* x, double cutoff) {
  const double tolerance = 1e-6 * cutoff;
  first_.assign(1, 0);
  partners_.clear();
  for (int i = 0; i < list.n_centers; ++i) {
    const int center = list.centers[i];
    const int* neighbors = list.neighbors[center];
    for (int k = 0; k < list.n_neighbors[center]; ++k) {
      const int partner = neighbors[k] & list.neighbor_mask;
      const int j = rows.row(partner);
      if (j > i || (j == i && points_up(x[center], x[partner], tolerance))) {
        partners_.push_back({partner, j});
      }
    }
    first_.push_back(static_cast<int>(partners_.size()));
  }
  const std::size_t capacity = partners_.size() + 1;  // find() writes one beyond what it keeps
  if (idx_i_.size() < capacity) {
    idx_i_.resize(capacity);
    idx_j_.resize(capacity);
    r_ij_.resize(3 * capacity);
  }
}

void Pairs::find(const Rows& rows, const double* const* x, double cutoff, double angstrom) {
  const double squared = cutoff * cutoff, to_angstrom = 1.0 / angstrom;
  const int n_centers = static_cast<int>(first_.size()) - 1;
  std::int64_t n = 0;
  for (int i = 0; i < n_centers; ++i) {
    const double* center = x[rows.atom(i)];
    for (int k = first_[i]; k < first_[i + 1]; ++k) {
      const double* partner = x[partners_[k].atom];
      const double dx = partner[0] - center[0], dy = partner[1] - center[1],
                   dz = partner[2] - center[2];
      idx_i_[n] = i;
      idx_j_[n] = partners_[k].row;
      r_ij_[3 * n] = to_angstrom * dx;
      r_ij_[3 * n + 1] = to_angstrom * dy;
      r_ij_[3 * n + 2] = to_angstrom * dz;
      n += dx * dx + dy * dy + dz * dz < squared;
    }
  }
  n_pairs_ = n;
}

double Pairs::memory() const {
  return static_cast<double>(sizeof(int) * first_.capacity() +
                             sizeof(Partner) * partners_.capacity() +
                             sizeof(std::int64_t) * (idx_i_.capacity() + idx_j_.capacity()) +
                             sizeof(double) * r_ij_.capacity());
}

}  // namespace scschnet::lammps
