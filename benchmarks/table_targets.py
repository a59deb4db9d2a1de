"""Markdown table of targets, from files of bench_step.py, bench_system.py and of the peers.

python benchmarks/table_targets.py STEP.json SYSTEM.json SCHNETPACK.json PYG.json
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

BEST = "tuned_flush"  # the fastest setting found for SchNetPack


@dataclass(frozen=True)
class Target:
    """Times faster than SchNetPack as installed, and with the best settings found; None: not set."""

    case: str
    title: str
    installed: float
    best: float | None
    why_missed: str = ""


TARGETS = [
    Target(
        "aspirin",
        "force-training step, 50 aspirins, F = 128",
        22,
        18,
        "more than half of the step are matrix products and the passes between them; splitting float32 into parts "
        "takes a third of the products (`csrc/core/cpu/dense_amx.cpp`)",
    ),
    Target(
        "ethanol",
        "the same, 50 ethanols",
        13,
        12,
        "few pairs: the dense layers and the tables, which SchNetPack does not have, dominate",
    ),
    Target("qm9", "energy-training step, 100 QM9 molecules, F = 256", 15, 13, "as for aspirin"),
    Target(
        "water1536",
        "energy and forces, water, 1,536 atoms, list given",
        100,
        40,
        "the convolution is most of it, and reaches 25 to 38 % of the multiply-add peak",
    ),
    Target("water12288", "the same, 12,288 atoms", 100, None),
    Target(
        "md_ethanol",
        "step of MD through ASE, ethanol",
        8,
        None,
        "nine atoms: 40 % is the network, whose weights do not fit the second cache level, the rest Python and ASE",
    ),
    Target("md_water192", "the same, 192 atoms of water", 30, None),
]


def verdict(ratio: float, target: float | None) -> str:
    if target is None:
        return f"{ratio:.1f}x"
    return f"{ratio:.1f}x (target {target:g}: {'met' if ratio >= target else 'missed'})"


def times(file: Path, **chosen: object) -> dict[str, dict]:
    """Rows of a file by case, of those whose fields are as chosen."""
    rows = json.loads(file.read_text())["results"]
    return {r["case"]: r for r in rows if all(r.get(k) == v for k, v in chosen.items())}


def fastest(file: Path) -> dict[str, dict]:
    """The fastest row of each case."""
    rows = [r for r in json.loads(file.read_text())["results"] if "cpu_ms" in r]
    return {r["case"]: r for r in sorted(rows, key=lambda r: -r["cpu_ms"])}


def shown(ms: float) -> str:
    return f"{ms:.3g}" if ms < 1000 else f"{ms:,.0f}"


def ratios(step: Path, system: Path, peer: Path, pyg: Path) -> list[str]:
    """Our times against the peers', one thread, float32."""
    geometric = fastest(pyg)
    ours = times(system, threads=1) | times(step, path="fused")
    installed, best = times(peer, setting="installed"), times(peer, setting=BEST)
    lines = [
        "| work | scschnet, ms | SchNetPack as installed, ms | its best settings, ms | faster than installed "
        "| faster than its best | PyTorch Geometric, fastest setting, ms | why missed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for target in TARGETS:
        mine = ours[target.case]["cpu_ms"]
        cells = [target.title, f"{mine:.3g}"]
        found: list[str] = []
        is_met = True
        for peers, wanted in ((installed, target.installed), (best, target.best)):
            if target.case not in peers:
                cells.append("not run")
                found.append("–")
                continue
            other = peers[target.case]["cpu_ms"]
            cells.append(shown(other))
            found.append(verdict(other / mine, wanted))
            is_met = is_met and (wanted is None or other / mine >= wanted)
        other = geometric.get(target.case)
        found.append(
            f"{shown(other['cpu_ms'])} ({other['cpu_ms'] / mine:.1f}x)" if other else "not run"
        )
        why = "" if is_met else target.why_missed
        lines.append("| " + " | ".join([*cells, *found, why]) + " |")
    return lines


def surroundings(step: Path, system: Path) -> list[str]:
    """What has a target of its own: batches, epochs, sizes, threads, memory."""
    one, two = times(system, threads=1), times(system, threads=2)
    sizes = [row for case, row in one.items() if case in SIZES]
    per_atom = [1e3 * row["cpu_ms"] / row["n_atoms"] for row in sizes]
    atoms = ", ".join(f"{row['n_atoms']:,}" for row in sizes)
    memory = times(step, path="fused")["water12288"]["memory_added_mib"]
    rows = [
        ("batch of 100 QM9 molecules, lists included", one["load_qm9"]["cpu_ms"], 0.5, "{:.2f} ms"),
        ("memory added by 12,288 atoms", memory / 1024, 0.5, "{:.2f} GiB"),
        (
            f"cost per atom, {atoms} atoms: largest over smallest",
            max(per_atom) / min(per_atom),
            1.5,
            "{:.2f}",
        ),
    ]
    rows += [
        (
            f"{name.replace('_', ' of ')}, everything included, over its bare steps",
            one[name]["ratio"],
            1.1,
            "{:.2f}",
        )
        for name in ("epoch_ethanol", "epoch_qm9")
        if name in one
    ]
    lines = ["| what | found | target |", "|---|---|---|"]
    for title, value, limit, form in rows:
        met = "met" if value <= limit else "missed"
        lines.append(f"| {title} | {form.format(value)} | <= {limit:g}: {met} |")
    for case in two:
        ratio = one[case]["wall_ms"] / two[case]["wall_ms"]
        met = "met" if ratio >= 1.7 else "missed"
        lines.append(
            f"| two threads over one, {case} | {ratio:.2f}x | >= 1.7 on large cases: {met} |"
        )
    return lines


SIZES = ("water192", "water1536", "water12288", "water98304")


def table(step: Path, system: Path, peer: Path, pyg: Path) -> str:
    """All targets, met or missed."""
    facts, versions = json.loads(system.read_text()), json.loads(peer.read_text())["versions"]
    versions |= json.loads(pyg.read_text())["versions"]
    head = (
        f"{facts['processor']} ({facts['instruction_sets'][-1]}), torch {facts['torch']}, one thread, float32, CPU "
        f"time; SchNetPack {versions['schnetpack']}, PyTorch Geometric {versions['torch-geometric']} (eager or compiled, "
        "pairs given). Best settings: glibc keeps freed memory, and denormal numbers, to which Gaussians decay, "
        "count as zero. The same data and sizes, on the same machine, one after another."
    )
    return "\n".join([head, "", *ratios(step, system, peer, pyg), "", *surroundings(step, system)])


if __name__ == "__main__":
    print(table(*map(Path, sys.argv[1:5])))
