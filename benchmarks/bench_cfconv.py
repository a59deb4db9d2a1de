"""The convolution's kernels against the limits of the processor, and against plain torch.

    OMP_NUM_THREADS=1 python benchmarks/bench_cfconv.py [--data FOLDER] [--out FILE.json] [--quick]

One thread, float32. Every number is the median over rounds of the process's CPU time; the kernels of a case take turns.
Limits are measured in the same process: multiply-adds (peak.cpp), reading 24 KiB (first cache level) and 512 KiB
(second). For each kernel three fractions are given: of the multiply-add peak; of the reading rate of the first level,
where every vector read counts (weights that are broadcast too); and of the second level, as if every table row came
from there, which is so for passes of 64 features (83 KiB of table) but for the rows that the first level still holds.
"Dense" is torch's own: filter generator on all directed pairs, index_select, product, index_add; given radial basis and
list. Structures: liquid water of tests/data, repeated; with --data, aspirin and QM9 from md17_aspirin.npz and qm9.npz in
that folder, else shaken grids of the same sizes.
"""

import argparse
import ctypes
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from scschnet import _C, batch_neighbor_list, ops
from scschnet.nn.cfconv import cfconv as dense_cfconv
from scschnet.nn.filter import FilterGenerator
from scschnet.nn.filter_table import FilterGrid, filter_tables, grid_step
from scschnet.nn.basis import GaussianBasis
from scschnet.nn.cutoff import CosineCutoff

HERE = Path(__file__).parent
CUTOFF, N_RBF = 5.0, 50

# Per pair (both directions) and feature: operations, and per pair and vector of features: vectors read, of which table
# rows. Broadcast weights are shared by the 4 vectors of a pass (2 in table gradients).
WORK = {
    "P1 cfconv": (16, 6 + 2 + 6 / 4, 6),
    "P2 cfconv_backward": (34, 6 + 3 + 12 / 4, 6),
    "P3, P4 cfconv_double_backward": (34, 6 + 3 + 13 / 4, 6),
    "P5 cfconv_backward_table_gradient": (34, 6 + 3 + 13 / 2, 0),
    "P5 cfconv_table_gradient": (16, 6 + 2 + 6 / 2, 0),
    "cfconv_dot": (18, 6 + 2 + 6 / 4, 6),
}


def limits() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        command = ["c++", "-O3", "-march=native", "-shared", "-fPIC", str(HERE / "peak.cpp")]
        subprocess.run([*command, "-o", str(library)], check=True)
        peak = ctypes.CDLL(str(library))
        peak.fma_gflops.restype = peak.read_gbytes.restype = ctypes.c_double
        peak.read_gbytes.argtypes = [ctypes.c_long]
        return {
            "fma_gflops": peak.fma_gflops(),
            "l1_gbytes": peak.read_gbytes(24 << 10),
            "l2_gbytes": peak.read_gbytes(512 << 10),
        }


def water() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """1,536 atoms in a cube: positions, atom_ptr, cells."""
    data = np.load(HERE.parent / "tests/data/water64_2frames.npz")
    cell = data["cell"].reshape(-1, 3, 3)[0]
    positions = data["R"].reshape(-1, 192, 3)[0].astype(np.float64)
    shifts = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3) @ cell
    return (shifts[:, None] + positions).reshape(-1, 3), np.array([0, 1536]), 2 * cell[None]


def shaken(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, None]:
    """Clusters of atoms 1.5 Å apart."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3) * 1.5
    parts = [grid[np.argsort((grid**2).sum(1))[:n]] + rng.normal(0, 0.1, (n, 3)) for n in sizes]
    return np.concatenate(parts), np.cumsum([0, *sizes]), None


def systems(data: Path | None) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    if data is None:
        return {
            "water 1536": water(),
            "50 x 21 atoms": shaken([21] * 50),
            "100 x 18 atoms": shaken([18] * 100),
        }
    aspirin = np.load(data / "md17_aspirin.npz")["R"][:50].astype(np.float64)
    qm9 = np.load(data / "qm9.npz")
    chosen = np.random.default_rng(0).choice(len(qm9["n_atoms"]), 100, replace=False)
    parts = [qm9["R"][qm9["offset"][k] : qm9["offset"][k + 1]] for k in chosen]
    return {
        "water 1536": water(),
        "50 aspirins": (aspirin.reshape(-1, 3), np.arange(51) * 21, None),
        "100 QM9": (
            np.concatenate(parts).astype(np.float64),
            np.cumsum([0, *(len(part) for part in parts)]),
            None,
        ),
    }


class Case:
    """One structure and size of network: every kernel as a function without arguments."""

    def __init__(self, system: tuple, n_features: int) -> None:
        positions, atom_ptr, cells = system
        pbc = None if cells is None else np.ones((1, 3), bool)
        listed = batch_neighbor_list(positions, atom_ptr, CUTOFF, cells, pbc)
        self.i, self.j = torch.tensor(listed.idx_i), torch.tensor(listed.idx_j)
        shifts = torch.tensor(listed.shifts)
        r = torch.tensor(positions)
        vectors = r[self.j] - r[self.i]
        if cells is not None:
            vectors = vectors + shifts.double() @ torch.tensor(cells[0])
        self.d = vectors.norm(dim=1)
        half, row_ptr, idx_j = ops.half_list(self.i, self.j, shifts, len(positions))
        self.d_half = self.d[half].contiguous()
        self.basis, self.net = GaussianBasis(N_RBF, CUTOFF), FilterGenerator(N_RBF, n_features)
        self.grid = FilterGrid(grid_step(self.basis.width), CUTOFF)
        with torch.no_grad():
            self.table = filter_tables([self.net], self.basis, self.grid, torch.float32)[0]
        self.pairs = ops.Pairs(
            self.d_half, *self.weights(), row_ptr, idx_j, self.grid.step, CUTOFF, "cosine"
        )
        torch.manual_seed(0)
        self.u, self.x, self.y = (torch.randn(len(positions), n_features) for _ in range(3))
        self.v = torch.randn(len(half))
        self.rbf = self.basis(self.d).float()
        self.fc = cosine_cutoff(self.d, CUTOFF).float()

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        grid = self.grid
        return ops.spline_weights(
            self.d_half, grid.step, CUTOFF, "cosine", grid.n_rows, 2, torch.float32
        )

    def kernels(self) -> dict[str, Callable[[], object]]:
        u, v, x, y, table, pairs = self.u, self.v, self.x, self.y, self.table, self.pairs
        n_rows = self.grid.n_rows
        return {
            "spline_weights": self.weights,
            "P1 cfconv": lambda: ops.cfconv(x, table, pairs),
            "P2 cfconv_backward": lambda: ops.cfconv_backward(y, x, table, pairs),
            "P3, P4 cfconv_double_backward": lambda: ops.cfconv_double_backward(
                u, v, x, table, pairs
            ),
            "P5 cfconv_backward_table_gradient": lambda: ops.cfconv_backward_table_gradient(
                u, v, y, x, pairs, n_rows
            ),
            "P5 cfconv_table_gradient": lambda: ops.cfconv_table_gradient(
                u, x, None, pairs, n_rows, 0
            ),
            "cfconv_dot": lambda: ops.cfconv_dot(y, x, table, pairs, 1),
        }

    def dense(self) -> torch.Tensor:
        filters = self.net(self.rbf) * self.fc[:, None]
        return dense_cfconv(self.x, filters, self.i, self.j)

    def dense_backward(self) -> None:
        """Forward, and the gradient in x and in the distances."""
        d, x = self.d.detach().requires_grad_(), self.x.detach().requires_grad_()
        filters = self.net(self.basis(d).float()) * cosine_cutoff(d, CUTOFF).float()[:, None]
        torch.autograd.grad(dense_cfconv(x, filters, self.i, self.j), (x, d), self.y)

    def tabulated_backward(self) -> None:
        """The same, spline weights included."""
        d, x = self.d_half.detach().requires_grad_(), self.x.detach().requires_grad_()
        bins, weights = self.weights()
        pairs = self.pairs._replace(d_ij=d, bins=bins, weights=weights)
        torch.autograd.grad(ops.cfconv(x, self.table, pairs), (x, d), self.y)


def medians(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """CPU time of each call in milliseconds; all take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    start = time.perf_counter()
    while len(next(iter(times.values()))) < 5 or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            before = time.process_time()
            call()
            times[name].append(1e3 * (time.process_time() - before))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(case: Case, n_features: int, limit: dict[str, float], seconds: float) -> dict:
    n_half = len(case.d_half)
    with torch.no_grad():
        kernels = medians(case.kernels(), seconds)
        dense = medians({"forward": case.dense}, seconds)["forward"]
    both = medians({"dense": case.dense_backward, "ours": case.tabulated_backward}, seconds)
    rows = {}
    for name, ms in kernels.items():
        rows[name] = {"ms": ms}
        if name in WORK:
            operations, reads, table_rows = WORK[name]
            gflops = operations * n_half * n_features / ms / 1e6
            vectors = n_half * n_features * 4 / ms / 1e6  # GB/s if each vector is read once
            rows[name] |= {
                "gflops": gflops,
                "of_fma_peak": gflops / limit["fma_gflops"],
                "of_l1": reads * vectors / limit["l1_gbytes"],
                "of_l2": table_rows * vectors / limit["l2_gbytes"],
            }
    return {
        "n_atoms": len(case.x),
        "n_directed_pairs": 2 * n_half,
        "n_features": n_features,
        "kernels": rows,
        "dense_forward_ms": dense,
        "forward_ratio": dense / kernels["P1 cfconv"],
        "dense_forward_backward_ms": both["dense"],
        "forward_backward_ms": both["ours"],
        "forward_backward_ratio": both["dense"] / both["ours"],
    }


def report(name: str, result: dict) -> None:
    print(f"\n{name}, {result['n_directed_pairs']} directed pairs, F = {result['n_features']}")
    for kernel, row in result["kernels"].items():
        line = f"  {kernel:34s} {row['ms']:8.3f} ms"
        if "gflops" in row:
            line += f"  {row['gflops']:6.1f} GFLOP/s"
            line += (
                f"  FMA {row['of_fma_peak']:4.0%}  L1 {row['of_l1']:4.0%}  L2 {row['of_l2']:4.0%}"
            )
        print(line)
    print(
        f"  dense: forward {result['dense_forward_ms']:.1f} ms ({result['forward_ratio']:.0f} x), and backward "
        f"{result['dense_forward_backward_ms']:.1f} ms ({result['forward_backward_ratio']:.0f} x of "
        f"{result['forward_backward_ms']:.2f} ms)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    limit = limits()
    print({name: round(value, 1) for name, value in limit.items()})
    results = []
    for name, system in systems(options.data).items():
        for n_features in (128, 256):
            case = Case(system, n_features)
            result = measure(case, n_features, limit, 0.2 if options.quick else 2.0)
            results.append({"system": name} | result)
            report(name, result)
    if options.out:
        facts = {
            "processor": processor(),
            "instruction_sets": _C.instruction_sets(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": 1,
            "dtype": "float32",
            "limits": limit,
            "cases": results,
        }
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
