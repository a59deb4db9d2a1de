// Checks of the core without Python: the compact form, reuse of one object, several objects at
// once, two threads.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <vector>

#include "../core/neighbor_list.hpp"

namespace {

using scschnet::PairArrays;
using scschnet::Structures;
using scschnet::cpu::NeighborList;
using Pair = std::tuple<std::int64_t, std::int64_t, int, int, int>;

void expect(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

/// Atoms at random in cubes of 10 cubic Å per atom.
struct Batch {
  std::vector<double> positions, cells;
  std::vector<std::int64_t> atom_ptr{0};
  std::unique_ptr<bool[]> pbc;

  Batch(const std::vector<int>& sizes, bool periodic) : pbc(new bool[3 * sizes.size()]) {
    std::mt19937 random(1);
    for (int size : sizes) {
      const double edge = std::cbrt(10.0 * std::max(size, 1));
      std::uniform_real_distribution<double> coordinate(0, edge);
      for (int k = 0; k < 3 * size; ++k) positions.push_back(coordinate(random));
      for (int k = 0; k < 9; ++k) cells.push_back(k % 4 == 0 ? edge : 0);
      for (int k = 0; k < 3; ++k) pbc[3 * (atom_ptr.size() - 1) + k] = periodic;
      atom_ptr.push_back(atom_ptr.back() + size);
    }
  }

  Structures<double> view() const {
    return {positions.data(), atom_ptr.data(), cells.data(), pbc.get(),
            static_cast<std::int64_t>(atom_ptr.size()) - 1};
  }
};

std::vector<Pair> pairs_of(const NeighborList& list) {
  const auto n = static_cast<std::size_t>(list.n_pairs());
  std::vector<std::int64_t> i(n), j(n), row_ptr(list.n_atoms() + 1);
  std::vector<std::int32_t> s(3 * n);
  list.write({.idx_i = i.data(), .idx_j = j.data(), .shifts = s.data(), .row_ptr = row_ptr.data()});
  expect(row_ptr.back() == list.n_pairs(), "row_ptr ends at the number of pairs");
  std::vector<Pair> pairs;
  for (std::size_t k = 0; k < n; ++k)
    pairs.emplace_back(i[k], j[k], s[3 * k], s[3 * k + 1], s[3 * k + 2]);
  return pairs;
}

void check_compact_form(const NeighborList& list) {
  std::vector<Pair> pairs;
  for (std::int64_t i = 0; i < list.n_atoms(); ++i) {
    const auto row = list.row(i);
    expect(row.center->atom == i, "the center of row i is atom i");
    for (std::int64_t k = 0; k < row.count; ++k) {
      const auto& image = row.images[row.slots[k]];
      pairs.emplace_back(i, image.atom, image.shift[0] - row.center->shift[0],
                         image.shift[1] - row.center->shift[1],
                         image.shift[2] - row.center->shift[2]);
    }
  }
  expect(pairs == pairs_of(list),
         "the compact rows hold the pairs that are written, in that order");
  const std::int32_t* order = list.spatial_order();
  const std::set<std::int32_t> atoms(order, order + list.n_atoms());
  expect(static_cast<std::int64_t>(atoms.size()) == list.n_atoms(),
         "the spatial order names every atom once");
}

void check_reuse_and_threads() {
  NeighborList reused;
  for (const auto& sizes :
       {std::vector<int>{6000}, {5, 0, 40}, std::vector<int>(300, 30), {1}, {}}) {
    for (bool periodic : {true, false}) {
      const Batch batch(sizes, periodic);
      NeighborList fresh;
      fresh.find(batch.view(), 4.0);
      for (int threads : {2, 1, 3}) {
        reused.find(batch.view(), 4.0, {.threads = threads});
        expect(pairs_of(reused) == pairs_of(fresh),
               "a reused object with any number of threads gives the same");
        check_compact_form(reused);
      }
    }
  }
}

void check_objects_side_by_side() {
  const Batch batch({5000}, true);
  NeighborList alone;
  alone.find(batch.view(), 4.0);
  const auto expected = pairs_of(alone);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      NeighborList list;
      for (int repeat = 0; repeat < 3; ++repeat) {
        list.find(batch.view(), 4.0, {.threads = 2});
        expect(pairs_of(list) == expected, "objects do not disturb each other");
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

void check_failure_leaves_nothing() {
  Batch batch({5000}, true);
  NeighborList list;
  list.find(batch.view(), 4.0);
  batch.positions[7] = NAN;
  bool thrown = false;
  try {
    list.find(batch.view(), 4.0, {.threads = 2});
  } catch (const std::invalid_argument&) {
    thrown = true;
  }
  expect(thrown && list.n_pairs() == 0 && list.n_atoms() == 0,
         "a failed search throws and leaves an empty list");
  batch.positions[7] = 0;
  expect(list.find(batch.view(), 4.0) > 0, "and the object can be used again");
}

}  // namespace

int main() {
  check_reuse_and_threads();
  check_objects_side_by_side();
  check_failure_leaves_nothing();
  std::puts("neighbor list: ok");
}
