// What a pair is, in double precision, from the input as given.
#pragma once

#include <cstdint>

namespace scschnet::cpu {

/// Lattice vectors of one structure; zero along open axes.
struct Cell {
  double rows[9] = {};

  Cell(const double* cell, const bool* pbc) {
    for (int k = 0; k < 9; ++k) {
      if (pbc != nullptr && pbc[k / 3]) rows[k] = cell[k];
    }
  }
};

/// r = r_j - r_i + S·cell and its square. Reversing the pair changes the signs and nothing else,
/// not even the rounding.
struct PairVector {
  double r[3];
  double squared;

  template <class Scalar>
  PairVector(const Scalar* r_i, const Scalar* r_j, const std::int32_t (&shift)[3], const Cell& cell)
      : squared(0) {
    for (int k = 0; k < 3; ++k) {
      const double direct = static_cast<double>(r_j[k]) - static_cast<double>(r_i[k]);
      r[k] = (direct + shift[0] * cell.rows[k]) +
             (shift[1] * cell.rows[3 + k] + shift[2] * cell.rows[6 + k]);
      squared += r[k] * r[k];
    }
  }
};

}  // namespace scschnet::cpu
