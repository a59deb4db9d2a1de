// What every kernel file needs: launches that are checked, limits of the device, division of work.
// With SCSCHNET_EMULATE_CUDA the same sources compile for a CPU
// (csrc/tests/cuda_emulator.hpp).
#pragma once

#if defined(SCSCHNET_EMULATE_CUDA)
#include "../../tests/cuda_emulator.hpp"
#else
#include <cuda_runtime.h>

#define SCSCHNET_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "stream.hpp"

namespace scschnet::cuda {

using Index = std::int64_t;

constexpr int warp_size = 32;
constexpr unsigned all_lanes = 0xffffffffu;

struct LaunchShape {
  dim3 blocks;
  int threads;
  std::size_t shared_bytes;
  Stream stream;
};

/// Blocks of `threads` threads so that each of n items has one, on a grid that may be smaller: use
/// with a grid-stride loop.
inline LaunchShape one_per_thread(Index n, int threads, Stream stream) {
  constexpr Index most = 1 << 20;
  const Index blocks = (n + threads - 1) / threads;
  return {dim3(static_cast<unsigned>(blocks < most ? blocks : most)), threads, 0, stream};
}

/// The same with a warp for every item.
inline LaunchShape one_per_warp(Index n, int threads, Stream stream) {
  return one_per_thread(n * warp_size, threads, stream);
}

#if !defined(SCSCHNET_EMULATE_CUDA)

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
  }
}

/// Launches a kernel; nothing where the grid is empty.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, Arguments... arguments) {
  // Beyond 48 KB, those declared in the kernel included, a kernel has to ask.
  constexpr std::size_t free_bytes = 32 * 1024;
  if (shape.blocks.x == 0 || shape.blocks.y == 0) return;
  if (shape.shared_bytes > free_bytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          "cudaFuncSetAttribute");
  }
  kernel<<<shape.blocks, shape.threads, shape.shared_bytes, shape.stream>>>(
      static_cast<Parameters>(arguments)...);
  check(cudaGetLastError(), "kernel launch");
}

inline void fill_bytes(void* to, int value, std::size_t n_bytes, Stream stream) {
  if (n_bytes > 0) check(cudaMemsetAsync(to, value, n_bytes, stream), "cudaMemsetAsync");
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

#endif

/// Of the current device.
struct DeviceLimits {
  int n_processors;
  Index shared_per_block;      ///< bytes that one block may ask for
  Index shared_per_processor;  ///< bytes
};

#if !defined(SCSCHNET_EMULATE_CUDA)
inline DeviceLimits device_limits() {
  return {device_attribute(cudaDevAttrMultiProcessorCount),
          device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
          device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor)};
}
#else
inline DeviceLimits device_limits() {
  return {3, emulator::shared_bytes_per_block(), emulator::shared_bytes_per_block() + 1024};
}
#endif

/// Part `part` of `n` items divided as evenly as can be, in order.
struct WorkRange {
  Index begin, end;
};

__host__ __device__ constexpr WorkRange work_range(Index n, Index part, Index n_parts) {
  return {n * part / n_parts, n * (part + 1) / n_parts};
}

/// First k in [0, n) with values[k] > x, else n; values ascend.
template <class Value>
__host__ __device__ Index upper_bound(const Value* values, Index n, Value x) {
  Index low = 0, high = n;
  while (low < high) {
    const Index middle = low + (high - low) / 2;
    if (values[middle] > x) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

/// Hands out parts of one piece of memory, 256 bytes aligned; without memory it only counts.
class Parts {
 public:
  explicit Parts(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}

  template <class T>
  T* take(Index n) {
    T* part = memory_ ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
    used_ += (n * static_cast<Index>(sizeof(T)) + 255) / 256 * 256;
    return part;
  }

  Index used() const { return used_; }

 private:
  unsigned char* memory_;
  Index used_ = 0;
};

/// Sets all between two places of one piece of memory to zero.
template <class T>
void clear(T* begin, T* end, Stream stream) {
  fill_bytes(begin, 0, static_cast<std::size_t>(end - begin) * sizeof(T), stream);
}

__device__ inline Index thread_index() {
  return static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline Index n_threads() {
  return static_cast<Index>(gridDim.x) * blockDim.x;
}
__device__ inline int lane_index() {
  return static_cast<int>(threadIdx.x) % warp_size;
}
/// Of the whole grid.
__device__ inline Index warp_index() {
  return thread_index() / warp_size;
}
__device__ inline Index n_warps() {
  return n_threads() / warp_size;
}

/// The sum over the lanes of a warp, the same in every lane, always added in the same order.
template <class Scalar>
__device__ Scalar warp_sum(Scalar value) {
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(all_lanes, value, distance);
  }
  return value;
}

}  // namespace scschnet::cuda
