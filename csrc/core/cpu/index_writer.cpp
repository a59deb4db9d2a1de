// The buffer in front of the caller's arrays, and stores that bypass the caches on x86.
#include "index_writer.hpp"

#include <algorithm>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace scschnet::cpu {
namespace {

/// Copies with stores that bypass the caches, as far as whole 16-byte units of the destination are
/// filled.
void stream_copy(void* to, const void* from, std::size_t bytes) {
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
#if defined(__SSE2__)
  const std::size_t head = std::min(bytes, (16 - reinterpret_cast<std::uintptr_t>(out) % 16) % 16);
  std::memcpy(out, in, head);
  out += head, in += head, bytes -= head;
  for (; bytes >= 16; out += 16, in += 16, bytes -= 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(out),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
  }
#endif
  std::memcpy(out, in, bytes);
}

template <class T>
T* advanced(T* pointer, std::int64_t n) {
  return pointer ? pointer + n : nullptr;
}

RowTarget advanced(const RowTarget& target, std::int64_t n_pairs) {
  return {advanced(target.idx_i, n_pairs), advanced(target.idx_j, n_pairs),
          advanced(target.shifts, 3 * n_pairs)};
}

}  // namespace

IndexWriter::IndexWriter(const PairArrays& output, std::int64_t begin, std::int64_t end,
                         bool stream, const Kernels& kernels)
    : output_(advanced({output.idx_i, output.idx_j, output.shifts}, begin)),
      left_(end - begin),
      stream_(stream),
      kernels_(kernels) {}

void IndexWriter::expand(std::int64_t center, const CompactRow& row, const RowTarget& to) const {
  kernels_.expand_row(row.slots, row.count, row.images->shift, row.center->shift, center, to);
}

void IndexWriter::append(std::int64_t center, const CompactRow& row) {
  if (!stream_ && n_staged_ == 0 && row.count + expand_overrun < left_) {
    expand(center, row, output_);
    output_ = advanced(output_, row.count);
    left_ -= row.count;
    return;
  }
  CompactRow rest = row;
  while (rest.count > 0) {
    CompactRow piece = rest;
    piece.count = std::min(rest.count, stage_pairs - n_staged_);
    const RowTarget to{output_.idx_i ? staged_i_ + n_staged_ : nullptr,
                       output_.idx_j ? staged_j_ + n_staged_ : nullptr,
                       output_.shifts ? staged_shifts_ + 3 * n_staged_ : nullptr};
    expand(center, piece, to);
    n_staged_ += piece.count;
    rest.slots += piece.count;
    rest.count -= piece.count;
    if (n_staged_ == stage_pairs) empty_stage();
  }
}

void IndexWriter::empty_stage() {
  const auto copy = stream_ ? stream_copy : [](void* to, const void* from, std::size_t bytes) {
    std::memcpy(to, from, bytes);
  };
  const auto n = static_cast<std::size_t>(n_staged_);
  if (output_.idx_i) copy(output_.idx_i, staged_i_, n * sizeof(std::int64_t));
  if (output_.idx_j) copy(output_.idx_j, staged_j_, n * sizeof(std::int64_t));
  if (output_.shifts) copy(output_.shifts, staged_shifts_, 3 * n * sizeof(std::int32_t));
  output_ = advanced(output_, n_staged_);
  left_ -= n_staged_;
  n_staged_ = 0;
}

void IndexWriter::finish() {
  empty_stage();
#if defined(__SSE2__)
  if (stream_) _mm_sfence();  // other threads see these stores before they see this thread end
#endif
}

}  // namespace scschnet::cpu
