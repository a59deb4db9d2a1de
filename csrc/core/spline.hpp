// Contract of the splines behind a tabulated filter: which rows of the table a distance touches,
// and with which weights.
#pragma once

#include <cstdint>

namespace scschnet {

/// The cutoff function fc(d), the factor between the table and the filter, as data. [0, cutoff) is
/// cut into n_pieces pieces of one length; on piece k, fc is the polynomial sum_p
/// coefficients[k][p] y^p in a variable y that runs from -1 to 1 over the piece. At and beyond the
/// cutoff fc is zero. scschnet/nn/cutoff makes the pieces of any function, so no compiled code
/// knows one by name.
struct CutoffPieces {
  const double* coefficients;  ///< (n_pieces, n_coefficients), in the memory of the kernel's device
  std::int64_t n_pieces;
  std::int64_t n_coefficients;
};

/// A filter is W_f(d) = fc(d) sum_m B_m(t) table[k + m][f] with the bin k = floor(d / step), the
/// position in the bin t = d / step - k, and the six quintic B-splines B_0 .. B_5 that are not zero
/// there. Row 0 of the table belongs to the node at -2 step. Apart from the cutoff function the
/// filter is four times continuously differentiable.
///
///     node     k-2    k-1     k     k+1    k+2    k+3
///     row       k     k+1    k+2    k+3    k+4    k+5      the six rows read for this d
///               |      |      |  x   |      |      |
///                             d = (k + t) step
struct SplineGrid {
  double step;    ///< Å, a power of two: then d / step is exact
  double cutoff;  ///< Å
  CutoffPieces cutoff_function;
  std::int64_t n_rows;  ///< of the table
};

/// Table rows that one distance touches.
constexpr int n_taps = 6;
/// 120 B_m(t) = sum_p quintic_pieces[m][p] t^p: the pieces on one bin of the quintic B-splines of
/// the six nodes around it.
constexpr double quintic_pieces[n_taps][6] = {
    {1, -5, 10, -10, 5, -1},    {26, -50, 20, 20, -20, 5}, {66, 0, -60, 0, 30, -10},
    {26, 50, 20, -20, -20, 10}, {1, 5, 10, 10, 5, -5},     {0, 0, 0, 0, 0, 1},
};
/// Highest derivative of a filter that can be had. (The fifth derivative of a spline is piecewise
/// constant, the sixth is zero; those of the cutoff function go on.)
constexpr int max_spline_order = 8;

/// Rows of a table that serves all distances up to the cutoff. A table may be shorter if all
/// distances are.
std::int64_t least_spline_rows(double step, double cutoff);

namespace cpu {

/// Weights of the derivatives of the filter, W^(n)_f(d_p) = sum_m weights[n - first_order][p][m]
/// table[bins[p] + m][f] for n = first_order .. first_order + n_orders - 1, from those of fc and of
/// the splines by Leibniz' rule. They are evaluated in double precision.
///
/// d: (n_pairs,) Å. Written are bins (n_pairs,), unless it is null because the bins are known
/// already, and weights (n_orders, n_pairs, n_taps). A pair at or beyond the cutoff has zero
/// weights and bin 0.
///
/// Throws std::invalid_argument, naming the argument in backticks, when a distance is negative, not
/// finite, or below the cutoff and beyond the table; when step is no power of two; or when an order
/// exceeds max_spline_order.
/// Scalar: float or double; Distance: float or double.
template <class Distance, class Scalar>
void spline_weights(const SplineGrid& grid, const Distance* d, std::int64_t n_pairs,
                    int first_order, int n_orders, std::int32_t* bins, Scalar* weights);

}  // namespace cpu
}  // namespace scschnet
