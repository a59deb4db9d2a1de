// The loops of the convolution and of the spline weights, which are compiled once per instruction
// set.
#pragma once

#include <cstdint>

#include "../spline.hpp"

namespace scschnet::cpu {

/// The pairs, and one block of consecutive features. Per-atom arrays that a kernel takes beside it
/// point to the first feature of the block.
template <class Scalar>
struct CfconvBlock {
  std::int64_t n_atoms;
  const std::int64_t* row_ptr;
  const std::int64_t* idx_j;
  const std::int32_t* bins;
  const Scalar* w;
  const Scalar* z;
  std::int64_t stride;  ///< scalars from one atom's row to the next
  const Scalar* table;
  std::int64_t table_stride;
  int width;  ///< features in the block: one of block_widths
};

/// Widths for which there is code, widest first.
template <class Scalar>
constexpr int block_widths[5] = {
    static_cast<int>(256 / sizeof(Scalar)), static_cast<int>(128 / sizeof(Scalar)),
    static_cast<int>(64 / sizeof(Scalar)), static_cast<int>(16 / sizeof(Scalar)), 1};

/// The functions of cfconv.hpp for one block of features. Here table gradients are added to
/// `table_bar`, whose rows lie `table_stride` scalars apart.
template <class Scalar>
struct CfconvKernels {
  using Block = CfconvBlock<Scalar>;
  int widest;  ///< the largest of block_widths that is fast with this instruction set
  void (*forward)(const Block& block, const Scalar* x, Scalar* y);
  void (*backward)(const Block& block, const Scalar* y_bar, const Scalar* x, Scalar* x_bar,
                   Scalar* d_bar);
  void (*dot)(const Block& block, const Scalar* a, const Scalar* b, Scalar* dot);
  void (*double_backward)(const Block& block, const Scalar* u, const Scalar* v, const Scalar* x,
                          Scalar* out);
  void (*table_gradient)(const Block& block, const Scalar* a, const Scalar* b, Scalar* table_bar);
  void (*backward_table_gradient)(const Block& block, const Scalar* u, const Scalar* v,
                                  const Scalar* y_bar, const Scalar* x, Scalar* table_bar);
  void (*total_table_gradient)(const Block& block, const Scalar* lambda, const Scalar* u,
                               const Scalar* v, const Scalar* y_bar, const Scalar* x,
                               Scalar* table_bar);
};

/// What spline_weights needs besides the distances.
struct SplineOrders {
  SplineGrid grid;
  int first_order;
  int n_orders;
};

/// The loops of spline_weights, for each type of distance and weight. They return the index of the
/// first distance that is negative, not finite or beyond the table, or -1.
struct SplineKernels {
  std::int64_t (*float_to_float)(const SplineOrders&, const float*, std::int64_t, std::int32_t*,
                                 float*);
  std::int64_t (*double_to_float)(const SplineOrders&, const double*, std::int64_t, std::int32_t*,
                                  float*);
  std::int64_t (*float_to_double)(const SplineOrders&, const float*, std::int64_t, std::int32_t*,
                                  double*);
  std::int64_t (*double_to_double)(const SplineOrders&, const double*, std::int64_t, std::int32_t*,
                                   double*);
};

struct AllCfconvKernels {
  CfconvKernels<float> single_precision;
  CfconvKernels<double> double_precision;
};

extern const AllCfconvKernels cfconv_kernels_generic, cfconv_kernels_avx2, cfconv_kernels_avx512;
extern const SplineKernels spline_kernels_generic, spline_kernels_avx2, spline_kernels_avx512;

}  // namespace scschnet::cpu
