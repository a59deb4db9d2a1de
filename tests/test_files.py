"""Files that find no room; a limit of the process does what a full disk does."""

import resource
from contextlib import contextmanager

import numpy as np
import pytest

from scschnet.data import Split
from scschnet.files import replacing
from scschnet.runs.config import TrainConfig
from scschnet.runs.folder import EpochMetrics, RunFolder
from scschnet.runs.lock import FolderLock


@contextmanager
def no_room(limit: int = 0):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_lock_names_its_file_and_leaves_none(tmp_path):
    lock = FolderLock(tmp_path)
    with no_room(), pytest.raises(OSError, match=r"cannot write .*\.lock: File too large$"):
        lock.acquire()
    assert list(tmp_path.iterdir()) == []
    lock.acquire()
    lock.release()


def test_a_table_names_its_file(tmp_path):
    split = Split(np.array([0]), np.array([1]), np.array([2]))
    run = RunFolder.create(TrainConfig(out=str(tmp_path / "run")), split)
    before = run.metrics.read_bytes()
    row = EpochMetrics(1, 1, 0.1, 1.0, 1.0, 1.0, {})
    with no_room(), pytest.raises(OSError, match=r"cannot write .*metrics\.csv: File too large$"):
        run.append(row, [])
    assert run.metrics.read_bytes() == before


def test_a_replaced_file_is_named_and_stays(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    refused = pytest.raises(OSError, match=r"cannot write .*a\.txt: File too large$")
    with no_room(), refused, replacing(file) as temporary:
        temporary.write_text("new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
