// The CUDA core against the core for CPUs: neighbor lists, spline weights, convolutions with
// all their derivatives, filter tables, pair geometry, atomwise steps, batches and the record of
// steps. Also what needs no device at all: divisions of work. Compiled with SCSCHNET_EMULATE_CUDA
// it runs in an emulator; with nvcc it runs on a device, without torch, which is quick under
// sanitizers (benchmarks/gpu/kit.sh makes it).
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "../core/cuda/activation.hpp"
#include "../core/cuda/cfconv.cuh"
#include "../core/cuda/column_sums.hpp"
#include "../core/cuda/device.cuh"
#include "../core/cuda/embedding.hpp"
#include "../core/cuda/filter_table.hpp"
#include "../core/cuda/loss.hpp"
#include "../core/cuda/neighbor_list.hpp"
#include "../core/cuda/pair_geometry.hpp"
#include "../core/cuda/readout.hpp"
#include "../core/cuda/scan.hpp"
#include "../core/cuda/spline.hpp"
#include "../core/cuda/training.hpp"
#include "cuda_memory.hpp"

namespace {

using namespace scschnet;
using namespace scschnet::test;
using Index = std::int64_t;

#define EXPECT(condition)                                                  \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                        \
    }                                                                      \
  } while (false)

std::mt19937 generator(7);

double uniform(double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(generator);
}
Index integer(Index low, Index high) {
  return std::uniform_int_distribution<Index>(low, high)(generator);
}

// ---- neighbor lists

/// A batch of structures in random cells: skewed, thin, open, with atoms outside and on faces.
struct Batch {
  Array<double> positions, cells;
  Array<Index> atom_ptr{0};
  Array<char> pbc;

  void add(Index n, double size, double skew, bool any_pbc) {
    std::array<double, 9> cell{};
    for (int k = 0; k < 9; ++k) cell[k] = size * ((k % 4 == 0) + skew * uniform(-1, 1));
    for (int k = 0; k < 3; ++k) pbc.push_back(any_pbc && uniform(0, 1) < 0.7);
    for (Index i = 0; i < n; ++i) {
      double f[3];
      for (double& x : f) {
        x = uniform(0, 1) < 0.2 ? 0.25 * static_cast<double>(integer(-4, 8)) : uniform(-1.5, 2.5);
      }
      for (int m = 0; m < 3; ++m)
        positions.push_back(f[0] * cell[m] + f[1] * cell[3 + m] + f[2] * cell[6 + m]);
    }
    cells.insert(cells.end(), cell.begin(), cell.end());
    atom_ptr.push_back(atom_ptr.back() + n);
  }

  template <class Scalar>
  Structures<Scalar> structures(const Array<Scalar>& r) const {
    return {r.data(), atom_ptr.data(), cells.data(), reinterpret_cast<const bool*>(pbc.data()),
            static_cast<Index>(atom_ptr.size()) - 1};
  }
};

struct List {
  Array<Index> idx_i, idx_j, row_ptr;
  Array<std::int32_t> shifts;
  cuda::NeighborsFound found{};

  List(Index n_pairs, Index n_atoms)
      : idx_i(n_pairs), idx_j(n_pairs), row_ptr(n_atoms + 1), shifts(3 * n_pairs) {}

  PairArrays arrays() {
    PairArrays a;
    a.idx_i = idx_i.data();
    a.idx_j = idx_j.data();
    a.shifts = shifts.data();
    a.row_ptr = row_ptr.data();
    return a;
  }
  std::vector<std::array<Index, 5>> sorted(Index n) const {
    std::vector<std::array<Index, 5>> rows;
    for (Index p = 0; p < n; ++p)
      rows.push_back({idx_i[p], idx_j[p], shifts[3 * p], shifts[3 * p + 1], shifts[3 * p + 2]});
    std::sort(rows.begin(), rows.end());
    return rows;
  }
};

template <class Scalar>
List list_of_device(const Structures<Scalar>& input, Index n_atoms, double cutoff, Index capacity) {
  Scratch<unsigned char> scratch(cuda::neighbor_scratch_bytes(n_atoms, input.n_structures));
  Scratch<cuda::NeighborsFound> found(1);
  List list(capacity, n_atoms);
  cuda::count_neighbors(input, n_atoms, cutoff, scratch.data(), list.row_ptr.data(), found.data(),
                        nullptr);
  cuda::write_neighbors(input, n_atoms, cutoff, scratch.data(), capacity, list.row_ptr.data(),
                        list.arrays(), nullptr);
  list.found = host_copy(found.data(), 1)[0];
  return list;
}

template <class Scalar>
void check_lists(const Batch& batch, double cutoff) {
  const Array<Scalar> r(batch.positions.begin(), batch.positions.end());
  const auto input = batch.structures(r);
  const Index n_atoms = batch.atom_ptr.back();
  cpu::NeighborList cpu_list;
  const Index n_pairs = cpu_list.find(input, cutoff);
  List expected(n_pairs, n_atoms);
  cpu_list.write(expected.arrays());

  const List list = list_of_device(input, n_atoms, cutoff, n_pairs + 5);
  EXPECT(list.found.status == 0);
  EXPECT(list.found.n_pairs == n_pairs);
  EXPECT(list.row_ptr == expected.row_ptr);
  EXPECT(std::is_sorted(list.idx_i.begin(), list.idx_i.end()));
  EXPECT(list.idx_i[n_pairs] == n_atoms);
  EXPECT(list.sorted(n_pairs) == expected.sorted(n_pairs));
  for (std::size_t m = 0; m + 1 < batch.atom_ptr.size(); ++m) {  // the order that is promised
    if (batch.pbc[3 * m] || batch.pbc[3 * m + 1] || batch.pbc[3 * m + 2]) continue;
    if (batch.atom_ptr[m + 1] - batch.atom_ptr[m] > 256) continue;
    for (Index i = batch.atom_ptr[m]; i < batch.atom_ptr[m + 1]; ++i) {
      EXPECT(std::is_sorted(list.idx_j.begin() + list.row_ptr[i],
                            list.idx_j.begin() + list.row_ptr[i + 1]));
    }
  }
  if (n_pairs == 0) return;
  const List truncated = list_of_device(input, n_atoms, cutoff, n_pairs / 2);
  EXPECT(truncated.found.n_pairs == n_pairs);  // the signal that the list is not complete
  EXPECT(truncated.row_ptr.back() == n_pairs / 2);
}

void test_neighbor_lists() {
  for (int round = 0; round < 30; ++round) {
    Batch batch;
    const Index n_structures = integer(1, 4);
    for (Index m = 0; m < n_structures; ++m)
      batch.add(integer(0, 40), uniform(2, 9), uniform(0, 0.8), uniform(0, 1) < 0.8);
    check_lists<double>(batch, uniform(1, 5));
    check_lists<float>(batch, uniform(1, 5));
  }
  Batch large;  // several bins along every axis
  large.add(700, 22, 0.2, true);
  large.add(400, 18, 0.0, false);
  check_lists<double>(large, 3.0);
  Batch exact;  // a lattice of 1 Angstrom: neighbors exactly at the cutoff are none
  exact.add(0, 6, 0, true);
  exact.cells = {6, 0, 0, 0, 6, 0, 0, 0, 6};
  exact.pbc = {1, 1, 0};
  for (int k = 0; k < 216; ++k)
    for (int x : {k % 6, k / 6 % 6, k / 36}) exact.positions.push_back(x);
  exact.atom_ptr = {0, 216};
  for (double cutoff : {1.0, std::sqrt(2.0), 2.0, 5.0}) check_lists<double>(exact, cutoff);
}

/// What single precision cannot tell apart: atoms many cells away, lattices that are reduced by
/// large numbers, structures much wider than the cutoff, and pairs at the cutoff to the last bits.
void test_lists_beyond_single_precision() {
  for (const double cells_away : {100.0, 400.0, 1e4, 1e7}) {
    Batch far;
    far.add(80, 6, 0.3, true);
    far.pbc = {1, 1, 1};
    for (Index i = 0; i < 80; ++i) {
      for (int a = 0; a < 3; ++a) {
        const double n = std::floor(uniform(-cells_away, cells_away));
        for (int m = 0; m < 3; ++m) far.positions[3 * i + m] += n * far.cells[3 * a + m];
      }
    }
    check_lists<double>(far, 3.0);
  }
  for (const double times : {10.0, 5000.0}) {
    Batch skewed;
    skewed.add(80, 6, 0.1, true);
    skewed.pbc = {1, 1, 1};
    for (int m = 0; m < 3; ++m) skewed.cells[m] += times * skewed.cells[3 + m];
    check_lists<double>(skewed, 3.0);
  }
  for (const double apart : {1e3, 1e6, 1e9}) {
    Batch wide;  // of more atoms than have one bin
    wide.add(600, 12, 0, false);
    for (Index i = 300; i < 600; ++i) wide.positions[3 * i] += apart;
    check_lists<double>(wide, 3.0);
  }
  Batch chain;  // distances around the cutoff, from 300 Angstrom of the origin on
  chain.add(0, 400, 0, true);
  chain.pbc = {0, 0, 0};
  for (int i = 0; i < 300; ++i) {
    chain.positions.insert(chain.positions.end(), {300 + i * (1 + 1e-9 * (i % 7 - 3)), 0.0, 0.0});
  }
  chain.atom_ptr = {0, 300};
  check_lists<double>(chain, 3.0);
}

void test_bad_input_is_reported() {
  Batch batch;
  batch.add(5, 4, 0, false);
  const auto status = [&](const Batch& b) {
    return list_of_device(b.structures(b.positions), 5, 2.0, 100).found.status;
  };
  EXPECT(status(batch) == 0 && cuda::neighbor_error(0) == nullptr);
  Batch bad = batch;
  bad.positions[7] = std::nan("");
  EXPECT(status(bad) != 0 && cuda::neighbor_error(status(bad)) != nullptr);
  bad = batch;
  bad.pbc = {1, 1, 1};
  std::fill(bad.cells.begin(), bad.cells.end(), 1.0);
  EXPECT(status(bad) != 0);
  bad = batch;
  bad.atom_ptr = {0, 99};
  EXPECT(status(bad) != 0);
}

// ---- division of work

void test_work_ranges_cover_everything_once() {
  for (Index n : {0, 1, 5, 97, 1000}) {
    for (Index parts : {1, 2, 7, 100}) {
      Index next = 0;
      for (Index k = 0; k < parts; ++k) {
        const cuda::WorkRange range = cuda::work_range(n, k, parts);
        EXPECT(range.begin == next && range.end >= range.begin);
        EXPECT(range.end - range.begin <= n / parts + 1);
        next = range.end;
      }
      EXPECT(next == n);
    }
  }
}

void test_plans_fit_the_device() {
  for (Index bytes : {64, 99, 163, 227}) {
    for (Index n_rows : {8, 326, 961, 4000}) {
      for (Index n_features : {1, 32, 100, 128, 256}) {
        const auto plan = cuda::plan_convolution({132, bytes * 1024, bytes * 1024}, 5000, 100000,
                                                 n_rows, n_features, 64, 256, 16384);
        EXPECT(plan.shared_bytes <= static_cast<std::size_t>(bytes * 1024));
        EXPECT(plan.n_slices * 64 >= n_features && plan.n_chunks >= 1);
        EXPECT(plan.n_chunks * plan.n_slices <= 132 * 2 || plan.n_chunks == 1);
      }
    }
  }
}

/// Of an H100, with two sets of weights and the table of a cutoff of 5 A in steps of 1/64 A.
void test_two_blocks_share_a_processor() {
  constexpr Index kib = 1024, reserved = kib, n_rows = 326;
  const Index stage = cuda::conv_threads / cuda::warp_size * cuda::Stage<float, 2>::bytes;
  const auto plan = cuda::plan_convolution({132, 227 * kib, 228 * kib}, 12288, 320000, n_rows, 128,
                                           64, 256, stage);
  EXPECT(plan.table_in_shared);
  EXPECT(2 * (static_cast<Index>(plan.shared_bytes) + reserved) <= 228 * kib);
  EXPECT(plan.n_chunks * plan.n_slices == 2 * 132);
}

void test_scan() {
  for (Index n : {0, 1, 2047, 2048, 2049, 9000}) {
    Array<std::int32_t> counts(n);
    for (auto& count : counts) count = static_cast<std::int32_t>(integer(0, 9));
    Array<Index> starts(n + 1, -1);
    Scratch<unsigned char> scratch(cuda::scan_scratch_bytes(n));
    cuda::exclusive_scan(counts.data(), n, starts.data(), scratch.data(), nullptr);
    finish();
    Index sum = 0;
    for (Index k = 0; k < n; ++k) {
      EXPECT(starts[k] == sum);
      sum += counts[k];
    }
    EXPECT(starts[n] == sum);
  }
}

// ---- convolutions

/// Random polynomials on equal pieces in place of a cutoff function.
CutoffPieces cutoff_pieces(Index n_pieces) {
  static const Array<double> coefficients = [] {
    Array<double> c(4 * 7);
    for (double& value : c) value = uniform(-1, 1);
    return c;
  }();
  return {coefficients.data(), n_pieces, 7};
}

template <class Scalar>
std::vector<Scalar> random_numbers(Index n) {
  std::vector<Scalar> numbers(n);
  for (auto& x : numbers) x = static_cast<Scalar>(uniform(-1, 1));
  return numbers;
}

/// Waits for what was got. It was computed with numbers of so many bytes.
template <class Got, class Expected>
void expect_close(const Got& got, const Expected& expected,
                  std::size_t bytes = sizeof(std::decay_t<decltype(std::declval<Got>()[0])>)) {
  finish();
  EXPECT(got.size() == expected.size());
  double largest = 1e-30, error = 0;
  for (std::size_t k = 0; k < got.size(); ++k) {
    largest = std::max(largest, std::abs(static_cast<double>(expected[k])));
    error = std::max(error, std::abs(static_cast<double>(got[k]) - expected[k]));
    EXPECT(got[k] == got[k]);
  }
  EXPECT(error <= (bytes == 8 ? 1e-13 : 2e-6) * largest);
}

/// A random half list with spline weights, tables and features; room for more pairs than there are.
/// Rows of features begin `offset` numbers behind an address of whole packs.
template <class Scalar>
struct Convolution {
  Array<Index> row_ptr{0}, idx_j;
  Index n_atoms, n_pairs, n_room, n_features, n_rows, offset;
  Array<double> d;
  Array<std::int32_t> bins;
  Array<Scalar> weights;
  Rows<Scalar> table, a, b, u, l, v;
  Scratch<unsigned char> memory;
  cuda::PairsBothWays<Scalar> pairs;
  FilterTable<Scalar> filters;

  Convolution(Index atoms, Index most_per_atom, Index features, double step = 0.125,
              Index offset_ = 0)
      : n_atoms(atoms),
        n_pairs(lay_pairs(atoms, most_per_atom)),
        n_room(n_pairs + 3),
        n_features(features),
        n_rows(least_spline_rows(step, 3.0)),
        offset(offset_),
        memory(cuda::partners_bytes(n_atoms, n_room)) {
    idx_j.resize(n_room);
    for (Index p = 0; p < n_room; ++p) d.push_back(uniform(0, 3.2));
    bins.resize(n_room);
    weights.resize(2 * n_room * n_taps);
    const SplineGrid grid{step, 3.0, cutoff_pieces(1), n_rows};
    cuda::spline_weights(grid, d.data(), n_room, 0, 2, bins.data(), weights.data(), nullptr);
    table = random_rows(n_rows * n_features);
    for (auto* x : {&a, &b, &u, &l}) *x = random_rows(n_atoms * n_features);
    v = random_rows(n_room);
    pairs.half = {n_atoms,     row_ptr.data(), idx_j.data(),
                  bins.data(), weights.data(), weights.data() + n_room * n_taps};
    pairs.partners =
        cuda::find_partners(n_atoms, n_room, row_ptr.data(), idx_j.data(), memory.data(), nullptr);
    pairs.n_pairs = n_room;
    filters = {table.data(), n_rows, n_features};
    finish();
  }

  Index lay_pairs(Index atoms, Index most_per_atom) {
    for (Index i = 0; i < atoms; ++i) {
      const Index row = integer(0, most_per_atom);
      for (Index p = 0; p < row; ++p) idx_j.push_back(integer(0, atoms - 1));
      row_ptr.push_back(row_ptr.back() + row);
    }
    return row_ptr.back();
  }

  Rows<Scalar> random_rows(Index n) const { return Rows(random_numbers<Scalar>(n), offset); }
  Rows<Scalar> unwritten(Index n) const { return Rows(std::vector<Scalar>(n, NAN), offset); }
  Rows<Scalar> features() const { return unwritten(n_atoms * n_features); }
};

template <class Scalar>
void check_partners(const Convolution<Scalar>& c) {
  const auto& partners = c.pairs.partners;
  const auto col_ptr = host_copy(partners.col_ptr, c.n_atoms + 1);
  const auto col_pair = host_copy(partners.col_pair, c.n_pairs),
             col_center = host_copy(partners.col_center, c.n_pairs),
             centers = host_copy(partners.centers, c.n_pairs);
  Index entries = 0;
  for (Index j = 0; j < c.n_atoms; ++j) {
    for (Index k = col_ptr[j]; k < col_ptr[j + 1]; ++k, ++entries) {
      const Index p = col_pair[k], i = col_center[k];
      EXPECT(c.idx_j[p] == j && c.row_ptr[i] <= p && p < c.row_ptr[i + 1]);
      EXPECT(centers[p] == i);
      EXPECT(k == col_ptr[j] || col_pair[k - 1] < p);
    }
  }
  EXPECT(entries == c.n_pairs);
}

template <class Scalar>
void check_convolution(const Convolution<Scalar>& c) {
  const FeatureRange all{0, c.n_features};
  const auto isa = cpu::InstructionSet::generic;
  auto y = c.features(), expected = c.features(), x_bar = c.features(), expected_x = c.features();
  cuda::cfconv(c.pairs, c.filters, c.a.data(), y.data(), nullptr);
  cpu::cfconv(c.pairs.half, c.filters, c.a.data(), all, expected.data(), isa);
  expect_close(y, expected);
  auto again = c.features();
  cuda::cfconv(c.pairs, c.filters, c.a.data(), again.data(), nullptr);
  finish();
  EXPECT(again == y);

  Scratch<Scalar> scratch(cuda::dot_scratch_size<Scalar>(c.n_features, c.n_room));
  Array<Scalar> dot(c.n_room, Scalar(NAN)), expected_dot(c.n_room, 0);
  cuda::cfconv_backward(c.pairs, c.filters, c.a.data(), c.b.data(), x_bar.data(), dot.data(), false,
                        scratch.data(), nullptr);
  cpu::cfconv_backward(c.pairs.half, c.filters, c.a.data(), c.b.data(), all, expected_x.data(),
                       expected_dot.data(), isa);
  expect_close(x_bar, expected_x);
  expect_close(dot, expected_dot);
  cuda::cfconv_dot(c.pairs, c.filters, c.a.data(), c.b.data(), dot.data(), true, scratch.data(),
                   nullptr);
  cpu::cfconv_dot(c.pairs.half, c.filters, c.a.data(), c.b.data(), all, expected_dot.data(), isa);
  expect_close(dot, expected_dot);

  cuda::cfconv_double_backward(c.pairs, c.filters, c.u.data(), c.v.data(), c.b.data(), y.data(),
                               nullptr);
  cpu::cfconv_double_backward(c.pairs.half, c.filters, c.u.data(), c.v.data(), c.b.data(), all,
                              expected.data(), isa);
  expect_close(y, expected);
}

/// The pairs by bin, and their memory.
template <class Scalar>
struct ByBin {
  Scratch<unsigned char> memory;
  cuda::PairsByBin sorted;

  explicit ByBin(const Convolution<Scalar>& c)
      : memory(cuda::pairs_by_bin_bytes(c.n_room, cuda::n_bins_of(c.n_rows))),
        sorted(cuda::sort_by_bin(c.pairs, c.n_rows, memory.data(), nullptr)) {
    finish();
  }
};

/// Against a stable sort on the host.
template <class Scalar>
void check_by_bin(const Convolution<Scalar>& c) {
  const ByBin<Scalar> by_bin(c);
  const auto& sorted = by_bin.sorted;
  const Index n_bins = cuda::n_bins_of(c.n_rows);
  const auto starts = host_copy(sorted.starts, n_bins * sorted.stride + 1);
  const auto got = host_copy(sorted.pairs, c.n_pairs);
  std::vector<Index> expected;
  for (Index i = 0; i < c.n_pairs; ++i) expected.push_back(i);
  std::stable_sort(expected.begin(), expected.end(),
                   [&](Index p, Index q) { return c.bins[p] < c.bins[q]; });
  Index k = 0;
  for (Index bin = 0; bin < n_bins; ++bin) {
    EXPECT(starts[bin * sorted.stride] == k);
    for (; k < c.n_pairs && c.bins[expected[k]] == bin; ++k) {
      const Index p = expected[k], i = got[k].center;
      EXPECT(got[k].pair == p && got[k].bin == bin && got[k].other == c.idx_j[p]);
      EXPECT(c.row_ptr[i] <= p && p < c.row_ptr[i + 1]);
    }
  }
  EXPECT(k == c.n_pairs && starts[n_bins * sorted.stride] == k);
}

template <class Scalar>
void check_table_gradients(const Convolution<Scalar>& c) {
  const FeatureRange all{0, c.n_features};
  const auto isa = cpu::InstructionSet::generic;
  auto bar = c.unwritten(c.table.size()), expected = bar;
  Scratch<Scalar> scratch(cuda::table_gradient_scratch_size(1, c.n_rows, c.n_features, c.n_room));
  const ByBin by_bin(c);
  cuda::cfconv_table_gradient(c.pairs, by_bin.sorted, 1, c.filters, c.a.data(), c.b.data(),
                              bar.data(), scratch.data(), nullptr);
  cpu::cfconv_table_gradient(c.pairs.half, c.filters, c.a.data(), c.b.data(), all, expected.data(),
                             isa);
  expect_close(bar, expected);
  const Scalar* none = nullptr;
  cuda::cfconv_total_table_gradient(c.pairs, by_bin.sorted, 1, c.filters, none, c.u.data(),
                                    c.v.data(), c.a.data(), c.b.data(), bar.data(), scratch.data(),
                                    nullptr);
  cpu::cfconv_backward_table_gradient(c.pairs.half, c.filters, c.u.data(), c.v.data(), c.a.data(),
                                      c.b.data(), all, expected.data(), isa);
  expect_close(bar, expected);
  cuda::cfconv_total_table_gradient(c.pairs, by_bin.sorted, 1, c.filters, c.l.data(), c.u.data(),
                                    c.v.data(), c.a.data(), c.b.data(), bar.data(), scratch.data(),
                                    nullptr);
  cpu::cfconv_total_table_gradient(c.pairs.half, c.filters, c.l.data(), c.u.data(), c.v.data(),
                                   c.a.data(), c.b.data(), all, expected.data(), isa);
  expect_close(bar, expected);
  auto again = c.unwritten(c.table.size());
  cuda::cfconv_total_table_gradient(c.pairs, by_bin.sorted, 1, c.filters, c.l.data(), c.u.data(),
                                    c.v.data(), c.a.data(), c.b.data(), again.data(),
                                    scratch.data(), nullptr);
  finish();
  EXPECT(again == bar);
}

/// Tables of three blocks together are those of each alone, to the bit.
template <class Scalar>
void test_table_gradients_of_blocks() {
  constexpr Index n_blocks = 3;
  const Convolution<Scalar> c(50, 20, 40);
  const ByBin by_bin(c);
  const Index n = c.n_atoms * c.n_features, n_table = c.n_rows * c.n_features;
  const auto a = c.random_rows(n_blocks * n), b = c.random_rows(n_blocks * n);
  auto together = c.unwritten(n_blocks * n_table), alone = together;
  Scratch<Scalar> scratch(
      cuda::table_gradient_scratch_size(n_blocks, c.n_rows, c.n_features, c.n_room));
  cuda::cfconv_table_gradient(c.pairs, by_bin.sorted, n_blocks, c.filters, a.data(), b.data(),
                              together.data(), scratch.data(), nullptr);
  for (Index k = 0; k < n_blocks; ++k) {
    cuda::cfconv_table_gradient(c.pairs, by_bin.sorted, 1, c.filters, a.data() + k * n,
                                b.data() + k * n, alone.data() + k * n_table, scratch.data(),
                                nullptr);
  }
  finish();
  EXPECT(together == alone);
}

/// More pairs than stretches of the shortest length, most of them in one bin, and some bins empty.
template <class Scalar>
void test_table_gradients_of_long_bins() {
  Convolution<Scalar> c(90, sizeof(Scalar) == 8 ? 100 : 12, 33);
  finish();
  for (Index p = 0; p < c.n_room; ++p) c.bins[p] = p % 5 == 0 ? c.bins[p] / 2 * 2 : 8;
  check_by_bin(c);
  check_table_gradients(c);
}

/// So many pairs that a tile takes several rounds.
void test_long_lists_by_bin() {
  const Convolution<float> c(400, 400, 1);
  EXPECT(c.n_pairs > 70'000);
  check_by_bin(c);
}

/// Whole packs of features, at addresses that are not: launches choose narrow packs.
template <class Scalar>
void test_rows_that_are_not_aligned() {
  const Convolution<Scalar> c(40, 30, 64, 0.125, 1);
  check_convolution(c);
  check_table_gradients(c);
}

template <class Scalar>
void test_convolutions() {
  // Tables in shared memory, small ones and such that need more than 48 KB; then the smallest
  // shared memory of a supported device, where they have no room; then no room on any device.
  for (const auto& [shared, step] : {std::pair{227, 1.0 / 8}, std::pair{227, 1.0 / 128},
                                     std::pair{64, 1.0 / 256}, std::pair{227, 1.0 / 512}}) {
    claim_shared_memory(shared * 1024);
    for (Index n_features : {1, 8, 20, 37, 64, 130}) {
      if (step < 0.01 && n_features % 10 == 0) continue;
      if (step < 0.003 && n_features < 37) continue;
      const Convolution<Scalar> few(11, 5, n_features, step), many(60, 70, n_features, step),
          none(3, 0, 4, step);
      check_partners(many);
      check_by_bin(many);
      for (const auto* c : {&few, &many, &none}) {
        check_convolution(*c);
        check_table_gradients(*c);
      }
    }
  }
  claim_shared_memory(227 * 1024);
}

template <class Scalar>
void test_spline_weights() {
  for (const int n_pieces : {1, 4}) {
    const SplineGrid grid{0.125, 3.0, cutoff_pieces(n_pieces), least_spline_rows(0.125, 3.0)};
    Array<double> d{0, 1e-9, 0.125, 0.125 - 1e-16, 1.3, 2.99, 3 - 1e-12, 3.0, 7.0};
    const Index n = static_cast<Index>(d.size());
    Array<std::int32_t> bins(n), expected_bins(n);
    Array<Scalar> weights(9 * n * n_taps), expected(weights.size());
    cuda::spline_weights(grid, d.data(), n, 0, 9, bins.data(), weights.data(), nullptr);
    cpu::spline_weights(grid, d.data(), n, 0, 9, expected_bins.data(), expected.data());
    finish();
    EXPECT(bins == expected_bins);
    for (int order = 0; order < 9; ++order) {
      const auto part = [&](const Array<Scalar>& all) {
        return std::vector<Scalar>(all.begin() + order * n * n_taps,
                                   all.begin() + (order + 1) * n * n_taps);
      };
      expect_close(part(weights), part(expected));
    }
    const Array<double> bad{-1.0, NAN, INFINITY};
    cuda::spline_weights(grid, bad.data(), 3, 0, 1, bins.data(), weights.data(), nullptr);
    finish();
    for (int k = 0; k < 3 * n_taps; ++k) EXPECT(std::isnan(weights[k]));
    EXPECT(bins[0] == 0 && bins[1] == 0 && bins[2] == 0);
  }
}

// ---- half lists and geometry

void test_half_list_and_geometry() {
  Batch batch;
  for (Index n : {20, 0, 30, 7}) batch.add(n, 6, 0.4, true);
  const Index n_atoms = batch.atom_ptr.back(), n_structures = 4;
  Array<Index> idx_m;
  for (Index m = 0; m < n_structures; ++m)
    for (Index i = batch.atom_ptr[m]; i < batch.atom_ptr[m + 1]; ++i) idx_m.push_back(m);
  const auto input = batch.structures(batch.positions);
  const Index n_pairs = list_of_device(input, n_atoms, 2.5, 0).found.n_pairs;  // an even number
  for (Index room : {n_pairs, n_pairs + 6}) {
    const List list = list_of_device(input, n_atoms, 2.5, room);
    Scratch<unsigned char> scratch(cuda::half_list_scratch_bytes(n_atoms));
    Array<Index> pairs(room / 2, -1), row_ptr(n_atoms + 1), idx_j(room / 2, -1);
    cuda::half_list({n_atoms, room, list.idx_i.data(), list.idx_j.data(), list.shifts.data()},
                    scratch.data(), pairs.data(), row_ptr.data(), idx_j.data(), nullptr);
    finish();
    EXPECT(row_ptr.back() == n_pairs / 2);
    for (Index i = 0; i < n_atoms; ++i) {
      for (Index p = row_ptr[i]; p < row_ptr[i + 1]; ++p) {
        EXPECT(list.idx_i[pairs[p]] == i && list.idx_j[pairs[p]] == idx_j[p] && i <= idx_j[p]);
        EXPECT(p == row_ptr[i] || pairs[p - 1] < pairs[p]);
      }
    }
    const ChosenPairs chosen{room / 2, pairs.data(), list.idx_i.data(), list.idx_j.data(),
                             list.shifts.data()};
    Array<double> r(3 * (room / 2)), d(room / 2), r_expected(3 * (n_pairs / 2)),
        d_expected(n_pairs / 2);
    ChosenPairs without_room = chosen;
    without_room.n_pairs = n_pairs / 2;
    cuda::pair_vectors(chosen, n_atoms, batch.positions.data(), batch.cells.data(), idx_m.data(),
                       r.data(), d.data(), nullptr);
    cpu::pair_vectors(without_room, batch.positions.data(), batch.cells.data(), idx_m.data(),
                      r_expected.data(), d_expected.data());
    finish();
    r_expected.resize(r.size(), 0);  // places behind the last pair repeat pair 0 of the full list
    d_expected.resize(d.size(), 0);
    for (Index p = n_pairs / 2; p < room / 2; ++p)
      r[3 * p] = r[3 * p + 1] = r[3 * p + 2] = d[p] = 0;
    expect_close(r, r_expected);
    expect_close(d, d_expected);

    const Rows<double> g(random_numbers<double>(room / 2));
    const DirectedPairs directed{n_atoms,  row_ptr.data(), idx_j.data(),
                                 r.data(), d.data(),       idx_m.data()};
    Scratch<unsigned char> memory(cuda::partners_bytes(n_atoms, room / 2));
    const auto partners = cuda::find_partners(n_atoms, room / 2, row_ptr.data(), idx_j.data(),
                                              memory.data(), nullptr);
    Scratch<unsigned char> work(cuda::pair_forces_scratch_bytes(n_atoms, n_structures));
    Array<double> forces(3 * n_atoms, NAN), virial(9 * n_structures, NAN);
    Array<double> expected_forces(3 * n_atoms, 0), expected_virial(9 * n_structures, 0);
    cuda::pair_forces(directed, partners, g.data(), n_structures, forces.data(), virial.data(),
                      work.data(), nullptr);
    cpu::pair_forces(directed, g.data(), expected_forces.data(), expected_virial.data());
    expect_close(forces, expected_forces);
    expect_close(virial, expected_virial);
    Array<double> bar(room / 2, 0), expected_bar(room / 2, 0);
    cuda::pair_forces_backward(directed, forces.data(), virial.data(), bar.data(), nullptr);
    cpu::pair_forces_backward(directed, forces.data(), virial.data(), expected_bar.data());
    expect_close(bar, expected_bar);
    Array<double> alone(3 * n_atoms, NAN);
    double* const no_virial = nullptr;
    cuda::pair_forces(directed, partners, g.data(), 0, alone.data(), no_virial, work.data(),
                      nullptr);
    finish();
    EXPECT(alone == forces);
    cuda::pair_forces_backward(directed, forces.data(), no_virial, bar.data(), nullptr);
    cpu::pair_forces_backward(directed, forces.data(), no_virial, expected_bar.data());
    expect_close(bar, expected_bar);
  }
}

// ---- atomwise steps

/// Every function of activation.hpp on random numbers, against a loop.
template <class Scalar>
void test_atomwise_steps() {
  const Index n_rows = 19, n_features = 37, n = n_rows * n_features;
  const auto random = [&](Index size) { return Rows<Scalar>(random_numbers<Scalar>(size)); };
  const auto z = random(n), lambda = random(n), z_bar = random(n), z_dot = random(n);
  auto s = random(n), slope = s, lambda_z = s;
  cuda::activate(n, z.data(), s.data(), slope.data(), nullptr);
  const auto weights = random(4), lambda_v = random(n), lambda_out = random(n);
  auto before_v = random(n), s_dot = random(n), x_dot = random(n), unchanged = random(n);
  const auto as_it_was = unchanged;
  Scalar* const none = nullptr;
  cuda::activate_backward(
      n, lambda.data(), slope.data(), z_bar.data(), z_dot.data(), lambda_z.data(),
      {weights.data() + 2, lambda_v.data(), lambda_out.data(), before_v.data()}, nullptr);
  std::vector<Scalar> value(n), first(n), second(n), before_new(n), s_dot_new(n);
  for (Index k = 0; k < n; ++k) {
    value[k] = std::log1p(std::exp(z[k])) - std::log(Scalar(2));
    first[k] = 1 / (1 + std::exp(-z[k]));
    second[k] = first[k] * lambda[k] + z_bar[k] * (1 - first[k]) * z_dot[k];
    before_new[k] = lambda_v[k] + (weights[1] - weights[2]) * lambda_out[k];
    s_dot_new[k] = first[k] * z_dot[k];
  }
  expect_close(s, value);
  expect_close(slope, first);
  expect_close(lambda_z, second);

  expect_close(before_v, before_new);
  cuda::activate_backward<Scalar>(n, lambda_z.data(), slope.data(), none, none, lambda_z.data(),
                                  {none, none, none, none}, nullptr);
  for (Index k = 0; k < n; ++k) second[k] *= first[k];
  expect_close(lambda_z, second);
  cuda::activate_tangent(n, slope.data(), z_dot.data(), s_dot.data(), lambda_v.data(), x_dot.data(),
                         nullptr);
  expect_close(s_dot, s_dot_new);
  expect_close(x_dot, lambda_v);
  cuda::activate_tangent<Scalar>(n, slope.data(), z_dot.data(), s_dot.data(), none,
                                 unchanged.data(), nullptr);
  finish();
  EXPECT(unchanged == as_it_was);

  const auto weight = random(1), v = random(n), before = random(n);
  auto x = random(n), out = random(n), norms = random(n_rows);
  for (const bool embedding : {true, false}) {
    std::vector<Scalar> x_new(n), out_new(n), norms_new(n_rows);
    for (Index k = 0; k < n; ++k) {
      x_new[k] = embedding ? x[k] : before[k] + v[k];
      out_new[k] = weight[0] * v[k] + (embedding ? 0 : out[k]);
      norms_new[k / n_features] += v[k] * v[k];
    }
    for (Scalar& norm : norms_new) norm = std::sqrt(norm);
    cuda::add_correction(n_rows, n_features, weight.data(), v.data(),
                         embedding ? nullptr : before.data(), x.data(), out.data(), norms.data(),
                         nullptr);
    expect_close(x, x_new);
    expect_close(out, out_new);
    expect_close(norms, norms_new);
  }
}

/// The sums over layers and back against a loop, of no, one and several blocks.
template <class Scalar>
void test_layers() {
  const Index n_rows = 13, n_features = 37, n = n_rows * n_features;
  const auto random = [&](Index size) { return Rows<Scalar>(random_numbers<Scalar>(size)); };
  for (const Index n_blocks : {0, 1, 3}) {
    const auto weights = random(n_blocks + 1), x_0 = random(n), x = random(n_blocks * n),
               out_bar = random(n), lambda_out = random(n);
    const auto v = [&](Index l, Index k, bool moves) {
      const auto of = [&](Index m) { return m > 0 ? x[(m - 1) * n + k] : moves ? x_0[k] : 0; };
      return static_cast<double>(of(l)) - (l > 0 ? static_cast<double>(of(l - 1)) : 0.0);
    };
    cuda::Layers<Scalar> layers{n_rows, n_features, n_blocks, weights.data(), nullptr, x.data()};
    auto out_dot = random(n), lambda_v = random(n);
    Array<double> dots((n_blocks + 1) * n_rows, 0.5);
    std::vector<double> out_new(n), dots_new(dots.size(), 0.5), last_new(n);
    if (n_blocks > 0) {
      for (Index l = 1; l <= n_blocks; ++l) {
        for (Index i = 0; i < n_rows; ++i) dots_new[l * n_rows + i] = 0;
        for (Index k = 0; k < n; ++k) {
          out_new[k] += weights[l] * v(l, k, false);
          dots_new[l * n_rows + k / n_features] += out_bar[k] * v(l, k, false);
        }
      }
      cuda::add_tangents(layers, out_bar.data(), out_dot.data(), dots.data(), nullptr);
      expect_close(out_dot, out_new);
      expect_close(dots, dots_new, sizeof(Scalar));
    }
    layers.x_0 = x_0.data();
    for (const bool add : {true, false}) {
      for (Index l = 0; l <= n_blocks; ++l) {
        for (Index i = 0; i < n_rows && !(add && l > 0); ++i) dots_new[l * n_rows + i] = 0;
        for (Index k = 0; k < n; ++k)
          dots_new[l * n_rows + k / n_features] += lambda_out[k] * v(l, k, true);
      }
      for (Index k = 0; k < n; ++k) last_new[k] = weights[n_blocks] * lambda_out[k];
      cuda::reverse_sum(layers, lambda_out.data(), add, lambda_v.data(), dots.data(), nullptr);
      expect_close(lambda_v, last_new);
      expect_close(dots, dots_new, sizeof(Scalar));
    }
  }
}

/// Both functions of readout.hpp against a loop, with and without derivatives.
template <class Scalar>
void test_readout() {
  for (const Index n_hidden : {7, 40}) {
    const Index n_rows = 21, n_local = 15, n = n_rows * n_hidden;
    const auto random = [&](Index size) { return Rows<Scalar>(random_numbers<Scalar>(size)); };
    const auto z = random(n), weight = random(n_hidden), bias = random(1), g_bar = random(n_rows);
    const auto given_dot = random(n);
    const cuda::ReadoutLayer<Scalar> layer{n_hidden, weight.data(), bias.data()};
    auto q = z, slope = random(n), g = random(n_rows), z_bar = random(n), output = random(n);
    std::vector<double> q_new(n), slope_new(n), g_new(n_rows, bias[0]), z_bar_new(n);
    for (Index k = 0; k < n; ++k) {
      const Index i = k / n_hidden;
      const double c = weight[k % n_hidden];
      q_new[k] = std::log1p(std::exp(z[k])) - std::log(2.0);
      slope_new[k] = 1 / (1 + std::exp(-static_cast<double>(z[k])));
      g_new[i] += c * q_new[k];
      z_bar_new[k] = i < n_local ? c * slope_new[k] : 0;
    }
    Scalar* const none = nullptr;
    cuda::read_out(n_rows, n_local, layer, z.data(), q.data(), slope.data(), g.data(), none,
                   nullptr);
    expect_close(q, q_new);
    expect_close(slope, slope_new);
    expect_close(g, g_new);
    q = z;
    cuda::read_out(n_rows, n_local, layer, q.data(), q.data(), slope.data(), g.data(), z_bar.data(),
                   nullptr);
    expect_close(q, q_new);
    expect_close(g, g_new);
    expect_close(z_bar, z_bar_new);
    for (const bool derivatives : {true, false}) {
      std::vector<double> lambda_new(n), output_new(n);
      for (Index k = 0; k < n; ++k) {
        const double bar = g_bar[k / n_hidden], dot = derivatives ? given_dot[k] : Scalar(0);
        lambda_new[k] = slope_new[k] * weight[k % n_hidden] * (bar + (1 - slope_new[k]) * dot);
        output_new[k] = bar * q_new[k] + slope_new[k] * dot;
      }
      auto lambda = given_dot;
      cuda::reverse_readout(n_rows, layer, g_bar.data(), q.data(), slope.data(),
                            derivatives ? lambda.data() : none, lambda.data(), output.data(),
                            nullptr);
      expect_close(lambda, lambda_new);
      expect_close(output, output_new);
    }
  }
}

/// Of no, few and many rows, and of several kinds of matrices, against a loop; the same twice.
template <class Scalar>
void test_column_sums() {
  for (const Index n_rows : {0, 1, 63, 5000}) {
    const auto numbers = Rows<Scalar>(random_numbers<Scalar>(3 * n_rows * 37)),
               others = Rows<Scalar>(random_numbers<Scalar>(n_rows));
    const Rows<double> doubles(random_numbers<double>(2 * n_rows));
    Array<Scalar> sums(3 * 37, Scalar(NAN)), of_others(1, Scalar(NAN)), of_doubles(2, Scalar(NAN));
    const std::vector<cuda::Columns<Scalar>> columns{
        {nullptr, doubles.data(), 2, 1, of_doubles.data()},
        {numbers.data(), nullptr, 3, 37, sums.data()},
        {others.data(), nullptr, 1, 1, of_others.data()}};
    std::vector<double> sums_new(3 * 37), others_new(1), doubles_new(2);
    for (Index k = 0; k < 3 * n_rows * 37; ++k)
      sums_new[k / 37 / n_rows * 37 + k % 37] += static_cast<double>(numbers[k]);
    for (Index k = 0; k < n_rows; ++k) others_new[0] += static_cast<double>(others[k]);
    for (Index k = 0; k < 2 * n_rows; ++k) doubles_new[k / n_rows] += doubles[k];
    Scratch<double> scratch(cuda::column_sums_scratch_size(n_rows, columns));
    cuda::sum_columns(n_rows, columns, scratch.data(), nullptr);
    expect_close(sums, sums_new);
    expect_close(of_others, others_new);
    expect_close(of_doubles, doubles_new);
    const auto before = sums;
    cuda::sum_columns(n_rows, columns, scratch.data(), nullptr);
    finish();
    EXPECT(sums == before);
  }
}

// ---- filter tables

template <class Scalar>
void test_filter_tables() {
  const FilterTableSizes sizes{23, 5, 11};
  const Index n_blocks = 2, nodes = sizes.n_nodes(), f = sizes.n_filters;
  const Rows<double> prefilter(random_numbers<double>(prefilter_order + 1));
  Rows<double> samples(random_numbers<double>(n_blocks * nodes * f));
  std::vector<double> activated(samples.size()), coefficients(n_blocks * sizes.n_rows * f);
  for (std::size_t k = 0; k < samples.size(); ++k)
    activated[k] = std::log1p(std::exp(samples[k])) - std::log(2.0);
  std::vector<Scalar> slopes_expected(samples.size());
  for (std::size_t k = 0; k < samples.size(); ++k)
    slopes_expected[k] = static_cast<Scalar>(1 / (1 + std::exp(-samples[k])));
  Rows<Scalar> slopes(random_numbers<Scalar>(n_blocks * nodes * f)), hidden_bar = slopes;
  cuda::activate_samples(n_blocks * nodes * f, samples.data(), slopes.data(), nullptr);
  expect_close(samples, activated);
  expect_close(slopes, slopes_expected);

  const Rows<Scalar> bar(random_numbers<Scalar>(coefficients.size()));
  std::vector<double> sums(samples.size());
  const auto for_terms = [&](const auto& call) {
    for (Index k = 0; k < n_blocks * sizes.n_rows * f; ++k) {
      const Index block = k / (sizes.n_rows * f), row = k / f % sizes.n_rows;
      for (Index s = -prefilter_order; s <= prefilter_order; ++s) {
        call(k, (block * nodes + row + prefilter_order + s) * f + k % f, prefilter[std::abs(s)]);
      }
    }
  };
  for_terms([&](Index k, Index node, double factor) {
    coefficients[k] += factor * activated[node];
    sums[node] += factor * bar[k];
  });
  Rows<double> found(random_numbers<double>(coefficients.size()));
  Rows<Scalar> rounded(random_numbers<Scalar>(coefficients.size()));
  cuda::prefilter_samples(sizes, n_blocks, prefilter.data(), samples.data(), found.data(),
                          rounded.data(), nullptr);
  expect_close(found, coefficients);
  expect_close(rounded, std::vector<Scalar>(coefficients.begin(), coefficients.end()));
  cuda::prefilter_backward(sizes, n_blocks, prefilter.data(), bar.data(), slopes.data(),
                           hidden_bar.data(), nullptr);
  std::vector<Scalar> hidden_expected(sums.size());
  for (std::size_t k = 0; k < sums.size(); ++k)
    hidden_expected[k] = static_cast<Scalar>(sums[k] * slopes[k]);
  expect_close(hidden_bar, hidden_expected);
}

// ---- training

/// More structures than threads of a block, in any order, one twice and one empty.
/// Half of the atoms of one element, and some of padding.
template <class Scalar>
void test_embedding_gradients() {
  for (const auto& [n_atoms, n_features] : {std::pair<Index, Index>{0, 5}, {1, 33}, {700, 70}}) {
    constexpr Index n_rows = 12;
    Array<Index> numbers(n_atoms);
    for (auto& z : numbers) z = integer(0, 1) ? 1 : integer(0, n_rows - 1);
    const auto random = random_numbers<Scalar>(n_atoms * n_features);
    const Array<Scalar> bar(random.begin(), random.end());
    Array<Scalar> got(n_rows * n_features, Scalar(NAN));
    std::vector<double> expected(n_rows * n_features);
    for (Index i = 0; i < n_atoms; ++i) {
      for (Index f = 0; numbers[i] > 0 && f < n_features; ++f)
        expected[numbers[i] * n_features + f] += static_cast<double>(bar[i * n_features + f]);
    }
    cuda::embedding_gradient(n_atoms, n_rows, n_features, numbers.data(), bar.data(), got.data(),
                             nullptr);
    expect_close(got, expected);
  }
}

/// Structures of zero to many atoms, and atoms of padding behind them.
template <class Scalar>
void test_energies_and_norms() {
  for (Index n_structures : {0, 1, 3, 70}) {
    Array<Index> sizes, numbers, idx_m;
    for (Index m = 0; m < n_structures; ++m) {
      sizes.push_back(m % 7 == 1 ? 0 : integer(1, 40));
      for (Index i = 0; i < sizes[m]; ++i) idx_m.push_back(m);
    }
    idx_m.resize(idx_m.size() + 5, n_structures);
    const auto n_atoms = static_cast<Index>(idx_m.size());
    for (Index i = 0; i < n_atoms; ++i) numbers.push_back(integer(0, 9));
    const auto random = random_numbers<Scalar>(3 * n_atoms);
    const Array<Scalar> g(random.begin(), random.end());
    Array<double> atomref(10), scale{1.7}, shift{-0.4}, all_atoms{12.5};
    for (auto& e : atomref) e = uniform(-100, 100);
    Array<double> got(n_structures, NAN), means(3, NAN), bar(n_structures);
    Array<Scalar> g_bar(n_atoms, Scalar(NAN));
    for (auto& e : bar) e = uniform(-1, 1);
    std::vector<double> expected(n_structures), expected_means(3);
    std::vector<Scalar> expected_bar(n_atoms);
    for (Index i = 0; i < n_atoms; ++i) {
      if (idx_m[i] == n_structures) continue;
      expected[idx_m[i]] += g[i] * 1.7 - 0.4 + atomref[numbers[i]];
      expected_bar[i] = static_cast<Scalar>(1.7 * bar[idx_m[i]]);
      for (Index l = 0; l < 3; ++l) expected_means[l] += g[l * n_atoms + i] / 12.5;
    }
    cuda::sum_energies(n_structures, sizes.data(), numbers.data(), g.data(),
                       {scale.data(), shift.data(), atomref.data()}, got.data(), nullptr);
    expect_close(got, expected);
    cuda::sum_energies_backward(n_atoms, n_structures, idx_m.data(), scale.data(), bar.data(),
                                g_bar.data(), nullptr);
    expect_close(g_bar, expected_bar);
    cuda::mean_norms(3, n_atoms, n_structures, idx_m.data(), g.data(), all_atoms.data(),
                     means.data(), nullptr);
    expect_close(means, expected_means);
  }
}

void test_batches() {
  const Index n_all = 320, n_chosen = 300;
  Array<Index> structures, atoms, order;
  Array<double> positions;
  Array<std::int32_t> pairs;
  Index n_atoms = 0, n_pairs = 0;
  for (Index m = 0; m < n_all; ++m) {
    const Index size = m == 5 ? 0 : integer(1, 4), count = size > 1 ? integer(0, 5) : 0;
    structures.insert(structures.end(), {n_atoms, size, n_pairs, count});
    for (Index a = 0; a < size; ++a) atoms.insert(atoms.end(), {integer(1, 9), a ? count : 0});
    for (Index p = 0; p < count; ++p) {
      const auto j = static_cast<std::int32_t>(integer(0, size - 1));
      pairs.insert(pairs.end(), {0, j, static_cast<std::int32_t>(p), 0, -1});
    }
    n_atoms += size;
    n_pairs += count;
  }
  structures.insert(structures.end(), {n_atoms, 0, n_pairs, 0});
  atoms.insert(atoms.end(), {0, 0});
  pairs.insert(pairs.end(), {0, 0, 0, 0, 0});
  for (Index k = 0; k < 3 * (n_atoms + 1); ++k) positions.push_back(uniform(-1, 1));
  const Rows<double> energies(random_numbers<double>(n_all + 1)),
      cells(random_numbers<double>(9 * (n_all + 1))),
      forces(random_numbers<double>(3 * (n_atoms + 1)));
  for (Index k = 0; k < 2 * (n_chosen + 1); ++k) order.push_back(integer(0, n_all - 1));
  const Index* const row = order.data() + n_chosen + 1;
  order[n_chosen + 1 + 7] = 5;
  order[2 * n_chosen + 1] = n_all;  // the padding
  Index used_atoms = 0, used_pairs = 0;
  for (Index k = 0; k < n_chosen; ++k) {
    used_atoms += structures[4 * row[k] + 1];
    used_pairs += structures[4 * row[k] + 3];
  }
  const Index room = used_atoms + 3, pair_room = used_pairs + 2;
  Array<Index> step{1}, chosen(n_chosen + 1, -1), sizes(n_chosen, -1), sources(room, -1),
      idx_m(room, -1), numbers(room, -1), row_ptr(room + 1, -1), idx_i(pair_room, -1),
      idx_j(pair_room, -1);
  Array<double> r(3 * room, NAN), e(n_chosen + 1, NAN), h(9 * (n_chosen + 1), NAN),
      f(3 * room, NAN);
  Array<std::int32_t> shifts(3 * pair_room, 77);
  Scratch<unsigned char> scratch(cuda::gather_scratch_bytes(n_chosen));
  const cuda::ResidentArrays from{n_atoms,          n_pairs,      structures.data(),
                                  positions.data(), atoms.data(), pairs.data()};
  const cuda::PaddedArrays to{n_chosen,
                              room,
                              pair_room,
                              chosen.data(),
                              sizes.data(),
                              sources.data(),
                              idx_m.data(),
                              r.data(),
                              numbers.data(),
                              row_ptr.data(),
                              idx_i.data(),
                              idx_j.data(),
                              shifts.data(),
                              {{energies.data(), e.data(), 1}, {cells.data(), h.data(), 9}},
                              {{forces.data(), f.data(), 3}},
                              2,
                              1};
  cuda::gather_batch(order.data(), step.data(), from, to, scratch.data(), nullptr);
  finish();
  Index a = 0, p = 0;
  for (Index k = 0; k < n_chosen; ++k) {
    const Index* const structure = structures.data() + 4 * row[k];
    EXPECT(chosen[k] == row[k] && sizes[k] == structure[1] && e[k] == energies[row[k]]);
    for (int c = 0; c < 9; ++c) EXPECT(h[9 * k + c] == cells[9 * row[k] + c]);
    const Index first = a, first_pair = p;
    for (Index q = 0; q < structure[3]; ++q, ++p) {
      const std::int32_t* const pair = pairs.data() + 5 * (structure[2] + q);
      EXPECT(idx_i[p] == first + pair[0] && idx_j[p] == first + pair[1]);
      for (int c = 0; c < 3; ++c) EXPECT(shifts[3 * p + c] == pair[2 + c]);
    }
    for (Index q = 0; q < structure[1]; ++q, ++a) {
      const Index source = structure[0] + q;
      EXPECT(sources[a] == source && idx_m[a] == k && numbers[a] == atoms[2 * source]);
      EXPECT(row_ptr[a] == first_pair + atoms[2 * source + 1]);
      for (int c = 0; c < 3; ++c) EXPECT(r[3 * a + c] == positions[3 * source + c]);
      for (int c = 0; c < 3; ++c) EXPECT(f[3 * a + c] == forces[3 * source + c]);
    }
  }
  EXPECT(row_ptr[room] == used_pairs);
  EXPECT(e[n_chosen] == energies[n_all]);
  for (; a < room; ++a) {
    EXPECT(idx_m[a] == n_chosen && numbers[a] == 0);
    for (int c = 0; c < 3; ++c) EXPECT(f[3 * a + c] == forces[3 * n_atoms + c]);
  }
  for (; p < pair_room; ++p) EXPECT(idx_i[p] == room - 1 || idx_i[p] == used_atoms);
}

/// Steps beyond the norms that are kept; clips at the median of those before.
template <class Scalar>
void test_plan() {
  Array<double> plan{1e-3, 3, 40, 5e-4, 2, 31}, n_structures{0}, n_atoms{0};
  Array<Scalar> rate{0};
  Array<Index> step{1};
  cuda::begin_step(plan.data(), step.data(), rate.data(), n_structures.data(), n_atoms.data(),
                   nullptr);
  finish();
  EXPECT(rate[0] == Scalar(5e-4) && n_structures[0] == 2 && n_atoms[0] == 31);
}

template <class Scalar>
void test_step_record() {
  const Index n_kept = 4, n_layers = 3;
  Array<Index> counts(3, 0);
  Array<double> history(n_kept, 0), sums(3 * n_layers, 0), totals{0, -1, 0, 0}, factors(2, 0),
      loss{0}, n_structures{3}, norms{1, 2, 4};
  Array<Scalar> norm{0}, weights{Scalar(0.5), Scalar(-1), Scalar(2)};
  const cuda::StepRecord record{counts.data(),  history.data(), sums.data(), totals.data(),
                                factors.data(), n_kept,         n_layers};
  double total = 0;
  const double given[] = {2, 8, 4, 6, 10, 1};
  const double limits[] = {1e9, 2, 5, 4, 5, 7};  // medians of the last four before
  for (int k = 0; k < 6; ++k) {
    norm[0] = static_cast<Scalar>(given[k]);
    loss[0] = k == 3 ? NAN : k + 0.5;
    cuda::record_step(norm.data(), loss.data(), n_structures.data(), norms.data(), weights.data(),
                      1.0, 0.9, record, nullptr);
    finish();
    total += loss[0] * 3;
    EXPECT(std::abs(factors[0] - std::min(1.0, limits[k] / given[k])) < 1e-12);
    EXPECT(std::abs(factors[1] - (1 - std::min(0.9, (2.0 + k) / (11.0 + k)))) < 1e-12);
  }
  EXPECT(counts == Array<Index>({6, 6, 6}));
  EXPECT(std::isnan(total) && std::isnan(totals[0]));
  EXPECT(totals[1] == 3 && std::isnan(totals[2]) && totals[3] == 6);
  EXPECT(sums == Array<double>({6, 12, 24, 3, -12, 48, 1.5, 24, 384}));
}

}  // namespace

int main() {
  need_device();
  test_work_ranges_cover_everything_once();
  test_plans_fit_the_device();
  test_two_blocks_share_a_processor();
  test_scan();
  test_neighbor_lists();
  test_lists_beyond_single_precision();
  test_bad_input_is_reported();
  test_spline_weights<float>();
  test_spline_weights<double>();
  test_rows_that_are_not_aligned<float>();
  test_rows_that_are_not_aligned<double>();
  test_convolutions<float>();
  test_convolutions<double>();
  test_table_gradients_of_long_bins<float>();
  test_table_gradients_of_long_bins<double>();
  test_table_gradients_of_blocks<float>();
  test_table_gradients_of_blocks<double>();
  test_long_lists_by_bin();
  test_half_list_and_geometry();
  test_atomwise_steps<float>();
  test_atomwise_steps<double>();
  test_layers<float>();
  test_layers<double>();
  test_readout<float>();
  test_readout<double>();
  test_column_sums<float>();
  test_column_sums<double>();
  test_filter_tables<float>();
  test_embedding_gradients<float>();
  test_energies_and_norms<float>();
  test_filter_tables<double>();
  test_embedding_gradients<double>();
  test_energies_and_norms<double>();
  test_batches();
  test_plan<float>();
  test_plan<double>();
  test_step_record<float>();
  test_step_record<double>();
  std::puts("cuda core: ok");
}
