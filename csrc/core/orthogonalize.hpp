// Contract of the orthogonalization of matrices, which the optimizer Muon applies to a gradient.
#pragma once

#include <cstdint>

#include "neighbor_list.hpp"  // InstructionSet

namespace scschnet::cpu {

/// With M = U S V^T, an approximation of U V^T: `steps` times
///   X <- a X + (b G + c G^2) X,  G = X X^T,  (a, b, c) = (3.4445, -4.7750, 2.0315),  X = M / |M|,
/// the Newton-Schulz iteration of Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon).
/// Its coefficients trade accuracy for speed. Five steps bring singular values above |M| / 400, and
/// four steps those above |M| / 116, to between 0.68 and 1.21; smaller ones come nearer to one. A
/// matrix of zeros stays a matrix of zeros.
///
/// On CPUs with AMX the operands of products in float32 are rounded to bfloat16, as Jordan et al.
/// do it: elements of the result are then off by about 0.01. X itself stays in float32.
///
/// matrix and result: (rows, columns), row-major; they may be the same array. The call is serial
/// and gives the same bits every time; different instruction sets round differently. It allocates
/// its scratch memory (std::bad_alloc).
template <class Scalar>
void orthogonalize(std::int64_t rows, std::int64_t columns, int steps, const Scalar* matrix,
                   Scalar* result, InstructionSet isa);

}  // namespace scschnet::cpu
