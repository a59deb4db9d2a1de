"""whole_file: write under a temporary name, then rename, so that a file is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there takes its name at the end.

    The data and the folder entry are flushed to disk before and after the rename. If the block
    raises, the temporary file is removed and whatever was at `path` stays as it was.

    Raises:
        FileNotFoundError: if the folder does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"`{target.parent}` must be an existing folder, got none")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        rename_durably(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def rename_durably(source: Path, target: Path) -> None:
    """Rename with both the data and the folder entry on disk."""
    _sync(source)
    os.replace(source, target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
