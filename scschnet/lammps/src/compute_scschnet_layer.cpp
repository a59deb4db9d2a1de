// Compute scschnet/layer: asks the pair style, which evaluates the model once more.
#include "compute_scschnet_layer.hpp"

#include <atom.h>
#include <error.h>
#include <memory.h>
#include <update.h>

#include <algorithm>

#include "pair_scschnet.hpp"

namespace LAMMPS_NS {

ComputeScschnetLayer::ComputeScschnetLayer(LAMMPS* lammps, int n_arguments, char** arguments)
    : Compute(lammps, n_arguments, arguments) {
  if (n_arguments != 3) {
    error->all(FLERR, "compute scschnet/layer takes no arguments, got {}", arguments[3]);
  }
  peratom_flag = 1;
  size_peratom_cols = pair()->n_layers();
  if (size_peratom_cols == 0) {
    error->all(FLERR, "compute scschnet/layer must come after pair_coeff, which names the model");
  }
}

ComputeScschnetLayer::~ComputeScschnetLayer() {
  memory->destroy(array_atom);
}

PairScschnet* ComputeScschnetLayer::pair() const {
  return PairScschnet::find(lmp, "compute scschnet/layer");
}

void ComputeScschnetLayer::init() {
  if (pair()->n_layers() != size_peratom_cols) {
    error->all(FLERR,
               "compute scschnet/layer has {} columns, but the model has {} layers now: define the "
               "compute again",
               size_peratom_cols, pair()->n_layers());
  }
}

void ComputeScschnetLayer::compute_peratom() {
  invoked_peratom = update->ntimestep;
  if (atom->nmax > n_allocated_) {
    n_allocated_ = atom->nmax;
    memory->destroy(array_atom);
    memory->create(array_atom, n_allocated_, size_peratom_cols, "scschnet/layer:array_atom");
  }
  const auto clear = [this](int i) { std::fill_n(array_atom[i], size_peratom_cols, 0.0); };
  for (int i = 0; i < atom->nlocal; ++i) clear(i);
  pair()->layer_energies(array_atom);
  for (int i = 0; i < atom->nlocal; ++i) {
    if (!(atom->mask[i] & groupbit)) clear(i);
  }
}

double ComputeScschnetLayer::memory_usage() {
  return static_cast<double>(n_allocated_) * size_peratom_cols * sizeof(double);
}

}  // namespace LAMMPS_NS
