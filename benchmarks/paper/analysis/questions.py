"""Three questions to trained models, each answered by a figure and its numbers beside it.

python benchmarks/paper/analysis/questions.py qm9 RUN...        is the last block's weight matched by its Shapley value?
python benchmarks/paper/analysis/questions.py aspirin RUN...    which elements need the higher blocks?
python benchmarks/paper/analysis/questions.py benzene RUN...    what do fewer blocks cost, and gain?

Runs differ in their seed alone. For benzene, RUN-K-blocks lie beside RUN, made by `python -m scschnet.analysis prune`,
and runs of two blocks trained from scratch follow --scratch.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scschnet.analysis import plots
from scschnet.analysis.environments import trajectory_contributions
from scschnet.analysis.importance import coalition_forces, energy_importance, shapley_values
from scschnet.analysis.pareto import measure
from scschnet.analysis.tables import write_table
from scschnet.data import evenly
from scschnet.elements import symbol
from scschnet.runs.contributions import layer_names
from scschnet.runs.run import read_run
from scschnet.units import energy_factor

HERE = Path(__file__).parent
KCAL = energy_factor("kcal/mol")
FRAMES, FORCE_FRAMES, TEST_FRAMES = 1000, 30, 2000
COLORS = ("0.65", plots.ACCENT)


def qm9(runs: Sequence[Path]) -> None:
    """Normalized weights and Shapley values of the energy error, mean and spread over runs."""
    weights, found = [], []
    for path in runs:
        run = read_run(path)
        structures = evenly(run.part("test"), 10**12, FRAMES)
        weights.append(trajectory_contributions(run.model, structures).mean(axis=0))
        found.append(energy_importance(run.model, structures))
    shapley = np.stack([one.shapley for one in found]) / KCAL
    left_out = np.stack([one.left_out for one in found]) / KCAL
    shares = [
        100 * np.abs(w) / np.abs(w).sum(axis=1, keepdims=True) for w in (np.stack(weights), shapley)
    ]
    names = layer_names(shapley.shape[1])
    with plots.figure_style():
        figure = plots.new_figure()
        axes = figure.add_subplot()
        for k, (share, label) in enumerate(
            zip(shares, ("normalized weight", "Shapley value"), strict=True)
        ):
            x = np.arange(len(names)) + (k - 0.5) * 0.4
            axes.bar(x, share.mean(axis=0), 0.36, color=COLORS[k], label=label)
            axes.errorbar(
                x, share.mean(axis=0), share.std(axis=0, ddof=1), fmt="none", ecolor="0.3"
            )
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("share of all layers (%)")
        plots.legend_above(axes, 2)
        plots.save_figure(figure, HERE / "qm9_weight_and_shapley.png")
    rows = [
        (
            path.name,
            name,
            *(weights[r][k], shares[0][r, k]),
            *(shapley[r, k], found[r].shapley_se[k] / KCAL, shares[1][r, k]),
            left_out[r, k],
        )
        for r, path in enumerate(runs)
        for k, name in enumerate(names)
    ]
    columns = ["run", "layer", "normalized_weight", "weight_share (%)", "shapley (kcal/mol)"]
    columns += ["shapley_se (kcal/mol)", "shapley_share (%)", "left_out (kcal/mol)"]
    print(write_table(HERE / "qm9_weight_and_shapley.csv", columns, rows))
    for k, name in enumerate(names):
        parts = [f"{s[:, k].mean():6.1f} ± {s[:, k].std(ddof=1):4.1f} %" for s in shares]
        print(
            f"{name}: weight {parts[0]}, Shapley {parts[1]}, left out {left_out[:, k].mean():+.2f} kcal/mol"
        )


def aspirin(runs: Sequence[Path]) -> None:
    """Shapley values of the force error on each element's atoms, mean and spread over runs."""
    values, errors = [], []
    for path in runs:
        run = read_run(path)
        structures = evenly(run.part("test"), 10**12, FORCE_FRAMES)
        wrong = np.abs(coalition_forces(run.model, structures) - structures.forces).mean(axis=2)
        elements = [structures.atomic_numbers == z for z in structures.elements]
        by_element = np.stack([wrong[:, of].mean(axis=1) for of in elements], axis=1) / KCAL
        values.append(shapley_values(-by_element))
        errors.append(by_element[[0, -1]])
    shapley = np.stack(values)  # (n_runs, n_layers, n_elements)
    shares = 100 * shapley / shapley.sum(axis=1, keepdims=True)
    symbols = [symbol(int(z)) for z in structures.elements]
    names = layer_names(shapley.shape[1])
    with plots.figure_style():
        figure = plots.new_figure()
        axes = figure.add_subplot()
        for k, (name, color) in enumerate(
            zip(symbols, ("0.65", plots.ACCENT, "#cc4778"), strict=True)
        ):
            x = np.arange(len(names)) + (k - 1) * 0.27
            axes.bar(x, shares[:, :, k].mean(axis=0), 0.25, color=color, label=name)
            spread = shares[:, :, k].std(axis=0, ddof=1)
            axes.errorbar(
                x, shares[:, :, k].mean(axis=0), spread, fmt="none", ecolor="0.3", linewidth=0.8
            )
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("share of the force error's reduction (%)")
        plots.legend_above(axes, len(symbols))
        plots.save_figure(figure, HERE / "aspirin_elements.png")
    rows = [
        (path.name, symbols[z], name, shapley[r, k, z], shares[r, k, z], *errors[r][:, z])
        for r, path in enumerate(runs)
        for z in range(len(symbols))
        for k, name in enumerate(names)
    ]
    columns = ["run", "element", "layer", "shapley (kcal/mol/Å)", "share (%)"]
    columns += ["MAE without layers (kcal/mol/Å)", "MAE (kcal/mol/Å)"]
    print(write_table(HERE / "aspirin_elements.csv", columns, rows))
    high = shares[:, 4:].sum(axis=1)  # v4, v5, v6
    for z, name in enumerate(symbols):
        parts = " ".join(
            f"{shares[:, k, z].mean():5.1f}±{shares[:, k, z].std(ddof=1):.1f}" for k in range(7)
        )
        print(
            f"{name}: {parts} | v4 to v6 {high[:, z].mean():.1f} ± {high[:, z].std(ddof=1):.1f} %"
        )


def benzene(runs: Sequence[Path], scratch: Sequence[Path]) -> None:
    """Error and time against the number of blocks, mean and spread over runs."""
    rows, table = [], {}
    groups = [(k, [Path(f"{run}-{k}-blocks") for run in runs]) for k in (1, 2, 3, 4)]
    groups.append((6, list(runs)))
    found = {(k, "pruned"): paths for k, paths in groups}
    found[6, "whole"] = found.pop((6, "pruned"))
    if scratch:
        found[2, "from scratch"] = list(scratch)
    for (k, kind), paths in found.items():
        measured = [
            measure(path, evenly(read_run(path).part("test"), 10**12, TEST_FRAMES))
            for path in paths
        ]
        table[k, kind] = np.array(
            [[m.energy / KCAL, m.forces / KCAL, 1e6 * m.seconds / m.n_atoms] for m in measured]
        )
        rows += [
            (p.name, k, kind, *values, m.reach)
            for p, m, values in zip(paths, measured, table[k, kind], strict=True)
        ]
    columns = ["run", "blocks", "kind", "energy MAE (kcal/mol)", "forces MAE (kcal/mol/Å)"]
    columns += ["energy and forces (µs/atom)", "blocks x cutoff (Å)"]
    print(write_table(HERE / "benzene_pruning.csv", columns, rows))
    for (k, kind), values in table.items():
        mean, std = values.mean(axis=0), values.std(axis=0, ddof=1)
        words = ", ".join(f"{a:.3f} ± {b:.3f}" for a, b in zip(mean, std, strict=True))
        print(f"{k} blocks, {kind}: energy, forces, µs/atom: {words}")
    _draw_benzene(table)


def _draw_benzene(table: dict[tuple[int, str], np.ndarray]) -> None:
    with plots.figure_style():
        figure = plots.new_figure(2 * plots.COLUMN_WIDTH, plots.HEIGHT)
        for column, axes in enumerate(figure.subplots(1, 2)):
            line = [(k, v) for (k, kind), v in sorted(table.items()) if kind != "from scratch"]
            x = np.array([v[:, 2].mean() for _, v in line])
            y = np.array([v[:, column].mean() for _, v in line])
            spread = [v[:, column].std(ddof=1) for _, v in line]
            label = "trailing blocks dropped"
            axes.errorbar(x, y, spread, fmt="o-", color=plots.ACCENT, markersize=4, label=label)
            for (k, _), a, b in zip(line, x, y, strict=True):
                axes.annotate(str(k), (a, b), (5, 5), textcoords="offset points")
            for (_, kind), v in table.items():
                if kind == "from scratch":
                    at = (v[:, 2].mean(), v[:, column].mean(), v[:, column].std(ddof=1))
                    axes.errorbar(
                        *at, fmt="s", color="#cc4778", markersize=4, label="2 blocks from scratch"
                    )
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
            axes.set_xlabel("energy and forces (µs/atom)")
            axes.set_ylabel(("energy MAE (kcal/mol)", "forces MAE (kcal/mol/Å)")[column])
            axes.legend(fontsize=6.5)
        plots.save_figure(figure, HERE / "benzene_pruning.png")


def main() -> None:
    """Answer the question that the command line asks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("question", choices=("qm9", "aspirin", "benzene"))
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--scratch", nargs="*", type=Path, default=[])
    options = parser.parse_args()
    if len(options.runs) < 2:
        parser.error("name two runs or more: a spread needs them")
    if options.question == "benzene":
        benzene(options.runs, options.scratch)
    else:
        {"qm9": qm9, "aspirin": aspirin}[options.question](options.runs)


if __name__ == "__main__":
    main()
