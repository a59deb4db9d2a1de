// Operators that the package no longer calls, for exported files that do: each is a few lines
// around the operator that took its place, and returns the same bits. Nothing else belongs here.
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "schnet_input.hpp"

namespace scschnet {
namespace {

using at::Tensor;

/// The pieces of a cutoff function that files exported before version 0.2 know by its name.
Tensor named_cutoff_pieces(std::string_view name) {
  TORCH_CHECK_VALUE(name == "cosine" || name == "none",
                    "`cutoff_function` must be one of cosine, none, got ", name);
  if (name == "none") return at::ones({1, 1}, at::kDouble);
  constexpr double half_pi = 1.57079632679489661923;
  Tensor pieces = at::zeros({1, 22}, at::kDouble);  // (1 - sin(half_pi y)) / 2, Taylor's series
  double* const c = pieces.mutable_data_ptr<double>();
  c[0] = 0.5;
  double term = -0.5 * half_pi;
  for (int p = 1; p < 22; p += 2) {
    c[p] = term;
    term *= -half_pi * half_pi / ((p + 1) * (p + 2));
  }
  return pieces;
}

/// spline_weights before version 0.2: the cutoff function by its name instead of its pieces.
std::tuple<Tensor, Tensor> spline_weights_named(const Tensor& d_ij, double step, double cutoff,
                                                std::string_view cutoff_function,
                                                std::int64_t n_rows, std::int64_t n_orders,
                                                at::ScalarType dtype) {
  using Now = std::tuple<Tensor, Tensor>(const Tensor&, double, double, const Tensor&, std::int64_t,
                                         std::int64_t, at::ScalarType);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("scschnet::spline_weights", "pieces")
                             .typed<Now>();
  const Tensor pieces = named_cutoff_pieces(cutoff_function).to(d_ij.device());
  return op.call(d_ij, step, cutoff, pieces, n_rows, n_orders, dtype);
}

using Evaluated = std::tuple<Tensor, Tensor, Tensor, Tensor>;

/// schnet_evaluate of version 0.2 with packed weights, which were not optional.
Evaluated schnet_evaluate_packed(SCSCHNET_NETWORK_PARAMETERS, const Tensor& packed,
                                 c10::SymInt n_local, bool halo, bool derivatives,
                                 bool corrections) {
  using Now = Evaluated(SCSCHNET_NETWORK_PARAMETERS, c10::SymInt, bool, bool, bool,
                        const std::optional<Tensor>&);
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("scschnet::schnet_evaluate", "").typed<Now>();
  return op.call(SCSCHNET_NETWORK, std::move(n_local), halo, derivatives, corrections, packed);
}

}  // namespace
}  // namespace scschnet

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  library.def(
      "spline_weights(Tensor d_ij, float step, float cutoff, str cutoff_function, int n_rows, int "
      "n_orders, ScalarType dtype) -> (Tensor bins, Tensor weights)",
      {at::Tag::pt2_compliant_tag});
  library.def("schnet_evaluate_packed(" SCSCHNET_NETWORK_SCHEMA
              ", Tensor packed, SymInt n_local, bool halo, bool derivatives, bool corrections) -> "
              "(Tensor g, Tensor g_d, Tensor correction_norms, Tensor corrections)",
              {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(scschnet, CompositeImplicitAutograd, library) {
  library.impl("spline_weights", scschnet::spline_weights_named);
  library.impl("schnet_evaluate_packed", scschnet::schnet_evaluate_packed);
}
