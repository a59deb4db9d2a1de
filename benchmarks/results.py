"""Writes RESULTS.md from the stored results: python -m benchmarks.results

The speed of a machine is results/speed_PROCESSOR.json, a file of `python -m pytest benchmarks --benchmark-save=...`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks import potentials

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
RESULTS = HERE / "results"
DRAWN = {  # energy and forces of water
    "test_energy_and_forces[1 thread": "scschnet, F = 128",
    "test_energy_and_forces_of_small_model[1 thread": "scschnet, F = 32",
}


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def speed(file: Path) -> str:
    """One table for each group of benchmarks, and the figure."""
    report = json.loads(file.read_text())
    machine = report["machine_info"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    figure = draw(report["benchmarks"], file.with_suffix(".png"))
    parts = [
        f"{machine['processor_name']} ({machine['instruction_sets'][-1]}), {machine['cpu']['count']} cores; python "
        f"{machine['python_version']}, {versions}; structures {machine['data']}; revision "
        f"{report['commit_info']['id'][:7]}.",
        f"![Time per atom against number of atoms](results/{figure.name})",
    ]
    groups = dict.fromkeys(bench["group"] for bench in report["benchmarks"])
    for group in groups:
        chosen = [bench for bench in report["benchmarks"] if bench["group"] == group]
        parts += [f"### {group}", table(TITLES, [row(bench) for bench in chosen])]
    return "\n\n".join(parts)


TITLES = ("benchmark", "atoms", "pairs", "median, ms", "iqr", "of bound", "MiB added", "in turns")


def row(bench: dict) -> list[str]:
    """Numbers of one benchmark; the fraction that is largest says what bounds it."""
    found, stats = bench["extra_info"], bench["stats"]
    fractions = {name[3:]: value for name, value in found.items() if name.startswith("of_")}
    bound = max(fractions, key=fractions.__getitem__, default="")
    ratios = [f"{name} {other['ratio']:.3g}x" for name, other in found.get("in_turns", {}).items()]
    return [
        bench["name"].removeprefix("test_"),
        f"{found['n_atoms']:,}" if "n_atoms" in found else "–",
        f"{found['n_pairs']:,}" if "n_pairs" in found else "–",
        f"{1e3 * stats['median']:.4g}",
        f"{stats['iqr'] / stats['median']:.0%}",
        f"{fractions[bound]:.0%} of {bound}" if bound else "–",
        f"{found['memory_added_mib']:.3g}" if "memory_added_mib" in found else "–",
        "; ".join(ratios) or "–",
    ]


def draw(benchmarks: Sequence[dict], file: Path) -> Path:
    """Time per atom of energy and forces of water, ours and of what ran in turns with it."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for bench in benchmarks:
        label = DRAWN.get(bench["name"].rpartition("-")[0])
        if label:
            n = bench["extra_info"]["n_atoms"]
            curves.setdefault(label, []).append((n, 1e6 * bench["stats"]["median"] / n))
            for name, other in bench["extra_info"].get("in_turns", {}).items():
                curves.setdefault(name, []).append((n, 1e6 * other["seconds"] / n))
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for name, points in curves.items():
        axes.loglog(*zip(*sorted(points), strict=True), "o-", label=name)
    times = [time for points in curves.values() for _, time in points]
    axes.set_ylim(min(times) / 2, max(times) * 2)
    axes.set(
        xlabel="atoms",
        ylabel="µs per atom, one thread",
        title="energy and forces of water, six blocks",
    )
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(file, dpi=150)
    plt.close(figure)
    return file


def potentials_for_water(file: Path, errors: Path) -> str:
    """What a step costs with ours and others, and the figures of docs/speed.md."""
    report, trained = json.loads(file.read_text()), json.loads(errors.read_text())
    found = potentials.times(report)
    potentials.draw_sizes(found, DOCS / "potentials.png")
    potentials.draw_front(found, trained["potentials"], DOCS / "pareto.png")
    machine = report["machine_info"]
    head = (
        f"{machine['processor_name']}, one core, CPU time; revision {report['commit_info']['id'][:7]}. Time of a step of F=32, "
        f"L=2 in LAMMPS times the ratios that were taken in turns with it; µs per atom and step. {trained['what']}"
    )
    return f"{head}\n\n{table(*potentials.rows(found, trained['potentials']))}"


def conservation(file: Path) -> str:
    """Drift and fluctuation of the total energy, by filters and dtype."""
    report = json.loads(file.read_text())
    found = report["trajectories"]
    n = len(next(iter(found.values()))["drifts"])
    head = (
        f"NVE of one ethanol, {n} trajectories of {report['ps']:g} ps with a time step of {report['timestep_fs']:g} fs, "
        f"begun for about {report['kelvin']:g} K, by ASE; model of `python -m scschnet.train`. `python -m benchmarks.nve RUN`; "
        "[curves](results/nve.png)."
    )
    titles = (
        "filters, dtype",
        "drift, eV/atom/ps: mean and its standard error",
        "rms distance from the line, eV/atom",
    )
    rows = [
        (
            name,
            f"{one['drift']:.1e} ± {one['standard error of the drift']:.0e}",
            f"{one['fluctuation']:.1e}",
        )
        for name, one in found.items()
    ]
    return f"{head}\n\n{table(titles, rows)}"


def curves(file: Path) -> str:
    """How far two trainings from one seed come apart."""
    report = json.loads(file.read_text())
    head = (
        "The default training of ethanol from one seed, 300 steps; largest relative difference of the loss of a step from "
        "that with dense filters. `python -m benchmarks.training_curves`; [curves](results/training_curves.png)."
    )
    rows = [
        (dtype, name, f"{difference['largest']:.1e}")
        for dtype, found in report["dtypes"].items()
        for name, difference in found["differences"].items()
    ]
    return f"{head}\n\n{table(('dtype', 'what differs', 'largest difference'), rows)}"


def accuracy(file: Path) -> str:
    """Errors of both float32 evaluations, and where tables are more than twice as far off."""
    rows = []
    for name, both in json.loads(file.read_text()).items():
        dense, spline = both["dense float32"], both["spline float32"]
        for quantity in sorted(dense):
            ratio = spline[quantity] / dense[quantity]
            verdict = f"{ratio:.2f}" + (" (missed: 2)" if ratio > 2 else "")
            rows.append(
                (name, quantity, f"{dense[quantity]:.1e}", f"{spline[quantity]:.1e}", verdict)
            )
    titles = ("structures, weights", "quantity", "dense float32", "tables float32", "ratio")
    return table(titles, rows)


def main() -> None:
    stored = sorted(RESULTS.glob("speed_*.json"))
    parts = [
        "# Results",
        "Made by `python -m benchmarks.results` from the files in `results/`; each names its hardware and versions. "
        "Targets that were missed are marked as missed.",
        "## Speed",
        "`README.md` says how these are measured, and how to measure yours. `in turns`: how many times as long others "
        "take, each turn of theirs followed by one of ours; `of bound`: fraction of what this CPU can do, by what is nearest.",
        *([speed(file) for file in stored] or ["No run on a quiet machine is stored yet."]),
        "## Potentials for water",
        potentials_for_water(RESULTS / "potentials.json", RESULTS / "water_errors.json"),
        "## Goals that are missed",
        "Ratios are of the sections above and below.",
        (RESULTS / "goals.md").read_text().strip(),
        "## Speed, measured before there was the suite",
        "By scripts that the suite has replaced, at revision df289ea, on a machine that was used by others too. Times are "
        "CPU time of one process (medians) unless said otherwise.",
        (RESULTS / "former.md").read_text().strip(),
        "## Conservation of energy",
        conservation(RESULTS / "nve.json"),
        "## Training curves",
        curves(RESULTS / "training_curves.json"),
        "## Accuracy of tabulated filters",
        "Errors against the dense float64 network with the same weights, rms over several batches relative to the spread of the "
        "exact values (gradients of a force loss: worst parameter). `python benchmarks/accuracy_filters.py DATA_FOLDER RUN`; "
        "target: at most twice those of dense float32.",
        accuracy(RESULTS / "accuracy_filters.json"),
    ]
    (HERE / "RESULTS.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
