// Contract of sums over atoms on a GPU: gradients of biases and of weights that stand alone.
#pragma once

#include <cstdint>
#include <vector>

#include "stream.hpp"

namespace scschnet::cuda {

/// Matrices one after the other in memory, whose columns are to be summed. The numbers are of the
/// network's type, or doubles; the other pointer is null.
template <class Scalar>
struct Columns {
  const Scalar* numbers;  ///< (n_matrices, n_rows, n_columns)
  const double* doubles;  ///< of the same shape
  std::int64_t n_matrices, n_columns;
  Scalar* sums;  ///< (n_matrices, n_columns), written
};

constexpr std::size_t most_columns = 6;  ///< items that can be given together

/// Doubles of scratch memory.
template <class Scalar>
std::int64_t column_sums_scratch_size(std::int64_t n_rows,
                                      const std::vector<Columns<Scalar>>& columns);

/// Sums the columns of all matrices, each of n_rows rows, together: in double precision, and always
/// in the same order.
template <class Scalar>
void sum_columns(std::int64_t n_rows, const std::vector<Columns<Scalar>>& columns, double* scratch,
                 Stream stream);

}  // namespace scschnet::cuda
