"""How the core was compiled: no code for newer processors may be linked into code for all."""

import shutil
import subprocess
from pathlib import Path

import pytest

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
