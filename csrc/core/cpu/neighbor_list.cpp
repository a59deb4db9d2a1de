// Neighbor list on the CPU: the obvious way, every pair of atoms times every image in reach.
#include "../neighbor_list.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "lattice.hpp"

namespace scschnet::cpu {

namespace {

struct Pair {
  std::int64_t i, j;
  std::array<std::int32_t, 3> shift;
};

/// The number for which d2 < squared_cutoff(c) exactly when sqrt(d2) < c.
double squared_cutoff(double cutoff) {
  double square = cutoff * cutoff;
  while (std::sqrt(square) >= cutoff) square = std::nextafter(square, 0.0);
  return std::nextafter(square, std::numeric_limits<double>::infinity());
}

}  // namespace

struct NeighborList::State {
  std::vector<Pair> pairs;
  std::vector<Vec3> positions;
  std::vector<Mat3> cells;
  std::vector<std::int64_t> structure_of_atom;

  Vec3 vector(const Pair& pair) const {
    const Mat3& cell = cells[structure_of_atom[pair.i]];
    const auto& s = pair.shift;
    Vec3 r{};
    for (int k = 0; k < 3; ++k) {
      r[k] = ((positions[pair.j][k] - positions[pair.i][k]) + s[0] * cell[0][k]) +
             (s[1] * cell[1][k] + s[2] * cell[2][k]);
    }
    return r;
  }

  void find_in(std::int64_t begin, std::int64_t end, const Lattice& lattice, double cutoff) {
    const double rc2 = squared_cutoff(cutoff);
    std::int32_t reach[3], low[3], high[3];
    for (int k = 0; k < 3; ++k) {
      reach[k] = lattice.periodic[k] ? static_cast<int>(cutoff / lattice.heights[k]) + 1 : 0;
    }
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t j = begin; j < end; ++j) {
        for (int k = 0; k < 3; ++k) {
          double f = 0;
          for (int m = 0; m < 3; ++m) f += (positions[j][m] - positions[i][m]) * lattice.inverse[m][k];
          const int nearest = lattice.periodic[k] ? static_cast<int>(-std::floor(f)) : 0;
          low[k] = nearest - reach[k] - (lattice.periodic[k] ? 1 : 0);
          high[k] = nearest + reach[k] + (lattice.periodic[k] ? 1 : 0);
        }
        std::int64_t n[3];
        for (n[0] = low[0]; n[0] <= high[0]; ++n[0])
          for (n[1] = low[1]; n[1] <= high[1]; ++n[1])
            for (n[2] = low[2]; n[2] <= high[2]; ++n[2]) {
              Pair pair{i, j, {}};
              for (int m = 0; m < 3; ++m) {
                std::int64_t s = 0;
                for (int k = 0; k < 3; ++k) s += lattice.periodic[k] ? n[k] * lattice.transform[k][m] : 0;
                pair.shift[m] = static_cast<std::int32_t>(s);
              }
              if (i == j && pair.shift == std::array<std::int32_t, 3>{}) continue;
              const Vec3 r = vector(pair);
              if (r[0] * r[0] + r[1] * r[1] + r[2] * r[2] < rc2) pairs.push_back(pair);
            }
      }
    }
  }
};

std::vector<InstructionSet> available_instruction_sets() { return {InstructionSet::generic}; }

const char* name(InstructionSet set) {
  switch (set) {
    case InstructionSet::avx2: return "avx2";
    case InstructionSet::avx512: return "avx512";
    default: return "generic";
  }
}

NeighborList::NeighborList() : state_(std::make_unique<State>()) {}
NeighborList::~NeighborList() = default;
NeighborList::NeighborList(NeighborList&&) noexcept = default;
NeighborList& NeighborList::operator=(NeighborList&&) noexcept = default;

template <class Scalar>
std::int64_t NeighborList::find(const Structures<Scalar>& input, double cutoff,
                                const NeighborOptions&) {
  if (!(cutoff > 0) || !std::isfinite(cutoff)) {
    throw std::invalid_argument("`cutoff` must be positive and finite, got " + std::to_string(cutoff));
  }
  State& state = *state_;
  state = {};
  for (std::int64_t m = 0; m < input.n_structures; ++m) {
    const std::int64_t begin = input.atom_ptr[m], end = input.atom_ptr[m + 1];
    if (end < begin || input.atom_ptr[0] != 0) {
      throw std::invalid_argument("`atom_ptr` must begin at 0 and never decrease");
    }
    const double* cell = input.cells ? input.cells + 9 * m : nullptr;
    Lattice lattice = reduce_lattice(cell, input.pbc ? input.pbc + 3 * m : nullptr);
    Mat3 rows{};
    for (int k = 0; k < 9 && cell; ++k) rows[k / 3][k % 3] = lattice.periodic[k / 3] ? cell[k] : 0;
    state.cells.push_back(rows);
    for (std::int64_t i = begin; i < end; ++i) {
      const Scalar* r = input.positions + 3 * i;
      if (!std::isfinite(r[0]) || !std::isfinite(r[1]) || !std::isfinite(r[2])) {
        throw std::invalid_argument("`positions` must be finite, atom " + std::to_string(i) + " is not");
      }
      state.positions.push_back({static_cast<double>(r[0]), static_cast<double>(r[1]), static_cast<double>(r[2])});
      state.structure_of_atom.push_back(m);
    }
    state.find_in(begin, end, lattice, cutoff);
  }
  return n_pairs();
}

template std::int64_t NeighborList::find(const Structures<float>&, double, const NeighborOptions&);
template std::int64_t NeighborList::find(const Structures<double>&, double, const NeighborOptions&);

void NeighborList::write(const PairArrays& output) const {
  const std::int64_t n = n_pairs();
  for (std::int64_t k = 0; k < n; ++k) {
    const Pair& pair = state_->pairs[k];
    const Vec3 r = state_->vector(pair);
    if (output.idx_i) output.idx_i[k] = pair.i;
    if (output.idx_j) output.idx_j[k] = pair.j;
    for (int m = 0; m < 3; ++m) {
      if (output.shifts) output.shifts[3 * k + m] = pair.shift[m];
      if (output.r_ij) output.r_ij[3 * k + m] = r[m];
    }
    if (output.d_ij) output.d_ij[k] = std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
  }
  if (output.row_ptr) {
    std::fill_n(output.row_ptr, n_atoms() + 1, 0);
    for (const Pair& pair : state_->pairs) ++output.row_ptr[pair.i + 1];
    for (std::int64_t i = 0; i < n_atoms(); ++i) output.row_ptr[i + 1] += output.row_ptr[i];
  }
}

std::int64_t NeighborList::n_atoms() const { return static_cast<std::int64_t>(state_->positions.size()); }
std::int64_t NeighborList::n_pairs() const { return static_cast<std::int64_t>(state_->pairs.size()); }

}  // namespace scschnet::cpu
