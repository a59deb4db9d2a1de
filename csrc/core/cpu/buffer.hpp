// Memory that is used again: scratch arrays that only grow, and a pool of output buffers.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace scschnet::cpu {

/// Aligned, uninitialized memory; from 4 MiB on in huge pages, which are touched seven times faster
/// for the first time.
class Buffer {
 public:
  Buffer() = default;
  /// Throws std::bad_alloc.
  explicit Buffer(std::size_t bytes);

  void* data() const { return memory_.get(); }
  std::size_t capacity() const { return capacity_; }

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  std::unique_ptr<void, Free> memory_;
  std::size_t capacity_ = 0;
};

/// Scratch array of plain values that only grows.
template <class T>
class Scratch {
 public:
  T* data() const { return static_cast<T*>(buffer_.data()); }
  T& operator[](std::size_t k) const { return data()[k]; }
  std::size_t capacity() const { return buffer_.capacity() / sizeof(T); }

  /// Room for `count` values; what was there may be lost.
  T* reserve(std::size_t count) {
    if (count > capacity()) {
      buffer_ = Buffer();
      buffer_ = Buffer((count + count / 8) * sizeof(T));
    }
    return data();
  }

  /// Room for `count` values; the first `used` are kept.
  T* grow(std::size_t count, std::size_t used) {
    if (count > capacity()) {
      Buffer larger((count + count / 2) * sizeof(T));
      for (std::size_t k = 0; k < used; ++k) static_cast<T*>(larger.data())[k] = data()[k];
      buffer_ = std::move(larger);
    }
    return data();
  }

 private:
  Buffer buffer_;
};

/// Buffers for results. A result that is dropped gives its buffer back, so that the next one of its
/// size costs no page faults. Safe to use from several threads.
class BufferPool {
 public:
  /// A buffer of at least `bytes`, at most four times as large.
  Buffer take(std::size_t bytes);
  /// Keeps the buffer for the next `take`, or frees it when enough is kept.
  void give_back(Buffer buffer) noexcept;

 private:
  static constexpr std::size_t max_buffers = 16;
  static constexpr std::size_t max_bytes = std::size_t{1} << 29;
  std::mutex mutex_;
  std::vector<Buffer> free_;
  std::size_t bytes_ = 0;
};

}  // namespace scschnet::cpu
