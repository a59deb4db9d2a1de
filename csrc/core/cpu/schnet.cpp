// The passes of a whole SchNet, written by hand; docs/derivation.md derives them.
//
//     schnet_forward     forward     l = 0 .. L-1   x, h, y, s -> out -> g
//                        derivative  l = L-1 .. 0   out_bar -> y_bar, h_bar -> d_bar = dg/dd
//     schnet_backward    tangent     l = 0 .. L-1   v -> h_dot, y_dot, s_dot -> out_dot
//                        reverse     l = L-1 .. 0   lambda_out -> lambda_y, lambda_h -> gradients
//
// How the work is divided. Between two convolutions each row (atom) is independent of all others,
// so a task takes one block of rows through all dense layers while they are in its cache. A
// convolution needs all rows but treats each feature alone, so its tasks are blocks of features:
//
//                  features                        features
//              +---------------+               +---+---+---+---+
//      rows    |    task 0     |               |   |   |   |   |
//      (atoms) +---------------+               | 0 | 1 | 2 | 3 |
//              |    task 1     |               |   |   |   |   |
//              +---------------+               +---+---+---+---+
//               dense layers                    convolutions
//
// Every element is written by one task, and sums run in a fixed order, so no result depends on
// which thread did what. The caller owns all memory: `state` (kept from the forward to the backward
// pass), `scratch`, outputs and gradients; a task owns a buffer of one block of rows.
//
// Names: a bar marks a cotangent in the derivative of sum_i g_i (first reverse pass), a dot the
// tangent along v, and lambda a cotangent in the last reverse pass.
#include "../schnet.hpp"

#include <algorithm>
#include <memory>
#include <numeric>
#include <set>
#include <type_traits>

#include "dense.hpp"

namespace scschnet::cpu {
namespace {

using Index = std::int64_t;

constexpr Index row_block = 96;

/// Below these a product by tiles (dense_amx.cpp) takes longer than one by vector registers: by 1.6
/// times for 9 rows of 128 features, by 1.05 times for 96 rows of 32.
constexpr Index least_tile_rows = 16, least_tile_features = 64;

/// The instruction set whose dense loops are the fastest of those that run.
template <class Scalar>
InstructionSet set_for(const SchnetSizes& n, InstructionSet isa) {
  const bool tiles = std::is_same_v<Scalar, float> && n.n_atoms >= least_tile_rows &&
                     n.n_features >= least_tile_features;
  return isa == InstructionSet::amx && !tiles ? InstructionSet::avx512 : isa;
}

constexpr Index n_row_blocks(Index n_rows) {
  return (n_rows + row_block - 1) / row_block;
}

/// Hands out parts of one piece of memory, each aligned to 64 bytes if the memory is. Without
/// memory it only counts, so that the size and the layout come from the same code.
template <class Scalar>
class Layout {
 public:
  explicit Layout(Scalar* memory) : memory_(memory) {}

  Scalar* take(Index n) {
    constexpr Index line = 64 / static_cast<Index>(sizeof(Scalar));
    Scalar* part = memory_ ? memory_ + used_ : nullptr;
    used_ += (n + line - 1) / line * line;
    return part;
  }

  /// One array per interaction block: each has its own if `own`, else all share one.
  std::vector<Scalar*> take_per_block(Index n_blocks, Index n, bool own) {
    std::vector<Scalar*> arrays(n_blocks);
    for (Index l = 0; l < n_blocks; ++l) arrays[l] = own || l == 0 ? take(n) : arrays[0];
    return arrays;
  }

  Index used() const { return used_; }

 private:
  Scalar* memory_;
  Index used_ = 0;
};

/// Weights packed for products: with W^T in passes that go forward, with W in those that go back.
/// Vectors have one entry per interaction block. The forward-only layout is a prefix of the full
/// one.
template <class Scalar>
struct PackedWeights {
  std::vector<Scalar*> input_forward, hidden_forward, output_forward, input_back, hidden_back,
      output_back;
  Scalar *readout_forward, *readout_back;

  PackedWeights(const SchnetSizes& n, bool back, Layout<Scalar>& layout) {
    const Index square = packed_size<Scalar>(n.n_features, n.n_features);
    const auto take = [&] { return layout.take_per_block(n.n_blocks, square, true); };
    for (auto* packed : {&input_forward, &hidden_forward, &output_forward}) *packed = take();
    readout_forward = layout.take(packed_size<Scalar>(n.n_features, n.n_hidden));
    readout_back = layout.take(packed_size<Scalar>(n.n_hidden, n.n_features));
    if (!back) return;
    for (auto* packed : {&input_back, &hidden_back, &output_back}) *packed = take();
  }
};

/// Everything that a forward pass writes. Arrays are (n_atoms, n_features) unless another shape is
/// given; vectors have one entry per interaction block. Packed weights come from `packed_weights`,
/// which may be the same layout as the rest.
template <class Scalar>
struct State : PackedWeights<Scalar> {
  std::vector<Scalar*> x;      // features after the block
  std::vector<Scalar*> h;      // W_in x, which is convolved
  std::vector<Scalar*> y;      // convolution
  std::vector<Scalar*> s;      // ssp(B1 y + c1)
  std::vector<Scalar*> slope;  // ssp'
  Scalar* out;
  Scalar *q, *readout_slope;  // (n_atoms, n_hidden) hidden layer of the readout
  // With derivatives:
  Scalar *out_bar, *x_bar;
  std::vector<Scalar*> v_bar, z_bar, y_bar, h_bar;
  Scalar* d_bar_parts;  // (n_feature_blocks, n_pairs), or null if d_bar has only one part

  State(const SchnetSizes& n, SchnetOptions options, Layout<Scalar>& layout,
        Layout<Scalar>& packed_weights)
      : PackedWeights<Scalar>(n, options.derivatives || options.keep, packed_weights) {
    const Index rows = n.n_atoms * n.n_features, hidden = n.n_atoms * n.n_hidden;
    const auto per_block = [&](Index size, bool own) {
      return layout.take_per_block(n.n_blocks, size, own);
    };
    for (auto* array : {&x, &y, &s}) *array = per_block(rows, options.keep);
    for (auto* array : {&h, &slope}) *array = per_block(rows, options.keep || options.derivatives);
    out = layout.take(rows);
    q = layout.take(hidden);
    readout_slope = layout.take(hidden);
    if (!options.derivatives) return;
    out_bar = layout.take(rows);
    x_bar = layout.take(rows);
    for (auto* array : {&v_bar, &z_bar, &y_bar, &h_bar}) *array = per_block(rows, options.keep);
    const Index n_parts = n_feature_blocks<Scalar>(n.n_features);
    d_bar_parts = n_parts > 1 ? layout.take(n_parts * n.n_pairs) : nullptr;
  }
};

/// Everything that a backward pass writes besides the gradients.
template <class Scalar>
struct Scratch {
  std::vector<Scalar*> h_dot, curvature;  // tangent of h; z_bar z_dot ssp'' / ssp'
  Scalar *x_dot, *out_dot, *y_dot, *s_dot;
  Scalar* lambda_out;
  Scalar *lambda_x, *lambda_v, *lambda_z, *lambda_y, *lambda_h;
  Scalar *lambda_hidden, *hidden_bar;  // (n_atoms, n_hidden)
  Scalar* scaled_weights;              // (n_pairs, n_taps) v z
  Scalar* sums;  // (n_row_blocks, sums_width) columns summed over a block of rows, for biases
  Index sums_width;

  Scratch(const SchnetSizes& n, bool derivatives, Layout<Scalar>& layout) {
    const Index rows = n.n_atoms * n.n_features, hidden = n.n_atoms * n.n_hidden;
    for (auto** array : {&lambda_out, &lambda_x, &lambda_v, &lambda_z, &lambda_y, &lambda_h})
      *array = layout.take(rows);
    for (auto** array : {&lambda_hidden, &hidden_bar}) *array = layout.take(hidden);
    sums_width = 2 * n.n_features + 2 * n.n_hidden;
    sums = layout.take(n_row_blocks(n.n_atoms) * sums_width);
    if (!derivatives) return;
    for (auto* array : {&h_dot, &curvature}) *array = layout.take_per_block(n.n_blocks, rows, true);
    for (auto** array : {&x_dot, &out_dot, &y_dot, &s_dot}) *array = layout.take(rows);
    scaled_weights = layout.take(n.n_pairs * n_taps);
  }
};

/// What all passes share. It owns nothing but the pointers.
template <class Scalar>
struct Pass {
  SchnetSizes n;
  SchnetOptions options;
  HalfPairs<Scalar> pairs;
  const SchnetParameters<const Scalar*>& parameters;
  State<Scalar> state;
  const ParallelFor& parallel_for;
  InstructionSet isa;
  const DenseKernels<Scalar>& dense = dense_kernels<Scalar>(isa);

  Scalar weight(Index l) const { return parameters.contribution_weights[l]; }
  FilterTable<Scalar> table(Index l) const {
    return {parameters.tables + l * n.n_rows * n.n_features, n.n_rows, n.n_features};
  }
  /// Calls task(first row, number of rows) for blocks of the rows begin .. end - 1.
  template <class Task>
  void for_rows(Index begin, Index end, const Task& task) const {
    parallel_for(n_row_blocks(end - begin), [&](Index b) {
      const Index row = begin + b * row_block;
      task(row, std::min(row_block, end - row));
    });
  }
  template <class Task>
  void for_rows(const Task& task) const {
    for_rows(0, n.n_computed, task);
  }
  /// Calls task(number of the block, its features) for blocks of features.
  template <class Task>
  void for_features(const Task& task) const {
    parallel_for(n_feature_blocks<Scalar>(n.n_features),
                 [&](Index b) { task(b, feature_range<Scalar>(b, n.n_features)); });
  }
  std::unique_ptr<Scalar[]> row_buffer() const {
    return std::make_unique_for_overwrite<Scalar[]>(row_block * n.n_features);
  }
};

// ---- forward

template <class Scalar>
void pack_weights(const SchnetSizes& n, const SchnetParameters<const Scalar*>& parameters,
                  bool back, const PackedWeights<Scalar>& packed, const ParallelFor& parallel_for,
                  InstructionSet isa) {
  const auto& dense = dense_kernels<Scalar>(isa);
  const Index f = n.n_features;
  parallel_for(n.n_blocks + 1, [&](Index l) {
    if (l == n.n_blocks) {
      dense.pack_transposed(parameters.readout, f, n.n_hidden, packed.readout_forward);
      dense.pack(parameters.readout, n.n_hidden, f, packed.readout_back);
      return;
    }
    const auto& block = parameters.blocks[l];
    dense.pack_transposed(block.input, f, f, packed.input_forward[l]);
    dense.pack_transposed(block.hidden, f, f, packed.hidden_forward[l]);
    dense.pack_transposed(block.output, f, f, packed.output_forward[l]);
    if (!back) return;
    dense.pack(block.input, f, f, packed.input_back[l]);
    dense.pack(block.hidden, f, f, packed.hidden_back[l]);
    dense.pack(block.output, f, f, packed.output_back[l]);
  });
}

/// Scalars of memory for weights packed for one instruction set.
template <class Scalar>
Index size_of_one_packing(const SchnetSizes& sizes) {
  Layout<Scalar> layout(nullptr);
  PackedWeights<Scalar>(sizes, true, layout);
  return layout.used();
}

/// Where weights packed for an instruction set are in what schnet_pack made: those for tiles come
/// after those for vector registers.
template <class Scalar>
Scalar* packing_for(Scalar* packed, const SchnetSizes& sizes, InstructionSet isa) {
  const bool second = packed && isa == InstructionSet::amx;
  return second ? packed + size_of_one_packing<std::remove_const_t<Scalar>>(sizes) : packed;
}

/// The state laid out in its memory. Weights that are packed already stay where they are.
template <class Scalar>
State<Scalar> state_in(Scalar* memory, const Scalar* packed, const SchnetSizes& sizes,
                       SchnetOptions options, InstructionSet isa) {
  const Scalar* given = packing_for(packed, sizes, isa);
  Layout<Scalar> layout(memory), elsewhere(const_cast<Scalar*>(given));  // these are only read
  return State<Scalar>(sizes, options, layout, packed ? elsewhere : layout);
}

/// The readout of some rows: from out to g, and with derivatives back to out_bar.
template <class Scalar>
void read_out(const Pass<Scalar>& pass, const SchnetOutputs<Scalar>& outputs, Index row,
              Index rows) {
  const auto& [n, state, dense, parameters] =
      std::tie(pass.n, pass.state, pass.dense, pass.parameters);
  const Index f = n.n_features, hidden = n.n_hidden;
  Scalar* q = state.q + row * hidden;
  Scalar* slope = state.readout_slope + row * hidden;
  dense.multiply(rows, f, hidden, state.out + row * f, state.readout_forward,
                 parameters.readout_bias, 0, q);
  dense.activate(rows * hidden, q, slope);
  for (Index i = 0; i < rows; ++i) {
    outputs.g[row + i] =
        parameters.readout_output_bias[0] +
        static_cast<Scalar>(dense.dot(hidden, q + i * hidden, parameters.readout_output));
  }
  if (outputs.out) std::copy_n(state.out + row * f, rows * f, outputs.out + row * f);
  if (!pass.options.derivatives) return;
  const auto hidden_bar = std::make_unique_for_overwrite<Scalar[]>(rows * hidden);
  const Index counted = std::clamp<Index>(n.n_local - row, 0, rows);
  for (Index i = 0; i < counted; ++i) {
    dense.product(hidden, slope + i * hidden, parameters.readout_output,
                  hidden_bar.get() + i * hidden);
  }
  std::fill(hidden_bar.get() + counted * hidden, hidden_bar.get() + rows * hidden, Scalar(0));
  dense.multiply(rows, hidden, f, hidden_bar.get(), state.readout_back, nullptr, 0,
                 state.out_bar + row * f);
}

/// The dense layers between the convolution of block l and the next one, or the readout, for some
/// rows. l = -1 stands for the embedding, which has no convolution before it.
template <class Scalar>
void dense_forward(const Pass<Scalar>& pass, const SchnetOutputs<Scalar>& outputs, Index l,
                   Index row, Index rows) {
  const auto& [n, state, dense, parameters] =
      std::tie(pass.n, pass.state, pass.dense, pass.parameters);
  const Index f = n.n_features, at = row * f, count = rows * f;
  const Index of_layer = (l + 1) * n.n_computed + row;
  Scalar* norms = outputs.norms + of_layer;
  const auto write_correction = [&](const Scalar* v) {
    if (outputs.corrections) std::copy_n(v, count, outputs.corrections + of_layer * f);
  };
  if (l < 0) {
    const Scalar* x = parameters.features + at;
    dense.weighted_sum(count, pass.weight(0), x, nullptr, state.out + at);
    dense.row_norms(rows, f, x, norms);
    write_correction(x);
  } else {
    const auto v = pass.row_buffer();
    const auto& block = parameters.blocks[l];
    dense.multiply(rows, f, f, state.y[l] + at, state.hidden_forward[l], block.hidden_bias, 0,
                   state.s[l] + at);
    dense.activate(count, state.s[l] + at, state.slope[l] + at);
    dense.multiply(rows, f, f, state.s[l] + at, state.output_forward[l], block.output_bias, 0,
                   v.get());
    const Scalar* x = l ? state.x[l - 1] : parameters.features;
    dense.add_correction(rows, f, pass.weight(l + 1), v.get(), x + at, state.x[l] + at,
                         state.out + at, norms);
    write_correction(v.get());
  }
  if (l + 1 == n.n_blocks) return read_out(pass, outputs, row, rows);
  const Scalar* x = l < 0 ? parameters.features : state.x[l];
  dense.multiply(rows, f, f, x + at, state.input_forward[l + 1], nullptr, 0, state.h[l + 1] + at);
}

/// What the first convolution reads of ghosts whose layers are not computed here. Their features
/// are those of the embedding, which are known; those of later blocks come from the halo.
template <class Scalar>
void ghost_input(const Pass<Scalar>& pass) {
  const Index f = pass.n.n_features;
  pass.for_rows(pass.n.n_computed, pass.n.n_atoms, [&](Index row, Index rows) {
    pass.dense.multiply(rows, f, f, pass.parameters.features + row * f, pass.state.input_forward[0],
                        nullptr, 0, pass.state.h[0] + row * f);
  });
}

/// From out_bar, and from h_bar of block l + 1, to y_bar of block l, for some rows.
template <class Scalar>
void dense_derivative(const Pass<Scalar>& pass, Index l, Index row, Index rows) {
  const auto& [n, state, dense] = std::tie(pass.n, pass.state, pass.dense);
  const Index f = n.n_features, at = row * f, count = rows * f;
  Scalar* x_bar = nullptr;
  if (l + 1 < n.n_blocks) {
    x_bar = state.x_bar + at;
    // Nothing reads the features after the last block, so their cotangent is zero.
    const Scalar* above = l + 2 < n.n_blocks ? x_bar : nullptr;
    dense.multiply(rows, f, f, state.h_bar[l + 1] + at, state.input_back[l + 1], above, f, x_bar);
  }
  const auto s_bar = pass.row_buffer();
  dense.weighted_sum(count, pass.weight(l + 1), state.out_bar + at, x_bar, state.v_bar[l] + at);
  dense.multiply(rows, f, f, state.v_bar[l] + at, state.output_back[l], nullptr, 0, s_bar.get());
  dense.product(count, s_bar.get(), state.slope[l] + at, state.z_bar[l] + at);
  dense.multiply(rows, f, f, state.z_bar[l] + at, state.hidden_back[l], nullptr, 0,
                 state.y_bar[l] + at);
}

/// Adds up the parts of d_bar, one per feature block, always in the same order.
template <class Scalar>
void sum_d_bar(const Pass<Scalar>& pass, Scalar* d_bar) {
  constexpr Index stretch = 4096;
  const Index n_parts = n_feature_blocks<Scalar>(pass.n.n_features), n_pairs = pass.n.n_pairs;
  if (n_parts == 1) return;
  pass.parallel_for((n_pairs + stretch - 1) / stretch, [&](Index s) {
    const Index begin = s * stretch, count = std::min(stretch, n_pairs - begin);
    const Scalar* part = pass.state.d_bar_parts + begin;
    std::copy_n(part, count, d_bar + begin);
    for (Index b = 1; b < n_parts; ++b) {
      pass.dense.weighted_sum(count, 1, part + b * n_pairs, d_bar + begin, d_bar + begin);
    }
  });
}

template <class Scalar>
void derivative_pass(const Pass<Scalar>& pass, const Halo<Scalar>& halo, Scalar* d_bar) {
  const auto& [n, state] = std::tie(pass.n, pass.state);
  HalfPairs<Scalar> by_slope = pass.pairs;
  by_slope.w = pass.pairs.z;
  const auto part_of = [&, only = d_bar](Index b) {
    return state.d_bar_parts ? state.d_bar_parts + b * n.n_pairs : only;
  };
  pass.for_features([&](Index b, FeatureRange) { std::fill_n(part_of(b), n.n_pairs, Scalar(0)); });
  for (Index l = n.n_blocks; l-- > 0;) {
    pass.for_rows([&](Index row, Index rows) { dense_derivative(pass, l, row, rows); });
    std::fill(state.y_bar[l] + n.n_computed * n.n_features,
              state.y_bar[l] + n.n_atoms * n.n_features, Scalar(0));
    pass.for_features([&](Index b, FeatureRange range) {
      Scalar* part = part_of(b);
      if (l > 0) {
        cfconv_backward(pass.pairs, pass.table(l), state.y_bar[l], state.h[l], range,
                        state.h_bar[l], part, pass.isa);
      } else {  // the embedding does not depend on distances
        cfconv_dot(by_slope, pass.table(l), state.y_bar[l], state.h[l], range, part, pass.isa);
      }
    });
    if (l > 0 && n.n_computed < n.n_atoms) halo.reverse(state.h_bar[l]);
  }
  sum_d_bar(pass, d_bar);
}

// ---- backward

/// A product G^T X, over all atoms, that belongs to the gradient of a weight (m, n).
template <class Scalar>
struct Outer {
  const Scalar* g;
  Index m;
  const Scalar* x;
  Index n;
  Scalar* gradient;
};

template <class Scalar>
struct BackwardPass : Pass<Scalar> {
  Scratch<Scalar> scratch;
  const SchnetParameters<Scalar*>& gradients;
  const Scalar* g_bar;
  const Scalar* v;
  const Scalar* out_cotangent;
  std::vector<double> weight_sums;  // (n_row_blocks, n_blocks + 1)

  double& weight_sum(Index row, Index l) {
    return weight_sums[row / row_block * (this->n.n_blocks + 1) + l];
  }
  Scalar* sums(Index row) { return scratch.sums + row / row_block * scratch.sums_width; }

  /// Calls task(first row, number of rows) for blocks of rows, and adds the products of the arrays
  /// that it fills to their gradients. A single thread does that block by block, while a block is
  /// in its cache. Several threads do it after all tasks, each for its share of the rows of every
  /// gradient. Either way each element is summed over the atoms in their order.
  template <class Task>
  void for_rows_with(const std::vector<Outer<Scalar>>& products, const Task& task) {
    const int n_threads = this->parallel_for.n_threads;
    if (n_threads == 1) {
      return this->for_rows([&](Index row, Index rows) {
        task(row, rows);
        for (const auto& product : products) add_outer(product, row, rows, 0, 1);
      });
    }
    this->for_rows(task);
    this->parallel_for(n_threads, [&](Index share) {
      for (Index row = 0; row < this->n.n_atoms; row += row_block) {
        const Index rows = std::min(row_block, this->n.n_atoms - row);
        for (const auto& product : products) add_outer(product, row, rows, share, n_threads);
      }
    });
  }

  void add_outer(const Outer<Scalar>& o, Index row, Index rows, Index share, Index n_shares) const {
    const Index size = (o.m + n_shares - 1) / n_shares;
    const Index first = std::min(share * size, o.m), last = std::min(first + size, o.m);
    this->dense.add_outer(rows, o.m, o.n, o.g + row * o.m, o.x + row * o.n, first, last,
                          o.gradient);
  }

  void start_sums(Index row) { std::fill_n(sums(row), scratch.sums_width, Scalar(0)); }
  /// Writes the sums, over all blocks of rows, of the columns first .. first + count - 1.
  void finish_sums(Index first, Index count, Scalar* to) {
    std::fill_n(to, count, Scalar(0));
    for (Index row = 0; row < this->n.n_atoms; row += row_block) {
      this->dense.add_columns(1, count, nullptr, sums(row) + first, to);
    }
  }
};

/// The tangent of dense_forward: from y_dot of block l to h_dot of block l + 1, for some rows.
template <class Scalar>
void dense_tangent(BackwardPass<Scalar>& pass, Index l, Index row, Index rows) {
  const auto& [n, state, scratch, dense] = std::tie(pass.n, pass.state, pass.scratch, pass.dense);
  const Index f = n.n_features, at = row * f, count = rows * f;
  const auto z_dot = pass.row_buffer();
  dense.multiply(rows, f, f, scratch.y_dot + at, state.hidden_forward[l], nullptr, 0, z_dot.get());
  dense.tangent_activate(count, state.slope[l] + at, z_dot.get(), state.z_bar[l] + at,
                         scratch.s_dot + at, scratch.curvature[l] + at);
  Scalar* v_dot = z_dot.get();
  dense.multiply(rows, f, f, scratch.s_dot + at, state.output_forward[l], nullptr, 0, v_dot);
  pass.weight_sum(row, l + 1) += dense.dot(count, state.out_bar + at, v_dot);
  dense.weighted_sum(count, pass.weight(l + 1), v_dot, l ? scratch.out_dot + at : nullptr,
                     scratch.out_dot + at);
  if (l + 1 == n.n_blocks) return;
  dense.weighted_sum(count, 1, v_dot, l ? scratch.x_dot + at : nullptr, scratch.x_dot + at);
  dense.multiply(rows, f, f, scratch.x_dot + at, state.input_forward[l + 1], nullptr, 0,
                 scratch.h_dot[l + 1] + at);
}

template <class Scalar>
void tangent_pass(BackwardPass<Scalar>& pass) {
  const auto& [n, state, scratch] = std::tie(pass.n, pass.state, pass.scratch);
  const Index f = n.n_features;
  HalfPairs<Scalar> scaled = pass.pairs;
  scaled.w = scratch.scaled_weights;
  for (Index p = 0; p < n.n_pairs; ++p) {
    for (Index m = 0; m < n_taps; ++m)
      scratch.scaled_weights[p * n_taps + m] = pass.v[p] * pass.pairs.z[p * n_taps + m];
  }
  for (Index l = 0; l < n.n_blocks; ++l) {
    pass.for_features([&](Index, FeatureRange range) {
      if (l == 0) {
        cfconv(scaled, pass.table(l), state.h[l], range, scratch.y_dot, pass.isa);
      } else {
        cfconv_double_backward(pass.pairs, pass.table(l), scratch.h_dot[l], pass.v, state.h[l],
                               range, scratch.y_dot, pass.isa);
      }
    });
    std::vector<Outer<Scalar>> products{
        {state.v_bar[l], f, scratch.s_dot, f, pass.gradients.blocks[l].output},
        {state.z_bar[l], f, scratch.y_dot, f, pass.gradients.blocks[l].hidden}};
    if (l + 1 < n.n_blocks) {
      products.push_back(
          {state.h_bar[l + 1], f, scratch.x_dot, f, pass.gradients.blocks[l + 1].input});
    }
    pass.for_rows_with(products, [&](Index row, Index rows) { dense_tangent(pass, l, row, rows); });
  }
}

/// The reverse of the readout for some rows: sums for its gradients, and lambda_out.
template <class Scalar>
void dense_reverse_readout(BackwardPass<Scalar>& pass, Index row, Index rows) {
  const auto& [n, state, scratch, dense] = std::tie(pass.n, pass.state, pass.scratch, pass.dense);
  const Index f = n.n_features, hidden = n.n_hidden, at = row * hidden;
  const bool tangent = pass.v && n.n_blocks > 0;
  Scalar* sums = pass.sums(row);
  pass.start_sums(row);
  const auto curvature = std::make_unique_for_overwrite<Scalar[]>(rows * hidden);
  const auto s_dot = std::make_unique_for_overwrite<Scalar[]>(rows * hidden);
  for (Index i = 0; i < rows; ++i) {
    dense.product(hidden, state.readout_slope + at + i * hidden, pass.parameters.readout_output,
                  scratch.hidden_bar + at + i * hidden);
  }
  if (tangent) {
    dense.multiply(rows, f, hidden, scratch.out_dot + row * f, state.readout_forward, nullptr, 0,
                   s_dot.get());
    dense.tangent_activate(rows * hidden, state.readout_slope + at, s_dot.get(),
                           scratch.hidden_bar + at, s_dot.get(), curvature.get());
    dense.add_columns(rows, hidden, nullptr, s_dot.get(), sums + 2 * f + hidden);
  }
  for (Index i = 0; i < rows; ++i) {
    dense.weighted_sum(hidden, pass.g_bar[row + i], scratch.hidden_bar + at + i * hidden,
                       tangent ? curvature.get() + i * hidden : nullptr,
                       scratch.lambda_hidden + at + i * hidden);
  }
  dense.add_columns(rows, hidden, pass.g_bar + row, state.q + at, sums + 2 * f + hidden);
  dense.add_columns(rows, hidden, nullptr, scratch.lambda_hidden + at, sums + 2 * f);
  Scalar* lambda_out = scratch.lambda_out + row * f;
  dense.multiply(rows, hidden, f, scratch.lambda_hidden + at, state.readout_back, nullptr, 0,
                 lambda_out);
  if (pass.out_cotangent) {
    dense.weighted_sum(rows * f, 1, pass.out_cotangent + row * f, lambda_out, lambda_out);
  }
}

template <class Scalar>
void reverse_readout(BackwardPass<Scalar>& pass) {
  const auto& [n, state, scratch, gradients] =
      std::tie(pass.n, pass.state, pass.scratch, pass.gradients);
  const Index f = n.n_features, hidden = n.n_hidden;
  std::vector<Outer<Scalar>> products{
      {scratch.lambda_hidden, hidden, state.out, f, gradients.readout}};
  if (pass.v && n.n_blocks > 0) {
    products.push_back({scratch.hidden_bar, hidden, scratch.out_dot, f, gradients.readout});
  }
  pass.for_rows_with(products,
                     [&](Index row, Index rows) { dense_reverse_readout(pass, row, rows); });
  pass.finish_sums(2 * f, hidden, gradients.readout_bias);
  pass.finish_sums(2 * f + hidden, hidden, gradients.readout_output);
  gradients.readout_output_bias[0] =
      static_cast<Scalar>(std::accumulate(pass.g_bar, pass.g_bar + n.n_atoms, 0.0));
}

/// From lambda_out, and from lambda_h of block l + 1, to lambda_y of block l, for some rows.
template <class Scalar>
void dense_reverse(BackwardPass<Scalar>& pass, Index l, Index row, Index rows) {
  const auto& [n, state, scratch, dense] = std::tie(pass.n, pass.state, pass.scratch, pass.dense);
  const Index f = n.n_features, at = row * f, count = rows * f;
  Scalar* sums = pass.sums(row);
  pass.start_sums(row);
  Scalar* lambda_x = nullptr;
  if (l + 1 < n.n_blocks) {
    lambda_x = scratch.lambda_x + at;
    const Scalar* above = l + 2 < n.n_blocks ? lambda_x : nullptr;
    dense.multiply(rows, f, f, scratch.lambda_h + at, state.input_back[l + 1], above, f, lambda_x);
  }
  const Scalar* x_before = l ? state.x[l - 1] : pass.parameters.features;
  pass.weight_sum(row, l + 1) +=
      dense.dot_difference(count, scratch.lambda_out + at, state.x[l] + at, x_before + at);
  dense.weighted_sum(count, pass.weight(l + 1), scratch.lambda_out + at, lambda_x,
                     scratch.lambda_v + at);
  dense.add_columns(rows, f, nullptr, scratch.lambda_v + at, sums);
  const auto lambda_s = pass.row_buffer();
  dense.multiply(rows, f, f, scratch.lambda_v + at, state.output_back[l], nullptr, 0,
                 lambda_s.get());
  if (pass.v) {
    dense.product_sum(count, lambda_s.get(), state.slope[l] + at, scratch.curvature[l] + at,
                      scratch.lambda_z + at);
  } else {
    dense.product(count, lambda_s.get(), state.slope[l] + at, scratch.lambda_z + at);
  }
  dense.add_columns(rows, f, nullptr, scratch.lambda_z + at, sums + f);
  dense.multiply(rows, f, f, scratch.lambda_z + at, state.hidden_back[l], nullptr, 0,
                 scratch.lambda_y + at);
}

/// From lambda_y of block l the cotangent of its table, or of h, for some features.
template <class Scalar>
void reverse_convolution(BackwardPass<Scalar>& pass, Index l, bool of_table, FeatureRange range) {
  const auto& [n, state, scratch, pairs] = std::tie(pass.n, pass.state, pass.scratch, pass.pairs);
  const FilterTable<Scalar> table = pass.table(l);
  Scalar* table_bar = pass.gradients.tables + l * n.n_rows * n.n_features;
  if (of_table && pass.v) {
    cfconv_total_table_gradient(pairs, table, scratch.lambda_y, scratch.h_dot[l], pass.v,
                                state.y_bar[l], state.h[l], range, table_bar, pass.isa);
  } else if (of_table) {
    cfconv_table_gradient(pairs, table, scratch.lambda_y, state.h[l], range, table_bar, pass.isa);
  } else if (pass.v) {
    cfconv_double_backward(pairs, table, scratch.lambda_y, pass.v, state.y_bar[l], range,
                           scratch.lambda_h, pass.isa);
  } else {
    cfconv(pairs, table, scratch.lambda_y, range, scratch.lambda_h, pass.isa);
  }
}

/// The gradients in the features of the embedding and in its contribution weight, for some rows.
template <class Scalar>
void reverse_features(BackwardPass<Scalar>& pass, Index row, Index rows) {
  const auto& [n, state, scratch, dense] = std::tie(pass.n, pass.state, pass.scratch, pass.dense);
  const Index f = n.n_features, at = row * f, count = rows * f;
  const Scalar* lambda_x = nullptr;
  if (n.n_blocks > 0) {
    const Scalar* above = n.n_blocks > 1 ? scratch.lambda_x + at : nullptr;
    dense.multiply(rows, f, f, scratch.lambda_h + at, state.input_back[0], above, f,
                   scratch.lambda_x + at);
    lambda_x = scratch.lambda_x + at;
  }
  dense.weighted_sum(count, pass.weight(0), scratch.lambda_out + at, lambda_x,
                     pass.gradients.features + at);
  pass.weight_sum(row, 0) +=
      dense.dot(count, scratch.lambda_out + at, pass.parameters.features + at);
}

template <class Scalar>
void reverse_pass(BackwardPass<Scalar>& pass) {
  const auto& [n, state, scratch, gradients] =
      std::tie(pass.n, pass.state, pass.scratch, pass.gradients);
  const Index f = n.n_features, n_ranges = n_feature_blocks<Scalar>(f);
  for (Index l = n.n_blocks; l-- > 0;) {
    std::vector<Outer<Scalar>> products{
        {scratch.lambda_v, f, state.s[l], f, gradients.blocks[l].output},
        {scratch.lambda_z, f, state.y[l], f, gradients.blocks[l].hidden}};
    if (l + 1 < n.n_blocks) {
      products.push_back({scratch.lambda_h, f, state.x[l], f, gradients.blocks[l + 1].input});
    }
    pass.for_rows_with(products, [&](Index row, Index rows) { dense_reverse(pass, l, row, rows); });
    pass.finish_sums(0, f, gradients.blocks[l].output_bias);
    pass.finish_sums(f, f, gradients.blocks[l].hidden_bias);
    pass.parallel_for(2 * n_ranges, [&](Index t) {
      reverse_convolution(pass, l, t < n_ranges, feature_range<Scalar>(t % n_ranges, f));
    });
  }
  std::vector<Outer<Scalar>> products;
  if (n.n_blocks > 0) {
    products.push_back(
        {scratch.lambda_h, f, pass.parameters.features, f, gradients.blocks[0].input});
  }
  pass.for_rows_with(products, [&](Index row, Index rows) { reverse_features(pass, row, rows); });
}

template <class Scalar>
void clear_gradients(const SchnetSizes& n, const SchnetParameters<Scalar*>& gradients) {
  for (const auto& block : gradients.blocks) {
    for (Scalar* weight : {block.input, block.hidden, block.output})
      std::fill_n(weight, n.n_features * n.n_features, Scalar(0));
  }
  std::fill_n(gradients.readout, n.n_hidden * n.n_features, Scalar(0));
}

}  // namespace

template <class Scalar>
Index schnet_state_size(const SchnetSizes& sizes, SchnetOptions options) {
  Layout<Scalar> layout(nullptr);
  State<Scalar>(sizes, options, layout, layout);
  return layout.used();
}

template <class Scalar>
Index schnet_packed_size(const SchnetSizes& sizes) {
  const bool may_use_tiles = sizeof(Scalar) == 4 && sizes.n_features >= least_tile_features;
  return (may_use_tiles ? 2 : 1) * size_of_one_packing<Scalar>(sizes);
}

template <class Scalar>
void schnet_pack(const SchnetSizes& sizes, const SchnetParameters<const Scalar*>& parameters,
                 Scalar* packed, const ParallelFor& parallel_for, InstructionSet isa) {
  SchnetSizes one = sizes, many = sizes;
  one.n_atoms = 1;
  many.n_atoms = least_tile_rows;
  std::set<InstructionSet> sets{set_for<Scalar>(one, isa), set_for<Scalar>(many, isa)};
  for (const InstructionSet set : sets) {
    Layout<Scalar> layout(packing_for(packed, sizes, set));
    pack_weights(sizes, parameters, true, PackedWeights<Scalar>(sizes, true, layout), parallel_for,
                 set);
  }
}

template <class Scalar>
Index schnet_scratch_size(const SchnetSizes& sizes, bool derivatives) {
  Layout<Scalar> layout(nullptr);
  Scratch<Scalar>(sizes, derivatives, layout);
  return layout.used();
}

template <class Scalar>
void schnet_forward(const SchnetSizes& sizes, SchnetOptions options, const HalfPairs<Scalar>& pairs,
                    const SchnetParameters<const Scalar*>& parameters,
                    const SchnetOutputs<Scalar>& outputs, Scalar* state, const Halo<Scalar>& halo,
                    const ParallelFor& parallel_for, InstructionSet best) {
  const InstructionSet isa = set_for<Scalar>(sizes, best);
  const Pass<Scalar> pass{sizes,
                          options,
                          pairs,
                          parameters,
                          state_in(state, parameters.packed, sizes, options, isa),
                          parallel_for,
                          isa};
  if (!parameters.packed) {
    const bool back = options.derivatives || options.keep;
    pack_weights<Scalar>(sizes, parameters, back, pass.state, parallel_for, isa);
  }
  pass.for_rows([&](Index row, Index rows) { dense_forward(pass, outputs, -1, row, rows); });
  if (sizes.n_blocks > 0) ghost_input(pass);
  for (Index l = 0; l < sizes.n_blocks; ++l) {
    pass.for_features([&](Index, FeatureRange range) {
      cfconv(pairs, pass.table(l), pass.state.h[l], range, pass.state.y[l], isa);
    });
    pass.for_rows([&](Index row, Index rows) { dense_forward(pass, outputs, l, row, rows); });
    if (l + 1 < sizes.n_blocks && sizes.n_computed < sizes.n_atoms)
      halo.forward(pass.state.h[l + 1]);
  }
  if (options.derivatives) derivative_pass(pass, halo, outputs.d_bar);
}

template <class Scalar>
void schnet_backward(const SchnetSizes& sizes, SchnetOptions options,
                     const HalfPairs<Scalar>& pairs,
                     const SchnetParameters<const Scalar*>& parameters, const Scalar* state,
                     const Scalar* g_bar, const Scalar* v, const Scalar* out_cotangent,
                     const SchnetParameters<Scalar*>& gradients, Scalar* scratch,
                     const ParallelFor& parallel_for, InstructionSet best) {
  const InstructionSet isa = set_for<Scalar>(sizes, best);
  Layout<Scalar> scratch_layout(scratch);
  BackwardPass<Scalar> pass{
      {sizes, options, pairs, parameters,
       state_in(const_cast<Scalar*>(state), parameters.packed, sizes, options, isa),  // only read
       parallel_for, isa},
      Scratch<Scalar>(sizes, v != nullptr, scratch_layout),
      gradients,
      g_bar,
      v,
      out_cotangent,
      std::vector<double>(n_row_blocks(sizes.n_atoms) * (sizes.n_blocks + 1))};
  clear_gradients(sizes, gradients);
  if (v && sizes.n_blocks > 0) {
    std::fill_n(pass.scratch.h_dot[0], sizes.n_atoms * sizes.n_features, Scalar(0));
    tangent_pass(pass);
  }
  reverse_readout(pass);
  reverse_pass(pass);
  for (Index l = 0; l <= sizes.n_blocks; ++l) {
    double sum = 0;
    for (Index row = 0; row < sizes.n_atoms; row += row_block) sum += pass.weight_sum(row, l);
    gradients.contribution_weights[l] = static_cast<Scalar>(sum);
  }
}

#define SCSCHNET_INSTANTIATE(Scalar)                                                             \
  template Index schnet_state_size<Scalar>(const SchnetSizes&, SchnetOptions);                   \
  template Index schnet_scratch_size<Scalar>(const SchnetSizes&, bool);                          \
  template Index schnet_packed_size<Scalar>(const SchnetSizes&);                                 \
  template void schnet_pack(const SchnetSizes&, const SchnetParameters<const Scalar*>&, Scalar*, \
                            const ParallelFor&, InstructionSet);                                 \
  template void schnet_forward(const SchnetSizes&, SchnetOptions, const HalfPairs<Scalar>&,      \
                               const SchnetParameters<const Scalar*>&,                           \
                               const SchnetOutputs<Scalar>&, Scalar*, const Halo<Scalar>&,       \
                               const ParallelFor&, InstructionSet);                              \
  template void schnet_backward(const SchnetSizes&, SchnetOptions, const HalfPairs<Scalar>&,     \
                                const SchnetParameters<const Scalar*>&, const Scalar*,           \
                                const Scalar*, const Scalar*, const Scalar*,                     \
                                const SchnetParameters<Scalar*>&, Scalar*, const ParallelFor&,   \
                                InstructionSet);
SCSCHNET_INSTANTIATE(float)
SCSCHNET_INSTANTIATE(double)

}  // namespace scschnet::cpu
