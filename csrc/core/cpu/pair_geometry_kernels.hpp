// The loops over pairs that every step of dynamics takes, which are compiled once per instruction
// set.
#pragma once

#include "../pair_geometry.hpp"

namespace scschnet::cpu {

/// The functions of pair_geometry.hpp.
struct PairGeometryKernels {
  void (*pair_distances)(std::int64_t n_pairs, const double* r_ij, double* d_ij);
  void (*pair_forces)(const DirectedPairs& pairs, const double* g, double* forces, double* virial);
  void (*trial_forces)(const DirectedPairs& pairs, double reach, double* sums);
};

extern const PairGeometryKernels pair_geometry_kernels_generic, pair_geometry_kernels_avx2,
    pair_geometry_kernels_avx512;

}  // namespace scschnet::cpu
