// What each compilation of dense_isa.cpp exports, which is one table of functions for both scalar
// types; and the functions of dense_amx.cpp that replace some of them.
#pragma once

#include "dense.hpp"

namespace scschnet::cpu {

struct DenseTables {
  DenseKernels<float> float32;
  DenseKernels<double> float64;
};

extern const DenseTables dense_kernels_generic;
extern const DenseTables dense_kernels_avx2;
extern const DenseTables dense_kernels_avx512;

/// The matrix products of DenseKernels<float> and the packing that belongs to them.
struct DenseProducts {
  decltype(DenseKernels<float>::pack) pack;
  decltype(DenseKernels<float>::pack_transposed) pack_transposed;
  decltype(DenseKernels<float>::multiply) multiply;
  decltype(DenseKernels<float>::add_outer) add_outer;
};

extern const DenseProducts dense_products_amx_3;  ///< as accurate as float32
extern const DenseProducts dense_products_amx_1;  ///< of operands rounded to bfloat16

}  // namespace scschnet::cpu
