// Compute scschnet/unfamiliarity: asks the pair style, which has the scores of every step.
#include "compute_scschnet_unfamiliarity.hpp"

#include <atom.h>
#include <error.h>
#include <memory.h>
#include <update.h>

#include <algorithm>

#include "pair_scschnet.hpp"

namespace LAMMPS_NS {

ComputeScschnetUnfamiliarity::ComputeScschnetUnfamiliarity(LAMMPS* lammps, int n_arguments,
                                                           char** arguments)
    : Compute(lammps, n_arguments, arguments) {
  if (n_arguments != 3) {
    error->all(FLERR, "compute scschnet/unfamiliarity takes no arguments, got {}", arguments[3]);
  }
  peratom_flag = 1;
  size_peratom_cols = 0;
  if (pair()->n_layers() == 0) {
    error->all(FLERR,
               "compute scschnet/unfamiliarity must come after pair_coeff, which names the model");
  }
}

ComputeScschnetUnfamiliarity::~ComputeScschnetUnfamiliarity() {
  memory->destroy(vector_atom);
}

PairScschnet* ComputeScschnetUnfamiliarity::pair() const {
  return PairScschnet::find(lmp, "compute scschnet/unfamiliarity");
}

void ComputeScschnetUnfamiliarity::init() {
  if (!pair()->has_unfamiliarity()) {
    error->all(FLERR,
               "compute scschnet/unfamiliarity needs a model with statistics of its training set, "
               "which {} does not have: export a run folder, after python -m scschnet.analysis "
               "unfamiliarity RUN if it is an old one",
               pair()->file());
  }
}

void ComputeScschnetUnfamiliarity::compute_peratom() {
  invoked_peratom = update->ntimestep;
  if (atom->nmax > n_allocated_) {
    n_allocated_ = atom->nmax;
    memory->destroy(vector_atom);
    memory->create(vector_atom, n_allocated_, "scschnet/unfamiliarity:vector_atom");
  }
  std::fill_n(vector_atom, atom->nlocal, 0.0);
  pair()->unfamiliarity(vector_atom);
  for (int i = 0; i < atom->nlocal; ++i) {
    if (!(atom->mask[i] & groupbit)) vector_atom[i] = 0.0;
  }
}

double ComputeScschnetUnfamiliarity::memory_usage() {
  return static_cast<double>(n_allocated_) * sizeof(double);
}

}  // namespace LAMMPS_NS
