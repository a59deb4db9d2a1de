// Memory that is reused: scratch arrays that only grow, and a pool of buffers for results.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace scschnet::cpu {

/// Owns aligned, uninitialized memory. From 4 MiB on it asks for huge pages, of which the first
/// touch is seven times faster.
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

/// Owns a scratch array of plain values that only grows.
template <class T>
class Scratch {
 public:
  T* data() const { return static_cast<T*>(buffer_.data()); }
  T& operator[](std::size_t k) const { return data()[k]; }
  std::size_t capacity() const { return buffer_.capacity() / sizeof(T); }

  /// Makes room for `count` values; the values in it may be lost.
  T* reserve(std::size_t count) {
    if (count > capacity()) {
      buffer_ = Buffer();
      buffer_ = Buffer((count + count / 8) * sizeof(T));
    }
    return data();
  }

  /// Makes room for `count` values and keeps the first `used`.
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

/// Buffers for results. Whoever takes a buffer owns it, and gives it back when the result is
/// dropped, so that the next result of its size costs no page faults. Several threads may use the
/// pool.
class BufferPool {
 public:
  /// Frees buffers that nobody took for 256 calls. To be called for every result, small ones too.
  void free_unused() noexcept;
  /// A buffer of at least `bytes`; one from the pool is at most four times as large.
  Buffer take(std::size_t bytes);
  /// Keeps the buffer for the next `take`, or frees the oldest ones when enough are kept.
  void give_back(Buffer buffer) noexcept;

 private:
  static constexpr std::size_t max_buffers = 16;
  static constexpr std::size_t max_bytes = std::size_t{1} << 29;
  static constexpr std::size_t max_age = 256;
  struct Kept {
    Buffer buffer;
    std::size_t since;  ///< n_calls_ when it was given back
  };
  void free_oldest();
  std::mutex mutex_;
  std::vector<Kept> free_;  ///< the oldest first
  std::size_t bytes_ = 0, n_calls_ = 0;
};

}  // namespace scschnet::cpu
