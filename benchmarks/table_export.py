"""Markdown tables of a file written by bench_export.py: python benchmarks/table_export.py FILE.json"""

import json
import sys
from pathlib import Path

TITLES = {
    "model in Python": "in Python",
    "forward": "exported",
    "forward, unfamiliarity": "with unfamiliarity",
    "forward, layers and virials": "with layers, virials of atoms",
    "portable forward": "portable",
    "forward_pairs": "exported, pairs",
    "portable forward_pairs": "portable, pairs",
    "pt2 pairs": ".pt2, pairs",
}
EXECUTORS = {"our loader": "", "torch default": ", torch's own executor", "pairs": ", pairs"}


def title(case: str) -> str:
    name, features = case.split("_")
    atoms = name.removeprefix("water")
    return f"{name if atoms == name else f'water {int(atoms):,}'}, F = {features}"


def milliseconds(us: float) -> str:
    return f"{us / 1e3:.3g}"


def settled(cases: dict) -> list[str]:
    lines = [
        "| system | pairs | " + " | ".join(TITLES.values()) + " |",
        "|---" * (len(TITLES) + 2) + "|",
    ]
    for case, found in cases.items():
        times = [milliseconds(found["us"][name]) for name in TITLES]
        lines.append(f"| {title(case)} | {found['n_half_pairs']:,} | " + " | ".join(times) + " |")
    return lines


def first(cases: dict) -> list[str]:
    lines = [
        "| system | file | loading | calls 1 to 5 | the first structure again | median of 6 to 20 | median of 81 to 100 | sum of 100 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, files in cases.items():
        for name, found in files.items():
            kind, executor = name.split(", ")
            cells = [
                title(case),
                {"pt2": ".pt2"}.get(kind, kind) + EXECUTORS[executor],
                f"{found['load_ms']:.0f}",
                ", ".join(milliseconds(us) for us in found["calls_1_to_5_us"]),
                milliseconds(found["first_structure_again_us"]),
                milliseconds(found["calls_6_to_20_median_us"]),
                milliseconds(found["calls_81_to_100_median_us"]),
                f"{found['sum_of_100_ms']:.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def table(file: Path) -> str:
    """Calls once things have settled, and the first hundred with changing numbers of pairs; ms."""
    facts = json.loads(file.read_text())
    head = (
        f"{facts['processor']}, torch {facts['torch']}, {facts['threads']} thread, float32, six blocks, load average "
        f"{facts['load_before'][0]:.1f} before the run. CPU ms per call, neighbor list included unless it says pairs."
    )
    second = "The first calls of a process, every one with another number of pairs, ms:"
    return "\n".join(
        [head, "", *settled(facts["settled"]), "", second, "", *first(facts["first_calls"])]
    )


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
