// Checks of the orthogonalization: every instruction set and scalar type against the iteration in
// loops of double precision, tall, wide and square; zeros; in place.
#include "../core/orthogonalize.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace scschnet;
using cpu::InstructionSet;
using Index = std::int64_t;
using Matrix = std::vector<double>;

void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
  std::exit(1);
}

/// A (m, k) B (k, n), of which either may be read transposed.
Matrix product(Index m, Index k, Index n, const Matrix& a, bool a_transposed, const Matrix& b,
               bool b_transposed) {
  Matrix c(m * n, 0.0);
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j)
      for (Index l = 0; l < k; ++l)
        c[i * n + j] +=
            a[a_transposed ? l * m + i : i * k + l] * b[b_transposed ? j * k + l : l * n + j];
  return c;
}

/// X <- a X + (b G + c G^2) X with G = X X^T, whatever the shape.
Matrix iterated(Index rows, Index columns, int steps, Matrix x) {
  double norm = 0;
  for (const double v : x) norm += v * v;
  for (double& v : x) v /= std::sqrt(norm);
  for (int step = 0; step < steps; ++step) {
    const Matrix gram = product(rows, columns, rows, x, false, x, true);
    Matrix polynomial = product(rows, rows, rows, gram, false, gram, false);
    for (Index k = 0; k < rows * rows; ++k)
      polynomial[k] = -4.7750 * gram[k] + 2.0315 * polynomial[k];
    const Matrix added = product(rows, rows, columns, polynomial, false, x, false);
    for (Index k = 0; k < rows * columns; ++k) x[k] = 3.4445 * x[k] + added[k];
  }
  return x;
}

template <class Scalar>
void check(InstructionSet isa, Index rows, Index columns, double magnitude) {
  const std::string what = std::string(cpu::name(isa)) +
                           (sizeof(Scalar) == 4 ? " float " : " double ") + std::to_string(rows) +
                           "x" + std::to_string(columns);
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  std::vector<Scalar> matrix(rows * columns), result(rows * columns);
  for (Scalar& value : matrix) value = static_cast<Scalar>(magnitude * normal(random));
  cpu::orthogonalize<Scalar>(rows, columns, 5, matrix.data(), result.data(), isa);
  const Matrix exact = iterated(rows, columns, 5, Matrix(matrix.begin(), matrix.end()));
  double error = 0;
  for (Index k = 0; k < rows * columns; ++k)
    error = std::fmax(error, std::fabs(result[k] - exact[k]));
  // Elements are at most about one; five steps amplify the rounding of the first 500 times at most.
  const bool rough = isa == InstructionSet::amx && sizeof(Scalar) == 4;
  const double limit = rough ? 0.04 : 100 * std::numeric_limits<Scalar>::epsilon();
  expect(error <= limit, what + ": " + std::to_string(error));
  cpu::orthogonalize<Scalar>(rows, columns, 5, matrix.data(), matrix.data(), isa);
  expect(matrix == result, what + ": in place");
}

template <class Scalar>
void check_zeros(InstructionSet isa) {
  const std::vector<Scalar> zeros(12, Scalar{0});
  std::vector<Scalar> result(12, Scalar{1});
  cpu::orthogonalize<Scalar>(3, 4, 5, zeros.data(), result.data(), isa);
  expect(result == zeros, std::string(cpu::name(isa)) + ": zeros stay zeros");
}

}  // namespace

int main() {
  const Index shapes[][2] = {{1, 1}, {1, 7}, {5, 3}, {32, 64}, {64, 25}, {40, 40}};
  for (const InstructionSet isa : cpu::available_instruction_sets()) {
    for (const auto& [rows, columns] : shapes) {
      check<float>(isa, rows, columns, 1.0);
      check<double>(isa, rows, columns, 1.0);
    }
    check<float>(isa, 9, 6, 1e-30);  // squares are below the smallest float
    check_zeros<float>(isa);
    check_zeros<double>(isa);
  }
  std::puts("orthogonalize: ok");
}
