# Given TORCHLITE_DIR, the folder of a torch package: the imported targets torchlite::{c10,torch_cpu,torch} (and
# c10_cuda, torch_cuda), TORCHLITE_VERSION (2.13.0+cpu) and TORCHLITE_CUDA (13.0, or empty for a CPU build).
# Serves the build of scschnet and, installed, C++ programs.
file(READ "${TORCHLITE_DIR}/version.py" _version_py)
string(REGEX MATCH "__version__ = '([^']+)'" _ "${_version_py}")
set(TORCHLITE_VERSION "${CMAKE_MATCH_1}")
set(TORCHLITE_CUDA "")
if(_version_py MATCHES "cuda: Optional\\[str\\] = '([0-9.]+)'")
  set(TORCHLITE_CUDA "${CMAKE_MATCH_1}")
endif()

set(_libraries c10 torch_cpu torch)
if(TORCHLITE_CUDA)
  list(APPEND _libraries c10_cuda torch_cuda)
endif()
foreach(_library ${_libraries})
  if(NOT EXISTS "${TORCHLITE_DIR}/lib/lib${_library}.so")
    message(FATAL_ERROR "scschnet: ${TORCHLITE_DIR}/lib/lib${_library}.so is missing")
  endif()
  if(NOT TARGET torchlite::${_library})
    add_library(torchlite::${_library} SHARED IMPORTED)
    set_target_properties(torchlite::${_library} PROPERTIES
      IMPORTED_LOCATION "${TORCHLITE_DIR}/lib/lib${_library}.so"
      INTERFACE_SYSTEM_INCLUDE_DIRECTORIES
        "${TORCHLITE_DIR}/include;${TORCHLITE_DIR}/include/torch/csrc/api/include"
      INTERFACE_INCLUDE_DIRECTORIES
        "${TORCHLITE_DIR}/include;${TORCHLITE_DIR}/include/torch/csrc/api/include"
      INTERFACE_COMPILE_DEFINITIONS "_GLIBCXX_USE_CXX11_ABI=1"
      INTERFACE_COMPILE_FEATURES cxx_std_20)
  endif()
endforeach()
