// Contract of what surrounds a network whose energy depends on distances alone: pair vectors and
// distances from positions, forces and virials from derivatives in the distances, and the reverse
// of that last step; and trial forces, which error bars read.
#pragma once

#include <cstdint>

namespace scschnet {

/// A half list, as a choice from a full list.
struct ChosenPairs {
  std::int64_t n_pairs;
  const std::int64_t* pairs;   ///< (n_pairs,) indices into the full list
  const std::int64_t* idx_i;   ///< of the full list
  const std::int64_t* idx_j;   ///< of the full list
  const std::int32_t* shifts;  ///< (n_full, 3)
};

/// Pairs with their geometry, in rows of one center each.
struct DirectedPairs {
  std::int64_t n_atoms;
  const std::int64_t* row_ptr;  ///< (n_atoms + 1,)
  const std::int64_t* idx_j;    ///< (n_pairs,)
  const double* r_ij;           ///< (n_pairs, 3)
  const double* d_ij;           ///< (n_pairs,)
  const std::int64_t* idx_m;    ///< (n_atoms,) structure of each atom
};

namespace cpu {

/// r_ij = r_j - r_i + S cell of the structure of i, (n_pairs, 3), and its length d_ij.
void pair_vectors(const ChosenPairs& chosen, const double* positions, const double* cells,
                  const std::int64_t* idx_m, double* r_ij, double* d_ij);

/// d_ij = |r_ij|, for r_ij (n_pairs, 3).
void pair_distances(std::int64_t n_pairs, const double* r_ij, double* d_ij);

/// Adds the forces F_i = sum_j g_ij u_ij - sum_j g_ji u_ji to `forces` (n_atoms, 3), and
/// -sum_pairs g r (x) u to `virial` (n_structures, 3, 3), with u = r / d and g the derivative of
/// the energy in the distance d. `virial` null: forces alone, and idx_m is not read.
void pair_forces(const DirectedPairs& pairs, const double* g, double* forces, double* virial);

/// How many trial forces an atom has.
constexpr int n_trial_powers = 4;

/// Writes the sums over the pairs of every atom of (1 - d / reach)^p r / d, or zero beyond `reach`,
/// (n_atoms, 3, n_trial_powers), for p = 1, 2, 4, 8. A pair counts for both of its atoms, with
/// opposite signs. idx_m is not read.
void trial_forces(const DirectedPairs& pairs, double reach, double* sums);

/// Writes the cotangent of g (n_pairs,) from those of the forces and the virial; `virial_bar` null:
/// of the forces alone.
void pair_forces_backward(const DirectedPairs& pairs, const double* forces_bar,
                          const double* virial_bar, double* g_bar);

}  // namespace cpu
}  // namespace scschnet
