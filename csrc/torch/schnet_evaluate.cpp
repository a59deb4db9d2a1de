// The operator scschnet::schnet_evaluate: a whole network for programs that run one, with ghost
// atoms, whose features the host may exchange between blocks (halo.h); not differentiable.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>

#include "halo.h"
#include "memory_pool.hpp"
#include "meta.hpp"
#include "pairs.hpp"
#include "registered_halo.hpp"
#include "schnet_input.hpp"

namespace scschnet {
namespace {

using at::Tensor;
using at::TensorList;

thread_local scschnet_halo registered{nullptr, nullptr, nullptr};

template <class Scalar>
Halo<Scalar> halo_of_host(std::int64_t width) {
  const auto call = [width](void (*function)(void*, void*, std::int64_t, int)) {
    return [=, context = registered.context](Scalar* rows) {
      function(context, rows, width, sizeof(Scalar) == sizeof(double));
    };
  };
  return {call(registered.forward), call(registered.reverse)};
}

using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <class Scalar>
void run(const SchnetInput& in, const Tensor* packed, const SchnetSizes& sizes, const Outputs& to) {
  const auto& [g, d_bar, norms, corrections] = to;
  const SchnetOptions options{in.derivatives, false};
  const Tensor state =
      pooled_empty({cpu::schnet_state_size<Scalar>(sizes, options)}, in.features.options());
  const bool with_corrections = corrections.numel() > 0;
  const SchnetOutputs<Scalar> outputs{
      g.mutable_data_ptr<Scalar>(), in.derivatives ? d_bar.mutable_data_ptr<Scalar>() : nullptr,
      norms.mutable_data_ptr<Scalar>(),
      with_corrections ? corrections.mutable_data_ptr<Scalar>() : nullptr, nullptr};
  auto parameters = parameters_of<Scalar>(in);
  if (packed) parameters.packed = packed->const_data_ptr<Scalar>();
  cpu::schnet_forward<Scalar>(
      sizes, options, pairs_of<Scalar>(in), parameters, outputs, state.mutable_data_ptr<Scalar>(),
      halo_of_host<Scalar>(sizes.n_features), torch_threads(sizes), best_instruction_set());
}

/// With a halo pairs must have local centers, which the kernels do not check.
void check_ghosts(const SchnetInput& in, std::int64_t n_local, bool halo) {
  const std::int64_t n_atoms = in.features.size(0);
  TORCH_CHECK_VALUE(n_local >= 0 && n_local <= n_atoms,
                    "`n_local` must lie between 0 and the number of atoms, ", n_atoms, ", got ",
                    n_local);
  if (!halo || n_local == n_atoms) return;
  TORCH_CHECK_VALUE(
      in.tables.size(0) < 2 || (registered.forward && registered.reverse), "`n_local` is ", n_local,
      " of ", n_atoms,
      " atoms, so the features of the others must come from their owners between blocks, but the "
      "host has registered no halo (scschnet_set_halo)");
  TORCH_CHECK_VALUE(in.row_ptr.const_data_ptr<std::int64_t>()[n_local] == in.idx_j.size(0),
                    "`row_ptr` must give pairs to local atoms only: a pair with a ghost has the "
                    "local atom as center");
}

Outputs evaluate(const SchnetInput& in, const Tensor* packed, std::int64_t n_local, bool halo,
                 bool corrections) {
  check_ghosts(in, n_local, halo);
  SchnetSizes sizes = in.sizes();
  sizes.n_local = n_local;
  if (halo) sizes.n_computed = n_local;
  const auto options = in.features.options();
  const std::int64_t n = sizes.n_computed, n_layers = sizes.n_blocks + 1;
  const Outputs to{at::empty({n}, options),
                   at::empty({in.derivatives ? sizes.n_pairs : 0}, options),
                   at::empty({n_layers, n}, options),
                   corrections ? at::empty({n_layers, n, sizes.n_features}, options)
                               : at::empty({0, 0, 0}, options)};
  if (in.features.scalar_type() == at::kDouble) {
    run<double>(in, packed, sizes, to);
  } else {
    run<float>(in, packed, sizes, to);
  }
  if (n_local == n) return to;  // a view costs as much as a tenth of a small molecule's pass
  const auto& [g, d_bar, norms, v] = to;
  return {g.narrow(0, 0, n_local), d_bar, norms.narrow(1, 0, n_local),
          corrections ? v.narrow(1, 0, n_local) : v};
}

Outputs schnet_evaluate_cpu(SCSCHNET_NETWORK_PARAMETERS, std::int64_t n_local, bool halo,
                            bool derivatives, bool corrections,
                            const std::optional<Tensor>& packed) {
  const SchnetInput in = checked_input(SCSCHNET_NETWORK, derivatives);
  if (packed) check_packed(in, *packed);
  return evaluate(in, packed ? &*packed : nullptr, n_local, halo, corrections);
}

Outputs schnet_evaluate_meta(SCSCHNET_NETWORK_PARAMETERS, c10::SymInt n_local, bool,
                             bool derivatives, bool corrections, const std::optional<Tensor>&) {
  check_number_of_parameters(parameters, tables.sym_size(0));
  const auto options = on_meta(features);
  // Before the results are made: with GCC 12 an exception between them leaves half a list of sizes
  // behind, which is destroyed all the same.
  const auto n_layers = contribution_weights.sym_size(0), n_features = features.sym_size(1),
             n_pairs = derivatives ? idx_j.sym_size(0) : c10::SymInt(0);
  TORCH_CHECK_VALUE(n_local >= 0, "`n_local` must not be negative, got ", n_local);
  return {at::empty_symint({n_local}, options), at::empty_symint({n_pairs}, options),
          at::empty_symint({n_layers, n_local}, options),
          corrections ? at::empty_symint({n_layers, n_local, n_features}, options)
                      : at::empty({0, 0, 0}, options)};
}

}  // namespace
}  // namespace scschnet

namespace scschnet {

const scschnet_halo& registered_halo() {
  return registered;
}

}  // namespace scschnet

void scschnet_set_halo(const scschnet_halo* halo) {
  scschnet::registered = halo ? *halo : scschnet_halo{nullptr, nullptr, nullptr};
}

TORCH_LIBRARY_FRAGMENT(scschnet, library) {
  const auto define = [&library](const std::string& schema) {
    library.def(schema.c_str(), {at::Tag::pt2_compliant_tag});
  };
  define("schnet_evaluate(" SCSCHNET_NETWORK_SCHEMA
         ", SymInt n_local, bool halo, bool derivatives, bool corrections, Tensor? packed=None) -> "
         "(Tensor g, Tensor g_d, Tensor correction_norms, Tensor corrections)");
}

TORCH_LIBRARY_IMPL(scschnet, CPU, library) {
  library.impl("schnet_evaluate", scschnet::schnet_evaluate_cpu);
}

TORCH_LIBRARY_IMPL(scschnet, Meta, library) {
  library.impl("schnet_evaluate", scschnet::schnet_evaluate_meta);
}
