// The halo that the host has registered for this thread (halo.h), for the library of operators for
// GPUs.
#pragma once

#include "halo.h"

namespace scschnet {

[[gnu::visibility("default")]] const scschnet_halo& registered_halo();

}  // namespace scschnet
