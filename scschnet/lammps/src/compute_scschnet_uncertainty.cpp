// Compute scschnet/uncertainty: asks the pair style, which has the deviations of every step.
#include "compute_scschnet_uncertainty.hpp"

#include <atom.h>
#include <error.h>
#include <memory.h>
#include <update.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "error_bars.hpp"
#include "pair_scschnet.hpp"

namespace LAMMPS_NS {

using scschnet::lammps::ErrorBars;
using scschnet::lammps::extremes;

ComputeScschnetUncertainty::ComputeScschnetUncertainty(LAMMPS* lammps, int n_arguments,
                                                       char** arguments)
    : Compute(lammps, n_arguments, arguments) {
  if (n_arguments != 3) {
    error->all(FLERR, "compute scschnet/uncertainty takes no arguments, got {}", arguments[3]);
  }
  peratom_flag = 1;
  size_peratom_cols = 0;
  vector_flag = 1;
  size_vector = 7;
  extvector = 0;
  vector = new double[size_vector]();
  if (pair()->n_layers() == 0) {
    error->all(FLERR,
               "compute scschnet/uncertainty must come after pair_coeff, which names the model");
  }
}

ComputeScschnetUncertainty::~ComputeScschnetUncertainty() {
  memory->destroy(vector_atom);
  delete[] vector;
}

PairScschnet* ComputeScschnetUncertainty::pair() const {
  return PairScschnet::find(lmp, "compute scschnet/uncertainty");
}

void ComputeScschnetUncertainty::init() {
  if (!pair()->has_error_bars()) {
    error->all(
        FLERR,
        "compute scschnet/uncertainty needs a model with error bars, which {} does not have: "
        "python -m scschnet.analysis error-bars RUN adds them to a run, python -m scschnet.train "
        "--committee 4 trains a committee",
        pair()->file());
  }
}

void ComputeScschnetUncertainty::compute_peratom() {
  invoked_peratom = update->ntimestep;
  if (atom->nmax > n_allocated_) {
    n_allocated_ = atom->nmax;
    memory->destroy(vector_atom);
    memory->create(vector_atom, n_allocated_, "scschnet/uncertainty:vector_atom");
  }
  const ErrorBars bars = pair()->error_bars();
  for (int i = 0; i < atom->nlocal; ++i) {
    vector_atom[i] = bars.in_model[i] && (atom->mask[i] & groupbit) ? bars.forces[i] : 0.0;
  }
}

void ComputeScschnetUncertainty::compute_vector() {
  invoked_vector = update->ntimestep;
  const ErrorBars bars = pair()->error_bars();
  std::vector<double> forces;
  double n_atoms = 0.0;
  for (int i = 0; i < atom->nlocal; ++i) {
    if (!bars.in_model[i]) continue;
    n_atoms += 1.0;
    if (atom->mask[i] & groupbit) forces.push_back(bars.forces[i]);
  }
  MPI_Allreduce(MPI_IN_PLACE, &n_atoms, 1, MPI_DOUBLE, MPI_SUM, world);
  const auto [smallest, largest] = std::minmax_element(bars.virial.begin(), bars.virial.end());
  double squares = 0.0;
  for (const double component : bars.virial) squares += component * component;
  const double of_atoms = n_atoms > 0.0 ? 1.0 / n_atoms : 0.0;
  vector[0] = of_atoms * *largest;
  vector[1] = of_atoms * *smallest;
  vector[2] = of_atoms * std::sqrt(squares / 9.0);
  std::copy_n(extremes(world, forces).begin(), 3, vector + 3);
  vector[6] = bars.energy;
}

double ComputeScschnetUncertainty::memory_usage() {
  return static_cast<double>(n_allocated_) * sizeof(double);
}

}  // namespace LAMMPS_NS
