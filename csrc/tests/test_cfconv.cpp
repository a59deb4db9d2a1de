// Checks of the convolution's core: every pass, instruction set and scalar type against loops in
// double precision written from the contract, on random graphs; ranges of features; spline weights.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../core/cfconv.hpp"

namespace {

using namespace scschnet;
using cpu::InstructionSet;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
  std::exit(1);
}

constexpr double pi = 3.14159265358979323846;

// ---- splines, by the recursion of de Boor

double b_spline(int degree, double x) {  // support 0 .. degree + 1
  if (degree == 0) return x >= 0 && x < 1 ? 1 : 0;
  return (x * b_spline(degree - 1, x) + (degree + 1 - x) * b_spline(degree - 1, x - 1)) / degree;
}

double b_spline_derivative(int degree, int order, double x) {
  if (order == 0) return b_spline(degree, x);
  if (degree == 0) return 0;
  return b_spline_derivative(degree - 1, order - 1, x) -
         b_spline_derivative(degree - 1, order - 1, x - 1);
}

/// Cutoff functions as pieces: 1, and in two pieces (1 - sin(pi y / 2)) / 2 by Taylor's series
/// about the middle of each.
struct Cutoff {
  bool cosine;
  std::vector<double> coefficients = cosine ? cosine_pieces() : std::vector<double>{1};

  CutoffPieces pieces() const { return {coefficients.data(), cosine ? 2 : 1, cosine ? 20 : 1}; }
  static std::vector<double> cosine_pieces() {
    std::vector<double> c;
    for (double middle : {0.25, 0.75}) {
      double factor = 0.5;
      for (int p = 0; p < 20; ++p) {
        c.push_back(factor * std::cos(pi * middle + p * pi / 2) + (p == 0 ? 0.5 : 0));
        factor *= pi / 4 / (p + 1);
      }
    }
    return c;
  }
};

/// Derivative `order` of fc(d) B(d / step - node - 2 ...) for the node of one table row.
double weight(const SplineGrid& grid, bool cosine, double d, std::int64_t row, int order) {
  double total = 0, binomial = 1;
  for (int k = 0; k <= order; ++k) {
    const int n = order - k;  // derivatives of the cutoff function
    double fc = n == 0 && d < grid.cutoff ? 1 : 0;
    if (cosine) {
      const double a = pi / grid.cutoff;
      fc = d >= grid.cutoff ? 0 : 0.5 * (std::pow(a, n) * std::cos(a * d + n * pi / 2) + (n == 0));
    }
    const double x = d / grid.step - static_cast<double>(row - 2) + 3;
    total += binomial * fc * b_spline_derivative(5, k, x) / std::pow(grid.step, k);
    binomial = binomial * (order - k) / (k + 1);
  }
  return total;
}

template <class Distance, class Scalar>
void check_weights(bool cosine, double tolerance) {
  const double cutoff = 3.1;
  const Cutoff function{cosine};
  const SplineGrid grid{0.125, cutoff, function.pieces(), least_spline_rows(0.125, cutoff)};
  std::mt19937 random(3);
  std::vector<Distance> d{0, Distance(0.125), Distance(3.099999), Distance(1.0)};
  std::uniform_real_distribution<double> distance(0, 3.3);
  while (d.size() < 77) d.push_back(static_cast<Distance>(distance(random)));
  constexpr int n_orders = 7;
  std::vector<std::int32_t> bins(d.size());
  std::vector<Scalar> weights(n_orders * d.size() * n_taps), second(d.size() * n_taps);
  cpu::spline_weights(grid, d.data(), static_cast<std::int64_t>(d.size()), 0, n_orders, bins.data(),
                      weights.data());
  cpu::spline_weights(grid, d.data(), static_cast<std::int64_t>(d.size()), 2, 1, nullptr,
                      second.data());
  expect(std::equal(second.begin(), second.end(), weights.begin() + 2 * d.size() * n_taps),
         "orders one by one");
  for (int n = 0; n < n_orders; ++n) {
    for (std::size_t p = 0; p < d.size(); ++p) {
      expect(bins[p] >= 0 && bins[p] + n_taps <= grid.n_rows, "bin within the table");
      for (int m = 0; m < n_taps; ++m) {
        const double exact = weight(grid, cosine, static_cast<double>(d[p]), bins[p] + m, n);
        const double got = static_cast<double>(weights[(n * d.size() + p) * n_taps + m]);
        expect(std::abs(got - exact) <= tolerance * std::pow(2.5 / grid.step, n), "spline weight");
      }
    }
  }
}

template <class Call>
void expect_error(const std::string& message, const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    expect(std::string(error.what()).find(message) != std::string::npos,
           std::string(error.what()) + ": " + message);
    return;
  }
  expect(false, "no error: " + message);
}

void check_weight_errors() {
  const Cutoff function{true};
  const auto weights = [&](double step, double cutoff, std::int64_t n_rows, double d,
                           int order = 0) {
    std::int32_t bin;
    float w[n_taps];
    const SplineGrid grid{step, cutoff, function.pieces(), n_rows};
    cpu::spline_weights(grid, &d, 1, order, 1, &bin, w);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN(),
               inf = std::numeric_limits<double>::infinity();
  weights(0.5, 2, 10, 1.0);
  expect_error("`d_ij` must be finite", [&] { weights(0.5, 2, 10, nan); });
  expect_error("`d_ij` must be finite", [&] { weights(0.5, 2, 10, inf); });
  expect_error("`d_ij` must be finite", [&] { weights(0.5, 2, 10, -0.1); });
  expect_error("`d_ij` must lie within the table", [&] { weights(0.5, 2, 7, 1.1); });
  weights(0.5, 2, 7, 2.1);  // beyond the cutoff
  expect_error("`table` must have at least 6 rows", [&] { weights(0.5, 2, 5, 1.0); });
  expect_error("`step` must be a power of two", [&] { weights(0.3, 2, 20, 1.0); });
  expect_error("`step` must be a power of two", [&] { weights(-0.5, 2, 20, 1.0); });
  expect_error("`step` must be at least", [&] { weights(std::ldexp(1, -40), 2, 20, 1.0); });
  expect_error("`cutoff` must be positive", [&] { weights(0.5, nan, 20, 1.0); });
  expect_error("`order` must lie between 0 and 8, got 9", [&] { weights(0.5, 2, 10, 1.0, 9); });
}

// ---- the passes

/// A random graph with weights of no meaning: the passes are linear in them.
template <class Scalar>
struct Graph {
  std::int64_t n_atoms, n_features, n_rows = 40;
  std::vector<std::int64_t> row_ptr{0}, idx_j;
  std::vector<std::int32_t> bins;
  std::vector<Scalar> w, z, v, table, a, b, c, e;
  std::mt19937 random;

  Graph(const std::vector<std::int64_t>& pairs_per_atom, std::int64_t features, unsigned seed)
      : n_atoms(static_cast<std::int64_t>(pairs_per_atom.size())),
        n_features(features),
        random(seed) {
    for (std::int64_t count : pairs_per_atom) {
      for (std::int64_t p = 0; p < count; ++p) {  // any atom: itself, the same one twice
        idx_j.push_back(static_cast<std::int64_t>(random() % static_cast<unsigned>(n_atoms)));
        bins.push_back(
            static_cast<std::int32_t>(random() % static_cast<unsigned>(n_rows - n_taps + 1)));
      }
      row_ptr.push_back(static_cast<std::int64_t>(idx_j.size()));
    }
    fill(w, n_taps * idx_j.size());
    fill(z, n_taps * idx_j.size());
    fill(v, idx_j.size());
    fill(table, static_cast<std::size_t>(n_rows * n_features));
    for (auto* x : {&a, &b, &c, &e}) fill(*x, static_cast<std::size_t>(n_atoms * n_features));
  }

  void fill(std::vector<Scalar>& values, std::size_t n) {
    std::uniform_real_distribution<double> uniform(-1, 1);
    values.resize(n);
    for (Scalar& value : values) value = static_cast<Scalar>(uniform(random));
  }

  HalfPairs<Scalar> pairs() const {
    return {n_atoms, row_ptr.data(), idx_j.data(), bins.data(), w.data(), z.data()};
  }
  FilterTable<Scalar> filters() const { return {table.data(), n_rows, n_features}; }

  /// Calls visit(pair, from, to) for both directions of every pair.
  template <class Visit>
  void both_ways(const Visit& visit) const {
    for (std::int64_t i = 0; i < n_atoms; ++i) {
      for (std::int64_t p = row_ptr[i]; p < row_ptr[i + 1]; ++p) {
        visit(p, i, idx_j[p]);
        visit(p, idx_j[p], i);
      }
    }
  }
  double filter(const std::vector<Scalar>& weights, std::int64_t p, std::int64_t f) const {
    double sum = 0;
    for (int m = 0; m < n_taps; ++m) {
      sum += static_cast<double>(weights[n_taps * p + m]) * table[(bins[p] + m) * n_features + f];
    }
    return sum;
  }
};

/// What one pass should give, and the sum of the magnitudes behind each number.
struct Exact {
  std::vector<double> value, magnitude;
  explicit Exact(std::size_t n) : value(n), magnitude(n) {}
  void add(std::size_t k, double term) {
    value[k] += term;
    magnitude[k] += std::abs(term);
  }
};

template <class Scalar>
void compare(const std::vector<Scalar>& got, const Exact& exact, const std::string& what) {
  const double epsilon = std::numeric_limits<Scalar>::epsilon();
  for (std::size_t k = 0; k < got.size(); ++k) {
    // Every term is rounded about ten times in the filter, whose own terms may cancel, and once per
    // addition.
    const double bound = 40 * epsilon * (exact.magnitude[k] + 1);
    expect(std::abs(static_cast<double>(got[k]) - exact.value[k]) <= bound, what);
  }
}

template <class Scalar>
struct Results {
  std::vector<Scalar> y, x_bar, d_bar, dot, tangent, table_a, table_b, table_c;
  bool operator==(const Results&) const = default;
};

/// All passes over the given ranges. Outputs begin as rubbish where they are written, as zero where
/// added to. With `apart` every range has its own array of sums, added in order.
template <class Scalar>
Results<Scalar> run(const Graph<Scalar>& g, InstructionSet isa,
                    const std::vector<FeatureRange>& ranges, bool apart = false) {
  const std::vector<Scalar> atoms(g.a.size(), Scalar(7)), rows(g.table.size(), Scalar(7));
  const std::vector<Scalar> none(g.v.size());
  Results<Scalar> r{atoms, atoms, none, none, atoms, rows, rows, rows};
  const auto pairs = g.pairs();
  const auto table = g.filters();
  for (const FeatureRange range : ranges) {
    std::vector<Scalar> d_bar = apart ? none : r.d_bar, dot = apart ? none : r.dot;
    cpu::cfconv(pairs, table, g.a.data(), range, r.y.data(), isa);
    cpu::cfconv_backward(pairs, table, g.a.data(), g.b.data(), range, r.x_bar.data(), d_bar.data(),
                         isa);
    cpu::cfconv_dot(pairs, table, g.a.data(), g.b.data(), range, dot.data(), isa);
    cpu::cfconv_double_backward(pairs, table, g.a.data(), g.v.data(), g.b.data(), range,
                                r.tangent.data(), isa);
    cpu::cfconv_table_gradient(pairs, table, g.a.data(), g.b.data(), range, r.table_a.data(), isa);
    cpu::cfconv_backward_table_gradient(pairs, table, g.a.data(), g.v.data(), g.b.data(),
                                        g.c.data(), range, r.table_b.data(), isa);
    cpu::cfconv_total_table_gradient(pairs, table, g.e.data(), g.a.data(), g.v.data(), g.b.data(),
                                     g.c.data(), range, r.table_c.data(), isa);
    for (std::size_t p = 0; p < none.size(); ++p) {
      r.d_bar[p] = apart ? r.d_bar[p] + d_bar[p] : d_bar[p];
      r.dot[p] = apart ? r.dot[p] + dot[p] : dot[p];
    }
  }
  return r;
}

template <class Scalar>
void check_passes(const Graph<Scalar>& g, const Results<Scalar>& r, const std::string& what) {
  const std::int64_t F = g.n_features;
  Exact y(g.a.size()), x_bar(g.a.size()), d_bar(g.v.size()), dot(g.v.size()), tangent(g.a.size());
  Exact table_a(g.table.size()), table_b(g.table.size()), table_c(g.table.size());
  g.both_ways([&](std::int64_t p, std::int64_t i, std::int64_t j) {
    for (std::int64_t f = 0; f < F; ++f) {
      const double W = g.filter(g.w, p, f), D = g.filter(g.z, p, f), v = g.v[p];
      const double a_i = g.a[i * F + f], a_j = g.a[j * F + f], b_i = g.b[i * F + f],
                   b_j = g.b[j * F + f];
      const double c_j = g.c[j * F + f], e_i = g.e[i * F + f];
      y.add(i * F + f, W * a_j);
      x_bar.add(i * F + f, W * a_j);
      d_bar.add(p, D * a_i * b_j);
      dot.add(p, W * a_i * b_j);
      tangent.add(i * F + f, W * a_j + v * D * b_j);
      for (int m = 0; m < n_taps; ++m) {
        const double w = g.w[n_taps * p + m], z = g.z[n_taps * p + m];
        const std::size_t at = (g.bins[p] + m) * F + f;
        table_a.add(at, w * a_i * b_j);
        table_b.add(at, w * a_i * b_j);
        table_b.add(at, v * z * b_i * c_j);
        table_c.add(at, w * (a_i * b_j + e_i * c_j));
        table_c.add(at, v * z * b_i * c_j);
      }
    }
  });
  compare(r.y, y, what + ": cfconv");
  compare(r.x_bar, x_bar, what + ": x_bar");
  compare(r.d_bar, d_bar, what + ": d_bar");
  compare(r.dot, dot, what + ": cfconv_dot");
  compare(r.tangent, tangent, what + ": cfconv_double_backward");
  compare(r.table_a, table_a, what + ": cfconv_table_gradient");
  compare(r.table_b, table_b, what + ": cfconv_backward_table_gradient");
  compare(r.table_c, table_c, what + ": cfconv_total_table_gradient");
}

template <class Scalar>
void check_graph(const std::vector<std::int64_t>& pairs_per_atom, std::int64_t n_features,
                 unsigned seed) {
  const Graph<Scalar> g(pairs_per_atom, n_features, seed);
  std::vector<FeatureRange> blocks;
  for (std::int64_t b = 0; b < n_feature_blocks<Scalar>(n_features); ++b) {
    blocks.push_back(feature_range<Scalar>(b, n_features));
  }
  for (const InstructionSet isa : cpu::available_instruction_sets()) {
    const std::string what = std::string(cpu::name(isa)) +
                             (sizeof(Scalar) == 4 ? " float, " : " double, ") +
                             std::to_string(n_features) + " features";
    const Results<Scalar> whole = run(g, isa, {{0, n_features}});
    check_passes(g, whole, what);
    expect(whole == run(g, isa, {{0, n_features}}), what + ": same bits again");
    expect(whole == run(g, isa, blocks), what + ": same bits block by block");
    expect(whole == run(g, isa, blocks, true), what + ": same bits with sums apart");
    if (blocks.size() > 1) {
      const Results<Scalar> part = run(g, isa, {blocks[1]});
      expect(part.y[0] == Scalar(7) && part.table_a[0] == Scalar(7),
             what + ": other features left alone");
    }
  }
}

template <class Scalar>
void check_graphs() {
  unsigned seed = 0;
  for (const std::int64_t n_features : {1, 2, 3, 7, 8, 16, 20, 31, 32, 48, 64, 75, 96, 128, 150}) {
    check_graph<Scalar>({3, 0, 5, 0, 0, 1, 17, 0}, n_features, ++seed);  // table in place
    check_graph<Scalar>({20, 0, 31, 40}, n_features, ++seed);            // table in slices
  }
  check_graph<Scalar>({}, 32, ++seed);
  check_graph<Scalar>({0, 0, 0}, 20, ++seed);
  check_graph<Scalar>({1}, 16, ++seed);  // an atom with its own image
  check_graph<Scalar>({0, 3000, 0}, 33, ++seed);
}

}  // namespace

int main() {
  for (const bool cosine : {false, true}) {
    check_weights<double, double>(cosine, 1e-13);
    check_weights<float, double>(cosine, 1e-13);
    check_weights<double, float>(cosine, 1e-6);
    check_weights<float, float>(cosine, 1e-6);
  }
  check_weight_errors();
  check_graphs<float>();
  check_graphs<double>();
  std::puts("cfconv: ok");
}
