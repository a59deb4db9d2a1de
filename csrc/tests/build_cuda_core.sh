#!/usr/bin/env bash
# Compiles test_cuda_core.cpp:
#   build_cuda_core.sh emulated PROGRAM    a program that emulates a GPU
#   build_cuda_core.sh 90 PROGRAM          one for GPUs of compute capability 9.0; needs nvcc
set -euo pipefail
kind=$1 program=$2
tests=$(cd "$(dirname "$0")" && pwd)
core=$(dirname "$tests")/core
names=(buffer cell_grid cfconv cfconv_isa images index_writer isa kernels_isa lattice list_size neighbor_list pair_geometry
  pair_geometry_isa search spline spline_isa)
sources=("${names[@]/#/$core/cpu/}")
sources=("${sources[@]/%/.cpp}")
flags=(-std=c++20 -DSCSCHNET_KERNELS=kernels_generic -o "$program")
if [ "$kind" = emulated ]; then  # vector loads must be aligned
  exec "${CXX:-c++}" "${flags[@]}" -O1 -ffp-contract=off -pthread -DSCSCHNET_EMULATE_CUDA -Wno-unknown-pragmas \
    -fsanitize=alignment -fno-sanitize-recover=all \
    "$tests/test_cuda_core.cpp" "${sources[@]}" -x c++ "$core"/cuda/*.cu
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo "#include \"$tests/test_cuda_core.cpp\"" > "$folder/test_cuda_core.cu"
"${NVCC:-nvcc}" "${flags[@]}" -O2 -lineinfo "-arch=sm_$kind" -Xcompiler=-ffp-contract=off,-pthread --threads=0 \
  "$folder/test_cuda_core.cu" "${sources[@]}" "$core"/cuda/*.cu
