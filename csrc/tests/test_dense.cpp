// Checks of the dense layers' core: matrix products, gradients of weights and the activation of
// every instruction set and scalar type against loops in double precision, and that a row has the
// same bits whatever rows it is computed with.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../core/cpu/dense.hpp"

namespace {

using namespace scschnet;
using cpu::InstructionSet;
using Index = std::int64_t;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
  std::exit(1);
}

/// Values whose magnitudes span six orders, or zeros; not aligned.
template <class Scalar>
std::vector<Scalar> values(Index n, unsigned seed = 0) {
  std::vector<Scalar> result(static_cast<std::size_t>(n));
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  for (Scalar& value : result) {
    const double magnitude = std::pow(10.0, normal(random));
    if (seed) value = static_cast<Scalar>(normal(random) * magnitude);
  }
  return result;
}

template <class Scalar>
bool same_bits(const std::vector<Scalar>& a, const std::vector<Scalar>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(Scalar)) == 0;
}

/// A sum of k products, and the sum of their magnitudes, which scales its rounding error.
struct Sum {
  double value = 0, scale = 0;
  void add(double term) {
    value += term;
    scale += std::fabs(term);
  }
};

template <class Scalar>
void compare(Scalar value, const Sum& exact, Index k, const std::string& what) {
  const double limit =
      std::numeric_limits<Scalar>::epsilon() * std::sqrt(static_cast<double>(k) + 4);
  const double error = std::fabs(static_cast<double>(value) - exact.value);
  expect(error <= limit * exact.scale, what + ": error " + std::to_string(error / exact.scale));
}

template <class Scalar>
struct Case {
  const cpu::DenseKernels<Scalar>& dense;
  Index rows, k, n;
  std::string what;
};

template <class Scalar>
void check_multiply(const Case<Scalar>& c, bool transposed) {
  const auto a = values<Scalar>(c.rows * c.k, 1), b = values<Scalar>(c.k * c.n, 2),
             bias = values<Scalar>(c.n, 3), before = values<Scalar>(c.rows * c.n, 4);
  auto packed = values<Scalar>(cpu::packed_size<Scalar>(c.k, c.n));
  transposed ? c.dense.pack_transposed(b.data(), c.k, c.n, packed.data())
             : c.dense.pack(b.data(), c.k, c.n, packed.data());
  const auto run = [&](const Scalar* init, Index ld, std::vector<Scalar>& to) {
    c.dense.multiply(c.rows, c.k, c.n, a.data(), packed.data(), init, ld, to.data());
  };
  auto plain = before, with_bias = before, in_place = before, row_by_row = before;
  run(nullptr, 0, plain);
  run(bias.data(), 0, with_bias);
  run(in_place.data(), c.n, in_place);
  for (Index i = 0; i < c.rows; ++i) {
    c.dense.multiply(1, c.k, c.n, a.data() + i * c.k, packed.data(), bias.data(), 0,
                     row_by_row.data() + i * c.n);
  }
  expect(same_bits(row_by_row, with_bias), c.what + ": bits of a row alone");
  for (Index i = 0; i < c.rows; ++i) {
    for (Index f = 0; f < c.n; ++f) {
      Sum sum;
      for (Index m = 0; m < c.k; ++m) {
        sum.add(static_cast<double>(a[i * c.k + m]) * b[transposed ? f * c.k + m : m * c.n + f]);
      }
      Sum biased = sum, added = sum;
      biased.add(bias[f]);
      added.add(before[i * c.n + f]);
      compare(plain[i * c.n + f], sum, c.k, c.what + ": A B");
      compare(with_bias[i * c.n + f], biased, c.k, c.what + ": bias + A B");
      compare(in_place[i * c.n + f], added, c.k, c.what + ": C + A B");
    }
  }
}

template <class Scalar>
void check_add_outer(const Case<Scalar>& c) {
  const Index m = c.k;
  const auto g = values<Scalar>(c.rows * m, 5), x = values<Scalar>(c.rows * c.n, 6),
             before = values<Scalar>(m * c.n, 7);
  auto whole = before, parts = before;
  c.dense.add_outer(c.rows, m, c.n, g.data(), x.data(), 0, m, whole.data());
  const Index cut = m / 3;
  c.dense.add_outer(c.rows, m, c.n, g.data(), x.data(), cut, m, parts.data());
  for (Index f = 0; f < cut * c.n; ++f)
    expect(parts[f] == before[f], c.what + ": rows of C left alone");
  c.dense.add_outer(c.rows, m, c.n, g.data(), x.data(), 0, cut, parts.data());
  expect(same_bits(parts, whole), c.what + ": bits of a share of the rows of C");
  for (Index i = 0; i < m; ++i) {
    for (Index f = 0; f < c.n; ++f) {
      Sum sum;
      sum.add(before[i * c.n + f]);
      for (Index r = 0; r < c.rows; ++r)
        sum.add(static_cast<double>(g[r * m + i]) * x[r * c.n + f]);
      compare(whole[i * c.n + f], sum, c.rows, c.what + ": C + G^T X");
    }
  }
}

template <class Scalar>
void check_products(InstructionSet isa) {
  const auto& dense = cpu::dense_kernels<Scalar>(isa);
  const Index shapes[][3] = {{1, 1, 1},    {2, 3, 5},     {16, 32, 16},  {17, 33, 31},
                             {32, 64, 48}, {9, 128, 128}, {97, 50, 20},  {96, 64, 64},
                             {33, 96, 80}, {5, 300, 40},  {41, 513, 17}, {200, 20, 150}};
  for (const auto& [rows, k, n] : shapes) {
    const std::string what = std::string(cpu::name(isa)) +
                             (sizeof(Scalar) == 4 ? " float " : " double ") + std::to_string(rows) +
                             "x" + std::to_string(k) + "x" + std::to_string(n);
    const Case<Scalar> c{dense, rows, k, n, what};
    check_multiply(c, false);
    check_multiply(c, true);
    check_add_outer(c);
  }
}

template <class Scalar>
void check_activation(InstructionSet isa) {
  const Index n = 4001;
  auto z = values<Scalar>(n), slope = values<Scalar>(n);
  const auto argument = [](Index k) { return static_cast<Scalar>((k - 2000) * 0.05); };
  for (Index k = 0; k < n; ++k) z[k] = argument(k);
  cpu::dense_kernels<Scalar>(isa).activate(n, z.data(), slope.data());
  const double unit = std::numeric_limits<Scalar>::epsilon();
  for (Index k = 0; k < n; ++k) {
    const double x = argument(k), e = std::exp(-std::fabs(x));
    const double ssp = std::max(x, 0.0) + std::log1p(e) - std::log(2.0);
    const double derivative = (x < 0 ? e : 1.0) / (1.0 + e);
    const std::string what = std::string(cpu::name(isa)) + " activation of " + std::to_string(x);
    expect(std::fabs(z[k] - ssp) <= 2 * unit * std::max(1.0, std::fabs(ssp)), what);
    expect(std::fabs(slope[k] - derivative) <= 3 * unit * derivative + 1e-37, what + ": slope");
  }
}

}  // namespace

int main() {
  for (const InstructionSet isa : cpu::available_instruction_sets()) {
    check_products<float>(isa);
    check_products<double>(isa);
    check_activation<float>(isa);
    check_activation<double>(isa);
  }
  std::puts("dense: ok");
}
