"""Markdown table of a file written by bench_cfconv.py: python benchmarks/table_cfconv.py FILE.json"""

import json
import sys
from pathlib import Path

TITLES = {
    "P1 cfconv": "P1 forward",
    "P2 cfconv_backward": "P2 backward",
    "P3, P4 cfconv_double_backward": "P3, P4 double backward",
    "P5 cfconv_backward_table_gradient": "P5 table gradient",
}


def cell(row: dict) -> str:
    level_2 = f"{row['of_l2']:.0%}" if row["of_l2"] else "–"  # the gradient reads no table
    return f"{row['ms']:.2f} ms; {row['of_fma_peak']:.0%}, {row['of_l1']:.0%}, {level_2}"


def table(file: Path) -> str:
    """Times and fractions of the multiply-add peak, and ratios to the dense convolution."""
    facts = json.loads(file.read_text())
    limit = facts["limits"]
    lines = [
        f"{facts['processor']} ({facts['instruction_sets'][-1]}), torch {facts['torch']}, {facts['threads']} thread, "
        f"{facts['dtype']}. Measured in the same run: {limit['fma_gflops']:.0f} GFLOP/s of multiply-adds, reading "
        f"{limit['l1_gbytes']:.0f} GB/s from the first and {limit['l2_gbytes']:.0f} GB/s from the second cache level. "
        "Percentages: of the multiply-add peak, and of reading from the first and from the second level (bench_cfconv.py says "
        "how the reading is counted; the largest is what bounds a kernel). Target: one half of it.",
        "",
        "| system | directed pairs | F | "
        + " | ".join(TITLES.values())
        + " | dense / P1 | dense / ours, with backward |",
        "|---" * (len(TITLES) + 5) + "|",
    ]
    for case in facts["cases"]:
        kernels = case["kernels"]
        cells = [
            case["system"],
            f"{case['n_directed_pairs']:,}",
            str(case["n_features"]),
            *(cell(kernels[name]) for name in TITLES),
            f"{case['forward_ratio']:.0f}",
            f"{case['forward_backward_ratio']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
