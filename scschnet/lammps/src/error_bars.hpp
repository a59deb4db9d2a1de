// Error bars of one step, over all ranks: how far the members of a committee are from their mean,
// or what one model says of itself. Knows MPI alone.
#pragma once

#include <mpi.h>

#include <array>
#include <vector>

namespace scschnet::lammps {

/// Error bars of one step, root mean squares over the members; one model has as many deviations of
/// its energy as features.
class ErrorBars {
 public:
  ErrorBars(MPI_Comm world, int n_local, int n_members);

  /// Takes a member's deviations of the forces, (n_local, 3).
  void add_forces(const double* deviations);

  /// After those of all members: takes deviations of this rank's share of the energy, (n_members,),
  /// and of its virial, (n_members, 9), and adds them up over all ranks.
  void finish(const double* energy, const double* virial, double unit);

  /// Of one model, which gives the error bars of forces itself and none of the virial.
  void finish_energy(const double* energy, double unit);

  std::vector<double> forces;    ///< (n_local,)
  std::vector<bool> in_model;    ///< (n_local,), whether the model describes the atom
  std::array<double, 9> virial;  ///< by component
  double energy = 0.0;

 private:
  MPI_Comm world_;
  int n_members_;
};

/// Largest, smallest and mean value of some atoms over all ranks; zeros if there are none.
std::array<double, 3> extremes(MPI_Comm world, const std::vector<double>& values);

}  // namespace scschnet::lammps
