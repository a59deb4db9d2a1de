// Loads an exported model: file, metadata, module, in this order, each checked before the next.
#include "exported_model.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "archive.hpp"
#include "json.hpp"

namespace scschnet {
namespace {

using at::Tensor;
using torch::jit::IValue;

constexpr const char* format_name = "scschnet-exported";
constexpr std::int64_t newest_version = 1;
constexpr const char* this_library = "libscschnet_ops.so";

// ---- metadata

struct Metadata {
  std::string text;
  std::string kind, dtype;
  double cutoff = 0;
  std::int64_t n_interactions = 0, n_features = 0;
  std::vector<std::int64_t> elements;
  std::vector<std::string> symbols, layer_names;
};

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw std::runtime_error(path + " " + why);
}

const Json& member(const Json& json, const char* key) {
  const Json* found = json.find(key);
  if (!found) throw std::invalid_argument("`" + std::string(key) + "` is missing");
  return *found;
}

template <class Value>
const Value& given(const Value* value, const char* key, const char* expected) {
  if (!value) throw std::invalid_argument("`" + std::string(key) + "` must be " + expected);
  return *value;
}

const std::string& text_of(const Json& json, const char* key) {
  return given(member(json, key).string(), key, "a string");
}

double number_of(const Json& json, const char* key) {
  return given(member(json, key).number(), key, "a number");
}

std::int64_t whole(const Json& json, const char* key) {
  constexpr double largest = 1 << 30;
  const double number = given(json.number(), key, "a number");
  if (number != std::floor(number) || std::abs(number) > largest) {
    throw std::invalid_argument("`" + std::string(key) + "` must be a whole number");
  }
  return static_cast<std::int64_t>(number);
}

const Json::Array& array_of(const Json& json, const char* key) {
  return given(member(json, key).array(), key, "an array");
}

void check_values(const Metadata& metadata) {
  const auto require = [](bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
  };
  const auto& [text, kind, dtype, cutoff, n_interactions, n_features, elements, symbols, layers] =
      metadata;
  require(kind == "full" || kind == "portable", "`kind` must be full or portable");
  require(dtype == "float32" || dtype == "float64", "`dtype` must be float32 or float64");
  require(cutoff > 0, "`cutoff` must be positive");
  require(n_features > 0, "`n_features` must be positive");
  require(n_interactions >= 0, "`n_interactions` must not be negative");
  require(!elements.empty() && std::is_sorted(elements.begin(), elements.end()),
          "`elements` must ascend");
  require(symbols.size() == elements.size(), "`symbols` must be as many as `elements`");
  require(layers.size() == static_cast<std::size_t>(n_interactions) + 1,
          "`layers` must be one more than `n_interactions`");
}

Metadata metadata_of(const Json& json, std::string text) {
  Metadata m;
  m.text = std::move(text);
  m.kind = text_of(json, "kind");
  m.dtype = text_of(json, "dtype");
  m.cutoff = number_of(json, "cutoff");
  m.n_interactions = whole(member(json, "n_interactions"), "n_interactions");
  m.n_features = whole(member(json, "n_features"), "n_features");
  for (const Json& z : array_of(json, "elements")) m.elements.push_back(whole(z, "elements"));
  for (const Json& s : array_of(json, "symbols")) {
    m.symbols.push_back(given(s.string(), "symbols", "strings"));
  }
  for (const Json& layer : array_of(json, "layers")) {
    m.layer_names.push_back(text_of(layer, "name"));
  }
  check_values(m);
  return m;
}

/// Whether this library can run the file, and in the way this class does.
void check_use(const Json& json, const std::string& path) {
  const std::string& host = text_of(json, "host");
  if (host != "any") {
    refuse(path, "was exported for " + host +
                     ", which calls it in its own way: export it without --host");
  }
  for (const Json& library : array_of(json, "operator_libraries")) {
    const std::string& name = given(library.string(), "operator_libraries", "strings");
    if (name != this_library) {
      refuse(path, "needs the operators of " + name + ", which " + this_library + " does not have");
    }
  }
}

Metadata read_metadata(Archive& archive, const std::string& path) {
  std::optional<std::string> text = archive.record("extra/scschnet.json");
  if (!text) {
    const bool checkpoint =
        archive.record("data.pkl").value_or("").find("scschnet-checkpoint") != std::string::npos;
    refuse(path, checkpoint ? "is a checkpoint, not an exported model: run scschnet export on it"
                            : "is a file of torch, but not an exported model of scschnet");
  }
  try {
    const Json json = Json::parse(*text);
    if (text_of(json, "format") != format_name) {
      refuse(path, "is a file of scschnet, but not an exported model");
    }
    const std::int64_t version = whole(member(json, "version"), "version");
    if (version > newest_version) {
      refuse(path, "has export version " + std::to_string(version) +
                       ", but this scschnet reads up to " + std::to_string(newest_version) +
                       ": install a newer scschnet");
    }
    check_use(json, path);
    return metadata_of(json, std::move(*text));
  } catch (const std::invalid_argument& error) {
    refuse(path, "has metadata that cannot be used: " + std::string(error.what()));
  }
}

// ---- module

/// What the innermost error said: the interpreter puts its traceback before it and names its type
/// ("builtins.ValueError: ..."); what follows in other lines is the traceback of C++.
std::string sentence(const std::exception& error) {
  const auto* from_torch = dynamic_cast<const c10::Error*>(&error);
  std::istringstream lines(from_torch ? from_torch->what_without_backtrace() : error.what());
  std::string found;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t mark = line.find("Error: ");
    if (found.empty()) found = line;
    if (mark != std::string::npos && line.find(' ') > mark) found = line.substr(mark + 7);
  }
  return found;
}

torch::jit::Module read_module(const Archive& archive, const std::string& path,
                               const std::string& device) {
  std::optional<at::Device> place;
  try {
    place.emplace(device);
  } catch (const std::exception&) {
    throw std::invalid_argument("`device` must be one that torch knows, for example cpu, got " +
                                device);
  }
  try {
    torch::jit::Module module = torch::jit::load(archive.adapter(), place);
    module.eval();
    return module;
  } catch (const std::exception& error) {
    const std::string text = error.what(), mark = "Unknown builtin op: ";
    const std::size_t at = text.find(mark);
    if (at == std::string::npos) refuse(path, "cannot be loaded: " + sentence(error));
    std::string name = text.substr(at + mark.size());
    name = name.substr(0, name.find_first_of(".\n"));
    refuse(path, "needs the operator " + name + ", which " + this_library +
                     " does not have: install the scschnet that exported it, or a newer one");
  }
}

torch::jit::Method method(const torch::jit::Module& module, const char* name,
                          const std::string& path) {
  const auto found = module.find_method(name);
  if (!found) refuse(path, "does not fit its metadata: it has no method " + std::string(name));
  return *found;
}

}  // namespace

struct ExportedModel::State {
  Metadata metadata;
  torch::jit::Module module;
  torch::jit::Method forward, forward_pairs;
  at::Device device;

  Evaluation call(const torch::jit::Method& method, std::vector<IValue> arguments,
                  Extras extras) const;
  void check_elements(const Tensor& atomic_numbers) const;
};

namespace {

std::string name_of(at::ScalarType dtype) {
  return std::string(c10::getDtypeNames(dtype).first);
}

/// What the caller gave, on the device of the model.
Tensor checked(const Tensor& tensor, const char* name, at::IntArrayRef sizes,
               std::initializer_list<at::ScalarType> dtypes, const at::Device& device) {
  const auto complain = [name](const std::string& expected, const auto& got) {
    std::ostringstream text;
    text << "`" << name << "` must " << expected << ", got " << got;
    throw std::invalid_argument(text.str());
  };
  if (!tensor.defined()) complain("be a tensor", "none");
  if (tensor.sizes() != sizes) {
    std::ostringstream expected;
    expected << "have shape " << sizes;
    complain(expected.str(), tensor.sizes());
  }
  if (std::find(dtypes.begin(), dtypes.end(), tensor.scalar_type()) == dtypes.end()) {
    std::ostringstream expected;
    for (const auto dtype : dtypes)
      expected << (expected.tellp() > 0 ? " or " : "be ") << name_of(dtype);
    complain(expected.str(), name_of(tensor.scalar_type()));
  }
  return tensor.to(device);
}

std::int64_t length(const Tensor& tensor) {
  return tensor.defined() && tensor.dim() > 0 ? tensor.size(0) : 0;
}

}  // namespace

void ExportedModel::State::check_elements(const Tensor& atomic_numbers) const {
  const Tensor z = atomic_numbers.cpu().contiguous();
  const auto* numbers = z.const_data_ptr<std::int64_t>();
  const auto& known = metadata.elements;
  for (std::int64_t i = 0; i < z.numel(); ++i) {
    if (std::binary_search(known.begin(), known.end(), numbers[i])) continue;
    std::ostringstream text;
    text << "`atomic_numbers` must be elements of the model,";
    for (const auto element : known) text << ' ' << element;
    text << ", got " << numbers[i] << " (atom " << i << ")";
    throw std::invalid_argument(text.str());
  }
}

Evaluation ExportedModel::State::call(const torch::jit::Method& method,
                                      std::vector<IValue> arguments, Extras extras) const {
  // As it stands: the profiling executor would compile anew whenever the number of pairs surprises
  // it.
  const torch::jit::GraphOptimizerEnabledGuard no_optimizer(false);
  const at::NoGradGuard no_gradients;  // forces are results
  arguments.insert(arguments.end(), {extras.layers, extras.atom_virial});
  try {
    const auto results = method(std::move(arguments)).toGenericDict();
    const auto get = [&](const char* key, bool wanted = true) {
      if (!wanted) return Tensor();
      return results.at(key).toTensor().detach().to(at::kCPU, at::kDouble).contiguous();
    };
    const auto if_there = [&](const char* key) { return get(key, results.contains(key)); };
    return {.energy = get("energy"),
            .energies = get("energies"),
            .forces = get("forces"),
            .virial = get("virial"),
            .correction_norms = get("correction_norms"),
            .unfamiliarity = if_there("unfamiliarity"),
            .energy_std = if_there("energy_std"),
            .energies_std = if_there("energies_std"),
            .forces_std = if_there("forces_std"),
            .virial_std = if_there("virial_std"),
            .energy_deviations = if_there("energy_deviations"),
            .forces_deviations = if_there("forces_deviations"),
            .virial_deviations = if_there("virial_deviations"),
            .layer_energies = get("layer_energies", extras.layers),
            .base_energies = get("base_energies", extras.layers),
            .atom_virial = get("atom_virial", extras.atom_virial)};
  } catch (const std::exception& error) {
    throw std::runtime_error("the model could not be evaluated: " + sentence(error));
  }
}

ExportedModel::ExportedModel(std::shared_ptr<const State> state) : state_(std::move(state)) {}

ExportedModel ExportedModel::load(const std::string& path, const std::string& device) {
  Archive archive(path);
  Metadata metadata = read_metadata(archive, path);
  torch::jit::Module module = read_module(archive, path, device);
  auto forward = method(module, "forward", path);
  auto forward_pairs = method(module, "forward_pairs", path);
  ExportedModel model(
      std::make_shared<const State>(State{std::move(metadata), std::move(module),
                                          std::move(forward), std::move(forward_pairs), device}));
  model.try_out(path);
  return model;
}

/// Two atoms: that all results are there, and what torch prepares on its first calls.
void ExportedModel::try_out(const std::string& path) const {
  const auto real = at::TensorOptions(at::kDouble);
  const Tensor z = at::full({2}, elements().front(), at::kLong), one = at::full({1}, 1, at::kLong);
  const Tensor r_ij = at::full({1, 3}, cutoff() / 2, real);
  const Extras all{.layers = true, .atom_virial = true};
  try {
    evaluate(at::cat({at::zeros({1, 3}, real), r_ij}), z, at::zeros({3, 3}, real),
             at::zeros({3}, at::kBool), all);
    evaluate_pairs(z, at::zeros({1}, at::kLong), one, r_ij, 2, true, all);
  } catch (const std::exception& error) {
    refuse(path, "cannot be used: " + std::string(error.what()));
  }
}

double ExportedModel::cutoff() const {
  return state_->metadata.cutoff;
}
std::int64_t ExportedModel::n_interactions() const {
  return state_->metadata.n_interactions;
}
std::int64_t ExportedModel::n_features() const {
  return state_->metadata.n_features;
}
const std::string& ExportedModel::kind() const {
  return state_->metadata.kind;
}
const std::string& ExportedModel::dtype() const {
  return state_->metadata.dtype;
}
const std::vector<std::int64_t>& ExportedModel::elements() const {
  return state_->metadata.elements;
}
const std::vector<std::string>& ExportedModel::symbols() const {
  return state_->metadata.symbols;
}
const std::vector<std::string>& ExportedModel::layer_names() const {
  return state_->metadata.layer_names;
}
const std::string& ExportedModel::metadata() const {
  return state_->metadata.text;
}

Evaluation ExportedModel::evaluate(const Tensor& positions, const Tensor& atomic_numbers,
                                   const Tensor& cell, const Tensor& pbc, Extras extras) const {
  const std::int64_t n_atoms = length(positions);
  const auto real = {at::kDouble, at::kFloat};
  const auto& device = state_->device;
  std::vector<IValue> arguments{
      checked(positions, "positions", {n_atoms, 3}, real, device),
      checked(atomic_numbers, "atomic_numbers", {n_atoms}, {at::kLong}, device),
      checked(cell, "cell", {3, 3}, real, device), checked(pbc, "pbc", {3}, {at::kBool}, device)};
  state_->check_elements(atomic_numbers);
  return state_->call(state_->forward, std::move(arguments), extras);
}

Evaluation ExportedModel::evaluate_pairs(const Tensor& atomic_numbers, const Tensor& idx_i,
                                         const Tensor& idx_j, const Tensor& r_ij,
                                         std::int64_t n_local, bool halo, Extras extras) const {
  const std::int64_t n_atoms = length(atomic_numbers), n_pairs = length(idx_i);
  const auto& device = state_->device;
  std::vector<IValue> arguments{
      checked(atomic_numbers, "atomic_numbers", {n_atoms}, {at::kLong}, device),
      checked(idx_i, "idx_i", {n_pairs}, {at::kLong}, device),
      checked(idx_j, "idx_j", {n_pairs}, {at::kLong}, device),
      checked(r_ij, "r_ij", {n_pairs, 3}, {at::kDouble}, device),
      n_local,
      halo};
  if (n_local < 0 || n_local > n_atoms) {
    throw std::invalid_argument("`n_local` must lie between 0 and the number of atoms, " +
                                std::to_string(n_atoms) + ", got " + std::to_string(n_local));
  }
  state_->check_elements(atomic_numbers);
  return state_->call(state_->forward_pairs, std::move(arguments), extras);
}

}  // namespace scschnet
