"""What a path that a user gave is: told by content in one place, so that every command can say what it got."""

import os
import zipfile
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from scschnet.archive import ERRORS_OF_ZIPFILE

CHECKPOINT_FORMAT = "scschnet-checkpoint"  # stands in every checkpoint
EXPORTED_METADATA = "extra/scschnet.json"  # record of every exported model
COMMITTEE_OPTIONS = "committee.toml"  # in every folder of a committee
MARKS_OF_A_RUN = ("config.toml", "best.pt", "contributions.csv")
FILES_OF_A_RUN = (*MARKS_OF_A_RUN, "last.pt", "split.npz", "metrics.csv", "test.json")
STRUCTURE_SUFFIXES = {
    *(".h5", ".hdf5", ".tar", ".tgz", ".tbz2", ".db", ".xyz", ".extxyz"),
    *(".traj", ".cif", ".dump", ".lammpstrj"),
}
POSITION_KEYS = ("R", "coords", "positions")  # one of them is in every .npz of structures
SPLIT_KEYS = ({"train", "val", "test"}, {"train_idx", "val_idx", "test_idx"})


class Kind(Enum):
    """Kinds of files and folders; the value is how a message calls one."""

    RUN = "a run folder"
    COMMITTEE = "a committee of run folders"
    FOLDER = "a folder that holds no run"
    EMPTY = "an empty file"
    CHECKPOINT = "a checkpoint"
    EXPORTED = "an exported model"
    TORCH = "a file of torch that scschnet did not write"
    STRUCTURES = "a file of structures"
    SPLIT = "a split (.npz of train, val and test)"
    OPTIONS = "a file of options (TOML)"
    OTHER = "a file of another kind, or damaged"


LEFT_TO_READERS = (Kind.TORCH, Kind.OTHER)  # wanted by nobody
TAKEN_BY = {
    Kind.RUN: "scschnet evaluate, analysis, report, export and train --resume take it",
    Kind.COMMITTEE: "scschnet predict, export, info and train --resume take it",
    Kind.CHECKPOINT: "scschnet evaluate, export and info take it",
    Kind.EXPORTED: "it is for LAMMPS and other programs; scschnet info describes it",
    Kind.STRUCTURES: "scschnet data info describes it, scschnet train --data takes it",
    Kind.SPLIT: "scschnet train --split-file takes it",
    Kind.OPTIONS: "scschnet train --config takes it",
}


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """What a file or folder is, by its content; by its name where text may be anything.

    Args:
        path: an existing file or folder.

    Raises:
        OSError: if it cannot be read.
    """
    file = Path(path)
    if file.is_dir():
        if (file / COMMITTEE_OPTIONS).is_file():
            return Kind.COMMITTEE
        return Kind.RUN if any((file / name).is_file() for name in MARKS_OF_A_RUN) else Kind.FOLDER
    if not file.is_file():  # a pipe must not be read
        return Kind.OTHER
    if not file.stat().st_size:
        return Kind.EMPTY
    if zipfile.is_zipfile(file):
        return _kind_of_archive(file)
    if file.suffix == ".toml":
        return Kind.OPTIONS
    return Kind.STRUCTURES if STRUCTURE_SUFFIXES & set(file.suffixes) else Kind.OTHER


def expect(path: str | os.PathLike[str], *accepted: Kind, option: str = "") -> Kind:
    """The kind of a path, if it is one that is accepted.

    Args:
        path: as the user wrote it.
        accepted: kinds; with TORCH or OTHER among them the caller says itself what is wrong with such a file.
        option: name of the option it was given to; empty: an argument without a name.

    Raises:
        FileNotFoundError: if there is nothing, or a folder without a run.
        ValueError: in one sentence: what was expected, what the path is, and what takes it.
    """
    file = Path(path)
    *first, last = [kind.value for kind in accepted if kind not in LEFT_TO_READERS]
    names = f"{', '.join(first)} or {last}" if first else last
    expected = f"`{option}` must be {names}" if option else f"expected {names}"
    if not file.exists():
        raise FileNotFoundError(f"{expected}, but there is no {file}")
    kind = kind_of(file)
    if kind not in accepted:
        error = FileNotFoundError if kind is Kind.FOLDER else ValueError
        raise error(f"{expected}, but {file} is {kind.value}{_hint(file, kind, accepted)}")
    return kind


def expect_data_of_run(run: Path, data: Sequence[str], remedy: str = "") -> None:
    """Check that the data of a run are where its config.toml says.

    Args:
        run: the run folder.
        data: the option `data` of the run, its files; none: the embedded set.
        remedy: what else may be done in the command under way.

    Raises:
        FileNotFoundError: naming the path, what it is relative to, and what to do.
        ValueError: if it is no file of structures.
    """
    for file in data:
        if not Path(file).exists():
            options = run / COMMITTEE_OPTIONS
            options = options if options.is_file() else run / "config.toml"
            where, edit = (
                f"`data` in {options}",
                "write the whole path of the file there",
            )
            told = f"there is no {file}"
            if not Path(file).is_absolute():  # written by an older scschnet
                told += f", which is relative to the folder where the training was started, not to {Path.cwd()}"
                edit = f"run the command in that folder, or {edit}"
            raise FileNotFoundError(f"{where}: {told}; {edit}{remedy}")
        expect(file, Kind.STRUCTURES, Kind.OTHER, option="data")


def _kind_of_archive(file: Path) -> Kind:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            records = {name.partition("/")[2]: name for name in names}
            if EXPORTED_METADATA in records:
                return Kind.EXPORTED
            if "data.pkl" in records:
                pickled = archive.read(records["data.pkl"])
                return Kind.CHECKPOINT if CHECKPOINT_FORMAT.encode() in pickled else Kind.TORCH
    except ERRORS_OF_ZIPFILE:
        return Kind.OTHER
    arrays = {name.removesuffix(".npy") for name in names if name.endswith(".npy")}
    if any(split <= arrays for split in SPLIT_KEYS):
        return Kind.SPLIT
    return Kind.STRUCTURES if arrays & set(POSITION_KEYS) else Kind.OTHER


def _hint(file: Path, kind: Kind, accepted: tuple[Kind, ...]) -> str:
    """What to give instead, or who takes the file; with the sign before it."""
    folder = file.resolve().parent
    if Kind.RUN in accepted and file.name in FILES_OF_A_RUN and kind_of(folder) is Kind.RUN:
        return f"; name the run folder it lies in, {file.parent}"
    if Kind.CHECKPOINT in accepted and kind is Kind.EXPORTED:
        return "; name the run folder it was exported from"
    if kind is Kind.COMMITTEE and Kind.RUN in accepted:
        return f"; name one of them, such as {file / 'member-1'}"
    if kind is Kind.RUN and Kind.OPTIONS in accepted:
        return f"; its options are in {file / 'config.toml'}"
    return f": {TAKEN_BY[kind]}" if kind in TAKEN_BY else ""
