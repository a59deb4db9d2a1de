// Entry of the plugin: registers pair style scschnet and its computes with the LAMMPS that it was
// compiled for, and with no other.
#include <lammps.h>

#include <cstdio>
#include <cstring>

#include "compute_scschnet_layer.hpp"
#include "compute_scschnet_uncertainty.hpp"
#include "compute_scschnet_unfamiliarity.hpp"
#include "pair_scschnet.hpp"
#include "plugin_interface.hpp"

using namespace LAMMPS_NS;

namespace {

// LAMMPS itself compares release dates, but updates of one release differ in their classes. The
// date counts where LAMMPS was not built from a git repository; in another version its place is
// unknown.
bool compiled_for(const LAMMPS& lammps) {
  const char* git = LAMMPS::git_descriptor();
  if (std::strcmp(git, SCSCHNET_LAMMPS_GIT) == 0 &&
      std::strcmp(lammps.version, SCSCHNET_LAMMPS_VERSION) == 0) {
    return true;
  }
  std::fprintf(
      stderr,
      "scschnet: the plugin was compiled for LAMMPS %s (%s), not for this one (%s), and is "
      "not loaded. Compile it anew: python -m scschnet.lammps build\n",
      SCSCHNET_LAMMPS_VERSION, SCSCHNET_LAMMPS_GIT, git);
  return false;
}

void* new_pair(void* lammps) {
  return static_cast<Pair*>(new PairScschnet(static_cast<LAMMPS*>(lammps)));
}

template <class Style>
void* new_compute(void* lammps, int n_arguments, char** arguments) {
  return static_cast<Compute*>(new Style(static_cast<LAMMPS*>(lammps), n_arguments, arguments));
}

}  // namespace

extern "C" [[gnu::visibility("default")]] void lammpsplugin_init(void* lammps, void* handle,
                                                                 void* register_plugin) {
  if (!compiled_for(*static_cast<LAMMPS*>(lammps))) return;
  const auto add = reinterpret_cast<lammpsplugin_regfunc*>(register_plugin);
  lammpsplugin_t plugin{};
  plugin.version = SCSCHNET_LAMMPS_VERSION;
  plugin.author = "The scschnet authors";
  plugin.handle = handle;

  plugin.style = "pair";
  plugin.name = "scschnet";
  plugin.info = "SchNet and sc-SchNet potentials " SCSCHNET_VERSION;
  plugin.creator.v1 = new_pair;
  add(&plugin, lammps);

  plugin.style = "compute";
  plugin.name = "scschnet/layer";
  plugin.info = "Energy of each layer per atom " SCSCHNET_VERSION;
  plugin.creator.v2 = new_compute<ComputeScschnetLayer>;
  add(&plugin, lammps);

  plugin.name = "scschnet/unfamiliarity";
  plugin.info = "How unfamiliar atoms are to the model " SCSCHNET_VERSION;
  plugin.creator.v2 = new_compute<ComputeScschnetUnfamiliarity>;
  add(&plugin, lammps);

  plugin.name = "scschnet/uncertainty";
  plugin.info = "Error bars of forces, energy and virial " SCSCHNET_VERSION;
  plugin.creator.v2 = new_compute<ComputeScschnetUncertainty>;
  add(&plugin, lammps);
}
