// What the operators for GPUs share: device and stream, scratch memory, checks.
//
// They do not read numbers back, because that would stop the GPU: indices, bins and row starts are
// trusted here, while the same operators for processors check them.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "../../core/cuda/cfconv.hpp"
#include "../../core/cuda/stream.hpp"

#if defined(SCSCHNET_EMULATE_CUDA)  // tests without a GPU: the same operators on the CPU
#define SCSCHNET_CUDA_KEY CPU
#else
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#define SCSCHNET_CUDA_KEY CUDA
#endif

namespace scschnet::cuda {

/// Makes the device of a tensor the current one for as long as it lives, and knows its stream.
class OnDevice {
 public:
#if defined(SCSCHNET_EMULATE_CUDA)
  explicit OnDevice(const at::Tensor&) {}
  Stream stream() const { return nullptr; }
#else
  explicit OnDevice(const at::Tensor& tensor) : guard_(tensor.device()) {}
  Stream stream() const { return c10::cuda::getCurrentCUDAStream().stream(); }

 private:
  c10::cuda::CUDAGuard guard_;
#endif
};

/// Memory for one call; the allocator knows that the stream may still use it.
inline at::Tensor scratch_bytes(std::int64_t n, const at::Tensor& like) {
  return at::empty({n}, like.options().dtype(at::kByte));
}

/// Raises ValueError or TypeError for a tensor of another shape, dtype or device.
inline void check(const at::Tensor& tensor, const char* name, at::IntArrayRef sizes,
                  at::ScalarType dtype, const at::Tensor& like) {
  TORCH_CHECK_VALUE(tensor.sizes() == sizes, "`", name, "` must have shape ", sizes, ", got ",
                    tensor.sizes());
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, "`", name, "` must be ", dtype, ", got ",
                   tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.device() == like.device(), "`", name, "` must be on ", like.device(),
                    " like the others, got ", tensor.device());
}

inline void check_real(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble, "`",
                   name, "` must be float32 or float64, got ", tensor.scalar_type());
}

/// Calls work.operator()<Scalar>() for float or double.
template <class Work>
void with_scalar(at::ScalarType dtype, const Work& work) {
  if (dtype == at::kDouble) {
    work.template operator()<double>();
  } else {
    work.template operator()<float>();
  }
}

/// The partners of a half list, and the tensor that holds their memory: that of the operator
/// find_partners, if it is given, or a new one.
struct HeldPartners {
  at::Tensor memory;
  Partners partners;

  HeldPartners(const std::optional<at::Tensor>& given, std::int64_t n_atoms, std::int64_t n_pairs,
               const at::Tensor& row_ptr, const at::Tensor& idx_j, Stream stream) {
    const std::int64_t n_bytes = partners_bytes(n_atoms, n_pairs);
    if (given) {
      check(*given, "partners", {n_bytes}, at::kByte, idx_j);
      memory = given->contiguous();
      partners = partners_in(n_atoms, n_pairs, memory.mutable_data_ptr());
      return;
    }
    memory = scratch_bytes(n_bytes, idx_j);
    partners =
        find_partners(n_atoms, n_pairs, row_ptr.const_data_ptr<std::int64_t>(),
                      idx_j.const_data_ptr<std::int64_t>(), memory.mutable_data_ptr(), stream);
  }
};

/// Pairs with both sides, for convolutions, and the tensors that hold their memory. weights
/// (n_orders, n_pairs, 6); w and z are those of two orders (or others, see set_weights).
template <class Scalar>
struct HeldPairs {
  at::Tensor row_ptr, idx_j, bins, w, z;
  HeldPartners partners;
  PairsBothWays<Scalar> pairs{};

  HeldPairs(const at::Tensor& row_ptr_, const at::Tensor& idx_j_, const at::Tensor& bins_,
            Stream stream)
      : row_ptr(row_ptr_.contiguous()),
        idx_j(idx_j_.contiguous()),
        bins(bins_.contiguous()),
        partners(std::nullopt, row_ptr.size(0) - 1, idx_j.size(0), row_ptr, idx_j, stream) {
    pairs.half.n_atoms = row_ptr.size(0) - 1;
    pairs.half.row_ptr = row_ptr.const_data_ptr<std::int64_t>();
    pairs.half.idx_j = idx_j.const_data_ptr<std::int64_t>();
    pairs.half.bins = bins.const_data_ptr<std::int32_t>();
    pairs.n_pairs = idx_j.size(0);
    pairs.partners = partners.partners;
  }

  /// (n_pairs, 6) each; z may be undefined.
  void set_weights(const at::Tensor& w_, const at::Tensor& z_) {
    w = w_.contiguous();
    pairs.half.w = w.const_data_ptr<Scalar>();
    if (!z_.defined()) return;
    z = z_.contiguous();
    pairs.half.z = z.const_data_ptr<Scalar>();
  }
};

/// The pairs by the bins of a table of n_rows rows, and the tensor that holds their memory.
template <class Scalar>
struct HeldPairsByBin {
  at::Tensor memory;
  PairsByBin sorted;

  HeldPairsByBin(const PairsBothWays<Scalar>& pairs, std::int64_t n_rows, const at::Tensor& like,
                 Stream stream)
      : memory(scratch_bytes(pairs_by_bin_bytes(pairs.n_pairs, n_bins_of(n_rows)), like)),
        sorted(sort_by_bin(pairs, n_rows, memory.mutable_data_ptr(), stream)) {}
};

/// Pairs are counted in 32 bits on the device.
inline void check_number_of_pairs(std::int64_t n_pairs) {
  TORCH_CHECK_VALUE(n_pairs < (std::int64_t{1} << 31), "`idx_j` must hold fewer than 2^31 pairs, ",
                    "got ", n_pairs);
}

}  // namespace scschnet::cuda
