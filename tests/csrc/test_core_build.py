"""How the core is compiled: no code for newer CPUs in code for all; its own tests under sanitizers."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import scschnet
from scschnet import _C, ops

CORE = Path(__file__).parents[2] / "csrc/core/cpu"
TESTS = CORE.parents[1] / "tests"
AVX512 = ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma", "-mbmi2"]
AMX = [*AVX512, "-mamx-tile", "-mamx-bf16"]
FLAGS = {
    "generic": [],
    "avx2": ["-mavx2", "-mfma", "-mbmi2"],
    "avx512": AVX512,
    "amx_1": [*AMX, "-DSCSCHNET_PARTS=1"],  # compiled twice, see dense_amx.cpp
    "amx_3": [*AMX, "-DSCSCHNET_PARTS=3"],
}
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def run(*command: object) -> str:
    """Standard output of a program that has to succeed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def find_compiler() -> str:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    return compiler


def on_x86(compiler: str) -> bool:
    return run(compiler, "-dumpmachine").startswith("x86_64")


def kernel_sources(isa: str) -> list[Path]:
    """The files that are compiled for one instruction set."""
    return sorted(CORE.glob("*_amx.cpp" if isa.startswith("amx") else "*_isa.cpp"))


WITH_KERNELS = [isa for isa in FLAGS if kernel_sources(isa)]


def compile_kernels(source: Path, isa: str, folder: Path, *options: str) -> Path:
    output = folder / f"{source.stem}_{isa}.o"
    command = [find_compiler(), "-std=c++20", "-fPIC", *FLAGS[isa], *options]
    run(*command, f"-DSCSCHNET_KERNELS=kernels_{isa}", "-c", source, "-o", output)
    return output


@pytest.mark.slow
@pytest.mark.parametrize("isa", WITH_KERNELS)
def test_kernels_export_one_symbol_and_no_weak_ones(isa, tmp_path):
    """A weak symbol is an inline function of which the linker keeps any copy, perhaps the AVX-512 one.

    Without optimization every inline function that is used leaves its symbol.
    """
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm")
    if isa != "generic" and not on_x86(find_compiler()):
        pytest.skip(f"{isa} is x86 only")
    for source in kernel_sources(isa):
        output = compile_kernels(source, isa, tmp_path, "-O0")
        listing = run(nm, "-C", "--defined-only", "--extern-only", output).splitlines()
        functions = [line for line in listing if " V DW.ref." not in line]  # of exceptions
        assert len(functions) == 1, (source.name, listing)
        name = functions[0].split(maxsplit=2)
        assert name[1] in "DBR" and name[2].startswith("scschnet::cpu::"), functions
        assert name[2].endswith(f"_{isa}"), functions


@pytest.fixture(scope="module")
def sanitized_core(tmp_path_factory) -> Path:
    """Objects of the core that notice wrong addresses and undefined behavior.

    Not optimized: that compiles faster, and nothing wrong is optimized away.
    """
    folder = tmp_path_factory.mktemp("sanitized")
    compiler = find_compiler()
    (folder / "empty.cpp").write_text("int main() {}")
    probe = [compiler, *SANITIZE, str(folder / "empty.cpp"), "-o", str(folder / "empty")]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("the compiler has no sanitizers")
    options = ["-O0", "-g1", *SANITIZE]
    isas = WITH_KERNELS if on_x86(compiler) else ["generic"]
    kernels = [(source, isa) for isa in isas for source in kernel_sources(isa)]
    others = set(CORE.glob("*.cpp")) - {source for source, _ in kernels}
    x86 = ["-DSCSCHNET_X86"] if len(isas) > 1 else []

    def compile_other(source: Path) -> None:
        command = [compiler, "-std=c++20", *options, *x86]
        run(*command, "-c", source, "-o", folder / f"{source.stem}.o")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = [pool.submit(compile_other, source) for source in sorted(others)]
        waiting += [
            pool.submit(compile_kernels, *kernel, folder, *options)
            for kernel in sorted(kernels, reverse=True)
        ]
        for done in waiting:
            done.result()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["neighbor_list", "cfconv", "filter_table", "orthogonalize", "schnet"]
)
def test_core_in_cpp(sanitized_core, name):
    """The checks in csrc/tests, which need nothing but a compiler, under sanitizers."""
    program = sanitized_core / f"test_{name}"
    objects = sorted(sanitized_core.glob("*.o"))
    command = [find_compiler(), "-std=c++20", "-O0", "-g1", "-pthread", *SANITIZE]
    run(*command, TESTS / f"test_{name}.cpp", *objects, "-o", program)
    assert run(program).strip() == f"{name.replace('_', ' ')}: ok"


def test_another_torch_is_named_with_the_remedy():
    ops.check_torch_version("2.13.0+cpu", "2.13.1+cu130")  # the same interface
    with pytest.raises(
        ImportError,
        match=r"compiled with torch 2\.11\.0.*torch 2\.13\.0.*wheel for torch 2\.13,.*pip install",
    ):
        ops.check_torch_version("2.11.0", "2.13.0")
    ops.check_torch_version(_C.build_torch, torch.__version__)


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(scschnet, "__path__", [str(tmp_path)])
    with pytest.raises(ImportError, match=r"libscschnet_ops\.so is missing from"):
        ops._load()
