// Memory for tests of the CUDA core, on a device and in the emulator: arrays that host and kernels
// both see, and scratch memory of kernels alone.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "../core/cuda/device.cuh"

namespace scschnet::test {

#if defined(SCSCHNET_EMULATE_CUDA)

/// Waits for the device.
inline void finish() {}

/// Ends the program where there is no device.
inline void need_device() {}

template <class T>
using Shared = std::allocator<T>;

#else

inline void finish() {
  cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

inline void need_device() {
  int n = 0;
  const cudaError_t error = cudaGetDeviceCount(&n);
  if (error == cudaSuccess && n > 0) return;
  std::printf("cuda core: not run, there is no CUDA device: %s\n",
              error == cudaSuccess ? "none is visible" : cudaGetErrorString(error));
  std::exit(77);
}

/// Of pinned host memory, which kernels reach at the same address. Sanitizers know its bounds.
template <class T>
struct Shared {
  using value_type = T;
  Shared() = default;
  template <class U>
  Shared(const Shared<U>&) {}  // NOLINT: as allocators convert

  T* allocate(std::size_t n) {
    void* memory = nullptr;
    cuda::check(cudaHostAlloc(&memory, n * sizeof(T), cudaHostAllocDefault), "cudaHostAlloc");
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t) { cudaFreeHost(memory); }

  friend bool operator==(const Shared&, const Shared&) { return true; }
};

#endif

template <class T>
using Array = std::vector<T, Shared<T>>;

/// Rows that begin `offset` numbers behind an address of whole packs.
template <class T>
class Rows {
 public:
  Rows() = default;
  explicit Rows(const std::vector<T>& values, std::int64_t offset = 0)
      : size_(values.size()), offset_(offset), memory_(size_ + offset) {
    std::copy(values.begin(), values.end(), data());
  }

  T* data() { return memory_.data() + offset_; }
  const T* data() const { return memory_.data() + offset_; }
  std::size_t size() const { return size_; }
  const T& operator[](std::size_t k) const { return data()[k]; }
  friend bool operator==(const Rows& a, const Rows& b) {
    return std::equal(a.data(), a.data() + a.size_, b.data(), b.data() + b.size_);
  }

 private:
  std::size_t size_ = 0;
  std::int64_t offset_ = 0;
  Array<T> memory_;
};

/// What kernels write before they read it: on a device plain memory, which sanitizers watch; in the
/// emulator NaN, between guards that its end looks at.
template <class T>
class Scratch {
 public:
#if defined(SCSCHNET_EMULATE_CUDA)
  explicit Scratch(std::int64_t n) : bytes_(n * sizeof(T)), memory_(bytes_ + 2 * guard, 0xff) {
    std::memset(memory_.data(), mark, guard);
    std::memset(memory_.data() + guard + bytes_, mark, guard);
  }
  ~Scratch() {
    for (std::size_t k = 0; k < guard; ++k) {
      if (memory_[k] == mark && memory_[guard + bytes_ + k] == mark) continue;
      std::fprintf(stderr, "a kernel wrote outside its scratch memory of %zu bytes\n", bytes_);
      std::exit(1);
    }
  }
  T* data() { return reinterpret_cast<T*>(memory_.data() + guard); }

 private:
  static constexpr std::size_t guard = 1 << 16;
  static constexpr unsigned char mark = 0x5a;
  std::size_t bytes_;
  std::vector<unsigned char> memory_;
#else
  explicit Scratch(std::int64_t n) {
    if (n > 0) cuda::check(cudaMalloc(&memory_, n * sizeof(T)), "cudaMalloc");
  }
  ~Scratch() { cudaFree(memory_); }
  T* data() { return static_cast<T*>(memory_); }

 private:
  void* memory_ = nullptr;
#endif

 public:
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

/// A copy of n numbers that kernels have written.
template <class T>
std::vector<T> host_copy(const T* from, std::int64_t n) {
  finish();
  std::vector<T> copy(n);
  if (n == 0) return copy;
#if defined(SCSCHNET_EMULATE_CUDA)
  std::memcpy(copy.data(), from, n * sizeof(T));
#else
  cuda::check(cudaMemcpy(copy.data(), from, n * sizeof(T), cudaMemcpyDefault), "cudaMemcpy");
#endif
  return copy;
}

/// Makes the device claim so many bytes of shared memory per block; a real one has what it has.
inline void claim_shared_memory(std::int64_t bytes) {
#if defined(SCSCHNET_EMULATE_CUDA)
  emulator::shared_bytes_per_block() = bytes;
#else
  static_cast<void>(bytes);
#endif
}

}  // namespace scschnet::test
