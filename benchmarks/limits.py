"""Limits of this CPU, measured once in the process that is judged by them: peak.cpp, and torch.mm."""

import ctypes
import functools
import subprocess
import tempfile
import time
from pathlib import Path

import torch


@functools.cache
def limits() -> dict[str, float]:
    """Rates of one thread in 1e9 per second: multiply-adds, reading 24 KiB (first cache level) and 512 KiB
    (second), products of matrices; without a compiler the products alone."""
    found = {"mm_gflops": mm_rate()}
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = Path(__file__).with_name("peak.cpp")
        command = ["c++", "-O3", "-march=native", "-shared", "-fPIC", source, "-o", library]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (FileNotFoundError, subprocess.CalledProcessError):
            return found
        peak = ctypes.CDLL(str(library))
        peak.fma_gflops.restype = peak.read_gbytes.restype = ctypes.c_double
        peak.read_gbytes.argtypes = [ctypes.c_long]
        return found | {
            "fma_gflops": peak.fma_gflops(),
            "l1_gbytes": peak.read_gbytes(24 << 10),
            "l2_gbytes": peak.read_gbytes(512 << 10),
        }


def mm_rate() -> float:
    """Best rate of torch.mm on 1024 x 1024 matrices, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a = torch.randn(1024, 1024)
    out, times = torch.empty_like(a), []
    for _ in range(9):
        start = time.process_time()
        torch.mm(a, a, out=out)
        times.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return 2.0 * 1024**3 / min(times) / 1e9
