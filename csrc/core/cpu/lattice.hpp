// The lattice of one structure, reduced to short vectors.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace scschnet::cpu {

using Vec3 = std::array<double, 3>;
using Mat3 = std::array<Vec3, 3>;

/// A basis of the same lattice, as short as can be (Minkowski-reduced). The opposite faces of a
/// skewed cell are close together, so that many images of it come within the cutoff; of a reduced
/// cell there are few.
struct Lattice {
  Mat3 vectors;   ///< rows; along open axes unit vectors perpendicular to the periodic ones
  Mat3 inverse;   ///< fractional coordinates f = x · inverse
  Mat3 frame;     ///< the cell rotated (or mirrored) so that its rows are lower triangular; lengths
                  ///< and angles are the same
  Vec3 heights;   ///< distances between opposite faces, Å
  Vec3 lengths;   ///< lengths of the vectors, Å
  double volume;  ///< of the cell of all three vectors, Å^3
  /// vectors[k] = sum_m transform[k][m] cell[m] along periodic axes k
  std::array<std::array<std::int64_t, 3>, 3> transform;
  std::array<bool, 3> periodic;

  /// Of a box around the cell in its standard position, Å: no two points of a cell lie farther
  /// apart.
  double diameter() const {
    double squared = 0;
    for (int m = 0; m < 3; ++m) {
      double width = 0;
      for (int k = 0; k < 3; ++k) width += std::fabs(frame[k][m]);
      squared += width * width;
    }
    return std::sqrt(squared);
  }

  bool open() const { return !periodic[0] && !periodic[1] && !periodic[2]; }
};

/// Reduces the periodic rows of `cell` (3, 3) and completes them along the open axes. `cell` may be
/// null if all is open. Throws std::invalid_argument naming `cell` if it is missing, not finite or
/// singular along the periodic axes.
Lattice reduce_lattice(const double* cell, const bool* pbc);

}  // namespace scschnet::cpu
