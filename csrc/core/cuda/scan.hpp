// Contract of the running sum that turns counts into the starts of rows.
#pragma once

#include <cstdint>

#include "stream.hpp"

namespace scschnet::cuda {

/// Bytes of memory that a scan of n counts needs besides its result.
std::int64_t scan_scratch_bytes(std::int64_t n);

/// starts (n + 1,): starts[k] = sum of counts[0 .. k-1]. Integers: the same on every run.
void exclusive_scan(const std::int32_t* counts, std::int64_t n, std::int64_t* starts, void* scratch,
                    Stream stream);

}  // namespace scschnet::cuda
