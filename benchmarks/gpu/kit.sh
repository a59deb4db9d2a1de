#!/usr/bin/env bash
# Makes .gpu/ in the repository's root: everything a GPU machine without a network needs to run benchmarks/gpu/first_run.py
# (torch 2.11.0+cu130 and Python 3.12 are there). Needs nvcc of CUDA 13 and Python 3.12. About five minutes on two cores; again
# after a change in csrc/: one minute or two less.
#   DATA=FOLDER_OF_qm9.npz bash benchmarks/gpu/kit.sh
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
python=$(command -v python3.12 || true)
if command -v pyenv >/dev/null; then python=$(ls -d "$(pyenv root)"/versions/3.12*/bin/python | tail -n 1); fi
"$python" -c 'import sys; assert sys.version_info[:2] == (3, 12)' || { echo "Python 3.12 is needed"; exit 1; }
cache=${XDG_CACHE_HOME:-$HOME/.cache}/scschnet-gpu-kit
mkdir -p .gpu/wheels "$cache"
export PIP_CONSTRAINT=
if [ ! -d "$cache/torch/torch" ]; then
  "$python" -m pip download -q --no-deps --only-binary=:all: -d "$cache" torch==2.11.0
  mkdir -p "$cache/torch"; unzip -q "$cache"/torch-2.11*.whl -d "$cache/torch"
fi
[ -d "$cache/build" ] || { "$python" -m venv "$cache/build"; "$cache/build/bin/python" -m pip install -q scikit-build-core pybind11 cmake ninja; }
rm -f .gpu/wheels/scschnet-*.whl
PATH=$cache/build/bin:$PATH SCSCHNET_TORCH_DIR=$cache/torch/torch CUDAARCHS=90 \
  "$cache/build/bin/python" -m pip wheel -q --no-build-isolation --no-deps -w .gpu/wheels .
for p in ase tyro docstring-parser typeguard tomli-w; do
  ls .gpu/wheels | grep -qi "^${p//-/_}-" || "$python" -m pip download -q --no-deps --only-binary=:all: -d .gpu/wheels "$p"
done
bash csrc/tests/build_cuda_core.sh 90 .gpu/test_cuda_core
[ -f .gpu/qm9.npz ] || cp "${DATA:-data}/qm9.npz" .gpu/
du -sh .gpu; ls .gpu/wheels
