// The neighbor list on the CPU: checks, division among threads, and the step from rows in the order
// in which they were found to rows in the order of the atoms.
//
//     find    structures -> Search -> Rows (one per thread, order of space) -> row_slots, row_ptr
//     write   row_slots, row_ptr -> IndexWriter -> the caller's arrays (order of the atoms)
//
// Rows are not moved: row_slots[i] points to the row of atom i wherever it was found. The State
// owns all of this until the next find.
#include "../neighbor_list.hpp"

#include <algorithm>
#include <cmath>
#include <new>
#include <stdexcept>
#include <string>

#include "index_writer.hpp"
#include "isa.hpp"
#include "pair.hpp"
#include "parallel.hpp"
#include "search.hpp"

namespace scschnet::cpu {
namespace {

// With fewer atoms, starting a thread costs more than it saves.
constexpr std::int64_t atoms_per_thread = 2048;
// Pairs. From here on results do not fit into the caches anyway.
constexpr std::int64_t stream_from = 1'000'000;

// After so many lists in a row that are much smaller than an earlier one its memory is given back.
constexpr std::int64_t small_lists = 64;
constexpr std::int64_t much_smaller = 8;

constexpr int rows_ahead = 8;
constexpr int prefetched_lines = 4;  // of 16 slots

/// What one thread owns to work on structures of its own.
struct Worker {
  Search search;
  Rows rows;
  SlotTable table;
};

/// Consecutive atoms whose slots refer to the same table of images.
struct Segment {
  std::int64_t begin, end;
  const ImageAtom* images;
};

void check_atom_ptr(const std::int64_t* atom_ptr, std::int64_t n_structures) {
  if (atom_ptr[0] != 0)
    throw std::invalid_argument("`atom_ptr` must begin at 0, got " + std::to_string(atom_ptr[0]));
  for (std::int64_t m = 0; m < n_structures; ++m) {
    if (atom_ptr[m + 1] < atom_ptr[m]) {
      throw std::invalid_argument("`atom_ptr` must not decrease, but entry " +
                                  std::to_string(m + 1) + " does");
    }
  }
  if (atom_ptr[n_structures] > INT32_MAX)
    throw std::invalid_argument("`positions` must hold fewer than 2^31 atoms");
}

/// Writes idx_i of the rows [begin, end) in steps of one length, which may reach into the next row:
/// the CPU would mispredict the ends of short loops of varying length.
void fill_centers(std::int64_t* idx_i, const std::int64_t* row_ptr, std::int64_t begin,
                  std::int64_t end) {
  constexpr std::int64_t step = 16;
  const std::int64_t limit = row_ptr[end] - step;
  for (std::int64_t i = begin; i < end; ++i) {
    std::int64_t k = row_ptr[i];
    for (; k < row_ptr[i + 1] && k <= limit; k += step) std::fill_n(idx_i + k, step, i);
    for (; k < row_ptr[i + 1]; ++k) idx_i[k] = i;
  }
}

}  // namespace

struct NeighborList::State {
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<Segment> segments;  ///< cover all atoms, in order
  int n_threads = 1;
  const Kernels* kernels = nullptr;
  bool half = false;
  std::int64_t n_atoms = 0;
  Scratch<std::int32_t> atom_slot;         ///< (n_atoms,) into the table of the atom's segment
  Scratch<const std::int32_t*> row_slots;  ///< (n_atoms,)
  Scratch<std::int64_t> row_ptr;           ///< (n_atoms + 1,)
  Scratch<std::int32_t> order;             ///< (n_atoms,)
  // The input of the last find; `positions` are double or float.
  const double* double_positions = nullptr;
  const float* float_positions = nullptr;
  std::vector<std::int64_t> atom_ptr;
  const double* cells = nullptr;
  const bool* pbc = nullptr;

  State() { row_ptr.reserve(1)[0] = 0; }

  /// After an error: an empty list.
  void forget() {
    n_atoms = 0;
    row_ptr[0] = 0;
  }

  template <class Scalar>
  StructureInput<Scalar> structure(const Scalar* positions, std::int64_t m) const {
    return {positions, atom_ptr[m], atom_ptr[m + 1], cells ? cells + 9 * m : nullptr,
            pbc ? pbc + 3 * m : nullptr};
  }

  /// Whether all structures are open and small. Then there are no images, slots are in the order of
  /// the atoms, and rows are in the order of the centers.
  bool all_molecules() const {
    for (std::size_t m = 0; m + 1 < atom_ptr.size(); ++m) {
      if (atom_ptr[m + 1] - atom_ptr[m] >= grid_from) return false;
    }
    return pbc == nullptr ||
           std::none_of(pbc, pbc + 3 * (atom_ptr.size() - 1), [](bool axis) { return axis; });
  }

  template <class Scalar>
  void search_one_after_the_other(const Scalar* positions, const Cutoff& cutoff);
  template <class Scalar>
  void search_side_by_side(const Scalar* positions, const Cutoff& cutoff);
  void collect_rows();
  std::vector<std::int64_t> divide_rows() const;

  /// Rows are in memory in the order of space, so the CPU cannot guess where the next atom's row
  /// is.
  void prefetch_row(std::int64_t i) const {
    if (i >= n_atoms) return;
    const auto* row = reinterpret_cast<const char*>(row_slots[i]);
    for (int line = 0; line < prefetched_lines; ++line) __builtin_prefetch(row + 64 * line);
  }
  template <class Function>
  void for_rows(std::int64_t begin, std::int64_t end, const Function& function) const;
  void write_indices(const PairArrays& output, std::int64_t begin, std::int64_t end) const;
  void write_molecules(const PairArrays& output, std::int64_t begin, std::int64_t end) const;
  template <class Scalar>
  void write_vectors(const Scalar* positions, const PairArrays& output, std::int64_t begin,
                     std::int64_t end) const;
};

/// Searches structure after structure, each with all threads. All threads share the table of the
/// first worker.
template <class Scalar>
void NeighborList::State::search_one_after_the_other(const Scalar* positions,
                                                     const Cutoff& cutoff) {
  std::vector<Rows*> rows(n_threads);
  for (int t = 0; t < n_threads; ++t) rows[t] = &workers[t]->rows;
  Worker& first = *workers[0];
  for (std::size_t m = 0; m + 1 < atom_ptr.size(); ++m) {
    first.search.run(structure(positions, m), cutoff, *kernels, half, n_threads, rows.data(),
                     first.table, atom_slot.data());
  }
  segments.assign(1, {0, n_atoms, first.table.images.data()});
}

/// Gives each thread structures of its own.
template <class Scalar>
void NeighborList::State::search_side_by_side(const Scalar* positions, const Cutoff& cutoff) {
  std::vector<std::int64_t> first(n_threads + 1, static_cast<std::int64_t>(atom_ptr.size()) - 1);
  for (int t = 0; t < n_threads; ++t) {
    first[t] = std::lower_bound(atom_ptr.begin(), atom_ptr.end() - 1, n_atoms * t / n_threads) -
               atom_ptr.begin();
  }
  run_on_threads(n_threads, [&](int t) {
    Worker& worker = *workers[t];
    Rows* const rows = &worker.rows;
    for (std::int64_t m = first[t]; m < first[t + 1]; ++m) {
      worker.search.run(structure(positions, m), cutoff, *kernels, half, 1, &rows, worker.table,
                        atom_slot.data());
    }
  });
  segments.clear();
  for (int t = 0; t < n_threads; ++t) {
    segments.push_back(
        {atom_ptr[first[t]], atom_ptr[first[t + 1]], workers[t]->table.images.data()});
  }
}

/// From the order in which rows were found to the order of the atoms.
void NeighborList::State::collect_rows() {
  const std::int32_t** begin = row_slots.reserve(n_atoms);
  std::int64_t* ptr = row_ptr.reserve(n_atoms + 1);
  std::int32_t* next = order.reserve(n_atoms);
  for (int t = 0; t < n_threads; ++t) {
    Rows& rows = workers[t]->rows;
    rows.slots.grow(rows.n_slots + expand_overrun, rows.n_slots);
    // Expanding the last row reads beyond its end, where there must be valid slots.
    std::fill_n(rows.slots.data() + rows.n_slots, expand_overrun, 0);
    const std::int32_t* slots = rows.slots.data();
    for (std::int64_t r = 0; r < rows.n_rows; ++r) {
      const std::int32_t i = rows.centers[r];
      begin[i] = slots;
      ptr[i + 1] = rows.counts[r];
      slots += rows.counts[r];
    }
    next = std::copy_n(rows.centers.data(), rows.n_rows, next);
  }
  ptr[0] = 0;
  for (std::int64_t i = 0; i < n_atoms; ++i) ptr[i + 1] += ptr[i];
}

/// The first atom of each thread's part when pairs are written; parts have about equally many
/// pairs.
std::vector<std::int64_t> NeighborList::State::divide_rows() const {
  std::vector<std::int64_t> first(n_threads + 1, n_atoms);
  const std::int64_t* ptr = row_ptr.data();
  for (int t = 0; t < n_threads; ++t) {
    first[t] = std::lower_bound(ptr, ptr + n_atoms, ptr[n_atoms] * t / n_threads) - ptr;
  }
  first[0] = 0;
  return first;
}

/// Calls function(i, row of i) for the atoms [begin, end).
template <class Function>
void NeighborList::State::for_rows(std::int64_t begin, std::int64_t end,
                                   const Function& function) const {
  for (const Segment& segment : segments) {
    const std::int64_t last = std::min(end, segment.end);
    for (std::int64_t i = std::max(begin, segment.begin); i < last; ++i) {
      prefetch_row(i + rows_ahead);
      function(i, CompactRow{row_slots[i], row_ptr[i + 1] - row_ptr[i], segment.images,
                             segment.images + atom_slot[i]});
    }
  }
}

void NeighborList::State::write_indices(const PairArrays& output, std::int64_t begin,
                                        std::int64_t end) const {
  IndexWriter writer(output, row_ptr[begin], row_ptr[end], row_ptr[n_atoms] >= stream_from,
                     *kernels);
  for_rows(begin, end, [&](std::int64_t i, const CompactRow& row) { writer.append(i, row); });
  writer.finish();
}

/// write_indices for small open structures: rows follow each other in memory, and shifts are zero.
void NeighborList::State::write_molecules(const PairArrays& output, std::int64_t begin,
                                          std::int64_t end) const {
  const std::int64_t first_pair = row_ptr[begin], last_pair = row_ptr[end];
  if (output.shifts) std::fill(output.shifts + 3 * first_pair, output.shifts + 3 * last_pair, 0);
  if (output.idx_i) fill_centers(output.idx_i, row_ptr.data(), begin, end);
  if (!output.idx_j) return;
  for (const Segment& segment : segments) {
    const std::int64_t first = std::max(begin, segment.begin), last = std::min(end, segment.end);
    if (first >= last) continue;
    const std::int32_t* slots = row_slots[first];
    std::int64_t* idx_j = output.idx_j + row_ptr[first];
    const std::int64_t count = row_ptr[last] - row_ptr[first], first_atom = segment.begin;
    for (std::int64_t k = 0; k < count; ++k) idx_j[k] = slots[k] + first_atom;
  }
}

template <class Scalar>
void NeighborList::State::write_vectors(const Scalar* positions, const PairArrays& output,
                                        std::int64_t begin, std::int64_t end) const {
  for (std::size_t m = 0; m + 1 < atom_ptr.size(); ++m) {
    const auto input = structure(positions, m);
    const Cell cell(input.cell, input.pbc);
    for_rows(std::max(begin, input.begin), std::min(end, input.end),
             [&](std::int64_t i, const CompactRow& row) {
               std::int64_t at = row_ptr[i];
               for (std::int64_t k = 0; k < row.count; ++k, ++at) {
                 const ImageAtom& image = row.images[row.slots[k]];
                 const std::int32_t shift[3] = {image.shift[0] - row.center->shift[0],
                                                image.shift[1] - row.center->shift[1],
                                                image.shift[2] - row.center->shift[2]};
                 const PairVector pair(positions + 3 * i,
                                       positions + 3 * static_cast<std::int64_t>(image.atom), shift,
                                       cell);
                 if (output.d_ij) output.d_ij[at] = std::sqrt(pair.squared);
                 if (output.r_ij) std::copy_n(pair.r, 3, output.r_ij + 3 * at);
               }
             });
  }
}

NeighborList::NeighborList() : state_(std::make_unique<State>()) {}
NeighborList::~NeighborList() = default;
NeighborList::NeighborList(NeighborList&&) noexcept = default;
NeighborList& NeighborList::operator=(NeighborList&&) noexcept = default;

template <class Scalar>
std::int64_t NeighborList::find(const Structures<Scalar>& input, double length,
                                const NeighborOptions& options) {
  const Cutoff cutoff(length);
  check_atom_ptr(input.atom_ptr, input.n_structures);
  if (n_small_ >= small_lists) {  // the memory of a large list is no longer worth keeping
    state_ = std::make_unique<State>();
    largest_ = n_small_ = 0;
  }
  State& state = *state_;
  state.kernels = &(options.choose_isa ? best_kernels() : kernels_for(options.isa));
  state.half = options.half;
  state.n_atoms = 0;  // in case this throws
  const std::int64_t n_atoms = input.atom_ptr[input.n_structures];
  state.n_threads = static_cast<int>(
      std::clamp<std::int64_t>(n_atoms / atoms_per_thread, 1, std::max(1, options.threads)));
  while (state.workers.size() < static_cast<std::size_t>(state.n_threads)) {
    state.workers.push_back(std::make_unique<Worker>());
  }
  for (const auto& worker : state.workers) {
    worker->rows.clear();
    worker->table.count = 0;
  }
  state.atom_ptr.assign(input.atom_ptr, input.atom_ptr + input.n_structures + 1);
  state.cells = input.cells;
  state.pbc = input.pbc;
  if constexpr (sizeof(Scalar) == sizeof(double)) {
    state.double_positions = input.positions;
    state.float_positions = nullptr;
  } else {
    state.float_positions = input.positions;
    state.double_positions = nullptr;
  }
  state.atom_slot.reserve(n_atoms);
  state.n_atoms = n_atoms;
  try {
    if (state.n_threads > 1 && n_atoms / input.n_structures < atoms_per_thread) {
      state.search_side_by_side(input.positions, cutoff);
    } else {
      state.search_one_after_the_other(input.positions, cutoff);
    }
    state.collect_rows();
  } catch (const std::bad_alloc&) {
    state.forget();
    throw std::invalid_argument("`cutoff` must be short enough for a list that fits into memory");
  } catch (...) {
    state.forget();
    throw;
  }
  const std::int64_t size = n_atoms + n_pairs();
  n_small_ = much_smaller * size < largest_ ? n_small_ + 1 : 0;
  largest_ = std::max(largest_, size);
  return n_pairs();
}

template std::int64_t NeighborList::find(const Structures<float>&, double, const NeighborOptions&);
template std::int64_t NeighborList::find(const Structures<double>&, double, const NeighborOptions&);

void NeighborList::write(const PairArrays& output) const {
  const State& state = *state_;
  if (output.row_ptr) std::copy_n(state.row_ptr.data(), state.n_atoms + 1, output.row_ptr);
  if (state.n_atoms == 0) return;
  const std::vector<std::int64_t> first = state.divide_rows();
  const bool molecules = state.all_molecules();
  run_on_threads(state.n_threads, [&](int t) {
    if (molecules) {
      state.write_molecules(output, first[t], first[t + 1]);
    } else if (output.idx_i || output.idx_j || output.shifts) {
      state.write_indices(output, first[t], first[t + 1]);
    }
    if (!output.d_ij && !output.r_ij) return;
    if (state.double_positions) {
      state.write_vectors(state.double_positions, output, first[t], first[t + 1]);
    } else {
      state.write_vectors(state.float_positions, output, first[t], first[t + 1]);
    }
  });
}

CompactRow NeighborList::row(std::int64_t i) const {
  CompactRow result{};
  state_->for_rows(i, i + 1, [&](std::int64_t, const CompactRow& row) { result = row; });
  return result;
}

const std::int32_t* NeighborList::spatial_order() const {
  return state_->order.data();
}
std::int64_t NeighborList::n_atoms() const {
  return state_->n_atoms;
}
std::int64_t NeighborList::n_pairs() const {
  return state_->row_ptr[state_->n_atoms];
}

}  // namespace scschnet::cpu
