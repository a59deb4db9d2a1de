"""Store a training as a small result: options, table of epochs, contribution weights, test errors, machine.

python benchmarks/summarize_run.py RUN_FOLDER NAME        -> benchmarks/results/runs/NAME/
"""

import csv
import json
import platform
import shutil
import sys
import tomllib
from pathlib import Path

import torch

import scschnet
from scschnet.analysis.contributions import plot_contributions
from scschnet.data import load_split

RESULTS = Path(__file__).parent / "results" / "runs"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def main(run: Path, name: str) -> None:
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    for table in ("metrics.csv", "contributions.csv"):
        shutil.copy(run / table, folder / table)
    plot_contributions([run], folder / "contributions.png")
    config = tomllib.loads((run / "config.toml").read_text())
    for key in ("data", "out", "split_file"):  # paths of one machine mean nothing on another
        config[key] = Path(config[key]).name
    split = load_split(run / "split.npz")
    config["n_train"], config["n_val"] = len(split.train), len(split.val)
    with (run / "metrics.csv").open(newline="") as file:
        seconds = float(list(csv.DictReader(file))[-1]["seconds"])
    content = {
        "test": json.loads((run / "test.json").read_text()),
        "seconds": seconds,
        "config": config,
        "processor": processor(),
        "versions": {
            "scschnet": scschnet.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / "result.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
