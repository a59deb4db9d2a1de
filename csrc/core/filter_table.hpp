// Contract of filter tables: the spline coefficients of one interaction block's filters, made from
// the values of its filter generator on the nodes of a grid; and the gradient of a table in the
// generator's parameters.
#pragma once

#include <cstdint>

#include "neighbor_list.hpp"  // InstructionSet

namespace scschnet {

/// Nodes on each side that enter the coefficient of one node.
constexpr int prefilter_order = 4;

struct FilterTableSizes {
  std::int64_t n_rows;  ///< of the table
  std::int64_t n_rbf;
  std::int64_t n_filters;

  /// Nodes at which the generator is evaluated.
  std::int64_t n_nodes() const { return n_rows + 2 * prefilter_order; }
};

/// A filter generator, W(d) = ssp(rbf(d) A1 + b1) A2 + b2. Its weights are (outputs, inputs),
/// row-major. `Pointer` is const Scalar* for parameters and Scalar* for their gradients.
template <class Pointer>
struct FilterParameters {
  Pointer hidden_weight;  ///< (n_filters, n_rbf)
  Pointer hidden_bias;    ///< (n_filters,)
  Pointer output_weight;  ///< (n_filters, n_filters)
  Pointer output_bias;    ///< (n_filters,)
};

namespace cpu {

/// table = P[ssp(rbf A1 + b1)] A2 + b2. P is the prefilter, which makes spline coefficients of
/// samples on the nodes: a symmetric filter of 2 prefilter_order + 1 taps, of which `prefilter`
/// holds prefilter_order + 1, from the center outward. It is linear and its taps add up to one, so
/// it commutes with the output layer. Everything is evaluated in float64, because the rounding
/// error of a sample enters the derivative of the filters divided by the step of the grid.
///
/// rbf: (n_nodes, n_rbf), the radial basis on the nodes. Written are table (n_rows, n_filters) and,
/// for the gradient, coefficients = P[...] (n_rows, n_filters) and slopes = ssp' (n_nodes,
/// n_filters). The call is serial and gives the same bits every time. It allocates its scratch
/// memory (std::bad_alloc).
template <class Scalar>
void filter_table(const FilterTableSizes& sizes, const double* prefilter, const double* rbf,
                  const FilterParameters<const Scalar*>& parameters, Scalar* table,
                  Scalar* coefficients, Scalar* slopes, InstructionSet isa);

/// Writes the gradient of sum(table_bar o table) in the parameters, evaluated in Scalar.
template <class Scalar>
void filter_table_backward(const FilterTableSizes& sizes, const double* prefilter,
                           const Scalar* rbf, const Scalar* output_weight, const Scalar* table_bar,
                           const Scalar* coefficients, const Scalar* slopes,
                           const FilterParameters<Scalar*>& gradients, InstructionSet isa);

}  // namespace cpu
}  // namespace scschnet
