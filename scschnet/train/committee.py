"""Training the members of a committee, one after another, on the same data and split."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scschnet.checkpoint import load, load_checkpoint
from scschnet.committee import FACTORS, member_folder, member_folders, write_factors
from scschnet.data import Split, StructureSet, load_split, save_split
from scschnet.data.fingerprint import fingerprint
from scschnet.evaluate.error_bars import fit_factors
from scschnet.kinds import COMMITTEE_OPTIONS, expect_data_of_run
from scschnet.runs.config import TrainConfig, write_config
from scschnet.runs.folder import RunFolder, check_fingerprint, free_name
from scschnet.runs.lock import FolderLock
from scschnet.train.loop import Member, start_processes, train_in
from scschnet.train.processes import Processes
from scschnet.train.setup import choose_split, read_structures, resolve


def train_committee(
    config: TrainConfig,
    resume: Path | None = None,
    finished: Callable[[RunFolder], object] | None = None,
) -> Path:
    """Train a committee, or go on with an interrupted one; members that are finished are not trained again.

    At the end its error bars are calibrated on the validation part.

    Args:
        config: all options; `committee` is the number of members, whose seeds are `seed`, `seed` + 1, ...
        resume: committee folder to go on with, or None for a new one.
        finished: called by the first process with every member that is finished.

    Returns:
        The committee folder.

    Raises:
        Interrupted, TrainingFailed, ValueError, OSError: as `scschnet.train.loop.train`.
    """
    processes = start_processes(config)
    if resume is not None:
        expect_data_of_run(resume, config.data)
    structures = read_structures(config)
    folder, split = _open(config, resume, structures, processes)
    begun = [_is_begun(member_folder(folder, k + 1)) for k in range(config.committee)]
    processes.wait()
    lock = FolderLock(folder)
    if processes.is_first:
        lock.acquire()
    try:
        for k in range(config.committee):
            path = member_folder(folder, k + 1)
            member = Member(structures, split, f"member {k + 1} of {config.committee}")
            if not begun[k] and processes.is_first and path.exists():
                shutil.rmtree(path)  # of a process that was killed while it made the folder
            run = train_in(
                processes, _of_member(config, k, path), path if begun[k] else None, member
            )
            if finished is not None and processes.is_first:
                finished(run)
        if processes.is_first:
            models = [load(member) for member in member_folders(folder)]
            write_factors(folder, fit_factors(models, structures.select(split.val)))
    finally:
        lock.release()
    processes.close()
    return folder


def _of_member(config: TrainConfig, k: int, path: Path) -> TrainConfig:
    split_seed = config.seed if config.split_seed < 0 else config.split_seed
    return replace(config, committee=1, seed=config.seed + k, split_seed=split_seed, out=str(path))


def _is_begun(member: Path) -> bool:
    return (member / "config.toml").is_file()


def _open(
    config: TrainConfig, resume: Path | None, structures: StructureSet, processes: Processes
) -> tuple[Path, Split]:
    """The folder and the split of all members, new or as they are."""
    if resume is not None:
        split = load_split(resume / "split.npz", len(structures))
        last = member_folder(resume, 1) / "last.pt"
        if last.is_file():  # members that are to begin must see the data of the first one
            metadata = load_checkpoint(last).metadata
            check_fingerprint(resume, metadata, fingerprint(structures, split))
        return resume, split
    folder = Path(config.out) if config.out else free_name(config)
    resolved = resolve(config, structures)
    split = choose_split(resolved, structures)
    processes.wait()  # all have chosen the name
    if processes.is_first:
        _create(folder, resolved, split)
    processes.wait()
    return folder, split


def _create(folder: Path, config: TrainConfig, split: Split) -> None:
    """Make the folder: the split, and last the options, so that it is whole once they are there."""
    options = folder / COMMITTEE_OPTIONS
    if options.exists():
        raise FileExistsError(
            f"`out` must be a new folder, but {folder} holds a committee; go on with it by --resume {folder}"
        )
    for name in ("config.toml", "split.npz", FACTORS, "report.html", "member-1"):
        if (folder / name).exists():
            raise FileExistsError(
                f"`out` must be a new folder, but {folder} holds {name}, which a committee writes"
            )
    folder.mkdir(parents=True, exist_ok=True)
    save_split(folder / "split.npz", split)
    write_config(options, config)
