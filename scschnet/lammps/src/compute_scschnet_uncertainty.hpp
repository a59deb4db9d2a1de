// Compute scschnet/uncertainty: error bars of forces, energy and virial.
#pragma once

#include <compute.h>

namespace LAMMPS_NS {

class PairScschnet;

/// compute ID group scschnet/uncertainty
///
/// A per-atom vector, the error bar of the force on each atom, in units of force; 0 outside the
/// group and of atoms that the model does not describe. A global vector:
///     1-3  largest, smallest and mean (root mean square) error bar of the components of the virial
///          per atom of the model, in units of energy
///     4-6  largest, smallest and mean error bar of the forces on the atoms of the group
///     7    error bar of the energy
/// 1 to 6 are the columns of DeePMD's file of model deviations.
class ComputeScschnetUncertainty : public Compute {
 public:
  ComputeScschnetUncertainty(LAMMPS* lammps, int n_arguments, char** arguments);
  ~ComputeScschnetUncertainty() override;

  void init() override;
  void compute_peratom() override;
  void compute_vector() override;
  double memory_usage() override;

 private:
  PairScschnet* pair() const;

  int n_allocated_ = 0;  ///< elements of vector_atom
};

}  // namespace LAMMPS_NS
