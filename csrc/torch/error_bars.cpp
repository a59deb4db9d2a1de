// The operators scschnet::trial_sizes, how asymmetric the surroundings of atoms are, in one pass
// over the pairs, and scschnet::error_bars, which reads them, in one pass over the atoms. In plain
// torch, where the equations are: scschnet/nn/error_bars.py.
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <vector>

#include "../core/pair_geometry.hpp"
#include "meta.hpp"
#include "pairs.hpp"

namespace scschnet {
namespace {

using at::Tensor;

constexpr int n_powers = cpu::n_trial_powers, n_sums = 3 * n_powers;
constexpr double smallest = 1e-4;

void check(const Tensor& tensor, const char* name, at::IntArrayRef sizes, at::ScalarType dtype) {
  TORCH_CHECK_VALUE(tensor.sizes() == sizes, "`", name, "` must have shape ", sizes, ", got ",
                    tensor.sizes());
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, "`", name, "` must be ", dtype, ", got ",
                   tensor.scalar_type());
}

Tensor trial_sizes_cpu(const Tensor& r_ij, const Tensor& d_ij, const Tensor& row_ptr,
                       const Tensor& idx_j, double reach) {
  const std::int64_t n_pairs = d_ij.numel(), n_atoms = row_ptr.numel() - 1;
  check(d_ij, "d_ij", {n_pairs}, at::kDouble);
  check(r_ij, "r_ij", {n_pairs, 3}, at::kDouble);
  TORCH_CHECK_VALUE(n_atoms >= 0,
                    "`row_ptr` must have a number more than there are atoms, got none");
  check(row_ptr, "row_ptr", {n_atoms + 1}, at::kLong);
  check(idx_j, "idx_j", {n_pairs}, at::kLong);
  TORCH_CHECK_VALUE(reach > 0 && std::isfinite(reach), "`reach` must be positive, got ", reach);
  const Tensor r = r_ij.contiguous(), d = d_ij.contiguous(), rows = row_ptr.contiguous(),
               j = idx_j.contiguous();
  check_range(j, "idx_j", n_atoms);
  check_rows(rows, n_pairs);
  std::vector<double> sums(static_cast<std::size_t>(n_sums * n_atoms));
  const DirectedPairs pairs{n_atoms,
                            rows.const_data_ptr<std::int64_t>(),
                            j.const_data_ptr<std::int64_t>(),
                            r.const_data_ptr<double>(),
                            d.const_data_ptr<double>(),
                            nullptr};
  cpu::trial_forces(pairs, reach, sums.data());
  Tensor sizes = at::empty({n_atoms, n_powers}, d.options());
  auto* to = sizes.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < n_atoms; ++i) {
    for (int k = 0; k < n_powers; ++k) {
      double square = 0;
      for (int a = 0; a < 3; ++a) {
        const double t = sums[n_sums * i + n_powers * a + k];
        square += t * t;
      }
      const double size = std::sqrt(square);
      to[n_powers * i + k] = size < smallest ? smallest : size;  // a NaN passes
    }
  }
  return sizes;
}

// ---- the error bars

/// What does not change with the structure; see ErrorBars in scschnet/nn/error_bars.py.
struct Statistics {
  Tensor rows;  ///< (n_z,) int64, an element's place in `matrix`
  Tensor
      of_elements;  ///< (3, n_z): infinity for an unknown element, else 0; offset; ln of a quantile
  Tensor matrix;    ///< (n_features, n_columns): whitening of all elements, energy, beta
  Tensor bias;      ///< (n_columns,)
  Tensor trial;     ///< (n_powers,)
  double slope, low, high;
};

struct Bars {
  Tensor energy, energies, forces, deviations;
};

/// In eight sums, so that no addition waits for the one before.
double length(std::int64_t n, const double* x) {
  constexpr std::int64_t n_sums = 8;
  double squares[n_sums] = {};
  std::int64_t f = 0;
  for (; f + n_sums <= n; f += n_sums) {
    for (std::int64_t k = 0; k < n_sums; ++k) squares[k] += x[f + k] * x[f + k];
  }
  for (; f < n; ++f) squares[f % n_sums] += x[f] * x[f];
  return std::sqrt(std::accumulate(squares, squares + n_sums, 0.0));
}

/// ln s_i, without the element's offset.
double log_size(const Statistics& s, double distance, double log_quantile, double linear,
                const double* trial_size) {
  double bracket = linear;
  for (int k = 0; k < n_powers; ++k) {
    bracket += s.trial.const_data_ptr<double>()[k] * std::log(trial_size[k]);
  }
  bracket = bracket < s.low ? s.low : bracket > s.high ? s.high : bracket;  // a NaN passes
  const double log_d = std::log(distance + 1e-12);
  const double beyond = log_d - log_quantile;
  return bracket + s.slope * log_d + std::max(0.0, 1 - s.slope) * (beyond < 0 ? 0.0 : beyond);
}

/// x_out = sum_l w_l v_l of the atoms begin .. begin + n - 1, added up in the dtype of the network.
template <class Scalar>
void combine(const Tensor& corrections, const Tensor& weights, std::int64_t begin, std::int64_t n,
             double* x_out) {
  const std::int64_t n_layers = corrections.size(0), f = corrections.size(2), count = n * f,
                     layer = corrections.size(1) * f;
  const Scalar *v = corrections.const_data_ptr<Scalar>() + begin * f,
               *w = weights.const_data_ptr<Scalar>();
  std::vector<Scalar> sum(static_cast<std::size_t>(count));
  for (std::int64_t l = 0; l < n_layers; ++l) {
    for (std::int64_t k = 0; k < count; ++k) sum[k] += w[l] * v[l * layer + k];
  }
  std::copy(sum.begin(), sum.end(), x_out);
}

/// Blocks of atoms go through the matrix product one by one, so that what it gives stays in a
/// cache.
void fill_bars(const Statistics& s, const Tensor& corrections, const Tensor& weights,
               const std::int64_t* z, const double* trial_sizes, const Bars& to) {
  constexpr std::int64_t block = 128;
  const std::int64_t n_atoms = corrections.size(1), f = corrections.size(2),
                     n_columns = s.bias.numel(), n_z = s.rows.numel();
  const auto* row = s.rows.const_data_ptr<std::int64_t>();
  const auto* of_elements = s.of_elements.const_data_ptr<double>();
  const std::int64_t n_rows = std::min(block, n_atoms);
  const Tensor memory = at::empty({n_rows, n_columns}, s.matrix.options());
  const Tensor x_out = at::empty({n_rows, f}, s.matrix.options());
  auto *energies = to.energies.mutable_data_ptr<double>(),
       *forces = to.forces.mutable_data_ptr<double>(),
       *of_all = to.deviations.mutable_data_ptr<double>();
  double unknown = 0;
  for (std::int64_t begin = 0; begin < n_atoms; begin += block) {
    const std::int64_t n = std::min(block, n_atoms - begin);
    Tensor found = memory.narrow(0, 0, n);
    if (corrections.scalar_type() == at::kDouble) {
      combine<double>(corrections, weights, begin, n, x_out.mutable_data_ptr<double>());
    } else {
      combine<float>(corrections, weights, begin, n, x_out.mutable_data_ptr<double>());
    }
    at::addmm_out(found, s.bias, x_out.narrow(0, 0, n), s.matrix);
    const auto* of_atom = found.const_data_ptr<double>();
    for (std::int64_t i = begin; i < begin + n; ++i, of_atom += n_columns) {
      const double* features = of_atom + n_columns - 1 - f;
      const double distance = length(f, of_atom + row[z[i]] * f);
      const double log_s = log_size(s, distance, of_elements[2 * n_z + z[i]], features[f],
                                    trial_sizes + n_powers * i);
      forces[i] = std::exp(of_elements[n_z + z[i]] + log_s);
      energies[i] = length(f, features) + of_elements[z[i]];
      unknown += of_elements[z[i]];
      for (std::int64_t k = 0; k < f; ++k) of_all[k] += features[k];
    }
  }
  to.energy.fill_(length(f, of_all) + unknown);
  to.deviations.mul_(std::sqrt(static_cast<double>(f)));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> error_bars_cpu(
    const Tensor& corrections, const Tensor& contribution_weights, const Tensor& atomic_numbers,
    const Tensor& trial_sizes, const Tensor& rows, const Tensor& of_elements, const Tensor& matrix,
    const Tensor& bias, const Tensor& trial, double slope, double low, double high) {
  TORCH_CHECK_VALUE(corrections.dim() == 3,
                    "`corrections` must have shape (n_layers, n_atoms, n_features), got ",
                    corrections.sizes());
  const auto dtype = corrections.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kDouble,
                   "`corrections` must be float32 or float64, got ", dtype);
  const std::int64_t n_atoms = corrections.size(1), f = corrections.size(2), n_z = rows.numel(),
                     n_columns = bias.numel();
  check(contribution_weights, "contribution_weights", {corrections.size(0)}, dtype);
  check(atomic_numbers, "atomic_numbers", {n_atoms}, at::kLong);
  check(trial_sizes, "trial_sizes", {n_atoms, n_powers}, at::kDouble);
  check(rows, "rows", {n_z}, at::kLong);
  check(of_elements, "of_elements", {3, n_z}, at::kDouble);
  check(bias, "bias", {n_columns}, at::kDouble);
  check(matrix, "matrix", {f, n_columns}, at::kDouble);
  check(trial, "trial", {n_powers}, at::kDouble);
  TORCH_CHECK_VALUE(n_columns > f, "`bias` must have more than ", f, " numbers, got ", n_columns);
  const Tensor z = atomic_numbers.contiguous(), sizes = trial_sizes.contiguous();
  const Statistics statistics{rows.contiguous(),
                              of_elements.contiguous(),
                              matrix.contiguous(),
                              bias.contiguous(),
                              trial.contiguous(),
                              slope,
                              low,
                              high};
  check_range(z, "atomic_numbers", n_z);
  check_range(statistics.rows, "rows", f > 0 ? (n_columns - f - 1) / f : 1);
  const auto options = matrix.options();
  const Bars bars{at::empty({}, options), at::empty({n_atoms}, options),
                  at::empty({n_atoms}, options), at::zeros({f}, options)};
  fill_bars(statistics, corrections.contiguous(), contribution_weights.contiguous(),
            z.const_data_ptr<std::int64_t>(), sizes.const_data_ptr<double>(), bars);
  return {bars.energy, bars.energies, bars.forces, bars.deviations};
}

// ---- shapes alone

Tensor trial_sizes_meta(const Tensor&, const Tensor& d_ij, const Tensor& row_ptr, const Tensor&,
                        double) {
  return at::empty_symint({row_ptr.sym_size(0) - 1, n_powers}, on_meta(d_ij));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> error_bars_meta(const Tensor& corrections, const Tensor&,
                                                           const Tensor&, const Tensor&,
                                                           const Tensor&, const Tensor&,
                                                           const Tensor& matrix, const Tensor&,
                                                           const Tensor&, double, double, double) {
  const auto options = on_meta(matrix);
  const auto n_atoms = corrections.sym_size(1), n_features = corrections.sym_size(2);
  return {at::empty({}, options), at::empty_symint({n_atoms}, options),
          at::empty_symint({n_atoms}, options), at::empty_symint({n_features}, options)};
}

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  library.def(
      "error_bars(Tensor corrections, Tensor contribution_weights, Tensor atomic_numbers, Tensor "
      "trial_sizes, Tensor rows, Tensor "
      "of_elements, Tensor matrix, Tensor bias, Tensor trial, float slope, float low, float high) "
      "-> (Tensor energy_std, Tensor energies_std, Tensor forces_std, Tensor energy_deviations)",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "trial_sizes(Tensor r_ij, Tensor d_ij, Tensor row_ptr, Tensor idx_j, float reach) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("error_bars", error_bars_cpu);
  library.impl("trial_sizes", trial_sizes_cpu);
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("error_bars", error_bars_meta);
  library.impl("trial_sizes", trial_sizes_meta);
}

}  // namespace
}  // namespace scschnet
