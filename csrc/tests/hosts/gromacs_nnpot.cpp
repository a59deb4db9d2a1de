// Loads and calls a model the way GROMACS' NNPot interface does, as its manual (reference manual,
// "Neural Network Potentials") and the interface of its TorchModel describe; written for
// tests/export/test_cpp_host.py because no GROMACS is at hand there.
//
//     gromacs_nnpot MODEL.pt < STRUCTURE      number of atoms, box (9 numbers, nm), then per atom Z
//     x y z (nm) gromacs_nnpot MODEL.pt open < ...       no periodicity: two inputs
//
// - libraries named in the record extension_libs, separated by colons, are opened before the model;
// - inputs in the order of the mdp file: atom-positions (float32, nm, asking for gradients),
// atom-numbers (int32), box
//   (float32, nm), pbc (bool);
// - the output is the energy, or a tuple of energy and forces, in kJ/mol and nm, and is taken in
// single precision.
#include <ATen/ops/tensor.h>
#include <caffe2/serialize/inline_container.h>
#include <dlfcn.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

void open_libraries(const std::string& model) {
  caffe2::serialize::PyTorchStreamReader reader(model);
  if (!reader.hasRecord("extra/extension_libs")) return;
  const auto [data, size] = reader.getRecord("extra/extension_libs");
  std::istringstream names(std::string(static_cast<const char*>(data.get()), size));
  for (std::string name; std::getline(names, name, ':');) {
    if (!dlopen(name.c_str(), RTLD_LAZY)) std::cerr << dlerror() << '\n';
  }
}

std::vector<torch::jit::IValue> read_inputs(bool periodic) {
  std::int64_t n_atoms = 0;
  std::cin >> n_atoms;
  std::vector<float> box(9), positions(3 * n_atoms);
  std::vector<int> numbers(n_atoms);
  for (float& x : box) std::cin >> x;
  for (std::int64_t i = 0; i < n_atoms; ++i) {
    std::cin >> numbers[i];
    for (int k = 0; k < 3; ++k) std::cin >> positions[3 * i + k];
  }
  std::vector<torch::jit::IValue> inputs{
      at::tensor(positions, at::kFloat).view({n_atoms, 3}).requires_grad_(true),
      at::tensor(numbers, at::kInt)};
  if (periodic) {
    inputs.emplace_back(at::tensor(box, at::kFloat).view({3, 3}));
    inputs.emplace_back(at::tensor({1, 1, 1}, at::kInt).to(at::kBool));
  }
  return inputs;
}

void evaluate(const std::string& path, bool periodic) {
  open_libraries(path);
  torch::jit::Module model = torch::jit::load(path, at::kCPU);
  model.eval();
  const std::vector<torch::jit::IValue> inputs = read_inputs(periodic);
  for (int call = 0; call < 4;
       ++call) {  // the executor as GROMACS leaves it: profiling, then optimizing
    const auto outputs = model.forward(inputs).toTuple();
    const at::Tensor energy = outputs->elements()[0].toTensor().to(at::kFloat);
    const at::Tensor forces = outputs->elements()[1].toTensor().to(at::kFloat).contiguous();
    std::printf("%.9g", energy.item<float>());
    for (std::int64_t k = 0; k < forces.numel(); ++k) {
      std::printf(" %.9g", forces.const_data_ptr<float>()[k]);
    }
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    evaluate(argv[1], argc == 2);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
