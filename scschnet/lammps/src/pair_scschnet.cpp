// Pair style scschnet: LAMMPS' atoms and neighbors become rows and pairs of the model, its results
// are added to those of other styles.
#include "pair_scschnet.hpp"

#include "masses.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <atom.h>
#include <comm.h>
#include <error.h>
#include <force.h>
#include <lammps.h>
#include <memory.h>
#include <neigh_list.h>
#include <neighbor.h>
#include <scschnet/halo.h>
#include <update.h>
#include <utils.h>
#include <scschnet/exported_model.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <numeric>

namespace LAMMPS_NS {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

}  // namespace

using scschnet::Evaluation;
using scschnet::ExportedModel;
using scschnet::Extras;
using namespace scschnet::lammps;

// ---- halo: rows of features to and from other ranks

/// Registers the exchange for one evaluation.
class PairScschnet::Halo {
 public:
  explicit Halo(RowExchange* exchange) {
    const scschnet_halo halo{exchange, forward, reverse};
    scschnet_set_halo(&halo);
  }
  ~Halo() { scschnet_set_halo(nullptr); }
  Halo(const Halo&) = delete;
  Halo& operator=(const Halo&) = delete;

 private:
  static void forward(void* exchange, void* rows, std::int64_t width, int is_double) {
    static_cast<RowExchange*>(exchange)->forward(rows, static_cast<int>(width), is_double != 0);
  }

  static void reverse(void* exchange, void* rows, std::int64_t width, int is_double) {
    static_cast<RowExchange*>(exchange)->reverse(rows, static_cast<int>(width), is_double != 0);
  }
};

/// LAMMPS makes ghosts without saying of which atoms of which ranks; this asks it.
void PairScschnet::receive_owners() {
  owners_.resize(atom->nlocal + atom->nghost);
  for (int i = 0; i < atom->nlocal; ++i) owners_[i] = static_cast<double>(owner(comm->me, i));
  comm->forward_comm(this, 1);
}

int PairScschnet::pack_forward_comm(int n, int* atoms, double* buffer, int, int*) {
  for (int k = 0; k < n; ++k) buffer[k] = owners_[atoms[k]];
  return n;
}

void PairScschnet::unpack_forward_comm(int n, int first, double* buffer) {
  std::copy_n(buffer, n, owners_.begin() + first);
}

/// Adds a vector of every row to its atom, and then those of ghosts to the atoms they are images
/// of, as LAMMPS does with forces.
void PairScschnet::add_up(const double* of_rows, double unit) {
  vectors_.assign(3 * static_cast<std::size_t>(atom->nlocal + atom->nghost), 0.0);
  for (int row = 0; row < rows_.n_rows(); ++row) {
    if (rows_.atom(row) < 0) continue;
    double* to = &vectors_[3 * static_cast<std::size_t>(rows_.atom(row))];
    for (int k = 0; k < 3; ++k) to[k] += unit * of_rows[3 * row + k];
  }
  comm->reverse_comm(this, 3);
}

int PairScschnet::pack_reverse_comm(int n, int first, double* buffer) {
  std::copy_n(vectors_.begin() + 3 * static_cast<std::ptrdiff_t>(first), 3 * n, buffer);
  return 3 * n;
}

void PairScschnet::unpack_reverse_comm(int n, int* atoms, double* buffer) {
  for (int k = 0; k < n; ++k) {
    double* to = &vectors_[3 * static_cast<std::size_t>(atoms[k])];
    for (int axis = 0; axis < 3; ++axis) to[axis] += buffer[3 * k + axis];
  }
}

// ---- commands of the input

PairScschnet::PairScschnet(LAMMPS* lammps) : Pair(lammps) {
  single_enable = 0;
  writedata = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;  // the model gives the virial
  centroidstressflag = CENTROID_NOTAVAIL;
  comm_forward = 1;
  comm_reverse = 3;
}

PairScschnet::~PairScschnet() {
  if (copymode || !allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
}

void PairScschnet::settings(int n_arguments, char** arguments) {
  wide_ = isotopes_ = false;
  for (int k = 0; k < n_arguments; ++k) {
    if (std::strcmp(arguments[k], "wide") == 0) {
      wide_ = true;
    } else if (std::strcmp(arguments[k], "isotopes") == 0) {
      isotopes_ = true;
    } else {
      error->all(FLERR, "pair_style scschnet takes nothing, `wide` or `isotopes`, got {}",
                 arguments[k]);
    }
  }
  take_units();
}

void PairScschnet::take_units() {
  const std::string name = update->unit_style;
  const auto* found = std::find_if(unit_styles.begin(), unit_styles.end(),
                                   [&name](const UnitStyle& u) { return u.name == name; });
  if (found == unit_styles.end()) {
    error->all(FLERR,
               "pair_style scschnet needs units that have a size: metal, real, electron, si, cgs, "
               "micro or nano, got {}",
               name);
  }
  units_ = *found;
}

/// Stops all ranks if one has something to complain about; to be called on all.
void PairScschnet::fail(const std::string& message) {
  int failed = message.empty() ? 0 : 1, n_failed = 0;
  MPI_Allreduce(&failed, &n_failed, 1, MPI_INT, MPI_SUM, world);
  if (n_failed == comm->nprocs) error->all(FLERR, message);
  if (failed) error->one(FLERR, message);
  if (n_failed > 0) MPI_Barrier(world);  // until the others have ended this run
}

void PairScschnet::load(const std::string& file) {
  std::string message;
  try {
    const std::string found = utils::get_potential_file_path(file);
    model_ = std::make_unique<ExportedModel>(ExportedModel::load(found.empty() ? file : found));
  } catch (const std::exception& problem) {
    message = problem.what();
  }
  fail(message);
  file_ = file;
  evaluated_at_ = -1;
}

void PairScschnet::set_elements(char** symbols) {
  const auto& known = model_->symbols();
  for (int type = 1; type <= atom->ntypes; ++type) {
    const std::string symbol = symbols[type - 1];
    z_of_type_[type] = 0;
    if (symbol == "NULL" && force->pair != this) continue;  // another style of hybrid has them
    const auto found = std::find(known.begin(), known.end(), symbol);
    if (found == known.end()) {
      error->all(FLERR, "Type {} must be an element of {}, {}, got {}", type, file_, joined(known),
                 symbol);
    }
    z_of_type_[type] = model_->elements()[found - known.begin()];
  }
}

void PairScschnet::allocate() {
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  for (int i = 0; i < n; ++i) std::fill_n(setflag[i], n, 0);
  allocated = 1;
}

void PairScschnet::coeff(int n_arguments, char** arguments) {
  const int n_types = atom->ntypes;
  if (!allocated) allocate();
  if (n_arguments != 3 + n_types) {
    error->all(FLERR,
               "pair_coeff of scschnet must be `* * FILE` and an element or NULL for each of {} "
               "atom types, got `{}`",
               n_types, joined({arguments, arguments + n_arguments}));
  }
  command_ = "pair_coeff " + joined({arguments, arguments + n_arguments});
  load(arguments[2]);
  z_of_type_.assign(n_types + 1, 0);
  set_elements(arguments + 3);
  for (int i = 1; i <= n_types; ++i) {
    for (int j = i; j <= n_types; ++j) setflag[i][j] = z_of_type_[i] && z_of_type_[j] ? 1 : 0;
  }
}

/// The model needs all pairs within its cutoff; LAMMPS leaves some out of its lists when told so.
void PairScschnet::check_neighbor_settings() {
  if (force->newton_pair == 0) {
    error->all(FLERR, "pair_style scschnet needs `newton on` for pairs, got off");
  }
  bool some = neighbor->nex_type + neighbor->nex_mol > 0;
  for (int k = 0; k < neighbor->nex_group; ++k) {  // group 0 is `all`: see kinds_without_pairs
    some = some || (neighbor->ex1_group[k] != 0 && neighbor->ex2_group[k] != 0);
  }
  if (some && comm->me == 0) {
    error->warning(
        FLERR,
        "pair_style scschnet does not see pairs left out by neigh_modify exclude: atoms "
        "that lose some have the energy of another environment, atoms that lose all none");
  }
  const bool bonded = atom->molecular == Atom::TEMPLATE || atom->nbonds > 0;
  for (int k = 1; k <= 3 && bonded; ++k) {
    if (force->special_lj[k] == 0.0 && force->special_coul[k] == 0.0) {
      error->all(FLERR,
                 "pair_style scschnet needs the pairs that special_bonds leaves out: set it to "
                 "`special_bonds lj/coul 1.0 1.0 1.0` (the factors themselves are not used), got a "
                 "factor of 0 for pairs {} bonds apart",
                 k);
    }
  }
}

/// Atoms whose mass is not that of their element were most likely given the wrong element.
void PairScschnet::check_masses() {
  if (isotopes_) return;
  const auto expected = [this](int type) { return atomic_masses[z_of_type_[type] - 1]; };
  std::vector<double> wrong(atom->ntypes + 1), found(wrong);  // by type, 0: no such atom
  for (int i = 0; i < atom->nlocal; ++i) {
    const int type = atom->type[i];
    if (z_of_type_[type] == 0 || (!atom->rmass && !atom->mass_setflag[type])) continue;
    const double mass = (atom->rmass ? atom->rmass[i] : atom->mass[type]) / units_.dalton;
    if (std::abs(mass - expected(type)) > mass_tolerance) wrong[type] = mass;
  }
  MPI_Allreduce(wrong.data(), found.data(), atom->ntypes + 1, MPI_DOUBLE, MPI_MAX, world);
  for (int type = 1; type <= atom->ntypes; ++type) {
    if (found[type] == 0.0) continue;
    const auto& known = model_->elements();
    const auto place = std::find(known.begin(), known.end(), z_of_type_[type]) - known.begin();
    error->all(
        FLERR,
        "`{}` says that type {} is {}, whose mass is {:.5g} {}, but the mass of {} is {:.5g} "
        "{}: give the elements in the order of the types, or `pair_style scschnet isotopes` "
        "if the masses are meant",
        command_, type, model_->symbols()[place], expected(type) * units_.dalton, units_.mass_unit,
        atom->rmass ? "an atom of the type" : "the type", found[type] * units_.dalton,
        units_.mass_unit);
  }
}

void PairScschnet::init_style() {
  check_neighbor_settings();
  check_masses();
  at::set_num_threads(comm->nthreads);
  if (wide_) {
    neighbor->add_request(this, NeighConst::REQ_FULL | NeighConst::REQ_GHOST);
    const double cutoff = model_->cutoff() * units_.angstrom;
    const double depth = std::max<std::int64_t>(model_->n_interactions(), 1) * cutoff;
    comm->cutghostuser = std::max(comm->cutghostuser, depth + neighbor->skin);
    return;
  }
  if (model_->kind() == "portable" && comm->nprocs > 1) {
    error->all(FLERR,
               "{} is a portable file, which cannot exchange features between ranks: export it "
               "without --portable, use one rank instead of {}, or pair_style scschnet wide",
               file_, comm->nprocs);
  }
  neighbor->add_request(this, NeighConst::REQ_FULL);
}

double PairScschnet::init_one(int, int) {
  return model_->cutoff() * units_.angstrom;
}

int PairScschnet::n_layers() const {
  return model_ ? static_cast<int>(model_->n_interactions()) + 1 : 0;
}

// ---- restart files: the style and its settings; pair_coeff is to be given again

void PairScschnet::write_restart(FILE* file) {
  write_restart_settings(file);
}

void PairScschnet::read_restart(FILE* file) {
  read_restart_settings(file);
  allocate();
}

void PairScschnet::write_restart_settings(FILE* file) {
  const int settings[2] = {wide_ ? 1 : 0, isotopes_ ? 1 : 0};
  fwrite(settings, sizeof(int), 2, file);
}

void PairScschnet::read_restart_settings(FILE* file) {
  int settings[2] = {0, 0};
  if (comm->me == 0) utils::sfread(FLERR, settings, sizeof(int), 2, file, nullptr, error);
  MPI_Bcast(settings, 2, MPI_INT, 0, world);
  wide_ = settings[0] != 0;
  isotopes_ = settings[1] != 0;
  take_units();
}

// ---- atoms of the model

/// An atom that fix gcmc takes out is in no group but the excluded one: `all` is taken at its word.
bool PairScschnet::pairs_are_excluded(const Kind& a, const Kind& b) const {
  if (neighbor->nex_type > 0 && neighbor->ex_type[a.first][b.first]) return true;
  const auto member = [](const Kind& kind, int bit) {
    return bit == 1 || (kind.second & bit) != 0;
  };
  for (int k = 0; k < neighbor->nex_group; ++k) {
    const int one = neighbor->ex1_bit[k], other = neighbor->ex2_bit[k];
    if ((member(a, one) && member(b, other)) || (member(a, other) && member(b, one))) return true;
  }
  return false;
}

/// Of the atoms that pair_coeff gave to the model, on all ranks.
std::set<PairScschnet::Kind> PairScschnet::kinds() const {
  std::set<Kind> here;
  for (int i = 0; i < atom->nlocal; ++i) {
    if (z_of_type_[atom->type[i]] != 0) here.emplace(atom->type[i], atom->mask[i]);
  }
  std::vector<int> flat;
  for (const auto& [type, mask] : here) flat.insert(flat.end(), {type, mask});
  int size = static_cast<int>(flat.size());
  std::vector<int> sizes(comm->nprocs), starts(comm->nprocs + 1);
  MPI_Allgather(&size, 1, MPI_INT, sizes.data(), 1, MPI_INT, world);
  std::partial_sum(sizes.begin(), sizes.end(), starts.begin() + 1);
  std::vector<int> all(starts.back());
  MPI_Allgatherv(flat.data(), size, MPI_INT, all.data(), sizes.data(), starts.data(), MPI_INT,
                 world);
  for (std::size_t k = 0; k < all.size(); k += 2) here.emplace(all[k], all[k + 1]);
  return here;
}

/// Of atoms that neigh_modify exclude takes every pair from. fix gcmc asks so for the energy
/// without an atom; with the energy of a lone atom it would never be the inverse of an insertion.
std::set<PairScschnet::Kind> PairScschnet::kinds_without_pairs() const {
  std::set<Kind> found;
  if (neighbor->nex_type + neighbor->nex_group == 0) return found;
  const std::set<Kind> present = kinds();
  for (const Kind& a : present) {
    const auto excluded = [this, &a](const Kind& b) { return pairs_are_excluded(a, b); };
    if (std::all_of(present.begin(), present.end(), excluded)) found.insert(a);
  }
  return found;
}

void PairScschnet::choose_atoms() {
  const std::set<Kind> absent = kinds_without_pairs();
  z_of_atom_.resize(atom->nlocal + atom->nghost);
  for (std::size_t i = 0; i < z_of_atom_.size(); ++i) {
    const bool there = absent.empty() || !absent.count({atom->type[i], atom->mask[i]});
    z_of_atom_[i] = there ? z_of_type_[atom->type[i]] : 0;
  }
  centers_.clear();
  const int n_listed = list->inum + (wide_ ? list->gnum : 0);
  for (int k = 0; k < n_listed; ++k) {
    if (k == list->inum) n_local_centers_ = static_cast<int>(centers_.size());
    if (z_of_atom_[list->ilist[k]] != 0) centers_.push_back(list->ilist[k]);
  }
  if (n_listed == list->inum) n_local_centers_ = static_cast<int>(centers_.size());
}

// ---- evaluation

/// The command write_restart finds ghosts anew, but leaves the neighbor list as it was, which names
/// them by their old numbers: a following `run N pre no` would go on with pairs of other atoms.
void PairScschnet::check_neighbors() {
  if (update->ntimestep != update->firststep + 1) return;  // it happens between runs alone
  const std::size_t n = 3 * static_cast<std::size_t>(atom->nlocal + atom->nghost);
  // Nothing moves so far between two lists.
  const double farthest = 0.5 * model_->cutoff() * units_.angstrom;
  bool same = n == built_from_.size();
  for (std::size_t k = 0; same && k < n; ++k)
    same = std::abs(atom->x[0][k] - built_from_[k]) < farthest;
  if (!same) {
    error->one(FLERR,
               "pair_style scschnet: ghosts were found anew after the neighbor list was built, as "
               "write_restart does: the next run must not have the option pre no");
  }
}

/// Rows and pairs anew whenever LAMMPS has built its neighbor list, on all ranks alike.
void PairScschnet::update_rows() {
  if (neighbor->ago != 0 && neighbor->ncalls == built_at_) return check_neighbors();
  built_at_ = neighbor->ncalls;
  const int n_atoms = atom->nlocal + atom->nghost;
  built_from_.assign(n_atoms > 0 ? atom->x[0] : nullptr,
                     n_atoms > 0 ? atom->x[0] + 3 * static_cast<std::size_t>(n_atoms) : nullptr);
  choose_atoms();
  const Atoms atoms{atom->nlocal, atom->nlocal + atom->nghost, z_of_atom_.data()};
  if (wide_) {
    rows_.keep_images(atoms, n_local_centers_, centers_.data());
  } else {
    receive_owners();
    rows_.merge_images(atoms, n_local_centers_, centers_.data(), owners_.data(), comm->me);
    exchange_.start(world, rows_);
    if (comm->nprocs > 1 && rows_.n_rows() == rows_.n_local()) {
      rows_.add_empty_row(model_->elements().front());
    }
  }
  const int n_centers = static_cast<int>(centers_.size());
  pairs_.choose({n_centers, centers_.data(), list->numneigh, list->firstneigh, NEIGHMASK}, rows_,
                atom->x, cutforce);
}

Evaluation PairScschnet::evaluate(Extras extras) {
  update_rows();
  pairs_.find(rows_, atom->x, model_->cutoff() * units_.angstrom, units_.angstrom);
  const std::int64_t n_pairs = pairs_.n_pairs();
  const auto integers = at::TensorOptions().dtype(at::kLong);
  const auto view = [&](std::int64_t* data, std::int64_t n) {
    return at::from_blob(data, {n}, integers);
  };
  const Halo halo(&exchange_);
  try {
    return model_->evaluate_pairs(
        view(rows_.atomic_numbers(), rows_.n_rows()), view(pairs_.idx_i(), n_pairs),
        view(pairs_.idx_j(), n_pairs),
        at::from_blob(pairs_.r_ij(), {n_pairs, 3}, at::TensorOptions().dtype(at::kDouble)),
        rows_.n_local(), !wide_, extras);
  } catch (const std::exception& problem) {
    error->one(FLERR, "pair_style scschnet with {}: {}", file_, problem.what());
  }
}

void PairScschnet::compute(int energy_flag, int virial_flag) {
  ev_init(energy_flag, virial_flag);
  evaluation_ =
      std::make_unique<Evaluation>(evaluate({.layers = false, .atom_virial = vflag_atom != 0}));
  evaluated_at_ = update->ntimestep;
  add_forces(*evaluation_);
  if (eflag_either) add_energies(*evaluation_);
  if (vflag_either) add_virials(*evaluation_);
}

void PairScschnet::add_forces(const Evaluation& result) {
  const double unit = units_.electronvolt / units_.angstrom;
  const auto* forces = result.forces.const_data_ptr<double>();
  for (int row = 0; row < rows_.n_rows(); ++row) {
    if (rows_.atom(row) < 0) continue;
    double* f = atom->f[rows_.atom(row)];
    for (int k = 0; k < 3; ++k) f[k] += unit * forces[3 * row + k];
  }
}

void PairScschnet::add_energies(const Evaluation& result) {
  const double unit = units_.electronvolt;
  if (eflag_global) eng_vdwl += unit * *result.energy.const_data_ptr<double>();
  if (!eflag_atom) return;
  const auto* energies = result.energies.const_data_ptr<double>();
  for (int row = 0; row < rows_.n_local(); ++row) {
    eatom[rows_.atom(row)] += unit * energies[row];
  }
}

namespace {

/// Adds a tensor (3, 3) to LAMMPS' six components xx, yy, zz, xy, xz, yz.
void add_tensor(double* to, const double* tensor, double unit) {
  constexpr int order[6] = {0, 4, 8, 1, 2, 5};
  for (int k = 0; k < 6; ++k) to[k] += unit * tensor[order[k]];
}

}  // namespace

void PairScschnet::add_virials(const Evaluation& result) {
  const double unit = units_.electronvolt;
  if (vflag_global) add_tensor(virial, result.virial.const_data_ptr<double>(), unit);
  if (!vflag_atom) return;
  const auto* tensors = result.atom_virial.const_data_ptr<double>();
  for (int row = 0; row < rows_.n_rows(); ++row) {
    if (rows_.atom(row) >= 0) add_tensor(vatom[rows_.atom(row)], tensors + 9 * row, unit);
  }
}

void PairScschnet::layer_energies(double** to) {
  const Evaluation result = evaluate({.layers = true, .atom_virial = false});
  const auto* energies = result.layer_energies.const_data_ptr<double>();
  const int n_local = rows_.n_local();
  for (int layer = 0; layer < n_layers(); ++layer) {
    for (int row = 0; row < n_local; ++row) {
      to[rows_.atom(row)][layer] =
          units_.electronvolt * energies[std::int64_t{layer} * n_local + row];
    }
  }
}

const Evaluation& PairScschnet::evaluation_of_this_step() {
  if (evaluated_at_ != update->ntimestep) {
    evaluation_ = std::make_unique<Evaluation>(evaluate({}));
    evaluated_at_ = update->ntimestep;
  }
  return *evaluation_;
}

/// What the model says of one atom: which results it has.
Evaluation PairScschnet::lone_atom() const {
  const auto integers = at::TensorOptions().dtype(at::kLong);
  const at::Tensor z = at::full({1}, model_->elements().front(), integers);
  const at::Tensor none = at::empty({0}, integers), r_ij = at::empty({0, 3}, at::kDouble);
  return model_->evaluate_pairs(z, none, none, r_ij, 1, false);
}

bool PairScschnet::has_unfamiliarity() const {
  return model_ && lone_atom().unfamiliarity.defined();
}

void PairScschnet::unfamiliarity(double* to) {
  const auto* scores = evaluation_of_this_step().unfamiliarity.const_data_ptr<double>();
  for (int row = 0; row < rows_.n_local(); ++row) to[rows_.atom(row)] = scores[row];
}

bool PairScschnet::has_error_bars() const {
  return model_ && lone_atom().forces_std.defined();
}

ErrorBars PairScschnet::error_bars() {
  const Evaluation& result = evaluation_of_this_step();
  const auto n_members = static_cast<int>(result.energy_deviations.size(0));
  if (!result.forces_deviations.defined()) {
    ErrorBars bars(world, atom->nlocal, n_members);
    const auto* of_rows = result.forces_std.const_data_ptr<double>();
    for (int row = 0; row < rows_.n_local(); ++row) {
      bars.in_model[rows_.atom(row)] = true;
      bars.forces[rows_.atom(row)] = units_.electronvolt / units_.angstrom * of_rows[row];
    }
    bars.finish_energy(result.energy_deviations.const_data_ptr<double>(), units_.electronvolt);
    return bars;
  }
  const auto* forces = result.forces_deviations.const_data_ptr<double>();
  ErrorBars bars(world, atom->nlocal, n_members);
  for (int k = 0; k < n_members; ++k) {
    add_up(forces + 3 * std::int64_t{k} * rows_.n_rows(), units_.electronvolt / units_.angstrom);
    bars.add_forces(vectors_.data());
  }
  bars.finish(result.energy_deviations.const_data_ptr<double>(),
              result.virial_deviations.const_data_ptr<double>(), units_.electronvolt);
  for (int row = 0; row < rows_.n_local(); ++row) bars.in_model[rows_.atom(row)] = true;
  return bars;
}

PairScschnet* PairScschnet::find(LAMMPS* lammps, const char* command) {
  const Force* force = lammps->force;
  auto* found = dynamic_cast<PairScschnet*>(lammps->force->pair_match("scschnet", 1));
  if (!found) {
    lammps->error->all(FLERR, "{} needs one pair_style scschnet, got {}", command,
                       force->pair_style ? force->pair_style : "none");
  }
  return found;
}

double PairScschnet::memory_usage() {
  return Pair::memory_usage() + rows_.memory() + pairs_.memory() + exchange_.memory() +
         static_cast<double>(sizeof(double) * (owners_.capacity() + vectors_.capacity()) +
                             sizeof(int) * centers_.capacity() +
                             sizeof(std::int64_t) * z_of_atom_.capacity());
}

}  // namespace LAMMPS_NS
