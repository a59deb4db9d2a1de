// The operators scschnet::neighbor_list and half_neighbor_list: checks, outputs, threads; the work
// is done by core.
#include "../core/neighbor_list.hpp"
#include "../core/cpu/buffer.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <torch/library.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

namespace scschnet {
namespace {

using at::Tensor;
using Lists = std::tuple<Tensor, Tensor, Tensor, Tensor>;

void check(const Tensor& positions, const Tensor& atom_ptr, const Tensor& cells,
           const Tensor& pbc) {
  TORCH_CHECK_VALUE(positions.dim() == 2 && positions.size(1) == 3,
                    "`positions` must have shape (n_atoms, 3), got ", positions.sizes());
  TORCH_CHECK_TYPE(positions.scalar_type() == at::kDouble || positions.scalar_type() == at::kFloat,
                   "`positions` must be float32 or float64, got ", positions.scalar_type());
  TORCH_CHECK_VALUE(atom_ptr.dim() == 1 && atom_ptr.size(0) > 0,
                    "`atom_ptr` must have shape (n_structures + 1,), got ", atom_ptr.sizes());
  TORCH_CHECK_TYPE(atom_ptr.scalar_type() == at::kLong, "`atom_ptr` must be int64, got ",
                   atom_ptr.scalar_type());
  const auto n_structures = atom_ptr.size(0) - 1;
  TORCH_CHECK_VALUE(cells.sizes() == at::IntArrayRef({n_structures, 3, 3}),
                    "`cells` must have shape (", n_structures, ", 3, 3), got ", cells.sizes());
  TORCH_CHECK_VALUE(pbc.sizes() == at::IntArrayRef({n_structures, 3}), "`pbc` must have shape (",
                    n_structures, ", 3), got ", pbc.sizes());
  TORCH_CHECK_TYPE(pbc.scalar_type() == at::kBool, "`pbc` must be bool, got ", pbc.scalar_type());
  TORCH_CHECK_TYPE(at::isFloatingType(cells.scalar_type()),
                   "`cells` must be float32 or float64, got ", cells.scalar_type());
}

template <class Scalar>
std::int64_t find(cpu::NeighborList& list, const Tensor& positions, const Tensor& atom_ptr,
                  const Tensor& cells, const Tensor& pbc, double cutoff, bool half) {
  const Structures<Scalar> input{
      positions.const_data_ptr<Scalar>(), atom_ptr.const_data_ptr<std::int64_t>(),
      cells.const_data_ptr<double>(), pbc.const_data_ptr<bool>(), atom_ptr.size(0) - 1};
  return list.find(input, cutoff, {.threads = at::get_num_threads(), .half = half});
}

/// Buffers that come back when torch drops the tensor. Never destroyed: tensors may outlive the
/// library.
cpu::BufferPool& pool() {
  static auto* const instance = new cpu::BufferPool;
  return *instance;
}

constexpr std::int64_t pool_from_bytes = 1 << 16;  // below, torch's allocator is as good

/// An uninitialized tensor.
Tensor new_tensor(at::IntArrayRef shape, at::ScalarType type) {
  const auto options = at::TensorOptions().dtype(type);
  const std::int64_t bytes =
      c10::multiply_integers(shape) * static_cast<std::int64_t>(c10::elementSize(type));
  pool().free_unused();
  if (bytes < pool_from_bytes) return at::empty(shape, options);
  auto buffer = std::make_shared<cpu::Buffer>(pool().take(bytes));
  void* data = buffer->data();
  return at::from_blob(
      data, shape, [buffer = std::move(buffer)](void*) { pool().give_back(std::move(*buffer)); },
      options);
}

/// (positions (n_atoms, 3), atom_ptr (n_structures + 1,), cells (n_structures, 3, 3), pbc
/// (n_structures, 3), cutoff)
/// -> idx_i, idx_j (n_pairs,), shifts (n_pairs, 3) int32, row_ptr (n_atoms + 1,). Not
/// differentiable: integers.
Lists found_list(const Tensor& positions, const Tensor& atom_ptr, const Tensor& cells,
                 const Tensor& pbc, double cutoff, bool half) {
  check(positions, atom_ptr, cells, pbc);
  const Tensor r = positions.contiguous(), ptr = atom_ptr.contiguous();
  const Tensor box = cells.to(at::kDouble).contiguous(), periodic = pbc.contiguous();
  TORCH_CHECK_VALUE(ptr.const_data_ptr<std::int64_t>()[ptr.size(0) - 1] == r.size(0),
                    "`atom_ptr` must end at the number of atoms, ", r.size(0));
  static thread_local cpu::NeighborList list;
  std::int64_t n_pairs = 0;
  try {
    const auto search = r.scalar_type() == at::kDouble ? find<double> : find<float>;
    n_pairs = search(list, r, ptr, box, periodic, cutoff, half);
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
  const Tensor idx_i = new_tensor({n_pairs}, at::kLong), idx_j = new_tensor({n_pairs}, at::kLong);
  const Tensor shifts = new_tensor({n_pairs, 3}, at::kInt);
  const Tensor row_ptr = new_tensor({r.size(0) + 1}, at::kLong);
  list.write({.idx_i = idx_i.mutable_data_ptr<std::int64_t>(),
              .idx_j = idx_j.mutable_data_ptr<std::int64_t>(),
              .shifts = shifts.mutable_data_ptr<std::int32_t>(),
              .row_ptr = row_ptr.mutable_data_ptr<std::int64_t>()});
  return {idx_i, idx_j, shifts, row_ptr};
}

Lists neighbor_list(const Tensor& positions, const Tensor& atom_ptr, const Tensor& cells,
                    const Tensor& pbc, double cutoff) {
  return found_list(positions, atom_ptr, cells, pbc, cutoff, false);
}

Lists half_neighbor_list(const Tensor& positions, const Tensor& atom_ptr, const Tensor& cells,
                         const Tensor& pbc, double cutoff) {
  return found_list(positions, atom_ptr, cells, pbc, cutoff, true);
}

}  // namespace
}  // namespace scschnet

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  for (const std::string name : {"neighbor_list", "half_neighbor_list"}) {
    const std::string schema =
        name +
        "(Tensor positions, Tensor atom_ptr, Tensor cells, Tensor pbc, float cutoff) -> (Tensor "
        "idx_i, Tensor idx_j, Tensor shifts, Tensor row_ptr)";
    library.def(schema.c_str(), {at::Tag::pt2_compliant_tag});
  }
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("neighbor_list", scschnet::neighbor_list);
  library.impl("half_neighbor_list", scschnet::half_neighbor_list);
}
