// Checks of a whole network's core: both passes, with and without ghosts, for every instruction set
// and scalar type, against the equations of schnet.hpp as loops over hyperdual numbers, whose
// derivatives are exact.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../core/schnet.hpp"

namespace {

using namespace scschnet;
using cpu::InstructionSet;
using Index = std::int64_t;
using Values = std::vector<double>;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
  std::exit(1);
}

// ---- numbers with derivatives along two directions

/// x + a e1 + b e2 + ab e1 e2, with e1^2 = e2^2 = 0.
struct Hyperdual {
  double x = 0, a = 0, b = 0, ab = 0;
};

Hyperdual operator+(const Hyperdual& p, const Hyperdual& q) {
  return {p.x + q.x, p.a + q.a, p.b + q.b, p.ab + q.ab};
}

Hyperdual operator*(const Hyperdual& p, const Hyperdual& q) {
  return {p.x * q.x, p.a * q.x + p.x * q.a, p.b * q.x + p.x * q.b,
          p.ab * q.x + p.a * q.b + p.b * q.a + p.x * q.ab};
}

Hyperdual shifted_softplus(const Hyperdual& z) {
  const double slope = 1 / (1 + std::exp(-z.x)), curvature = slope * (1 - slope);
  return {std::log1p(std::exp(z.x)) - std::log(2.0), slope * z.a, slope * z.b,
          slope * z.ab + curvature * z.a * z.b};
}

// ---- a network and a graph

/// The parameters of a network end to end; also their gradients.
struct Shape {
  SchnetSizes n;

  /// Calls visit(number of values, pointer to be set) for every array of `p`, in order.
  template <class Pointer, class Visit>
  void visit(SchnetParameters<Pointer>& p, const Visit& array) const {
    const Index f = n.n_features, h = n.n_hidden;
    p.blocks.resize(n.n_blocks);
    array(n.n_atoms * f, p.features);
    array(n.n_blocks * n.n_rows * f, p.tables);
    array(n.n_blocks + 1, p.contribution_weights);
    for (auto& block : p.blocks) {
      array(f * f, block.input);
      array(f * f, block.hidden);
      array(f, block.hidden_bias);
      array(f * f, block.output);
      array(f, block.output_bias);
    }
    array(h * f, p.readout);
    array(h, p.readout_bias);
    array(h, p.readout_output);
    array(1, p.readout_output_bias);
  }

  template <class Pointer>
  SchnetParameters<Pointer> in(Pointer memory) const {
    SchnetParameters<Pointer> p;
    visit(p, [&](Index size, Pointer& pointer) {
      pointer = memory;
      memory += size;
    });
    return p;
  }

  /// Where each array ends.
  std::vector<Index> ends() const {
    SchnetParameters<const double*> p;
    std::vector<Index> ends{0};
    visit(p, [&](Index size, const double*&) { ends.push_back(ends.back() + size); });
    return ends;
  }
};

/// A half list with weights of no meaning. `owner` names the atom whose copy a ghost is.
struct Graph {
  Index n_local = 0;
  std::vector<Index> owner, row_ptr{0}, idx_j, source;  // source: pair of the graph without ghosts
  std::vector<std::int32_t> bins;
  Values w, z;
};

struct Pair {
  Index i, j;
  bool outside;  // j is an image that a ghost may stand for
  std::int32_t bin;
  std::array<double, n_taps> w, z;
};

/// Random values that a float can hold.
struct Random {
  std::mt19937 generator;
  double operator()(double width = 1) {
    return static_cast<float>(std::uniform_real_distribution<double>(-width, width)(generator));
  }
  Index below(Index n) { return static_cast<Index>(generator() % static_cast<std::uint32_t>(n)); }
};

std::vector<Pair> random_pairs(Index n_atoms, Index per_atom, Index n_rows, Random& random) {
  std::vector<Pair> pairs;
  for (Index p = 0; p < n_atoms * per_atom; ++p) {
    Pair pair{.i = random.below(n_atoms),
              .j = random.below(n_atoms),
              .outside = p % 3 == 0,
              .bin = static_cast<std::int32_t>(random.below(n_rows - n_taps + 1)),
              .w = {},
              .z = {}};
    for (int m = 0; m < n_taps; ++m) {
      pair.w[m] = random();
      pair.z[m] = random();
    }
    pairs.push_back(pair);
  }
  return pairs;
}

/// The pairs as a half list. With ghosts each pair to the outside stands with both of its atoms, as
/// a pair with a ghost; every atom has two, for its pairs in turn.
Graph make_graph(Index n_atoms, const std::vector<Pair>& pairs, bool ghosts) {
  Graph graph;
  graph.n_local = n_atoms;
  for (Index i = 0; i < n_atoms; ++i) graph.owner.push_back(i);
  std::map<std::pair<Index, Index>, Index> known;
  const auto ghost_of = [&](Index atom, Index image) {
    const auto [entry, is_new] = known.try_emplace({atom, image}, graph.owner.size());
    if (is_new) graph.owner.push_back(atom);
    return entry->second;
  };
  const auto append = [&](Index p, Index j) {
    const Pair& pair = pairs[p];
    graph.idx_j.push_back(j);
    graph.source.push_back(p);
    graph.bins.push_back(pair.bin);
    graph.w.insert(graph.w.end(), pair.w.begin(), pair.w.end());
    graph.z.insert(graph.z.end(), pair.z.begin(), pair.z.end());
  };
  for (Index i = 0; i < n_atoms; ++i) {
    for (Index p = 0; p < static_cast<Index>(pairs.size()); ++p) {
      const Pair& pair = pairs[p];
      const bool apart = ghosts && pair.outside;
      if (pair.i == i) append(p, apart ? ghost_of(pair.j, p % 2) : pair.j);
      if (pair.j == i && apart) append(p, ghost_of(pair.i, p % 2));
    }
    graph.row_ptr.push_back(static_cast<Index>(graph.idx_j.size()));
  }
  graph.row_ptr.resize(graph.owner.size() + 1, graph.row_ptr.back());  // ghosts have no pairs
  return graph;
}

// ---- the equations

using Rows = std::vector<Hyperdual>;

/// y = x W^T + b for n rows; W (outputs, inputs) and b may be null.
Rows product(const Rows& x, const Hyperdual* weight, const Hyperdual* bias, Index n, Index inputs,
             Index outputs) {
  Rows y(n * outputs);
  for (Index i = 0; i < n; ++i) {
    for (Index o = 0; o < outputs; ++o) {
      Hyperdual sum = bias ? bias[o] : Hyperdual{};
      for (Index k = 0; k < inputs; ++k) sum = sum + x[i * inputs + k] * weight[o * inputs + k];
      y[i * outputs + o] = sum;
    }
  }
  return y;
}

struct Exact {
  Rows g;
  std::vector<Rows> corrections;
};

/// The network on a graph without ghosts, its parameters given along `direction` (e1), the weights
/// of each pair along v_p z_p (e2).
Exact exact_network(const Shape& shape, const Graph& graph, const Values& parameters,
                    const Values& direction, const Values& v) {
  const Index f = shape.n.n_features, h = shape.n.n_hidden, n = shape.n.n_atoms;
  Rows values(parameters.size());
  for (std::size_t k = 0; k < values.size(); ++k) values[k] = {parameters[k], direction[k], 0, 0};
  const auto p = shape.in<const Hyperdual*>(values.data());
  Exact exact;
  Rows x(p.features, p.features + n * f), out(n * f);
  const auto add = [&](Index l, const Rows& correction) {
    for (Index k = 0; k < n * f; ++k) out[k] = out[k] + p.contribution_weights[l] * correction[k];
    exact.corrections.push_back(correction);
  };
  add(0, x);
  for (Index l = 0; l < shape.n.n_blocks; ++l) {
    const auto& block = p.blocks[l];
    const Hyperdual* table = p.tables + l * shape.n.n_rows * f;
    const Rows convolved = product(x, block.input, nullptr, n, f, f);
    Rows y(n * f);
    for (Index i = 0; i < n; ++i) {
      for (Index q = graph.row_ptr[i]; q < graph.row_ptr[i + 1]; ++q) {
        const Index j = graph.idx_j[q];
        for (Index k = 0; k < f; ++k) {
          Hyperdual filter;
          for (int m = 0; m < n_taps; ++m) {
            const Index at = q * n_taps + m;
            filter = filter + Hyperdual{graph.w[at], 0, v[q] * graph.z[at], 0} *
                                  table[(graph.bins[q] + m) * f + k];
          }
          y[i * f + k] = y[i * f + k] + filter * convolved[j * f + k];
          y[j * f + k] = y[j * f + k] + filter * convolved[i * f + k];
        }
      }
    }
    Rows s = product(y, block.hidden, block.hidden_bias, n, f, f);
    std::transform(s.begin(), s.end(), s.begin(), shifted_softplus);
    const Rows correction = product(s, block.output, block.output_bias, n, f, f);
    for (Index k = 0; k < n * f; ++k) x[k] = x[k] + correction[k];
    add(l + 1, correction);
  }
  Rows hidden = product(out, p.readout, p.readout_bias, n, f, h);
  std::transform(hidden.begin(), hidden.end(), hidden.begin(), shifted_softplus);
  exact.g = product(hidden, p.readout_output, p.readout_output_bias, n, h, 1);
  return exact;
}

// ---- the passes

/// Memory of exactly this size, aligned as the passes want it, full of rubbish.
template <class Scalar>
class Memory {
 public:
  explicit Memory(Index n)
      : data_(static_cast<Scalar*>(::operator new(n * sizeof(Scalar), alignment))) {
    std::fill_n(data_.get(), n, std::numeric_limits<Scalar>::quiet_NaN());
  }
  Scalar* get() const { return data_.get(); }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(Scalar* p) const { ::operator delete(p, alignment); }
  };
  std::unique_ptr<Scalar, Free> data_;
};

ParallelFor threads(int n_threads) {
  return {n_threads, [n_threads](Index n, const std::function<void(Index)>& task) {
            std::vector<std::thread> running;
            for (int t = 0; t < n_threads; ++t) {
              running.emplace_back([=, &task] {
                for (Index k = t; k < n; k += n_threads) task(k);
              });
            }
            for (auto& thread : running) thread.join();
          }};
}

template <class Scalar>
struct Results {
  std::vector<Scalar> g, d_bar, norms, corrections, gradients;
  Index halo_calls = 0;
  bool operator==(const Results&) const = default;
};

struct How {
  InstructionSet isa;
  int n_threads = 1;
  bool derivatives = true, gradients = false, packed = false;
};

template <class Scalar>
std::vector<Scalar> rounded(const Values& values) {
  return {values.begin(), values.end()};
}

/// How the owners of all ghosts, which are here, keep them right.
template <class Scalar>
Halo<Scalar> halo_of(const Graph& graph, Index width, Index& calls) {
  const Index n = static_cast<Index>(graph.owner.size());
  return {.forward =
              [&graph, width, n, &calls](Scalar* rows) {
                ++calls;
                for (Index i = graph.n_local; i < n; ++i)
                  std::copy_n(rows + graph.owner[i] * width, width, rows + i * width);
              },
          .reverse =
              [&graph, width, n, &calls](Scalar* rows) {
                ++calls;
                for (Index k = graph.n_local * width; k < n * width; ++k)
                  rows[graph.owner[k / width] * width + k % width] += rows[k];
              }};
}

template <class Scalar>
Results<Scalar> run(const Shape& shape, const Graph& graph, const Values& parameters,
                    const Values& g_bar, const Values& v, const How& how) {
  const SchnetSizes& n = shape.n;
  const auto values = rounded<Scalar>(parameters), w = rounded<Scalar>(graph.w),
             z = rounded<Scalar>(graph.z), g_cotangent = rounded<Scalar>(g_bar),
             d_cotangent = rounded<Scalar>(v);
  auto p = shape.in(values.data());
  const HalfPairs<Scalar> pairs{n.n_atoms,          graph.row_ptr.data(),
                                graph.idx_j.data(), graph.bins.data(),
                                w.data(),           how.derivatives ? z.data() : nullptr};
  const SchnetOptions options{.derivatives = how.derivatives, .keep = how.gradients};
  const Index layers = (n.n_blocks + 1) * n.n_computed;
  constexpr Scalar rubbish = std::numeric_limits<Scalar>::quiet_NaN();
  Results<Scalar> r{std::vector<Scalar>(n.n_computed, rubbish),
                    std::vector<Scalar>(how.derivatives ? n.n_pairs : 0, rubbish),
                    std::vector<Scalar>(layers, rubbish),
                    std::vector<Scalar>(layers * n.n_features, rubbish),
                    std::vector<Scalar>(how.gradients ? values.size() : 0, rubbish)};
  const Memory<Scalar> state(cpu::schnet_state_size<Scalar>(n, options));
  const auto parallel_for = threads(how.n_threads);
  const Memory<Scalar> packed(how.packed ? cpu::schnet_packed_size<Scalar>(n) : 0);
  if (how.packed) {
    cpu::schnet_pack<Scalar>(n, p, packed.get(), parallel_for, how.isa);
    p.packed = packed.get();
  }
  cpu::schnet_forward<Scalar>(n, options, pairs, p,
                              {r.g.data(), how.derivatives ? r.d_bar.data() : nullptr,
                               r.norms.data(), r.corrections.data(), nullptr},
                              state.get(), halo_of<Scalar>(graph, n.n_features, r.halo_calls),
                              parallel_for, how.isa);
  if (!how.gradients) return r;
  const Memory<Scalar> scratch(cpu::schnet_scratch_size<Scalar>(n, how.derivatives));
  cpu::schnet_backward<Scalar>(n, options, pairs, p, state.get(), g_cotangent.data(),
                               how.derivatives ? d_cotangent.data() : nullptr, nullptr,
                               shape.in(r.gradients.data()), scratch.get(), parallel_for, how.isa);
  return r;
}

// ---- comparisons

template <class Scalar>
constexpr double tolerance = sizeof(Scalar) == 4 ? 3e-5 : 1e-12;

/// Largest difference against the largest value.
template <class Scalar, class Expected>
void compare(const std::vector<Scalar>& got, const Expected& expected, const std::string& what) {
  double scale = 1e-2;
  for (const double value : expected) scale = std::max(scale, std::abs(value));
  expect(got.size() == expected.size(), what + ": size");
  for (std::size_t k = 0; k < got.size(); ++k) {
    const double error = std::abs(static_cast<double>(got[k]) - expected[k]);
    expect(error <= tolerance<Scalar> * scale, what);
  }
}

/// One network on one graph, and what the equations say about it.
struct Case {
  std::string name;
  std::vector<Pair> pairs;
  Graph graph;
  Shape shape;
  Values parameters, g_bar, v;
  Values g, d_bar, norms, corrections;
  std::vector<Values> directions;  // each along one array of parameters
  Values energy_slopes, slopes;    // of g_bar g and of g_bar g + v d_bar along these

  Case(Index n_atoms, Index per_atom, Index n_features, Index n_blocks) {
    Random random{std::mt19937(7)};
    const Index n_rows = 15;
    pairs = n_atoms ? random_pairs(n_atoms, per_atom, n_rows, random) : std::vector<Pair>{};
    graph = make_graph(n_atoms, pairs, false);
    shape.n = {.n_atoms = n_atoms,
               .n_local = n_atoms,
               .n_computed = n_atoms,
               .n_pairs = static_cast<Index>(pairs.size()),
               .n_features = n_features,
               .n_hidden = n_features / 2,
               .n_blocks = n_blocks,
               .n_rows = n_rows};
    name = std::to_string(n_atoms) + " atoms, " + std::to_string(n_features) + " features, " +
           std::to_string(n_blocks) + " blocks";
    const double width = 1 / std::sqrt(static_cast<double>(n_features));
    for (Index k = 0; k < shape.ends().back(); ++k) parameters.push_back(random(3 * width));
    for (Index i = 0; i < n_atoms; ++i) g_bar.push_back(random());
    for (Index p = 0; p < shape.n.n_pairs; ++p) v.push_back(random());
    make_directions(random);
    solve();
  }

  void make_directions(Random& random) {
    const auto ends = shape.ends();
    for (std::size_t a = 0; a + 1 < ends.size(); ++a) {
      Values direction(parameters.size());
      for (Index k = ends[a]; k < ends[a + 1]; ++k) direction[k] = random();
      directions.push_back(direction);
    }
  }

  void solve() {
    const Values nothing(parameters.size()), still(v.size());
    const Exact exact = exact_network(shape, graph, parameters, nothing, still);
    for (const auto& number : exact.g) g.push_back(number.x);
    for (const Rows& layer : exact.corrections) {
      for (Index i = 0; i < shape.n.n_atoms; ++i) {
        double square = 0;
        for (Index k = 0; k < shape.n.n_features; ++k) {
          const double value = layer[i * shape.n.n_features + k].x;
          corrections.push_back(value);
          square += value * value;
        }
        norms.push_back(std::sqrt(square));
      }
    }
    for (Index p = 0; p < std::min<Index>(shape.n.n_pairs, 7); ++p) {
      Values one(v.size());
      one[p] = 1;
      double sum = 0;
      for (const auto& number : exact_network(shape, graph, parameters, nothing, one).g)
        sum += number.b;
      d_bar.push_back(sum);
    }
    for (const Values& direction : directions) {
      const Exact along = exact_network(shape, graph, parameters, direction, v);
      double energy = 0, both = 0;
      for (Index i = 0; i < shape.n.n_atoms; ++i) {
        energy += g_bar[i] * along.g[i].a;
        both += along.g[i].ab;
      }
      energy_slopes.push_back(energy);
      slopes.push_back(energy + both);
    }
  }
};

template <class Scalar>
void check_gradients(const Case& c, const std::vector<Scalar>& gradients, const Values& expected,
                     const std::string& what) {
  for (std::size_t a = 0; a < expected.size(); ++a) {
    double sum = 0, magnitude = 1;
    for (std::size_t k = 0; k < gradients.size(); ++k) {
      const double term = c.directions[a][k] == 0 ? 0 : gradients[k] * c.directions[a][k];
      sum += term;
      magnitude += std::abs(term);
    }
    expect(std::abs(sum - expected[a]) <= tolerance<Scalar> * magnitude,
           what + ": gradient of array " + std::to_string(a));
  }
}

template <class Scalar>
void check_without_ghosts(const Case& c, InstructionSet isa, const std::string& what) {
  const auto once = [&](const How& how) {
    return run<Scalar>(c.shape, c.graph, c.parameters, c.g_bar, c.v, how);
  };
  const auto forces = once({.isa = isa, .gradients = true});
  compare(forces.g, c.g, what + ": g");
  compare(forces.norms, c.norms, what + ": norms");
  compare(forces.corrections, c.corrections, what + ": corrections");
  const std::vector<Scalar> first(forces.d_bar.begin(),
                                  forces.d_bar.begin() + static_cast<Index>(c.d_bar.size()));
  compare(first, c.d_bar, what + ": d_bar");
  check_gradients(c, forces.gradients, c.slopes, what + ", forces");
  const auto energies = once({.isa = isa, .derivatives = false, .gradients = true});
  expect(energies.g == forces.g, what + ": g without derivatives");
  check_gradients(c, energies.gradients, c.energy_slopes, what + ", energies");
  expect(forces == once({.isa = isa, .n_threads = 2, .gradients = true}),
         what + ": same bits with two threads");
  expect(forces == once({.isa = isa, .gradients = true, .packed = true}),
         what + ": same bits with weights packed before");
  expect(energies == once({.isa = isa, .derivatives = false, .gradients = true, .packed = true}),
         what + ": same bits with weights packed before, without derivatives");
  const auto shared = once({.isa = isa, .n_threads = 2});
  expect(shared.g == forces.g && shared.d_bar == forces.d_bar && shared.norms == forces.norms,
         what + ": same bits where blocks share their arrays");
}

template <class Scalar>
void check_halo(const Case& c, InstructionSet isa, const std::string& what) {
  const Graph graph = make_graph(c.shape.n.n_atoms, c.pairs, true);
  Shape shape = c.shape;
  shape.n.n_atoms = static_cast<Index>(graph.owner.size());
  shape.n.n_pairs = static_cast<Index>(graph.idx_j.size());
  const Index f = shape.n.n_features;
  Values parameters;  // ghosts have the features of their owners, then all else follows
  for (const Index atom : graph.owner) {
    for (Index k = 0; k < f; ++k) parameters.push_back(c.parameters[atom * f + k]);
  }
  parameters.insert(parameters.end(), c.parameters.begin() + c.shape.n.n_atoms * f,
                    c.parameters.end());
  const auto whole = run<Scalar>(c.shape, c.graph, c.parameters, {}, {}, {.isa = isa});
  for (const int n_threads : {1, 2}) {
    const auto found =
        run<Scalar>(shape, graph, parameters, {}, {}, {.isa = isa, .n_threads = n_threads});
    const bool exchanges = shape.n.n_atoms > graph.n_local && shape.n.n_blocks > 0;
    expect(found.halo_calls == (exchanges ? 2 * (shape.n.n_blocks - 1) : 0), what + ": calls");
    compare(found.g, whole.g, what + ": g");
    compare(found.norms, whole.norms, what + ": norms");
    compare(found.corrections, whole.corrections, what + ": corrections");
    std::vector<Scalar> d_bar(whole.d_bar.size());
    for (std::size_t p = 0; p < found.d_bar.size(); ++p) d_bar[graph.source[p]] += found.d_bar[p];
    // the half list without ghosts has another order of pairs
    std::vector<Scalar> in_order(whole.d_bar.size());
    for (std::size_t p = 0; p < whole.d_bar.size(); ++p)
      in_order[c.graph.source[p]] = whole.d_bar[p];
    compare(d_bar, in_order, what + ": d_bar");
  }
}

/// Ghosts that are computed like all atoms: the derivatives are of the energies of local atoms.
template <class Scalar>
void check_deep_ghosts(const Case& c, InstructionSet isa, const std::string& what) {
  Shape shape = c.shape;
  shape.n.n_local = shape.n.n_atoms / 2;
  const auto found = run<Scalar>(shape, c.graph, c.parameters, {}, {}, {.isa = isa});
  compare(found.g, c.g, what + ": g");
  const Values nothing(c.parameters.size());
  Values expected;
  for (Index p = 0; p < static_cast<Index>(c.d_bar.size()); ++p) {
    Values one(c.v.size());
    one[p] = 1;
    const Exact exact = exact_network(shape, c.graph, c.parameters, nothing, one);
    double sum = 0;
    for (Index i = 0; i < shape.n.n_local; ++i) sum += exact.g[i].b;
    expected.push_back(sum);
  }
  const std::vector<Scalar> first(found.d_bar.begin(),
                                  found.d_bar.begin() + static_cast<Index>(expected.size()));
  compare(first, expected, what + ": d_bar");
}

template <class Scalar>
void check(const Case& c) {
  for (const InstructionSet isa : cpu::available_instruction_sets()) {
    const std::string what =
        std::string(cpu::name(isa)) + (sizeof(Scalar) == 4 ? " float, " : " double, ") + c.name;
    check_without_ghosts<Scalar>(c, isa, what);
    check_halo<Scalar>(c, isa, what + ", halo");
    check_deep_ghosts<Scalar>(c, isa, what + ", deep ghosts");
  }
}

}  // namespace

int main() {
  const std::array<std::array<Index, 4>, 8> cases{{{0, 0, 20, 2},
                                                   {3, 0, 16, 2},
                                                   {5, 3, 2, 0},
                                                   {7, 4, 20, 1},
                                                   {6, 3, 75, 2},
                                                   {9, 5, 32, 3},
                                                   {17, 3, 66, 2},
                                                   {101, 3, 6, 2}}};
  for (const auto& [n_atoms, per_atom, n_features, n_blocks] : cases) {
    const Case c(n_atoms, per_atom, n_features, n_blocks);
    check<float>(c);
    check<double>(c);
  }
  std::puts("schnet: ok");
}
