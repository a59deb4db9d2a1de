// The atoms of one structure, and all periodic images of them that may be neighbors, as points in
// space.
#pragma once

#include <array>
#include <cstdint>

#include "../neighbor_list.hpp"
#include "buffer.hpp"
#include "lattice.hpp"

namespace scschnet::cpu {

/// Points with coordinates relative to a common origin. The first n_atoms are the atoms in their
/// order, wrapped into the cell along periodic axes; images follow.
struct Points {
  Scratch<float> x, y, z;  ///< Å, in single precision, in the frame of the lattice
  Scratch<ImageAtom> source;
  std::int64_t count = 0;
  std::int64_t n_atoms = 0;
  float extent = 0;  ///< largest |x|, |y| or |z|
  double far = 0;    ///< Å, largest distance of an atom from the corner of the cell along a lattice
                     ///< vector; 0 if no axis is periodic
};

/// Makes points of the atoms of one structure. Keeps its scratch memory for the next one.
class ImageFinder {
 public:
  /// `positions` (n_atoms, 3) are the atoms first_atom, first_atom + 1, ... of the batch.
  /// Throws std::invalid_argument naming `positions` or `cutoff`.
  template <class Scalar>
  void find_open(const Scalar* positions, std::int64_t n_atoms, std::int64_t first_atom,
                 double cutoff, Points& points);
  /// The same for a lattice with at least one periodic axis.
  template <class Scalar>
  void find_periodic(const Scalar* positions, std::int64_t n_atoms, std::int64_t first_atom,
                     const Lattice& lattice, double cutoff, Points& points);

 private:
  struct Range {
    double low, high;
  };

  template <class Scalar>
  void find_fractions(const Scalar* positions, std::int64_t first_atom, const Lattice& lattice,
                      Points& points);
  void wrap(const Lattice& lattice, int axis, Points& points);
  void place_atoms(const Lattice& lattice, Points& points);
  void check_size(const Lattice& lattice, double cutoff, const std::array<double, 3>& pads,
                  const Points& points) const;
  void add_images(const Lattice& lattice, int axis, const Range& reach, Points& points);
  void start(std::int64_t n_atoms, Points& points);
  void reserve(std::int64_t count, Points& points);

  std::array<Scratch<float>, 3> fractions_;  ///< per axis, of every point
  std::array<Scratch<double>, 3> exact_;     ///< the same in double precision, of the atoms
  std::array<Range, 3> occupied_{};
  Scratch<std::int32_t> chosen_;
};

}  // namespace scschnet::cpu
