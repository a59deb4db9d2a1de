// Chooses the method, sets the limits of the test in float32, and decides doubtful pairs in double
// precision.
//
//      0 ........ limit - tolerance ..... limit ..... limit + tolerance ........ d2 in float32
//        neighbor |          decided in double precision          | none
//
// So a pair is in the list exactly if double precision says so, although nearly all of them are
// decided in float32.
#include "search.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <string>

#include "lattice.hpp"
#include "list_size.hpp"
#include "parallel.hpp"

namespace scschnet::cpu {
namespace {

constexpr int centers_at_once = 16;  // bounds the room that must be reserved for rows
// Å. Longer than any distance between points, yet finite in float32 when squared.
constexpr double longest_float_cutoff = 1e13;

/// The tolerance bounds the error of d2 from float32 coordinates, from adding up to three lattice
/// vectors and from float32 arithmetic, with more than a factor of two to spare; and the error in
/// double precision from wrapping atoms that are far outside the cell.
Limits limits_for(const Points& points, double cutoff) {
  const double rounding = std::ldexp(cutoff * (4.0 * points.extent + cutoff), -20);
  const double wrapping = std::ldexp(cutoff * points.far, -43);
  return {static_cast<float>(cutoff * cutoff), static_cast<float>(rounding + wrapping)};
}

/// The length within which the grid must look so that its own rounding loses no pair, Å.
float reach_for(const Points& points, const Limits& limits) {
  return std::sqrt(limits.limit + limits.tolerance) * (1 + 1e-6f) + 4e-6f * points.extent;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

}  // namespace

Cutoff::Cutoff(double cutoff) : length(cutoff), square(cutoff * cutoff) {
  if (!(cutoff > 0) || !std::isfinite(cutoff)) {
    throw std::invalid_argument("`cutoff` must be positive and finite, got " + number(cutoff));
  }
  while (std::sqrt(square) >= cutoff) square = std::nextafter(square, 0.0);
  square = std::nextafter(square, std::numeric_limits<double>::infinity());
}

struct Search::Context {
  const Kernels& kernels;
  const Cutoff& cutoff;
  Limits limits;
  Cell cell;
  const ImageAtom* images;  ///< by slot
  bool half;                ///< whether every pair is wanted once
};

namespace {

/// Makes one row, with doubtful candidates decided in double precision.
template <class Scalar, class Context>
void make_row_exactly(const StructureInput<Scalar>& input, const Context& context,
                      const Candidates& candidates, std::int32_t center, RowOutput& output) {
  const ImageAtom& own = context.images[candidates.slot[center]];
  std::int32_t n = 0;
  for (std::int32_t k = 0; k < candidates.count; ++k) {
    if (k == center) continue;
    const float dx = candidates.x[k] - candidates.x[center];
    const float dy = candidates.y[k] - candidates.y[center];
    const float dz = candidates.z[k] - candidates.z[center];
    const float beyond = dx * dx + dy * dy + dz * dz - context.limits.limit;
    bool inside = beyond < 0;
    if (std::fabs(beyond) <= 2 * context.limits.tolerance) {
      const ImageAtom& other = context.images[candidates.slot[k]];
      const std::int32_t shift[3] = {other.shift[0] - own.shift[0], other.shift[1] - own.shift[1],
                                     other.shift[2] - own.shift[2]};
      const PairVector pair(input.positions + 3 * static_cast<std::int64_t>(own.atom),
                            input.positions + 3 * static_cast<std::int64_t>(other.atom), shift,
                            context.cell);
      inside = pair.squared < context.cutoff.square;
    }
    if (inside) output.slots[n++] = candidates.slot[k];
  }
  *output.counts++ = n;
  output.slots += n;
}

/// Takes out of a row what is not in the half list, while the row is still in the cache, and moves
/// the rest to `to`, which may be the row itself. Returns how many neighbors are left.
std::int32_t keep_half(const ImageAtom* images, const ImageAtom& center, const std::int32_t* row,
                       std::int32_t count, std::int32_t* to) {
  std::int32_t n = 0;
  for (std::int32_t k = 0; k < count; ++k) {
    const std::int32_t slot = row[k];
    const ImageAtom& other = images[slot];
    bool kept = center.atom < other.atom;
    if (center.atom == other.atom) [[unlikely]] {
      const std::int32_t shift[3] = {other.shift[0] - center.shift[0],
                                     other.shift[1] - center.shift[1],
                                     other.shift[2] - center.shift[2]};
      kept = is_in_half_list(center.atom, other.atom, shift);
    }
    to[n] = slot;  // no branch on `kept`, which the CPU could not predict
    n += static_cast<std::int32_t>(kept);
  }
  return n;
}

/// Is there memory for more rows? Dense systems are noticed here, by the rows so far: if all others
/// hold but a fourth of what these do.
template <class Scalar, class Context>
void check_growth(const StructureInput<Scalar>& input, const Context& context, const Rows& rows) {
  if (rows.n_rows == 0) return;
  const auto found = static_cast<double>(rows.n_slots);
  const double all =
      found / static_cast<double>(rows.n_rows) * static_cast<double>(input.end - input.begin);
  check_memory(std::max(found, all / 4), 0, context.cutoff.length);
}

/// Appends the rows of some centers to `rows`, which grows.
template <class Scalar, class Context>
void append_rows(const StructureInput<Scalar>& input, const Context& context,
                 const Candidates& candidates, const std::int32_t* centers, int n_centers,
                 Rows& rows) {
  const std::int64_t most = rows.n_slots + n_centers * candidates.count + sweep_padding;
  if (static_cast<std::size_t>(most) > rows.slots.capacity()) check_growth(input, context, rows);
  RowOutput output{rows.slots.grow(most, rows.n_slots) + rows.n_slots,
                   rows.counts.grow(rows.n_rows + n_centers, rows.n_rows) + rows.n_rows};
  std::int32_t* atoms = rows.centers.grow(rows.n_rows + n_centers, rows.n_rows) + rows.n_rows;
  int done = 0;
  while (true) {
    done +=
        context.kernels.sweep(candidates, centers + done, n_centers - done, context.limits, output);
    if (done == n_centers) break;
    make_row_exactly(input, context, candidates, centers[done++], output);
  }
  const std::int32_t* row = rows.slots.data() + rows.n_slots;
  std::int32_t* end = rows.slots.data() + rows.n_slots;
  std::int32_t* counts = rows.counts.data() + rows.n_rows;
  for (int c = 0; c < n_centers; ++c) {
    const ImageAtom& center = context.images[candidates.slot[centers[c]]];
    atoms[c] = center.atom;
    const std::int32_t found = counts[c];
    if (context.half) counts[c] = keep_half(context.images, center, row, found, end);
    row += found;
    end += counts[c];
  }
  rows.n_rows += n_centers;
  rows.n_slots = end - rows.slots.data();
}

/// The first column of each of n_threads parts that have about equally many atoms.
std::vector<int> divide_columns(const CellGrid& grid, std::int64_t n_atoms, int n_threads) {
  std::vector<int> first(n_threads + 1, grid.n_columns());
  first[0] = 0;
  std::int64_t atoms = 0;
  for (int column = 0, part = 1; column < grid.n_columns() && part < n_threads; ++column) {
    atoms += grid.atoms_in_column(column);
    while (part < n_threads && atoms >= n_atoms * part / n_threads) first[part++] = column + 1;
  }
  return first;
}

}  // namespace

template <class Scalar>
void Search::run(const StructureInput<Scalar>& input, const Cutoff& cutoff, const Kernels& kernels,
                 bool half, int n_threads, Rows* const* rows, SlotTable& table,
                 std::int32_t* atom_slot) {
  const std::int64_t n_atoms = input.end - input.begin;
  const Scalar* positions = input.positions + 3 * input.begin;
  if (input.pbc == nullptr || !(input.pbc[0] || input.pbc[1] || input.pbc[2])) {
    finder_.find_open(positions, n_atoms, input.begin, cutoff.length, points_);
  } else {
    const Lattice lattice = reduce_lattice(input.cell, input.pbc);
    finder_.find_periodic(positions, n_atoms, input.begin, lattice, cutoff.length, points_);
  }
  if (n_atoms == 0) return;
  const std::int64_t n_slots = table.count + points_.count;
  if (n_slots > std::numeric_limits<std::int32_t>::max()) {
    throw std::invalid_argument(
        "`positions` and their images within `cutoff` must number fewer than 2^31");
  }
  const auto first_slot = static_cast<std::int32_t>(table.count);
  const ImageAtom* images = table.images.grow(n_slots, table.count);
  const Context context{kernels,
                        cutoff,
                        limits_for(points_, std::min(cutoff.length, longest_float_cutoff)),
                        Cell(input.cell, input.pbc),
                        images,
                        half};
  if (points_.count < grid_from) {
    std::copy_n(points_.source.data(), points_.count, table.images.data() + first_slot);
    compare_all(input, context, *rows[0], first_slot, atom_slot + input.begin);
  } else {
    grid_.build(points_, reach_for(points_, context.limits), first_slot,
                table.images.data() + first_slot, atom_slot + input.begin);
    use_grid(input, context, n_threads, rows);
  }
  table.count = n_slots;
}

template <class Scalar>
void Search::compare_all(const StructureInput<Scalar>& input, const Context& context, Rows& rows,
                         std::int32_t first_slot, std::int32_t* atom_slot) {
  const std::int64_t n = points_.count, n_atoms = points_.n_atoms;
  std::int32_t* slots = slots_.reserve(n + sweep_padding);
  for (std::int64_t k = 0; k < n; ++k) slots[k] = first_slot + static_cast<std::int32_t>(k);
  std::int32_t* indices = indices_.reserve(n_atoms);
  for (std::int64_t k = 0; k < n_atoms; ++k) {
    indices[k] = static_cast<std::int32_t>(k);
    atom_slot[k] = slots[k];
  }
  for (int k = 0; k < sweep_padding; ++k) {
    points_.x[n + k] = far_away;
    points_.y[n + k] = points_.z[n + k] = 0;
  }
  const Candidates candidates{points_.x.data(), points_.y.data(), points_.z.data(), slots, n};
  for (std::int64_t c = 0; c < n_atoms; c += centers_at_once) {
    const auto n_centers = static_cast<int>(std::min<std::int64_t>(centers_at_once, n_atoms - c));
    append_rows(input, context, candidates, indices + c, n_centers, rows);
  }
}

template <class Scalar>
void Search::use_grid(const StructureInput<Scalar>& input, const Context& context, int n_threads,
                      Rows* const* rows) {
  walkers_.resize(std::max<std::size_t>(walkers_.size(), n_threads));
  const std::vector<int> first = divide_columns(grid_, points_.n_atoms, n_threads);
  run_on_threads(n_threads, [&](int t) {
    walkers_[t].walk(grid_, context.kernels, first[t], first[t + 1], [&](const Block& block) {
      for (int c = 0; c < block.n_centers; c += centers_at_once) {
        append_rows(input, context, block.candidates, block.centers + c,
                    std::min(centers_at_once, block.n_centers - c), *rows[t]);
      }
    });
  });
}

template void Search::run(const StructureInput<float>&, const Cutoff&, const Kernels&, bool, int,
                          Rows* const*, SlotTable&, std::int32_t*);
template void Search::run(const StructureInput<double>&, const Cutoff&, const Kernels&, bool, int,
                          Rows* const*, SlotTable&, std::int32_t*);

}  // namespace scschnet::cpu
