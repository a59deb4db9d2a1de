"""Nodes that the graph of a training step would have, counted without a GPU.

    SCSCHNET_EMULATE=build/emulated python -m pytest tests/csrc/test_cuda_emulated.py      # makes the library
    python benchmarks/gpu/count_nodes.py build/emulated/libscschnet_ops_emulated.so

A step runs on the operators for GPUs, emulated on the CPU. Nodes are launches of our own kernels, which the emulator
counts, and torch's operations: each counts one, views, allocations and operations on nothing none, and what is made of others counts as these.
That is an estimate: on a GPU, cuBLAS may split a product in two, and some sums take two launches. The number depends on the
number of blocks and on what is trained, hardly on sizes, so that they are small here; long lists take one launch more for
every running sum.
"""

import argparse
import collections
import ctypes
import sys
from collections.abc import Iterable
from typing import Any

import torch
from first_run import resident_step

from scschnet import ops

SMALL = {"batch_size": 3, "n_features": 32}

VIEWS = {
    f"aten::{name}"
    for name in [
        "alias",
        "as_strided",
        "chunk",
        "detach",
        "empty",
        "empty_like",
        "empty_strided",
        "expand",
        "expand_as",
        "narrow",
        "new_empty",
        "permute",
        "result_type",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "t",
        "transpose",
        "unbind",
        "unsqueeze",
        "view",
        "view_as",
        "_unsafe_view",
        "_reshape_alias",
    ]
}
MADE_OF_OTHERS = {
    f"aten::{name}"
    for name in [
        "_to_copy",
        "clone",
        "contiguous",
        "embedding",
        "embedding_backward",
        "full",
        "linear",
        "matmul",
        "new_zeros",
        "ones",
        "ones_like",
        "reshape",
        "rsub",
        "square",
        "stack",
        "to",
        "zero_",
        "zeros",
        "zeros_like",
    ]
}
SEVERAL = {
    "aten::segment_reduce": 3,
    "aten::_segment_reduce_backward": 3,
    "aten::embedding_dense_backward": 2,
}


def launches_of_torch(events: Iterable[Any]) -> collections.Counter[str]:
    """Operations by name, of the tree of what a profiler saw."""
    found: collections.Counter[str] = collections.Counter()
    for event in events:
        nothing = any(0 in shape for shape in event.input_shapes[:1])  # no launch for no numbers
        if event.name in VIEWS or (nothing and event.name.startswith("aten::")):
            continue
        if event.name.startswith("aten::") and event.name not in MADE_OF_OTHERS:
            found[event.name] += SEVERAL.get(event.name, 1)
        else:
            found += launches_of_torch(event.cpu_children)
    return found


def nodes(case: str, library: ctypes.CDLL) -> tuple[int, collections.Counter[str]]:
    """Launches of our kernels and operations of torch in one step.

    Args:
        case: qm9 (energies, six blocks) or aspirin (with forces).
        library: of the emulated operators, loaded into torch.
    """
    state, step, batches = resident_step(case, "cpu", n_batches=3, **SMALL)
    step.data.device = torch.device("cuda")  # takes the operators that only a GPU has
    state.begin_epoch()
    step.begin_epoch(batches[:1] * 3, [5e-4] * 3)  # of one shape: what a shape needs is there
    step.run()
    before = library.emulated_launches()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, record_shapes=True) as profiler:
        step.run()
    ours = library.emulated_launches() - before
    top = [event for event in profiler.events() if event.cpu_parent is None]
    return ours, launches_of_torch(top)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("library", help="libscschnet_ops_emulated.so")
    parser.add_argument("--cases", nargs="+", default=["qm9", "aspirin"])
    given = parser.parse_args()
    torch.ops.load_library(given.library)
    library = ctypes.CDLL(given.library)
    library.emulated_launches.restype = ctypes.c_int64
    ops.trains_on = lambda device: True
    for case in given.cases:
        ours, of_torch = nodes(case, library)
        for name, count in of_torch.most_common():
            print(f"{count:6} {name}")
        print(
            f"{case}: {ours + sum(of_torch.values())} nodes, {ours} of them launches of our kernels"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
