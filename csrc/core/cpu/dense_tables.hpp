// What each compilation of dense_isa.cpp exports: one table of functions, for both scalar types.
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

}  // namespace scschnet::cpu
