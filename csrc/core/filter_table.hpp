// Contract of filter tables: spline coefficients of one block's filters, from the filter generator
// on the nodes of a grid, and the gradient in the generator's parameters.
#pragma once

#include <cstdint>

#include "neighbor_list.hpp"  // InstructionSet

namespace scschnet {

/// Nodes on either side that enter the coefficient of one node.
constexpr int prefilter_order = 4;

struct FilterTableSizes {
  std::int64_t n_rows;  ///< of the table
  std::int64_t n_rbf;
  std::int64_t n_filters;

  /// Nodes at which the generator is evaluated.
  std::int64_t n_nodes() const { return n_rows + 2 * prefilter_order; }
};

/// A filter generator, W(d) = ssp(rbf(d) A1 + b1) A2 + b2. Weights are (outputs, inputs),
/// row-major. `Pointer` is const Scalar* for parameters, Scalar* for their gradients.
template <class Pointer>
struct FilterParameters {
  Pointer hidden_weight;  ///< (n_filters, n_rbf)
  Pointer hidden_bias;    ///< (n_filters,)
  Pointer output_weight;  ///< (n_filters, n_filters)
  Pointer output_bias;    ///< (n_filters,)
};

namespace cpu {

/// table = P[ssp(rbf A1 + b1)] A2 + b2 with P from samples on the nodes to spline coefficients, the
/// 2 prefilter_order + 1 weights (prefilter_order + 1 given, from the center outward) of a
/// symmetric filter. Evaluated in float64: rounding of the samples would enter the derivative of
/// the filters divided by the step of the grid.
///
/// rbf: (n_nodes, n_rbf) radial basis on the nodes. Written: table (n_rows, n_filters), and for the
/// gradient coefficients (n_rows, n_filters), P[...], and slopes (n_nodes, n_filters), ssp'.
/// Serial, the same bits every time. Allocates its scratch (std::bad_alloc).
template <class Scalar>
void filter_table(const FilterTableSizes& sizes, const double* prefilter, const double* rbf,
                  const FilterParameters<const Scalar*>& parameters, Scalar* table,
                  Scalar* coefficients, Scalar* slopes, InstructionSet isa);

/// Gradient of sum(table_bar o table) in the parameters, evaluated in Scalar; written.
template <class Scalar>
void filter_table_backward(const FilterTableSizes& sizes, const double* prefilter,
                           const Scalar* rbf, const Scalar* output_weight, const Scalar* table_bar,
                           const Scalar* coefficients, const Scalar* slopes,
                           const FilterParameters<Scalar*>& gradients, InstructionSet isa);

}  // namespace cpu
}  // namespace scschnet
