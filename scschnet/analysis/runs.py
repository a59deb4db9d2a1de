"""What an analysis starts from: the model of a run in float64, and the structures it is asked about."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from scschnet import data
from scschnet.checkpoint import checkpoint_path, load_checkpoint
from scschnet.data import Split, StructureSet, load_split
from scschnet.kinds import Kind, expect, expect_data_of_run
from scschnet.nn import SchNet

PARTS = ("train", "val", "test")
EMBEDDED = "embedded MD17 ethanol"


@dataclass(frozen=True, eq=False)
class Run:
    """A finished training, as it is analyzed.

    Args:
        path: the run folder.
        options: those of its config.toml.
        model: the best one, in float64 whatever it was trained in, asking for no gradients.
        metadata: of the checkpoint.
        structures: the data of the run, all parts.
        split: training, validation and test part.
        source: words that say where the structures come from.
    """

    path: Path
    options: dict[str, Any]
    model: SchNet
    metadata: dict[str, Any]
    structures: StructureSet
    split: Split
    source: str

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


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a run folder and the data it was trained on.

    Args:
        path: run folder.

    Raises:
        FileNotFoundError: if the folder, a file of it, or its data are not there.
        ValueError: if a file cannot be read.
    """
    folder = Path(path)
    options = read_options(folder)
    name = options.get("data", "")
    if not name:
        structures, source = data.embedded.load(), EMBEDDED
    else:
        expect_data_of_run(folder, name)
        structures = data.read(
            name,
            units=options.get("units") or None,
            energy_key=options.get("energy_key") or None,
            forces_key=options.get("forces_key") or None,
            stress_key=options.get("stress_key") or None,
        )
        source = name
    split = load_split(folder / "split.npz", len(structures))
    checkpoint = load_checkpoint(checkpoint_path(folder))
    model = in_float64(checkpoint.model)
    return Run(folder, options, model, checkpoint.metadata, structures, split, source)


def read_options(folder: Path) -> dict[str, Any]:
    """The options of a run, from its config.toml.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if `folder` is something else, or the file is no TOML.
    """
    expect(folder, Kind.RUN)
    file = folder / "config.toml"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is no run folder: it has no config.toml")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file} is not valid TOML: {error}") from error


def in_float64(model: SchNet) -> SchNet:
    """The model itself, moved to float64 and frozen, so that sums over layers hold to rounding."""
    model = model.to(torch.float64).eval().requires_grad_(False)
    model.refine_filters()
    return model


def check_elements(model: SchNet, structures: StructureSet) -> None:
    """Stop where a model would be asked about elements it was not made for.

    Raises:
        ValueError: naming them.
    """
    known = np.array(model.config.elements)
    unknown = np.setdiff1d(structures.elements, known)
    if unknown.size:
        raise ValueError(
            f"`structures` must hold only {symbols(known)}, the elements of the model, "
            f"got {symbols(unknown)}"
        )


def evenly(structures: StructureSet, n_atoms: int, n_most: int | None = None) -> StructureSet:
    """Structures spread evenly over a set, as many as hold about `n_atoms` atoms, at least one.

    Args:
        structures: the set, not empty.
        n_atoms: atoms wanted.
        n_most: at most so many structures.

    Raises:
        ValueError: if the set is empty.
    """
    if not len(structures):
        raise ValueError("`structures` must hold at least one structure, got none")
    wanted = max(1, int(n_atoms / max(structures.n_atoms.mean(), 1.0)))
    wanted = min(wanted, len(structures), n_most or len(structures))
    chosen = np.linspace(0, len(structures) - 1, wanted).round().astype(np.int64)
    return structures.select(chosen)


def symbols(numbers: NDArray[np.int64]) -> str:
    """Chemical symbols, separated by commas."""
    return ", ".join(chemical_symbols[z] for z in numbers)


def symbol(number: int) -> str:
    """Chemical symbol of one atomic number."""
    return chemical_symbols[number]


def layer_names(n_layers: int) -> list[str]:
    """v0 for the embedding, v1 to vL for the blocks."""
    return [f"v{layer}" for layer in range(n_layers)]
