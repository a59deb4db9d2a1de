"""Numbers as CSV beside their pictures: full precision, written whole or not at all."""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scschnet.files import replacing


def write_table(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> Path:
    """Write rows of numbers and words as CSV.

    Args:
        path: file to write or replace.
        columns: names, with units in parentheses where there is one.
        rows: one value per column each; NumPy numbers are written like Python's.

    Returns:
        The path.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_plain(value) for value in row] for row in rows)
    return Path(path)


def table_beside(path: str | os.PathLike[str]) -> Path:
    """Where the numbers of a figure go: the same name, ending in .csv."""
    return Path(path).with_suffix(".csv")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
