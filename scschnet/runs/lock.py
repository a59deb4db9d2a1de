"""One training at a time in a run folder."""

import fcntl
import os
import socket
from io import FileIO
from pathlib import Path

from scschnet.files import writing


class FolderLock:
    """A lock on a folder that ends with the process, however that ends.

    The file `.lock` in the folder is locked by flock and names the process that holds it. On a file system
    without such locks there is none, and nothing is said.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / ".lock"
        self._file: FileIO | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            BlockingIOError: if another training holds it, naming its process and machine.
            OSError: if there is no room for the file.
        """
        while self._file is None:
            file = self.path.open("a+b", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().decode().strip() or "another process"
                file.close()
                raise BlockingIOError(
                    f"{self.folder} is in use by {holder}, which trains in it; wait until it ends, or stop it"
                ) from None
            except OSError:  # no locks here
                file.close()
                return
            if self._is_current(file):
                self._file = file
            else:  # who held it has removed the file in between
                file.close()
        try:
            with writing(self.path):
                self._file.truncate(0)
                self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back, and leave no file behind."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def _is_current(self, file: FileIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False
