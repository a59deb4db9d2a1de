// The part of extended XYZ that a potential needs.
#include "structure.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace {

/// The value of key=value or key="value" in a comment line, or nothing.
std::string value_of(const std::string& comment, const std::string& key) {
  const std::size_t at = (" " + comment).find(" " + key + "=");
  if (at == std::string::npos) return "";
  const std::size_t begin = at + key.size() + 1;
  if (comment[begin] != '"') return comment.substr(begin, comment.find(' ', begin) - begin);
  return comment.substr(begin + 1, comment.find('"', begin + 1) - begin - 1);
}

void read_periodicity(const std::string& comment, Structure& structure) {
  const std::string lattice = value_of(comment, "Lattice"), pbc = value_of(comment, "pbc");
  if (lattice.empty()) return;
  std::istringstream numbers(lattice);
  for (double& x : structure.cell) {
    if (!(numbers >> x)) throw std::runtime_error("Lattice must hold 9 numbers, got " + lattice);
  }
  std::istringstream flags(pbc.empty() ? "T T T" : pbc);
  for (bool& periodic : structure.pbc) {
    std::string flag;
    if (!(flags >> flag)) throw std::runtime_error("pbc must hold 3 of T and F, got " + pbc);
    periodic = flag == "T" || flag == "1";
  }
}

Structure read_frame(std::istream& file, const std::vector<std::string>& symbols,
                     const std::vector<std::int64_t>& elements) {
  std::string line;
  std::int64_t n_atoms = 0;
  if (!std::getline(file, line) || !(std::istringstream(line) >> n_atoms) || n_atoms < 1) {
    throw std::runtime_error("the first line must be the number of atoms");
  }
  Structure structure;
  std::getline(file, line);
  read_periodicity(line, structure);
  for (std::int64_t i = 0; i < n_atoms; ++i) {
    std::string symbol;
    double x, y, z;
    if (!std::getline(file, line) || !(std::istringstream(line) >> symbol >> x >> y >> z)) {
      throw std::runtime_error("atom " + std::to_string(i) + " must be an element and 3 numbers");
    }
    const auto known = std::find(symbols.begin(), symbols.end(), symbol);
    if (known == symbols.end()) {
      throw std::runtime_error("atom " + std::to_string(i) + " is " + symbol +
                               ", an element that the model does not know");
    }
    structure.atomic_numbers.push_back(elements[static_cast<std::size_t>(known - symbols.begin())]);
    structure.positions.insert(structure.positions.end(), {x, y, z});
  }
  return structure;
}

}  // namespace

Structure read_xyz(const std::string& path, const std::vector<std::string>& symbols,
                   const std::vector<std::int64_t>& elements) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("there is no readable file " + path);
  try {
    return read_frame(file, symbols, elements);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path + ": " + error.what());
  }
}

double mass(std::int64_t atomic_number) {
  static constexpr std::array<double, 19> weights{
      0.0,    1.008,  4.0026, 6.94,   9.0122, 10.81,  12.011, 14.007, 15.999, 18.998,
      20.180, 22.990, 24.305, 26.982, 28.085, 30.974, 32.06,  35.45,  39.95};
  if (atomic_number < 1 || atomic_number >= static_cast<std::int64_t>(weights.size())) {
    throw std::runtime_error("this example knows masses up to argon, got atomic number " +
                             std::to_string(atomic_number));
  }
  return weights[static_cast<std::size_t>(atomic_number)];
}
