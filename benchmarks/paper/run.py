"""Trains the runs of the paper's Table 1 and Figures 2 and 3, one or all, and goes on where it was stopped.

python benchmarks/paper/run.py aspirin --skip weighted --seed 1 --data DATA_FOLDER
python benchmarks/paper/run.py all --budget 3h --data DATA_FOLDER

Finished runs are never repeated. Several of these programs may share one folder of runs: each run is locked.
"""

import argparse
import fcntl
import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scschnet.data import Split, random_split, save_split

FILES = {
    "benzene": "md17_benzene.npz",
    "ethanol": "md17_ethanol.npz",
    "salicylic_acid": "md17_salicylic_acid.npz",
    "aspirin": "md17_aspirin.npz",
    "rmd17_benzene": "rmd17_benzene.npz",
    "rmd17_ethanol": "rmd17_ethanol.npz",
    "rmd17_salicylic_acid": "rmd17_salicylic_acid.npz",
    "rmd17_aspirin": "rmd17_aspirin.npz",
    "qm9": "qm9.npz",
}
SKIPS = ("weighted", "plain")
SEEDS = (1, 2, 3)
QM9_SIZE, QM9_TRAIN, QM9_VAL = 130_831, 105_000, 5_000
QM9_SUBSET_VAL = 1_000

# What a preset of a run means to scschnet.train: md17, ours; adam, ours before Muon; paper, the paper's.
PRESETS = {
    "md17": ["--preset", "md17"],
    "adam": [
        *("--preset", "md17", "--optimizer", "adam", "--lr", "2e-3", "--epochs", "150"),
        *("--n-rbf", "25", "--rho", "0.1"),
    ],
    "paper": ["--preset", "paper-md17"],
}

# Ours for parts of QM9, and the whole: the model and the optimizer of md17, and energies alone.
QM9_PART = [
    *("--preset", "md17", "--energy-key", "U0", "--rho", "1", "--lr", "2e-3"),
    *("--cutoff", "5", "--rbf-range", "0", "--cutoff-function", "cosine"),
]
QM9_PARTS = {  # molecules to train on: epochs, batch
    1_000: ("100", "20"),
    5_000: ("40", "20"),
    20_000: ("20", "50"),
    105_000: ("45", "100"),
}


@dataclass(frozen=True)
class Run:
    """One training: what, how, and from which start.

    Args:
        name: of the set, a key of FILES.
        skip: weighted (sc-SchNet) or plain (SchNet).
        seed: of split, weights and batches.
        preset: a key of PRESETS; for QM9 part (ours) or paper.
        n_train: 0, or molecules of QM9 to train on, a key of QM9_PARTS.
        extra: further arguments of scschnet.train, part of the run's name.
    """

    name: str
    skip: str = "weighted"
    seed: int = 1
    preset: str = "md17"
    n_train: int = 0
    extra: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Name of the run folder; different for different runs."""
        size = [str(self.n_train)] if self.n_train else []
        extra = [option.lstrip("-") for option in self.extra]
        return "-".join([self.name, *size, self.preset, self.skip, str(self.seed), *extra])

    def arguments(self, data: Path, runs: Path) -> list[str]:
        """Arguments of scschnet.train for a new run."""
        options = ["--data", str(data / FILES[self.name]), "--out", str(runs / self.folder)]
        options += ["--skip", self.skip, "--seed", str(self.seed), "--threads", "1"]
        if self.name != "qm9":
            return [*PRESETS[self.preset], *options, *self.extra]
        if not self.n_train:
            return ["--preset", "paper-qm9", "--energy-key", "U0", *options, *self.extra]
        epochs, batch_size = QM9_PARTS[self.n_train]
        options += ["--epochs", epochs, "--batch-size", batch_size]
        options += ["--split-file", str(runs / f"split-{self.folder}.npz")]
        return [*QM9_PART, *options, *self.extra]


def plan() -> list[Run]:
    """All runs of the table and the figures, those first that are cheap and complete a row."""
    molecules = [
        Run(name, skip, seed)
        for seed in SEEDS
        for name in ("ethanol", "benzene", "salicylic_acid", "aspirin")
        for skip in SKIPS
    ]
    parts = [Run("qm9", skip, 1, "part", n) for n in QM9_PARTS for skip in SKIPS]
    weighted = [run for run in molecules if run.skip == "weighted"]
    random = [Run(run.name, seed=run.seed, extra=("--w-init", "random")) for run in weighted]
    revised = [Run(f"rmd17_{run.name}", seed=run.seed) for run in weighted]
    paper = [Run(run.name, run.skip, run.seed, "paper") for run in molecules]
    full = [Run("qm9", skip, seed, "paper") for seed in SEEDS for skip in SKIPS]
    return [*molecules, *parts, *random, *revised, *paper, *full]


def qm9_part(n_train: int, seed: int) -> Split:
    """A part of the training and validation molecules of the seed's whole split, and its whole test part."""
    whole = random_split(QM9_SIZE, QM9_TRAIN, QM9_VAL, seed)
    rng = np.random.default_rng(seed)
    train, val = rng.permutation(whole.train), rng.permutation(whole.val)
    return Split(np.sort(train[:n_train]), np.sort(val[:QM9_SUBSET_VAL]), whole.test)


def command(run: Run, data: Path, runs: Path) -> list[str]:
    """The training to start, new or resumed."""
    program = [sys.executable, "-m", "scschnet.train"]
    if (runs / run.folder / "config.toml").exists():
        return [*program, "--resume", str(runs / run.folder)]
    if run.n_train:
        save_split(runs / f"split-{run.folder}.npz", qm9_part(run.n_train, run.seed))
    return [*program, *run.arguments(data, runs)]


@contextmanager
def locked(run: Run, runs: Path) -> Iterator[bool]:
    """Whether this program, and no other, has the run."""
    with (runs / f"{run.folder}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def execute(run: Run, data: Path, runs: Path, seconds: float) -> int:
    """Train a run that is not finished, for at most `seconds`; then it is asked to save and stop.

    Returns:
        Exit code of the training; 0 too if there was nothing to do.
    """
    with locked(run, runs) as is_ours:
        if not is_ours or (runs / run.folder / "test.json").exists():
            return 0
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        with (runs / f"{run.folder}.log").open("a") as log:
            process = subprocess.Popen(command(run, data, runs), stdout=log, stderr=log)
            code = wait(process, seconds)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if (runs / run.folder).exists():
            add_cost(runs / run.folder / "cost.json", cpu, time.monotonic() - started)
        return code


def wait(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for a training; an interrupt or the end of the time is handed on to it as SIGTERM."""
    try:
        return process.wait(seconds if seconds < float("inf") else None)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.send_signal(signal.SIGTERM)
        return process.wait()


def add_cost(file: Path, cpu_seconds: float, wall_seconds: float) -> None:
    """Add to the cost of a run, which may be done in several sessions."""
    cost = {"cpu_seconds": 0.0, "wall_seconds": 0.0}
    if file.exists():
        cost = json.loads(file.read_text())
    cost["cpu_seconds"] += cpu_seconds
    cost["wall_seconds"] += wall_seconds
    file.write_text(json.dumps(cost) + "\n")


def seconds_of(text: str) -> float:
    """Seconds of `90s`, `30m`, `3h` or `1.5h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be like 90s, 30m or 3h, got {text!r}")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """The options of this program, and those for scschnet.train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=["all", *FILES], help="a set, or all of the plan")
    parser.add_argument("--skip", choices=SKIPS, default="weighted")
    parser.add_argument(
        "--seed", type=int, default=1, help="split, weights, batches; ours: 1, 2, 3"
    )
    parser.add_argument("--preset", choices=PRESETS, default="md17")
    parser.add_argument(
        "--n-train", type=int, default=0, choices=QM9_PARTS, help="molecules of QM9; our training"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the .npz files")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"), help="folder of the runs")
    parser.add_argument("--budget", type=seconds_of, default=float("inf"), metavar="3h")
    parser.add_argument("--list", action="store_true", help="show the plan and what is finished")
    options, extra = parser.parse_known_args(arguments)
    if options.name == "qm9":
        options.preset = "part" if options.n_train else "paper"
    elif options.n_train:
        parser.error("`--n-train` goes with qm9 only")
    if options.name == "all" and extra:
        parser.error(f"`all` takes no options of scschnet.train, got {' '.join(extra)}")
    return options, tuple(extra)


def main(arguments: Sequence[str] | None = None) -> int:
    options, extra = parse(arguments)
    ends = time.monotonic() + options.budget
    if options.name == "all":
        chosen = plan()
    else:
        single = (options.name, options.skip, options.seed, options.preset, options.n_train, extra)
        chosen = [Run(*single)]
    if options.list:
        for run in chosen:
            finished = (options.runs / run.folder / "test.json").exists()
            print(f"{'finished' if finished else 'to do   '}  {run.folder}")
        return 0
    options.runs.mkdir(parents=True, exist_ok=True)
    failed = 0
    for run in chosen:
        left = ends - time.monotonic()
        if left <= 0:
            break
        code = execute(run, options.data, options.runs, left)
        print(f"{run.folder}: exit code {code}", flush=True)
        if code > 128:  # a signal: the training saved its state
            return code
        failed += code != 0
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # handed on to the training
    sys.exit(main())
