"""Turns run folders into small files that can be committed: python benchmarks/paper/summarize.py RUNS_FOLDER

Of each finished run, results/NAME.json has the test errors, the options, the cost and the machine; results/NAME.csv its
contribution weights per epoch, in the columns of a run folder. Epochs beyond the twentieth: every fifth.
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
from scschnet.data import load_split

RESULTS = Path(__file__).parent / "results"
EVERY_EPOCH_UP_TO = 20
STRIDE = 5
COLUMNS = ("weight", "mean_norm", "normalized_weight", "normalized_weight_std")
VALIDATION = ("val_energy_mae", "val_energy_rmse", "val_forces_mae", "val_forces_rmse")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def is_kept(epoch: int, last: int) -> bool:
    return epoch <= EVERY_EPOCH_UP_TO or epoch % STRIDE == 0 or epoch == last


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contributions(run: Path) -> list[list[str]]:
    """Header and rows of the epochs that are kept, four digits."""
    rows = rows_of(run / "contributions.csv")
    last = int(rows[-1]["epoch"])
    table = [["epoch", "layer", *COLUMNS]]
    for row in rows:
        if is_kept(int(row["epoch"]), last):
            table.append([row["epoch"], row["layer"], *(f"{float(row[c]):.4g}" for c in COLUMNS)])
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
        config[key] = Path(config[key]).name
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
    RESULTS.mkdir(exist_ok=True)
    for file in sorted(runs.glob("*/cost.json")):
        run = file.parent
        if not (run / "test.json").exists():
            continue
        text = json.dumps(rounded(summary(run)), indent=1, ensure_ascii=False)
        (RESULTS / f"{run.name}.json").write_text(text + "\n")
        with (RESULTS / f"{run.name}.csv").open("w", newline="") as table:
            csv.writer(table, lineterminator="\n").writerows(contributions(run))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
