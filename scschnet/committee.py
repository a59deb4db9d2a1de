"""A committee on disk: a folder of runs that differ in their seeds and share their data and split.

committee.toml     the options; `committee` is the number of members
split.npz          the split of all members
member-1, ...      run folders
error_bars.json    what deviations are multiplied with, found on the validation part
"""

import dataclasses
import json
import os
import tomllib
from pathlib import Path

from scschnet.checkpoint import load as load_member
from scschnet.files import replacing
from scschnet.kinds import COMMITTEE_OPTIONS, Kind, expect, kind_of
from scschnet.nn import SchNet
from scschnet.nn.committee import Committee, Factors

FACTORS = "error_bars.json"


def load(path: str | os.PathLike[str]) -> SchNet | Committee:
    """Load a trained model or committee, ready to be evaluated.

    Args:
        path: a run folder (its `best.pt` is taken), a checkpoint file, or a committee folder.

    Returns:
        The model or committee in evaluation mode on the CPU; its parameters ask for no gradients.

    Raises:
        FileNotFoundError: if there is no such file, or a member is not trained yet.
        ValueError: if a file is damaged, foreign, or of a newer version, or its filters are too steep
            for tables.
    """
    if not is_committee(path):
        return load_member(path)
    members = [load_member(member) for member in member_folders(path)]
    return Committee(members, read_factors(path)).eval()


def is_committee(path: str | os.PathLike[str]) -> bool:
    """Whether there is a committee folder."""
    return Path(path).exists() and kind_of(path) is Kind.COMMITTEE


def member_folder(folder: str | os.PathLike[str], number: int) -> Path:
    """The run folder of a member, numbers from 1."""
    return Path(folder) / f"member-{number}"


def member_folders(folder: str | os.PathLike[str]) -> list[Path]:
    """The run folders of all members.

    Args:
        folder: a committee folder.

    Raises:
        FileNotFoundError: if it is none, or a member has not finished its first epoch.
        ValueError: if its options cannot be read.
    """
    expect(folder, Kind.COMMITTEE)
    file = Path(folder) / COMMITTEE_OPTIONS
    try:
        n_members = int(tomllib.loads(file.read_text(encoding="utf-8"))["committee"])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} must give the number of members: {error}") from error
    members = [member_folder(folder, k + 1) for k in range(n_members)]
    for member in members:
        if not (member / "best.pt").is_file():
            raise FileNotFoundError(
                f"{folder} is a committee of {n_members}, but {member} has no best.pt yet; go on with scschnet "
                f"train --resume {folder}"
            )
    return members


def read_factors(folder: str | os.PathLike[str]) -> Factors:
    """What deviations are multiplied with; ones where nothing was found.

    Args:
        folder: a committee folder.

    Raises:
        ValueError: if error_bars.json cannot be used.
    """
    file = Path(folder) / FACTORS
    if not file.is_file():
        return Factors()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Factors(float(content["energy"]), float(content["forces"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} must hold the factors energy and forces: {error}") from error


def write_factors(folder: str | os.PathLike[str], factors: Factors) -> None:
    """Write error_bars.json."""
    with replacing(Path(folder) / FACTORS) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(factors), indent=2) + "\n")
