"""The report of one or several runs, written as one HTML page with a folder of CSV files beside it."""

import os
from collections.abc import Sequence
from pathlib import Path

from scschnet import __version__
from scschnet.analysis import plots
from scschnet.files import replacing
from scschnet.report import page, sections, words
from scschnet.report.figures import Gallery
from scschnet.report.material import Material, Trained, gather


def write_report(runs: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]) -> Path:
    """Write one page about finished runs.

    The page needs no other file and no network: figures are SVG inside it, the numbers of each are a link in it.
    The same numbers lie as CSV in the folder `data_folder(path)`.

    Args:
        runs: run folders; several must differ in their seeds alone.
        path: HTML file to write or replace.

    Returns:
        The path.

    Raises:
        FileNotFoundError, ValueError: if `runs` is empty, a run cannot be read, or runs do not fit together.
        OSError: naming the file, if it cannot be written.
    """
    if not runs:
        raise ValueError("`runs` must hold at least one run folder, got none")
    material = gather([Path(run) for run in runs])
    folder = data_folder(path)
    folder.mkdir(exist_ok=True)
    output = sections.PageOutput(Gallery(), folder)
    with plots.figure_style():
        parts = _sections(material, output)
    names = ", ".join(run.path.name for run in material.runs)
    content = page.document(
        f"Report: {names}",
        words.headline(material),
        parts,
        f"Made by scschnet {__version__}. Energies in eV, lengths in Å, 1 kcal/mol = 43.36 meV.",
        output.gallery.colors.style(),
    )
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return Path(path)


def _sections(m: Trained, output: sections.PageOutput) -> list[page.Section]:
    """Those of what there is: most are about energies. Empty ones are left out."""
    end = [sections.data(m, output), sections.learning(m, output)]
    if not isinstance(m, Material):
        first = [sections.property_summary(m), sections.errors(m, output)]
        return [*first, sections.properties(m, output), *end, sections.settings(m)]
    parts = [
        sections.summary(m),
        sections.errors(m, output),
        sections.contributions(m, output),
        sections.properties(m, output),
        sections.layer_section(m, output),
        sections.shapley(m, output),
        sections.vibrations(m, output),
        sections.reach_section(m, output),
        sections.filter_section(m, output),
        sections.familiarity(m, output),
        sections.error_bars(m, output),
        *end,
        sections.cost(m),
        sections.settings(m),
    ]
    return [part for part in parts if part.body]


def data_folder(path: str | os.PathLike[str]) -> Path:
    """Where the CSV files of a page go: report-data beside report.html."""
    return Path(path).with_name(f"{Path(path).stem}-data")
