# The PyTorch that the extension will run with, found by path. PyTorch's own CMake package is not used:
# it asks for a complete CUDA toolkit as soon as torch was built with CUDA, even for a CPU-only extension.
#
# Gives the imported targets torchlite::{c10,torch_cpu,torch} (and c10_cuda, torch_cuda), and
#   TORCHLITE_DIR  TORCHLITE_VERSION (2.13.0+cpu)  TORCHLITE_CUDA (13.0, or empty for a CPU build)
# Searched in order: -DSCSCHNET_TORCH_DIR, the environment variable, torch_provider.py.
if(NOT SCSCHNET_TORCH_DIR AND DEFINED ENV{SCSCHNET_TORCH_DIR})
  set(SCSCHNET_TORCH_DIR "$ENV{SCSCHNET_TORCH_DIR}")
endif()
if(NOT SCSCHNET_TORCH_DIR)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/torch_provider.py"
    OUTPUT_VARIABLE SCSCHNET_TORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _result)
  if(NOT _result EQUAL 0 OR SCSCHNET_TORCH_DIR STREQUAL "")
    message(FATAL_ERROR
      "scschnet: no PyTorch found for ${Python_EXECUTABLE}. Install it first (pip install torch), "
      "or set SCSCHNET_TORCH_DIR=/path/to/site-packages/torch.")
  endif()
endif()
set(TORCHLITE_DIR "${SCSCHNET_TORCH_DIR}")
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
  add_library(torchlite::${_library} SHARED IMPORTED)
  set_target_properties(torchlite::${_library} PROPERTIES
    IMPORTED_LOCATION "${TORCHLITE_DIR}/lib/lib${_library}.so"
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES
      "${TORCHLITE_DIR}/include;${TORCHLITE_DIR}/include/torch/csrc/api/include"
    INTERFACE_INCLUDE_DIRECTORIES
      "${TORCHLITE_DIR}/include;${TORCHLITE_DIR}/include/torch/csrc/api/include"
    INTERFACE_COMPILE_DEFINITIONS "_GLIBCXX_USE_CXX11_ABI=1"
    INTERFACE_COMPILE_FEATURES cxx_std_20)
endforeach()
message(STATUS "scschnet: torch ${TORCHLITE_VERSION} (CUDA '${TORCHLITE_CUDA}') at ${TORCHLITE_DIR}")
