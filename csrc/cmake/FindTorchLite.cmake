# The PyTorch that the extension will run with, found by path. PyTorch's own CMake package is not used:
# it asks for a complete CUDA toolkit as soon as torch was built with CUDA, even for a CPU-only extension.
#
# Gives TORCHLITE_DIR and what TorchLiteTargets.cmake makes of it.
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
include("${CMAKE_CURRENT_LIST_DIR}/TorchLiteTargets.cmake")
message(STATUS "scschnet: torch ${TORCHLITE_VERSION} (CUDA '${TORCHLITE_CUDA}') at ${TORCHLITE_DIR}")
