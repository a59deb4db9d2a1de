// Chooses the dense loops that were compiled for an instruction set.
#include "dense.hpp"

#include "dense_tables.hpp"

namespace scschnet::cpu {
namespace {

template <class Scalar>
const DenseKernels<Scalar>& select(const DenseTables& tables);
template <>
const DenseKernels<float>& select(const DenseTables& tables) {
  return tables.float32;
}
template <>
const DenseKernels<double>& select(const DenseTables& tables) {
  return tables.float64;
}

#if defined(SCSCHNET_X86)
/// The table for AVX-512, with the matrix products of dense_amx.cpp.
const DenseTables& tables_amx() {
  static const DenseTables tables = [] {
    DenseTables t = dense_kernels_avx512;
    t.float32.pack = dense_products_amx.pack;
    t.float32.pack_transposed = dense_products_amx.pack_transposed;
    t.float32.multiply = dense_products_amx.multiply;
    t.float32.add_outer = dense_products_amx.add_outer;
    return t;
  }();
  return tables;
}
#endif

}  // namespace

template <class Scalar>
const DenseKernels<Scalar>& dense_kernels(InstructionSet isa) {
  switch (isa) {
#if defined(SCSCHNET_X86)
    case InstructionSet::amx:
      return select<Scalar>(tables_amx());
    case InstructionSet::avx512:
      return select<Scalar>(dense_kernels_avx512);
    case InstructionSet::avx2:
      return select<Scalar>(dense_kernels_avx2);
#endif
    default:
      return select<Scalar>(dense_kernels_generic);
  }
}

template const DenseKernels<float>& dense_kernels(InstructionSet);
template const DenseKernels<double>& dense_kernels(InstructionSet);

}  // namespace scschnet::cpu
