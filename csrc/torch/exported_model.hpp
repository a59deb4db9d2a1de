// An exported model in a C++ program: loads the file that `python -m scschnet.export` writes and
// evaluates it, without Python.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace scschnet {

/// What an evaluation returns: float64, contiguous, in the memory of the CPU; eV and Å.
struct Evaluation {
  at::Tensor energy;    ///< () eV, of the local atoms
  at::Tensor energies;  ///< (n_local,) eV
  at::Tensor forces;    ///< (n_atoms, 3) eV/Å, -dE/dr; those on ghosts belong to their owners
  at::Tensor virial;    ///< (3, 3) eV, -sum over pairs of r_ij (x) dE/dr_ij = -dE/dstrain
  at::Tensor correction_norms;  ///< (n_interactions + 1, n_local)

  /// (n_local,), not negative: above 1 an atom is stranger than 99 % of the held-out ones. Not
  /// defined if the file has no statistics of its training set.
  at::Tensor unfamiliarity;

  // Error bars, not defined if the file has none. Those of a committee are root mean squares of its
  // members' deviations from their mean. energies_std (n_local,) and energy_std () eV; forces_std
  // (n_atoms,) eV/Å; virial_std (3, 3) eV, of a committee alone.
  at::Tensor energy_std, energies_std, forces_std, virial_std;

  // The deviations themselves, of a committee: (n_members,), (n_members, n_atoms, 3) and
  // (n_members, 3, 3); of one model (n_features,) of the energy alone. A host with ghosts, or with
  // several processes, adds these to their owners as it does with forces, energies and virials, and
  // takes the root mean squares itself.
  at::Tensor energy_deviations, forces_deviations, virial_deviations;

  // with Extras::layers: energies = base_energies + layer_energies.sum(0)
  at::Tensor layer_energies;  ///< (n_interactions + 1, n_local) eV
  at::Tensor base_energies;   ///< (n_local,) eV

  // with Extras::atom_virial
  at::Tensor atom_virial;  ///< (n_atoms, 3, 3) eV, half of every pair's; adds up to `virial`
};

/// Results that are computed when asked for.
struct Extras {
  bool layers = false;
  bool atom_virial = false;
};

/// A trained model, read from one file.
///
/// Copies share the model. Evaluations may run in several threads at once; each uses as many
/// threads as torch has there: at::set_num_threads(n), or OMP_NUM_THREADS. Nothing of the process
/// is changed: the model is interpreted as it stands, not profiled and recompiled, so that the
/// first call costs what later ones do, however the number of pairs changes.
///
/// Errors are one sentence: std::runtime_error for files and failed evaluations,
/// std::invalid_argument for arguments, which are named in backticks.
class [[gnu::visibility("default")]] ExportedModel {
 public:
  /// Reads and checks the whole file. A checksum finds damage, not malice: the file holds a
  /// program, which may do whatever this process may. Load none that you do not trust. `device` is
  /// "cpu", or for a portable model one that torch knows.
  static ExportedModel load(const std::string& path, const std::string& device = "cpu");

  double cutoff() const;                ///< Å; how deep ghosts must be with a halo
  std::int64_t n_interactions() const;  ///< without a halo ghosts are n_interactions cutoffs deep
  std::int64_t n_features() const;      ///< width of the rows that the halo exchanges
  const std::string& kind() const;      ///< "full" or "portable"
  const std::string& dtype() const;     ///< of the network: "float32" or "float64"
  const std::vector<std::int64_t>& elements() const;    ///< atomic numbers, ascending
  const std::vector<std::string>& symbols() const;      ///< of these elements
  const std::vector<std::string>& layer_names() const;  ///< n_interactions + 1
  const std::string& metadata() const;                  ///< all that the file says of itself, JSON

  /// One structure; its neighbor list is built inside.
  /// positions (n_atoms, 3) float32 or float64 Å; atomic_numbers (n_atoms,) int64; cell (3, 3),
  /// rows are lattice vectors, Å, rows of open axes are ignored; pbc (3,) bool.
  Evaluation evaluate(const at::Tensor& positions, const at::Tensor& atomic_numbers,
                      const at::Tensor& cell, const at::Tensor& pbc, Extras extras = {}) const;

  /// Pairs from the host. atomic_numbers (n_atoms,) int64: local atoms first, then ghosts. idx_i,
  /// idx_j (n_pairs,) int64, sorted by idx_i; r_ij (n_pairs, 3) float64 Å from i to (the image of)
  /// j. Pairs beyond the cutoff count nothing.
  ///
  /// Two local atoms are paired once, either way round. With `halo` ghosts are one cutoff deep,
  /// every pair of a local atom with a ghost has the local one as idx_i, ghosts have no pairs with
  /// each other, and the host exchanges features of ghosts (halo.h). Without it ghosts are
  /// n_interactions cutoffs deep and paired like local atoms.
  Evaluation evaluate_pairs(const at::Tensor& atomic_numbers, const at::Tensor& idx_i,
                            const at::Tensor& idx_j, const at::Tensor& r_ij, std::int64_t n_local,
                            bool halo, Extras extras = {}) const;

 private:
  struct [[gnu::visibility("hidden")]] State;
  explicit ExportedModel(std::shared_ptr<const State> state);
  void try_out(const std::string& path) const;
  std::shared_ptr<const State> state_;
};

}  // namespace scschnet
