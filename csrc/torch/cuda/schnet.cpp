// The operators schnet, schnet_backward and schnet_evaluate for GPUs: the passes of
// ../../core/schnet.hpp, matrix products by torch (cuBLAS), everything else by our kernels. Names
// as in core/cpu/schnet.cpp: a bar is a cotangent in the derivative of sum_i g_i, a dot the tangent
// along v, lambda a cotangent in the last reverse pass.
#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../../core/cuda/activation.hpp"
#include "../../core/cuda/column_sums.hpp"
#include "../../core/cuda/readout.hpp"
#include "../registered_halo.hpp"
#include "../schnet_input.hpp"
#include "binding.hpp"

namespace scschnet::cuda {
namespace {

using at::Tensor;
using at::TensorList;

/// Parameters by name.
struct Block {
  Tensor input, hidden, hidden_bias, output, output_bias;
};
struct Readout {
  Tensor hidden, hidden_bias, output, output_bias;
};

Block block_of(const SchnetInput& in, std::int64_t l) {
  const Tensor* p = &in.parameters[parameters_per_block * l];
  return {p[0], p[1], p[2], p[3], p[4]};
}
Readout readout_of(const SchnetInput& in) {
  const Tensor* p = &in.parameters[parameters_per_block * in.tables.size(0)];
  return {p[0], p[1], p[2], p[3]};
}

/// Everything that a forward pass leaves for the backward pass, in one tensor: the partners of the
/// half list, unless they are given, and arrays (n_blocks, n_atoms, n_features) unless something
/// else is said. What is not kept shares the memory of one block.
struct State {
  Tensor memory;    // (size,)
  Tensor partners;  // bytes
  Tensor x, h, y, s, slope;
  Tensor out, q, readout_slope;       // (n_atoms, n_features or n_hidden)
  Tensor out_bar, hidden_bar;         // likewise, with derivatives
  Tensor v_bar, z_bar, y_bar, h_bar;  // with derivatives

  State(const SchnetSizes& n, bool derivatives, bool keep, std::int64_t partner_bytes,
        const at::TensorOptions& options, const Tensor& given = {}) {
    constexpr std::int64_t line = 256;
    const auto element = static_cast<std::int64_t>(options.dtype().itemsize());
    memory = given;
    std::int64_t used = 0;
    const auto rounded = [&](std::int64_t count) {
      return (count * element + line - 1) / line * line / element;
    };
    const auto take = [&](std::int64_t count) {
      const std::int64_t from = used;
      used += rounded(count);
      return memory.defined() ? memory.narrow(0, from, count) : Tensor();
    };
    const auto rows = [&](std::int64_t width) {
      const Tensor part = take(n.n_atoms * width);
      return part.defined() ? part.view({n.n_atoms, width}) : part;
    };
    const auto per_block = [&](bool own) {
      const std::int64_t blocks = own ? n.n_blocks : (n.n_blocks > 0 ? 1 : 0);
      const Tensor part = take(blocks * n.n_atoms * n.n_features);
      return part.defined() ? part.view({blocks, n.n_atoms, n.n_features})
                                  .expand({n.n_blocks, n.n_atoms, n.n_features})
                            : part;
    };
    const auto lay_out = [&] {
      used = 0;
      partners = take((partner_bytes + element - 1) / element);
      for (Tensor* array : {&x, &y, &s}) *array = per_block(keep);
      for (Tensor* array : {&h, &slope}) *array = per_block(keep || derivatives);
      out = rows(n.n_features);
      q = rows(n.n_hidden);
      readout_slope = rows(n.n_hidden);
      if (!derivatives) return;
      out_bar = rows(n.n_features);
      hidden_bar = rows(n.n_hidden);
      for (Tensor* array : {&v_bar, &z_bar, &y_bar, &h_bar}) *array = per_block(keep);
    };
    if (!memory.defined()) {
      lay_out();  // counts
      memory = at::empty({used}, options);
    }
    lay_out();
  }
};

struct Outputs {
  Tensor g, d_bar, norms, corrections, state, out;
};

/// What all passes share.
template <class Scalar>
struct Pass {
  const SchnetInput& in;
  SchnetSizes n;
  Stream stream;
  State state;
  PairsBothWays<Scalar> pairs{};

  Pass(const SchnetInput& input, const SchnetSizes& sizes, bool keep, Stream stream_,
       const Tensor& given = {})
      : in(input),
        n(sizes),
        stream(stream_),
        state(sizes, input.derivatives, keep,
              input.partners.defined() ? 0 : partners_bytes(sizes.n_atoms, sizes.n_pairs),
              input.features.options(), given) {
    pairs.half = pairs_of<Scalar>(in);
    pairs.n_pairs = n.n_pairs;
    const bool found = in.partners.defined();
    void* const memory = (found ? in.partners : state.partners).mutable_data_ptr();
    pairs.partners = found || given.defined()
                         ? partners_in(n.n_atoms, n.n_pairs, memory)
                         : find_partners(n.n_atoms, n.n_pairs, pairs.half.row_ptr, pairs.half.idx_j,
                                         memory, stream);
  }

  FilterTable<Scalar> table(std::int64_t l) const {
    return {in.tables.const_data_ptr<Scalar>() + l * n.n_rows * n.n_features, n.n_rows,
            n.n_features};
  }
  ReadoutLayer<Scalar> layer(const Readout& readout) const {
    return {n.n_hidden, read(readout.output), read(readout.output_bias)};
  }
  Tensor weight(std::int64_t l) const { return in.contribution_weights.select(0, l); }
  const Scalar* weight_pointer(std::int64_t l) const { return read(in.contribution_weights) + l; }
  /// The rows that this process computes.
  Tensor computed(const Tensor& rows) const { return rows.narrow(0, 0, n.n_computed); }
  static const Scalar* read(const Tensor& t) { return t.const_data_ptr<Scalar>(); }
  static Scalar* write(const Tensor& t) { return t.mutable_data_ptr<Scalar>(); }
  Tensor empty(at::IntArrayRef sizes) const { return at::empty(sizes, in.features.options()); }

  /// The pairs with weights of W' in the place of those of W, times v if given.
  PairsBothWays<Scalar> by_slope(const Tensor& weights) const {
    PairsBothWays<Scalar> other = pairs;
    other.half.w = read(weights);
    return other;
  }
};

/// Rows of ghosts through the host: copied to the CPU, exchanged, copied back.
void exchange(void (*function)(void*, void*, std::int64_t, int), const Tensor& rows) {
  Tensor on_host = rows.cpu().contiguous();
  function(registered_halo().context, on_host.mutable_data_ptr(), rows.size(1),
           rows.scalar_type() == at::kDouble);
  rows.copy_(on_host);
}

// ---- forward

template <class Scalar>
void add_layer(const Pass<Scalar>& pass, std::int64_t layer, const Tensor& v, const Tensor& before,
               const Tensor& x, const Outputs& to) {
  const auto& n = pass.n;
  add_correction(n.n_computed, n.n_features, pass.weight_pointer(layer), pass.read(v),
                 before.defined() ? pass.read(before) : nullptr,
                 x.defined() ? pass.write(x) : nullptr, pass.write(pass.state.out),
                 pass.write(to.norms.select(0, layer)), pass.stream);
  if (to.corrections.numel() > 0) to.corrections.select(0, layer).copy_(v);
}

template <class Scalar>
void run_blocks(const Pass<Scalar>& pass, const Outputs& to) {
  const auto& [in, n, s] = std::tie(pass.in, pass.n, pass.state);
  const Tensor features = pass.computed(in.features);
  add_layer(pass, 0, features, {}, {}, to);
  for (std::int64_t l = 0; l < n.n_blocks; ++l) {
    const Block block = block_of(in, l);
    const Tensor before = l ? pass.computed(s.x[l - 1]) : features, h = s.h[l];
    Tensor own_h = l ? pass.computed(h) : h;  // the features of ghosts are known by their element
    at::mm_out(own_h, l ? before : in.features, block.input.t());
    if (l && n.n_computed < n.n_atoms) exchange(registered_halo().forward, h);
    cfconv(pass.pairs, pass.table(l), pass.read(h), pass.write(s.y[l]), pass.stream);
    Tensor own_s = pass.computed(s.s[l]);
    at::addmm_out(own_s, block.hidden_bias, pass.computed(s.y[l]), block.hidden.t());
    activate(own_s.numel(), pass.read(own_s), pass.write(own_s), pass.write(s.slope[l]),
             pass.stream);
    const Tensor v = at::addmm(block.output_bias, own_s, block.output.t());
    add_layer(pass, l + 1, v, before, s.x[l], to);
  }
}

/// From out to g and, with derivatives, out_bar.
template <class Scalar>
void run_readout(const Pass<Scalar>& pass, const Outputs& to) {
  const auto& [in, n, s] = std::tie(pass.in, pass.n, pass.state);
  const Readout readout = readout_of(in);
  Tensor q = pass.computed(s.q);
  at::addmm_out(q, readout.hidden_bias, pass.computed(s.out), readout.hidden.t());
  read_out(n.n_computed, n.n_local, pass.layer(readout), pass.read(q), pass.write(q),
           pass.write(s.readout_slope), pass.write(to.g),
           in.derivatives ? pass.write(s.hidden_bar) : nullptr, pass.stream);
  if (!in.derivatives) return;
  Tensor out_bar = pass.computed(s.out_bar);
  at::mm_out(out_bar, pass.computed(s.hidden_bar), readout.hidden);
}

/// sum + a b, in the memory of the sum; without one, the product.
Tensor added_product(Tensor sum, const Tensor& a, const Tensor& b) {
  return sum.defined() ? sum.addmm_(a, b) : at::mm(a, b);
}

/// d_bar, from the last block to the first.
template <class Scalar>
void derive(const Pass<Scalar>& pass, const Outputs& to) {
  const auto& [in, n, s] = std::tie(pass.in, pass.n, pass.state);
  if (n.n_blocks == 0) to.d_bar.zero_();
  const Tensor scratch = pass.empty({dot_scratch_size<Scalar>(n.n_features, n.n_pairs)});
  const Tensor out_bar = pass.computed(s.out_bar);
  for (std::int64_t l = n.n_blocks; l-- > 0;) {
    const Block block = block_of(in, l);
    Tensor v_bar = pass.computed(s.v_bar[l]), z_bar = pass.computed(s.z_bar[l]),
           y_bar = pass.computed(s.y_bar[l]);
    if (l + 1 < n.n_blocks) {  // the block behind has begun it
      v_bar.addmm_(pass.computed(s.h_bar[l + 1]), block_of(in, l + 1).input);
    } else {  // nothing reads the features of the last block
      at::mul_out(v_bar, out_bar, pass.weight(l + 1));
    }
    at::mm_out(z_bar, v_bar, block.output);
    const BlockBefore<Scalar> before{pass.weight_pointer(l + 1), pass.read(v_bar),
                                     pass.read(out_bar), l ? pass.write(s.v_bar[l - 1]) : nullptr};
    activate_backward<Scalar>(z_bar.numel(), pass.read(z_bar), pass.read(s.slope[l]), nullptr,
                              nullptr, pass.write(z_bar), before, pass.stream);
    at::mm_out(y_bar, z_bar, block.hidden);
    s.y_bar[l].narrow(0, n.n_computed, n.n_atoms - n.n_computed).zero_();
    const bool add = l + 1 < n.n_blocks;
    const Scalar *all_y_bar = pass.read(s.y_bar[l]), *h = pass.read(s.h[l]);
    if (l > 0) {
      cfconv_backward(pass.pairs, pass.table(l), all_y_bar, h, pass.write(s.h_bar[l]),
                      pass.write(to.d_bar), add, pass.write(scratch), pass.stream);
      if (n.n_computed < n.n_atoms) exchange(registered_halo().reverse, s.h_bar[l]);
    } else {  // the embedding does not depend on distances
      cfconv_dot(pass.by_slope(in.weights.select(0, 1)), pass.table(l), all_y_bar, h,
                 pass.write(to.d_bar), add, pass.write(scratch), pass.stream);
    }
  }
}

Outputs forward(const SchnetInput& in, const SchnetSizes& n, bool keep, bool corrections,
                bool representation = false) {
  const OnDevice device(in.features);
  check_number_of_pairs(n.n_pairs);
  const auto options = in.features.options();
  const std::int64_t n_layers = n.n_blocks + 1;
  Outputs to{at::empty({n.n_computed}, options),
             at::empty({in.derivatives ? n.n_pairs : 0}, options),
             at::empty({n_layers, n.n_computed}, options),
             corrections ? at::empty({n_layers, n.n_computed, n.n_features}, options)
                         : at::empty({0, 0, 0}, options),
             {},
             {}};
  with_scalar(in.features.scalar_type(), [&]<class Scalar>() {
    const Pass<Scalar> pass(in, n, keep, device.stream());
    run_blocks(pass, to);
    run_readout(pass, to);
    if (in.derivatives) derive(pass, to);
    to.state = pass.state.memory;
    to.out = representation ? pass.state.out.clone() : pass.empty({n.n_atoms, 0});
  });
  return to;
}

// ---- backward

using Gradients = std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>>;

template <class Scalar>
struct BackwardPass : Pass<Scalar> {
  Tensor g_bar;  // (n_atoms,)
  Tensor v;      // (n_pairs,), or undefined
  Block blocks;  // gradients of all blocks, (n_blocks, ...)
  Readout readout;
  Tensor weights_bar;                    // of the contribution weights
  Tensor weight_dots;                    // (n_blocks + 1, n_atoms) float64: parts of these, by atom
  std::vector<Columns<Scalar>> columns;  // whose sums are gradients
  std::vector<Tensor> summed;            // and hold their memory
  Tensor features_bar, tables_bar;
  Tensor x_dot, h_dot, y_dot, z_dot, s_dot;  // tangents, (n_blocks, n_atoms, n_features)
  Tensor out_dot;
  Tensor out_cotangent;  // or undefined
  Tensor lambda_out;

  BackwardPass(const SchnetInput& in, const SchnetSizes& n, Stream stream, const Tensor& state,
               const Tensor& g_bar_, const Tensor& v_)
      : Pass<Scalar>(in, n, true, stream, state),
        g_bar(g_bar_),
        v(v_),
        weights_bar(at::empty_like(in.contribution_weights)),
        weight_dots(
            at::empty({n.n_blocks + 1, n.n_atoms}, in.features.options().dtype(at::kDouble))),
        tables_bar(at::empty_like(in.tables)) {
    columns.push_back({nullptr, weight_dots.const_data_ptr<double>(), n.n_blocks + 1, 1,
                       this->write(weights_bar)});
  }

  /// Sums over atoms of matrices (..., n_atoms, n_columns), made at the end of the pass.
  Tensor sum_later(const Tensor& matrices, at::IntArrayRef sizes) {
    const Tensor sums = this->empty(sizes);
    const std::int64_t n_columns = matrices.size(-1);
    columns.push_back(
        {this->read(matrices), nullptr, sums.numel() / n_columns, n_columns, this->write(sums)});
    summed.push_back(matrices);
    return sums;
  }

  /// x_0 undefined: zero.
  Layers<Scalar> layers(const Tensor& x_0, const Tensor& x) const {
    const auto& n = this->n;
    return {n.n_atoms,
            n.n_features,
            n.n_blocks,
            this->weight_pointer(0),
            x_0.defined() ? this->read(x_0) : nullptr,
            this->read(x)};
  }
  double* dots() const { return weight_dots.mutable_data_ptr<double>(); }
};

/// sum + a^T b of every block, in the memory of the sum; without one, the product.
Tensor added_products(Tensor sum, const Tensor& a, const Tensor& b) {
  const Tensor transposed = a.transpose(1, 2);
  return sum.defined() ? sum.baddbmm_(transposed, b) : at::bmm(transposed, b);
}

/// From the tangents of all features to those of out; gradients of what the derivative of sum_i g_i
/// is linear in.
template <class Scalar>
void tangent_pass(BackwardPass<Scalar>& pass) {
  const auto& [in, n, s] = std::tie(pass.in, pass.n, pass.state);
  const Tensor scaled = in.weights.select(0, 1) * pass.v.unsqueeze(1);
  for (Tensor* dot : {&pass.x_dot, &pass.h_dot, &pass.y_dot, &pass.z_dot, &pass.s_dot})
    *dot = pass.empty({n.n_blocks, n.n_atoms, n.n_features});
  pass.h_dot[0].zero_();  // the embedding does not move
  pass.out_dot = at::empty_like(in.features);
  for (std::int64_t l = 0; l < n.n_blocks; ++l) {
    const Block block = block_of(in, l);
    const Tensor y_dot = pass.y_dot[l];
    if (l == 0) {
      cfconv(pass.by_slope(scaled), pass.table(l), pass.read(s.h[l]), pass.write(y_dot),
             pass.stream);
    } else {
      Tensor h_dot = pass.h_dot[l];
      at::mm_out(h_dot, pass.x_dot[l - 1], block.input.t());
      cfconv_double_backward(pass.pairs, pass.table(l), pass.read(h_dot), pass.read(pass.v),
                             pass.read(s.h[l]), pass.write(y_dot), pass.stream);
    }
    Tensor z_dot = pass.z_dot[l], s_dot = pass.s_dot[l];
    at::mm_out(z_dot, y_dot, block.hidden.t());
    Tensor x_dot = pass.x_dot[l];
    activate_tangent(s_dot.numel(), pass.read(s.slope[l]), pass.read(z_dot), pass.write(s_dot),
                     l ? pass.read(pass.x_dot[l - 1]) : nullptr, pass.write(x_dot), pass.stream);
    if (l == 0) {
      at::mm_out(x_dot, s_dot, block.output.t());
    } else {
      x_dot.addmm_(s_dot, block.output.t());
    }
  }
  add_tangents(pass.layers({}, pass.x_dot), pass.read(s.out_bar), pass.write(pass.out_dot),
               pass.dots(), pass.stream);
}

template <class Scalar>
void reverse_readout_pass(BackwardPass<Scalar>& pass) {
  const auto& [in, n, s] = std::tie(pass.in, pass.n, pass.state);
  const Readout readout = readout_of(in);
  Readout& bar = pass.readout;
  Tensor lambda = at::empty_like(s.q);
  const Tensor terms = at::empty_like(s.q);
  if (pass.out_dot.defined()) {
    at::mm_out(lambda, pass.out_dot, readout.hidden.t());
    bar.hidden = at::mm(s.hidden_bar.t(), pass.out_dot);
  }
  reverse_readout(n.n_atoms, pass.layer(readout), pass.read(pass.g_bar), pass.read(s.q),
                  pass.read(s.readout_slope), pass.out_dot.defined() ? pass.read(lambda) : nullptr,
                  pass.write(lambda), pass.write(terms), pass.stream);
  bar.hidden = added_product(bar.hidden, lambda.t(), s.out);
  bar.hidden_bias = pass.sum_later(lambda, {n.n_hidden});
  bar.output = pass.sum_later(terms, {1, n.n_hidden});
  bar.output_bias = pass.sum_later(pass.g_bar.unsqueeze(1), {1});
  pass.lambda_out = pass.out_cotangent.defined()
                        ? at::addmm(pass.out_cotangent, lambda, readout.hidden)
                        : at::mm(lambda, readout.hidden);
}

/// The cotangent of h from lambda_y.
template <class Scalar>
void reverse_convolution(const BackwardPass<Scalar>& pass, std::int64_t l, const Tensor& lambda_y,
                         const Tensor& lambda_h) {
  const Scalar* const lambda = pass.read(lambda_y);
  if (pass.v.defined()) {
    cfconv_double_backward(pass.pairs, pass.table(l), lambda, pass.read(pass.v),
                           pass.read(pass.state.y_bar[l]), pass.write(lambda_h), pass.stream);
  } else {
    cfconv(pass.pairs, pass.table(l), lambda, pass.write(lambda_h), pass.stream);
  }
}

/// Cotangents of the tables of all blocks, together.
template <class Scalar>
void gradients_of_tables(const BackwardPass<Scalar>& pass, const Tensor& lambdas_y) {
  const auto& [in, n, s] = std::tie(pass.in, pass.n, pass.state);
  const HeldPairsByBin<Scalar> by_bin(pass.pairs, n.n_rows, in.features, pass.stream);
  const Tensor scratch =
      pass.empty({table_gradient_scratch_size(n.n_blocks, n.n_rows, n.n_features, n.n_pairs)});
  Scalar *const bar = pass.write(pass.tables_bar), *const memory = pass.write(scratch);
  const Scalar *lambda = pass.read(lambdas_y), *h = pass.read(s.h);
  if (pass.v.defined()) {
    cfconv_total_table_gradient(pass.pairs, by_bin.sorted, n.n_blocks, pass.table(0), lambda,
                                pass.read(pass.h_dot), pass.read(pass.v), pass.read(s.y_bar), h,
                                bar, memory, pass.stream);
  } else {
    cfconv_table_gradient(pass.pairs, by_bin.sorted, n.n_blocks, pass.table(0), lambda, h, bar,
                          memory, pass.stream);
  }
}

/// All sums over atoms together.
template <class Scalar>
void add_up(const BackwardPass<Scalar>& pass) {
  const Tensor scratch = at::empty({column_sums_scratch_size(pass.n.n_atoms, pass.columns)},
                                   pass.weight_dots.options());
  sum_columns(pass.n.n_atoms, pass.columns, scratch.mutable_data_ptr<double>(), pass.stream);
}

/// Of the weights of all blocks, each kind in one product: small ones do not fill a GPU.
template <class Scalar>
void gradients_of_blocks(BackwardPass<Scalar>& pass, const Tensor& lambda_v, const Tensor& lambda_z,
                         const Tensor& lambda_h) {
  const auto& [in, n, s] = std::tie(pass.in, pass.n, pass.state);
  Block& bar = pass.blocks;
  bar.input = pass.empty({n.n_blocks, n.n_features, n.n_features});
  Tensor first = bar.input[0], others = bar.input.narrow(0, 1, n.n_blocks - 1);
  const auto behind_first = [](const Tensor& t) { return t.narrow(0, 1, t.size(0) - 1); };
  const auto but_last = [](const Tensor& t) { return t.narrow(0, 0, t.size(0) - 1); };
  at::mm_out(first, lambda_h[0].t(), in.features);
  at::bmm_out(others, behind_first(lambda_h).transpose(1, 2), but_last(s.x));
  if (pass.v.defined()) {
    others.baddbmm_(behind_first(s.h_bar).transpose(1, 2), but_last(pass.x_dot));
    bar.hidden = added_products({}, s.z_bar, pass.y_dot);
    bar.output = added_products({}, s.v_bar, pass.s_dot);
  }
  bar.hidden = added_products(bar.hidden, lambda_z, s.y);
  bar.output = added_products(bar.output, lambda_v, s.s);
  bar.hidden_bias = pass.sum_later(lambda_z, {n.n_blocks, n.n_features});
  bar.output_bias = pass.sum_later(lambda_v, {n.n_blocks, n.n_features});
}

template <class Scalar>
void reverse_pass(BackwardPass<Scalar>& pass) {
  const auto& [in, n, s] = std::tie(pass.in, pass.n, pass.state);
  const auto of_blocks = [&] { return pass.empty({n.n_blocks, n.n_atoms, n.n_features}); };
  const Tensor lambdas_v = of_blocks(), lambdas_z = of_blocks(), lambdas_h = of_blocks(),
               lambdas_y = of_blocks();
  pass.features_bar = at::empty_like(in.features);
  const auto lambda_of_layer = [&](std::int64_t l) {
    return l > 0 ? lambdas_v[l - 1] : pass.features_bar;
  };
  reverse_sum(pass.layers(in.features, s.x), pass.read(pass.lambda_out), pass.v.defined(),
              pass.write(lambda_of_layer(n.n_blocks)), pass.dots(), pass.stream);
  for (std::int64_t l = n.n_blocks; l-- > 0;) {
    const Block block = block_of(in, l);
    const Tensor lambda_v = lambda_of_layer(l + 1), lambda_h = lambdas_h[l];
    Tensor lambda_z = lambdas_z[l], before = lambda_of_layer(l);
    at::mm_out(lambda_z, lambda_v, block.output);
    const bool second = pass.v.defined();
    activate_backward<Scalar>(lambda_z.numel(), pass.read(lambda_z), pass.read(s.slope[l]),
                              second ? pass.read(s.z_bar[l]) : nullptr,
                              second ? pass.read(pass.z_dot[l]) : nullptr, pass.write(lambda_z),
                              {pass.weight_pointer(l + 1), pass.read(lambda_v),
                               pass.read(pass.lambda_out), pass.write(before)},
                              pass.stream);
    Tensor lambda_y = lambdas_y[l];
    at::mm_out(lambda_y, lambda_z, block.hidden);
    reverse_convolution(pass, l, lambda_y, lambda_h);
    before.addmm_(lambda_h, block.input);
  }
  if (n.n_blocks == 0) return;
  gradients_of_tables(pass, lambdas_y);
  gradients_of_blocks(pass, lambdas_v, lambdas_z, lambdas_h);
}

Gradients backward(const SchnetInput& in, const Tensor& state, const Tensor& g_bar, const Tensor& v,
                   const Tensor& out_cotangent) {
  const OnDevice device(in.features);
  Gradients to;
  with_scalar(in.features.scalar_type(), [&]<class Scalar>() {
    const SchnetSizes n = in.sizes();
    BackwardPass<Scalar> pass(in, n, device.stream(), state, g_bar, n.n_blocks > 0 ? v : Tensor());
    pass.out_cotangent = out_cotangent;
    if (pass.v.defined()) tangent_pass(pass);
    reverse_readout_pass(pass);
    reverse_pass(pass);
    add_up(pass);
    auto& [features, tables, weights, parameters] = to;
    features = pass.features_bar;
    tables = pass.tables_bar;
    weights = pass.weights_bar;
    const Block& b = pass.blocks;
    std::vector<Tensor> parts;
    for (std::int64_t l = 0; l < n.n_blocks; ++l) {
      for (const Tensor* of_blocks :
           {&b.input, &b.hidden, &b.hidden_bias, &b.output, &b.output_bias}) {
        parts.push_back(of_blocks->select(0, l));
        parameters.push_back(at::empty(parts.back().sizes(), parts.back().options()));
      }
    }
    if (!parts.empty()) at::_foreach_copy_(parameters, parts);  // no two results share their memory
    const Readout& r = pass.readout;
    for (const Tensor* gradient : {&r.hidden, &r.hidden_bias, &r.output, &r.output_bias})
      parameters.push_back(*gradient);
  });
  return to;
}

// ---- the operators

SchnetInput with_partners(SchnetInput in, const std::optional<Tensor>& partners) {
  if (!partners) return in;
  check(*partners, "partners", {partners_bytes(in.features.size(0), in.idx_j.size(0))}, at::kByte,
        in.features);
  in.partners = partners->contiguous();
  return in;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> schnet_cuda(
    SCSCHNET_NETWORK_PARAMETERS, bool derivatives, bool representation, bool keep,
    const std::optional<Tensor>& partners) {
  const SchnetInput in = with_partners(checked_input(SCSCHNET_NETWORK, derivatives), partners);
  const Outputs r = forward(in, in.sizes(), keep, false, representation);
  return {r.g, r.d_bar, r.norms, r.out, keep ? r.state : at::empty({0}, features.options())};
}

Gradients schnet_backward_cuda(const std::optional<Tensor>& g_bar, const std::optional<Tensor>& v,
                               const std::optional<Tensor>& out_bar, const Tensor& state,
                               SCSCHNET_NETWORK_PARAMETERS, bool derivatives,
                               const std::optional<Tensor>& partners) {
  const SchnetInput in = with_partners(checked_input(SCSCHNET_NETWORK, derivatives), partners);
  const Cotangents bars = checked_cotangents(in, g_bar, v, out_bar);
  return backward(in, state.contiguous(), bars.g_bar, bars.d_bar, bars.representation_bar);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> schnet_evaluate_cuda(
    SCSCHNET_NETWORK_PARAMETERS, std::int64_t n_local, bool halo, bool derivatives,
    bool corrections, const std::optional<Tensor>& packed) {
  TORCH_CHECK_VALUE(!packed, "`packed` is for CPUs only, got one on ", features.device());
  const SchnetInput in = checked_input(SCSCHNET_NETWORK, derivatives);
  const std::int64_t n_atoms = features.size(0);
  TORCH_CHECK_VALUE(n_local >= 0 && n_local <= n_atoms,
                    "`n_local` must lie between 0 and the number of atoms, ", n_atoms, ", got ",
                    n_local);
  TORCH_CHECK_VALUE(
      !halo || n_local == n_atoms || tables.size(0) < 2 ||
          (registered_halo().forward && registered_halo().reverse),
      "`n_local` is ", n_local, " of ", n_atoms,
      " atoms, so the features of the others must come from their owners between blocks, but the "
      "host has registered no halo (scschnet_set_halo)");
  SchnetSizes sizes = in.sizes();
  sizes.n_local = n_local;
  if (halo) sizes.n_computed = n_local;
  const Outputs r = forward(in, sizes, false, corrections);
  return {r.g.narrow(0, 0, n_local), r.d_bar, r.norms.narrow(1, 0, n_local),
          corrections ? r.corrections.narrow(1, 0, n_local) : r.corrections};
}

}  // namespace
}  // namespace scschnet::cuda

TORCH_LIBRARY_IMPL(scschnet, SCSCHNET_CUDA_KEY, library) {
  library.impl("schnet", scschnet::cuda::schnet_cuda);
  library.impl("schnet_backward", scschnet::cuda::schnet_backward_cuda);
  library.impl("schnet_evaluate", scschnet::cuda::schnet_evaluate_cuda);
}
