// Contract of pair vectors, forces and virials on a GPU: those of ../pair_geometry.hpp, on device
// arrays, with the same bits on every run.
#pragma once

#include "../pair_geometry.hpp"
#include "pairs.hpp"
#include "stream.hpp"

namespace scschnet::cuda {

/// A pair whose center is not an atom (see FullList) gets zeros.
void pair_vectors(const ChosenPairs& chosen, std::int64_t n_atoms, const double* positions,
                  const double* cells, const std::int64_t* idx_m, double* r_ij, double* d_ij,
                  Stream stream);

/// Bytes for pair_forces.
std::int64_t pair_forces_scratch_bytes(std::int64_t n_atoms, std::int64_t n_structures);

/// Writes forces and virial; `virial` null: forces alone, in one launch, and idx_m is not read.
void pair_forces(const DirectedPairs& pairs, const Partners& partners, const double* g,
                 std::int64_t n_structures, double* forces, double* virial, void* scratch,
                 Stream stream);

/// Writes g_bar of all pairs; `virial_bar` may be null; of places behind the last one it leaves
/// what is there.
void pair_forces_backward(const DirectedPairs& pairs, const double* forces_bar,
                          const double* virial_bar, double* g_bar, Stream stream);

}  // namespace scschnet::cuda
