// Pair vectors, forces and virials: one serial pass over the pairs each.
#include "../pair_geometry.hpp"

#include <cmath>

#include "isa.hpp"
#include "pair_geometry_kernels.hpp"

namespace scschnet::cpu {
namespace {

const PairGeometryKernels& best_pair_geometry_kernels() {
#if defined(SCSCHNET_X86)
  static const InstructionSet best = available_instruction_sets().back();
  if (best >= InstructionSet::avx512) return pair_geometry_kernels_avx512;
  if (best == InstructionSet::avx2) return pair_geometry_kernels_avx2;
#endif
  return pair_geometry_kernels_generic;
}

}  // namespace

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

void pair_distances(std::int64_t n_pairs, const double* r_ij, double* d_ij) {
  best_pair_geometry_kernels().pair_distances(n_pairs, r_ij, d_ij);
}

void pair_forces(const DirectedPairs& pairs, const double* g, double* forces, double* virial) {
  best_pair_geometry_kernels().pair_forces(pairs, g, forces, virial);
}

void trial_forces(const DirectedPairs& pairs, double reach, double* sums) {
  best_pair_geometry_kernels().trial_forces(pairs, reach, sums);
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
