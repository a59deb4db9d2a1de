// The pairs of a rank for the model, each once, from a full neighbor list. Knows neither LAMMPS nor
// torch.
#pragma once

#include <cstdint>
#include <vector>

#include "rows.hpp"

namespace scschnet::lammps {

/// A full neighbor list: of each center all neighbors, among local atoms and ghosts.
struct FullList {
  int n_centers;
  const int* centers;      ///< (n_centers,) atoms, in the order of their rows
  const int* n_neighbors;  ///< by atom
  int* const* neighbors;   ///< by atom; atoms, with flags in the bits outside `neighbor_mask`
  int neighbor_mask;
};

/// Pairs that are, or may come, within the cutoff until the neighbor list is built anew.
class Pairs {
 public:
  /// Keeps every pair once: that with the lower row as center, the only one where the other row has
  /// no neighbors of its own. Of the two between an atom and opposite images of itself one is kept.
  void choose(const FullList& list, const Rows& rows, const double* const* x, double cutoff);

  /// Finds those closer than `cutoff` at positions `x`, both in the host's unit of length.
  /// The rows are those that `choose` was given.
  void find(const Rows& rows, const double* const* x, double cutoff, double angstrom);

  std::int64_t n_pairs() const { return n_pairs_; }
  std::int64_t* idx_i() { return idx_i_.data(); }  ///< (n_pairs,) rows, ascending
  std::int64_t* idx_j() { return idx_j_.data(); }  ///< (n_pairs,) rows
  double* r_ij() { return r_ij_.data(); }          ///< (n_pairs, 3) Å, from i to (the image of) j
  double memory() const;                           ///< bytes

 private:
  struct Partner {
    int atom;  ///< images told apart
    int row;   ///< of the model, kept because looking it up on every step would cost as much as the
               ///< rest
  };

  std::vector<int> first_;  ///< CSR over centers
  std::vector<Partner> partners_;
  std::int64_t n_pairs_ = 0;
  std::vector<std::int64_t> idx_i_, idx_j_;
  std::vector<double> r_ij_;
};

}  // namespace scschnet::lammps
