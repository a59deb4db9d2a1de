"""What every benchmark records beside its times, and ratios to other programs, taken in turns."""

import ctypes
import functools
import gc
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks.limits import limits

SECONDS_OF_TURNS = 1.0  # per pair of programs
SHORTEST_TURN = 2e-3  # s; shorter calls are repeated within a turn


def measure(
    benchmark,
    call: Callable[[], object],
    device: str = "cpu",
    flops: float = 0.0,
    reads: Mapping[str, float] | None = None,
    products: float = 0.0,
    **sizes: float,
) -> None:
    """Benchmark a call; its sizes, its fraction of what the machine can do and its memory go into `extra_info`.

    Args:
        benchmark: the fixture of pytest-benchmark.
        call: what is timed.
        device: cpu or cuda; a GPU is waited for after the call.
        flops: operations of a call, judged by the peak of multiply-adds.
        reads: bytes that a call reads, by where from: l1, l2.
        products: operations of its products of matrices, judged by torch.mm.
        sizes: whatever else belongs to the number, such as n_atoms.
    """
    timed = finished(call, device)
    if benchmark.disabled:
        benchmark(timed)
        return
    before = reset_peak_memory(device)
    timed(), timed()
    benchmark(timed)
    after = peak_memory(device)
    seconds = benchmark.stats.stats.median
    found = dict(sizes)
    if before is not None and after is not None:
        found["memory_added_mib"] = round((after - before) / 2**20, 2)
    rates = {"fma_gflops": flops, "mm_gflops": products}
    rates |= {f"{level}_gbytes": amount for level, amount in (reads or {}).items()}
    for name, amount in rates.items():
        if amount:
            found[name] = amount / seconds / 1e9
            if device == "cpu" and name in limits():
                found[f"of_{name.split('_')[0]}"] = found[name] / limits()[name]
    benchmark.extra_info.update(found)


def finished(call: Callable[[], object], device: str) -> Callable[[], object]:
    """The call, and on a GPU the wait for its end."""
    if device == "cpu":
        return call

    def call_and_wait() -> object:
        result = call()
        torch.cuda.synchronize()
        return result

    return call_and_wait


def in_turns(
    benchmark,
    ours: Callable[[], object],
    others: Mapping[str, Callable[[int], float]],
    seconds: float = SECONDS_OF_TURNS,
) -> None:
    """How long others take against ours, each pair of turns on its own; into `extra_info`, as `in_turns`.

    Args:
        benchmark: the fixture, already used.
        ours: our call, timed as the fixture times it.
        others: by name, functions that run n calls and return the seconds of all.
        seconds: for each of the others.
    """
    mine = timed_by(benchmark._timer, ours)
    for name, theirs in others.items():
        first = theirs(1), mine(1)  # settles both
        if benchmark.disabled:
            continue
        repeats = [max(1, min(1000, int(SHORTEST_TURN / max(t, 1e-7)))) for t in first]
        pairs, end = [], time.perf_counter() + seconds
        while len(pairs) < 5 or (time.perf_counter() < end and len(pairs) < 200):
            pairs.append((theirs(repeats[0]) / repeats[0], mine(repeats[1]) / repeats[1]))
        benchmark.extra_info.setdefault("in_turns", {})[name] = {
            "seconds": statistics.median(theirs for theirs, _ in pairs),
            "our_seconds": statistics.median(mine for _, mine in pairs),
            "ratio": statistics.median(theirs / mine for theirs, mine in pairs),
            "ratios": [round(theirs / mine, 3) for theirs, mine in pairs],
        }


def timed_by(timer: Callable[[], float], call: Callable[[], object]) -> Callable[[int], float]:
    """A function that runs the call n times and returns the seconds of all."""

    def run(n: int) -> float:
        start = timer()
        for _ in range(n):
            call()
        return timer() - start

    return run


def reset_peak_memory(device: str) -> int | None:
    """Forget the peak so far, give back what is free; bytes in use now, None where the system does not say."""
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        return None
    return _status("VmRSS")


def peak_memory(device: str) -> int | None:
    """Most bytes in use since the peak was reset."""
    return torch.cuda.max_memory_allocated() if device != "cpu" else _status("VmHWM")


def _status(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return 1024 * int(found[1]) if found else None


@functools.cache
def processor() -> str:
    """The processor's name, as the system calls it."""
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.machine()
