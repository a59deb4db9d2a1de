"""How the core was compiled: no code for newer processors may be linked into code for all."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import scschnet
from scschnet import _C, ops

KERNELS = Path(__file__).parents[1] / "csrc/core/cpu/kernels_isa.cpp"
FLAGS = {
    "generic": [],
    "avx2": ["-mavx2", "-mfma", "-mbmi2"],
    "avx512": ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma", "-mbmi2"],
}


@pytest.mark.parametrize("isa", FLAGS)
@pytest.mark.parametrize("optimization", ["-O0", "-O3"])
def test_kernels_export_one_symbol_and_no_weak_ones(isa, optimization, tmp_path):
    """A weak symbol is an inline function of which the linker keeps any copy, perhaps the AVX-512 one."""
    compiler, nm = shutil.which("c++"), shutil.which("nm")
    if compiler is None or nm is None:
        pytest.skip("no C++ compiler or nm")
    machine = subprocess.run(
        [compiler, "-dumpmachine"], capture_output=True, text=True, check=True
    ).stdout
    if isa != "generic" and not machine.startswith("x86_64"):
        pytest.skip(f"{isa} is x86 only")
    output = tmp_path / "kernels.o"
    command = [compiler, "-std=c++20", optimization, "-fPIC", "-ffp-contract=off", *FLAGS[isa]]
    command += [f"-DSCSCHNET_KERNELS=kernels_{isa}", "-c", str(KERNELS), "-o", str(output)]
    subprocess.run(command, check=True)
    listing = subprocess.run(
        [nm, "-C", "--defined-only", "--extern-only", str(output)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert len(listing) == 1, listing
    assert listing[0].endswith(f"scschnet::cpu::kernels_{isa}")


def test_core_in_cpp(tmp_path):
    """The checks in csrc/tests, which need nothing but a compiler."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    core = KERNELS.parent
    names = "buffer cell_grid images index_writer isa lattice neighbor_list search kernels_isa"
    sources = [str(core / f"{name}.cpp") for name in names.split()]
    program = tmp_path / "test_neighbor_list"
    command = [compiler, "-std=c++20", "-O1", "-ffp-contract=off", "-pthread", *sources]
    command += ["-DSCSCHNET_KERNELS=kernels_generic", "-o", str(program)]
    command.append(str(core.parents[1] / "tests/test_neighbor_list.cpp"))
    subprocess.run(command, check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "neighbor list: ok"


def test_another_torch_is_named_with_the_remedy():
    ops.check_torch_version("2.13.0+cpu", "2.13.1+cu130")  # the same interface
    with pytest.raises(
        ImportError, match=r"compiled with torch 2\.11\.0.*torch 2\.13\.0.*pip install"
    ):
        ops.check_torch_version("2.11.0", "2.13.0")
    ops.check_torch_version(_C.build_torch, torch.__version__)


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(scschnet, "__path__", [str(tmp_path)])
    with pytest.raises(ImportError, match=r"libscschnet_ops\.so is missing from"):
        ops._load()
