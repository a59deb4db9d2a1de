// Runs CUDA kernels on a CPU, for tests where there is no GPU: every thread of a block is a
// fiber, blocks run one after the other. Barriers and warp functions behave as on a device if all
// threads of the block, or all lanes of the warp, reach them; fibers run in the reverse order of
// their index so that code that forgets a barrier fails. Slow, and blind to races within a warp
// step.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define SCSCHNET_DYNAMIC_SHARED(name) unsigned char* name = emulator::dynamic_shared()

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulator {

struct Barrier {
  int size = 0, arrived = 0;
  std::uint64_t generation = 0;
};

struct Fiber {
  ucontext_t first;  // to enter it; later switches are jumps, which need no system call
  jmp_buf at;
  bool entered = false;
  std::unique_ptr<char[]> stack;
  bool done = false;
};

inline constexpr std::size_t stack_bytes = 64 * 1024;

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Barrier> warps;
  std::vector<std::uint64_t> exchange;  // one slot per thread
  Barrier all;
  std::vector<unsigned char> shared;
  std::function<void()> body;
  ucontext_t home;
  jmp_buf scheduler;
  int current = 0;
};

inline Block*& block() {
  static Block* running = nullptr;
  return running;
}

struct ThreadId {
  unsigned x, y = 0, z = 0;
};
inline ThreadId thread_id() {
  return {static_cast<unsigned>(block()->current)};
}
inline dim3& block_id() {
  static dim3 id;
  return id;
}
inline dim3& block_size() {
  static dim3 size;
  return size;
}
inline dim3& grid_size() {
  static dim3 size;
  return size;
}
inline unsigned char* dynamic_shared() {
  auto address = reinterpret_cast<std::uintptr_t>(block()->shared.data());
  return reinterpret_cast<unsigned char*>((address + 15) / 16 * 16);
}

/// Shared memory that the device claims to have: a test may make it small.
inline std::int64_t& shared_bytes_per_block() {
  static std::int64_t bytes = 227 * 1024;
  return bytes;
}

/// Kernels launched and pieces of memory filled so far: nodes of a graph, were they captured.
inline std::int64_t& n_launches() {
  static std::int64_t n = 0;
  return n;
}

inline void yield() {
  Block& b = *block();
  if (_setjmp(b.fibers[b.current].at) == 0) _longjmp(b.scheduler, 1);
}

inline void wait(Barrier& barrier) {
  const std::uint64_t mine = barrier.generation;
  if (++barrier.arrived == barrier.size) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  while (barrier.generation == mine) yield();
}

inline Barrier& own_warp() {
  return block()->warps[block()->current / 32];
}

/// Every lane gives a value and may then read those of the others with `of`.
template <class Value, class Read>
auto exchange(Value value, const Read& read) {
  static_assert(sizeof(Value) <= 8);
  Block& b = *block();
  const int first = b.current / 32 * 32;
  std::memcpy(&b.exchange[b.current], &value, sizeof(Value));
  wait(own_warp());
  const auto of = [&](int lane) {
    Value other;
    std::memcpy(&other, &b.exchange[first + lane], sizeof(Value));
    return other;
  };
  const auto result = read(of, b.current - first);
  wait(own_warp());
  return result;
}

inline void run_fiber() {
  Block& b = *block();
  b.body();
  b.fibers[b.current].done = true;
  _longjmp(b.scheduler, 1);
}

/// Runs fiber t until it waits or returns.
inline void resume(Block& b, int t) {
  b.current = t;
  if (_setjmp(b.scheduler) != 0) return;
  Fiber& fiber = b.fibers[t];
  if (fiber.entered) _longjmp(fiber.at, 1);
  fiber.entered = true;
  swapcontext(&b.home, &fiber.first);
}

inline void start(Block& b, int threads) {
  if (threads % 32 != 0) throw std::runtime_error("blocks must be whole warps");
  b.fibers.resize(threads);
  b.warps.assign(threads / 32, Barrier{32});
  b.exchange.resize(threads);
  b.all = Barrier{threads};
  for (auto& fiber : b.fibers) {
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(stack_bytes);
    fiber.done = fiber.entered = false;
    getcontext(&fiber.first);
    fiber.first.uc_stack.ss_sp = fiber.stack.get();
    fiber.first.uc_stack.ss_size = stack_bytes;
    fiber.first.uc_link = nullptr;
    makecontext(&fiber.first, run_fiber, 0);
  }
}

/// Runs the fibers of one block, the last one first, until all have returned.
inline void run(Block& b) {
  int left = static_cast<int>(b.fibers.size());
  for (int idle = 0; left > 0; ++idle) {
    if (idle > 10'000'000) throw std::runtime_error("a barrier that not all threads reach");
    for (int t = static_cast<int>(b.fibers.size()) - 1; t >= 0; --t) {
      if (b.fibers[t].done) continue;
      resume(b, t);
      if (b.fibers[t].done) --left;
    }
  }
}

}  // namespace emulator

#define threadIdx emulator::thread_id()
#define blockIdx emulator::block_id()
#define blockDim emulator::block_size()
#define gridDim emulator::grid_size()

inline void __syncthreads() {
  emulator::wait(emulator::block()->all);
}
inline void __syncwarp() {
  emulator::wait(emulator::own_warp());
}
template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int mask) {
  return emulator::exchange(value, [&](auto of, int lane) { return of(lane ^ mask); });
}
template <class Value>
Value __shfl_sync(unsigned, Value value, int source) {
  return emulator::exchange(value, [&](auto of, int) { return of(source); });
}
inline unsigned __ballot_sync(unsigned, bool value) {
  return emulator::exchange(value, [&](auto of, int) {
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= static_cast<unsigned>(of(lane)) << lane;
    return bits;
  });
}
inline bool __all_sync(unsigned mask, bool value) {
  return __ballot_sync(mask, value) == 0xffffffffu;
}
template <class Value>
unsigned __match_any_sync(unsigned, Value value) {
  return emulator::exchange(value, [&](auto of, int) {
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= static_cast<unsigned>(of(lane) == value) << lane;
    return bits;
  });
}
inline int __popc(unsigned bits) {
  return __builtin_popcount(bits);
}
inline int __ffs(int bits) {
  return __builtin_ffs(bits);
}
template <class Value>
Value __ldg(const Value* address) {
  return *address;
}
template <class Value>
Value atomicAdd(Value* address, Value value) {
  const Value before = *address;
  *address += value;
  return before;
}
template <class Value>
Value atomicMin(Value* address, Value value) {
  const Value before = *address;
  if (value < before) *address = value;
  return before;
}
template <class Value>
Value atomicMax(Value* address, Value value) {
  const Value before = *address;
  if (value > before) *address = value;
  return before;
}
template <class Value>
Value atomicOr(Value* address, Value value) {
  const Value before = *address;
  *address |= value;
  return before;
}

namespace scschnet::cuda {

template <class Shape, class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Shape& shape, Arguments... arguments) {
  static emulator::Block block;
  emulator::block() = &block;
  if (shape.blocks.x > 0 && shape.blocks.y > 0) ++emulator::n_launches();
  if (static_cast<std::int64_t>(shape.shared_bytes) > emulator::shared_bytes_per_block()) {
    throw std::runtime_error("more shared memory than the device has");
  }
  if (shape.threads < 1 || shape.threads > 1024 || shape.blocks.x > 0x7fffffffu ||
      shape.blocks.y > 65535) {
    throw std::runtime_error("a block or a grid that is too large");
  }
  block.shared.assign(shape.shared_bytes + 16, 0xcd);
  emulator::grid_size() = shape.blocks;
  emulator::block_size() = dim3(static_cast<unsigned>(shape.threads));
  for (unsigned y = 0; y < shape.blocks.y; ++y) {
    for (unsigned x = 0; x < shape.blocks.x; ++x) {
      emulator::block_id() = dim3(x, y);
      block.body = [&] { kernel(static_cast<Parameters>(arguments)...); };
      emulator::start(block, shape.threads);
      emulator::run(block);
    }
  }
}

template <class StreamType>
void fill_bytes(void* to, int value, std::size_t n_bytes, StreamType) {
  if (n_bytes == 0) return;
  ++emulator::n_launches();
  std::memset(to, value, n_bytes);
}

}  // namespace scschnet::cuda
