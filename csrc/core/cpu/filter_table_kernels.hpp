// The loops of filter tables that are not matrix products, which are compiled once per instruction
// set.
#pragma once

#include <cstdint>

namespace scschnet::cpu {

template <class Scalar>
struct FilterTableLoops {
  /// Replaces z by ssp(z), accurate to double precision, and writes slopes = ssp'(z).
  void (*activate)(std::int64_t n, double* z, Scalar* slopes);
  /// out[k] = taps[0] in[k] + sum_s taps[s] (in[k - s] + in[k + s]) for rows k of n features. The
  /// rows -prefilter_order .. n_rows - 1 + prefilter_order of `in` are read. `rounded` gets the
  /// same numbers in Scalar.
  void (*prefilter)(std::int64_t n_rows, std::int64_t n, const double* taps, const double* in,
                    double* out, Scalar* rounded);
  /// The same in Scalar, multiplied by `factor` element by element.
  void (*prefilter_times)(std::int64_t n_rows, std::int64_t n, const Scalar* taps, const Scalar* in,
                          const Scalar* factor, Scalar* out);
};

struct FilterTableKernels {
  FilterTableLoops<float> single_precision;
  FilterTableLoops<double> double_precision;
};

extern const FilterTableKernels filter_table_kernels_generic, filter_table_kernels_avx2,
    filter_table_kernels_avx512;

}  // namespace scschnet::cpu
