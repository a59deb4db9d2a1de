// Contract of a whole SchNet: from the features of the embedding and the pairs to the readout of
// every atom, its derivative in the distance of every pair, and the gradients of both. All passes
// are written by hand; docs/derivation.md derives them.
//
// clang-format off
//
//     out_i    = sum_l w_l v_l,i           the representation
//     g_i      = readout(out_i)            the energy of an atom, before scale and offsets
//     d_bar_ij = d(sum_i g_i) / d d_ij     both directions of the pair together
//
// clang-format on
//
// v_0 = x_0 are the features given, v_l is the correction of interaction block l, and w are the
// contribution weights (the equations of the network: scschnet/nn). With the cotangents g_bar of g,
// v of d_bar and out_cotangent of out, the backward pass gives the gradients of
//
//     sum_i g_bar_i g_i  +  sum_pairs v_ij d_bar_ij  +  sum_i out_cotangent_i . out_i
//
// The second sum is the derivative of sum_i g_i along the tangent v of the distances. So one
// tangent pass, which runs forward, and one reverse pass give all gradients, with W and W' but no
// W''.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "cfconv.hpp"

namespace scschnet {

/// The dense layers of one interaction block. Weights are (outputs, inputs), row-major. `Pointer`
/// is const Scalar* for parameters and Scalar* for their gradients.
template <class Pointer>
struct BlockParameters {
  Pointer input;        ///< W_in (n_features, n_features)
  Pointer hidden;       ///< B1 (n_features, n_features)
  Pointer hidden_bias;  ///< c1 (n_features,)
  Pointer output;       ///< B2 (n_features, n_features)
  Pointer output_bias;  ///< c2 (n_features,)
};

template <class Pointer>
struct SchnetParameters {
  Pointer features;              ///< x_0 (n_atoms, n_features)
  Pointer tables;                ///< (n_blocks, n_rows, n_features)
  Pointer contribution_weights;  ///< w (n_blocks + 1,)
  std::vector<BlockParameters<Pointer>> blocks;
  Pointer readout;              ///< C1 (n_hidden, n_features)
  Pointer readout_bias;         ///< (n_hidden,)
  Pointer readout_output;       ///< C2 (1, n_hidden)
  Pointer readout_output_bias;  ///< (1,)
  Pointer packed = nullptr;     ///< what schnet_pack made of these; if null, every pass packs anew
};

struct SchnetSizes {
  std::int64_t n_atoms;
  std::int64_t n_local;     ///< atoms 0 .. n_local - 1 count in the sum of g; the others are ghosts
  std::int64_t n_computed;  ///< atoms whose layers are computed: all, or with a halo the local ones
  std::int64_t n_pairs;     ///< in the half list
  std::int64_t n_features;
  std::int64_t n_hidden;  ///< of the readout
  std::int64_t n_blocks;
  std::int64_t n_rows;  ///< of a table
};

/// What a forward pass computes.
struct SchnetOptions {
  bool derivatives;  ///< d_bar too
  bool keep;         ///< keep everything for the backward pass; else blocks share their arrays
};

template <class Scalar>
struct SchnetOutputs {
  Scalar* g;            ///< (n_computed,)
  Scalar* d_bar;        ///< (n_pairs,), or null without derivatives
  Scalar* norms;        ///< |v_l,i| (n_blocks + 1, n_computed)
  Scalar* corrections;  ///< v_l,i (n_blocks + 1, n_computed, n_features), or null
  Scalar* out;          ///< out_i (n_computed, n_features), or null
};

/// How the rows of ghosts, which are atoms that another process owns, are kept up to date between
/// blocks. Rows are (n_atoms, n_features). Each function is called L - 1 times, by the thread that
/// runs the pass.
template <class Scalar>
struct Halo {
  std::function<void(Scalar* rows)> forward;  ///< copies the owners' rows into the ghosts'
  std::function<void(Scalar* rows)> reverse;  ///< adds the ghosts' rows to their owners'
};

/// Calls the task with each of 0 .. n - 1, on about n_threads threads, and returns when all are
/// done.
struct ParallelFor {
  int n_threads;
  std::function<void(std::int64_t n, const std::function<void(std::int64_t)>& task)> run;

  void operator()(std::int64_t n, const std::function<void(std::int64_t)>& task) const {
    run(n, task);
  }
};

namespace cpu {

/// Scalars of memory that a forward pass needs. With options.keep the backward pass reads them, so
/// the caller must keep them unchanged until then.
template <class Scalar>
std::int64_t schnet_state_size(const SchnetSizes& sizes, SchnetOptions options);

/// Scalars of memory that a backward pass needs; `derivatives`: whether cotangents v of d_bar are
/// given.
template <class Scalar>
std::int64_t schnet_scratch_size(const SchnetSizes& sizes, bool derivatives);

/// Scalars of memory for packed weights. The numbers of atoms and pairs do not matter.
template <class Scalar>
std::int64_t schnet_packed_size(const SchnetSizes& sizes);

/// Packs the weights: lays them out for matrix products with this instruction set, once for many
/// passes with the same parameters; with AMX twice, because few atoms are multiplied without it.
/// For a few atoms packing takes longer than the pass itself.
/// `packed` must be aligned to 64 bytes.
template <class Scalar>
void schnet_pack(const SchnetSizes& sizes, const SchnetParameters<const Scalar*>& parameters,
                 Scalar* packed, const ParallelFor& parallel_for, InstructionSet isa);

/// Runs the network. The results have the same bits on every run and with any number of threads;
/// different instruction sets round differently. `pairs.z` may be null without derivatives. `state`
/// must be aligned to 64 bytes.
///
/// With n_computed = n_local < n_atoms, ghosts reach one cutoff beyond the local atoms, and `halo`
/// is called between blocks. A pair of a local atom with a ghost then has the local one as center,
/// and there are no pairs of two ghosts. d_bar is then the part of this process, from the
/// convolutions of its local atoms. With n_computed = n_atoms, ghosts must reach as many cutoffs as
/// there are blocks.
template <class Scalar>
void schnet_forward(const SchnetSizes& sizes, SchnetOptions options, const HalfPairs<Scalar>& pairs,
                    const SchnetParameters<const Scalar*>& parameters,
                    const SchnetOutputs<Scalar>& outputs, Scalar* state, const Halo<Scalar>& halo,
                    const ParallelFor& parallel_for, InstructionSet isa);

/// Writes all gradients of sum_i g_bar_i g_i + sum_pairs v_ij d_bar_ij + sum_i out_cotangent_i .
/// out_i. There must be no ghosts. `state` is that of the forward pass with the same sizes, pairs,
/// parameters and `options`, in which keep was true. out_cotangent and v may be null; v must be
/// null without derivatives.
template <class Scalar>
void schnet_backward(const SchnetSizes& sizes, SchnetOptions options,
                     const HalfPairs<Scalar>& pairs,
                     const SchnetParameters<const Scalar*>& parameters, const Scalar* state,
                     const Scalar* g_bar, const Scalar* v, const Scalar* out_cotangent,
                     const SchnetParameters<Scalar*>& gradients, Scalar* scratch,
                     const ParallelFor& parallel_for, InstructionSet isa);

}  // namespace cpu
}  // namespace scschnet
