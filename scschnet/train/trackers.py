"""Losses, errors and contribution weights of every epoch for TensorBoard and Weights & Biases; metrics.csv has them anyway."""

import dataclasses
import importlib.util
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from scschnet.files import writing
from scschnet.runs.config import TrainConfig
from scschnet.runs.contributions import ENERGY, LayerContribution
from scschnet.runs.folder import EpochMetrics

OPTIONAL = ("tensorboard", "wandb")  # options, extras of the package, and packages


class Tracker(Protocol):
    """Where numbers go."""

    def log(self, epoch: int, values: dict[str, float]) -> None:
        """Take the numbers of an epoch."""

    def close(self) -> None:
        """The training is finished."""


def check_trackers(config: TrainConfig) -> None:
    """Check that what the options ask for is installed, before anything is written.

    Raises:
        ValueError: naming what to install.
    """
    for name in OPTIONAL:
        if getattr(config, name) and importlib.util.find_spec(name) is None:
            raise ValueError(f"`{name}` needs a package: pip install 'scschnet[{name}]'")


def open_trackers(config: TrainConfig, folder: Path, epochs_done: int) -> list[Tracker]:
    """Those that the options ask for.

    Args:
        config: options.
        folder: of the run.
        epochs_done: epochs finished before (a resumed run).
    """
    trackers: list[Tracker] = []
    if config.tensorboard:
        trackers.append(TensorBoard(folder, epochs_done))
    if config.wandb:
        trackers.append(Wandb(config, folder))
    return trackers


def numbers(metrics: EpochMetrics, layers: Iterable[LayerContribution]) -> dict[str, float]:
    """What is tracked of an epoch, by name: the columns of metrics.csv that are numbers, and w_hat of every layer.

    Args:
        metrics: of the epoch.
        layers: of every property.
    """
    found = {name: value for name, value in metrics.columns().items() if name != "epoch"}
    for one in layers:
        of = "w_hat" if one.property == ENERGY else f"w_hat/{one.property}"
        found[f"{of}/v{one.layer}"] = one.normalized_weight
    return {k: v for k, v in found.items() if isinstance(v, (int, float)) and not math.isnan(v)}


class TensorBoard:
    """Event files in the run folder: `tensorboard --logdir runs` shows them.

    Args:
        folder: of the run.
        epochs_done: what is there of later epochs is dropped.
    """

    def __init__(self, folder: Path, epochs_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(
            str(folder), purge_step=epochs_done + 1 if epochs_done else None
        )

    def log(self, epoch: int, values: dict[str, float]) -> None:
        """Write the numbers of an epoch to disk."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


class Wandb:
    """A run of Weights & Biases, named like the run folder; its variables (WANDB_MODE=offline, WANDB_PROJECT) count.

    Args:
        config: options, shown there.
        folder: of the run; the file `wandb-id` in it lets a resumed run go on there, too.
    """

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        import wandb

        file = folder / "wandb-id"
        known = file.read_text(encoding="utf-8").strip() if file.is_file() else None
        self.run: Any = wandb.init(
            dir=str(folder),
            name=folder.name,
            id=known,
            resume="allow" if known else None,
            config=dataclasses.asdict(config),
        )
        with writing(file):
            file.write_text(f"{self.run.id}\n", encoding="utf-8")

    def log(self, epoch: int, values: dict[str, float]) -> None:
        """Send the numbers of an epoch."""
        self.run.log(values, step=epoch)

    def close(self) -> None:
        """Mark the run as finished."""
        self.run.finish()
