"""The run folder: every file a training leaves, and how it is found again."""

import csv
import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scschnet.data import Split, save_split
from scschnet.data.fingerprint import changes
from scschnet.files import replacing, writing
from scschnet.quantities import ERRORS, MISSING, Error
from scschnet.runs.config import MAY_CHANGE_ON_RESUME, PLACES, TrainConfig, write_config
from scschnet.runs.contributions import COLUMNS, LayerContribution
from scschnet.runs.lock import FolderLock


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch's row of metrics.csv.

    Args:
        epoch: epochs finished.
        step: steps finished in all.
        learning_rate: of the epoch's last step.
        train_loss: mean over the steps of the epoch.
        val_loss: of the validation part, after the epoch.
        seconds: spent training in all.
        validation: errors of the validation part by name, as in `scschnet.quantities.ERRORS`.
    """

    epoch: int
    step: int
    learning_rate: float
    train_loss: float
    val_loss: float
    seconds: float
    validation: dict[str, Error]

    def columns(self) -> dict[str, Any]:
        """Name of a column to its value, nan where there is no such error."""
        values: dict[str, Any] = {}
        losses = {name for name in self.validation if name.startswith("loss_")}
        for name in {**ERRORS, **self.validation}.keys() - losses:
            error = self.validation.get(name, MISSING)
            values |= {f"val_{name}_mae": error.mae, f"val_{name}_rmse": error.rmse}
        return vars(self) | values


FIRST = (
    "energy",
    "forces",
)  # errors that the first versions knew; others follow the column `seconds`
_ERRORS = [
    f"val_{name}_{kind}"
    for name in sorted(ERRORS, key=lambda name: name not in FIRST)
    for kind in ("mae", "rmse")
]
METRICS_HEADER = [
    *("epoch", "step", "learning_rate", "train_loss", "val_loss"),
    *_ERRORS[: 2 * len(FIRST)],
    "seconds",
    *_ERRORS[2 * len(FIRST) :],
]


def metrics_header(config: TrainConfig) -> list[str]:
    """The columns of metrics.csv; those of properties are the last."""
    columns = (f"val_{given.name}_{kind}" for given in config.heads for kind in ("mae", "rmse"))
    return [*METRICS_HEADER, *columns]


class RunFolder:
    """Paths and files of one run.

    config.toml, split.npz, metrics.csv (a row per epoch), contributions.csv (a row per epoch and layer),
    last.pt (to resume from), best.pt (lowest validation loss), test.json.

    Args:
        path: the folder. (Processes that write nothing leave it out.)
    """

    def __init__(self, path: Path = Path()) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.split = path / "split.npz"
        self.metrics = path / "metrics.csv"
        self.contributions = path / "contributions.csv"
        self.last = path / "last.pt"
        self.best = path / "best.pt"
        self.test = path / "test.json"
        self._lock = FolderLock(path)

    @classmethod
    def create(cls, config: TrainConfig, split: Split) -> "RunFolder":
        """Make the folder: split, empty tables, and last the options, so that it is whole once they are there.

        Raises:
            FileExistsError: if it holds a run already, or a file that a run would write over.
            BlockingIOError: if another training is in it.
            OSError: if it cannot be written.
        """
        run = cls(Path(config.out) if config.out else free_name(config))
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot make the run folder {run.path}: {error.strerror}"
            ) from error
        run.hold()
        try:
            run._check_free()
            save_split(run.split, split)
            _write_rows(run.metrics, metrics_header(config), [])
            _write_rows(run.contributions, COLUMNS, [])
            write_config(run.config, config)
        finally:
            run.release()
        return run

    def hold(self) -> None:
        """Keep other trainings out, until `release` or the end of the process.

        Raises:
            BlockingIOError: if another training is in the folder, naming its process and machine.
        """
        self._lock.acquire()

    def release(self) -> None:
        """Let others train in the folder."""
        self._lock.release()

    def _check_free(self) -> None:
        if self.config.exists():
            raise FileExistsError(
                f"`out` must be a new folder, but {self.path} holds a run; go on with it by --resume {self.path}"
            )
        paths = [value for value in vars(self).values() if isinstance(value, Path)]
        written = [
            self.path / name for name in ("report.html", "contributions.png", "properties.png")
        ]
        for file in [*paths, *written]:
            if file != self.path and file.exists():
                raise FileExistsError(
                    f"`out` must be a new folder, but {self.path} holds {file.name}, which a run writes"
                )

    def append(self, metrics: EpochMetrics, contributions: Iterable[LayerContribution]) -> None:
        """Add an epoch to both tables."""
        with self.metrics.open(newline="") as file:
            header = next(csv.reader(file))  # a run begun by an older scschnet has fewer columns
        columns = metrics.columns()
        _append_rows(self.metrics, [[columns[name] for name in header]])
        with self.contributions.open(newline="") as file:
            header = next(csv.reader(file))
        rows = [{"epoch": metrics.epoch, **dataclasses.asdict(one)} for one in contributions]
        _append_rows(self.contributions, [[row[name] for name in header] for row in rows])

    def forget_after(self, epoch: int) -> None:
        """Drop rows of later epochs, written after the checkpoint that a run goes on from."""
        for path in (self.metrics, self.contributions):
            with path.open(newline="") as file:
                header, *rows = list(csv.reader(file))
            whole = [row for row in rows if len(row) == len(header)]
            _write_rows(path, header, [row for row in whole if int(row[0]) <= epoch])

    def read_metrics(self) -> dict[str, NDArray[np.float64]]:
        """The columns of metrics.csv; a row that is still being written is left out.

        Raises:
            FileNotFoundError: if it is not there.
            ValueError: if it holds no epoch.
        """
        if not self.metrics.is_file():
            raise FileNotFoundError(f"there are no metrics at {self.metrics}")
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        header, *rows = [line.split(",") for line in lines]
        whole = [row for row in rows if len(row) == len(header)]
        if not whole:
            raise ValueError(f"{self.metrics} holds no epoch yet")
        values = np.array(whole, dtype=np.float64)
        return {name: values[:, k] for k, name in enumerate(header)}

    def read_test(self) -> dict[str, Any]:
        """The content of test.json; empty before the training is finished."""
        if not self.test.is_file():
            return {}
        return json.loads(self.test.read_text(encoding="utf-8"))

    def write_test(self, content: dict[str, Any]) -> None:
        """Write test.json."""
        with replacing(self.test) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def free_name(config: TrainConfig) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3, ... that does not exist."""
    base = Path("runs") / (Path(config.data[-1]).stem if config.data else "ethanol")
    names = itertools.chain([base], (Path(f"{base}-{k}") for k in itertools.count(2)))
    return next(name for name in names if not name.exists())


def _write_rows(path: Path, header: Sequence[str], rows: list[list[str]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _append_rows(path: Path, rows: list[list[Any]]) -> None:
    with writing(path), path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def check_options(run: Path, metadata: dict[str, Any], now: TrainConfig) -> None:
    """Check that the options of a run are those it was trained with, which its checkpoint knows.

    Args:
        run: the run folder.
        metadata: of its checkpoint; options that an older scschnet did not have are not compared.
        now: the options in the folder, with those that the command line changed.

    Raises:
        ValueError: naming what has changed.
    """
    before = metadata.get("train_config", {})
    changed = [
        f"`{name}` in it was {before[name]!r} and is {value!r}"
        for name, value in json.loads(json.dumps(dataclasses.asdict(now))).items()
        if name not in (*MAY_CHANGE_ON_RESUME, *PLACES) and before.get(name, value) != value
    ]
    if changed:
        raise ValueError(
            f"{run}/config.toml no longer holds the options the run was trained with: {', '.join(changed)}; "
            "restore them, or begin a new run"
        )


def check_fingerprint(run: Path, metadata: dict[str, Any], now: dict[str, str]) -> None:
    """Check that a run still sees the data that it was trained on.

    Args:
        run: the run folder.
        metadata: of its checkpoint; that of an older scschnet tells nothing.
        now: from `scschnet.data.fingerprint`.

    Raises:
        ValueError: saying what has changed.
    """
    changed = changes(metadata.get("fingerprint", {}), now)
    if changed:
        raise ValueError(
            f"the data of {run} are no longer those it was trained on; changed: {', '.join(changed)}. Its errors "
            "would mean nothing: restore the file and split.npz, or begin a new run"
        )
