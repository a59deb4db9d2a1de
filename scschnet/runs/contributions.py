"""contributions.csv: the contribution weights of a run, a row per epoch, property and layer.

w_hat^(l) = w^(l) mean_i ||v_i^(l)||      Eq. 5 of Nicoli et al. 2018, arXiv:1810.09751
"""

import csv
import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scschnet.kinds import Kind, expect

TABLE = "contributions.csv"
ENERGY = "energy"


@dataclass(frozen=True)
class LayerContribution:
    """One layer's row of contributions.csv.

    Args:
        layer: 0 is the embedding, l the block l.
        weight: w^(l) at the end of the epoch.
        mean_norm: ||v_i^(l)||, averaged over the atoms of a minibatch and over minibatches.
        normalized_weight: w_hat^(l) = w^(l) mean_i ||v_i^(l)||, averaged over minibatches.
        normalized_weight_std: its standard deviation over minibatches.
        property: whose weight this is; tables of older versions have the energy alone, and no such column.
    """

    layer: int
    weight: float
    mean_norm: float
    normalized_weight: float
    normalized_weight_std: float
    property: str = ENERGY


COLUMNS = ("epoch", *(field.name for field in dataclasses.fields(LayerContribution)))
NUMBERS = COLUMNS[:-1]


@dataclass(frozen=True, eq=False)
class Contributions:
    """Contribution weights of one run; n_layers = number of interaction blocks + 1.

    Args:
        path: the table they come from.
        epochs: (n_epochs,) int64, rising.
        weight: w^(l), (n_epochs, n_layers).
        mean_norm: mean_i ||v_i^(l)||, (n_epochs, n_layers).
        normalized_weight: w_hat^(l), mean over the minibatches of an epoch, (n_epochs, n_layers).
        normalized_weight_std: its standard deviation over minibatches, (n_epochs, n_layers).
        property: whose weights these are.
    """

    path: Path
    epochs: NDArray[np.int64]
    weight: NDArray[np.float64]
    mean_norm: NDArray[np.float64]
    normalized_weight: NDArray[np.float64]
    normalized_weight_std: NDArray[np.float64]
    property: str = ENERGY

    @functools.cached_property
    def plain(self) -> bool:
        """Whether the run is one of SchNet without contribution weights, every w^(l) = 1 throughout."""
        return bool((self.weight == 1.0).all())


def read_contributions(run: str | os.PathLike[str], property: str | None = None) -> Contributions:
    """Read the contribution weights of a run, those of one property.

    A last epoch that is still being written is left out.

    Args:
        run: run folder, or its contributions.csv.
        property: whose; None: the energy's, or those of the first property where there is no energy.

    Returns:
        Contributions.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if it has no epoch yet, is not such a table, or does not have the property.
    """
    path = _table_of(run)
    of_properties = _read_rows(path)
    there = list(of_properties)
    name = property or (there[0] if there and ENERGY not in there else ENERGY)
    if there and name not in there:
        raise ValueError(f"`property` must be one of {', '.join(there)} in {path}, got {name}")
    rows = of_properties.get(name, [])
    n_layers = 1 + max((int(row[1]) for row in rows), default=-1)
    if rows and len(rows) % n_layers and int(rows[-1][1]) != n_layers - 1:
        last = rows[-1][0]
        rows = [row for row in rows if row[0] != last]
    if not rows:
        raise ValueError(f"{path} holds no epoch yet")
    table = np.array(rows)
    if len(table) % n_layers:
        raise ValueError(f"{path} must hold {n_layers} layers for every epoch")
    table = table.reshape(-1, n_layers, len(NUMBERS))
    epochs = table[:, 0, 0]
    whole = (table[:, :, 0] == epochs[:, None]).all() and (table[:, :, 1] == range(n_layers)).all()
    if not whole or (np.diff(epochs) <= 0).any():
        raise ValueError(
            f"{path} must hold layers 0 to {n_layers - 1} of each epoch, epochs rising"
        )
    columns = {name: table[:, :, k] for k, name in enumerate(NUMBERS) if k >= 2}
    return Contributions(path, epochs.astype(np.int64), **columns, property=name)


def properties_of(run: str | os.PathLike[str]) -> list[str]:
    """Whose contribution weights a run has, in the order of its table.

    Args:
        run: run folder, or its contributions.csv.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if it is not such a table.
    """
    return list(_read_rows(_table_of(run)))


def layers_at(run: Path, epoch: int) -> list[LayerContribution]:
    """The rows of one epoch, the energy's; empty if the run has no table, or none for this epoch."""
    if not (run / TABLE).is_file():
        return []
    rows = [row for row in _read_rows(run / TABLE).get(ENERGY, []) if row[0] == epoch]
    return [
        LayerContribution(int(layer), weight, norm, normalized, std)
        for _, layer, weight, norm, normalized, std in rows
    ]


def _table_of(run: str | os.PathLike[str]) -> Path:
    path = Path(run) / TABLE if expect(run, Kind.RUN, Kind.OTHER) is Kind.RUN else Path(run)
    if not path.is_file():
        raise FileNotFoundError(f"there are no contribution weights at {path}")
    return path


def _read_rows(path: Path) -> dict[str, list[list[float]]]:
    """The numbers of every whole line, by property."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    header, *rest = csv.reader(lines) if lines else [[]]
    missing = [name for name in NUMBERS if name not in header]
    if missing:
        raise ValueError(f"{path} must have the columns {', '.join(NUMBERS)}; no {missing[0]}")
    places = [header.index(name) for name in NUMBERS]
    named = header.index("property") if "property" in header else None
    rows: dict[str, list[list[float]]] = {}
    for number, line in enumerate(rest, start=2):
        try:
            row = [float(line[k]) for k in places]
            name = ENERGY if named is None else line[named]
        except (IndexError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {','.join(line)!r} is no row") from error
        if not np.isfinite(row).all():
            raise ValueError(f"{path}, line {number}: `{_first_bad(row)}` is not finite")
        rows.setdefault(name, []).append(row)
    return rows


def _first_bad(row: list[float]) -> str:
    return COLUMNS[int(np.flatnonzero(~np.isfinite(row))[0])]


def layer_names(n_layers: int) -> list[str]:
    """v0 for the embedding, v1 to vL for the blocks."""
    return [f"v{layer}" for layer in range(n_layers)]
