// Which instruction sets run here.
#include "isa.hpp"

namespace scschnet::cpu {

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
#endif
  return sets;
}

const char* name(InstructionSet set) {
  switch (set) {
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
