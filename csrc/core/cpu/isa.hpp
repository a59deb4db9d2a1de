// Chooses the code of the neighbor list that was compiled for an instruction set.
#pragma once

#include "../neighbor_list.hpp"
#include "kernels.hpp"

namespace scschnet::cpu {

const Kernels& kernels_for(InstructionSet set);
/// The code for the best instruction set of this CPU.
const Kernels& best_kernels();

}  // namespace scschnet::cpu
