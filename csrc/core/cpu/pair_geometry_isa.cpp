// Distances, forces, virials and trial forces of pairs. The file is compiled once per instruction
// set, which SCSCHNET_KERNELS names, and exports one symbol and no other (see simd.hpp).
#include <cmath>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "pair_geometry_kernels.hpp"

namespace scschnet::cpu {
namespace {

void distances(std::int64_t n_pairs, const double* r_ij, double* d_ij) {
  for (std::int64_t p = 0; p < n_pairs; ++p) {
    const double x = r_ij[3 * p], y = r_ij[3 * p + 1], z = r_ij[3 * p + 2];
    d_ij[p] = std::sqrt(x * x + y * y + z * z);
  }
}

#if defined(__AVX2__)

/// A vector in space, in the first three lanes; the last one is zero and stands for no memory.
struct Vector {
  __m256d lanes;

  static __m256i three() { return _mm256_setr_epi64x(-1, -1, -1, 0); }
  static Vector zero() { return {_mm256_setzero_pd()}; }
  static Vector load(const double* from) { return {_mm256_maskload_pd(from, three())}; }
  /// In two parts: a load of the next vector would wait for one store that reaches into it.
  void store(double* to) const {
    _mm_storeu_pd(to, _mm256_castpd256_pd128(lanes));
    _mm_store_sd(to + 2, _mm256_extractf128_pd(lanes, 1));
  }
  Vector times(double factor) const { return {_mm256_mul_pd(lanes, _mm256_set1_pd(factor))}; }
  Vector plus(Vector other) const { return {_mm256_add_pd(lanes, other.lanes)}; }
  Vector minus(Vector other) const { return {_mm256_sub_pd(lanes, other.lanes)}; }
};

#else

struct Vector {
  double lanes[3];

  static Vector zero() { return {}; }
  static Vector load(const double* from) { return {{from[0], from[1], from[2]}}; }
  void store(double* to) const {
    for (int a = 0; a < 3; ++a) to[a] = lanes[a];
  }
  Vector times(double factor) const {
    return {{factor * lanes[0], factor * lanes[1], factor * lanes[2]}};
  }
  Vector plus(Vector other) const {
    return {{lanes[0] + other.lanes[0], lanes[1] + other.lanes[1], lanes[2] + other.lanes[2]}};
  }
  Vector minus(Vector other) const { return plus(other.times(-1)); }
};

#endif

void forces_and_virial(const DirectedPairs& pairs, const double* g, double* forces,
                       double* virial) {
  for (std::int64_t i = 0; i < pairs.n_atoms; ++i) {
    Vector force = Vector::zero(), outer[3] = {force, force, force};
    for (std::int64_t p = pairs.row_ptr[i]; p < pairs.row_ptr[i + 1]; ++p) {
      const double* r = pairs.r_ij + 3 * p;
      double* other = forces + 3 * pairs.idx_j[p];
      const Vector f = Vector::load(r).times(g[p] / pairs.d_ij[p]);
      force = force.plus(f);
      Vector::load(other).minus(f).store(other);
      for (int a = 0; a < 3; ++a) outer[a] = outer[a].plus(f.times(r[a]));
    }
    Vector::load(forces + 3 * i).plus(force).store(forces + 3 * i);
    if (!virial) continue;
    double* of_structure = virial + 9 * pairs.idx_m[i];
    for (int a = 0; a < 3; ++a) {
      Vector::load(of_structure + 3 * a).minus(outer[a]).store(of_structure + 3 * a);
    }
  }
}

/// One lane per power.
using Powers [[gnu::vector_size(n_trial_powers * sizeof(double))]] = double;

inline void add(double* to, Powers v) {
  Powers sum;
  std::memcpy(&sum, to, sizeof sum);
  sum += v;
  std::memcpy(to, &sum, sizeof sum);
}

void sums_of_trial_forces(const DirectedPairs& pairs, double reach, double* sums) {
  constexpr int width = 3 * n_trial_powers;
  for (std::int64_t k = 0; k < width * pairs.n_atoms; ++k) sums[k] = 0;
  const double inverse_reach = 1 / reach;
  for (std::int64_t i = 0; i < pairs.n_atoms; ++i) {
    Powers own[3] = {};
    for (std::int64_t p = pairs.row_ptr[i]; p < pairs.row_ptr[i + 1]; ++p) {
      const double* r = pairs.r_ij + 3 * p;
      const double d = pairs.d_ij[p], left = 1 - d * inverse_reach, w = left > 0 ? left : 0;
      const double w2 = w * w, w4 = w2 * w2;
      const Powers weights = Powers{w, w2, w4, w4 * w4} * (1 / d);
      double* other = sums + width * pairs.idx_j[p];
      for (int a = 0; a < 3; ++a) {
        const Powers force = weights * r[a];
        own[a] += force;
        add(other + n_trial_powers * a, -force);
      }
    }
    for (int a = 0; a < 3; ++a) add(sums + width * i + n_trial_powers * a, own[a]);
  }
}

}  // namespace

#define SCSCHNET_JOIN_(a, b) a##b
#define SCSCHNET_JOIN(a, b) SCSCHNET_JOIN_(a, b)
extern const PairGeometryKernels SCSCHNET_JOIN(pair_geometry_, SCSCHNET_KERNELS){
    distances, forces_and_virial, sums_of_trial_forces};

}  // namespace scschnet::cpu
