// ExportedModel, one use of it per word, for tests/export/test_cpp_host.py:
//
//     exported_model load FILE...       per file: what load says, or "loaded"
//     exported_model describe FILE      what the accessors say
//     exported_model results FILE       every result for five atoms, by both calls, on 1 and 2
//     threads exported_model mistakes FILE      what wrong arguments are answered
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <scschnet/halo.h>
#include <scschnet/exported_model.hpp>

#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>

namespace {

using at::Tensor;
using scschnet::Evaluation;
using scschnet::ExportedModel;

struct Input {
  Tensor positions =
      at::tensor({0.0, 0.0, 0.0, 1.1, 0.1, 0.0, -0.4, 1.0, 0.2, 0.1, -0.5, 1.3, 3.5, 1.0, 1.0},
                 at::kDouble)
          .view({5, 3});
  Tensor atomic_numbers = at::tensor({8, 1, 6, 1, 8}, at::kLong);
  Tensor cell =
      at::tensor({4.5, 0.0, 0.0, 1.5, 5.0, 0.0, -0.7, 1.1, 6.0}, at::kDouble).view({3, 3});
  Tensor pbc = at::tensor({1, 1, 0}, at::kLong).to(at::kBool);
};

void print(const char* name, const Tensor& values) {
  std::printf("%s", name);
  const double* data = values.const_data_ptr<double>();
  for (std::int64_t k = 0; k < values.numel(); ++k) std::printf(" %.17g", data[k]);
  std::printf("\n");
}

void print(const Evaluation& result) {
  print("energy", result.energy);
  print("energies", result.energies);
  print("forces", result.forces);
  print("virial", result.virial);
  print("correction_norms", result.correction_norms);
  print("layer_energies", result.layer_energies);
  print("base_energies", result.base_energies);
  print("atom_virial", result.atom_virial);
  if (result.unfamiliarity.defined()) print("unfamiliarity", result.unfamiliarity);
  if (!result.forces_std.defined()) return;
  print("energy_std", result.energy_std);
  print("energies_std", result.energies_std);
  print("forces_std", result.forces_std);
  print("virial_std", result.virial_std);
  print("energy_deviations", result.energy_deviations);
  print("forces_deviations", result.forces_deviations);
  print("virial_deviations", result.virial_deviations);
}

std::string answer(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "loaded";
}

void load(int n, char** paths) {
  for (int k = 0; k < n; ++k) {
    const std::string said = answer([&] { ExportedModel::load(paths[k]); });
    std::printf("%s\t%s\n", paths[k], said.c_str());
    std::fflush(stdout);  // whatever happens next
  }
}

void describe(const ExportedModel& model) {
  std::printf("%s %s %g %d %d", model.kind().c_str(), model.dtype().c_str(), model.cutoff(),
              static_cast<int>(model.n_interactions()), static_cast<int>(model.n_features()));
  for (const auto z : model.elements()) std::printf(" %d", static_cast<int>(z));
  for (const auto& symbol : model.symbols()) std::printf(" %s", symbol.c_str());
  for (const auto& name : model.layer_names()) std::printf(" %s", name.c_str());
  std::printf("\n%s\n", model.metadata().c_str());
}

/// Every pair of a molecule once.
Evaluation by_pairs(const ExportedModel& model, const Input& in, scschnet::Extras extras) {
  std::vector<Tensor> i, j;
  const std::int64_t n = in.positions.size(0);
  for (std::int64_t a = 0; a < n; ++a) {
    for (std::int64_t b = a + 1; b < n; ++b) {
      i.push_back(at::full({1}, a, at::kLong)), j.push_back(at::full({1}, b, at::kLong));
    }
  }
  const Tensor idx_i = at::cat(i), idx_j = at::cat(j);
  const Tensor r_ij = in.positions.index_select(0, idx_j) - in.positions.index_select(0, idx_i);
  return model.evaluate_pairs(in.atomic_numbers, idx_i, idx_j, r_ij, n, true, extras);
}

/// The same numbers, every other one in memory and rows of a matrix along columns.
Tensor scattered(const Tensor& t) {
  const Tensor columns = t.dim() == 2 ? t.t().contiguous().t() : t;
  return at::stack({columns, columns}, -1).select(-1, 1);
}

bool same_when_scattered(const ExportedModel& model, const Evaluation& expected) {
  const Input in;
  const auto found = model.evaluate(scattered(in.positions), scattered(in.atomic_numbers),
                                    scattered(in.cell), scattered(in.pbc));
  const Tensor i = at::tensor({0, 1}, at::kLong), j = at::tensor({1, 2}, at::kLong);
  const Tensor r_ij = at::tensor({1.0, 0.2, 0.1, -0.3, 1.1, 0.4}, at::kDouble).view({2, 3});
  const auto of_pairs = [&](const auto& layout) {
    return model.evaluate_pairs(layout(in.atomic_numbers), layout(i), layout(j), layout(r_ij), 5,
                                true);
  };
  const auto one = of_pairs([](const Tensor& t) { return t; }), other = of_pairs(scattered);
  return at::equal(found.forces, expected.forces) && at::equal(found.virial, expected.virial) &&
         at::equal(found.energy, expected.energy) && at::equal(one.forces, other.forces) &&
         at::equal(one.virial, other.virial);
}

void results(const ExportedModel& model) {
  const scschnet::Extras all{.layers = true, .atom_virial = true};
  Input in;
  at::set_num_threads(1);
  const auto one = model.evaluate(in.positions, in.atomic_numbers, in.cell, in.pbc, all);
  at::set_num_threads(2);
  const auto two = model.evaluate(in.positions, in.atomic_numbers, in.cell, in.pbc, all);
  print(one);
  print(by_pairs(model, in, all));
  const auto bare = model.evaluate(in.positions, in.atomic_numbers, in.cell, in.pbc);
  std::printf("threads %s\n", at::equal(one.forces, two.forces) ? "same" : "different");
  std::printf("layouts %s\n", same_when_scattered(model, one) ? "same" : "different");
  std::printf("extras %s\n", bare.atom_virial.defined() || bare.layer_energies.defined() ||
                                     bare.base_energies.defined()
                                 ? "there"
                                 : "none");
}

void mistakes(const std::string& path) {
  const ExportedModel model = ExportedModel::load(path);
  const Input in;
  const auto say = [](const std::function<void()>& call) { std::puts(answer(call).c_str()); };
  const auto evaluate = [&](const Tensor& r, const Tensor& z, const Tensor& cell,
                            const Tensor& pbc) { say([&] { model.evaluate(r, z, cell, pbc); }); };
  const auto pairs = [&](const Tensor& i, const Tensor& j, const Tensor& r, std::int64_t n_local) {
    say([&] { model.evaluate_pairs(in.atomic_numbers, i, j, r, n_local, true); });
  };
  const auto &r = in.positions, &z = in.atomic_numbers;
  evaluate(r.narrow(1, 0, 2), z, in.cell, in.pbc);
  evaluate(r.to(at::kInt), z, in.cell, in.pbc);
  evaluate(Tensor(), z, in.cell, in.pbc);
  evaluate(r, z.narrow(0, 0, 4), in.cell, in.pbc);
  evaluate(r, z.to(at::kInt), in.cell, in.pbc);
  evaluate(r, at::full({5}, 7, at::kLong), in.cell, in.pbc);
  evaluate(r, z, in.cell.view({9}), in.pbc);
  evaluate(r, z, in.cell * 0, in.pbc);
  evaluate(r, z, in.cell, in.pbc.to(at::kLong));
  evaluate(r / 0, z, in.cell, in.pbc);
  evaluate(r * 0, z, in.cell, in.pbc);
  const Tensor i = at::tensor({0, 1}, at::kLong), j = at::tensor({1, 2}, at::kLong);
  const Tensor r_ij = at::full({2, 3}, 1.0, at::kDouble);
  pairs(i, j.narrow(0, 0, 1), r_ij, 5);
  pairs(i, j, r_ij.to(at::kFloat), 5);
  pairs(i.flip(0), j, r_ij, 5);
  pairs(i, j + 9, r_ij, 5);
  pairs(i, j, r_ij, 6);
  pairs(i, j, r_ij, 3);  // ghosts, but no halo
  scschnet_halo halo{
      nullptr,
      [](void*, void*, std::int64_t, int) { throw std::runtime_error("the host gave up"); },
      [](void*, void*, std::int64_t, int) {}};
  scschnet_set_halo(&halo);
  pairs(i, j, r_ij, 3);
  scschnet_set_halo(nullptr);
  say([&] { ExportedModel::load(path, "toaster"); });
}

}  // namespace

int main(int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "";
  if (word == "load") {
    load(argc - 2, argv + 2);
  } else if (word == "describe" && argc == 3) {
    describe(ExportedModel::load(argv[2]));
  } else if (word == "results" && argc == 3) {
    results(ExportedModel::load(argv[2]));
  } else if (word == "mistakes" && argc == 3) {
    mistakes(argv[2]);
  } else {
    return 2;
  }
}
