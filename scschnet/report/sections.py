"""The sections of the page, one function each: words, tables, figures, and a CSV for every figure."""

import dataclasses
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import scschnet
from scschnet.analysis import (
    environments,
    filters,
    importance,
    layers,
    mode_figures,
    parity,
    plots,
    unfamiliar,
)
from scschnet.analysis import error_bars as errorbars
from scschnet.analysis import reach as reaching
from scschnet.analysis.contributions import (
    draw_contributions,
    draw_labels,
    summarize,
    write_summary,
)
from scschnet.analysis.mode_table import FILE, ModesTable
from scschnet.analysis.properties import draw_properties, write_properties
from scschnet.analysis.rigidity import Estimate, estimate
from scschnet.analysis.tables import write_table
from scschnet.data import evenly
from scschnet.elements import symbol
from scschnet.quantities import error_units
from scschnet.report import audit, page, words
from scschnet.report.figures import Gallery, ranking
from scschnet.report.material import Material, Trained, hashes
from scschnet.report.molecule import draw_molecule
from scschnet.runs.contributions import layer_names

Draw = Callable[[Any], None]
LEARNING_COLORS = (plots.ACCENT, "#cc4778", "#595959")  # energy, forces, stress


@dataclasses.dataclass(frozen=True)
class PageOutput:
    """Where the figures and tables of a page go.

    Args:
        gallery: of the page.
        folder: where the tables go.
    """

    gallery: Gallery
    folder: Path

    def figure(
        self,
        draw: Draw,
        title: str,
        description: str,
        caption: str,
        table: Path | None,
        size: tuple[float, float] = (9.5, 6.8),
        wide: bool = False,
    ) -> str:
        """A figure with one panel.

        Args:
            draw: into matplotlib axes.
            title: its name.
            description: what is to be seen.
            caption: under it.
            table: its numbers.
            size: width and height, cm.
            wide: across the page.
        """
        figure = self.gallery.new(*size)
        draw(figure.add_subplot())
        svg = self.gallery.inline(figure, title, description)
        return page.figure(svg, caption, table, wide)


def summary(m: Material) -> page.Section:
    """The run in numbers and sentences."""
    items = []
    test = m.tests[0]
    for name, shown in list(m.shown.items())[:2]:
        if shown.error in test:
            mae, (unit, factor) = test[shown.error][shown.stored_unit]["mae"], shown.other
            remark = f"{mae * factor:.3g} {unit}"
            items.append((f"{name} MAE, test", f"{mae * shown.factor:.3g}", shown.unit, remark))
    micro = 1e6 * m.cost.forces / m.cost.n_atoms
    items.append(("energy and forces", f"{micro:.3g}", "µs/atom", f"{_threads(m)}, this machine"))
    if m.reach is not None:
        items.append(
            ("90 % of sensitivity", f"{reaching.radii(m.reach)[0, 1]:.1f}", "Å", "radius of use")
        )
    spent, unit = _duration(m.cost.training).split()
    items.append(("training", spent, unit, f"{len(m.metrics[0]['epoch']):,} epochs"))
    body = page.cards(items) + page.bullets(words.findings(m))
    shared = audit.shared_structures(m.runs[0])
    worries = words.warnings(m, shared)
    if worries:
        body += page.paragraph("To look at before use", "warn") + page.bullets(worries)
    return page.Section("summary", "Summary", body)


def data(m: Trained, output: PageOutput) -> page.Section:
    """What the model was trained on."""
    run = m.runs[0]
    train = run.part("train")
    rows = audit.contents(run) + audit.checks(run.structures)
    body = page.facts("The data, in eV and Å once read", rows)
    shortest = audit.shortest_rows(train)
    body += page.table(
        "Shortest distances in the training part, Å",
        ("pair", "distance"),
        [(pair, f"{d:.3f}") for pair, d in shortest],
    )
    some = evenly(run.structures, 10**12, audit.AT_MOST)
    histograms = [
        ("energy", "energy less that of its composition (eV)", audit.relative_energies(some))
    ]
    if some.forces is not None and some.labeled["forces"].any():
        histograms.append(("force", "force component (eV/Å)", some.forces[~np.isnan(some.forces)]))
    drawn = [_histogram(output, *one) for one in histograms if one[2].size]
    return page.Section("data", "Data", body + page.figures(*drawn))


def _histogram(output: PageOutput, name: str, label: str, values: Any) -> str:
    counts, edges = np.histogram(values, bins=60)
    path = write_table(
        output.folder / f"{name}-distribution.csv",
        (f"from, {label}", "to", "count"),
        zip(edges, edges[1:], counts, strict=False),
    )

    def draw(axes: Any) -> None:
        axes.stairs(counts, edges, fill=True, color=plots.ACCENT)
        axes.set_xlabel(label)
        axes.set_ylabel("count")
        axes.set_ylim(bottom=0)

    quantiles = np.quantile(values, (0.05, 0.5, 0.95))
    seen = f"5 % below {quantiles[0]:.3g}, half below {quantiles[1]:.3g}, 95 % below {quantiles[2]:.3g}."
    return output.figure(
        draw,
        f"Distribution: {label}",
        seen,
        f"Distribution of the {label}. {seen}",
        path,
        (9.5, 5.2),
    )


def learning(m: Trained, output: PageOutput) -> page.Section:
    """Losses and errors by epoch."""
    columns = {
        "loss": [("train_loss", 1.0, "training"), ("val_loss", 1.0, "validation")],
        "validation MAE": [
            (s.column, s.factor, f"{name} ({s.unit})") for name, s in m.shown.items()
        ],
    }
    drawn = []
    for label, parts in columns.items():
        known = [part for part in parts if all(part[0] in metrics for metrics in m.metrics)]
        shown = [part for part in known if np.isfinite(m.metrics[0][part[0]]).any()]
        name = label.replace(" ", "-").lower()
        rows = [
            [k, int(metrics["epoch"][row]), *(metrics[c][row] * f for c, f, _ in shown)]
            for k, metrics in enumerate(m.metrics)
            for row in range(len(metrics["epoch"]))
        ]
        path = write_table(
            output.folder / f"{name}.csv", ("run", "epoch", *(n for _, _, n in shown)), rows
        )
        last = ", ".join(f"{n} {m.metrics[0][c][-1] * f:.3g}" for c, f, n in shown)
        drawn.append(
            output.figure(
                lambda axes, shown=shown, label=label: _draw_learning(axes, m, shown, label),  # type: ignore[misc]
                f"Learning curve: {label}",
                f"{label} by epoch, logarithmic; at the end {last}.",
                f"{label[0].upper() + label[1:]} by epoch. At the end: {last}.",
                path,
            )
        )
    return page.Section("learning", "Learning curves", page.figures(*drawn))


def _draw_learning(axes: Any, m: Trained, shown: list[tuple[str, float, str]], label: str) -> None:
    few = len(shown) <= len(LEARNING_COLORS)
    colors = LEARNING_COLORS[: len(shown)] if few else plots.layer_colors(len(shown))
    for (column, factor, name), color in zip(shown, colors, strict=True):
        for k, metrics in enumerate(m.metrics):
            axes.plot(
                metrics["epoch"],
                metrics[column] * factor,
                color=color,
                linewidth=1.0,
                label=name if k == 0 else None,
            )
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    plots.legend_above(axes, len(shown))


def errors(m: Trained, output: PageOutput) -> page.Section:
    """Test errors and parity."""
    rows = []
    for run, test in zip(m.runs, m.tests, strict=True):
        for name in error_units(run.model.config.heads):
            for unit, values in test.get(name, {}).items():
                if unit != "n":
                    pair = (f"{values['mae']:.4g}", f"{values['rmse']:.4g}")
                    what = name.replace("_", " ")
                    whose = f"{run.path.name}: {what}" if len(m.runs) > 1 else what
                    rows.append((whose, unit, *pair, f"{test[name]['n']:,}"))
    body = page.table(
        "Errors on the whole test part", ("quantity", "unit", "MAE", "RMSE", "n"), rows
    )
    some, all_of_them = len(m.held_out), len(m.runs[0].held_out)
    shown = f"the {some:,} structures of the table"
    if some < all_of_them:
        shown = f"{some:,} structures, chosen evenly from the {all_of_them:,} of the table"
    drawn = []
    for panel in parity.parity_panels(m.predictions, m.held_out):
        name = panel.title.split()[0] if panel.title != "relative energy" else "energy"
        path = write_table(
            output.folder / f"parity-{name}.csv",
            (f"reference ({panel.unit})", f"predicted ({panel.unit})"),
            zip(panel.reference, panel.predicted, strict=True),
        )
        wrong = np.abs(panel.predicted - panel.reference).mean()
        seen = f"{len(panel.reference):,} numbers near the diagonal, MAE {wrong:.3g} {panel.unit}."
        drawn.append(
            output.figure(
                lambda axes, panel=panel: parity.draw_parity(axes, panel),  # type: ignore[misc]
                f"Predicted against reference: {panel.title}",
                seen,
                f"{panel.title[0].upper() + panel.title[1:]} of {shown}, predicted against reference.",
                path,
                (9.5, 8.6),
            )
        )
    return page.Section("errors", "Errors", body + page.figures(*drawn))


def contributions(m: Material, output: PageOutput) -> page.Section:
    """The paper's figure, and where the weights act."""
    total = summarize(m.contributions)
    names = layer_names(total.mean.shape[1])
    path = output.folder / "contributions.csv"
    write_summary(path, total)
    figure = output.gallery.new(9.5, 7.2)
    axes = figure.add_subplot()
    draw_contributions(axes, total)
    figure.draw_without_rendering()
    if axes.texts:
        draw_labels(axes, total)
    of = "runs" if total.n_runs > 1 else "minibatches"
    seen = f"At the last epoch: {ranking(names, total.mean[-1])}."
    svg = output.gallery.inline(figure, "Contribution weights by epoch", seen)
    drawn = [
        page.figure(
            svg, f"w mean‖v‖ by epoch, shaded one standard deviation over {of}. {seen}", path
        )
    ]
    for groups, what in zip(m.groups, ("elements", "environments"), strict=True):
        if groups is None:
            continue
        table = environments.write_groups(output.folder / f"{what}.csv", groups)
        most = [
            f"{name}: v{row.argmax()}" for name, row in zip(groups.names, groups.mean, strict=True)
        ]
        drawn.append(
            output.figure(
                lambda axes, groups=groups: environments.draw_groups(axes, groups),  # type: ignore[misc]
                f"Contribution weights of {what}",
                f"Heat map; the largest layer of each: {'; '.join(most)}.",
                f"The same for {what}: w times the mean ‖v‖ over the atoms of a group (ours, not the paper's).",
                table,
                (9.5, 2.2 + 0.62 * len(groups.names)),
            )
        )
    last = -1
    rows = [
        (
            name,
            f"{total.mean[last, k]:.4f}",
            f"{total.std[last, k]:.4f}",
            f"{_mean_weight(m, k):.4f}",
        )
        for k, name in enumerate(names)
    ]
    body = page.paragraph(
        "The readout sees x = w0 v0 + ... + wL vL: v0 is the embedding, vl what block l corrects. "
        "Normalized, w times the mean norm of v, the weights say how much of x each layer is "
        "(Nicoli et al. 2018, arXiv:1810.09751, Eq. 4 and 5)."
    )
    body += page.table(
        f"Contribution weights at epoch {total.epochs[last]}",
        ("layer", "w mean‖v‖", f"s.d. over {of}", "w alone"),
        rows,
    )
    return page.Section("weights", "Contribution weights", body + page.figures(*drawn))


def properties(m: Trained, output: PageOutput) -> page.Section:
    """How the contribution weights of properties differ; nothing where the energy is all there is."""
    found = m.properties
    if found.names == ("energy",):
        return page.Section("properties", "Properties", "")
    table = write_properties(output.folder / "properties.csv", found)
    seen = "; ".join(
        f"{name}: v{row.argmax()}" for name, row in zip(found.names, found.shares, strict=True)
    )
    drawn = output.figure(
        lambda axes: draw_properties(axes, found),
        "Contribution weights of properties",
        f"Heat map; the largest layer of each: {seen}.",
        "Share of each layer in the normalized contribution weights of each property, at the last epoch; all share the "
        "blocks, and each has its own weights and readout.",
        table,
        (9.5, 2.4 + 0.55 * len(found.names)),
    )
    depths = zip(found.names, found.depth, strict=True)
    body = page.table(
        "Mean layer, sum of l times its share",
        ("property", "layer"),
        [(n, f"{d:.2f}") for n, d in depths],
    )
    return page.Section("properties", "Properties", body + page.figures(drawn))


def property_summary(m: Trained) -> page.Section:
    """Test errors of a model without an energy."""
    items = [
        (
            f"{name} MAE, test",
            f"{shown.factor * test[name][shown.stored_unit]['mae']:.3g}",
            shown.unit,
            "",
        )
        for test in m.tests[:1]
        for name, shown in m.shown.items()
        if name in test
    ]
    return page.Section("summary", "Summary", page.cards(items))


def layer_section(m: Material, output: PageOutput) -> page.Section:
    """Energies split over the layers."""
    means = layers.element_means(m.layers, m.held_out)
    table = layers.write_layer_energies(output.folder / "layer-energies.csv", m.layers, m.held_out)
    heads = layer_names(means.layers.value.shape[1])
    seen = "; ".join(
        f"{name}: {ranking(heads, row, ' eV')}"
        for name, row in zip(means.names, means.layers.value, strict=True)
    )
    bars = output.figure(
        lambda axes: layers.draw_element_energies(axes, means),
        "Layer energies of the elements",
        f"Mean over atoms. {seen}.",
        "What each layer adds to an atom's energy: mean over atoms. Below the axis stands what the whiskers are.",
        table,
    )
    body = page.paragraph(
        "An atom's energy is split over the layers by the integral of the readout's gradient along the way "
        "from nothing to x (the Aumann-Shapley value, also called integrated gradients), in closed form. "
        f"The parts add up to the energy: off by {m.incomplete:.0e} of what the layers add. "
        "This split is ours, not the paper's."
    )
    body += page.table(
        f"Mean layer energies per atom, eV{_how_sure(means.layers)}",
        ("layer", *means.names),
        _layer_rows(means),
    )
    if means.layers.rigidity is None:
        body += page.paragraph(
            "There are no standard deviations from rigidity: scschnet analysis error-bars RUN adds them, for every run."
        )
    else:
        body += page.paragraph(
            "Standard deviations from rigidity say how firmly the energies of the training set hold an energy once the "
            "representation is given; they have the factor that calibrates the error bars of energies, but no label can try them. Other seeds "
            "give other representations, over which a split may differ by more."
        )
    return page.Section("layers", "Layer energies", body + page.figures(bars, _molecule(m, output)))


def _how_sure(shown: Estimate) -> str:
    words = []
    if shown.rigidity is not None:
        words.append("± from rigidity")
    if shown.spread is not None:
        words.append("in parentheses the standard deviation over runs")
    return "".join(f"; {word}" for word in words)


def _layer_rows(means: layers.ElementMeans) -> list[list[str]]:
    """A row for each layer and one for their sum, a column per element."""

    def cells(shown: Estimate) -> NDArray[np.str_]:
        found = np.array([[f"{value:.3f}" for value in row] for row in shown.value])
        for std, form in ((shown.rigidity, "{} ± {:.3f}"), (shown.spread, "{} ({:.3f})")):
            if std is not None:
                found = np.vectorize(form.format)(found, std)
        return found.T

    names = [*layer_names(means.layers.value.shape[1]), "all layers"]
    rows = np.concatenate([cells(means.layers), cells(means.sums)])
    return [[name, *row] for name, row in zip(names, rows, strict=True)]


def _molecule(m: Material, output: PageOutput) -> str:
    """The layers' energies on one structure."""
    structure, found = m.molecule
    energies = found.layers
    heads = layer_names(len(energies))
    formula = _formula(structure)
    shown = estimate([energies], [found.deviations])
    columns = [f"{name} (eV)" for name in heads]
    values = list(energies)
    if shown.rigidity is not None:
        columns += [f"{name} std from rigidity (eV)" for name in heads]
        values += list(shown.rigidity)
    rows = [
        [k, int(z), *numbers]
        for k, (z, numbers) in enumerate(
            zip(structure.atomic_numbers, np.stack(values, axis=1), strict=True)
        )
    ]
    path = write_table(output.folder / "molecule.csv", ("atom", "element", *columns), rows)
    figure = output.gallery.new(18.0, 4.1 * -(-len(heads) // 4))
    away = None if found.deviations is None else found.deviations.sum(axis=1)
    sums = estimate([energies.sum(axis=1)], [away])
    draw_molecule(figure, structure, energies, sums)
    svg = output.gallery.inline(
        figure,
        f"Layer energies on {formula}",
        "Sum over atoms: " + ranking(heads, sums.value, " eV") + ".",
    )
    how = "" if sums.rigidity is None else " with its standard deviation from rigidity"
    return page.figure(
        svg,
        f"One held-out structure, {formula}, seen from where its atoms hide each other least; colors are each "
        f"layer's energies of its atoms, above each panel their sum{how}.",
        path,
        wide=True,
    )


def shapley(m: Material, output: PageOutput) -> page.Section:
    """Whether heavy layers are important ones."""
    body = page.paragraph(
        "Is a large weight an important block? The Shapley value of a layer is its fair share of what all layers "
        "together bring the error down by, over all coalitions of layers in the readout; energies after a refit of "
        "one energy per element. Message passing is left as it is. Ours, not the paper's."
    )
    if not m.importance[0]:
        reason = "too many layers for all coalitions, or no labels"
        return page.Section(
            "shapley", "Which layers matter", body + page.paragraph(f"Left out: {reason}.")
        )
    weights = m.weights.mean(axis=0)
    names = layer_names(len(weights))
    drawn = []
    table = write_table(
        output.folder / "shapley.csv",
        ("run", *importance.COLUMNS),
        [
            [run.path.name, *row]
            for run, found, w in zip(m.runs, m.importance, m.weights, strict=True)
            for row in importance.importance_rows(found, w)
        ],
    )
    for k, one in enumerate(m.importance[0]):
        values = np.stack([found[k].shapley for found in m.importance])
        many = len(values) > 1
        spread = values.std(axis=0, ddof=1) if many else one.shapley_se
        shown = dataclasses.replace(
            one,
            shapley=values.mean(axis=0),
            shapley_se=spread,
            errors=np.mean([found[k].errors for found in m.importance], axis=0),
            left_out=np.mean([found[k].left_out for found in m.importance], axis=0),
            alone=np.mean([found[k].alone for found in m.importance], axis=0),
        )
        over = f"s.d. over {len(values)} runs" if many else f"s.e. over {one.n_frames} structures"
        body += _shapley_table(shown, weights, over)
        drawn.append(
            output.figure(
                lambda axes, shown=shown: importance.draw_importance(axes, shown, weights),  # type: ignore[misc]
                f"Weights and Shapley values: {one.quantity}",
                f"Shapley values: {ranking(names, shown.shapley, ' ' + one.unit)}.",
                f"Gray: share of the normalized weights. Blue: share of the {one.quantity} error's reduction "
                f"(whiskers: {over}).",
                table,
            )
        )
    return page.Section("shapley", "Which layers matter", body + page.figures(*drawn))


def _shapley_table(found: importance.Importance, weights: Any, over: str) -> str:
    rows = [
        (
            name,
            f"{weights[layer]:.4f}",
            f"{found.shapley[layer]:.3g} ± {found.shapley_se[layer]:.1g}",
            f"{found.left_out[layer]:+.3g}",
            f"{found.alone[layer]:.3g}",
        )
        for layer, name in enumerate(layer_names(len(weights)))
    ]
    return page.table(
        f"{found.quantity}, MAE in {found.unit}: {found.errors[-1]:.3g} with all layers, "
        f"{found.errors[0]:.3g} with none; ± {over}",
        ("layer", "w mean‖v‖", "Shapley value", "left out", "alone"),
        rows,
    )


def vibrations(m: Material, output: PageOutput) -> page.Section:
    """Normal modes, if `scschnet analysis modes` wrote them into the folder of the first run; else nothing."""
    modes = m.modes
    if modes is None:
        return page.Section("vibrations", "Vibrations", "")
    table = Path(shutil.copyfile(m.runs[0].path / FILE, output.folder / FILE))
    path = "the path on which bond lengths, angles and torsions change at constant rates"
    if not any(modes.kinds):
        path = "a straight line, at Gamma"
    body = page.paragraph(
        f"Harmonic vibrations of a relaxed structure, from {FILE} in the run folder. ω² of every one is split over the "
        f"layers, along {path}; the mean layer is sum l |share l| / sum |share l|. Ours, not the paper's."
    )
    body += page.details("All vibrations", _modes_table(modes))
    shown = f"Mean layers from {modes.depth.min():.1f} to {modes.depth.max():.1f}."
    size = (18.0, 7.5)
    drawn = [
        output.figure(
            lambda axes: mode_figures.draw_shares(axes, modes),
            "Share of each layer in each vibration",
            "A stack for each vibration; " + ranking(list(modes.names), modes.shares.mean(axis=0)),
            "Share of each layer in ω² of each vibration, named with its frequency in 1/cm.",
            table,
            size,
            wide=True,
        ),
        output.figure(
            lambda axes: mode_figures.draw_depth(axes, modes),
            "Mean layer against frequency",
            shown,
            f"Mean layer of each vibration against its frequency. {shown}",
            table,
        ),
    ]
    if modes.infrared is not None:
        drawn.append(
            output.figure(
                lambda axes: mode_figures.draw_spectrum(axes, modes, None),
                "Infrared spectrum",
                f"Strongest at {modes.frequencies[modes.infrared.argmax()]:.0f} 1/cm.",
                "Harmonic infrared intensities (first run).",
                table,
            )
        )
    return page.Section("vibrations", "Vibrations", body + page.figures(*drawn))


def _modes_table(modes: ModesTable) -> str:
    columns = {"1/cm": [mode_figures.wavenumber(f) for f in modes.frequencies]}
    if modes.frequency_std is not None:
        columns[f"s.d. {modes.source}"] = [f"{std:.1f}" for std in modes.frequency_std]
    if any(modes.labels):
        columns["motion"] = list(modes.labels)
    columns["mean layer"] = [f"{depth:.2f}" for depth in modes.depth]
    rows = zip(*columns.values(), strict=True)
    return page.table("Frequencies and mean layers", list(columns), rows)


def reach_section(m: Material, output: PageOutput) -> page.Section:
    """The receptive field that is used."""
    if m.reach is None:
        return page.Section("reach", "Range", page.paragraph("No structure has two atoms."))
    found = m.reach
    table = reaching.write_reach(output.folder / "reach.csv", found)
    radius = reaching.radii(found)
    rows = [
        (name, *(f"{value:.2f}" for value in row))
        for name, row in zip(["all", *layer_names(len(found.layers))], radius, strict=True)
    ]
    body = page.paragraph(
        "How much an atom's energy changes when another atom moves, ‖dE_i/dr_j‖, for the whole energy and for each "
        f"layer's part. Blocks times cutoff: {found.nominal:g} Å; farthest two atoms here: "
        f"{found.distance.max():.1f} Å. Ours, not the paper's."
    )
    body += page.table(
        "Radius that holds a share of all sensitivity, Å", ("energy", "50 %", "90 %", "99 %"), rows
    )
    drawn = [
        output.figure(
            lambda axes: reaching.draw_distance(axes, found),
            "Sensitivity against distance",
            f"Falls with distance; 90 % of it within {radius[0, 1]:.1f} Å.",
            "Mean sensitivity against distance, in steps of 0.5 Å.",
            table,
        )
    ]
    if (found.bonds >= 0).any():
        drawn.append(
            output.figure(
                lambda axes: reaching.draw_bonds(axes, found),
                "Sensitivity against bonds",
                "Falls with the number of bonds between the atoms.",
                "Mean sensitivity against the number of bonds between the two atoms.",
                table,
            )
        )
    return page.Section("reach", "Range", body + page.figures(*drawn))


def filter_section(m: Material, output: PageOutput) -> page.Section:
    """Filters, and what happens at short range."""
    table = filters.write_filters(output.folder / "filters.csv", m.filters)
    drawn = []
    for block in range(len(m.filters.quantiles)):
        widest = m.filters.distance[np.abs(m.filters.quantiles[block]).max(axis=0).argmax()]
        drawn.append(
            output.figure(
                lambda axes, block=block: filters.draw_filter(axes, m.filters, block),  # type: ignore[misc]
                f"Filters of block {block + 1}",
                f"Widest at {widest:.1f} Å.",
                f"Block {block + 1}: median and bands (50 and 90 %) over channels; dashed: first principal "
                "component.",
                table if block == 0 else None,
                (7.2, 4.6),
            )
        )
    pressed = filters.write_squeezed(output.folder / "squeezed.csv", m.ranges)
    rows = []
    for one in m.ranges:
        pair = "-".join(symbol(z) for z in one.elements)
        verdict = "yes" if one.repels else f"no, only to {one.repels_to:.2f} Å"
        rows.append((pair, f"{one.shortest:.3f}", verdict, f"{one.energy.max():.2f}"))
    body = page.figures(*drawn, small=True) + page.table(
        "The nearest two atoms of each pair of elements, pressed to half their distance inside their structure",
        ("pair", "shortest trained on, Å", "repels all the way", "highest rise, eV"),
        rows,
    )
    bad = [row[0] for row in rows if row[2] != "yes"]
    squeezed = output.figure(
        lambda axes: filters.draw_squeezed(axes, m.ranges),
        "Energy of squeezed pairs",
        "Energies rise all the way." if not bad else f"Not all the way: {', '.join(bad)}.",
        "Energy of the structure as the two atoms approach, from the shortest distance trained on (left) to "
        "half of it. Falling curves are places where dynamics can fall in.",
        pressed,
    )
    lone = output.figure(
        lambda axes: filters.draw_pair_energies(axes, m.pairs),
        "Energies of two lone atoms",
        "Effective pair energies of the elements.",
        "Two lone atoms of each pair of elements: what the model makes of them, far from what it was trained on.",
        filters.write_pair_energies(output.folder / "pair-energies.csv", m.pairs),
    )
    body += page.figures(squeezed, lone)
    return page.Section("filters", "Filters and short range", body)


def familiarity(m: Material, output: PageOutput) -> page.Section:
    """Scores of unfamiliar atoms."""
    if m.statistics is None:
        return page.Section(
            "familiarity", "Unfamiliar atoms", page.paragraph("There are no blocks.")
        )
    table = unfamiliar.write_unfamiliarity(output.folder / "unfamiliarity.csv", m.scores)
    body = page.paragraph(
        "The norms of an atom's corrections against those of its element in the training set, as a Mahalanobis "
        "distance divided by its 99 % quantile over held-out atoms: above 1 an atom is stranger than 99 % of them. "
        "It costs nothing, and the ASE calculator has it as its attribute `unfamiliarity`. Ours, not the paper's."
    )
    levels = [f"{100 * level:g} %" for level in m.statistics.levels]
    body += page.table(
        "Calibration: quantiles of the score over held-out atoms",
        ("element", "atoms trained on", "atoms held out", *levels),
        [
            (name, f"{n:,}", f"{k:,}", *(f"{value:.2f}" for value in values))
            for name, n, k, values in unfamiliar.element_quantiles(m.statistics)
        ],
    )
    shares = ", ".join(f"{n}: {100 * (u > 1).mean():.1f} %" for n, u in m.scores.items())
    drawn = output.figure(
        lambda axes: unfamiliar.draw_unfamiliarity(axes, m.scores),
        "Unfamiliarity of held-out and distorted atoms",
        f"Share of atoms above 1: {shares}.",
        f"Share of atoms above a score, for held-out structures and with noise on every coordinate. Above 1: {shares}.",
        table,
    )
    return page.Section("familiarity", "Unfamiliar atoms", body + page.figures(drawn))


def error_bars(m: Material, output: PageOutput) -> page.Section:
    """Error bars against errors."""
    if m.covered is None:
        none = "There are none: scschnet analysis error-bars RUN adds them, from validation energies and forces."
        return page.Section("error-bars", "Error bars", page.paragraph(none))
    body = page.paragraph(
        "From this one model: the expected size of the error of the energy (prediction rigidity) and of the force on every "
        "atom (a regression on validation errors). Calibrated on the validation part, tested here on held-out structures."
    )
    rows = list(errorbars.coverages(m.covered))
    body += page.table(
        "Share of errors within a multiple of their error bar, found and (expected of normal errors)",
        ("", "n", *(f"{k:g}" for k in errorbars.COVERED)),
        [
            (
                name,
                f"{len(m.covered[name]):,}",
                *(
                    f"{100 * a:.1f} % ({100 * b:.1f} %)"
                    for a, b in zip(found, expected, strict=True)
                ),
            )
            for name, found, expected in rows
        ],
    )
    covered = m.covered
    drawn = output.figure(
        lambda axes: errorbars.draw_coverage(axes, covered),
        "Coverage of error bars",
        "Share of errors within a multiple of their error bar, found against expected.",
        "Share of errors within 0.5, 1, 1.5, 2 and 3 error bars, against that of normal errors. Above the line, error bars "
        "are too long; below, too short.",
        errorbars.write_coverage(output.folder / "error-bars.csv", covered),
    )
    return page.Section("error-bars", "Error bars", body + page.figures(drawn))


def cost(m: Material) -> page.Section:
    """What it takes to train and to run."""
    c, config = m.cost, m.runs[0].model.config
    rows = [
        ("parameters", f"{c.n_parameters:,}"),
        ("training", _duration(c.training)),
        ("energy", f"{1e6 * c.energy / c.n_atoms:.3g} µs per atom"),
        ("energy and forces", f"{1e6 * c.forces / c.n_atoms:.3g} µs per atom"),
        ("measured with", f"{c.n_atoms:,} atoms at a time, {_threads(m)}, the fastest of 10"),
        (
            "ghosts in LAMMPS",
            f"{config.cutoff:g} Å with a halo, {config.n_interactions * config.cutoff:g} Å without",
        ),
    ]
    return page.Section("cost", "Cost", page.facts("Time and size", rows))


def settings(m: Trained) -> page.Section:
    """Everything needed to do it again."""
    run = m.runs[0]
    options = sorted(
        (key, value if value != "" else "-") for key, value in vars(run.config).items()
    )
    body = page.details("All options", page.facts("config.toml", options))
    versions = {
        "scschnet": scschnet.__version__,
        "torch, report": torch.__version__,
        "Python, report": platform.python_version(),
    }
    versions |= {f"{k}, training": v for k, v in run.metadata.get("versions", {}).items()}
    body += page.facts("Versions", versions.items())
    files = [(name, f"{size:,}", digest) for one in m.runs for name, size, digest in hashes(one)]
    body += page.table("Files", ("file", "bytes", "SHA-256"), files)
    return page.Section("settings", "Settings, versions and hashes", body)


def _mean_weight(m: Material, layer: int) -> float:
    return float(np.mean([run.model.contribution_weights[layer].item() for run in m.runs]))


def _formula(structure: Any) -> str:
    numbers, counts = np.unique(structure.atomic_numbers, return_counts=True)
    parts = {symbol(int(z)): int(n) for z, n in zip(numbers, counts, strict=True)}
    order = sorted(parts, key=lambda s: (s != "C", s != "H", s))
    return "".join(s + (str(parts[s]) if parts[s] > 1 else "") for s in order)


def _threads(m: Material) -> str:
    return f"{m.cost.threads} thread" + ("" if m.cost.threads == 1 else "s")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
