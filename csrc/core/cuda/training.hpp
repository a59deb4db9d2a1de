// What a training step on a GPU needs around its network: gathering a batch from structures that
// lie in the GPU's memory, and recording loss, norms and counts of the step there. The host is not
// involved, and few kernels are launched.
#pragma once

#include <cstdint>

#include "stream.hpp"

namespace scschnet::cuda {

/// All structures, flat, with one row more than there are structures, atoms and pairs: padding.
struct ResidentArrays {
  std::int64_t n_atoms, n_pairs;   ///< without that row
  const std::int64_t* structures;  ///< (n_structures + 1, 4): first atom, atoms, first pair, pairs
  const double* positions;         ///< (n_atoms + 1, 3)
  const std::int64_t* atoms;       ///< (n_atoms + 1, 2): atomic number, first pair in its structure
  const std::int32_t* pairs;       ///< (n_pairs + 1, 5): i, j within the structure, shift
};

/// Numbers that go with structures or with atoms, a row for each: all of them, padding included,
/// and those of a batch.
struct Rows {
  const double* from;  ///< (n + 1, n_columns)
  double* to;          ///< (n_structures + 1 or n_atoms, n_columns)
  std::int64_t n_columns;
};

constexpr std::size_t most_rows = 6;  ///< arrays that go with structures, or with atoms

/// A batch with room for n_atoms and n_pairs.
struct PaddedArrays {
  std::int64_t n_structures, n_atoms, n_pairs;
  std::int64_t* chosen;   ///< (n_structures + 1,) the structures; last the one of the padding
  std::int64_t* sizes;    ///< (n_structures,)
  std::int64_t* sources;  ///< (n_atoms,) where the atoms stand in the flat arrays
  std::int64_t* idx_m;    ///< (n_atoms,) n_structures for padding
  double* positions;      ///< (n_atoms, 3)
  std::int64_t* atomic_numbers;  ///< (n_atoms,)
  std::int64_t* row_ptr;         ///< (n_atoms + 1,) rows end before the padding pairs
  std::int64_t *idx_i, *idx_j;   ///< (n_pairs,)
  std::int32_t* shifts;          ///< (n_pairs, 3)
  Rows of_structures[most_rows], of_atoms[most_rows];
  std::size_t n_of_structures, n_of_atoms;  ///< how many of these there are
};

std::int64_t gather_scratch_bytes(std::int64_t n_structures);

/// Lays the structures order[step[0]] (n_structures + 1 numbers) end to end. They must fit; what
/// does not is left out.
void gather_batch(const std::int64_t* order, const std::int64_t* step, const ResidentArrays& from,
                  const PaddedArrays& to, void* scratch, Stream stream);

/// The row step[0] of plan (n_steps, 3): learning rate, structures and atoms of the whole batch;
/// one number each.
template <class Scalar>
void begin_step(const double* plan, const std::int64_t* step, Scalar* rate, double* n_structures,
                double* n_atoms, Stream stream);

/// What steps leave for each other and for the host.
struct StepRecord {
  std::int64_t* counts;  ///< (3,) step of the epoch, steps in all, norms of gradients so far
  double* history;       ///< (n_kept,) norm k lies at k mod n_kept
  double* sums;          ///< (3, n_layers) of norms, normalized weights and their squares
  double* totals;        ///< (4,) sum of losses; failed step or -1, its loss, its norm
  double* factors;  ///< (2,) of the gradient, by clipping; weight of the moving average's update
  std::int64_t n_kept, n_layers;
};

constexpr std::int64_t most_kept_norms = 256;

/// Records a step: clips the gradient at `clip` times the median of the norms before (0: never),
/// adds loss and norms to their sums, and counts.
/// loss, n_structures (), norms (n_layers,) float64; gradient_norm (), weights (n_layers,).
template <class Scalar>
void record_step(const Scalar* gradient_norm, const double* loss, const double* n_structures,
                 const double* norms, const Scalar* weights, double clip, double decay,
                 const StepRecord& record, Stream stream);

}  // namespace scschnet::cuda
