// A list of free blocks, the one used last in front. What has not been used for a while is freed.
#include "memory_pool.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <list>
#include <mutex>
#include <new>

namespace scschnet {
namespace {

constexpr std::size_t smallest_block = std::size_t{1} << 17;
constexpr std::size_t huge_page = std::size_t{1} << 21;
constexpr std::size_t most_free_blocks = 12;
constexpr std::size_t most_free_bytes = std::size_t{1} << 30;
constexpr std::size_t oldest = 1024;  // calls that a block is kept without being used

struct Block {
  void* memory;
  std::size_t size;
  std::size_t since = 0;  // number of the call after which it was given back
};

/// Sizes in steps of an eighth or less, so that batches of similar size share blocks.
std::size_t rounded(std::size_t size) {
  const std::size_t step = std::bit_floor(size) / 8;
  return (size + step - 1) / step * step;
}

class Pool {
 public:
  /// Frees blocks that are too old. To be called for every tensor, small ones too.
  void free_unused() {
    const std::lock_guard lock(mutex_);
    ++n_calls_;
    while (!free_.empty() && n_calls_ - free_.back().since > oldest) free_last();
  }

  Block take(std::size_t size) {
    const std::size_t wanted = rounded(size);
    {
      const std::lock_guard lock(mutex_);
      for (auto block = free_.begin(); block != free_.end(); ++block) {
        if (block->size >= wanted && block->size <= wanted + wanted / 2) {
          const Block found = *block;
          free_bytes_ -= found.size;
          free_.erase(block);
          return found;
        }
      }
    }
    const std::size_t alignment = wanted >= 2 * huge_page ? huge_page : 64;
    const std::size_t padded = (wanted + alignment - 1) / alignment * alignment;
    void* memory = std::aligned_alloc(alignment, padded);
    if (!memory) throw std::bad_alloc();
    if (alignment == huge_page)
      madvise(memory, padded, MADV_HUGEPAGE);  // a wish: fewer page faults
    return {memory, padded};
  }

  void give(Block block) {
    const std::lock_guard lock(mutex_);
    block.since = n_calls_;
    free_.push_front(block);
    free_bytes_ += block.size;
    while (free_.size() > most_free_blocks || (free_bytes_ > most_free_bytes && free_.size() > 1))
      free_last();
  }

 private:
  void free_last() {
    std::free(free_.back().memory);
    free_bytes_ -= free_.back().size;
    free_.pop_back();
  }

  std::mutex mutex_;
  std::list<Block> free_;
  std::size_t free_bytes_ = 0, n_calls_ = 0;
};

/// Never destroyed: tensors may outlive the static objects of a library.
Pool& pool() {
  static Pool& instance = *new Pool;
  return instance;
}

}  // namespace

at::Tensor pooled_empty(at::IntArrayRef sizes, const at::TensorOptions& options) {
  std::size_t bytes = c10::elementSize(c10::typeMetaToScalarType(options.dtype()));
  for (const auto size : sizes) bytes *= static_cast<std::size_t>(size);
  pool().free_unused();
  if (bytes < smallest_block) return at::empty(sizes, options);
  const Block block = pool().take(bytes);
  return at::from_blob(block.memory, sizes, [block](void*) { pool().give(block); }, options);
}

}  // namespace scschnet
