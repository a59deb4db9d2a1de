"""Vibrations drawn, tabulated, and as files that programs for looking at molecules animate."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from scschnet.analysis import plots
from scschnet.analysis.density_of_states import DensityOfStates
from scschnet.analysis.hessian import PAIR
from scschnet.analysis.mode_table import ModesTable, tabulate, write_modes
from scschnet.analysis.modes import Modes, ModesOverRuns
from scschnet.analysis.tables import table_beside, write_table
from scschnet.elements import symbol
from scschnet.files import replacing

FRAMES = 20  # of one oscillation
SWING = 0.3  # Å, largest displacement of an atom in it
KIND_COLORS = {"stretch": "#33608c", "bend": "#b5651d", "torsion": "#2e7d32", "": "0.3"}


def plot_modes(
    found: ModesOverRuns, path: str | os.PathLike[str], states: DensityOfStates | None = None
) -> Path:
    """Draw every layer's share in every mode, and the mean layer against the frequency; a CSV goes beside it.

    Infrared intensities of the first run and a density of states are drawn below, where there are any.

    Args:
        found: the modes.
        path: of the figure.
        states: of a trajectory, or None.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    table = tabulate(found)
    ratios = [1.0, 0.8]
    if states is not None or table.infrared is not None:
        ratios.append(0.7)
    with plots.figure_style():
        figure = plots.new_figure(2 * plots.COLUMN_WIDTH, 2.1 * plots.HEIGHT * sum(ratios) / 1.8)
        above, below, *last = figure.subplots(len(ratios), 1, height_ratios=ratios)
        draw_shares(above, table)
        draw_depth(below, table)
        for axes in last:
            draw_spectrum(axes, table, states)
            axes.sharex(below)
        plots.save_figure(figure, path)
    write_modes(table_beside(path), found)
    return Path(path)


def draw_shares(axes: Any, table: ModesTable) -> None:
    """A stack of shares for every mode, means over runs; negative ones hang below zero."""
    x = np.arange(len(table.shares))
    up, down = np.zeros(len(x)), np.zeros(len(x))
    colors = [*plots.layer_colors(sum(name != PAIR for name in table.names)), "0.6"]
    for name, share, color in zip(table.names, table.shares.T, colors, strict=False):
        axes.bar(x, share, 0.85, bottom=np.where(share >= 0, up, down), color=color, label=name)
        up, down = up + np.maximum(share, 0), down + np.minimum(share, 0)
    axes.axhline(0.0, color="0.3", linewidth=0.6)
    axes.set_ylabel("share of ω²")
    pairs = zip(table.frequencies, table.labels, strict=True)
    axes.set_xticks(x, [f"{wavenumber(f)} {word}" for f, word in pairs], rotation=90)
    axes.tick_params(axis="x", length=0, labelsize=6.0 if len(x) <= 36 else 4.0)
    axes.margins(x=0.01)
    plots.legend_above(axes, len(table.names))


def draw_depth(axes: Any, table: ModesTable) -> None:
    """Mean layer of every mode against its frequency, with the standard deviations of the table."""
    kinds = np.array(table.kinds)
    for kind, color in KIND_COLORS.items():
        some = kinds == kind
        if not some.any():
            continue
        axes.errorbar(
            table.frequencies[some],
            table.depth[some],
            None if table.depth_std is None else table.depth_std[some],
            None if table.frequency_std is None else table.frequency_std[some],
            fmt="o",
            color=color,
            markersize=3,
            linewidth=0.7,
            label=kind or "mode",
        )
    axes.set_xlabel("frequency (1/cm)")
    axes.set_ylabel("mean layer")
    if table.frequency_std is not None:
        axes.set_title(f"bars: standard deviation {table.source}", fontsize=7)
    axes.legend(fontsize=6.5)


def draw_spectrum(axes: Any, table: ModesTable, states: DensityOfStates | None) -> None:
    """The density of states as an area, the first run's infrared intensities as lines upward from the axis.

    Without intensities, lines of one length mark the harmonic frequencies.
    """
    axes.set_xlabel("frequency (1/cm)")
    lines = axes
    if states is not None:
        x = states.wavenumbers
        some = x <= 1.1 * max(table.frequencies.max(), 0.0) + 100.0
        axes.fill_between(x[some], states.values[some], color="0.75", linewidth=0)
        axes.set_ylabel("states per 1/cm")
        axes.set_ylim(bottom=0.0)
        lines = axes.twinx()
    if table.infrared is None:
        lines.vlines(table.frequencies, 0.0, 1.0, color=KIND_COLORS["stretch"], linewidth=0.8)
        lines.set_ylim(0.0, 8.0)
        lines.set_yticks([])
        axes.set_title("area: trajectory; lines: harmonic frequencies", fontsize=7)
        return
    lines.vlines(table.frequencies, 0.0, table.infrared, color=KIND_COLORS["bend"], linewidth=1.2)
    lines.set_ylim(bottom=0.0)
    lines.set_ylabel("IR intensity (km/mol)")


def write_states(path: str | os.PathLike[str], states: DensityOfStates) -> Path:
    """Write a density of states as CSV."""
    rows = np.stack([states.wavenumbers, states.values], axis=1).tolist()
    return write_table(path, ["wavenumber (1/cm)", "states per 1/cm"], rows)


def wavenumber(frequency: float) -> str:
    """As chemists write it: 1234, and 56i for an imaginary one."""
    return f"{frequency:.0f}" if frequency >= 0 else f"{-frequency:.0f}i"


def write_vectors(path: str | os.PathLike[str], modes: Modes) -> Path:
    """Write the relaxed structure as extended XYZ, with the displacement of every mode as three columns.

    Displacements are q_k / sqrt(mass), scaled so that the farthest atom moves 1 Å. Frequencies in 1/cm, imaginary
    ones negative, stand in the comment line.
    """
    moves = _moves(modes)
    names = "".join(f":mode_{k + 1}:R:3" for k in range(len(moves)))
    listed = " ".join(f"{f:.4f}" for f in modes.frequencies)
    comment = f'Properties=species:S:1:pos:R:3{names} frequencies="{listed}"{_cell(modes)}'
    values = np.concatenate([modes.structure.positions[None], moves], axis=0)
    with replacing(path) as temporary:
        temporary.write_text(_frame(modes, comment, values.transpose(1, 0, 2)), encoding="utf-8")
    return Path(path)


def write_animation(path: str | os.PathLike[str], modes: Modes) -> Path:
    """Write one oscillation of every mode, one after the other, as frames of an extended XYZ file.

    Every frame has the displacement as columns, too, as Jmol and others draw it.
    """
    text = []
    for k, move in enumerate(_moves(modes)):
        word = f" {modes.labels[k]}" if modes.labels else ""
        name = f"mode {k + 1}: {wavenumber(modes.frequencies[k])} 1/cm{word}"
        comment = f'Properties=species:S:1:pos:R:3:move:R:3 name="{name}"{_cell(modes)}'
        for step in range(FRAMES):
            at = modes.structure.positions + SWING * np.sin(2 * np.pi * step / FRAMES) * move
            text.append(_frame(modes, comment, np.stack([at, move], axis=1)))
    with replacing(path) as temporary:
        temporary.write_text("".join(text), encoding="utf-8")
    return Path(path)


def _moves(modes: Modes) -> Any:
    moves = modes.vectors.reshape(len(modes.vectors), -1, 3) / np.sqrt(modes.masses)[:, None]
    return moves / np.linalg.norm(moves, axis=2).max(axis=1)[:, None, None]


def _cell(modes: Modes) -> str:
    if not modes.structure.pbc.any():
        return ' pbc="F F F"'
    lattice = " ".join(f"{x:.10g}" for x in modes.structure.cells[0].ravel())
    flags = " ".join("T" if axis else "F" for axis in modes.structure.pbc[0])
    return f' Lattice="{lattice}" pbc="{flags}"'


def _frame(modes: Modes, comment: str, values: Any) -> str:
    """One frame; values (n_atoms, n_columns, 3)."""
    rows = [
        f"{symbol(int(z)):2} " + " ".join(f"{x:.8f}" for x in row.ravel())
        for z, row in zip(modes.structure.atomic_numbers, values, strict=True)
    ]
    return "\n".join([str(len(rows)), comment, *rows]) + "\n"
