// The operators scschnet::neighbor_list and scschnet::neighbor_list_within for GPUs.
#include "../../core/cuda/neighbor_list.hpp"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <stdexcept>
#include <tuple>

#include "binding.hpp"

namespace scschnet::cuda {
namespace {

using at::Tensor;

/// Arguments, checked and contiguous, and the search for them.
struct Search {
  Tensor positions, atom_ptr, cells, pbc;
  double cutoff;
  OnDevice device;
  Tensor scratch, row_ptr, found;

  Search(const Tensor& positions_, const Tensor& atom_ptr_, const Tensor& cells_,
         const Tensor& pbc_, double cutoff_)
      : cutoff(cutoff_), device(positions_) {
    TORCH_CHECK_VALUE(positions_.dim() == 2 && positions_.size(1) == 3,
                      "`positions` must have shape (n_atoms, 3), got ", positions_.sizes());
    check_real(positions_, "positions");
    TORCH_CHECK_VALUE(atom_ptr_.dim() == 1 && atom_ptr_.size(0) > 0,
                      "`atom_ptr` must have shape (n_structures + 1,), got ", atom_ptr_.sizes());
    const std::int64_t n_structures = atom_ptr_.size(0) - 1;
    check(atom_ptr_, "atom_ptr", {n_structures + 1}, at::kLong, positions_);
    check_real(cells_, "cells");
    check(cells_, "cells", {n_structures, 3, 3}, cells_.scalar_type(), positions_);
    check(pbc_, "pbc", {n_structures, 3}, at::kBool, positions_);
    TORCH_CHECK_VALUE(n_structures > 0 || positions_.size(0) == 0,
                      "`atom_ptr` must end at the number of atoms, ", positions_.size(0));
    positions = positions_.contiguous();
    atom_ptr = atom_ptr_.contiguous();
    cells = cells_.to(at::kDouble).contiguous();
    pbc = pbc_.contiguous();
    const auto options = atom_ptr.options();
    scratch = scratch_bytes(neighbor_scratch_bytes(n_atoms(), n_structures), positions);
    row_ptr = at::empty({n_atoms() + 1}, options);
    found = at::empty({2}, options);
  }

  std::int64_t n_atoms() const { return positions.size(0); }
  NeighborsFound* found_pointer() const {
    static_assert(sizeof(NeighborsFound) == 2 * sizeof(std::int64_t));
    return reinterpret_cast<NeighborsFound*>(found.mutable_data_ptr<std::int64_t>());
  }

  /// Calls work(structures) with the scalar type of the positions; errors become torch's.
  template <class Work>
  void with_input(const Work& work) const {
    with_scalar(positions.scalar_type(), [&]<class Scalar>() {
      const Structures<Scalar> input{
          positions.const_data_ptr<Scalar>(), atom_ptr.const_data_ptr<std::int64_t>(),
          cells.const_data_ptr<double>(), pbc.const_data_ptr<bool>(), atom_ptr.size(0) - 1};
      try {
        work(input);
      } catch (const std::invalid_argument& error) {
        TORCH_CHECK_VALUE(false, error.what());
      }
    });
  }

  void count() const {
    with_input([&](const auto& input) {
      count_neighbors(input, n_atoms(), cutoff, scratch.mutable_data_ptr(),
                      row_ptr.mutable_data_ptr<std::int64_t>(), found_pointer(), device.stream());
    });
  }

  /// idx_i, idx_j (capacity,), shifts (capacity, 3).
  std::tuple<Tensor, Tensor, Tensor> write(std::int64_t capacity) const {
    const auto options = atom_ptr.options();
    const Tensor idx_i = at::empty({capacity}, options), idx_j = at::empty({capacity}, options),
                 shifts = at::empty({capacity, 3}, options.dtype(at::kInt));
    PairArrays arrays;
    arrays.idx_i = idx_i.mutable_data_ptr<std::int64_t>();
    arrays.idx_j = idx_j.mutable_data_ptr<std::int64_t>();
    arrays.shifts = shifts.mutable_data_ptr<std::int32_t>();
    with_input([&](const auto& input) {
      write_neighbors(input, n_atoms(), cutoff, scratch.mutable_data_ptr(), capacity,
                      row_ptr.mutable_data_ptr<std::int64_t>(), arrays, device.stream());
    });
    return {idx_i, idx_j, shifts};
  }
};

/// Reads the number of pairs back once, to give arrays of exactly that length.
std::tuple<Tensor, Tensor, Tensor, Tensor> neighbor_list_cuda(const Tensor& positions,
                                                              const Tensor& atom_ptr,
                                                              const Tensor& cells,
                                                              const Tensor& pbc, double cutoff) {
  const Search search(positions, atom_ptr, cells, pbc, cutoff);
  search.count();
  const Tensor found = search.found.cpu();
  const auto* numbers = found.const_data_ptr<std::int64_t>();
  const char* const error = neighbor_error(numbers[1]);
  TORCH_CHECK_VALUE(error == nullptr, error);
  const auto [idx_i, idx_j, shifts] = search.write(numbers[0]);
  return {idx_i, idx_j, shifts, search.row_ptr};
}

/// Reads nothing back: arrays of `capacity` pairs, rounded up to an even number, and found (2,):
/// the number of pairs there are, to be compared with the capacity, and a status, zero for a good
/// input.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> neighbor_list_within_cuda(
    const Tensor& positions, const Tensor& atom_ptr, const Tensor& cells, const Tensor& pbc,
    double cutoff, std::int64_t capacity) {
  TORCH_CHECK_VALUE(capacity >= 0, "`capacity` must not be negative, got ", capacity);
  const Search search(positions, atom_ptr, cells, pbc, cutoff);
  search.count();
  const auto [idx_i, idx_j, shifts] = search.write(capacity + capacity % 2);
  return {idx_i, idx_j, shifts, search.row_ptr, search.found};
}

}  // namespace
}  // namespace scschnet::cuda

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  library.def(
      "neighbor_list_within(Tensor positions, Tensor atom_ptr, Tensor cells, Tensor pbc, float "
      "cutoff, int capacity) -> (Tensor idx_i, Tensor idx_j, Tensor shifts, Tensor row_ptr, Tensor "
      "found)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(scschnet, SCSCHNET_CUDA_KEY, library) {
  library.impl("neighbor_list", scschnet::cuda::neighbor_list_cuda);
  library.impl("neighbor_list_within", scschnet::cuda::neighbor_list_within_cuda);
}
