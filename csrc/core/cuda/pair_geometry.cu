// Pair vectors by pairs; forces by atoms, which gather from both sides of their pairs; virials by
// atoms, added in the order of the atoms.
#include "pair_geometry.hpp"

#include "device.cuh"

namespace scschnet::cuda {
namespace {

constexpr int threads = 256;
constexpr Index virial_chunk = 2048;  // atoms whose virials one block adds

__host__ __device__ constexpr Index n_virial_chunks(Index n_atoms) {
  return (n_atoms + virial_chunk - 1) / virial_chunk;
}

/// A thread per pair.
__global__ void __launch_bounds__(threads)
    vectors(ChosenPairs chosen, Index n_atoms, const double* positions, const double* cells,
            const Index* idx_m, double* r_ij, double* d_ij) {
  for (Index p = thread_index(); p < chosen.n_pairs; p += n_threads()) {
    const Index full = chosen.pairs[p], i = chosen.idx_i[full], j = chosen.idx_j[full];
    if (i >= n_atoms) {
      r_ij[3 * p] = r_ij[3 * p + 1] = r_ij[3 * p + 2] = d_ij[p] = 0;
      continue;
    }
    const std::int32_t* shift = chosen.shifts + 3 * full;
    const double* cell = cells + 9 * idx_m[i];
    double square = 0;
    for (int a = 0; a < 3; ++a) {
      double r = positions[3 * j + a] - positions[3 * i + a];
      for (int axis = 0; axis < 3; ++axis) r += shift[axis] * cell[3 * axis + a];
      r_ij[3 * p + a] = r;
      square += r * r;
    }
    d_ij[p] = sqrt(square);
  }
}

/// A warp per atom. of_atoms (n_atoms, 9): virial of the pairs that stand with the atom.
template <bool with_virial>
__global__ void __launch_bounds__(threads)
    forces_of_atoms(DirectedPairs pairs, Partners partners, const double* g, double* forces,
                    double* of_atoms) {
  for (Index i = warp_index(); i < pairs.n_atoms; i += n_warps()) {
    double force[3] = {0, 0, 0}, outer[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (Index p = pairs.row_ptr[i] + lane_index(); p < pairs.row_ptr[i + 1]; p += warp_size) {
      const double factor = g[p] / pairs.d_ij[p];
      for (int a = 0; a < 3; ++a) {
        const double f = factor * pairs.r_ij[3 * p + a];
        force[a] += f;
        for (int b = 0; with_virial && b < 3; ++b) outer[3 * a + b] += f * pairs.r_ij[3 * p + b];
      }
    }
    for (Index k = partners.col_ptr[i] + lane_index(); k < partners.col_ptr[i + 1];
         k += warp_size) {
      const Index p = partners.col_pair[k];
      const double factor = g[p] / pairs.d_ij[p];
      for (int a = 0; a < 3; ++a) force[a] -= factor * pairs.r_ij[3 * p + a];
    }
    for (int a = 0; a < 3; ++a) {
      const double total = warp_sum(force[a]);
      if (lane_index() == 0) forces[3 * i + a] = total;
    }
    for (int k = 0; with_virial && k < 9; ++k) {
      const double total = warp_sum(outer[k]);
      if (lane_index() == 0) of_atoms[9 * i + k] = total;
    }
  }
}

/// A block per chunk of atoms and structure, a warp per component: parts (n_structures, n_chunks,
/// 9).
__global__ void __launch_bounds__(9 * warp_size)
    virials_of_chunks(Index n_atoms, const Index* idx_m, const double* of_atoms, double* parts) {
  const int component = static_cast<int>(threadIdx.x) / warp_size;
  const Index begin = blockIdx.x * virial_chunk, m = blockIdx.y;
  const Index end = begin + virial_chunk < n_atoms ? begin + virial_chunk : n_atoms;
  double sum = 0;
  for (Index i = begin + lane_index(); i < end; i += warp_size) {
    if (idx_m[i] == m) sum += of_atoms[9 * i + component];
  }
  sum = warp_sum(sum);
  if (lane_index() == 0) parts[(m * gridDim.x + blockIdx.x) * 9 + component] = sum;
}

/// A thread per component of a structure.
__global__ void add_chunks(Index n_structures, Index n_chunks, const double* parts,
                           double* virial) {
  for (Index k = thread_index(); k < 9 * n_structures; k += n_threads()) {
    double sum = 0;
    for (Index c = 0; c < n_chunks; ++c) sum += parts[(k / 9 * n_chunks + c) * 9 + k % 9];
    virial[k] = -sum;
  }
}

/// A warp per atom.
__global__ void __launch_bounds__(threads) cotangents(DirectedPairs pairs, const double* forces_bar,
                                                      const double* virial_bar, double* g_bar) {
  for (Index i = warp_index(); i < pairs.n_atoms; i += n_warps()) {
    const double* stress = virial_bar ? virial_bar + 9 * pairs.idx_m[i] : nullptr;
    for (Index p = pairs.row_ptr[i] + lane_index(); p < pairs.row_ptr[i + 1]; p += warp_size) {
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

struct Scratch {
  double *of_atoms, *parts;
  Scratch(Index n_atoms, Index n_structures, Parts& memory) {
    of_atoms = memory.take<double>(9 * n_atoms);
    parts = memory.take<double>(9 * n_structures * n_virial_chunks(n_atoms));
  }
};

}  // namespace

void pair_vectors(const ChosenPairs& chosen, std::int64_t n_atoms, const double* positions,
                  const double* cells, const std::int64_t* idx_m, double* r_ij, double* d_ij,
                  Stream stream) {
  launch(vectors, one_per_thread(chosen.n_pairs, threads, stream), chosen, n_atoms, positions,
         cells, idx_m, r_ij, d_ij);
}

std::int64_t pair_forces_scratch_bytes(std::int64_t n_atoms, std::int64_t n_structures) {
  Parts memory(nullptr);
  const Scratch counted(n_atoms, n_structures, memory);
  return memory.used();
}

void pair_forces(const DirectedPairs& pairs, const Partners& partners, const double* g,
                 std::int64_t n_structures, double* forces, double* virial, void* scratch,
                 Stream stream) {
  constexpr Index most_blocks = 65535;
  if (n_structures > most_blocks) {
    throw std::invalid_argument("`n_structures` must be at most 65535 on a GPU, got " +
                                std::to_string(n_structures));
  }
  Parts memory(scratch);
  const Scratch s(pairs.n_atoms, n_structures, memory);
  const LaunchShape by_atom = one_per_warp(pairs.n_atoms, threads, stream);
  if (virial == nullptr) {
    launch(forces_of_atoms<false>, by_atom, pairs, partners, g, forces, s.of_atoms);
    return;
  }
  const Index n_chunks = n_virial_chunks(pairs.n_atoms);
  launch(forces_of_atoms<true>, by_atom, pairs, partners, g, forces, s.of_atoms);
  const dim3 blocks(static_cast<unsigned>(n_chunks), static_cast<unsigned>(n_structures));
  launch(virials_of_chunks, LaunchShape{blocks, 9 * warp_size, 0, stream}, pairs.n_atoms,
         pairs.idx_m, s.of_atoms, s.parts);
  launch(add_chunks, one_per_thread(9 * n_structures, threads, stream), n_structures, n_chunks,
         s.parts, virial);
}

void pair_forces_backward(const DirectedPairs& pairs, const double* forces_bar,
                          const double* virial_bar, double* g_bar, Stream stream) {
  launch(cotangents, one_per_warp(pairs.n_atoms, threads, stream), pairs, forces_bar, virial_bar,
         g_bar);
}

}  // namespace scschnet::cuda
