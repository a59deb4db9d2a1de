// Results that have a shape alone, on the device `meta`.
#pragma once

#include <ATen/core/Tensor.h>

namespace scschnet {

/// Options of a result like `tensor`, but on `meta` whatever the device of `tensor`: a call with
/// one argument on `meta` gets here, and on the CPU its results would be memory that nothing was
/// written to.
inline at::TensorOptions on_meta(const at::Tensor& tensor) {
  return tensor.options().device(at::kMeta);
}

}  // namespace scschnet
