// Contract of what lies between the network and its gradient in a training step on a GPU: sums over
// structures, and the mean square errors with their derivatives. Sums have a fixed order.
#pragma once

#include <cstdint>

#include "stream.hpp"

namespace scschnet::cuda {

/// Offsets of the energies of atoms, on the device; shift and scale are one number each.
struct EnergyTerms {
  const double *scale, *shift;
  const double* atomref;  ///< by atomic number
};

/// energies[m] = sum over the atoms of structure m of g scale + shift + atomref[Z], written:
/// (n_structures,). The structures' atoms follow each other, sizes (n_structures,) of them each.
template <class Scalar>
void sum_energies(std::int64_t n_structures, const std::int64_t* sizes,
                  const std::int64_t* atomic_numbers, const Scalar* g, const EnergyTerms& terms,
                  double* energies, Stream stream);

/// g_bar[i] = scale energies_bar[idx_m[i]], written: (n_atoms,); zero where idx_m is n_structures.
template <class Scalar>
void sum_energies_backward(std::int64_t n_atoms, std::int64_t n_structures,
                           const std::int64_t* idx_m, const double* scale,
                           const double* energies_bar, Scalar* g_bar, Stream stream);

/// A quantity that a model is trained on, with its labels; NaN: no label.
struct Labeled {
  std::int64_t n_rows;  ///< zero: not trained on
  std::int64_t n_columns;
  const double *values, *labels;  ///< (n_rows, n_columns)
  double* bar;                    ///< (n_rows, n_columns) derivative of the loss, written
  double factor;                  ///< weight of the quantity over the number of columns
};

/// What the loss of ../../../scschnet/train/loss.py counts.
struct SquaredErrors {
  Labeled energy, forces, stress;  ///< rows are structures, atoms, structures
  std::int64_t n_structures;       ///< in the arrays below
  const std::int64_t* sizes;       ///< (n_structures,) atoms of each
  const double* volumes;           ///< (n_structures,) not positive or NaN: there is no stress
  const std::int64_t* idx_m;       ///< (n_atoms,) structure of an atom
  const double* weights;           ///< of their squares, for every number in idx_m; null: all one
  const double *all_structures, *all_atoms;  ///< one number each: what means are taken over
  bool per_atom;  ///< errors of E / n and V sigma / n instead of E and sigma
};

/// loss = sum over quantities of factor / (all_structures or all_atoms) sum of weighted squares.
void squared_errors(const SquaredErrors& errors, double* loss, Stream stream);

/// means[l] = sum of norms[l, i] over the atoms with idx_m[i] < n_structures, over all_atoms[0];
/// written: (n_layers,). norms (n_layers, n_atoms).
template <class Scalar>
void mean_norms(std::int64_t n_layers, std::int64_t n_atoms, std::int64_t n_structures,
                const std::int64_t* idx_m, const Scalar* norms, const double* all_atoms,
                double* means, Stream stream);

}  // namespace scschnet::cuda
