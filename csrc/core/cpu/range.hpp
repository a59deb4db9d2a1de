// The least and the largest of many values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace scschnet::cpu {

/// The least and the largest of n > 0 values, none of them NaN. It works in lanes, which the
/// compiler turns into vectors.
template <class T>
std::pair<T, T> range_of(const T* values, std::int64_t n) {
  constexpr int lanes = 8;
  T low[lanes], high[lanes];
  for (int lane = 0; lane < lanes; ++lane) low[lane] = high[lane] = values[lane < n ? lane : 0];
  for (std::int64_t k = lanes; k < n; k += lanes) {
    const T* next = values + std::min(k, n - lanes);  // the last ones may be looked at twice
    for (int lane = 0; lane < lanes; ++lane) {
      low[lane] = next[lane] < low[lane] ? next[lane] : low[lane];
      high[lane] = next[lane] > high[lane] ? next[lane] : high[lane];
    }
  }
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) {
      low[lane] = low[lane + half] < low[lane] ? low[lane + half] : low[lane];
      high[lane] = high[lane + half] > high[lane] ? high[lane + half] : high[lane];
    }
  }
  return {low[0], high[0]};
}

}  // namespace scschnet::cpu
