"""Draws the radial distribution functions that in.water leaves: python plot_rdf.py water_1.rdf water_2.rdf -o rdf.png"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PAIRS = {"O–O": 2, "O–H": 4, "H–H": 6}  # column of g(r); the next one counts neighbors


def read(file: Path) -> np.ndarray:
    """The last table of a file of fix ave/time: columns are bin, r, and g and count of each pair."""
    lines = [line.split() for line in file.read_text().splitlines() if not line.startswith("#")]
    start = [k for k, line in enumerate(lines) if len(line) == 2][-1]
    return np.array(lines[start + 1 :], dtype=float)


def first_peak(r: np.ndarray, g: np.ndarray) -> float:
    """Position of the highest value beyond the bonds, from a parabola through three points."""
    k = int(np.argmax(np.where(r > 1.9, g, 0.0)))
    a, b, c = g[k - 1 : k + 2]
    return float(r[k] + 0.5 * (a - c) / (a - 2 * b + c) * (r[1] - r[0]))


def main() -> None:
    """Read, draw, and print where the peaks are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path, default=Path("rdf.png"))
    arguments = parser.parse_args()
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), constrained_layout=True)
    for file in arguments.files:
        table = read(file)
        for panel, (name, column) in zip(panels, PAIRS.items(), strict=True):
            panel.plot(table[:, 1], table[:, column], label=file.stem)
            panel.set(title=name, xlabel="r (Å)", ylim=(0, 5), xlim=(0.5, 6))
        peak = first_peak(table[:, 1], table[:, 2])
        print(f"{file}: O–O peaks at {peak:.2f} Å, g = {table[:, 2].max():.2f}")
    panels[0].set_ylabel("g(r)")
    panels[0].legend(frameon=False)
    figure.savefig(arguments.out, dpi=150)


if __name__ == "__main__":
    main()
