"""`scschnet select`: frames of trajectories that are worth labeling."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import ase.io
import tyro
from ase import Atoms
from tqdm import tqdm

from scschnet.commands.line import Device, Run, failed, out_option, parse
from scschnet.commands.predict import read_frames
from scschnet.device import check_device
from scschnet.files import replacing
from scschnet.kinds import Kind, expect
from scschnet.select import Selection, select


@dataclass(frozen=True)
class Options:
    """Frames to label: those of which a model is unsure, and among these such as differ from each other.

    The uncertainty of a frame is the largest error bar of its atoms: that of the forces where the model gives one, else
    the unfamiliarity. Of the most uncertain half of the frames, at most five for each that is wanted, those are taken
    that are farthest from each other in the representation that the model reads energies from. Frames in which atoms
    overlap (nearer than 0.7 times the shortest distance in training) are left out and counted.

    Every frame is written without labels, with the reason in its comment line: uncertainty, uncertainty_of,
    uncertain_atom, source_file, source_frame. The first few are a selection, too.
    """

    run: Run
    """Run folder (its best.pt is taken), checkpoint file or committee folder."""
    trajectories: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="FRAMES [FRAMES ...]", help_behavior_hint="(required)"),
    ]
    """Files of structures or trajectories that ASE reads (extxyz, xyz, db, traj, LAMMPS dump with elements, ...)."""
    out: Annotated[Path, out_option()]
    """Extended XYZ file to write, .extxyz or .xyz."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"], metavar="INT")] = 50
    """Frames to select; all usable ones if there are fewer."""
    overwrite: bool = False
    """Replace the file if it exists."""
    device: Device = "cpu"
    """Where to compute: cpu, cuda (the first GPU) or cuda:1 (the second)."""


OPTIONS = Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Select as the command line says; returns the exit status, 0 done or 1 failed.

    Args:
        arguments: without the program's name; None: those of the process. Wrong usage ends the
            process with status 2.
    """
    options = parse(Options, "select", arguments)
    try:
        found = _select(options)
    except (OSError, ValueError, RuntimeError) as failure:
        return failed(failure, options)
    print(_words(options.out, found))
    return 0


def _select(options: Options) -> Selection:
    if options.out.suffix not in (".extxyz", ".xyz"):
        raise ValueError(f"`--out` must end in .extxyz or .xyz, got {options.out}")
    if options.out.exists() and not options.overwrite:
        raise FileExistsError(
            f"`--out` must be a new file, but there is {options.out}; --overwrite replaces it"
        )
    if not options.trajectories:
        raise ValueError("name at least one trajectory to select from")
    check_device(options.device)
    expect(options.run, Kind.RUN, Kind.CHECKPOINT, Kind.COMMITTEE)
    for file in options.trajectories:
        expect(file, Kind.STRUCTURES, Kind.OTHER)
    starts: list[int] = []
    frames = tqdm(
        _all_frames(options.trajectories, starts), unit=" frames", disable=None, leave=False
    )
    found = select(options.run, frames, options.n, options.device)
    for atoms in found.frames:
        place = bisect_right(starts, atoms.info["source_frame"]) - 1
        atoms.info["source_file"] = str(options.trajectories[place])
        atoms.info["source_frame"] -= starts[place]
    with replacing(options.out) as temporary:
        ase.io.write(temporary, found.frames, format="extxyz")
    return found


def _all_frames(files: tuple[Path, ...], starts: list[int]) -> Iterator[Atoms]:
    """The frames of all files, one by one; `starts` gets the number of the first one of each."""
    number = 0
    for file in files:
        starts.append(number)
        for atoms in read_frames(file):
            yield atoms
            number += 1
        if number == starts[-1]:
            raise ValueError(f"{file} must hold frames, got none")


def _words(out: Path, found: Selection) -> str:
    """What was selected, in two lines."""
    values = [atoms.info["uncertainty"] for atoms in found.frames]
    measure = found.frames[0].info["uncertainty_of"]
    return (
        f"{found.n_seen} frames, of which {found.n_nonsense} are left out, because atoms overlap or numbers are not "
        f"finite; {found.n_candidates} candidates\n"
        f"{out}: {len(values)} frames, {measure} {min(values):.3g} to {max(values):.3g}"
    )
