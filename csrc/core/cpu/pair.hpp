// The vector of a pair in double precision, from the input as given. It alone decides which pairs
// are in the list.
#pragma once

#include <cstdint>

namespace scschnet::cpu {

/// The lattice vectors of one structure, with zeros along open axes.
struct Cell {
  double rows[9] = {};

  Cell(const double* cell, const bool* pbc) {
    for (int k = 0; k < 9; ++k) {
      if (pbc != nullptr && pbc[k / 3]) rows[k] = cell[k];
    }
  }
};

/// r = r_j - r_i + S·cell and the square of its length. For the reversed pair the signs change and
/// nothing else, not even the rounding; so (i, j, S) and (j, i, -S) are both in the list or
/// neither.
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
