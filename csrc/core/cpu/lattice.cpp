// Reduction of the periodic lattice vectors: pairwise (Lagrange), and by sums of all three.
#include "lattice.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace scschnet::cpu {
namespace {

double dot(const Vec3& a, const Vec3& b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

Vec3 cross(const Vec3& a, const Vec3& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

double norm(const Vec3& a) {
  return std::sqrt(dot(a, a));
}

Vec3 unit(const Vec3& a) {
  const double length = norm(a);
  return {a[0] / length, a[1] / length, a[2] / length};
}

[[noreturn]] void singular() {
  throw std::invalid_argument(
      "`cell` must have linearly independent vectors along the periodic axes");
}

void load_periodic_rows(const double* cell, Lattice& lattice) {
  for (int k = 0; k < 3; ++k) {
    for (int m = 0; m < 3; ++m) {
      lattice.vectors[k][m] = lattice.periodic[k] ? cell[3 * k + m] : 0.0;
      lattice.transform[k][m] = k == m ? 1 : 0;
      if (!std::isfinite(lattice.vectors[k][m])) {
        throw std::invalid_argument("`cell` must be finite along the periodic axes");
      }
    }
  }
}

/// Subtracts from row a the multiple of row b that makes it shortest. Returns whether that changed
/// it.
bool shorten(Lattice& lattice, int a, int b) {
  const double bb = dot(lattice.vectors[b], lattice.vectors[b]);
  if (!(bb > 0)) singular();
  const double quotient = dot(lattice.vectors[a], lattice.vectors[b]) / bb;
  if (std::fabs(quotient) <= 0.5000001) return false;
  const double times = std::nearbyint(quotient);
  if (!(std::fabs(times) < 1e6)) singular();
  for (int m = 0; m < 3; ++m) {
    lattice.vectors[a][m] -= times * lattice.vectors[b][m];
    lattice.transform[a][m] -= static_cast<std::int64_t>(times) * lattice.transform[b][m];
    if (std::abs(lattice.transform[a][m]) > 1'000'000'000) singular();
  }
  return true;
}

void reduce_pairwise(Lattice& lattice) {
  for (int round = 0; round < 200; ++round) {
    bool changed = false;
    for (int a = 0; a < 3; ++a) {
      for (int b = 0; b < 3; ++b) {
        if (a != b && lattice.periodic[a] && lattice.periodic[b]) changed |= shorten(lattice, a, b);
      }
    }
    if (!changed) return;
  }
}

/// Puts a + b + c, with the signs that make it shortest, in the place of the longest vector if it
/// is shorter. False if nothing was to be done.
bool replace_by_sum(Lattice& lattice) {
  Mat3& v = lattice.vectors;
  int longest = 0;
  for (int k = 1; k < 3; ++k) {
    if (dot(v[k], v[k]) > dot(v[longest], v[longest])) longest = k;
  }
  const int a = (longest + 1) % 3, b = (longest + 2) % 3;
  double best = dot(v[longest], v[longest]) * (1 - 1e-6);
  int times[2] = {0, 0};
  for (const int s : {-1, 1}) {
    for (const int t : {-1, 1}) {
      Vec3 sum;
      for (int m = 0; m < 3; ++m) sum[m] = v[longest][m] + s * v[a][m] + t * v[b][m];
      if (dot(sum, sum) < best) {
        best = dot(sum, sum);
        times[0] = s;
        times[1] = t;
      }
    }
  }
  if (times[0] == 0) return false;
  for (int m = 0; m < 3; ++m) {
    v[longest][m] += times[0] * v[a][m] + times[1] * v[b][m];
    lattice.transform[longest][m] +=
        times[0] * lattice.transform[a][m] + times[1] * lattice.transform[b][m];
  }
  return true;
}

void reduce_periodic_rows(Lattice& lattice) {
  reduce_pairwise(lattice);
  if (!lattice.periodic[0] || !lattice.periodic[1] || !lattice.periodic[2]) return;
  for (int round = 0; round < 200 && replace_by_sum(lattice); ++round) reduce_pairwise(lattice);
}

/// Sets the rows of open axes to unit vectors perpendicular to the periodic ones and to each other.
void complete_open_rows(Lattice& lattice) {
  Mat3& v = lattice.vectors;
  const int n_periodic = lattice.periodic[0] + lattice.periodic[1] + lattice.periodic[2];
  if (n_periodic == 0) {
    v = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  } else if (n_periodic == 1) {
    const int p = lattice.periodic[0] ? 0 : lattice.periodic[1] ? 1 : 2;
    int smallest = 0;
    for (int m = 1; m < 3; ++m) {
      if (std::fabs(v[p][m]) < std::fabs(v[p][smallest])) smallest = m;
    }
    Vec3 axis{};
    axis[smallest] = 1;
    v[(p + 1) % 3] = unit(cross(v[p], axis));
    v[(p + 2) % 3] = unit(cross(v[p], v[(p + 1) % 3]));
  } else if (n_periodic == 2) {
    const int o = !lattice.periodic[0] ? 0 : !lattice.periodic[1] ? 1 : 2;
    v[o] = unit(cross(v[(o + 1) % 3], v[(o + 2) % 3]));
  }
}

/// Computes inverse, heights, lengths and frame from the finished vectors.
void derive(Lattice& lattice) {
  const Mat3& v = lattice.vectors;
  const Mat3 normals = {cross(v[1], v[2]), cross(v[2], v[0]), cross(v[0], v[1])};
  const double volume = dot(v[0], normals[0]);
  lattice.volume = std::fabs(volume);
  if (!(std::fabs(volume) > 1e-12 * norm(v[0]) * norm(v[1]) * norm(v[2]))) singular();
  for (int k = 0; k < 3; ++k) {
    for (int m = 0; m < 3; ++m) lattice.inverse[m][k] = normals[k][m] / volume;
    lattice.heights[k] = std::fabs(volume) / norm(normals[k]);
    lattice.lengths[k] = norm(v[k]);
  }
  Mat3& f = lattice.frame;
  f = {};
  f[0][0] = norm(v[0]);
  f[1][0] = dot(v[1], v[0]) / f[0][0];
  f[1][1] = std::sqrt(std::max(0.0, dot(v[1], v[1]) - f[1][0] * f[1][0]));
  f[2][0] = dot(v[2], v[0]) / f[0][0];
  f[2][1] = (dot(v[2], v[1]) - f[2][0] * f[1][0]) / f[1][1];
  f[2][2] = std::fabs(volume) / (f[0][0] * f[1][1]);
}

}  // namespace

Lattice reduce_lattice(const double* cell, const bool* pbc) {
  Lattice lattice{};
  for (int k = 0; k < 3; ++k) lattice.periodic[k] = pbc != nullptr && pbc[k];
  if (!lattice.open() && cell == nullptr)
    throw std::invalid_argument("`cell` must be given for periodic axes");
  load_periodic_rows(cell, lattice);
  for (int k = 0; k < 3; ++k) {
    if (lattice.periodic[k] && !(dot(lattice.vectors[k], lattice.vectors[k]) > 0)) singular();
  }
  const Mat3 given = lattice.vectors;
  reduce_periodic_rows(lattice);
  for (int k = 0; k < 3; ++k) {  // what is left of dependent vectors is rounding
    if (lattice.periodic[k] && norm(lattice.vectors[k]) < 1e-12 * norm(given[k])) singular();
  }
  complete_open_rows(lattice);
  derive(lattice);
  return lattice;
}

}  // namespace scschnet::cpu
