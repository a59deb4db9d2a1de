// Root mean squares of deviations, and what DeePMD's file of model deviations holds of them.
#include "error_bars.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace scschnet::lammps {

ErrorBars::ErrorBars(MPI_Comm world, int n_local, int n_members)
    : forces(n_local), in_model(n_local), virial{}, world_(world), n_members_(n_members) {}

void ErrorBars::add_forces(const double* deviations) {
  for (std::size_t i = 0; i < forces.size(); ++i) {
    for (int axis = 0; axis < 3; ++axis) {
      forces[i] += deviations[3 * i + axis] * deviations[3 * i + axis];
    }
  }
}

void ErrorBars::finish(const double* energy_deviations, const double* virial_deviations,
                       double unit) {
  std::vector<double> here(energy_deviations, energy_deviations + n_members_), all(10 * n_members_);
  here.insert(here.end(), virial_deviations, virial_deviations + 9 * n_members_);
  MPI_Allreduce(here.data(), all.data(), 10 * n_members_, MPI_DOUBLE, MPI_SUM, world_);
  const auto root = [this](double sum) { return std::sqrt(sum / n_members_); };
  for (int k = 0; k < n_members_; ++k) {
    energy += all[k] * all[k];
    for (int c = 0; c < 9; ++c) {
      const double deviation = all[n_members_ + 9 * k + c];
      virial[c] += deviation * deviation;
    }
  }
  energy = unit * root(energy);
  for (double& component : virial) component = unit * root(component);
  std::transform(forces.begin(), forces.end(), forces.begin(), root);
}

void ErrorBars::finish_energy(const double* energy_deviations, double unit) {
  std::vector<double> all(n_members_);
  MPI_Allreduce(energy_deviations, all.data(), n_members_, MPI_DOUBLE, MPI_SUM, world_);
  const double squares = std::inner_product(all.begin(), all.end(), all.begin(), 0.0);
  energy = unit * std::sqrt(squares / n_members_);
}

std::array<double, 3> extremes(MPI_Comm world, const std::vector<double>& values) {
  constexpr double none = -std::numeric_limits<double>::infinity();
  double largest[2] = {none, none}, sums[2] = {0.0, static_cast<double>(values.size())};
  for (const double value : values) {
    largest[0] = std::max(largest[0], value);
    largest[1] = std::max(largest[1], -value);
    sums[0] += value;
  }
  MPI_Allreduce(MPI_IN_PLACE, largest, 2, MPI_DOUBLE, MPI_MAX, world);
  MPI_Allreduce(MPI_IN_PLACE, sums, 2, MPI_DOUBLE, MPI_SUM, world);
  if (sums[1] == 0.0) return {};
  return {largest[0], -largest[1], sums[0] / sums[1]};
}

}  // namespace scschnet::lammps
