"""Writing files whole or not at all, and text to whatever reads the output."""

import glob
import io
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    The data and the folder entry are flushed to disk before and after the rename. On an error the
    temporary file is removed and `path` stays as it was. Temporary files of the same path that a killed process of
    this machine left behind are removed.

    Args:
        path: the file to write or replace.

    Raises:
        FileNotFoundError: if the folder does not exist.
        OSError: naming `path`, if the file cannot be written (full disk, unwritable folder).
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"`{target.parent}` must be an existing folder, got none")
    temporary = target.with_name(f"{_prefix(target)}{os.getpid()}.tmp")
    _remove_leftovers(target)
    try:
        with writing(target):
            yield temporary
            rename_durably(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """A block that writes a file, whose errors name it: a full disk does not say which file found no room.

    Args:
        path: the file.

    Raises:
        OSError: naming `path`, for every OSError of the block.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot write {path}: {reason}") from error


def _prefix(target: Path) -> str:
    """Of the names of temporary files; the machine is named because numbers of processes are its own."""
    return f".{target.name}.{socket.gethostname()}."


def _remove_leftovers(target: Path) -> None:
    prefix = _prefix(target)
    for path in target.parent.glob(f"{glob.escape(prefix)}*.tmp"):
        process = path.name.removeprefix(prefix).removesuffix(".tmp")
        if process.isdecimal() and not _runs(int(process)):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def rename_durably(source: Path, target: Path) -> None:
    """Rename with both the data and the folder entry on disk.

    Args:
        source: file to rename.
        target: its new name, in the same folder.
    """
    _sync(source)
    os.replace(source, target)
    _sync(target.parent)


def write_any_text() -> None:
    """Let standard output and error take characters that their encoding lacks, such as Å, as escapes.

    Logs of batch systems are often ASCII; a finished training must not fail in its last line.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
