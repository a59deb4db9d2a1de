"""Writes RESULTS.md and its figures from results/ and notes.md: python benchmarks/paper/make_results.py"""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scschnet.analysis import plots
from scschnet.analysis.contributions import Contributions, draw_contributions, draw_labels
from scschnet.analysis.contributions import summarize as summarize_contributions

HERE = Path(__file__).parent
RESULTS = HERE / "results"

# Table 1 of arXiv:1810.09751: MAE, RMSE in kcal/mol and kcal/mol/Å.
PAPER = {
    ("aspirin", "plain"): {"energy": (0.40, 0.57), "forces": (0.94, 1.38)},
    ("aspirin", "weighted"): {"energy": (0.39, 0.54), "forces": (0.95, 1.47)},
    ("salicylic_acid", "plain"): {"energy": (0.24, 0.31), "forces": (0.63, 0.94)},
    ("salicylic_acid", "weighted"): {"energy": (0.23, 0.29), "forces": (0.63, 0.97)},
    ("benzene", "plain"): {"energy": (0.10, 0.12), "forces": (0.32, 0.46)},
    ("benzene", "weighted"): {"energy": (0.08, 0.11), "forces": (0.31, 0.45)},
    ("ethanol", "plain"): {"energy": (0.08, 0.12), "forces": (0.29, 0.52)},
    ("ethanol", "weighted"): {"energy": (0.07, 0.11), "forces": (0.30, 0.54)},
    ("qm9", "plain"): {"energy": (0.24, 0.43)},
    ("qm9", "weighted"): {"energy": (0.24, 0.46)},
}
WHOLE_QM9 = 105_000
# Published MAE of energy / forces with 1,000 frames, kcal/mol and kcal/mol/Å.
PUBLISHED = {
    "SchNet": {  # Schuett et al., doi:10.1063/1.5019779
        "benzene": "0.08 / 0.31",
        "ethanol": "0.08 / 0.39",
        "salicylic_acid": "0.20 / 0.85",
        "aspirin": "0.37 / 1.35",
    },
    "sGDML": {  # Chmiela et al., doi:10.1038/s41467-018-06169-2; its benzene has other labels
        "ethanol": "0.07 / 0.33",
        "salicylic_acid": "0.12 / 0.28",
        "aspirin": "0.19 / 0.68",
    },
    "PaiNN": {  # Schuett et al., arXiv:2102.03150
        "ethanol": "0.064 / 0.224",
        "salicylic_acid": "0.116 / 0.195",
        "aspirin": "0.167 / 0.338",
    },
}
PUBLISHED_REVISED = {  # forces alone, of gcnn_keras (github.com/aimat-lab/gcnn_keras, training/results)
    "SchNet": {"benzene": "0.252", "ethanol": "0.427", "aspirin": "0.986"},
    "PaiNN": {"benzene": "0.041", "ethanol": "0.568", "aspirin": "0.790"},
}
MOLECULES = ("benzene", "ethanol", "salicylic_acid", "aspirin")
MODELS = {"plain": "SchNet", "weighted": "sc-SchNet"}
UNITS = {"energy": "kcal/mol", "forces": "kcal/mol/Å"}
FOLDER = re.compile(
    r"(?P<name>[a-z0-9_]+?)(?:-(?P<n_train>\d+))?-(?P<preset>md17|adam|paper|part)"
    r"-(?P<skip>weighted|plain)-(?P<seed>\d+)(?:-(?P<extra>.+))?"
)


@dataclass(frozen=True)
class Finished:
    """A finished run: what its name says, and what its summary holds."""

    name: str
    n_train: int
    preset: str
    skip: str
    seed: int
    extra: str
    folder: str
    content: dict[str, Any]

    def error(self, quantity: str, kind: str) -> float:
        return self.content["test"][quantity][UNITS[quantity]][kind]


def finished_runs() -> list[Finished]:
    runs = []
    for line in (RESULTS / "runs.jsonl").read_text().splitlines():
        content = json.loads(line)
        folder = content.pop("run")
        found = FOLDER.fullmatch(folder)
        if found is None:
            raise ValueError(f"{folder} is not named like a run")
        name, n_train, preset, skip, seed, extra = found.groups()
        about = (name, int(n_train or 0), preset, skip, int(seed), extra or "")
        runs.append(Finished(*about, folder, content))
    return runs


def read_curves() -> dict[str, Contributions]:
    """Contribution weights per epoch of the runs that figures show."""
    path = RESULTS / "curves.csv"
    with path.open(newline="") as file:
        _, *lines = csv.reader(file)
    curves = {}
    for run in dict.fromkeys(line[0] for line in lines):
        rows = np.array([line[1:] for line in lines if line[0] == run], dtype=float)
        n_layers = int(rows[:, 1].max()) + 1
        epochs, _, *values = np.moveaxis(rows.reshape(-1, n_layers, rows.shape[1]), 2, 0)
        curves[run] = Contributions(path, epochs[:, 0].astype(np.int64), *values)
    return curves


def select(runs: Sequence[Finished], **wanted: Any) -> list[Finished]:
    """The runs that have the given values; without further options unless `extra` asks for them."""
    wanted.setdefault("extra", "")
    return [r for r in runs if all(getattr(r, key) == value for key, value in wanted.items())]


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard error of the mean if there is more than one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    return mean, float(np.std(values, ddof=1) / np.sqrt(len(values)))


def number(values: Sequence[float]) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"


def verdict(values: Sequence[float], paper: float) -> str:
    """Whether the mean, in the paper's two decimals, is at or below the paper's."""
    mean = mean_and_error(values)[0]
    if round(mean, 2) <= paper:
        return "met"
    return f"**missed** ({mean / paper - 1:+.0%})"


def table_1(runs: Sequence[Finished], preset: str) -> str:
    lines = [
        "| set | model | splits | quantity | MAE | paper | | RMSE | paper | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ("aspirin", "salicylic_acid", "benzene", "ethanol", "qm9"):
        of_set = {"preset": preset, "n_train": 0}
        if name == "qm9" and preset == "md17":
            of_set = {"preset": "part", "n_train": WHOLE_QM9}
        elif name == "qm9" and preset == "adam":
            continue
        for skip, model in MODELS.items():
            chosen = select(runs, name=name, skip=skip, **of_set)
            for quantity, paper in PAPER[name, skip].items():
                cells = [name.replace("_", " "), model, str(len(chosen)), quantity]
                for kind, value in zip(("mae", "rmse"), paper, strict=True):
                    if chosen:
                        errors = [run.error(quantity, kind) for run in chosen]
                        cells += [number(errors), f"{value:.2f}", verdict(errors, value)]
                    else:
                        cells += ["not run", f"{value:.2f}", ""]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_errors(rows: Sequence[tuple[str, list[Finished]]]) -> str:
    """Errors of other groups of runs, without the paper's beside."""
    lines = [
        "| runs | splits | energy MAE | energy RMSE | forces MAE | forces RMSE |",
        "|---|---|---|---|---|---|",
    ]
    for title, chosen in rows:
        cells = [title, str(len(chosen))]
        for quantity in UNITS:
            for kind in ("mae", "rmse"):
                known = [run for run in chosen if quantity in run.content["test"]]
                cells.append(number([r.error(quantity, kind) for r in known]) if known else "–")
        if not chosen:
            cells[2:] = ["not run"] * 4
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def other_rows(runs: Sequence[Finished]) -> list[tuple[str, list[Finished]]]:
    rows = []
    for name in MOLECULES:
        chosen = select(runs, name=name, preset="md17", skip="weighted", extra="w-init-random")
        rows.append((f"{name.replace('_', ' ')}, random initial weights", chosen))
    for name in MOLECULES:
        chosen = select(runs, name=f"rmd17_{name}", preset="md17", skip="weighted")
        rows.append((f"rMD17 {name.replace('_', ' ')}", chosen))
    others = {(run.name, run.preset, run.skip, run.extra) for run in runs if run.extra}
    for name, preset, skip, extra in sorted(others):
        if (preset, extra) != ("md17", "w-init-random"):
            chosen = select(runs, name=name, preset=preset, skip=skip, extra=extra)
            rows.append((f"{name.replace('_', ' ')}, {preset}, {MODELS[skip]}, {extra}", chosen))
    return rows


def learning_curve(runs: Sequence[Finished]) -> str:
    lines = [
        "| molecules to train on | SchNet MAE / RMSE | sc-SchNet MAE / RMSE | before Muon: SchNet | sc-SchNet |",
        "|---|---|---|---|---|",
    ]
    for n_train in (1_000, 5_000, 20_000, WHOLE_QM9):
        cells = [f"{n_train:,}"]
        for preset in ("part", "adam"):
            for skip in MODELS:
                chosen = select(runs, name="qm9", preset=preset, n_train=n_train, skip=skip)
                mae, rmse = (
                    [run.error("energy", kind) for run in chosen] for kind in ("mae", "rmse")
                )
                cells.append(f"{number(mae)} / {number(rmse)}" if chosen else "not run")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def beside_published(runs: Sequence[Finished]) -> str:
    """Ours beside published errors, MD17 and rMD17."""
    lines = [
        "| set | " + " | ".join(PUBLISHED) + " | ours, sc-SchNet |",
        "|---|" + "---|" * (len(PUBLISHED) + 1),
    ]
    for name in MOLECULES:
        cells = [table.get(name, "–") for table in PUBLISHED.values()]
        lines.append(
            f"| MD17 {name.replace('_', ' ')} | {' | '.join(cells)} | {both(runs, name)} |"
        )
    for name in MOLECULES:
        known = [PUBLISHED_REVISED.get(model, {}).get(name) for model in PUBLISHED]
        cells = [f"– / {k}" if k else "–" for k in known]
        ours = both(runs, f"rmd17_{name}")
        lines.append(f"| rMD17 {name.replace('_', ' ')} | {' | '.join(cells)} | {ours} |")
    return "\n".join(lines)


def both(runs: Sequence[Finished], name: str) -> str:
    """MAE of energy and forces of our sc-SchNet."""
    chosen = select(runs, name=name, preset="md17", skip="weighted")
    if not chosen:
        return "not run"
    return " / ".join(number([run.error(quantity, "mae") for run in chosen]) for quantity in UNITS)


def costs(runs: Sequence[Finished]) -> str:
    lines = [
        "| run | F | epochs (best) | processor time, min | wall time, min | processor |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs:
        config, cost = run.content["config"], run.content["cost"]
        cells = [run.folder, str(config["n_features"])]
        cells.append(f"{config['epochs']} ({run.content['test']['epoch']})")
        cells += [f"{cost[key] / 60:.1f}" for key in ("cpu_seconds", "wall_seconds")]
        lines.append("| " + " | ".join([*cells, run.content["processor"]]) + " |")
    return "\n".join(lines)


def figure(panels: Sequence[tuple[str, list[Finished]]], path: Path) -> Path | None:
    """Contribution weights per epoch, one panel a group of runs; none if nothing was run."""
    filled = [(title, chosen) for title, chosen in panels if chosen]
    if not filled:
        return None
    curves = read_curves()
    rows = (len(filled) + 1) // 2
    columns = min(2, len(filled))
    with plots.figure_style():
        drawing = plots.new_figure(columns * plots.COLUMN_WIDTH, rows * plots.HEIGHT)
        all_axes = np.atleast_1d(drawing.subplots(rows, columns)).ravel()
        drawn = []
        for axes, (title, chosen) in zip(all_axes, filled, strict=False):
            summary = summarize_contributions([curves[run.folder] for run in chosen])
            draw_contributions(axes, summary)
            axes.set_title(f"{title}: {axes.get_title(loc='left')}", loc="left", fontsize=6)
            drawn.append((axes, summary))
        for axes in all_axes[len(filled) :]:
            axes.set_axis_off()
        drawing.draw_without_rendering()  # settles the layout, on which the labels depend
        for axes, summary in drawn:
            draw_labels(axes, summary)
        return plots.save_figure(drawing, path)


def figures(runs: Sequence[Finished]) -> list[str]:
    def molecules(extra: str) -> list[tuple[str, list[Finished]]]:
        chosen = {"preset": "md17", "skip": "weighted", "extra": extra}
        return [(name.replace("_", " "), select(runs, name=name, **chosen)) for name in MOLECULES]

    qm9 = [
        (f"QM9, {n:,}", select(runs, name="qm9", preset="part", n_train=n, skip="weighted"))
        for n in (1_000, 5_000, 20_000, WHOLE_QM9)
    ]
    wanted = [
        ("Figure 3: the molecules, uniform start", molecules(""), "figure_3_uniform.png"),
        (
            "Figure 3: the molecules, random start",
            molecules("w-init-random"),
            "figure_3_random.png",
        ),
        ("Figure 2: parts of QM9, uniform start", qm9, "figure_2_parts.png"),
    ]
    parts = []
    for title, panels, name in wanted:
        path = figure(panels, HERE / "figures" / name)
        parts.append(f"### {title}")
        parts.append("not run" if path is None else f"![{title}](figures/{name})")
    return parts


def notes() -> dict[str, str]:
    """Words about what was seen: the sections of notes.md by their titles."""
    sections = re.split(r"^## (.+)\n", (HERE / "notes.md").read_text(), flags=re.MULTILINE)
    titles, texts = sections[1::2], sections[2::2]
    return {title: text.strip("\n") for title, text in zip(titles, texts, strict=True)}


def main() -> None:
    runs, words = finished_runs(), notes()
    (HERE / "figures").mkdir(exist_ok=True)
    parts = [
        "# The paper, reproduced as far as it was run",
        "Made by `python benchmarks/paper/make_results.py` from the summaries of finished runs in `results/` and the words "
        "in `notes.md`. The paper: Nicoli, Kessel, Gastegger, Schütt 2018, arXiv:1810.09751.",
        words["How it is run"],
        "## Table 1, our training (`--preset md17`)",
        words["Table 1"],
        table_1(runs, "md17"),
        "## Beside published errors (MAE of energy / forces, 1,000 frames)",
        words["Published"],
        beside_published(runs),
        "## The same before Muon (`--preset adam`)",
        words["Before Muon"],
        table_1(runs, "adam"),
        "## Table 1, the paper's training (`--preset paper`)",
        words["The paper's training"],
        *([table_1(runs, "paper")] if any(run.preset == "paper" for run in runs) else []),
        "## QM9, U0: errors by the size of the training part (kcal/mol)",
        words["QM9"],
        learning_curve(runs),
        "## Other runs (sc-SchNet, `--preset md17`, unless said otherwise)",
        table_errors(other_rows(runs)),
        "## Contribution weights",
        words["Contribution weights"],
        *figures(runs),
        "## How ours differs from the paper, and why",
        words["Differences"],
        "## The road: what was tried, on validation errors",
        words["The road"],
        "## Cost",
        words["Cost"],
        costs(runs),
    ]
    (HERE / "RESULTS.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
