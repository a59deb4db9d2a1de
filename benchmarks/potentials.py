"""Potentials for water, ours and others: error against cost, and cost against size; for `results.py`."""

import re
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BASE = "scschnet, F=32, L=2"  # what ran in turns with everything else
SPCE = "SPC/E with PPPM"
NAMES = {  # as they are drawn, the cheapest first
    BASE: BASE,
    SPCE: "SPC/E with PPPM, rigid",
    "scschnet, F=128, L=6": "scschnet, F=128, L=6",
    "nep, NEP4": "NEP4, calorine",
    "deepmd, compressed": "DeePMD-kit, compressed",
    "deepmd, plain": "DeePMD-kit",
    "schnetpack, best": "SchNetPack, F=128, L=6",
    "mace, best": "MACE, 64 channels",
    "sevennet, best": "SevenNet-0, universal",
}
Times = dict[str, dict[int, float]]


def times(report: Mapping) -> Times:
    """Time per atom and step in µs, by name and number of atoms: the fastest of `BASE` times the ratio taken in turns."""
    found: Times = {}
    for bench in report["benchmarks"]:
        info = bench["extra_info"]
        n_atoms = info["n_atoms"]
        base = 1e6 * bench["stats"]["min"] / n_atoms / info["n_steps"]
        found.setdefault(BASE, {})[n_atoms] = base
        for name, other in info.get("in_turns", {}).items():
            found.setdefault(name, {})[n_atoms] = base * other["ratio"]
    return found


def draw_sizes(found: Times, file: Path) -> None:
    """Time per atom against number of atoms, of all that ran on the same water."""
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for name, label in NAMES.items():
        if name in found:
            style = "s--" if name == SPCE else "o-"
            axes.loglog(*zip(*sorted(found[name].items()), strict=True), style, label=label)
    axes.set(xlabel="atoms of water", ylabel="µs per atom and step, one core")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), reverse=True)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def draw_front(found: Times, errors: Mapping, file: Path, n_atoms: int = 1536) -> None:
    """Error of forces against time; what has a time but no error on these frames is a line."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for name, one in errors.items():
        ours = name.startswith("scschnet")
        x, y = found[name][n_atoms], one["forces"]
        fill = "none" if one["training"].startswith("cut off") else "full"
        axes.plot(x, y, "o" if ours else "D", color="C0" if ours else "C1", fillstyle=fill)
        label = ", ".join(re.findall(r"\d+", name)) if ours else NAMES[name].partition(",")[0]
        place = (0, -13) if label.endswith("3") else (0, 6)  # points lie close together
        axes.annotate(label, (x, y), place, textcoords="offset points", fontsize=7, ha="center")
    lines = [name for name in NAMES if n_atoms in found.get(name, {}) and name not in errors]
    for name in lines:
        if name != "deepmd, plain" and not name.startswith("scschnet"):
            x = found[name][n_atoms]
            axes.axvline(x, color="0.7", linestyle="--" if name == SPCE else ":")
            place = axes.get_xaxis_transform()
            axes.text(
                x,
                0.97,
                NAMES[name] + " ",
                fontsize=7,
                rotation=90,
                ha="right",
                va="top",
                transform=place,
            )
    axes.set(
        xscale="log", yscale="log", xlabel=f"µs per atom and step, {n_atoms:,} atoms, one core"
    )
    axes.set_title("circles: scschnet F, L; hollow: training cut off", fontsize=7, loc="left")
    axes.set_ylabel("MAE of forces on 40 test frames, meV/Å")
    axes.set_ylim(40, 200)
    axes.set_yticks([40, 60, 80, 100, 150, 200], labels=["40", "60", "80", "100", "150", "200"])
    axes.minorticks_off()
    figure.savefig(file, dpi=150)
    plt.close(figure)


def rows(found: Times, errors: Mapping) -> tuple[list[str], list[list[str]]]:
    """Titles and lines of a table of all times, and of the errors and trainings there are."""
    sizes = sorted({n for own in found.values() for n in own})
    names = sorted(found, key=lambda name: max(found[name].values()))
    columns = [f"{n:,} atoms" for n in sizes]
    titles = ["potential", *columns, "forces, meV/Å / energy, meV/atom", "training"]
    lines = []
    for name in names:
        one = errors.get(name, {})
        error = f"{one['forces']:.1f} / {one['energy']:.2f}" if one else "–"
        own = [f"{found[name][n]:.3g}" if n in found[name] else "–" for n in sizes]
        lines.append([name, *own, error, one.get("training", "–")])
    return titles, lines
