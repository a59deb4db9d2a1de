"""Markdown table of a result of bench_neighbor_list.py; a missed target is marked as missed.

python benchmarks/table_neighbor_list.py benchmarks/results/FILE.json
"""

import json
import sys
from pathlib import Path

PEERS = ("vesin", "vesin sorted", "matscipy", "ase")


def target(name: str, kind: str) -> float:
    """How many times faster than the fastest peer we want to be."""
    if kind == "avx2":
        return 3.0
    small = not name.startswith("water") or int(name.split()[1]) < 1000
    return 4.0 if small else 10.0


def cell(ratio: float, wanted: float) -> str:
    return f"{ratio:.1f}x" + ("" if ratio >= wanted else f" (missed: {wanted:.0f}x)")


def row(name: str, result: dict) -> str:
    times = result["times"]
    cpu = {key: value["cpu_ms"] for key, value in times.items()}
    best = min((peer for peer in PEERS if peer in cpu), key=cpu.__getitem__)
    columns = [f"{name} ({result['pairs']:,} pairs)", f"{cpu['scschnet']:.4g}"]
    columns += [f"{cpu[peer]:.4g}" if peer in cpu else "–" for peer in PEERS]
    columns.append(cell(cpu[best] / cpu["scschnet"], target(name, "best")))
    avx2 = cpu.get("scschnet avx2")
    columns.append(cell(cpu[best] / avx2, target(name, "avx2")) if avx2 else "–")
    columns.append(f"{cpu[best] / cpu['scschnet generic']:.1f}x")
    one, two = times["scschnet"]["wall_ms"], times["scschnet 2 threads"]["wall_ms"]
    columns.append(f"{one:.4g} / {two:.4g}")
    return "| " + " | ".join(columns) + " |"


def batch_row(result: dict) -> str:
    cpu = {key: value["cpu_ms"] for key, value in result["times"].items()}
    best = min(("vesin", "matscipy"), key=cpu.__getitem__)
    parts = [
        f"{name} {cpu[name]:.4g}"
        for name in ("scschnet", "scschnet, 100 calls", "vesin", "matscipy")
    ]
    ratio = cell(cpu[best] / cpu["scschnet"], 50.0)
    return f"100 QM9 molecules ({result['pairs']:,} pairs), ms: {', '.join(parts)}; one call against a loop over {best}: {ratio}"


def table(file: Path) -> str:
    """The whole table."""
    report = json.loads(file.read_text())
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    titles = [
        "system",
        "scschnet",
        *PEERS,
        "faster than the fastest peer",
        "with AVX2",
        "without vectors",
        "wall ms, 1 / 2 threads",
    ]
    lines = [
        f"{report['processor']}, {report['instruction_sets'][-1]}; {versions}. "
        "CPU ms per call, one thread.",
        "",
        "| " + " | ".join(titles) + " |",
        "|" + "---|" * len(titles),
        *(row(name, result) for name, result in report["systems"].items()),
        "",
        batch_row(report["batch of 100 QM9 molecules"]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
