// Pair vectors, forces and virials: one serial pass over the pairs each, which memory bounds.
#include "../pair_geometry.hpp"

#include <cmath>

namespace scschnet::cpu {

void pair_vectors(const ChosenPairs& chosen, const double* positions, const double* cells,
                  const std::int64_t* idx_m, double* r_ij, double* d_ij) {
  for (std::int64_t p = 0; p < chosen.n_pairs; ++p) {
    const std::int64_t full = chosen.pairs[p], i = chosen.idx_i[full], j = chosen.idx_j[full];
    const std::int32_t* shift = chosen.shifts + 3 * full;
    const double* cell = cells + 9 * idx_m[i];
    double square = 0;
    for (int a = 0; a < 3; ++a) {
      double r = positions[3 * j + a] - positions[3 * i + a];
      for (int axis = 0; axis < 3; ++axis) r += shift[axis] * cell[3 * axis + a];
      r_ij[3 * p + a] = r;
      square += r * r;
    }
    d_ij[p] = std::sqrt(square);
  }
}

void pair_forces(const DirectedPairs& pairs, const double* g, double* forces, double* virial) {
  for (std::int64_t i = 0; i < pairs.n_atoms; ++i) {
    double force[3] = {}, outer[9] = {};
    for (std::int64_t p = pairs.row_ptr[i]; p < pairs.row_ptr[i + 1]; ++p) {
      const double* r = pairs.r_ij + 3 * p;
      double* other = forces + 3 * pairs.idx_j[p];
      const double factor = g[p] / pairs.d_ij[p];
      for (int a = 0; a < 3; ++a) {
        const double f = factor * r[a];
        force[a] += f;
        other[a] -= f;
        for (int b = 0; b < 3; ++b) outer[3 * a + b] += f * r[b];
      }
    }
    for (int a = 0; a < 3; ++a) forces[3 * i + a] += force[a];
    for (int k = 0; virial && k < 9; ++k) virial[9 * pairs.idx_m[i] + k] -= outer[k];
  }
}

void pair_forces_backward(const DirectedPairs& pairs, const double* forces_bar,
                          const double* virial_bar, double* g_bar) {
  for (std::int64_t i = 0; i < pairs.n_atoms; ++i) {
    const double* stress = virial_bar ? virial_bar + 9 * pairs.idx_m[i] : nullptr;
    for (std::int64_t p = pairs.row_ptr[i]; p < pairs.row_ptr[i + 1]; ++p) {
      const double* r = pairs.r_ij + 3 * p;
      const double* other = forces_bar + 3 * pairs.idx_j[p];
      double sum = 0;
      for (int a = 0; a < 3; ++a) {
        double cotangent = forces_bar[3 * i + a] - other[a];
        for (int b = 0; stress && b < 3; ++b) cotangent -= stress[3 * a + b] * r[b];
        sum += cotangent * r[a];
      }
      g_bar[p] = sum / pairs.d_ij[p];
    }
  }
}

}  // namespace scschnet::cpu
