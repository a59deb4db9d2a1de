"""Writes RESULTS.md from the stored results: python benchmarks/make_results.py"""

import json
from pathlib import Path

from table_cfconv import table as cfconv_table
from table_export import table as export_table
from table_neighbor_list import table as neighbor_list_table
from table_targets import table as targets_table

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def trainings() -> str:
    lines = [
        "| run | options | epochs | energy MAE / RMSE | forces MAE / RMSE | wall time |",
        "|---|---|---|---|---|---|",
    ]
    for file in sorted((RESULTS / "runs").glob("*/result.json")):
        result = json.loads(file.read_text())
        config, test = result["config"], result["test"]
        energy = test["energy"]["kcal/mol"]
        forces = test.get("forces", {}).get("kcal/mol/Å")
        options = (
            f"{config['skip']} skip, F = {config['n_features']}, L = {config['n_interactions']}, "
            f"batch {config['batch_size']}, lr {config['lr']:g}, {config['schedule']}, "
            f"{config['n_train']} + {config['n_val']}, {config['filters']} filters, "
            f"{config['threads'] or 'all'} thread(s)"
        )
        lines.append(
            f"| [{file.parent.name}](results/runs/{file.parent.name}/contributions.png) | {options} "
            f"| {config['epochs']} (best {test['epoch']}) | {energy['mae']:.3f} / {energy['rmse']:.3f} | "
            + (f"{forces['mae']:.3f} / {forces['rmse']:.3f}" if forces else "–")
            + f" | {result['seconds'] / 60:.1f} min, {result['processor']} |"
        )
    return "\n".join(lines)


def steps(file: Path) -> str:
    """The fused network against our dense one; a peer's times belong to another file."""
    report = json.loads(file.read_text())
    results = {(r["case"], r["path"]): r for r in report["results"]}
    lines = [
        f"{report['processor']}, torch {report['torch']}, {report['threads']} thread, load average "
        f"{report['load_before'][0]:.1f} before the run.",
        "",
        "| case | tables, one operator: ms | dense: ms | ratio | memory added, MiB: tables / dense |",
        "|---|---|---|---|---|",
    ]
    for case in dict.fromkeys(r["case"] for r in report["results"]):
        fused, dense = results.get((case, "fused")), results.get((case, "dense"))
        if fused is None:
            continue
        title = (
            f"{case}: {fused['kind'].replace('_', ' ')}, {fused['n_atoms']:,} atoms, "
            f"F = {fused['n_features']}, {fused['n_rbf']} Gaussians"
        )
        columns = [title, f"{fused['cpu_ms']:.1f}"]
        if dense is not None:
            columns += [f"{dense['cpu_ms']:.0f}", f"{dense['cpu_ms'] / fused['cpu_ms']:.1f}x"]
        else:
            columns += ["–", "–"]
        memory = [f"{r['memory_added_mib']:.0f}" if r else "–" for r in (fused, dense)]
        lines.append("| " + " | ".join([*columns, " / ".join(memory)]) + " |")
    return "\n".join(lines)


def accuracy(file: Path) -> str:
    """Errors of both float32 evaluations, and where tables are more than twice as far off."""
    lines = [
        "| structures, weights | quantity | dense float32 | tables float32 | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, both in json.loads(file.read_text()).items():
        dense, spline = both["dense float32"], both["spline float32"]
        for quantity in sorted(dense):
            ratio = spline[quantity] / dense[quantity]
            verdict = f"{ratio:.2f}" + (" (missed: 2)" if ratio > 2 else "")
            lines.append(
                f"| {name} | {quantity} | {dense[quantity]:.1e} | {spline[quantity]:.1e} | {verdict} |"
            )
    return "\n".join(lines)


def conservation(file: Path) -> str:
    """Drift and fluctuation of the total energy, by filters and dtype."""
    report = json.loads(file.read_text())
    lines = [
        f"NVE of one ethanol, {len(next(iter(report['trajectories'].values()))['drifts'])} trajectories of {report['ps']:g} ps with a time step of {report['timestep_fs']:g} fs, begun for about "
        f"{report['kelvin']:g} K, by ASE; model of `python -m scschnet.train`. `python benchmarks/nve.py RUN`; "
        "[curves](results/nve.png).",
        "",
        "| filters, dtype | drift, eV/atom/ps: mean and its standard error | rms distance from the line, eV/atom |",
        "|---|---|---|",
    ]
    for name, found in report["trajectories"].items():
        lines.append(
            f"| {name} | {found['drift']:.1e} ± {found['standard error of the drift']:.0e} | {found['fluctuation']:.1e} |"
        )
    return "\n".join(lines)


def curves(file: Path) -> str:
    """How far two trainings from one seed come apart."""
    report = json.loads(file.read_text())
    lines = [
        "The default training of ethanol from one seed, 300 steps; largest relative difference of the loss of a "
        "step from that with dense filters. `python benchmarks/training_curves.py`; [curves](results/training_curves.png).",
        "",
        "| dtype | what differs | largest difference |",
        "|---|---|---|",
    ]
    for dtype, found in report["dtypes"].items():
        for name, difference in found["differences"].items():
            lines.append(f"| {dtype} | {name} | {difference['largest']:.1e} |")
    return "\n".join(lines)


def main() -> None:
    lists = sorted(RESULTS.glob("neighbor_list_*.json"))
    parts = [
        "# Results",
        "Made by `python benchmarks/make_results.py` from the files in `results/`; each names its hardware and "
        "versions. Times are CPU time of one process (medians) unless said otherwise; ratios are measured side by "
        "side in one run. Targets that were missed are marked as missed.",
        "## Neighbor lists",
        "Pairs i, j (int64) and S (int32), liquid water, 5 Å. `python benchmarks/bench_neighbor_list.py --out FILE`",
        *(neighbor_list_table(file) for file in lists),
        "## Convolution",
        "`python benchmarks/bench_cfconv.py`",
        *(cfconv_table(file) for file in sorted(RESULTS.glob("cfconv_*.json"))),
        "## Training step, and energy with forces",
        "Six blocks, float32. `python benchmarks/bench_step.py`; SchNetPack's times: `benchmarks/peers/`.",
        *(steps(file) for file in sorted(RESULTS.glob("step_*.json"))),
        "## Against other programs, and targets",
        "`python benchmarks/bench_step.py`, `bench_system.py`, `peers/schnetpack_step.py`, `peers/pyg_step.py`.",
        targets_table(
            *(
                RESULTS / f"{name}_intel_xeon_avx512.json"
                for name in ("step", "system", "peer_schnetpack_step", "peer_pyg_step")
            )
        ),
        "## Exported files",
        "`python benchmarks/bench_export.py`. The same frame in every program: `HOSTS.md`; LAMMPS: `lammps/RESULTS.md`.",
        *(export_table(file) for file in sorted(RESULTS.glob("export_*.json"))),
        "## Conservation of energy",
        conservation(RESULTS / "nve.json"),
        "## Training curves",
        curves(RESULTS / "training_curves.json"),
        "## Accuracy of tabulated filters",
        "Errors against the dense float64 network with the same weights, rms over several batches relative to the spread of the exact values (gradients of a force loss: worst parameter). "
        "`python benchmarks/accuracy_filters.py DATA_FOLDER RUN`; target: at most twice those of dense float32.",
        accuracy(RESULTS / "accuracy_filters.json"),
        "## Trainings",
        "Test errors in kcal/mol and kcal/mol/Å, of the epoch with the lowest validation loss. "
        "`python -m scschnet.train`, then `python benchmarks/summarize_run.py RUN NAME`.",
        trainings(),
    ]
    notes = HERE / "results" / "notes.md"
    if notes.exists():
        parts.append(notes.read_text().strip())
    (HERE / "RESULTS.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
