// The CUDA stream that a call works on, without CUDA's headers.
#pragma once

struct CUstream_st;

namespace scschnet {

/// cudaStream_t. Calls return when the work is in the stream, not when it is done.
using Stream = CUstream_st*;

}  // namespace scschnet
