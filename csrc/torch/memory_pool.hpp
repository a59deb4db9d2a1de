// Memory for large tensors that live for one call or one training step, kept for the next one.
#pragma once

#include <ATen/core/Tensor.h>

namespace scschnet {

/// An uninitialized CPU tensor, aligned to 64 bytes. A large one comes from a small process-wide
/// pool and goes back there when the last reference is gone: PyTorch's CPU allocator returns large
/// blocks to the system, and getting them back costs more than the arithmetic on them (1.4
/// microseconds per 4 KiB page, a third of a training step).
at::Tensor pooled_empty(at::IntArrayRef sizes, const at::TensorOptions& options);

}  // namespace scschnet
