// The Newton-Schulz iteration, with the matrix products of the dense layers. A matrix with more
// columns than rows is transposed first. So the Gram matrix X^T X is the smaller of the two
// possible ones, and all products have it on the right.
#include "../orthogonalize.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

#include "dense.hpp"

namespace scschnet::cpu {
namespace {

constexpr double a = 3.4445, b = -4.7750, c = 2.0315;

/// Writes to `to` (columns, rows) the transpose of `from` (rows, columns) times a factor.
template <class Scalar>
void transpose(std::int64_t rows, std::int64_t columns, double factor, const Scalar* from,
               Scalar* to) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      to[j * rows + i] = static_cast<Scalar>(factor * from[i * columns + j]);
}

template <class Scalar>
void scale(std::int64_t n, double factor, const Scalar* from, Scalar* to) {
  for (std::int64_t k = 0; k < n; ++k) to[k] = static_cast<Scalar>(factor * from[k]);
}

/// Iterates x (m, n), with m >= n, in place.
template <class Scalar>
void iterate(std::int64_t m, std::int64_t n, int steps, Scalar* x, InstructionSet isa) {
  const auto& dense = rough_kernels<Scalar>(isa);
  const auto memory = std::make_unique_for_overwrite<Scalar[]>(3 * n * n + m * n);
  Scalar *const gram = memory.get(), *const scaled = gram + n * n,
                *const polynomial = scaled + n * n, *const next = polynomial + n * n;
  const auto packed = std::make_unique_for_overwrite<Scalar[]>(packed_size<Scalar>(n, n));
  for (int step = 0; step < steps; ++step) {
    std::fill_n(gram, n * n, Scalar{0});
    dense.add_outer(m, n, n, x, x, 0, n, gram);
    scale(n * n, b, gram, polynomial);
    scale(n * n, c, gram, scaled);
    dense.pack(gram, n, n, packed.get());
    dense.multiply(n, n, n, scaled, packed.get(), polynomial, n, polynomial);
    scale(m * n, a, x, next);
    dense.pack(polynomial, n, n, packed.get());
    dense.multiply(m, n, n, x, packed.get(), next, n, next);
    scale(m * n, 1.0, next, x);
  }
}

}  // namespace

template <class Scalar>
void orthogonalize(std::int64_t rows, std::int64_t columns, int steps, const Scalar* matrix,
                   Scalar* result, InstructionSet isa) {
  double square = 0;
  for (std::int64_t k = 0; k < rows * columns; ++k) {
    square += static_cast<double>(matrix[k]) * static_cast<double>(matrix[k]);
  }
  const double factor = square == 0 ? 0 : 1 / std::sqrt(square);
  if (rows >= columns) {
    scale(rows * columns, factor, matrix, result);
    iterate(rows, columns, steps, result, isa);
  } else {
    const auto x = std::make_unique_for_overwrite<Scalar[]>(rows * columns);
    transpose(rows, columns, factor, matrix, x.get());
    iterate(columns, rows, steps, x.get(), isa);
    transpose(columns, rows, 1.0, x.get(), result);
  }
}

template void orthogonalize(std::int64_t, std::int64_t, int, const float*, float*, InstructionSet);
template void orthogonalize(std::int64_t, std::int64_t, int, const double*, double*,
                            InstructionSet);

}  // namespace scschnet::cpu
