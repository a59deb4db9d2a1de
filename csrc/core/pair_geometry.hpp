// Contract of what surrounds a network whose energy depends on distances alone: pair vectors and
// distances from positions; forces and virials from derivatives in the distances, and back.
#pragma once

#include <cstdint>

namespace scschnet {

/// A half list, and the full list it was chosen from.
struct ChosenPairs {
  std::int64_t n_pairs;
  const std::int64_t* pairs;   ///< (n_pairs,) where in the full list
  const std::int64_t* idx_i;   ///< of the full list
  const std::int64_t* idx_j;   ///< of the full list
  const std::int32_t* shifts;  ///< (n_full, 3)
};

/// Pairs with their geometry, by centers.
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

/// forces (n_atoms, 3): F_i = sum_j g u - sum_j g_ji u_ji, and virial (n_structures, 3, 3):
/// -sum_pairs g r (x) u, with u = r / d and g the derivative of the energy in d. Adds to both.
void pair_forces(const DirectedPairs& pairs, const double* g, double* forces, double* virial);

/// Cotangent of g (n_pairs,) from those of forces and virial.
void pair_forces_backward(const DirectedPairs& pairs, const double* forces_bar,
                          const double* virial_bar, double* g_bar);

}  // namespace cpu
}  // namespace scschnet
