"""The dense layers' core: csrc/tests/test_dense.cpp, and how it is compiled."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # compiles the core

CORE = Path(__file__).parents[2] / "csrc/core/cpu"
AVX512 = ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma", "-mbmi2"]
FLAGS = {"generic": [], "avx2": ["-mavx2", "-mfma", "-mbmi2"], "avx512": AVX512}
AMX = [*AVX512, "-mamx-tile", "-mamx-bf16"]


def tool(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name}")
    return path


def sources(compiler):
    """(source, symbol, flags) of what is compiled once per instruction set."""
    machine = subprocess.run(
        [compiler, "-dumpmachine"], capture_output=True, text=True, check=True
    ).stdout
    sets = list(FLAGS) if machine.startswith("x86_64") else ["generic"]
    result = [("dense_isa.cpp", f"dense_kernels_{isa}", FLAGS[isa]) for isa in sets]
    parts = [("dense_amx.cpp", f"dense_products_amx_{n}", AMX) for n in (1, 3)]
    return result + parts if len(sets) > 1 else result


def compile_core(compiler, source, output, *flags):
    command = [compiler, "-std=c++20", "-fPIC", "-ffp-contract=fast", "-c", str(CORE / source)]
    subprocess.run([*command, *flags, "-o", str(output)], check=True)


def kernels_flag(symbol):
    last = symbol.rpartition("_")[2]
    return f"-DSCSCHNET_PARTS={last}" if last.isdigit() else f"-DSCSCHNET_KERNELS=kernels_{last}"


def test_vector_code_exports_one_symbol(tmp_path):
    """See test_core_build: no code for newer CPUs may be linked into code for all."""
    compiler, nm = tool("c++"), tool("nm")
    for source, symbol, flags in sources(compiler):
        output = tmp_path / f"{symbol}.o"
        compile_core(compiler, source, output, "-O0", kernels_flag(symbol), *flags)
        listing = subprocess.run(
            [nm, "-C", "--defined-only", "--extern-only", str(output)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert [line.split()[-1] for line in listing] == [f"scschnet::cpu::{symbol}"]


def test_core_in_cpp(tmp_path):
    """csrc/tests/test_dense.cpp: every instruction set and type against loops."""
    compiler = tool("c++")
    found = sources(compiler)
    objects = []
    for source, symbol, flags in found:
        objects.append(tmp_path / f"{symbol}.o")
        compile_core(compiler, source, objects[-1], "-O1", "-w", kernels_flag(symbol), *flags)
        if source == "dense_isa.cpp":  # what isa.cpp refers to
            objects.append(tmp_path / f"kernels_{symbol}.o")
            compile_core(
                compiler, "kernels_isa.cpp", objects[-1], "-O0", kernels_flag(symbol), *flags
            )
    program = tmp_path / "test_dense"
    command = [compiler, "-std=c++20", "-O1", "-o", str(program), *map(str, objects)]
    command += ["-DSCSCHNET_X86"] if len(found) > 1 else []
    command += [str(CORE / f"{name}.cpp") for name in ("isa", "dense")]
    command.append(str(CORE.parents[1] / "tests/test_dense.cpp"))
    subprocess.run(command, check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "dense: ok"
