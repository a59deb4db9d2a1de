// Evaluates an exported model and runs molecular dynamics with it, without Python:
//
//     cpp_host MODEL.pt STRUCTURE.xyz [STEPS]
//
// prints energy and forces, the largest unfamiliarity if the file knows its training set, then 100
// steps of 0.5 fs at constant energy (velocity Verlet, from rest) with the neighbor list of
// scschnet. OMP_NUM_THREADS sets the number of threads.
#include <ATen/ops/from_blob.h>
#include <scschnet/exported_model.hpp>
#include <scschnet/neighbor_list.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "structure.hpp"

namespace {

using scschnet::Evaluation;
using scschnet::ExportedModel;

constexpr double femtosecond = 0.09822694788464063;  // in Å sqrt(amu / eV)

/// A tensor that shows memory of the host; nothing is copied.
template <class T>
at::Tensor view(T* data, at::IntArrayRef sizes) {
  return at::from_blob(const_cast<std::remove_const_t<T>*>(data), sizes,
                       c10::CppTypeToScalarType<std::remove_const_t<T>>::value);
}

Evaluation evaluate(const ExportedModel& model, const Structure& s) {
  return model.evaluate(view(s.positions.data(), {s.n_atoms(), 3}),
                        view(s.atomic_numbers.data(), {s.n_atoms()}), view(s.cell.data(), {3, 3}),
                        view(s.pbc.data(), {3}));
}

/// Every pair once, as `evaluate_pairs` wants them.
class Pairs {
 public:
  void find(const Structure& s, double cutoff) {
    const std::int64_t atom_ptr[2] = {0, s.n_atoms()};
    const auto n_pairs = static_cast<std::size_t>(list_.find(
        scschnet::Structures<double>{s.positions.data(), atom_ptr, s.cell.data(), s.pbc.data()},
        cutoff, {.half = true}));
    idx_i_.resize(n_pairs), idx_j_.resize(n_pairs), r_ij_.resize(3 * n_pairs);
    list_.write({.idx_i = idx_i_.data(), .idx_j = idx_j_.data(), .r_ij = r_ij_.data()});
  }

  Evaluation evaluate(const ExportedModel& model, const Structure& s) const {
    const auto n_pairs = static_cast<std::int64_t>(idx_i_.size());
    return model.evaluate_pairs(view(s.atomic_numbers.data(), {s.n_atoms()}),
                                view(idx_i_.data(), {n_pairs}), view(idx_j_.data(), {n_pairs}),
                                view(r_ij_.data(), {n_pairs, 3}), s.n_atoms(), false);
  }

 private:
  scschnet::cpu::NeighborList list_;
  std::vector<std::int64_t> idx_i_, idx_j_;
  std::vector<double> r_ij_;
};

double value(const at::Tensor& scalar) {
  return *scalar.const_data_ptr<double>();
}

void print(const char* what, const Evaluation& result) {
  const double* f = result.forces.const_data_ptr<double>();
  std::printf("%s %.12f eV\n", what, value(result.energy));
  for (std::int64_t i = 0; i < result.forces.size(0); ++i) {
    std::printf("%20.12f %20.12f %20.12f\n", f[3 * i], f[3 * i + 1], f[3 * i + 2]);
  }
}

/// The atom that is least like those the model was trained on.
void print_unfamiliarity(const Evaluation& result) {
  if (!result.unfamiliarity.defined() || result.unfamiliarity.numel() == 0) return;
  const double* u = result.unfamiliarity.const_data_ptr<double>();
  const double* most = std::max_element(u, u + result.unfamiliarity.numel());
  std::printf("largest unfamiliarity %.12f, of atom %d; above 1: stranger than 99 %% held out\n",
              *most, static_cast<int>(most - u));
}

struct Dynamics {
  const ExportedModel& model;
  Structure structure;
  Pairs pairs;
  std::vector<double> masses, velocities;
  Evaluation now;

  Dynamics(const ExportedModel& m, Structure s) : model(m), structure(std::move(s)) {
    for (const auto z : structure.atomic_numbers) masses.push_back(mass(z));
    velocities.assign(structure.positions.size(), 0.0);
    evaluate();
  }

  void evaluate() {
    pairs.find(structure, model.cutoff());
    now = pairs.evaluate(model, structure);
  }

  void kick(double dt) {
    const double* f = now.forces.const_data_ptr<double>();
    for (std::size_t k = 0; k < velocities.size(); ++k) velocities[k] += dt * f[k] / masses[k / 3];
  }

  void step(double dt) {
    kick(dt / 2);
    for (std::size_t k = 0; k < velocities.size(); ++k) {
      structure.positions[k] += dt * velocities[k];
    }
    evaluate();
    kick(dt / 2);
  }

  double kinetic_energy() const {
    double sum = 0;
    for (std::size_t k = 0; k < velocities.size(); ++k) {
      sum += masses[k / 3] * velocities[k] * velocities[k] / 2;
    }
    return sum;
  }
};

void run(const std::string& model_path, const std::string& structure_path, int steps) {
  const ExportedModel model = ExportedModel::load(model_path);
  const Structure structure = read_xyz(structure_path, model.symbols(), model.elements());
  const Evaluation first = evaluate(model, structure);
  print("energy", first);
  print_unfamiliarity(first);

  Dynamics md(model, structure);
  print("from pairs", md.now);
  const double start = value(md.now.energy);
  double drift = 0;
  for (int k = 0; k < steps; ++k) {
    md.step(0.5 * femtosecond);
    drift = std::max(drift, std::abs(value(md.now.energy) + md.kinetic_energy() - start));
  }
  print("last", md.now);
  std::printf("%d steps of 0.5 fs: the total energy stayed within %.3e eV\n", steps, drift);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::fputs("usage: cpp_host MODEL.pt STRUCTURE.xyz [STEPS]\n", stderr);
    return 2;
  }
  try {
    run(argv[1], argv[2], argc == 4 ? std::atoi(argv[3]) : 100);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cpp_host: %s\n", error.what());
    return 1;
  }
}
