"""Times every kernel on a GPU beside the bound that counts.

    python benchmarks/gpu/bench_kernels.py --out benchmarks/results/gpu_kernels_H200.json

Bounds. A convolution reads six table rows per neighbor and 16-byte lane: with the table in shared memory that is
n_directed * n_features * 4 * 6 bytes at 128 bytes per clock and multiprocessor, and the features of the neighbors come on
top from the caches. Neighbor lists and geometry move bytes: each input and output once at the measured rate of a copy.
"""

import argparse
import json
from pathlib import Path

import torch
from systems import liquid, list_arguments, molecules
from timing import graph_microseconds, hardware, microseconds

from scschnet import ops
from scschnet.nn.cutoff import CosineCutoff

CUTOFF, STEP = 5.0, 2.0**-6
N_ROWS = int(CUTOFF / STEP) + 6
SYSTEMS = {
    "water 12,288": (lambda: liquid((16, 24, 32)), 128),
    "water 98,304": (lambda: liquid((32, 48, 64)), 128),
    "100 QM9-like": (lambda: molecules(100, 18), 256),
    "50 aspirin-like": (lambda: molecules(50, 21), 128),
}
LISTS = {"water 32,768": (32, 32, 32), "water 524,288": (64, 64, 128)}


def bench_list(arguments: tuple, bytes_per_second: float) -> dict[str, float]:
    """Neighbor lists: with the size read back, and within a capacity."""
    exact = torch.ops.scschnet.neighbor_list(*arguments, CUTOFF)
    n_pairs, n_atoms = exact[0].shape[0], arguments[0].shape[0]
    within = torch.ops.scschnet.neighbor_list_within
    moved = 28 * n_pairs + 64 * n_atoms
    return {
        "n_atoms": n_atoms,
        "n_pairs": n_pairs,
        "exact_us": microseconds(lambda: torch.ops.scschnet.neighbor_list(*arguments, CUTOFF)),
        "within_us": graph_microseconds(lambda: within(*arguments, CUTOFF, n_pairs), calls=3),
        "bound_us": 1e6 * moved / bytes_per_second,
    }


def bench_convolution(structures, n_features: int, rates: dict) -> dict[str, object]:
    """P1 to P5, the transposition they share, half list and spline weights."""
    arguments = list_arguments(structures)
    idx_i, idx_j, shifts, _ = torch.ops.scschnet.neighbor_list(*arguments, CUTOFF)
    positions, ptr, cells, _ = arguments
    n_atoms = positions.shape[0]
    idx_m = torch.repeat_interleave(torch.arange(len(ptr) - 1, device="cuda"), ptr.diff())
    pairs, row_ptr, half_j = ops.half_list(idx_i, idx_j, shifts, n_atoms)
    geometry = (positions.double(), cells.double(), idx_m, idx_i, idx_j, shifts, pairs)
    r_ij, d_ij = ops.pair_vectors(*geometry)
    weigh = (
        d_ij,
        STEP,
        CUTOFF,
        CosineCutoff(CUTOFF).pieces.to(d_ij.device),
        N_ROWS,
        2,
        torch.float32,
    )
    bins, weights = ops.spline_weights(*weigh)
    p = ops.Pairs(d_ij, bins, weights, row_ptr, half_j, STEP, CUTOFF, weigh[3])
    x, y, u = (torch.randn(n_atoms, n_features, device="cuda") for _ in range(3))
    table = torch.randn(N_ROWS, n_features, device="cuda")
    v, g_d = torch.randn(len(d_ij), device="cuda"), torch.randn_like(d_ij)
    # The arrays stay, since the plan of a launch goes by their size; only the rows are empty.
    empty = ops.Pairs(d_ij, bins, weights, row_ptr * 0, half_j, *p[5:])
    kernels = {
        "half_list": lambda: ops.half_list(idx_i, idx_j, shifts, n_atoms),
        "pair_vectors": lambda: ops.pair_vectors(*geometry),
        "spline_weights": lambda: ops.spline_weights(*weigh),
        "pair_forces": lambda: ops.pair_forces(g_d, r_ij, d_ij, row_ptr, half_j, idx_m, len(cells)),
        "P1 cfconv": lambda: ops.cfconv(x, table, p),
        "P1 without pairs": lambda: ops.cfconv(x, table, empty),
        "P2 cfconv_backward": lambda: ops.cfconv_backward(y, x, table, p),
        "P3 cfconv_double_backward": lambda: ops.cfconv_double_backward(u, v, x, table, p),
        "P5 table gradient, forces": lambda: ops.cfconv_backward_table_gradient(
            u, v, y, x, p, N_ROWS
        ),
        "P5 table gradient, energy": lambda: ops.cfconv_table_gradient(y, x, None, p, N_ROWS, 0),
    }
    shared_rate = 128.0 * rates["processors"] * 1e6 * rates["clock_mhz"]
    rows = 24.0 * n_features * len(idx_i)  # bytes of table rows
    return {
        "n_atoms": n_atoms,
        "n_pairs": len(idx_i),
        "n_features": n_features,
        "microseconds": {name: graph_microseconds(run, calls=5) for name, run in kernels.items()},
        "shared_memory_bound_us": 1e6 * rows / shared_rate,
        "note": "the operators alone transpose the list every time; the fused network does it once",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    rates = hardware()
    results: dict[str, object] = {"hardware": rates, "neighbor_list": {}, "convolution": {}}
    for name, shape in LISTS.items():
        found = bench_list(list_arguments(liquid(shape)), 1e9 * rates["copy_gb_s"])
        results["neighbor_list"][name] = found
        print(name, found, flush=True)
    for name, (build, n_features) in SYSTEMS.items():
        found = bench_convolution(build(), n_features, rates)
        results["convolution"][name] = found
        print(name, found, flush=True)
    out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
