// Reduced lattices and grids of bins, one per structure, worked out on the device, so that a
// changing cell costs no round trip. Plain functions: tests call them on the CPU, too.
#pragma once

#include "device.cuh"

namespace scschnet::cuda {

/// What is wrong with an input; bits of a device-side status word.
enum NeighborStatus : std::int32_t {
  neighbors_good = 0,
  neighbors_bad_positions = 1,  ///< not finite, or too far away
  neighbors_bad_cell = 2,       ///< singular or not finite along the periodic axes
  neighbors_bad_atom_ptr = 4,   ///< decreases, or does not run from 0 to the number of atoms
};

/// Lattice of one structure and the bins its atoms are sorted into.
struct Grid {
  double cell[9];     ///< as given, zero along open axes
  double vectors[9];  ///< reduced; along open axes unit vectors perpendicular to the periodic ones
  double inverse[9];  ///< fractional coordinates f = x · inverse
  double heights[3];  ///< distances between opposite faces, Å
  std::int32_t transform[9];  ///< vectors = transform · cell along the periodic axes
  std::int32_t is_reduced;    ///< transform is not the identity
  std::int32_t periodic[3];
  double low[3], span[3];  ///< part of the fractional coordinates that the bins cover
  double reach[3];         ///< cutoff in bins, with room for rounding
  float near;              ///< squared distance in single precision beyond which no neighbor can be
  std::int32_t n_bins[3];
  Index first_bin;
};

namespace lattice {

__host__ __device__ inline double dot(const double* a, const double* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

__host__ __device__ inline void cross(const double* a, const double* b, double* c) {
  c[0] = a[1] * b[2] - a[2] * b[1];
  c[1] = a[2] * b[0] - a[0] * b[2];
  c[2] = a[0] * b[1] - a[1] * b[0];
}

__host__ __device__ inline void unit_cross(const double* a, const double* b, double* c) {
  cross(a, b, c);
  const double length = sqrt(dot(c, c));
  for (int m = 0; m < 3; ++m) c[m] /= length;
}

__host__ __device__ inline bool finite(double x) {
  return x - x == 0;
}

/// Subtracts from row a the multiple of row b that makes it shortest. Whether it changed; `good`
/// becomes false for a singular cell.
__host__ __device__ inline bool shorten(Grid& g, int a, int b, bool& good) {
  double *row_a = g.vectors + 3 * a, *row_b = g.vectors + 3 * b;
  const double quotient = dot(row_a, row_b) / dot(row_b, row_b);
  if (fabs(quotient) <= 0.5000001) return false;
  const double times = rint(quotient);
  good &= fabs(times) < 1e6;
  if (!good) return false;
  for (int m = 0; m < 3; ++m) {
    row_a[m] -= times * row_b[m];
    const Index entry = g.transform[3 * a + m] - static_cast<Index>(times) * g.transform[3 * b + m];
    good &= entry <= 1000000000 && entry >= -1000000000;
    g.transform[3 * a + m] = static_cast<std::int32_t>(entry);
  }
  g.is_reduced = 1;
  return good;
}

/// Gives the open axes unit vectors perpendicular to the periodic ones and to each other.
__host__ __device__ inline void complete_open_rows(Grid& g) {
  const int n_periodic = g.periodic[0] + g.periodic[1] + g.periodic[2];
  double* v = g.vectors;
  if (n_periodic == 0) {
    for (int k = 0; k < 9; ++k) v[k] = k % 4 == 0 ? 1 : 0;
  } else if (n_periodic == 1) {
    const int p = g.periodic[0] ? 0 : g.periodic[1] ? 1 : 2;
    const int q = (p + 1) % 3, r = (p + 2) % 3;
    int smallest = 0;
    for (int m = 1; m < 3; ++m) {
      if (fabs(v[3 * p + m]) < fabs(v[3 * p + smallest])) smallest = m;
    }
    double axis[3] = {0, 0, 0};
    axis[smallest] = 1;
    unit_cross(v + 3 * p, axis, v + 3 * q);
    unit_cross(v + 3 * p, v + 3 * q, v + 3 * r);
  } else if (n_periodic == 2) {
    const int o = !g.periodic[0] ? 0 : !g.periodic[1] ? 1 : 2;
    unit_cross(v + 3 * ((o + 1) % 3), v + 3 * ((o + 2) % 3), v + 3 * o);
  }
}

/// Inverse and heights from the finished vectors; false if they are singular.
__host__ __device__ inline bool derive(Grid& g) {
  double normals[9];
  double lengths = 1;
  for (int k = 0; k < 3; ++k) {
    cross(g.vectors + 3 * ((k + 1) % 3), g.vectors + 3 * ((k + 2) % 3), normals + 3 * k);
    lengths *= sqrt(dot(g.vectors + 3 * k, g.vectors + 3 * k));
  }
  const double volume = dot(g.vectors, normals);
  if (!(fabs(volume) > 1e-12 * lengths) || !finite(volume)) return false;
  for (int k = 0; k < 3; ++k) {
    for (int m = 0; m < 3; ++m) g.inverse[3 * m + k] = normals[3 * k + m] / volume;
    g.heights[k] = fabs(volume) / sqrt(dot(normals + 3 * k, normals + 3 * k));
  }
  return true;
}

}  // namespace lattice

/// Fills everything up to `periodic` from a cell (3, 3), which may be null like `pbc` if all is
/// open. A bad cell becomes an open one and returns neighbors_bad_cell.
__host__ __device__ inline std::int32_t reduce_lattice(const double* cell, const bool* pbc,
                                                       Grid& g) {
  bool good = true;
  g.is_reduced = 0;
  for (int k = 0; k < 3; ++k) {
    g.periodic[k] = cell != nullptr && pbc != nullptr && pbc[k];
    for (int m = 0; m < 3; ++m) {
      const double entry = g.periodic[k] ? cell[3 * k + m] : 0.0;
      g.cell[3 * k + m] = g.vectors[3 * k + m] = entry;
      g.transform[3 * k + m] = k == m;
      good &= lattice::finite(entry);
    }
    good &= !g.periodic[k] || lattice::dot(g.vectors + 3 * k, g.vectors + 3 * k) > 0;
  }
  bool changed = good;
  for (int round = 0; changed && good && round < 200; ++round) {
    changed = false;
    for (int ab = 0; ab < 9; ++ab) {
      const int a = ab / 3, b = ab % 3;
      if (a != b && g.periodic[a] && g.periodic[b]) changed |= lattice::shorten(g, a, b, good);
    }
  }
  if (good) {
    lattice::complete_open_rows(g);
    good = lattice::derive(g);
  }
  if (good) return neighbors_good;
  reduce_lattice(nullptr, nullptr, g);
  return neighbors_bad_cell;
}

/// Open structures of at most so many atoms have one bin: then rows are sorted by neighbor.
constexpr Index one_bin_atoms = 256;

/// Bins that structures may have: enough for one to `atoms_per_bin` atoms.
constexpr Index atoms_per_bin = 4;
__host__ __device__ constexpr Index first_bin_of(Index first_atom, Index structure) {
  return first_atom / atoms_per_bin + structure;
}

/// Chooses bins about as wide as the cutoff, at most `capacity`, when `low` and `span` are known.
__host__ __device__ inline void choose_bins(double cutoff, Index n_atoms, Index capacity, Grid& g) {
  const bool open = !g.periodic[0] && !g.periodic[1] && !g.periodic[2];
  double wanted[3];
  for (int a = 0; a < 3; ++a) {
    if (!(g.span[a] > 0) || !lattice::finite(g.span[a])) g.span[a] = 1;
    const double n = floor(g.heights[a] * g.span[a] / cutoff);
    wanted[a] = n < 1 ? 1 : n < 1e6 ? n : 1e6;
    if (open && n_atoms <= one_bin_atoms) wanted[a] = 1;
  }
  while (wanted[0] * wanted[1] * wanted[2] > static_cast<double>(capacity)) {
    int largest = 0;
    for (int a = 1; a < 3; ++a) {
      if (wanted[a] > wanted[largest]) largest = a;
    }
    wanted[largest] = ceil(wanted[largest] / 2);
  }
  for (int a = 0; a < 3; ++a) {
    g.n_bins[a] = static_cast<std::int32_t>(wanted[a]);
    const double fraction = cutoff / (g.heights[a] * g.span[a]);
    g.reach[a] = wanted[a] * (fraction * (1 + 1e-6) + 1e-6);
  }
}

/// Coordinate of a fraction along an axis, in bins.
__host__ __device__ inline double in_bins(const Grid& g, int axis, double fraction) {
  return (fraction - g.low[axis]) / g.span[axis] * g.n_bins[axis];
}

__host__ __device__ inline std::int32_t bin_along(const Grid& g, int axis, double fraction) {
  const double s = in_bins(g, axis, fraction);
  if (!(s > 0)) return 0;
  return s < g.n_bins[axis] ? static_cast<std::int32_t>(s) : g.n_bins[axis] - 1;
}

/// Bins of a structure are numbered with the first axis fastest.
__host__ __device__ inline Index bin_of(const Grid& g, const double* fractions) {
  Index bin = 0;
  for (int a = 2; a >= 0; --a) bin = bin * g.n_bins[a] + bin_along(g, a, fractions[a]);
  return g.first_bin + bin;
}

__host__ __device__ inline std::int32_t floor_divide(std::int32_t a, std::int32_t b) {
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}

/// Bins within the cutoff of a point along one axis, images counted on: bin b lies in image
/// floor(b / n_bins).
struct BinRange {
  std::int32_t first, last;
};

__host__ __device__ inline BinRange bins_in_reach(const Grid& g, int axis, double fraction) {
  const double s = in_bins(g, axis, fraction);
  double first = floor(s - g.reach[axis]), last = floor(s + g.reach[axis]);
  if (!g.periodic[axis]) {
    const double n = g.n_bins[axis];
    first = first > 0 ? (first < n ? first : n - 1) : 0;
    last = last > 0 ? (last < n ? last : n - 1) : 0;
  }
  return {static_cast<std::int32_t>(first), static_cast<std::int32_t>(last)};
}

/// Calls visit(first bin, last bin, image (3,)) for stretches of bins that hold all points within
/// the cutoff of a point, always in the same order.
template <class Visit>
__host__ __device__ void for_each_stretch(const Grid& g, const double* fractions,
                                          const Visit& visit) {
  const BinRange x = bins_in_reach(g, 0, fractions[0]), y = bins_in_reach(g, 1, fractions[1]),
                 z = bins_in_reach(g, 2, fractions[2]);
  const std::int32_t n = g.n_bins[0];
  for (std::int32_t bz = z.first; bz <= z.last; ++bz) {
    const std::int32_t image_z = floor_divide(bz, g.n_bins[2]), in_z = bz - image_z * g.n_bins[2];
    for (std::int32_t by = y.first; by <= y.last; ++by) {
      const std::int32_t image_y = floor_divide(by, g.n_bins[1]), in_y = by - image_y * g.n_bins[1];
      const Index row = g.first_bin + static_cast<Index>(in_z * g.n_bins[1] + in_y) * n;
      for (std::int32_t image_x = floor_divide(x.first, n); image_x * n <= x.last; ++image_x) {
        const std::int32_t first = x.first > image_x * n ? x.first - image_x * n : 0,
                           last = x.last < image_x * n + n - 1 ? x.last - image_x * n : n - 1;
        const std::int32_t image[3] = {image_x, image_y, image_z};
        visit(row + first, row + last, image);
      }
    }
  }
}

/// An atom as the search sees it, in the order of the bins.
struct BinnedAtom {
  double position[3];    ///< as given
  std::int32_t wrap[3];  ///< whole lattice vectors (reduced ones) that it lies away from its bin
  std::int32_t atom;
};

/// Where the atom lies inside the cell, Å: position - wrap · vectors.
__host__ __device__ inline double inside_cell(const Grid& g, const BinnedAtom& atom, int axis) {
  double x = atom.position[axis];
  for (int a = 0; a < 3; ++a) x -= atom.wrap[a] * g.vectors[3 * a + axis];
  return x;
}

/// Atoms that lie farther away are not compared in single precision, nor are lattices that were
/// reduced by larger numbers.
constexpr std::int32_t most_near_wraps = 4096, most_near_transform = 1024;

__host__ __device__ inline bool is_near(const BinnedAtom& atom) {
  bool good = true;
  for (int a = 0; a < 3; ++a)
    good &= atom.wrap[a] <= most_near_wraps && atom.wrap[a] >= -most_near_wraps;
  return good;
}

/// Sets `near` such that no rounding of single precision rules a neighbor out: |inside_cell| of all
/// atoms is below the extent, which it is rounded relative to, like offsets and differences.
__host__ __device__ inline void choose_near(double cutoff, Grid& g) {
  double extent = 0;
  bool good = true;
  for (int a = 0; a < 3; ++a) {
    const double low = fabs(g.low[a]), high = fabs(g.low[a] + g.span[a]);
    const double most = g.periodic[a] ? 1 : low > high ? low : high;
    for (int m = 0; m < 3; ++m) {
      extent += most * fabs(g.vectors[3 * a + m]);
      good &= g.transform[3 * a + m] <= most_near_transform &&
              g.transform[3 * a + m] >= -most_near_transform;
    }
  }
  constexpr double rounding = 1.0 / (1 << 20);  // sixteen times that of a number
  const double limit = cutoff + rounding * (extent + cutoff);
  g.near = good ? static_cast<float>(limit * limit * (1 + rounding)) : HUGE_VALF;
}

/// S of the pair with `image` of atom j, in the lattice vectors as given.
__host__ __device__ inline void pair_shift(const Grid& g, const BinnedAtom& i, const BinnedAtom& j,
                                           const std::int32_t* image, std::int32_t* shift) {
  std::int32_t reduced[3];
  for (int a = 0; a < 3; ++a) reduced[a] = image[a] - j.wrap[a] + i.wrap[a];
  for (int m = 0; m < 3; ++m) {
    shift[m] = reduced[m];
    if (!g.is_reduced) continue;
    Index sum = 0;
    for (int a = 0; a < 3; ++a) sum += static_cast<Index>(reduced[a]) * g.transform[3 * a + m];
    shift[m] = static_cast<std::int32_t>(sum);
  }
}

/// Never part of a fused multiply-add: the list must equal that of the CPU to the bit.
__host__ __device__ inline double rounded_product(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

/// |((r_j - r_i) + S_0 a_0) + (S_1 a_1 + S_2 a_2)|^2 in the order and with the rounding of the
/// CPU's list.
__host__ __device__ inline double squared_distance(const Grid& g, const BinnedAtom& i,
                                                   const BinnedAtom& j, const std::int32_t* shift) {
  double squared = 0;
  for (int k = 0; k < 3; ++k) {
    const double direct = j.position[k] - i.position[k];
    const double r =
        (direct + rounded_product(shift[0], g.cell[k])) +
        (rounded_product(shift[1], g.cell[3 + k]) + rounded_product(shift[2], g.cell[6 + k]));
    squared += rounded_product(r, r);
  }
  return squared;
}

}  // namespace scschnet::cuda
