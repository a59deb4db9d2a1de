"""A finished run, as it is analyzed: its options, its model in float64, its data and their split."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scschnet import data
from scschnet.checkpoint import checkpoint_path, load_checkpoint
from scschnet.data import Split, StructureSet, load_split
from scschnet.data.readers import detected_format
from scschnet.data.split import PARTS
from scschnet.kinds import expect_data_of_run
from scschnet.nn import SchNet
from scschnet.quantities import NAMES
from scschnet.runs.config import READING, TrainConfig, read_run_config
from scschnet.runs.folder import RunFolder


@dataclass(frozen=True, eq=False)
class Run:
    """A finished training, as it is analyzed.

    Args:
        path: the run folder.
        config: its options.
        model: the best one, in float64 whatever it was trained in, asking for no gradients.
        metadata: of the checkpoint.
        structures: the data of the run, all parts.
        split: training, validation and test part.
    """

    path: Path
    config: TrainConfig
    model: SchNet
    metadata: dict[str, Any]
    structures: StructureSet
    split: Split

    def part(self, name: str) -> StructureSet:
        """The structures of a part, train, val or test.

        Raises:
            ValueError: if there is no such part, or it is empty.
        """
        if name not in PARTS:
            raise ValueError(f"`part` must be one of {', '.join(PARTS)}, got {name}")
        indices = getattr(self.split, name)
        if not len(indices):
            raise ValueError(f"the {name} part of {self.path} is empty; take another one")
        return self.structures.select(indices)

    @property
    def held_out(self) -> StructureSet:
        """The test part, or the validation part where there is none."""
        return self.part("test" if len(self.split.test) else "val")


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a run folder and the data it was trained on.

    Args:
        path: run folder.

    Raises:
        FileNotFoundError: if the folder, a file of it, or its data are not there.
        ValueError: if a file cannot be read.
    """
    folder = Path(path)
    config = read_run_config(folder)
    expect_data_of_run(folder, config.data)
    structures = read_data(config)
    split = load_split(RunFolder(folder).split, len(structures))
    checkpoint = load_checkpoint(checkpoint_path(folder))
    model = in_float64(checkpoint.model)
    return Run(folder, config, model, checkpoint.metadata, structures, split)


def read_data(config: TrainConfig) -> StructureSet:
    """The structures that options name, read as they say, of all files together; the embedded ones if they name none.

    Of several files those in scschnet's HDF5 state everything themselves, and units and names of labels are for the others.

    Raises:
        FileNotFoundError, ValueError: if a file cannot be read, or the files do not go together.
    """
    if not config.data:
        if config.heads:
            raise ValueError(
                f"`properties` {config.heads[0].name} must be in the data, but the embedded set has energies and "
                "forces alone; name a file with --data"
            )
        return data.embedded.load()
    how: dict[str, Any] = {name: getattr(config, name) or None for name in READING}
    how["properties"] = [text for text in config.properties if text not in NAMES] or None
    stated = [detected_format(Path(file)) == "hdf5" for file in config.data]
    files = []
    for file, states in zip(config.data, stated, strict=True):
        asked = {"properties": how["properties"]} if states and not all(stated) else how
        files.append(data.read(file, **asked))
    return data.join(files, config.data_weights)


def in_float64(model: SchNet) -> SchNet:
    """The model itself, moved to float64 and frozen, so that sums over layers hold to rounding."""
    model = model.to(torch.float64).eval().requires_grad_(False)
    model.refine_filters()
    return model
