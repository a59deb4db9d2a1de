// A structure, read from an (extended) XYZ file.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

struct Structure {
  std::vector<std::int64_t> atomic_numbers;  // (n_atoms,)
  std::vector<double> positions;             // (n_atoms, 3) Å
  std::array<double, 9> cell{};              // rows are lattice vectors, Å
  std::array<bool, 3> pbc{};

  std::int64_t n_atoms() const { return static_cast<std::int64_t>(atomic_numbers.size()); }
};

/// The first frame of the file. Element and position are the first four columns; Lattice="..." and
/// pbc="T F T" are read from the comment line, and a lattice without pbc is periodic. `symbols` and
/// `elements` are the model's. Throws std::runtime_error, naming the file and what is wrong.
Structure read_xyz(const std::string& path, const std::vector<std::string>& symbols,
                   const std::vector<std::int64_t>& elements);

/// amu, standard atomic weights of 2021 (abridged); throws std::runtime_error beyond argon.
double mass(std::int64_t atomic_number);
