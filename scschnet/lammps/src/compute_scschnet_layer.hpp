// Compute scschnet/layer: what each layer of the model contributes to the energy of each atom.
#pragma once

#include <compute.h>

namespace LAMMPS_NS {

class PairScschnet;

/// compute ID group scschnet/layer
///
/// A per-atom array: column 1 is the energy of the embedding, column l + 1 that of block l, in the
/// energy unit of the run. Their sum and the energy of the bare element make the energy of the
/// atom.
class ComputeScschnetLayer : public Compute {
 public:
  ComputeScschnetLayer(LAMMPS* lammps, int n_arguments, char** arguments);
  ~ComputeScschnetLayer() override;

  void init() override;
  void compute_peratom() override;
  double memory_usage() override;

 private:
  PairScschnet* pair() const;

  int n_allocated_ = 0;  ///< rows of array_atom
};

}  // namespace LAMMPS_NS
