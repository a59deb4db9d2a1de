"""Models of several sizes, trained on one split with the same options, to see what a size is worth."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scschnet.runs.config import TrainConfig, read_run_config
from scschnet.runs.folder import RunFolder
from scschnet.train.loop import train

Size = tuple[int, int]
"""Features and interaction blocks."""


def train_sizes(
    run: Path, sizes: Sequence[Size], folder: Path, minutes: float = float("inf")
) -> tuple[dict[Size, Path], list[Size]]:
    """Train a model of every size on the split of a run, with its other options, the cheapest first.

    Folders F<features>-L<blocks> appear in `folder`. A training that was interrupted goes on; one that is finished,
    or that is the run itself, is not repeated.

    Args:
        run: run folder.
        sizes: of the models.
        folder: where their run folders are.
        minutes: after so many no further training begins.

    Returns:
        The run folders of all finished models, by size, and the sizes for which there was no time.

    Raises:
        FileNotFoundError, ValueError: if the run cannot be read, or a size is out of range.
        Interrupted: after SIGINT or SIGTERM; the training under way is saved.
    """
    config = read_run_config(run)
    own = (config.n_features, config.n_interactions)
    found, left = {own: run}, []
    end = time.monotonic() + 60 * minutes
    todo = sorted({size for size in sizes if size != own}, key=_cost)
    for number, size in enumerate(todo, start=1):
        path = folder / f"F{size[0]}-L{size[1]}"
        if not RunFolder(path).test.is_file():
            if time.monotonic() >= end:
                left.append(size)
                continue
            print(f"F={size[0]}, L={size[1]}, {number} of {len(todo)}: {path}")
            _train(_sized(config, run, path, size), path)
        found[size] = path
    return found, left


def _sized(config: TrainConfig, run: Path, path: Path, size: Size) -> TrainConfig:
    features, blocks = size
    split = str(RunFolder(run).split.resolve())
    return replace(
        config, n_features=features, n_interactions=blocks, out=str(path), split_file=split
    )


def _train(config: TrainConfig, path: Path) -> None:
    """Begin, or go on."""
    if RunFolder(path).config.is_file():
        train(read_run_config(path), path)
    else:
        train(config)


def _cost(size: Size) -> int:
    features, blocks = size
    return (
        features * (features + 64) * blocks
    )  # dense layers, and pairs, of which an atom has dozens
