"""Adds run folders to the tables that are committed: python -m benchmarks.paper.summarize RUNS_FOLDER

results/runs.jsonl has a line for each finished run: its test errors, options, cost and machine. results/curves.csv has the
contribution weights of those that the figures show; epochs beyond the twentieth: every fifth.
"""

import csv
import json
import math
import platform
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch

import scschnet
from benchmarks.measure import processor
from scschnet.data import load_split

RESULTS = Path(__file__).parent / "results"
EVERY_EPOCH_UP_TO = 20
STRIDE = 5
COLUMNS = ("weight", "mean_norm", "normalized_weight", "normalized_weight_std")
VALIDATION = ("val_energy_mae", "val_energy_rmse", "val_forces_mae", "val_forces_rmse")


def is_kept(epoch: int, last: int) -> bool:
    return epoch <= EVERY_EPOCH_UP_TO or epoch % STRIDE == 0 or epoch == last


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def is_shown(name: str) -> bool:
    """Whether a figure shows the run's contribution weights."""
    ours = "-md17-weighted-" in name or "-part-weighted-" in name
    return ours and not name.startswith("rmd17")


def contributions(run: Path) -> list[list[str]]:
    """Rows of the epochs that are kept, four digits."""
    rows = rows_of(run / "contributions.csv")
    last = int(rows[-1]["epoch"])
    table = []
    for row in rows:
        if is_kept(int(row["epoch"]), last):
            values = (f"{float(row[c]):.4g}" for c in COLUMNS)
            table.append([run.name, row["epoch"], row["layer"], *values])
    return table


def rounded(value: Any) -> Any:
    """Six significant digits, in nested tables too; what is not a number is None."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def summary(run: Path) -> dict[str, Any]:
    config = tomllib.loads((run / "config.toml").read_text())
    for key in ("data", "out", "split_file"):  # paths of one machine mean nothing on another
        files = config[key] if isinstance(config[key], list) else [config[key]]
        config[key] = " ".join(Path(file).name for file in files)
    split = load_split(run / "split.npz")
    config["n_train"], config["n_val"] = len(split.train), len(split.val)
    test = json.loads((run / "test.json").read_text())
    validation = next(
        row for row in rows_of(run / "metrics.csv") if int(row["epoch"]) == test["epoch"]
    )
    return {
        "test": test,
        "validation": {name: float(validation[name]) for name in VALIDATION},
        "cost": json.loads((run / "cost.json").read_text()),
        "config": config,
        "processor": processor(),
        "versions": {
            "scschnet": scschnet.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def main(runs: Path) -> None:
    lines = (RESULTS / "runs.jsonl").read_text().splitlines()
    summaries = {json.loads(line)["run"]: line for line in lines}
    curves = rows_of(RESULTS / "curves.csv")
    for file in sorted(runs.glob("*/cost.json")):
        run = file.parent
        if not (run / "test.json").exists():
            continue
        content = {"run": run.name} | rounded(summary(run))
        summaries[run.name] = json.dumps(content, ensure_ascii=False)
        if is_shown(run.name):
            names = ("run", "epoch", "layer", *COLUMNS)
            curves = [row for row in curves if row["run"] != run.name]
            curves += [dict(zip(names, row, strict=True)) for row in contributions(run)]
    (RESULTS / "runs.jsonl").write_text("".join(f"{summaries[k]}\n" for k in sorted(summaries)))
    with (RESULTS / "curves.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ("run", "epoch", "layer", *COLUMNS), lineterminator="\n")
        table.writeheader()
        table.writerows(sorted(curves, key=lambda row: row["run"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
