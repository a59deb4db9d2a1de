"""Registers, spills and shared memory of every kernel, and how many blocks fit on a multiprocessor.

    python benchmarks/gpu/kernel_table.py                              # all kernels for sm_80, sm_90, sm_100 and sm_120
    python benchmarks/gpu/kernel_table.py --for 90 --files cfconv      # those of csrc/core/cuda/cfconv.cu for one

Needs nvcc and c++filt, no GPU. Columns: threads of a block; registers of a thread; bytes of stack and of spills (stores
and loads) of a thread; bytes of static shared memory; blocks that registers and threads leave room for; KiB of dynamic
shared memory that each of these may take. A convolution takes 512 times 32 bytes for one set of weights, 512 times 56
for two (float32; twice the weights in float64), and 256 bytes for every row of a table that it copies.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

KERNELS = Path(__file__).resolve().parents[2] / "csrc/core/cuda"
REGISTERS = 65536  # of a multiprocessor
RESERVED = 1024  # bytes of shared memory that every block costs besides its own
UNBOUNDED = 256  # threads of kernels that do not say so: as their files launch them


class Limits(NamedTuple):
    """Of a multiprocessor."""

    threads: int
    blocks: int
    shared: int  # bytes


ARCHITECTURES = {
    75: Limits(1024, 16, 64 << 10),
    80: Limits(2048, 32, 164 << 10),
    86: Limits(1536, 16, 100 << 10),
    89: Limits(1536, 24, 100 << 10),
    90: Limits(2048, 32, 228 << 10),
    100: Limits(2048, 32, 228 << 10),
    120: Limits(1536, 24, 100 << 10),
}


class Kernel(NamedTuple):
    """What ptxas says of one kernel."""

    name: str
    threads: int
    registers: int
    stack: int
    spills: int
    shared: int

    def blocks(self, limits: Limits) -> int:
        """That registers and threads leave room for; registers are handed out to warps, 256 at a time."""
        of_warp = -(-self.registers * 32 // 256) * 256
        warps = REGISTERS // of_warp // 4 * 4  # four schedulers have a quarter each
        return min(warps // (self.threads // 32), limits.threads // self.threads, limits.blocks)

    def room(self, limits: Limits) -> int:
        """Bytes of dynamic shared memory for each of the blocks."""
        return limits.shared // max(self.blocks(limits), 1) - RESERVED - self.shared


def nvcc() -> str | None:
    """Where the compiler is, if it is."""
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def kernels_of(source: Path, architecture: int) -> list[Kernel]:
    """Compile one file for one kind of GPU, as the build does, and read what ptxas says."""
    compiler = nvcc()
    assert compiler is not None
    with tempfile.TemporaryDirectory() as folder:
        command = [compiler, "-std=c++20", "-O3", f"-arch=sm_{architecture}", "-Xptxas=-v"]
        command += ["-cubin", "-o", f"{folder}/kernels.cubin", "--keep", "--keep-dir", folder]
        said = subprocess.run([*command, str(source)], check=True, capture_output=True, text=True)
        (ptx,) = Path(folder).glob("*.ptx")
        bounds = dict(re.findall(r"\.entry (\w+)\([^)]*\)\s*\.maxntid (\d+)", ptx.read_text()))
    return list(_parsed(said.stderr, bounds))


def _parsed(text: str, bounds: dict[str, str]) -> Iterator[Kernel]:
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)"
    )
    found = re.findall(pattern, text, re.DOTALL)
    symbols = "\n".join(symbol for symbol, *_ in found)
    names = subprocess.run(["c++filt"], input=symbols, check=True, capture_output=True, text=True)
    for name, (symbol, stack, stores, loads, registers, rest) in zip(
        names.stdout.splitlines(), found, strict=True
    ):
        shared = re.search(r"(\d+) bytes smem", rest)
        yield Kernel(
            _shortened(name),
            int(bounds.get(symbol, UNBOUNDED)),
            int(registers),
            int(stack),
            int(stores) + int(loads),
            int(shared[1]) if shared else 0,
        )


def _shortened(name: str) -> str:
    """Without namespaces and arguments: convolve<float, 4, true>."""
    name = re.sub(r"\w+::|\(anonymous namespace\)::|^void ", "", name)
    return name[: name.rindex("(")] if "(" in name else name


def table(kernels: Sequence[Kernel], architecture: int) -> list[str]:
    """Lines, the kernels in their order."""
    limits = ARCHITECTURES[architecture]
    head = (
        f"{f'sm_{architecture}':52}{'threads':>8}{'regs':>6}{'stack':>7}{'spills':>7}{'static':>7}"
    )
    rows = [f"{head}{'blocks':>7}{'room KiB':>10}"]
    for k in kernels:
        row = f"{k.name[:51]:52}{k.threads:8}{k.registers:6}{k.stack:7}{k.spills:7}{k.shared:7}"
        rows.append(f"{row}{k.blocks(limits):7}{k.room(limits) / 1024:10.1f}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--for", dest="architectures", type=int, nargs="+", choices=ARCHITECTURES,
        default=[80, 90, 100, 120])  # fmt: skip
    sources = sorted(path.stem for path in KERNELS.glob("*.cu"))
    parser.add_argument("--files", nargs="+", choices=sources, default=sources)
    given = parser.parse_args()
    if nvcc() is None:
        print("there is no nvcc", file=sys.stderr)
        return 1
    for architecture in given.architectures:
        found = [
            k for name in given.files for k in kernels_of(KERNELS / f"{name}.cu", architecture)
        ]
        print("\n".join([*table(found, architecture), ""]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
