"""What in.water's averages say: draws radial distribution functions, writes them as CSV, prints the rest.

python plot_rdf.py water_64 water_512 -o rdf.png
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PAIRS = {"O–O": 2, "O–H": 4, "H–H": 6}  # column of g(r); the next one counts neighbors


def read_rdf(file: Path) -> np.ndarray:
    """The last table of a file of fix ave/time: columns are bin, r, and g and count of each pair."""
    lines = [line.split() for line in file.read_text().splitlines() if not line.startswith("#")]
    start = [k for k, line in enumerate(lines) if len(line) == 2][-1]
    return np.array(lines[start + 1 :], dtype=float)


def extremum(r: np.ndarray, g: np.ndarray, k: int) -> float:
    """Position of the extremum near row k, from a parabola through three points."""
    a, b, c = g[k - 1 : k + 2]
    return float(r[k] + 0.5 * (a - c) / (a - 2 * b + c) * (r[1] - r[0]))


def describe_rdf(table: np.ndarray) -> str:
    """First peak and first minimum of O–O, neighbors within the latter, and hydrogens bound to an oxygen."""
    r, g, count = table[:, 1], table[:, 2], table[:, 3]
    top = int(np.argmax(g))
    beyond = np.where((r > r[top]) & (r < 4.0), g, np.inf)
    low = int(np.argmin(beyond))
    bound = np.interp(1.3, r, table[:, 5])
    return (
        f"O–O peaks at {extremum(r, g, top):.2f} Å (g = {g[top]:.2f}), first minimum at {r[low]:.2f} Å "
        f"(g = {g[low]:.2f}), {count[low]:.2f} neighbors within it; {bound:.3f} H within 1.3 Å of an O"
    )


def describe_state(file: Path) -> str:
    """Temperature and pressure with the standard error of twenty parts, and the diffusion coefficient."""
    step, kelvin, bar, msd = np.loadtxt(file).T
    error = 1.0 / np.sqrt(len(step))
    ps = 0.0005 * (step - 0.5 * step[0])  # middles of the parts
    slope = np.polyfit(ps[2:], msd[2:], 1)[0]
    return (
        f"{kelvin.mean():.1f} ± {kelvin.std(ddof=1) * error:.1f} K, "
        f"{bar.mean():.0f} ± {bar.std(ddof=1) * error:.0f} bar, "
        f"D = {slope / 6 * 10:.2f}e-5 cm²/s"  # 1 Å²/ps = 1e-4 cm²/s
    )


def describe_layers(file: Path) -> str:
    """Mean energy of each layer per hydrogen and oxygen, and the largest standard error, meV."""
    values = 1e3 * np.loadtxt(file)[:, 1:]
    means, errors = values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))
    hydrogen, oxygen = (" ".join(f"{v:+.1f}" for v in half) for half in np.split(means, 2))
    return f"layers in meV: H {hydrogen}; O {oxygen} (± {errors.max():.1f})"


def main() -> None:
    """Read, draw, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", type=Path, nargs="+", help="files without .rdf, .state and .layers"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("rdf.png"))
    arguments = parser.parse_args()
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), constrained_layout=True)
    columns, titles = [], ["r"]
    for name in arguments.names:
        table = read_rdf(name.with_suffix(".rdf"))
        columns = columns or [table[:, 1]]
        for panel, (pair, column) in zip(panels, PAIRS.items(), strict=True):
            panel.plot(table[:, 1], table[:, column], label=name.stem.replace("_", " "))
            panel.set(title=pair, xlabel="r (Å)", ylim=(0, 4), xlim=(0.5, 6))
            columns.append(table[:, column])
            titles.append(f"{pair.replace('–', '-')} {name.stem}")
        print(f"{name.stem}: {describe_rdf(table)}")
        print(f"    {describe_state(name.with_suffix('.state'))}")
        print(f"    {describe_layers(name.with_suffix('.layers'))}")
    panels[0].set_ylabel("g(r)")
    panels[0].legend(frameon=False)
    figure.savefig(arguments.out, dpi=100)
    csv = arguments.out.with_suffix(".csv")
    np.savetxt(csv, np.transpose(columns), "%.4g", ",", header=",".join(titles), comments="")


if __name__ == "__main__":
    main()
