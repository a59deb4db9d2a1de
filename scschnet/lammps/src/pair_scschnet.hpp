// Pair style scschnet: energies, forces and virials of an exported model.
#pragma once

#include <pair.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

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
/// slower, another way to the same numbers. With `isotopes` the mass of a type may be any; without,
/// it must be that of its element.
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

  /// Embedding and interaction blocks of the model, 0 before pair_coeff.
  int n_layers() const;

  /// Energy of each layer, to[atom][layer], of the local atoms that the model describes; to be
  /// called on all ranks.
  void layer_energies(double** to);

 private:
  class Halo;

  void allocate();
  void take_units();
  void load(const std::string& file);
  void set_elements(char** symbols);
  void check_neighbor_settings();
  void check_masses();
  void fail(const std::string& message);
  void update_rows();
  void receive_owners();
  scschnet::Evaluation evaluate(scschnet::Extras extras);
  void add_forces(const scschnet::Evaluation& result);
  void add_energies(const scschnet::Evaluation& result);
  void add_virials(const scschnet::Evaluation& result);

  bool wide_ = false;
  bool isotopes_ = false;
  scschnet::lammps::UnitStyle units_{};
  std::unique_ptr<scschnet::ExportedModel> model_;
  std::string file_;                     ///< as given, for messages
  std::vector<std::int64_t> z_of_type_;  ///< by type, 0: not in the model
  scschnet::lammps::Rows rows_;
  scschnet::lammps::Pairs pairs_;
  scschnet::lammps::RowExchange exchange_;
  std::int64_t built_at_ = -1;  ///< number of the neighbor list that rows_ and pairs_ fit
  std::vector<double> owners_;  ///< (n_all,)
};

}  // namespace LAMMPS_NS
