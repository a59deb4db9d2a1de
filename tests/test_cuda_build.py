"""The CUDA sources on machines without a GPU: an emulator runs the kernels, nvcc compiles them if it is there."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

CSRC = Path(__file__).parents[1] / "csrc"
KERNELS = sorted((CSRC / "core/cuda").glob("*.cu"))
BINDINGS = sorted((CSRC / "torch/cuda").glob("*.cpp"))
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
    cxx = compiler("c++")
    core = CSRC / "core/cpu"
    isas = ["kernels_isa", "cfconv_isa", "spline_isa"]
    names = ["buffer", "cell_grid", "cfconv", "images", "index_writer", "isa", "lattice"]
    names += ["list_size", "neighbor_list", "pair_geometry", "search", "spline", *isas]
    flags = ["-std=c++20", "-O1", "-ffp-contract=off", "-pthread", "-DSCSCHNET_EMULATE_CUDA"]
    flags += ["-DSCSCHNET_KERNELS=kernels_generic", "-Wno-unknown-pragmas"]
    flags += ["-fsanitize=alignment", "-fno-sanitize-recover=all"]  # vector loads must be aligned
    program = tmp_path / "test_cuda_core"
    command = [cxx, *flags, "-o", str(program), str(CSRC / "tests/test_cuda_core.cpp")]
    command += [str(core / f"{name}.cpp") for name in names] + ["-x", "c++", *map(str, KERNELS)]
    subprocess.run(command, check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "cuda core: ok"


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
