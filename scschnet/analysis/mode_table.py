"""The table of modes: written by `scschnet analysis modes`, read by the report, drawn by both."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scschnet.analysis.hessian import PAIR
from scschnet.analysis.internal import KINDS
from scschnet.analysis.modes import Modes, ModesOverRuns
from scschnet.analysis.tables import write_table

FILE = "modes.csv"
"""The name under which the report looks for a table in a run folder."""

KIND, MOTION = "kind", "motion"
FREQUENCY, FREQUENCY_STD = "frequency (1/cm)", "std over runs (1/cm)"
DEPTH, DEPTH_STD = "mean layer", "mean layer std"
INFRARED = "IR intensity, first run (km/mol)"
FREQUENCY_HELD, DEPTH_HELD = "frequency std from rigidity (1/cm)", "mean layer std from rigidity"


@dataclass(frozen=True, eq=False)
class ModesTable:
    """What is drawn of normal modes.

    Args:
        n_runs: over how many runs means are.
        kinds: stretch, bend or torsion, or empty.
        labels: what kind of motion each is, or empty.
        frequencies: (n_modes,), 1/cm.
        frequency_std: standard deviation over runs, of a single run that from rigidity, (n_modes,), 1/cm, or None.
        names: of the shares.
        shares: fractions of omega^2, (n_modes, n_shares).
        depth: mean layers, (n_modes,).
        depth_std: as `frequency_std`.
        infrared: integrated absorption, (n_modes,), km/mol, or None.
    """

    n_runs: int
    kinds: tuple[str, ...]
    labels: tuple[str, ...]
    frequencies: NDArray[np.float64]
    frequency_std: NDArray[np.float64] | None
    names: tuple[str, ...]
    shares: NDArray[np.float64]
    depth: NDArray[np.float64]
    depth_std: NDArray[np.float64] | None
    infrared: NDArray[np.float64] | None

    @property
    def source(self) -> str:
        """Of the standard deviations, in words."""
        return "from rigidity" if self.n_runs == 1 else f"over {self.n_runs} runs"


def tabulate(found: ModesOverRuns) -> ModesTable:
    """Means over runs, with their standard deviations."""
    first, held = found.first, found.rigidity
    n_runs, n_modes = found.frequencies.shape
    of_frequency = None if held is None else held.frequencies
    of_depth = None if held is None else held.depth
    if n_runs > 1:
        of_frequency, of_depth = (v.std(axis=0, ddof=1) for v in (found.frequencies, found.depth))
    return ModesTable(
        n_runs,
        tuple(kind_of(first, k) for k in range(n_modes)),
        first.labels or ("",) * n_modes,
        found.frequencies.mean(axis=0),
        of_frequency,
        first.names,
        found.shares.mean(axis=0),
        found.depth.mean(axis=0),
        of_depth,
        first.infrared,
    )


def read_modes(path: str | os.PathLike[str]) -> ModesTable:
    """Read what `write_modes` wrote.

    Args:
        path: the CSV.

    Raises:
        ValueError: naming the file, if it is another table.
        OSError: if it cannot be read.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        names = tuple(
            name.removeprefix("share ")
            for name in columns
            if name.startswith("share ") and f"{name} std" in columns
        )

        if not names or any(None in (*row, *row.values()) for row in rows):
            raise ValueError("rows differ in length, or there are no shares")

        def numbers(*choices: str) -> NDArray[np.float64] | None:
            for name in choices:
                if columns.get(name, [""])[0] != "":
                    return np.array(columns[name], dtype=np.float64)
            return None

        return ModesTable(
            sum(name.startswith("frequency, run ") for name in columns),
            tuple(columns[KIND]),
            tuple(columns[MOTION]),
            np.array(columns[FREQUENCY], dtype=np.float64),
            numbers(FREQUENCY_STD, FREQUENCY_HELD),
            names,
            np.array([columns[f"share {name}"] for name in names], dtype=np.float64).T,
            np.array(columns[DEPTH], dtype=np.float64),
            numbers(DEPTH_STD, DEPTH_HELD),
            numbers(INFRARED),
        )
    except (KeyError, IndexError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} must be a table that `scschnet analysis modes` wrote, got another file or a damaged one"
        ) from error


def write_modes(path: str | os.PathLike[str], found: ModesOverRuns) -> Path:
    """Write a row per mode as CSV: means over runs, and sample standard deviations, empty for one run.

    Standard deviations from rigidity are the last columns, where there are any.
    """
    first = found.first
    n_runs = len(found.frequencies)
    columns = [
        "mode",
        KIND,
        MOTION,
        FREQUENCY,
        FREQUENCY_STD,
        "least overlap",
    ]
    columns += ["moving atoms", *(f"{kind} fraction" for kind in KINDS)]
    columns += [DEPTH, DEPTH_STD]
    for name in first.names:
        columns += [f"share {name}", f"share {name} std"]
    columns += [f"straight share {name}, first run" for name in first.names]
    columns += [f"frequency, run {run + 1} (1/cm)" for run in range(n_runs)]
    columns += [f"mean layer, run {run + 1}" for run in range(n_runs)]
    columns += [INFRARED]
    held = found.rigidity
    if held is not None:
        columns += [FREQUENCY_HELD, DEPTH_HELD]
        columns += [f"share {name} std from rigidity" for name in first.names if name != PAIR]

    def both(values: Any) -> list[Any]:
        return [values.mean(), values.std(ddof=1) if n_runs > 1 else ""]

    rows = []
    straight = first.straight / first.squares[:, None]
    for k in range(len(first.squares)):
        row = [k + 1, kind_of(first, k), first.labels[k] if first.labels else ""]
        row += [*both(found.frequencies[:, k]), found.overlaps[:, k].min(), first.n_moving[k]]
        row += list(first.fractions[k]) if first.fractions is not None else [""] * len(KINDS)
        row += both(found.depth[:, k])
        for share in found.shares[:, k].T:
            row += both(share)
        row += [*straight[k], *found.frequencies[:, k], *found.depth[:, k]]
        row += ["" if first.infrared is None else first.infrared[k]]
        if held is not None:
            row += [held.frequencies[k], held.depth[k], *held.shares[k]]
        rows.append(row)
    return write_table(path, columns, rows)


def kind_of(modes: Modes, k: int) -> str:
    """Stretch, bend or torsion: the largest share of the kinetic energy; empty for a periodic structure."""
    return "" if modes.fractions is None else KINDS[int(modes.fractions[k].argmax())]
