// Contract of the neighbor list on a GPU: the pairs of ../neighbor_list.hpp, with all arrays on the
// device and nothing read back.
#pragma once

#include <cstdint>

#include "../neighbor_list.hpp"
#include "stream.hpp"

namespace scschnet::cuda {

/// Numbers that the list leaves on the device.
struct NeighborsFound {
  std::int64_t n_pairs;  ///< all there are, also when they did not fit
  std::int64_t status;   ///< 0, or bits that say which input is wrong, see `neighbor_error`
};

/// What is wrong, naming the argument in backticks; null for a good status.
const char* neighbor_error(std::int64_t status);

/// Bytes of scratch memory for a batch. Most are for the pairs that are kept between counting and
/// writing: 64 of every atom, 8 bytes each.
std::int64_t neighbor_scratch_bytes(std::int64_t n_atoms, std::int64_t n_structures);

/// Counts the pairs of every atom: row_ptr (n_atoms + 1,) and *found are written. The pairs are
/// those of cpu::NeighborList for the same input, evaluated in double precision in the same order;
/// those of a row follow each other in an order that depends on the input alone, by neighbor in an
/// open structure of at most 256 atoms. `input` and all pointers are on the device; a structure
/// whose cell is bad counts as open (see *found). Needs no more bins than n_atoms / 4 +
/// n_structures, whatever the cell.
template <class Scalar>
void count_neighbors(const Structures<Scalar>& input, std::int64_t n_atoms, double cutoff,
                     void* scratch, std::int64_t* row_ptr, NeighborsFound* found, Stream stream);

/// Writes the pairs counted just before into arrays that hold `capacity` of them; `output.d_ij` and
/// `output.r_ij` are not served. Pairs that do not fit are left out, row_ptr then ends at the
/// capacity: compare found->n_pairs with it. Places beyond the last pair hold idx_i = n_atoms,
/// idx_j = 0 and S = 0.
template <class Scalar>
void write_neighbors(const Structures<Scalar>& input, std::int64_t n_atoms, double cutoff,
                     void* scratch, std::int64_t capacity, std::int64_t* row_ptr,
                     const PairArrays& output, Stream stream);

}  // namespace scschnet::cuda
