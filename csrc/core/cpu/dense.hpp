// The dense layers between convolutions: matrix products, the activation, and elementwise passes
// over their results. All arrays are row-major, owned by the caller, and without gaps between rows
// unless a leading dimension is given.
#pragma once

#include <cstdint>

#include "../neighbor_list.hpp"  // InstructionSet

namespace scschnet::cpu {

/// Scalars of memory for a packed matrix, enough for any instruction set. Rows are padded to
/// multiples of 64 bytes. In dense_amx.cpp a float32 is stored as three bfloat16, which take 6
/// bytes, and columns are padded to 32 values.
template <class Scalar>
constexpr std::int64_t packed_size(std::int64_t k, std::int64_t n) {
  constexpr std::int64_t step = 64 / static_cast<std::int64_t>(sizeof(Scalar));
  const std::int64_t columns = (n + step - 1) / step * step;
  return sizeof(Scalar) == 4 ? (k + 31) / 32 * 48 * columns : k * columns;
}

/// The loops of one instruction set. Every function is serial and gives the same bits every time.
/// Those that work on rows give a row the same bits whatever other rows are in the call. Different
/// instruction sets round differently.
template <class Scalar>
struct DenseKernels {
  /// Lays out B (k, n) for `multiply`, in packed_size(k, n) scalars. `pack` reads B, and
  /// `pack_transposed` reads B^T (n, k).
  void (*pack)(const Scalar* b, std::int64_t k, std::int64_t n, Scalar* packed);
  void (*pack_transposed)(const Scalar* b, std::int64_t k, std::int64_t n, Scalar* packed);

  /// C = init + A B, with A (rows, k) and C (rows, n). Row i of init begins at init + i * ld_init;
  /// for a bias ld_init is 0. A null init means zero. init may be C.
  void (*multiply)(std::int64_t rows, std::int64_t k, std::int64_t n, const Scalar* a,
                   const Scalar* packed, const Scalar* init, std::int64_t ld_init, Scalar* c);

  /// C += G^T X for the rows first .. last - 1 of C (m, n), with G (rows, m) and X (rows, n). This
  /// is the gradient of a weight; several threads take different rows of C.
  void (*add_outer)(std::int64_t rows, std::int64_t m, std::int64_t n, const Scalar* g,
                    const Scalar* x, std::int64_t first, std::int64_t last, Scalar* c);

  /// Replaces z by ssp(z) = ln(exp(z) + 1) - ln 2 and writes slope = ssp'(z). In float32 the
  /// absolute error of ssp is below 1e-7 and one unit in the last place of large values, and the
  /// relative error of the slope is below 3e-7. In float64 the functions are those of the standard
  /// library.
  void (*activate)(std::int64_t n, Scalar* z, Scalar* slope);

  /// out = a b, element by element.
  void (*product)(std::int64_t n, const Scalar* a, const Scalar* b, Scalar* out);
  /// out = a b + c, element by element.
  void (*product_sum)(std::int64_t n, const Scalar* a, const Scalar* b, const Scalar* c,
                      Scalar* out);
  /// out = weight a + b, element by element; b may be null, or out.
  void (*weighted_sum)(std::int64_t n, Scalar weight, const Scalar* a, const Scalar* b,
                       Scalar* out);
  /// The tangent of the activation, s_dot = slope z_dot; and what its second derivative adds to the
  /// cotangent of z, curvature = z_bar z_dot (1 - slope), because ssp'' = ssp' (1 - ssp') and z_bar
  /// holds a factor ssp' already.
  void (*tangent_activate)(std::int64_t n, const Scalar* slope, const Scalar* z_dot,
                           const Scalar* z_bar, Scalar* s_dot, Scalar* curvature);
  /// x_out = x + v, out += weight v, norms[i] = |v_i|, for rows of n features; x_out may be x.
  void (*add_correction)(std::int64_t rows, std::int64_t n, Scalar weight, const Scalar* v,
                         const Scalar* x, Scalar* x_out, Scalar* out, Scalar* norms);

  /// norms[i] = |x_i| for rows of n features.
  void (*row_norms)(std::int64_t rows, std::int64_t n, const Scalar* x, Scalar* norms);

  /// The sum of a b over all elements.
  double (*dot)(std::int64_t n, const Scalar* a, const Scalar* b);
  /// The sum of a (b - c) over all elements.
  double (*dot_difference)(std::int64_t n, const Scalar* a, const Scalar* b, const Scalar* c);
  /// out[f] += sum over rows i of scale[i] a[i][f]; a null scale means one.
  void (*add_columns)(std::int64_t rows, std::int64_t n, const Scalar* scale, const Scalar* a,
                      Scalar* out);
};

template <class Scalar>
const DenseKernels<Scalar>& dense_kernels(InstructionSet isa);

/// The same, but the operands of products in float32 may be rounded to bfloat16, which have 8
/// significant bits, where that is faster. Results and `init` are float32 all the same.
template <class Scalar>
const DenseKernels<Scalar>& rough_kernels(InstructionSet isa);

}  // namespace scschnet::cpu
