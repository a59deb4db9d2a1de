// The memory of the machine is asked for only where a list is large.
#include "list_size.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>

namespace scschnet::cpu {
namespace {

constexpr double pi = 3.14159265358979323846;
constexpr double bytes_per_pair = 32;   // 4 inside, and idx_i, idx_j and shifts
constexpr double bytes_per_point = 73;  // coordinates and sources, as found and sorted
constexpr double always_granted = 1e9;  // bytes

double ball(double radius) {
  return 4.0 / 3.0 * pi * radius * radius * radius;
}

double bytes_at_hand() {
  double bytes = std::numeric_limits<double>::infinity();
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
  if (pages > 0 && page > 0) bytes = static_cast<double>(pages) * static_cast<double>(page);
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    bytes = std::min(bytes, static_cast<double>(limit.rlim_cur));
  }
  return bytes;
}

}  // namespace

double fewest_pairs(const Packing& packing) {
  const auto n = static_cast<double>(packing.n_atoms);
  double part = ball(packing.cutoff / 2) / packing.room;  // of the atoms, in one ball
  if (packing.filled) {
    part =
        std::max(part, ball(std::max(0.0, packing.cutoff - 1.5 * packing.diameter)) / packing.room);
  }
  return std::max(0.0, n * (n * part - 1));
}

void check_memory(double n_pairs, double n_points, double cutoff) {
  const double bytes = n_pairs * bytes_per_pair + n_points * bytes_per_point;
  if (!(bytes > always_granted)) return;
  const double most = bytes_at_hand();
  if (bytes <= most) return;
  char text[200];
  std::snprintf(text, sizeof text,
                "`cutoff` must be short enough for a list that fits into memory, %.3g GB, but %g Å "
                "give at least %.3g pairs and %.3g atoms and images, %.3g GB",
                most / 1e9, cutoff, n_pairs, n_points, bytes / 1e9);
  throw std::invalid_argument(text);
}

}  // namespace scschnet::cpu
