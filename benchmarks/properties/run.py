"""Trains models on QM9's properties, all twelve together and some alone, and goes on where it was stopped.

python benchmarks/properties/run.py --data qm9.npz --runs FOLDER

Do contribution weights say how local a property is? Every run is one of scschnet.train; finished ones are not repeated,
and several of these programs may share a folder of runs. benchmarks/properties/summarize.py makes the tables.
"""

import argparse
import fcntl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ALL = ("U0", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U", "H", "G", "Cv")
ALONE = ("U0", "homo", "mu", "r2")
SEEDS = (1, 2, 3)
OPTIONS = [
    *("--preset", "md17", "--cutoff", "5", "--rbf-range", "0", "--cutoff-function", "cosine"),
    *("--n-features", "64", "--lr", "2e-3", "--threads", "1", "--log-every", "1"),
]
# molecules to train on: epochs, molecules per step, molecules for validation and to test
SIZES = {
    2_000: ("20", "20", "500", "4000"),
    5_000: ("20", "25", "1000", "10000"),
    20_000: ("15", "50", "1000", "10000"),
}


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        properties: which.
        seed: of split, weights and batches.
        n_train: molecules, a key of SIZES.
    """

    properties: tuple[str, ...]
    seed: int
    n_train: int

    @property
    def folder(self) -> str:
        """Name of the run folder."""
        what = "all" if len(self.properties) > 1 else self.properties[0]
        return f"{self.n_train}-{what}-{self.seed}"

    def command(self, data: Path, runs: Path) -> list[str]:
        """The training to start, new or resumed."""
        program = [sys.executable, "-m", "scschnet.train"]
        if (runs / self.folder / "config.toml").exists():
            return [*program, "--resume", str(runs / self.folder)]
        epochs, batch_size, n_val, n_test = SIZES[self.n_train]
        sizes = ("--n-train", str(self.n_train), "--n-val", n_val, "--n-test", n_test)
        how = ("--epochs", epochs, "--batch-size", batch_size, "--seed", str(self.seed))
        where = ("--data", str(data), "--out", str(runs / self.folder))
        return [*program, *OPTIONS, *where, *sizes, *how, "--properties", *self.properties]


def plan() -> list[Run]:
    """All runs, those first that the others are compared with."""
    return [
        Run(what, seed, n_train)
        for n_train in SIZES
        for group in ((ALL,), tuple((name,) for name in ALONE))
        for seed in SEEDS
        for what in group
    ]


def execute(run: Run, data: Path, runs: Path) -> None:
    """Train a run that is not finished and that no other program has."""
    with (runs / f"{run.folder}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if (runs / run.folder / "test.json").exists():
            return
        with (runs / f"{run.folder}.log").open("a") as log:
            subprocess.run(run.command(data, runs), stdout=log, stderr=log, check=False)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    for run in plan():
        execute(run, options.data, options.runs)


if __name__ == "__main__":
    main()
