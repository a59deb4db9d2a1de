"""The CUDA sources on machines without a GPU: an emulator runs the kernels, nvcc compiles them if it is there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CSRC = Path(__file__).parents[2] / "csrc"
KERNELS = sorted((CSRC / "core/cuda").glob("*.cu"))
BINDINGS = sorted((CSRC / "torch/cuda").glob("*.cpp"))
BUILD_CORE = CSRC / "tests/build_cuda_core.sh"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


def compiler(name: str, *places: str) -> str:
    found = shutil.which(name) or next((p for p in places if os.access(p, os.X_OK)), None)
    if found is None:
        pytest.skip(f"no {name}")
    return found


def cuda_headers() -> Path:
    for folder in (os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"):
        if folder and (Path(folder) / "include/cuda_runtime_api.h").is_file():
            return Path(folder) / "include"
    pytest.skip("no CUDA headers")


@pytest.mark.slow
def test_kernels_agree_with_the_cpu_in_an_emulator(tmp_path):
    """csrc/tests/test_cuda_core.cpp: the sources of the kernels, with every thread a fiber."""
    program = tmp_path / "test_cuda_core"
    environment = os.environ | {"CXX": compiler("c++")}
    subprocess.run([BUILD_CORE, "emulated", program], check=True, env=environment)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "cuda core: ok"


@pytest.mark.slow
def test_the_program_for_devices_says_where_there_is_none(tmp_path):
    """The same file compiled by nvcc; where a GPU is, it runs there."""
    program = tmp_path / "test_cuda_core"
    environment = os.environ | {"NVCC": compiler("nvcc", "/usr/local/cuda/bin/nvcc")}
    subprocess.run([BUILD_CORE, "90", program], check=True, env=environment)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    if torch.cuda.is_available():
        assert (result.returncode, result.stdout.strip()) == (0, "cuda core: ok"), result.stderr
    else:
        assert result.returncode == 77
        assert result.stdout.startswith("cuda core: not run, there is no CUDA device: ")


@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.stem)
def test_shared_memory_is_all_dynamic_or_all_static(source):
    """What a plan asks for is then all that a block needs: the emulator holds it against the device's limit."""
    included = (source.with_suffix(".cuh"), source)
    text = "".join(path.read_text() for path in included if path.exists())
    assert not ("SCSCHNET_DYNAMIC_SHARED(" in text and "__shared__" in text)


@pytest.mark.slow
@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.stem)
def test_kernels_compile_for_every_architecture(source, tmp_path):
    nvcc = compiler("nvcc", "/usr/local/cuda/bin/nvcc")
    listed = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True)
    codes = [f"sm_{n}" for n in ARCHITECTURES if f"sm_{n}" in listed.stdout.split()]
    # One front end for all: the sources do not ask for the architecture.
    target = f"arch=compute_75,code=[{','.join([*codes, 'compute_75'])}]"
    command = [nvcc, "-std=c++20", "-fatbin", "-O1", "-Xptxas=-O1", "-Werror=all-warnings"]
    command += ["-gencode", target]
    output = tmp_path / "kernels.fatbin"
    result = subprocess.run(
        [*command, str(source), "-o", str(output)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert output.stat().st_size > 1000


@pytest.mark.slow
def test_operators_are_well_formed(tmp_path):
    """Against the headers of the torch at hand; one of its generated headers is in CUDA builds only."""
    cxx, headers = compiler("c++"), cuda_headers()
    include = Path(torch.__file__).parent / "include"
    generated = tmp_path / "c10/cuda/impl/cuda_cmake_macros.h"
    generated.parent.mkdir(parents=True)
    generated.write_text("#pragma once\n#define C10_CUDA_BUILD_SHARED_LIBS\n")
    together = tmp_path / "operators.cpp"  # torch's headers are read once
    together.write_text("".join(f'#include "{source}"\n' for source in BINDINGS))
    command = [cxx, "-std=c++20", "-fsyntax-only", "-w", "-isystem", str(include), str(together)]
    command += ["-isystem", str(include / "torch/csrc/api/include"), "-isystem", str(headers)]
    command += ["-isystem", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_cuda_source_is_built():
    listed = (CSRC / "cmake/cuda.cmake").read_text()
    for source in [*KERNELS, *BINDINGS]:
        assert str(source.relative_to(CSRC.parent)) in listed


HOT = {
    "cfconv": [
        "convolve<float, 4",
        "convolve_back<float, 4",
        "convolve_tangent<float, 4",
        "multiply_pairs<float, 4",
    ],
    "column_sums": ["sum_stretches_of_rows<", "add_stretches_of_rows<"],
    "embedding": ["add_atoms<float"],
    "loss": ["add_squares", "add_energies<float"],
    "neighbor_list": ["count_rows<", "fill_rows<"],
    "pairs": ["count_by_bin", "deal_by_bin"],
    "readout": ["read_rows<float", "reverse_rows<float"],
    "spline": ["weigh<double, float"],
    "table_gradient": ["sum_stretches<float"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOT)
def test_hot_kernels_do_not_spill(name):
    compiler("nvcc", "/usr/local/cuda/bin/nvcc")
    sys.path.insert(0, str(CSRC.parent / "benchmarks/gpu"))
    from kernel_table import kernels_of

    kernels = kernels_of(CSRC / f"core/cuda/{name}.cu", 90)
    for start in HOT[name]:
        found = [kernel for kernel in kernels if kernel.name.startswith(start)]
        assert found, f"{start} is not among {[kernel.name for kernel in kernels]}"
        for kernel in found:
            assert kernel.spills == 0, kernel
            assert kernel.stack < 128, kernel  # weights keep nine numbers there, and sines theirs
