// Contract of the orthogonalization of matrices: what the optimizer Muon does to a gradient.
#pragma once

#include <cstdint>

#include "neighbor_list.hpp"  // InstructionSet

namespace scschnet::cpu {

/// With M = U S V^T, an approximation of U V^T: `steps` times
///   X <- a X + (b G + c G^2) X,  G = X X^T,  (a, b, c) = (3.4445, -4.7750, 2.0315),  X = M / |M|,
/// the Newton-Schulz iteration of Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon).
/// Its coefficients trade accuracy for speed: five steps bring singular values above |M| / 400,
/// four those above |M| / 116, between 0.68 and 1.21, and smaller ones nearer to one. A matrix of
/// zeros stays one.
///
/// matrix and result: (rows, columns) row-major, may be the same. Serial, the same bits every time;
/// instruction sets differ in rounding. Allocates its scratch (std::bad_alloc).
template <class Scalar>
void orthogonalize(std::int64_t rows, std::int64_t columns, int steps, const Scalar* matrix,
                   Scalar* result, InstructionSet isa);

}  // namespace scschnet::cpu
