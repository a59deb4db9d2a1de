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
/// The table for AVX-512, with matrix products of dense_amx.cpp.
DenseTables tables_with(const DenseProducts& products) {
  DenseTables t = dense_kernels_avx512;
  t.float32.pack = products.pack;
  t.float32.pack_transposed = products.pack_transposed;
  t.float32.multiply = products.multiply;
  t.float32.add_outer = products.add_outer;
  return t;
}

const DenseTables& tables_amx() {
  static const DenseTables tables = tables_with(dense_products_amx_3);
  return tables;
}

const DenseTables& rough_tables_amx() {
  static const DenseTables tables = tables_with(dense_products_amx_1);
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

template <class Scalar>
const DenseKernels<Scalar>& rough_kernels(InstructionSet isa) {
#if defined(SCSCHNET_X86)
  if (isa == InstructionSet::amx) return select<Scalar>(rough_tables_amx());
#endif
  return dense_kernels<Scalar>(isa);
}

template const DenseKernels<float>& dense_kernels(InstructionSet);
template const DenseKernels<double>& dense_kernels(InstructionSet);
template const DenseKernels<float>& rough_kernels(InstructionSet);
template const DenseKernels<double>& rough_kernels(InstructionSet);

}  // namespace scschnet::cpu
