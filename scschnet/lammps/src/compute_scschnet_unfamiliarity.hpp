// Compute scschnet/unfamiliarity: how unlike those of the training set the atoms are.
#pragma once

#include <compute.h>

namespace LAMMPS_NS {

class PairScschnet;

/// compute ID group scschnet/unfamiliarity
///
/// A per-atom vector: above 1 an atom is stranger than 99 % of those held out of the training; 0
/// outside the group and of atoms that the model does not describe.
class ComputeScschnetUnfamiliarity : public Compute {
 public:
  ComputeScschnetUnfamiliarity(LAMMPS* lammps, int n_arguments, char** arguments);
  ~ComputeScschnetUnfamiliarity() override;

  void init() override;
  void compute_peratom() override;
  double memory_usage() override;

 private:
  PairScschnet* pair() const;

  int n_allocated_ = 0;  ///< elements of vector_atom
};

}  // namespace LAMMPS_NS
