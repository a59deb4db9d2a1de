"""Writing files whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    The temporary file is flushed to disk before it is renamed; on an error it is removed and `path`
    stays as it was.

    Args:
        path: the file to write or replace.

    Raises:
        OSError: naming `path`, if the file cannot be written (full disk, unwritable folder).
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot write {target}: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)
