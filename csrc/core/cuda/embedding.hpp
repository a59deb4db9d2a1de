// Contract of the gradient of an embedding on a GPU.
#pragma once

#include <cstdint>

#include "stream.hpp"

namespace scschnet::cuda {

/// weight_bar[z] = sum of bar_i over the atoms with number z, in their order; written: (n_rows,
/// n_features). Row 0 is that of padding and gets zeros. Numbers outside the rows count nothing.
template <class Scalar>
void embedding_gradient(std::int64_t n_atoms, std::int64_t n_rows, std::int64_t n_features,
                        const std::int64_t* atomic_numbers, const Scalar* bar, Scalar* weight_bar,
                        Stream stream);

}  // namespace scschnet::cuda
