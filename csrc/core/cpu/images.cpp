// Wraps atoms into the cell, and makes their images axis by axis. Images along the second axis are
// made of the atoms and of their images along the first axis, and so on, so that corners are
// filled:
//
//      after axis 0         after axis 1
//                           . . . . .       A is the cell with the atoms, and a dot is a cell of
//      . . A . .            . . . . .       images. Of the images only those are kept that lie
//                    -->    . . A . .       within the cutoff of the space that the atoms occupy.
//                           . . . . .
//                           . . . . .
#include "images.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernels.hpp"
#include "list_size.hpp"
#include "range.hpp"

namespace scschnet::cpu {
namespace {

// Per axis. The sum over three axes of the shifts of two points fits in int32 with room to spare.
constexpr double max_shift = 1e8;
// Å. Its square fits in float32 with room to spare.
constexpr float max_extent = 1e12f;
constexpr std::int64_t max_points = std::numeric_limits<std::int32_t>::max() - 64;

template <class Scalar>
[[noreturn]] void refuse_positions(const Scalar* positions, std::int64_t n_atoms,
                                   std::int64_t first_atom) {
  for (std::int64_t k = 0; k < 3 * n_atoms; ++k) {
    if (!std::isfinite(positions[k])) {
      throw std::invalid_argument("`positions` must be finite, got " +
                                  std::to_string(positions[k]) + " for atom " +
                                  std::to_string(first_atom + k / 3));
    }
  }
  throw std::invalid_argument(
      "`positions` must lie within 1e12 Å of each other and 1e8 cells of the first one");
}

double largest_entry(const std::array<std::int64_t, 3>& row) {
  return static_cast<double>(std::max({std::abs(row[0]), std::abs(row[1]), std::abs(row[2])}));
}

/// The largest |x|, |y| or |z|.
float extent_of(const Points& points) {
  float extent = 0;
  for (const Scratch<float>* coordinate : {&points.x, &points.y, &points.z}) {
    const auto [low, high] = range_of(coordinate->data(), points.count);
    extent = std::max({extent, -low, high});
  }
  return extent;
}

}  // namespace

void ImageFinder::reserve(std::int64_t count, Points& points) {
  if (count > max_points) {
    throw std::invalid_argument("`cutoff` must reach fewer than 2^31 atoms and images, got " +
                                std::to_string(count));
  }
  const auto used = static_cast<std::size_t>(points.count);
  const auto wanted = static_cast<std::size_t>(count) + sweep_padding;
  points.x.grow(wanted, used);
  points.y.grow(wanted, used);
  points.z.grow(wanted, used);
  points.source.grow(wanted, used);
}

/// Makes room for the atoms, which are the first points.
void ImageFinder::start(std::int64_t n_atoms, Points& points) {
  points.count = 0;
  points.far = 0;
  reserve(n_atoms, points);
  points.count = points.n_atoms = n_atoms;
}

template <class Scalar>
void ImageFinder::find_open(const Scalar* positions, std::int64_t n_atoms, std::int64_t first_atom,
                            double cutoff, Points& points) {
  start(n_atoms, points);
  if (n_atoms == 0) return;
  const double origin[3] = {positions[0], positions[1], positions[2]};
  float* x = points.x.data();
  float* y = points.y.data();
  float* z = points.z.data();
  ImageAtom* source = points.source.data();
  float bad = 0;  // becomes NaN with the first coordinate that is not finite
  float extent = 0;
  for (std::int64_t i = 0; i < n_atoms; ++i) {
    x[i] = static_cast<float>(positions[3 * i] - origin[0]);
    y[i] = static_cast<float>(positions[3 * i + 1] - origin[1]);
    z[i] = static_cast<float>(positions[3 * i + 2] - origin[2]);
    bad += (x[i] - x[i]) + (y[i] - y[i]) + (z[i] - z[i]);
    extent =
        std::max(extent, std::max(std::max(std::fabs(x[i]), std::fabs(y[i])), std::fabs(z[i])));
    source[i] = {{0, 0, 0}, static_cast<std::int32_t>(first_atom + i)};
  }
  points.extent = extent;
  if (!(bad == 0) || !(extent < max_extent)) refuse_positions(positions, n_atoms, first_atom);
  const double occupied = 2.0 * extent + cutoff;
  const Packing packing{n_atoms, cutoff, occupied * occupied * occupied, false, 0};
  check_memory(fewest_pairs(packing), static_cast<double>(n_atoms), cutoff);
}

template <class Scalar>
void ImageFinder::find_periodic(const Scalar* positions, std::int64_t n_atoms,
                                std::int64_t first_atom, const Lattice& lattice, double cutoff,
                                Points& points) {
  start(n_atoms, points);
  if (n_atoms == 0) return;
  find_fractions(positions, first_atom, lattice, points);
  for (int axis = 0; axis < 3; ++axis) {
    if (lattice.periodic[axis]) wrap(lattice, axis, points);
  }
  place_atoms(lattice, points);
  std::array<double, 3> pads{};
  for (int axis = 0; axis < 3; ++axis)  // 1e-6: fractions are float32
    pads[axis] = cutoff / lattice.heights[axis] * (1 + 1e-9) + 1e-6;
  check_size(lattice, cutoff, pads, points);
  for (int axis = 0; axis < 3; ++axis) {
    if (!lattice.periodic[axis]) continue;
    const auto [low, high] = occupied_[axis];
    add_images(lattice, axis, {low - pads[axis], high + pads[axis]}, points);
  }
  points.extent = extent_of(points);
  if (points.extent < max_extent) return;
  if (cutoff > max_extent / 10) throw std::invalid_argument("`cutoff` must be below 1e11 Å");
  refuse_positions(positions, n_atoms, first_atom);
}

/// Refuses a list that cannot fit, before its first image is made.
void ImageFinder::check_size(const Lattice& lattice, double cutoff,
                             const std::array<double, 3>& pads, const Points& points) const {
  double n_points = static_cast<double>(points.n_atoms), room = lattice.volume,
         thinnest = std::numeric_limits<double>::infinity();
  for (int axis = 0; axis < 3; ++axis) {
    const double occupied = occupied_[axis].high - occupied_[axis].low;
    if (!lattice.periodic[axis]) {  // unit vectors: fractions are Å
      room *= occupied + cutoff;
      continue;
    }
    // An interval holds as many whole steps as its length says, or one more.
    n_points *= std::max(1.0, std::floor(occupied + 2 * pads[axis]));
    thinnest = std::min(thinnest, lattice.heights[axis]);
  }
  if (!(n_points < static_cast<double>(max_points))) {
    char text[160];
    std::snprintf(text, sizeof text,
                  "`cutoff` must reach fewer than 2^31 atoms and images, but %g Å reach %.3g in a "
                  "`cell` %.3g Å thin",
                  cutoff, n_points, thinnest);
    throw std::invalid_argument(text);
  }
  const bool filled = lattice.periodic[0] && lattice.periodic[1] && lattice.periodic[2];
  const Packing packing{points.n_atoms, cutoff, room, filled, lattice.diameter()};
  check_memory(fewest_pairs(packing), n_points, cutoff);
}

/// Fractional coordinates of the atoms as given, and the range that they occupy.
template <class Scalar>
void ImageFinder::find_fractions(const Scalar* positions, std::int64_t first_atom,
                                 const Lattice& lattice, Points& points) {
  const std::int64_t n = points.n_atoms;
  for (auto& fractions : exact_) fractions.reserve(n);
  const Mat3& g = lattice.inverse;
  double bad = 0;  // becomes NaN with the first coordinate that is not finite
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = positions[3 * i], y = positions[3 * i + 1], z = positions[3 * i + 2];
    exact_[0][i] = x * g[0][0] + y * g[1][0] + z * g[2][0];
    exact_[1][i] = x * g[0][1] + y * g[1][1] + z * g[2][1];
    exact_[2][i] = x * g[0][2] + y * g[1][2] + z * g[2][2];
    bad += (x - x) + (y - y) + (z - z);
    points.source[i] = {{0, 0, 0}, static_cast<std::int32_t>(first_atom + i)};
  }
  if (!(bad == 0)) refuse_positions(positions, n, first_atom);
  for (int k = 0; k < 3; ++k) {
    const auto [low, high] = range_of(exact_[k].data(), n);
    occupied_[k] = {low, high};
    const double most = std::max(std::fabs(low), std::fabs(high));
    points.far = std::max(points.far, most * lattice.lengths[k]);
    if (lattice.periodic[k] && !(most * largest_entry(lattice.transform[k]) < max_shift)) {
      refuse_positions(positions, n, first_atom);
    }
  }
}

/// Moves the atoms into [0, 1] along one axis, and adds to each atom's shift what undoes the move.
void ImageFinder::wrap(const Lattice& lattice, int axis, Points& points) {
  if (occupied_[axis].low >= 0 && occupied_[axis].high < 1) return;
  double* f = exact_[axis].data();
  std::int32_t step[3];
  for (int m = 0; m < 3; ++m) step[m] = static_cast<std::int32_t>(lattice.transform[axis][m]);
  for (std::int64_t i = 0; i < points.n_atoms; ++i) {
    auto boxes = static_cast<std::int32_t>(f[i]);  // rounds toward zero
    boxes -= f[i] < boxes;
    if (boxes == 0) continue;
    f[i] -= boxes;
    for (int m = 0; m < 3; ++m) points.source[i].shift[m] -= boxes * step[m];
  }
  const auto [low, high] = range_of(f, points.n_atoms);
  occupied_[axis] = {low, high};
}

/// Cartesian coordinates of the wrapped atoms, relative to the middle of the space that they
/// occupy.
void ImageFinder::place_atoms(const Lattice& lattice, Points& points) {
  const Mat3& frame = lattice.frame;
  double middle[3];
  for (int k = 0; k < 3; ++k) {
    middle[k] = 0.5 * (occupied_[k].low + occupied_[k].high);
    fractions_[k].reserve(points.n_atoms + 1);
  }
  for (std::int64_t i = 0; i < points.n_atoms; ++i) {
    const double f0 = exact_[0][i], f1 = exact_[1][i], f2 = exact_[2][i];
    for (int k = 0; k < 3; ++k) fractions_[k][i] = static_cast<float>(exact_[k][i]);
    const double a = f0 - middle[0], b = f1 - middle[1], c = f2 - middle[2];
    points.x[i] = static_cast<float>(a * frame[0][0] + b * frame[1][0] + c * frame[2][0]);
    points.y[i] = static_cast<float>(b * frame[1][1] + c * frame[2][1]);
    points.z[i] = static_cast<float>(c * frame[2][2]);
  }
}

/// Adds the images along one axis of all points so far, if they lie within `reach`, which is in
/// fractions of the cell.
void ImageFinder::add_images(const Lattice& lattice, int axis, const Range& reach, Points& points) {
  const std::int64_t n = points.count;
  const auto first = static_cast<std::int64_t>(std::ceil(reach.low - occupied_[axis].high));
  const auto last = static_cast<std::int64_t>(std::floor(reach.high - occupied_[axis].low));
  const double most = static_cast<double>(std::max(std::abs(first), std::abs(last)));
  if (!(most * largest_entry(lattice.transform[axis]) < max_shift)) {
    throw std::invalid_argument("`cutoff` must reach fewer than 1e8 cells");
  }
  std::int32_t* chosen = chosen_.reserve(n + 1);
  for (std::int64_t step = first; step <= last; ++step) {
    if (step == 0) continue;
    const auto low = static_cast<float>(reach.low - static_cast<double>(step));
    const auto high = static_cast<float>(reach.high - static_cast<double>(step));
    const float* f = fractions_[axis].data();
    std::int64_t n_chosen = 0;
    for (std::int64_t k = 0; k < n; ++k) {
      chosen[n_chosen] = static_cast<std::int32_t>(k);
      n_chosen += static_cast<int>(f[k] >= low) & static_cast<int>(f[k] <= high);
    }
    reserve(points.count + n_chosen, points);
    for (auto& fraction : fractions_) fraction.grow(points.count + n_chosen + 1, points.count);
    const auto times = static_cast<double>(step);
    const Vec3& v = lattice.frame[axis];
    const auto dx = static_cast<float>(times * v[0]), dy = static_cast<float>(times * v[1]),
               dz = static_cast<float>(times * v[2]);
    std::int32_t shift[3];
    for (int m = 0; m < 3; ++m)
      shift[m] = static_cast<std::int32_t>(step * lattice.transform[axis][m]);
    std::int64_t to = points.count;
    for (std::int64_t k = 0; k < n_chosen; ++k, ++to) {
      const std::int32_t from = chosen[k];
      points.x[to] = points.x[from] + dx;
      points.y[to] = points.y[from] + dy;
      points.z[to] = points.z[from] + dz;
      const ImageAtom& source = points.source[from];
      points.source[to] = {
          {source.shift[0] + shift[0], source.shift[1] + shift[1], source.shift[2] + shift[2]},
          source.atom};
      for (int later = axis + 1; later < 3; ++later)
        fractions_[later][to] = fractions_[later][from];
    }
    points.count = to;
  }
}

template void ImageFinder::find_open(const float*, std::int64_t, std::int64_t, double, Points&);
template void ImageFinder::find_open(const double*, std::int64_t, std::int64_t, double, Points&);
template void ImageFinder::find_periodic(const float*, std::int64_t, std::int64_t, const Lattice&,
                                         double, Points&);
template void ImageFinder::find_periodic(const double*, std::int64_t, std::int64_t, const Lattice&,
                                         double, Points&);

}  // namespace scschnet::cpu
