// Pair style scschnet: energies, forces and virials of an exported model.
#pragma once

#include <pair.h>

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "error_bars.hpp"
#include "pairs.hpp"
#include "row_exchange.hpp"
#include "rows.hpp"
#include "unit_styles.hpp"

namespace scschnet {
struct Evaluation;
struct Extras;
class ExportedModel;
}  // namespace scschnet

namespace LAMMPS_NS {

/// pair_style scschnet [wide] [isotopes]
///
/// Ghosts are one cutoff deep, and between interaction blocks their features come from the ranks
/// that own them. With `wide` ghosts are as deep as the model sees and nothing is exchanged: much
/// slower, another way to the same numbers. With `isotopes` the mass of an atom may be any;
/// without, it must be that of its element.
///
/// Atoms that neigh_modify exclude leaves without any pair, as `exclude group ID all` and fix gcmc
/// do, are not there: they count no energy.
class PairScschnet : public Pair {
 public:
  explicit PairScschnet(LAMMPS* lammps);
  ~PairScschnet() override;

  void settings(int n_arguments, char** arguments) override;
  void coeff(int n_arguments, char** arguments) override;
  void init_style() override;
  double init_one(int type_i, int type_j) override;
  void compute(int energy_flag, int virial_flag) override;
  double memory_usage() override;
  void write_restart(FILE* file) override;
  void read_restart(FILE* file) override;
  void write_restart_settings(FILE* file) override;
  void read_restart_settings(FILE* file) override;

  int pack_forward_comm(int n, int* atoms, double* buffer, int, int*) override;
  void unpack_forward_comm(int n, int first, double* buffer) override;
  int pack_reverse_comm(int n, int first, double* buffer) override;
  void unpack_reverse_comm(int n, int* atoms, double* buffer) override;

  /// The model as pair_coeff names it, for messages.
  const std::string& file() const { return file_; }

  /// Embedding and interaction blocks of the model, 0 before pair_coeff.
  int n_layers() const;

  /// Energy of each layer, to[atom][layer], of the local atoms that the model describes; to be
  /// called on all ranks.
  void layer_energies(double** to);

  /// Whether the model tells how unfamiliar atoms are; false before pair_coeff.
  bool has_unfamiliarity() const;

  /// Unfamiliarity, to[atom], of the local atoms that the model describes; to be called on all
  /// ranks. What compute() found on this step, without another evaluation if there was one.
  void unfamiliarity(double* to);

  /// Whether the model gives error bars; false before pair_coeff.
  bool has_error_bars() const;

  /// Error bars in LAMMPS' units; to be called on all ranks. Those of the evaluation that
  /// compute() made on this step, without another one if there was one.
  scschnet::lammps::ErrorBars error_bars();

  /// The only pair style scschnet; stops with the name of the command that needs it otherwise.
  static PairScschnet* find(LAMMPS* lammps, const char* command);

 private:
  class Halo;
  using Kind = std::pair<int, int>;  ///< type of an atom and its groups, atom->mask

  void allocate();
  void take_units();
  void load(const std::string& file);
  void set_elements(char** symbols);
  void check_neighbor_settings();
  void check_masses();
  void fail(const std::string& message);
  bool pairs_are_excluded(const Kind& a, const Kind& b) const;
  std::set<Kind> kinds() const;
  std::set<Kind> kinds_without_pairs() const;
  void choose_atoms();
  void check_neighbors();
  void update_rows();
  void receive_owners();
  scschnet::Evaluation evaluate(scschnet::Extras extras);
  void add_forces(const scschnet::Evaluation& result);
  void add_energies(const scschnet::Evaluation& result);
  void add_virials(const scschnet::Evaluation& result);
  const scschnet::Evaluation& evaluation_of_this_step();
  scschnet::Evaluation lone_atom() const;
  void add_up(const double* of_rows, double unit);

  bool wide_ = false;
  bool isotopes_ = false;
  scschnet::lammps::UnitStyle units_{};
  std::unique_ptr<scschnet::ExportedModel> model_;
  std::string file_, command_;           ///< as given, for messages
  std::vector<std::int64_t> z_of_type_;  ///< by type, 0: not in the model
  std::vector<std::int64_t> z_of_atom_;  ///< (n_all,), 0: not in the model
  std::vector<int> centers_;             ///< atoms of the neighbor list that are in the model
  int n_local_centers_ = 0;              ///< the first of them
  scschnet::lammps::Rows rows_;
  scschnet::lammps::Pairs pairs_;
  scschnet::lammps::RowExchange exchange_;
  std::int64_t built_at_ = -1;      ///< number of the neighbor list that rows_ and pairs_ fit
  std::vector<double> built_from_;  ///< positions of all atoms and ghosts when it was built
  std::vector<double> owners_;      ///< (n_all,)
  std::vector<double> vectors_;     ///< (n_all, 3), to be added up over the images of an atom
  std::unique_ptr<scschnet::Evaluation> evaluation_;  ///< of the step evaluated_at_
  std::int64_t evaluated_at_ = -1;
};

}  // namespace LAMMPS_NS
