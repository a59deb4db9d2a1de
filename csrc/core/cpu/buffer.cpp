// Aligned allocation, and the pool of buffers.
#include "buffer.hpp"

#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace scschnet::cpu {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr std::size_t line = 64;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

Buffer::Buffer(std::size_t bytes) {
  const std::size_t unit = bytes >= 2 * huge_page ? huge_page : line;
  capacity_ = round_up(bytes + 1, unit);
  memory_.reset(std::aligned_alloc(unit, capacity_));
  if (!memory_) throw std::bad_alloc();
#if defined(__linux__)
  if (unit == huge_page) madvise(memory_.get(), capacity_, MADV_HUGEPAGE);  // a wish: may fail
#endif
}

void Buffer::Free::operator()(void* memory) const {
  std::free(memory);
}

void BufferPool::free_oldest() {
  bytes_ -= free_.front().buffer.capacity();
  free_.erase(free_.begin());
}

void BufferPool::free_unused() noexcept {
  const std::lock_guard lock(mutex_);
  ++n_calls_;
  while (!free_.empty() && n_calls_ - free_.front().since > max_age) free_oldest();
}

Buffer BufferPool::take(std::size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it) {
      const std::size_t capacity = it->buffer.capacity();
      if (capacity < bytes || capacity / 4 > bytes) continue;
      if (best == free_.end() || capacity < best->buffer.capacity()) best = it;
    }
    if (best != free_.end()) {
      Buffer buffer = std::move(best->buffer);
      free_.erase(best);
      bytes_ -= buffer.capacity();
      return buffer;
    }
  }
  return Buffer(bytes + bytes / 8);  // the next list is often a little longer
}

void BufferPool::give_back(Buffer buffer) noexcept {
  try {
    const std::lock_guard lock(mutex_);
    free_.push_back({std::move(buffer), n_calls_});
    bytes_ += free_.back().buffer.capacity();
    while (free_.size() > max_buffers || bytes_ > max_bytes) free_oldest();
  } catch (...) {  // no memory for the bookkeeping: the buffer is freed instead
  }
}

}  // namespace scschnet::cpu
