// Finds the instruction sets that run on this CPU.
#include "isa.hpp"

#if defined(SCSCHNET_X86) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace scschnet::cpu {
#if defined(SCSCHNET_X86)
namespace {

/// Whether the CPU has tiles with bfloat16, and the kernel permits this process to use them.
bool amx_works() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr unsigned tile_bits = 1u << 24 | 1u << 22;          // amx-tile, amx-bf16
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & tile_bits) != tile_bits) return false;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

}  // namespace
#endif

std::vector<InstructionSet> available_instruction_sets() {
  std::vector<InstructionSet> sets{InstructionSet::generic};
#if defined(SCSCHNET_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw");
  if (avx2) sets.push_back(InstructionSet::avx2);
  if (avx512) sets.push_back(InstructionSet::avx512);
  static const bool amx = avx512 && amx_works();
  if (amx) sets.push_back(InstructionSet::amx);
#endif
  return sets;
}

const char* name(InstructionSet set) {
  switch (set) {
    case InstructionSet::amx:
      return "amx";
    case InstructionSet::avx512:
      return "avx512";
    case InstructionSet::avx2:
      return "avx2";
    default:
      return "generic";
  }
}

const Kernels& kernels_for(InstructionSet set) {
  switch (set) {
#if defined(SCSCHNET_X86)
    case InstructionSet::amx:
    case InstructionSet::avx512:
      return kernels_avx512;
    case InstructionSet::avx2:
      return kernels_avx2;
#endif
    default:
      return kernels_generic;
  }
}

const Kernels& best_kernels() {
  static const Kernels& best = kernels_for(available_instruction_sets().back());
  return best;
}

}  // namespace scschnet::cpu
