// From an instruction set to the code compiled for it.
#pragma once

#include "../neighbor_list.hpp"
#include "kernels.hpp"

namespace scschnet::cpu {

const Kernels& kernels_for(InstructionSet set);
/// Those of the best instruction set available.
const Kernels& best_kernels();

}  // namespace scschnet::cpu
