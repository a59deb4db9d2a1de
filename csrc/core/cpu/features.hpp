// A block of consecutive features in vector registers. Included only by files that are compiled
// once per instruction set; all names are local to them (see simd.hpp). The compiler's own vectors:
// a * b + c becomes one instruction.
#pragma once

#include <cstdint>

namespace {

#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX2__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

template <class Scalar, int bytes>
struct VectorType {
  typedef Scalar type __attribute__((vector_size(bytes)));
  /// Vectors alias their elements.
  typedef Scalar unaligned __attribute__((vector_size(bytes), aligned(alignof(Scalar))));
};

/// How `n` features lie in registers. A single feature is a vector of one lane.
template <class Scalar, int n>
struct Features {
  static constexpr int bytes =
      n * sizeof(Scalar) < register_bytes ? n * sizeof(Scalar) : register_bytes;
  static constexpr int lanes = bytes / sizeof(Scalar);
  static constexpr int registers = n / lanes;
  using Vector = typename VectorType<Scalar, bytes>::type;

  static inline __attribute__((always_inline)) Vector load(const Scalar* p) {
    return *reinterpret_cast<const typename VectorType<Scalar, bytes>::unaligned*>(p);
  }
  static inline __attribute__((always_inline)) void store(Scalar* p, Vector v) {
    *reinterpret_cast<typename VectorType<Scalar, bytes>::unaligned*>(p) = v;
  }
  static inline __attribute__((always_inline)) Vector broadcast(Scalar s) {
    return s - Vector{};
  }  // minus zero: folded away
};

/// Sum of the lanes: halves are added until one is left.
template <class Scalar, int lanes>
inline __attribute__((always_inline)) Scalar
sum_of_lanes(typename VectorType<Scalar, lanes * sizeof(Scalar)>::type v) {
  if constexpr (lanes == 1) {
    return v[0];
  } else {
    using Half = typename VectorType<Scalar, lanes / 2 * sizeof(Scalar)>::type;
    Half low, high;
    __builtin_memcpy(&low, &v, sizeof low);
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return sum_of_lanes<Scalar, lanes / 2>(low + high);
  }
}

}  // namespace
