// The convolution for a range of features. The range is cut into blocks of features, and the
// kernels of cfconv_isa.cpp run over all pairs once per block. Before that, the block's columns of
// the table are copied side by side, into a slice that is small enough for a cache near the core:
//
//     table (n_rows, n_features)            slice (n_rows, width)
//     +----------+----------+-------+       +----------+
//     |          |##########|       |       |##########|    25 Gaussians up to 5 A have 166 rows:
//     |          |##########|       |  -->  |##########|    42 KB with 64 features in float32
//     +----------+----------+-------+       +----------+
//                 <- width ->
//
// The caller owns all arrays; a call owns the slice, and for dot products of several pieces one
// array over the pairs, while it lasts. Threads are the caller's business: it gives each of them
// other features.
#include "../cfconv.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include "cfconv_kernels.hpp"

namespace scschnet::cpu {
namespace {

template <class Scalar>
const CfconvKernels<Scalar>& kernels_of(const AllCfconvKernels& all) {
  if constexpr (std::is_same_v<Scalar, float>) {
    return all.single_precision;
  } else {
    return all.double_precision;
  }
}

template <class Scalar>
const CfconvKernels<Scalar>& kernels_for(InstructionSet isa) {
  switch (isa) {
#if defined(SCSCHNET_X86)
    case InstructionSet::amx:
    case InstructionSet::avx512:
      return kernels_of<Scalar>(cfconv_kernels_avx512);
    case InstructionSet::avx2:
      return kernels_of<Scalar>(cfconv_kernels_avx2);
#endif
    default:
      return kernels_of<Scalar>(cfconv_kernels_generic);
  }
}

/// The rows of a table, cut to one block of features and stored without gaps. Whole rows do not fit
/// the first-level cache; and pieces of rows left in place lie a power of two apart, so they would
/// compete for a few of its sets.
template <class Scalar>
class Slice {
 public:
  static constexpr std::align_val_t alignment{64};

  explicit Slice(std::int64_t n_rows)
      : n_rows_(n_rows),
        values_(static_cast<Scalar*>(::operator new[](
            sizeof(Scalar) * static_cast<std::size_t>(n_rows * feature_block<Scalar>),
            alignment))) {}

  Scalar* data() const { return values_.get(); }

  void copy_from(const Scalar* rows, std::int64_t stride, int width) const {
    for (std::int64_t k = 0; k < n_rows_; ++k)
      std::copy_n(rows + k * stride, width, data() + k * width);
  }
  void copy_to(Scalar* rows, std::int64_t stride, int width) const {
    for (std::int64_t k = 0; k < n_rows_; ++k)
      std::copy_n(data() + k * width, width, rows + k * stride);
  }
  void set_to_zero(int width) const { std::fill_n(data(), n_rows_ * width, Scalar{0}); }

 private:
  struct Free {
    void operator()(Scalar* p) const { ::operator delete[](p, alignment); }
  };
  std::int64_t n_rows_;
  std::unique_ptr<Scalar[], Free> values_;
};

template <class Scalar>
CfconvBlock<Scalar> block_of(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table) {
  return {.n_atoms = pairs.n_atoms,
          .row_ptr = pairs.row_ptr,
          .idx_j = pairs.idx_j,
          .bins = pairs.bins,
          .w = pairs.w,
          .z = pairs.z,
          .stride = table.n_features,
          .table = nullptr,
          .table_stride = table.n_features,
          .width = 0};
}

/// Calls work(first feature, width) for pieces of the range, each at most `widest` features wide
/// and as wide as code exists for (block_widths). Which piece a feature falls into depends on its
/// feature block alone, not on the range, so that results do not depend on how the work is divided.
template <class Scalar, class Work>
void for_each_piece(FeatureRange range, int widest, const Work& work) {
  std::int64_t first = range.first;
  for (const int width : block_widths<Scalar>) {
    if (width > widest) continue;
    for (; first + width <= range.last; first += width) work(first, width);
  }
}

/// Whether a slice is worth its copy: copying touches every row once, each pair reads n_taps rows.
template <class Scalar>
bool worth_a_slice(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table) {
  return pairs.row_ptr[pairs.n_atoms] > table.n_rows;
}

/// Runs work(kernels, block, first feature) for each piece of the range, with the table in place or
/// as a slice.
template <class Scalar, class Work>
void with_table(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                FeatureRange range, InstructionSet isa, const Work& work) {
  const CfconvKernels<Scalar>& kernels = kernels_for<Scalar>(isa);
  CfconvBlock<Scalar> block = block_of(pairs, table);
  const bool sliced = worth_a_slice(pairs, table);
  const Slice<Scalar> slice(sliced ? table.n_rows : 0);
  for_each_piece<Scalar>(range, kernels.widest, [&](std::int64_t first, int width) {
    block.width = width;
    block.table = table.rows + first;
    if (sliced) {
      slice.copy_from(block.table, table.n_features, width);
      block.table = slice.data();
      block.table_stride = width;
    }
    work(kernels, block, first);
  });
}

/// A table gradient reads, changes and writes rows of the slice, so half as wide a slice is best:
/// it has to fit the first-level cache.
template <class Scalar>
constexpr int widest_table_gradient = block_widths<Scalar>[1];

/// Runs work(kernels, block, first feature, slice to add to) for each piece of the range, and
/// copies the slice into its columns of table_bar.
template <class Scalar, class Work>
void with_table_gradient(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                         FeatureRange range, InstructionSet isa, Scalar* table_bar,
                         const Work& work) {
  const CfconvKernels<Scalar>& kernels = kernels_for<Scalar>(isa);
  CfconvBlock<Scalar> block = block_of(pairs, table);
  const Slice<Scalar> slice(table.n_rows);
  for_each_piece<Scalar>(range, widest_table_gradient<Scalar>, [&](std::int64_t first, int width) {
    block.width = width;
    block.table_stride = width;
    slice.set_to_zero(width);
    work(kernels, block, first, slice.data());
    slice.copy_to(table_bar + first, table.n_features, width);
  });
}

/// Calls work(feature block, array to add to) so that each feature block adds to `sums` once. A
/// block that takes several pieces first adds them up in an array of its own. So the additions are
/// the same however the blocks are divided among calls.
template <class Scalar, class Work>
void sum_block_by_block(const HalfPairs<Scalar>& pairs, FeatureRange range, InstructionSet isa,
                        Scalar* sums, const Work& work) {
  const int widest = kernels_for<Scalar>(isa).widest;
  const auto n_pairs = static_cast<std::size_t>(pairs.row_ptr[pairs.n_atoms]);
  std::vector<Scalar> scratch;
  for (std::int64_t first = range.first; first < range.last; first += feature_block<Scalar>) {
    const FeatureRange block{first, std::min(first + feature_block<Scalar>, range.last)};
    int n_pieces = 0;
    for_each_piece<Scalar>(block, widest, [&](std::int64_t, int) { ++n_pieces; });
    if (n_pieces == 1) {
      work(block, sums);
      continue;
    }
    scratch.assign(n_pairs, Scalar{0});
    work(block, scratch.data());
    for (std::size_t p = 0; p < n_pairs; ++p) sums[p] += scratch[p];
  }
}

}  // namespace

template <class Scalar>
void cfconv(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table, const Scalar* x,
            FeatureRange range, Scalar* y, InstructionSet isa) {
  with_table(pairs, table, range, isa, [&](const auto& kernels, const auto& block, std::int64_t f) {
    kernels.forward(block, x + f, y + f);
  });
}

template <class Scalar>
void cfconv_backward(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                     const Scalar* y_bar, const Scalar* x, FeatureRange range, Scalar* x_bar,
                     Scalar* d_bar, InstructionSet isa) {
  sum_block_by_block(pairs, range, isa, d_bar, [&](FeatureRange features, Scalar* sums) {
    with_table(pairs, table, features, isa,
               [&](const auto& kernels, const auto& block, std::int64_t f) {
                 kernels.backward(block, y_bar + f, x + f, x_bar + f, sums);
               });
  });
}

template <class Scalar>
void cfconv_dot(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table, const Scalar* a,
                const Scalar* b, FeatureRange range, Scalar* dot, InstructionSet isa) {
  sum_block_by_block(pairs, range, isa, dot, [&](FeatureRange features, Scalar* sums) {
    with_table(pairs, table, features, isa,
               [&](const auto& kernels, const auto& block, std::int64_t f) {
                 kernels.dot(block, a + f, b + f, sums);
               });
  });
}

template <class Scalar>
void cfconv_double_backward(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                            const Scalar* u, const Scalar* v, const Scalar* x, FeatureRange range,
                            Scalar* out, InstructionSet isa) {
  with_table(pairs, table, range, isa, [&](const auto& kernels, const auto& block, std::int64_t f) {
    kernels.double_backward(block, u + f, v, x + f, out + f);
  });
}

template <class Scalar>
void cfconv_table_gradient(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                           const Scalar* a, const Scalar* b, FeatureRange range, Scalar* table_bar,
                           InstructionSet isa) {
  with_table_gradient(pairs, table, range, isa, table_bar,
                      [&](const auto& kernels, const auto& block, std::int64_t f, Scalar* slice) {
                        kernels.table_gradient(block, a + f, b + f, slice);
                      });
}

template <class Scalar>
void cfconv_backward_table_gradient(const HalfPairs<Scalar>& pairs,
                                    const FilterTable<Scalar>& table, const Scalar* u,
                                    const Scalar* v, const Scalar* y_bar, const Scalar* x,
                                    FeatureRange range, Scalar* table_bar, InstructionSet isa) {
  with_table_gradient(pairs, table, range, isa, table_bar,
                      [&](const auto& kernels, const auto& block, std::int64_t f, Scalar* slice) {
                        kernels.backward_table_gradient(block, u + f, v, y_bar + f, x + f, slice);
                      });
}

template <class Scalar>
void cfconv_total_table_gradient(const HalfPairs<Scalar>& pairs, const FilterTable<Scalar>& table,
                                 const Scalar* lambda, const Scalar* u, const Scalar* v,
                                 const Scalar* y_bar, const Scalar* x, FeatureRange range,
                                 Scalar* table_bar, InstructionSet isa) {
  with_table_gradient(pairs, table, range, isa, table_bar,
                      [&](const auto& kernels, const auto& block, std::int64_t f, Scalar* slice) {
                        kernels.total_table_gradient(block, lambda + f, u + f, v, y_bar + f, x + f,
                                                     slice);
                      });
}

#define SCSCHNET_INSTANTIATE(S)                                                                   \
  template void cfconv(const HalfPairs<S>&, const FilterTable<S>&, const S*, FeatureRange, S*,    \
                       InstructionSet);                                                           \
  template void cfconv_backward(const HalfPairs<S>&, const FilterTable<S>&, const S*, const S*,   \
                                FeatureRange, S*, S*, InstructionSet);                            \
  template void cfconv_dot(const HalfPairs<S>&, const FilterTable<S>&, const S*, const S*,        \
                           FeatureRange, S*, InstructionSet);                                     \
  template void cfconv_double_backward(const HalfPairs<S>&, const FilterTable<S>&, const S*,      \
                                       const S*, const S*, FeatureRange, S*, InstructionSet);     \
  template void cfconv_table_gradient(const HalfPairs<S>&, const FilterTable<S>&, const S*,       \
                                      const S*, FeatureRange, S*, InstructionSet);                \
  template void cfconv_backward_table_gradient(const HalfPairs<S>&, const FilterTable<S>&,        \
                                               const S*, const S*, const S*, const S*,            \
                                               FeatureRange, S*, InstructionSet);                 \
  template void cfconv_total_table_gradient(const HalfPairs<S>&, const FilterTable<S>&, const S*, \
                                            const S*, const S*, const S*, const S*, FeatureRange, \
                                            S*, InstructionSet);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cpu
