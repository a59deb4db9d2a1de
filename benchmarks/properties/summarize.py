"""Tables and figures of the runs of run.py: errors, and contribution weights by property.

python benchmarks/properties/summarize.py --runs FOLDER

writes errors.csv, weights.csv, tables.md and figures into the folder results beside this file. Errors are those of
finished runs; weights are compared at the last epoch that all seeds of a case have, finished or not.
"""

import argparse
import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from run import ALL, SIZES, Run, plan

from scschnet.analysis.properties import PropertyContributions, plot_properties
from scschnet.properties import KNOWN
from scschnet.runs.contributions import read_contributions

RESULTS = Path(__file__).parent / "results"
# SchNet of Schuett et al. 2018, doi:10.1063/1.5019779, a model for each property; meV for energies
PUBLISHED = dict(
    zip(ALL, (14, 0.033, 0.235, 41, 34, 63, 0.073, 1.7, 19, 14, 14, 0.033), strict=True)
)


class Case(NamedTuple):
    """Runs that differ in their seed alone."""

    n_train: int
    properties: tuple[str, ...]

    @property
    def words(self) -> str:
        """What they are."""
        return "together" if len(self.properties) > 1 else "alone"


def cases() -> dict[Case, list[Run]]:
    """The runs of the plan by case."""
    found: dict[Case, list[Run]] = {}
    for run in plan():
        found.setdefault(Case(run.n_train, run.properties), []).append(run)
    return found


def unit_of(name: str) -> str:
    """The unit in which errors are published."""
    return "meV" if KNOWN[name].unit == "eV" else KNOWN[name].unit


def errors(runs: Path) -> dict[tuple[Case, str], np.ndarray]:
    """Test MAE of the finished runs, (n_seeds,), by case and property."""
    found: dict[tuple[Case, str], list[float]] = {}
    for case, of_seeds in cases().items():
        for run in of_seeds:
            file = runs / run.folder / "test.json"
            test = json.loads(file.read_text()) if file.exists() else {}
            for name in case.properties:
                if name in test:
                    mae = test[name][unit_of(name)]["mae"]
                    found.setdefault((case, name), []).append(mae)
    return {key: np.array(values) for key, values in found.items()}


def weights(runs: Path, case: Case, of_seeds: list[Run]) -> tuple[int, np.ndarray]:
    """The epoch at which the seeds are compared, and w_hat, (n_seeds, n_properties, n_layers); none: epoch 0."""
    tables = [runs / run.folder for run in of_seeds if (runs / run.folder / "last.pt").exists()]
    found = [[read_contributions(table, name) for name in case.properties] for table in tables]
    if not found:
        return 0, np.zeros((0, len(case.properties), 0))
    epoch = min(int(one[0].epochs[-1]) for one in found)
    rows = [[one.normalized_weight[one.epochs == epoch][0] for one in each] for each in found]
    return epoch, np.array(rows)


def depths(w_hat: np.ndarray, first: int = 0) -> np.ndarray:
    """Mean layer of the shares, over the last axis, of the layers from `first` on."""
    sizes = np.abs(w_hat[..., first:])
    return sizes @ np.arange(first, w_hat.shape[-1]) / sizes.sum(axis=-1)


def cell(values: np.ndarray, digits: str) -> str:
    """Mean, and spread where there are several."""
    spread = f" ± {values.std(ddof=1):{digits}}" if len(values) > 1 else ""
    return f"{values.mean():{digits}}{spread}"


def write(name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table of the results."""
    with (RESULTS / name).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def error_table(wrong: dict[tuple[Case, str], np.ndarray]) -> list[str]:
    """Errors beside the published ones."""
    columns = [(n, words) for n in SIZES for words in ("together", "alone")]
    columns = [c for c in columns if any((case.n_train, case.words) == c for case, _ in wrong)]
    heads = [f"{n:,} {words}" for n, words in columns]
    lines = [f"| | unit | {' | '.join(heads)} | SchNet, 110,000 alone |"]
    lines.append("|---" * (len(columns) + 3) + "|")
    for name in ALL:
        of_columns = [
            next(
                (
                    v
                    for (case, p), v in wrong.items()
                    if p == name and (case.n_train, case.words) == c
                ),
                None,
            )
            for c in columns
        ]
        cells = ["" if values is None else cell(values, ".3g") for values in of_columns]
        lines.append(f"| {name} | {unit_of(name)} | {' | '.join(cells)} | {PUBLISHED[name]} |")
    return lines


def weight_table(case: Case, epoch: int, w_hat: np.ndarray) -> list[str]:
    """Shares and depth of every property."""
    n_seeds, _, n_layers = w_hat.shape
    layers = " | ".join(f"v{layer}" for layer in range(n_layers))
    shares = (np.abs(w_hat) / np.abs(w_hat).sum(axis=-1, keepdims=True)).mean(axis=0)
    what = ", ".join(case.properties) if case.words == "alone" else "all twelve"
    seeds = "1 seed" if n_seeds == 1 else f"{n_seeds} seeds"
    lines = [
        "",
        f"{case.n_train:,} molecules, {what}, epoch {epoch} of {SIZES[case.n_train][0]}, {seeds}:",
        "",
    ]
    lines += [f"| | {layers} | depth | of the blocks |", "|---" * (n_layers + 3) + "|"]
    for k, name in enumerate(case.properties):
        numbers = " | ".join(f"{100 * share:.0f}" for share in shares[k])
        both = [cell(depths(w_hat, first)[:, k], ".2f") for first in (0, 1)]
        lines.append(f"| {name} | {numbers} | {' | '.join(both)} |")
    return lines


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    runs = parser.parse_args().runs
    RESULTS.mkdir(exist_ok=True)
    wrong = errors(runs)
    rows = [
        (case.n_train, case.words, name, unit_of(name), k, f"{value:.6g}")
        for (case, name), values in wrong.items()
        for k, value in enumerate(values)
    ]
    write("errors.csv", ("n_train", "how", "property", "unit", "run", "mae"), rows)
    lines, rows = error_table(wrong), []
    for case, of_seeds in cases().items():
        epoch, w_hat = weights(runs, case, of_seeds)
        if not len(w_hat):
            continue
        lines += weight_table(case, epoch, w_hat)
        rows += [
            (case.n_train, case.words, case.properties[p], k, epoch, layer, f"{value:.6g}")
            for (k, p, layer), value in np.ndenumerate(w_hat)
        ]
        if case.words == "together":
            of = PropertyContributions(ALL, w_hat.mean(axis=0), w_hat.std(axis=0), len(w_hat))
            figure = plot_properties(of, RESULTS / f"weights_{case.n_train}.png")
            figure.with_suffix(".csv").unlink()  # weights.csv has every seed
    write("weights.csv", ("n_train", "how", "property", "run", "epoch", "layer", "w_hat"), rows)
    (RESULTS / "tables.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
