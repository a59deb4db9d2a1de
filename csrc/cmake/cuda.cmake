# The GPU side: kernels without torch, and their operators in a library of its own, which a torch without CUDA
# never loads.
#
# SCSCHNET_CUDA: AUTO builds it where torch was built with CUDA and nvcc of the same major version is there; ON
# insists; OFF leaves it out. CMAKE_CUDA_ARCHITECTURES (or the environment variable CUDAARCHS) chooses the GPUs.
set(SCSCHNET_CUDA AUTO CACHE STRING "kernels for GPUs: AUTO, ON or OFF")
set(_problem "")
if(SCSCHNET_CUDA STREQUAL "OFF")
  set(_problem "switched off")
elseif(NOT TORCHLITE_CUDA)
  set(_problem "torch ${TORCHLITE_VERSION} was built without CUDA")
else()
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(SCSCHNET_NVCC nvcc HINTS /usr/local/cuda/bin)
    if(SCSCHNET_NVCC)
      set(CMAKE_CUDA_COMPILER "${SCSCHNET_NVCC}")
    endif()
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(_problem "there is no nvcc")
  else()
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
      set(CMAKE_CUDA_ARCHITECTURES "75-real;80-real;86-real;89-real;90-real;90-virtual")
      set(_default_architectures TRUE)
    endif()
    enable_language(CUDA)
    if(_default_architectures AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
      list(INSERT CMAKE_CUDA_ARCHITECTURES 5 100-real 120-real)
    endif()
    string(REGEX MATCH "^[0-9]+" _nvcc_major "${CMAKE_CUDA_COMPILER_VERSION}")
    string(REGEX MATCH "^[0-9]+" _torch_major "${TORCHLITE_CUDA}")
    if(NOT _nvcc_major STREQUAL _torch_major)
      set(_problem "nvcc is of CUDA ${CMAKE_CUDA_COMPILER_VERSION}, torch of CUDA ${TORCHLITE_CUDA}")
    endif()
  endif()
endif()

if(_problem)
  if(SCSCHNET_CUDA STREQUAL "ON")
    message(FATAL_ERROR "scschnet: no kernels for GPUs: ${_problem}")
  endif()
  message(STATUS "scschnet: no kernels for GPUs: ${_problem}")
  return()
endif()
message(STATUS "scschnet: kernels for GPUs ${CMAKE_CUDA_ARCHITECTURES}")

# The runtime is shared: torch has loaded the same one.
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
find_package(CUDAToolkit REQUIRED)
add_library(core_cuda OBJECT
  csrc/core/cuda/activation.cu
  csrc/core/cuda/cfconv.cu
  csrc/core/cuda/column_sums.cu
  csrc/core/cuda/embedding.cu
  csrc/core/cuda/filter_table.cu
  csrc/core/cuda/loss.cu
  csrc/core/cuda/neighbor_list.cu
  csrc/core/cuda/pair_geometry.cu
  csrc/core/cuda/pairs.cu
  csrc/core/cuda/readout.cu
  csrc/core/cuda/scan.cu
  csrc/core/cuda/spline.cu
  csrc/core/cuda/table_gradient.cu
  csrc/core/cuda/training.cu)
set_target_properties(core_cuda PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON)
target_compile_options(core_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--threads=4>)

add_library(scschnet_ops_cuda SHARED
  csrc/torch/cuda/cfconv.cpp
  csrc/torch/cuda/filter_table.cpp
  csrc/torch/cuda/neighbor_list.cpp
  csrc/torch/cuda/pair_geometry.cpp
  csrc/torch/cuda/pairs.cpp
  csrc/torch/cuda/schnet.cpp
  csrc/torch/cuda/training.cpp
  $<TARGET_OBJECTS:core_cuda>)
target_link_libraries(scschnet_ops_cuda PRIVATE scschnet_ops torchlite::torch_cuda
  torchlite::torch_cpu torchlite::c10_cuda torchlite::c10 CUDA::cudart)
target_link_options(scschnet_ops_cuda PRIVATE -Wl,--no-undefined)
set_target_properties(scschnet_ops_cuda PROPERTIES
  INSTALL_RPATH "$ORIGIN;$ORIGIN/../torch/lib"
  BUILD_RPATH "${TORCHLITE_DIR}/lib")
install(TARGETS scschnet_ops_cuda LIBRARY DESTINATION scschnet)
