"""What all figures share: size, style, colors, labels at the ends of lines, and files by suffix.

Nothing here touches pyplot or the caller's matplotlib settings: figures are objects, drawn off screen.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from scschnet.files import replacing

CM = 1 / 2.54  # inches
COLUMN_WIDTH = 8.6  # cm, one column of a two-column journal
HEIGHT = 6.6  # cm
FORMATS = ("png", "pdf", "svg")
STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.labelsize": 7.5,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.frameon": False,
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,  # letters stay letters: journals ask for it
    "svg.hashsalt": "scschnet",  # the same picture gives the same file
    "savefig.dpi": 300,
}
ACCENT = "#33608c"  # the one color where nothing is told apart by color
ON_PALE = "#202124"  # writing on a pale color, the same in a light and a dark page
NO_DATE = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


@contextmanager
def figure_style() -> Iterator[None]:
    """Matplotlib's defaults and our style within the block, whatever the caller has set; then as before."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def new_figure(width: float = COLUMN_WIDTH, height: float = HEIGHT) -> Figure:
    """An empty figure off screen; use it within `figure_style`.

    Args:
        width: cm, positive.
        height: cm, positive.

    Raises:
        ValueError: if a length is not positive.
    """
    for name, value in (("width", width), ("height", height)):
        if not value > 0:
            raise ValueError(f"`{name}` must be positive, got {value}")
    figure = Figure(figsize=(width * CM, height * CM), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_format(path: str | os.PathLike[str]) -> str:
    """The format that the suffix of `path` names.

    Raises:
        ValueError: if it is none of png, pdf, svg.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"`path` must end in .png, .pdf or .svg, got {path}")
    return suffix


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure whole or not at all; the suffix says the format.

    Args:
        figure: from `new_figure`.
        path: ends in .png, .pdf or .svg.

    Returns:
        The path.

    Raises:
        ValueError: for another suffix.
        OSError: naming the file, if it cannot be written.
    """
    suffix = check_format(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=suffix, metadata=NO_DATE[suffix])
    return Path(path)


def layer_colors(n_layers: int) -> list[Any]:
    """Colors of the embedding and of each block by depth, told apart by color-blind readers.

    The embedding is black; blocks run through plasma, which gets lighter with depth, so that the order
    survives printing in gray.

    Args:
        n_layers: number of interaction blocks + 1.
    """
    depths = np.linspace(0.03, 0.83, max(n_layers - 1, 1))
    return ["black", *colormaps["plasma"](depths)][:n_layers]


def spread_positions(wanted: ArrayLike, gap: float, low: float, high: float) -> NDArray[np.float64]:
    """Positions at least `gap` apart and within low..high, as near to those wanted as can be.

    Least squares under y_(k+1) - y_k >= gap in the order of the wanted ones: isotonic regression of
    y_k - k gap by pooling neighbors. If there is no room for all, the gaps shrink.

    Args:
        wanted: (n,), any order.
        gap: least distance.
        low: lower end.
        high: upper end.

    Returns:
        (n,), in the order of `wanted`.
    """
    values = np.asarray(wanted, dtype=np.float64)
    n = len(values)
    gap = min(gap, (high - low) / max(n - 1, 1))
    order = np.argsort(values, kind="stable")
    steps = gap * np.arange(n)
    pools: list[tuple[float, int]] = []  # mean and size
    for value in values[order] - steps:
        mean, size = float(value), 1
        while pools and pools[-1][0] >= mean:
            before, n_before = pools.pop()
            mean = (mean * size + before * n_before) / (size + n_before)
            size += n_before
        pools.append((mean, size))
    fitted = np.concatenate([np.full(size, mean) for mean, size in pools]) if n else np.zeros(0)
    result = np.empty(n)
    result[order] = np.clip(fitted, low, high - gap * max(n - 1, 0)) + steps
    return result


def label_line_ends(axes: Any, x: float, y: Sequence[float], labels: Sequence[Any]) -> None:
    """Move labels to the right of the axes, each as near as possible to the end of its line.

    Args:
        axes: matplotlib axes, limits set.
        x: where the lines end, data coordinates.
        y: height of each end, data coordinates.
        labels: matplotlib annotations in axes fraction, one for each line; moved.
    """
    box = axes.get_window_extent()
    points = 72 / axes.figure.dpi
    width, height = box.width * points, box.height * points
    ends = [axes.transAxes.inverted().transform(axes.transData.transform((x, end)))[1] for end in y]
    size = labels[0].get_fontsize() if labels else 0.0
    for label, place in zip(
        labels, spread_positions(ends, 1.25 * size / height, 0.0, 1.0), strict=True
    ):
        label.set_position((1 + 12 / width, place))


def legend_above(axes: Any, n: int) -> None:
    """A small legend of `n` entries above the axes, in as few lines of up to seven as will do."""
    n_lines = -(-n // 7)
    axes.legend(
        ncols=-(-n // max(n_lines, 1)),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        fontsize=6.5,
        handlelength=0.9,
        handletextpad=0.4,
        columnspacing=0.9,
    )
