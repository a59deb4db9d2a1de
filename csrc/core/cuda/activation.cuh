// The activation, one copy for all kernels.
#pragma once

#include "device.cuh"

namespace scschnet::cuda {

/// ssp(x) = ln(1 + exp(x)) - ln 2 and its derivative, the logistic function; safe for large |x|.
template <class Scalar>
struct Activated {
  Scalar value, slope;

  __host__ __device__ explicit Activated(Scalar x) {
    const Scalar e = exp(x < 0 ? x : -x);
    value = (x > 0 ? x : 0) + log1p(e) - Scalar(0.693147180559945309417);
    slope = (x < 0 ? e : Scalar(1)) / (1 + e);
  }
};

}  // namespace scschnet::cuda
