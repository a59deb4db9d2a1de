// The CUDA core run by an emulator on a processor, against the core for processors: neighbor lists,
// spline weights, convolutions with all their derivatives, filter tables, pair geometry. Also what
// needs no device at all: divisions of work.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "../core/cuda/activation.hpp"
#include "../core/cuda/cfconv.cuh"
#include "../core/cuda/device.cuh"
#include "../core/cuda/filter_table.hpp"
#include "../core/cuda/neighbor_list.hpp"
#include "../core/cuda/pair_geometry.hpp"
#include "../core/cuda/scan.hpp"
#include "../core/cuda/spline.hpp"

namespace {

using namespace scschnet;
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
  std::vector<double> positions, cells;
  std::vector<Index> atom_ptr{0};
  std::vector<char> pbc;

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
  Structures<Scalar> structures(const std::vector<Scalar>& r) const {
    return {r.data(), atom_ptr.data(), cells.data(), reinterpret_cast<const bool*>(pbc.data()),
            static_cast<Index>(atom_ptr.size()) - 1};
  }
};

struct List {
  std::vector<Index> idx_i, idx_j, row_ptr;
  std::vector<std::int32_t> shifts;
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
  std::vector<unsigned char> scratch(cuda::neighbor_scratch_bytes(n_atoms, input.n_structures));
  List list(capacity, n_atoms);
  cuda::count_neighbors(input, n_atoms, cutoff, scratch.data(), list.row_ptr.data(), &list.found,
                        nullptr);
  cuda::write_neighbors(input, n_atoms, cutoff, scratch.data(), capacity, list.row_ptr.data(),
                        list.arrays(), nullptr);
  return list;
}

template <class Scalar>
void check_lists(const Batch& batch, double cutoff) {
  const std::vector<Scalar> r(batch.positions.begin(), batch.positions.end());
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

void test_scan() {
  for (Index n : {0, 1, 2047, 2048, 2049, 9000}) {
    std::vector<std::int32_t> counts(n);
    for (auto& count : counts) count = static_cast<std::int32_t>(integer(0, 9));
    std::vector<Index> starts(n + 1, -1);
    std::vector<unsigned char> scratch(cuda::scan_scratch_bytes(n));
    cuda::exclusive_scan(counts.data(), n, starts.data(), scratch.data(), nullptr);
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
  static const std::vector<double> coefficients = [] {
    std::vector<double> c(4 * 7);
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

template <class Scalar>
void expect_close(const std::vector<Scalar>& got, const std::vector<Scalar>& expected) {
  EXPECT(got.size() == expected.size());
  double largest = 1e-30, error = 0;
  for (std::size_t k = 0; k < got.size(); ++k) {
    largest = std::max(largest, std::abs(static_cast<double>(expected[k])));
    error = std::max(error, std::abs(static_cast<double>(got[k]) - expected[k]));
    EXPECT(got[k] == got[k]);
  }
  EXPECT(error <= (sizeof(Scalar) == 8 ? 1e-13 : 2e-6) * largest);
}

/// A random half list with spline weights, tables and features; room for more pairs than there are.
template <class Scalar>
struct Convolution {
  Index n_atoms, n_pairs, n_room, n_features, n_rows;
  std::vector<Index> row_ptr{0}, idx_j;
  std::vector<double> d;
  std::vector<std::int32_t> bins;
  std::vector<Scalar> weights, table, a, b, u, l, v;
  std::vector<unsigned char> memory;
  cuda::PairsBothWays<Scalar> pairs;
  FilterTable<Scalar> filters;

  Convolution(Index atoms, Index most_per_atom, Index features, double step = 0.125)
      : n_atoms(atoms), n_features(features), n_rows(least_spline_rows(step, 3.0)) {
    for (Index i = 0; i < n_atoms; ++i) {
      const Index row = integer(0, most_per_atom);
      for (Index p = 0; p < row; ++p) idx_j.push_back(integer(0, n_atoms - 1));
      row_ptr.push_back(row_ptr.back() + row);
    }
    n_pairs = row_ptr.back();
    n_room = n_pairs + 3;
    idx_j.resize(n_room);
    for (Index p = 0; p < n_room; ++p) d.push_back(uniform(0, 3.2));
    bins.resize(n_room);
    weights.resize(2 * n_room * n_taps);
    const SplineGrid grid{step, 3.0, cutoff_pieces(1), n_rows};
    cuda::spline_weights(grid, d.data(), n_room, 0, 2, bins.data(), weights.data(), nullptr);
    table = random_numbers<Scalar>(n_rows * n_features);
    for (auto* x : {&a, &b, &u, &l}) *x = random_numbers<Scalar>(n_atoms * n_features);
    v = random_numbers<Scalar>(n_room);
    memory.resize(cuda::partners_bytes(n_atoms, n_room));
    pairs.half = {n_atoms,     row_ptr.data(), idx_j.data(),
                  bins.data(), weights.data(), weights.data() + n_room * n_taps};
    pairs.partners =
        cuda::find_partners(n_atoms, n_room, row_ptr.data(), idx_j.data(), memory.data(), nullptr);
    pairs.n_pairs = n_room;
    filters = {table.data(), n_rows, n_features};
  }

  std::vector<Scalar> features() const {
    return std::vector<Scalar>(n_atoms * n_features, Scalar(NAN));
  }
};

template <class Scalar>
void check_partners(const Convolution<Scalar>& c) {
  const auto& partners = c.pairs.partners;
  Index entries = 0;
  for (Index j = 0; j < c.n_atoms; ++j) {
    for (Index k = partners.col_ptr[j]; k < partners.col_ptr[j + 1]; ++k, ++entries) {
      const Index p = partners.col_pair[k], i = partners.col_center[k];
      EXPECT(c.idx_j[p] == j && c.row_ptr[i] <= p && p < c.row_ptr[i + 1]);
      EXPECT(partners.centers[p] == i);
      EXPECT(k == partners.col_ptr[j] || partners.col_pair[k - 1] < p);
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
  EXPECT(again == y);

  std::vector<Scalar> scratch(cuda::dot_scratch_size<Scalar>(c.n_features, c.n_room), Scalar(NAN));
  std::vector<Scalar> dot(c.n_room, Scalar(NAN)), expected_dot(c.n_room, 0);
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

template <class Scalar>
void check_table_gradients(const Convolution<Scalar>& c) {
  const FeatureRange all{0, c.n_features};
  const auto isa = cpu::InstructionSet::generic;
  std::vector<Scalar> bar(c.table.size(), Scalar(NAN)), expected = bar;
  std::vector<Scalar> scratch(
      cuda::table_gradient_scratch_size<Scalar>(c.n_rows, c.n_features, c.n_room), Scalar(NAN));
  cuda::cfconv_table_gradient(c.pairs, c.filters, c.a.data(), c.b.data(), bar.data(),
                              scratch.data(), nullptr);
  cpu::cfconv_table_gradient(c.pairs.half, c.filters, c.a.data(), c.b.data(), all, expected.data(),
                             isa);
  expect_close(bar, expected);
  const Scalar* none = nullptr;
  cuda::cfconv_total_table_gradient(c.pairs, c.filters, none, c.u.data(), c.v.data(), c.a.data(),
                                    c.b.data(), bar.data(), scratch.data(), nullptr);
  cpu::cfconv_backward_table_gradient(c.pairs.half, c.filters, c.u.data(), c.v.data(), c.a.data(),
                                      c.b.data(), all, expected.data(), isa);
  expect_close(bar, expected);
  cuda::cfconv_total_table_gradient(c.pairs, c.filters, c.l.data(), c.u.data(), c.v.data(),
                                    c.a.data(), c.b.data(), bar.data(), scratch.data(), nullptr);
  cpu::cfconv_total_table_gradient(c.pairs.half, c.filters, c.l.data(), c.u.data(), c.v.data(),
                                   c.a.data(), c.b.data(), all, expected.data(), isa);
  expect_close(bar, expected);
}

/// The same numbers from arrays that begin in the middle of a pack; the scratch memory is exactly
/// as large as said, and what lies behind it stays.
template <class Scalar>
void test_rows_that_are_not_aligned() {
  const Convolution<Scalar> c(40, 30, 64);
  const Index n = c.n_atoms * c.n_features, size = cuda::dot_scratch_size<Scalar>(64, c.n_room);
  const auto shifted = [](const std::vector<Scalar>& from) {
    std::vector<Scalar> to(1, Scalar(NAN));
    to.insert(to.end(), from.begin(), from.end());
    return to;
  };
  const auto a = shifted(c.a), b = shifted(c.b);
  std::vector<Scalar> scratch(size + 1000, Scalar(7)), dot(c.n_room), expected_dot(c.n_room, 0);
  std::vector<Scalar> x_bar(n + 1), expected(n);
  cuda::cfconv_backward(c.pairs, c.filters, a.data() + 1, b.data() + 1, x_bar.data() + 1,
                        dot.data(), false, scratch.data(), nullptr);
  cpu::cfconv_backward(c.pairs.half, c.filters, c.a.data(), c.b.data(),
                       FeatureRange{0, c.n_features}, expected.data(), expected_dot.data(),
                       cpu::InstructionSet::generic);
  x_bar.erase(x_bar.begin());
  expect_close(x_bar, expected);
  expect_close(dot, expected_dot);
  for (Index k = size; k < size + 1000; ++k) EXPECT(scratch[k] == Scalar(7));
}

template <class Scalar>
void test_convolutions() {
  // Tables in shared memory, small ones and such that need more than 48 KB; then the smallest
  // shared memory of a supported device, where they have no room.
  for (const auto& [shared, step] :
       {std::pair{227, 1.0 / 8}, std::pair{227, 1.0 / 128}, std::pair{64, 1.0 / 256}}) {
    emulator::shared_bytes_per_block() = shared * 1024;
    for (Index n_features : {1, 8, 20, 37, 64, 130}) {
      if (step < 0.01 && n_features % 10 == 0) continue;
      const Convolution<Scalar> few(11, 5, n_features, step), many(60, 70, n_features, step),
          none(3, 0, 4, step);
      check_partners(many);
      for (const auto* c : {&few, &many, &none}) {
        check_convolution(*c);
        check_table_gradients(*c);
      }
    }
  }
  emulator::shared_bytes_per_block() = 227 * 1024;
}

template <class Scalar>
void test_spline_weights() {
  for (const int n_pieces : {1, 4}) {
    const SplineGrid grid{0.125, 3.0, cutoff_pieces(n_pieces), least_spline_rows(0.125, 3.0)};
    std::vector<double> d{0, 1e-9, 0.125, 0.125 - 1e-16, 1.3, 2.99, 3 - 1e-12, 3.0, 7.0};
    const Index n = static_cast<Index>(d.size());
    std::vector<std::int32_t> bins(n), expected_bins(n);
    std::vector<Scalar> weights(9 * n * n_taps), expected(weights.size());
    cuda::spline_weights(grid, d.data(), n, 0, 9, bins.data(), weights.data(), nullptr);
    cpu::spline_weights(grid, d.data(), n, 0, 9, expected_bins.data(), expected.data());
    EXPECT(bins == expected_bins);
    for (int order = 0; order < 9; ++order) {
      const auto part = [&](const std::vector<Scalar>& all) {
        return std::vector<Scalar>(all.begin() + order * n * n_taps,
                                   all.begin() + (order + 1) * n * n_taps);
      };
      expect_close(part(weights), part(expected));
    }
    const std::vector<double> bad{-1.0, NAN, INFINITY};
    cuda::spline_weights(grid, bad.data(), 3, 0, 1, bins.data(), weights.data(), nullptr);
    for (int k = 0; k < 3 * n_taps; ++k) EXPECT(std::isnan(weights[k]));
    EXPECT(bins[0] == 0 && bins[1] == 0 && bins[2] == 0);
  }
}

// ---- half lists and geometry

void test_half_list_and_geometry() {
  Batch batch;
  for (Index n : {20, 0, 30, 7}) batch.add(n, 6, 0.4, true);
  const Index n_atoms = batch.atom_ptr.back(), n_structures = 4;
  std::vector<Index> idx_m;
  for (Index m = 0; m < n_structures; ++m)
    for (Index i = batch.atom_ptr[m]; i < batch.atom_ptr[m + 1]; ++i) idx_m.push_back(m);
  const auto input = batch.structures(batch.positions);
  const Index n_pairs = list_of_device(input, n_atoms, 2.5, 0).found.n_pairs;  // an even number
  for (Index room : {n_pairs, n_pairs + 6}) {
    const List list = list_of_device(input, n_atoms, 2.5, room);
    std::vector<unsigned char> scratch(cuda::half_list_scratch_bytes(n_atoms));
    std::vector<Index> pairs(room / 2, -1), row_ptr(n_atoms + 1), idx_j(room / 2, -1);
    cuda::half_list({n_atoms, room, list.idx_i.data(), list.idx_j.data(), list.shifts.data()},
                    scratch.data(), pairs.data(), row_ptr.data(), idx_j.data(), nullptr);
    EXPECT(row_ptr.back() == n_pairs / 2);
    for (Index i = 0; i < n_atoms; ++i) {
      for (Index p = row_ptr[i]; p < row_ptr[i + 1]; ++p) {
        EXPECT(list.idx_i[pairs[p]] == i && list.idx_j[pairs[p]] == idx_j[p] && i <= idx_j[p]);
        EXPECT(p == row_ptr[i] || pairs[p - 1] < pairs[p]);
      }
    }
    const ChosenPairs chosen{room / 2, pairs.data(), list.idx_i.data(), list.idx_j.data(),
                             list.shifts.data()};
    std::vector<double> r(3 * (room / 2)), d(room / 2), r_expected(3 * (n_pairs / 2)),
        d_expected(n_pairs / 2);
    ChosenPairs without_room = chosen;
    without_room.n_pairs = n_pairs / 2;
    cuda::pair_vectors(chosen, n_atoms, batch.positions.data(), batch.cells.data(), idx_m.data(),
                       r.data(), d.data(), nullptr);
    cpu::pair_vectors(without_room, batch.positions.data(), batch.cells.data(), idx_m.data(),
                      r_expected.data(), d_expected.data());
    r_expected.resize(r.size(), 0);  // places behind the last pair repeat pair 0 of the full list
    d_expected.resize(d.size(), 0);
    for (Index p = n_pairs / 2; p < room / 2; ++p)
      r[3 * p] = r[3 * p + 1] = r[3 * p + 2] = d[p] = 0;
    expect_close(r, r_expected);
    expect_close(d, d_expected);

    const auto g = random_numbers<double>(room / 2);
    const DirectedPairs directed{n_atoms,  row_ptr.data(), idx_j.data(),
                                 r.data(), d.data(),       idx_m.data()};
    std::vector<unsigned char> memory(cuda::partners_bytes(n_atoms, room / 2));
    const auto partners = cuda::find_partners(n_atoms, room / 2, row_ptr.data(), idx_j.data(),
                                              memory.data(), nullptr);
    std::vector<unsigned char> work(cuda::pair_forces_scratch_bytes(n_atoms, n_structures));
    std::vector<double> forces(3 * n_atoms, NAN), virial(9 * n_structures, NAN);
    std::vector<double> expected_forces(3 * n_atoms, 0), expected_virial(9 * n_structures, 0);
    cuda::pair_forces(directed, partners, g.data(), n_structures, forces.data(), virial.data(),
                      work.data(), nullptr);
    cpu::pair_forces(directed, g.data(), expected_forces.data(), expected_virial.data());
    expect_close(forces, expected_forces);
    expect_close(virial, expected_virial);
    std::vector<double> bar(room / 2, 0), expected_bar(room / 2, 0);
    cuda::pair_forces_backward(directed, forces.data(), virial.data(), bar.data(), nullptr);
    cpu::pair_forces_backward(directed, forces.data(), virial.data(), expected_bar.data());
    expect_close(bar, expected_bar);
  }
}

}  // namespace

int main() {
  test_work_ranges_cover_everything_once();
  test_plans_fit_the_device();
  test_scan();
  test_neighbor_lists();
  test_bad_input_is_reported();
  test_spline_weights<float>();
  test_spline_weights<double>();
  test_rows_that_are_not_aligned<float>();
  test_rows_that_are_not_aligned<double>();
  test_convolutions<float>();
  test_convolutions<double>();
  test_half_list_and_geometry();
  std::puts("cuda core: ok");
}
