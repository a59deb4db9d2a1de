// A few vector operations, under the same names for every instruction set.
//
// Only files that are compiled once per instruction set include this one, and all its names are
// local to the including file. That matters: an inline function that two object files share is kept
// once by the linker, and if it kept the copy that was compiled for a newer CPU, code that runs
// everywhere would call it and crash on older CPUs.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {
namespace simd {

#if defined(__AVX512F__)

constexpr int width = 16;
using Floats = __m512;

inline Floats load(const float* p) {
  return _mm512_loadu_ps(p);
}
inline Floats broadcast(float v) {
  return _mm512_set1_ps(v);
}
inline Floats subtract(Floats a, Floats b) {
  return _mm512_sub_ps(a, b);
}
inline Floats multiply(Floats a, Floats b) {
  return _mm512_mul_ps(a, b);
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return _mm512_fmadd_ps(a, b, c);
}
/// The smaller of |a| and |b|, in one instruction.
inline Floats smaller_magnitude(Floats a, Floats b) {
  return _mm512_range_ps(a, b, 0b1010);
}
inline bool any_less(Floats a, Floats b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ) != 0;
}

/// In each lane k: b if values[k] is `value`, else a.
inline Floats replace_where_equal(Floats a, const std::int32_t* values, std::int32_t value,
                                  Floats b) {
  const __m512i loaded = _mm512_loadu_si512(values);
  return _mm512_mask_mov_ps(a, _mm512_cmpeq_epi32_mask(loaded, _mm512_set1_epi32(value)), b);
}

/// Writes the values whose key is negative to `out`, in their order, and returns how many there
/// are. Behind them garbage may be written, up to out[width - 1]. (Compressing into a register and
/// storing all of it is faster than the compressing store.)
inline std::int64_t store_where_negative(Floats key, const std::int32_t* values,
                                         std::int32_t* out) {
  const __mmask16 mask = _mm512_movepi32_mask(_mm512_castps_si512(key));
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(mask, _mm512_loadu_si512(values)));
  return __builtin_popcount(mask);
}

#elif defined(__AVX2__)

constexpr int width = 8;
using Floats = __m256;

inline Floats load(const float* p) {
  return _mm256_loadu_ps(p);
}
inline Floats broadcast(float v) {
  return _mm256_set1_ps(v);
}
inline Floats subtract(Floats a, Floats b) {
  return _mm256_sub_ps(a, b);
}
inline Floats multiply(Floats a, Floats b) {
  return _mm256_mul_ps(a, b);
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline Floats smaller_magnitude(Floats a, Floats b) {
  return _mm256_min_ps(a, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), b));
}
inline bool any_less(Floats a, Floats b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ)) != 0;
}

inline Floats replace_where_equal(Floats a, const std::int32_t* values, std::int32_t value,
                                  Floats b) {
  const __m256i loaded = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
  const __m256i equal = _mm256_cmpeq_epi32(loaded, _mm256_set1_epi32(value));
  return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(equal));
}

/// For each mask of eight lanes: the lanes that are set, in ascending order, one byte each.
struct LaneTable {
  std::uint64_t lanes[256];
  constexpr LaneTable() : lanes() {
    for (int mask = 0; mask < 256; ++mask) {
      int n = 0;
      for (std::uint64_t lane = 0; lane < 8; ++lane) {
        if (mask >> lane & 1) lanes[mask] |= lane << (8 * n++);
      }
    }
  }
};
constexpr LaneTable lane_table;

inline std::int64_t store_where_negative(Floats key, const std::int32_t* values,
                                         std::int32_t* out) {
  const int mask = _mm256_movemask_ps(key);
  const __m256i order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(lane_table.lanes[mask]));
  const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permutevar8x32_epi32(value, order));
  return __builtin_popcount(mask);
}

#else

// Four lanes in plain C++, of which the compiler makes vectors.
constexpr int width = 4;
struct Floats {
  float lane[4];
};

template <class Function>
inline Floats map(Function f) {
  return {{f(0), f(1), f(2), f(3)}};
}
inline Floats load(const float* p) {
  return map([&](int k) { return p[k]; });
}
inline Floats broadcast(float v) {
  return map([&](int) { return v; });
}
inline Floats subtract(Floats a, Floats b) {
  return map([&](int k) { return a.lane[k] - b.lane[k]; });
}
inline Floats multiply(Floats a, Floats b) {
  return map([&](int k) { return a.lane[k] * b.lane[k]; });
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return map([&](int k) { return a.lane[k] * b.lane[k] + c.lane[k]; });
}
inline Floats smaller_magnitude(Floats a, Floats b) {
  return map([&](int k) {
    const float m = b.lane[k] < 0 ? -b.lane[k] : b.lane[k];
    return m < a.lane[k] ? m : a.lane[k];
  });
}
inline Floats replace_where_equal(Floats a, const std::int32_t* values, std::int32_t value,
                                  Floats b) {
  return map([&](int k) { return values[k] == value ? b.lane[k] : a.lane[k]; });
}
inline bool any_less(Floats a, Floats b) {
  bool any = false;
  for (int k = 0; k < width; ++k) any |= a.lane[k] < b.lane[k];
  return any;
}

inline std::int64_t store_where_negative(Floats key, const std::int32_t* values,
                                         std::int32_t* out) {
  std::int64_t n = 0;
  for (int k = 0; k < width; ++k) {
    out[n] = values[k];
    n += key.lane[k] < 0;
  }
  return n;
}

#endif

}  // namespace simd
}  // namespace
