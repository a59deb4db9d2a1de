"""Timing on a GPU: events around many calls, replays of a captured graph, and what the machine can do."""

import platform
import statistics
from collections.abc import Callable

import torch


def microseconds(run: Callable[[], object], repeats: int = 30, calls: int = 3) -> float:
    """Median time of a call, launched from Python."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / calls)
    return statistics.median(times)


def graph_microseconds(run: Callable[[], object], calls: int = 10) -> float:
    """Median time of a call without the host: `calls` of them captured in one graph and replayed."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            run()
    return microseconds(graph.replay, calls=1) / calls


def clock_mhz() -> float:
    """Of the processors now, or what an H100 or H200 does at most where nothing can be read."""
    try:
        return float(torch.cuda.clock_rate())
    except (RuntimeError, ModuleNotFoundError):  # no NVML
        return 1980.0


def hardware() -> dict[str, object]:
    """Device, versions, and the rates measured on it that bounds are computed from."""
    properties = torch.cuda.get_device_properties(0)
    source = torch.empty(2**28, dtype=torch.float32, device="cuda").normal_()
    target = torch.empty_like(source)
    copy = microseconds(lambda: target.copy_(source))
    small = source[: 2**21]  # 8 MiB: stays in L2
    copy_small = microseconds(lambda: target[: 2**21].copy_(small), calls=100)
    a = torch.randn(8192, 8192, device="cuda")
    out = torch.empty_like(a)
    product = microseconds(lambda: torch.mm(a, a, out=out), repeats=5)
    return {
        "device": torch.cuda.get_device_name(0),
        "processors": properties.multi_processor_count,
        "clock_mhz": clock_mhz(),
        "memory_gb": properties.total_memory / 1e9,
        "copy_gb_s": 8 * source.numel() / copy / 1e3,
        "copy_in_l2_gb_s": 8 * small.numel() / copy_small / 1e3,
        "float32_tflops": 2 * 8192**3 / product / 1e6,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "host": platform.processor() or platform.machine(),
    }
