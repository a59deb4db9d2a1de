// The operators for GPUs, compiled for a CPU: with SCSCHNET_EMULATE_CUDA and loaded after
// libscschnet_ops they take the place of its own (tests/csrc/test_cuda_emulated.py). As on a GPU,
// indices are not read, so that rows may end before the last pair.
#include "../torch/cuda/cfconv.cpp"
#include "../torch/cuda/filter_table.cpp"
#include "../torch/cuda/neighbor_list.cpp"
#include "../torch/cuda/pair_geometry.cpp"
#include "../torch/cuda/pairs.cpp"
#include "../torch/cuda/schnet.cpp"
#include "../torch/cuda/training.cpp"
#include "cuda_emulator.hpp"

// What the operators share with those for processors and its library does not export.
#include <ATen/Parallel.h>
#define is_cpu is_cuda  // leaves out the check of indices
#include "../torch/schnet_input.cpp"

namespace scschnet {

void check_cutoff_pieces(const at::Tensor&, const at::Tensor&) {}
void check_range(const at::Tensor&, const char*, std::int64_t) {}
void check_rows(const at::Tensor&, std::int64_t) {}
void check_bins(const at::Tensor&, std::int64_t) {}

namespace detail {
void parallel_for(std::int64_t, void (*)(std::int64_t, const void*), const void*) {
  throw std::logic_error("not used here");
}
}  // namespace detail

namespace cpu {
std::vector<InstructionSet> available_instruction_sets() {
  throw std::logic_error("not used here");
}
}  // namespace cpu

}  // namespace scschnet

/// For benchmarks/gpu/count_nodes.py.
extern "C" __attribute__((visibility("default"))) std::int64_t emulated_launches() {
  return emulator::n_launches();
}
