// A block of consecutive features in vector registers. Only files that are compiled once per
// instruction set include it, and all names are local to them (see simd.hpp). The vectors are those
// of the compiler, which turns a * b + c into one instruction.
#pragma once

#include <cstdint>
#include <utility>

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
  /// A vector at any address of its scalar type.
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

  /// (a0 + a1, a2 + a3, ..., b0 + b1, b2 + b3, ...)
  static inline __attribute__((always_inline)) Vector add_neighbors(Vector a, Vector b) {
    return add_neighbors(a, b, std::make_integer_sequence<int, lanes>{});
  }

 private:
  template <int... lane>
  static inline __attribute__((always_inline)) Vector
  add_neighbors(Vector a, Vector b, std::integer_sequence<int, lane...>) {
    return __builtin_shufflevector(a, b, (2 * lane)...) +
           __builtin_shufflevector(a, b, (2 * lane + 1)...);
  }
};

}  // namespace
