"""Tables and figures of the runs of run.py: errors, and contribution weights by property.

python benchmarks/properties/summarize.py --runs FOLDER

writes results/errors.csv, results/weights.csv, results/tables.md and figures beside this file.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from run import ALL, ALONE, SEEDS, SIZES, Run

from scschnet.analysis.properties import PropertyContributions, plot_properties
from scschnet.properties import KNOWN
from scschnet.runs.contributions import read_contributions

HERE = Path(__file__).parent
# SchNet of Schuett et al. 2018, doi:10.1063/1.5019779, one model a property, 110,000 molecules; meV for energies
PUBLISHED = dict(
    zip(ALL, (14, 0.033, 0.235, 41, 34, 63, 0.073, 1.7, 19, 14, 14, 0.033), strict=True)
)


def unit_of(name: str) -> str:
    """The unit in which errors are published."""
    return "meV" if KNOWN[name].unit == "eV" else KNOWN[name].unit


def finished(runs: Path) -> list[Run]:
    """The runs that have ended."""
    every = [
        Run(what, seed, n)
        for n in SIZES
        for what in (ALL, *((p,) for p in ALONE))
        for seed in SEEDS
    ]
    return [run for run in every if (runs / run.folder / "test.json").exists()]


def errors(runs: Path, found: list[Run]) -> dict[tuple[int, str, str], list[float]]:
    """Test MAE of every seed, by molecules, all or alone, and property."""
    values: dict[tuple[int, str, str], list[float]] = {}
    for run in found:
        test = json.loads((runs / run.folder / "test.json").read_text())
        what = "all" if len(run.properties) > 1 else "alone"
        for name in run.properties:
            values.setdefault((run.n_train, what, name), []).append(
                test[name][unit_of(name)]["mae"]
            )
    return values


def weights(runs: Path, found: list[Run]) -> dict[tuple[int, str, str], np.ndarray]:
    """w_hat at the last epoch, (n_seeds, n_layers), by the same."""
    values: dict[tuple[int, str, str], list[np.ndarray]] = {}
    for run in found:
        what = "all" if len(run.properties) > 1 else "alone"
        for name in run.properties:
            last = read_contributions(runs / run.folder, name).normalized_weight[-1]
            values.setdefault((run.n_train, what, name), []).append(last)
    return {key: np.stack(rows) for key, rows in values.items()}


def depths(of_seeds: np.ndarray) -> np.ndarray:
    """Mean layer of the shares, for each seed."""
    shares = np.abs(of_seeds) / np.abs(of_seeds).sum(axis=1, keepdims=True)
    return shares @ np.arange(of_seeds.shape[1])


def cell(values: np.ndarray, digits: str) -> str:
    """Mean, and spread where there are several."""
    spread = f" ± {values.std(ddof=1):{digits}}" if len(values) > 1 else ""
    return f"{values.mean():{digits}}{spread}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    runs = parser.parse_args().runs
    found = finished(runs)
    wrong, w_hat = errors(runs, found), weights(runs, found)
    (HERE / "results").mkdir(exist_ok=True)
    with (HERE / "results" / "errors.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("n_train", "together", "property", "unit", "seed_number", "mae"))
        writer.writerows(
            (*key, unit_of(key[2]), k, f"{value:.6g}")
            for key, of_seeds in wrong.items()
            for k, value in enumerate(of_seeds)
        )
    with (HERE / "results" / "weights.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("n_train", "together", "property", "seed_number", "layer", "w_hat"))
        writer.writerows(
            (*key, k, layer, f"{value:.6g}")
            for key, of_seeds in w_hat.items()
            for (k, layer), value in np.ndenumerate(of_seeds)
        )
    cases = sorted({key[:2] for key in wrong}, key=lambda case: (case[0], case[1]))
    heads = [f"{n:,}, {what}" for n, what in cases]
    lines = ["| property | unit | " + " | ".join(heads) + " | SchNet, 110,000, alone |"]
    lines.append("|---" * (len(cases) + 3) + "|")
    for name in ALL:
        cells = [
            cell(np.array(wrong[*case, name]), ".3g") if (*case, name) in wrong else ""
            for case in cases
        ]
        lines.append(f"| {name} | {unit_of(name)} | {' | '.join(cells)} | {PUBLISHED[name]} |")
    for case in cases:
        names = [name for name in ALL if (*case, name) in w_hat]
        mean = np.stack([w_hat[*case, name].mean(axis=0) for name in names])
        std = np.stack([w_hat[*case, name].std(axis=0) for name in names])
        n_seeds = len(w_hat[*case, names[0]])
        of = PropertyContributions(tuple(names), mean, std, n_seeds)
        plot_properties(of, HERE / "results" / f"weights_{case[0]}_{case[1]}.png")
        (
            HERE / "results" / f"weights_{case[0]}_{case[1]}.csv"
        ).unlink()  # weights.csv has every seed
        layers = [f"v{layer}" for layer in range(mean.shape[1])]
        lines += [
            "",
            f"Shares of |w_hat|, %, {case[0]:,} molecules, {case[1]}, mean over {n_seeds} seeds; depth ± s.d.:",
            "",
        ]
        lines += [
            "| property | " + " | ".join(layers) + " | depth |",
            "|---" * (len(layers) + 2) + "|",
        ]
        for name, row in zip(names, of.shares, strict=True):
            numbers = " | ".join(f"{100 * share:.0f}" for share in row)
            lines.append(f"| {name} | {numbers} | {cell(depths(w_hat[*case, name]), '.2f')} |")
    (HERE / "results" / "tables.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
