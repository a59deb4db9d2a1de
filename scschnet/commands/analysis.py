"""`scschnet analysis`: options of its commands, and what each prints and writes."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from scschnet.analysis import contributions as c
from scschnet.analysis import environments as e
from scschnet.analysis import error_bars as errorbars
from scschnet.analysis import plots, rigidity, sizes, unfamiliar
from scschnet.analysis.filters import pair_energies, plot_filters, squeeze, summarize_filters
from scschnet.analysis.importance import (
    Importance,
    disagreements,
    energy_importance,
    force_importance,
    plot_importance,
    rank_correlation,
)
from scschnet.analysis.layers import (
    ElementMeans,
    completeness,
    element_means,
    layer_energies,
    plot_element_energies,
)
from scschnet.analysis.pareto import Measured, measure, plot_pareto
from scschnet.analysis.properties import plot_properties, property_contributions
from scschnet.analysis.reach import plot_reach, radii, reach
from scschnet.analysis.tables import table_beside
from scschnet.commands.line import (
    Run,
    Runs,
    failed,
    one_of,
    optional,
    out_option,
    parse_one_of,
)
from scschnet.commands.modes import Modes
from scschnet.commands.walks import Walks
from scschnet.data import evenly, read
from scschnet.elements import symbol
from scschnet.evaluate import error_statistics, norm_statistics
from scschnet.kinds import Kind, expect
from scschnet.runs.compare import check_alike
from scschnet.runs.config import read_run_config
from scschnet.runs.contributions import layer_names, read_contributions
from scschnet.runs.run import Run as TrainedRun
from scschnet.runs.run import read_run
from scschnet.train.ladder import train_sizes
from scschnet.train.loop import Interrupted, TrainingFailed, train
from scschnet.train.prune import prune


@dataclass(frozen=True)
class Contributions:
    """Evolution of the normalized contribution weights over the epochs of one or several runs.

    Draws w_hat = w mean|v| of every layer (Eq. 5 of arXiv:1810.09751): v0 is the embedding, v1 to vL
    are the blocks. Shaded: one standard deviation over runs, or over the minibatches of a single run.
    The same numbers go to a CSV beside the figure, the last epoch's to standard output.
    """

    runs: Runs
    """Run folders, one or more."""
    out: Annotated[Path, out_option()] = Path("contributions.png")
    """Figure to write: .png, .pdf or .svg."""
    epochs: c.EpochScale = "linear"
    """Scale of the horizontal axis."""
    width: float = plots.COLUMN_WIDTH
    """Width of the figure, cm."""
    height: float = plots.HEIGHT
    """Height of the figure, cm."""

    def __call__(self) -> None:
        """Draw, write and print."""
        check_alike(self.runs)
        runs = [read_contributions(run) for run in self.runs]
        summary = c.summarize(runs)
        lengths = [len(run.epochs) for run in runs]
        if max(lengths) > len(summary.epochs):
            print(
                f"note: runs have {', '.join(map(str, lengths))} epochs; the "
                f"{len(summary.epochs)} that all have are shown",
                file=sys.stderr,
            )
        c.plot_contributions(
            self.runs, self.out, epochs=self.epochs, width=self.width, height=self.height
        )
        print(_last_epoch(summary))
        print(f"\n{self.out}\n{c.figure_table(self.out)}")


@dataclass(frozen=True)
class Properties:
    """Contribution weights of the properties that models were trained on, at the last epoch.

    Each property has weights of its own over blocks that all share. Drawn is each layer's share in the sum of
    |w_hat| of a property; the weights and their spread over runs go to a CSV beside the figure.
    """

    runs: Runs
    """Run folders, one or more, of the same properties."""
    out: Annotated[Path, out_option()] = Path("properties.png")
    """Figure to write: .png, .pdf or .svg."""

    def __call__(self) -> None:
        """Draw, write and print."""
        check_alike(self.runs)
        found = property_contributions(self.runs)
        plot_properties(found, self.out)
        heads = "".join(f"{name:>9}" for name in layer_names(found.mean.shape[1]))
        print(f"{'w_hat':16}{heads}{'depth':>9}")
        for name, row, depth in zip(found.names, found.mean, found.depth, strict=True):
            print(f"{name:16}" + "".join(f"{v:9.4f}" for v in row) + f"{depth:9.2f}")
        _print_files(self.out)


@dataclass(frozen=True)
class Elements:
    """Normalized contribution weights of each element, or of each element by its number of neighbors.

    w_hat_Z = w mean over atoms of Z of |v|, over training structures of each run; of several runs
    mean and standard deviation. A heat map, and a CSV beside it. Weights are no energies, so that they have no
    rigidity; `scschnet analysis layers` has the energies of the elements.
    """

    runs: Runs
    """Run folders, one or more."""
    out: Annotated[Path, out_option()] = Path("elements.png")
    """Figure to write: .png, .pdf or .svg."""
    environments: bool = False
    """Tell atoms apart by their number of bonded neighbors, too."""
    atoms: int = 20_000
    """Atoms to average over, about; taken evenly from the training part."""

    def __call__(self) -> None:
        """Draw, write and print."""
        of = e.environment_contributions if self.environments else e.element_contributions
        check_alike(self.runs)
        runs = [_read_run(run) for run in self.runs]
        groups = e.over_runs([of(r.model, evenly(r.part("train"), self.atoms)) for r in runs])
        e.plot_groups(groups, self.out)
        print(f"{'':16}" + "".join(f"{n:>9}" for n in layer_names(groups.mean.shape[1])))
        for k, (name, size) in enumerate(zip(groups.names, groups.n_atoms, strict=True)):
            print(f"{name:16}" + _numbers(groups.mean[k]) + f"   {size:,} atoms")
            if len(runs) > 1:
                print(f"{'  ± over runs':16}" + _numbers(groups.std_runs[k]))
        _print_files(self.out)


@dataclass(frozen=True)
class Trajectory:
    """Normalized contribution weights of every frame of a trajectory.

    Draws how far each block's weight is from its mean over the trajectory; the weights go to a CSV.
    """

    run: Run
    """Run folder."""
    frames: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FRAMES")]
    """Trajectory: any file of structures that can be read."""
    units: Annotated[str, optional("UNITS")] = ""
    """Units of a file that does not state them, for example 'kcal/mol, Angstrom'."""
    out: Annotated[Path, out_option()] = Path("trajectory.png")
    """Figure to write: .png, .pdf or .svg."""

    def __call__(self) -> None:
        """Draw, write and print."""
        structures = read(self.frames, units=self.units or None)
        found = e.trajectory_contributions(_read_run(self.run).model, structures)
        e.plot_trajectory(found, self.out)
        print(f"{len(found):,} frames\nlayer        mean   std over frames")
        for name, column in zip(layer_names(found.shape[1]), found.T, strict=True):
            print(f"{name:6}{column.mean():11.4f}{column.std():18.4f}")
        _print_files(self.out)


@dataclass(frozen=True)
class Layers:
    """Energy of every atom split over the layers, exactly; with --forces the forces, too.

    Draws the mean of each element; the CSV beside the figure has every atom. Several runs (seeds) give means over runs
    and standard deviations. Runs with error bars, from `scschnet analysis error-bars RUN`, give standard deviations from
    rigidity: how firmly the energies of the training set hold that of a layer or an atom.
    """

    runs: Runs
    """Run folders, one or more."""
    out: Annotated[Path, out_option()] = Path("layers.png")
    """Figure to write: .png, .pdf or .svg."""
    atoms: int = 2000
    """Atoms, about; taken evenly from the test part of the first run (the validation part if there is none)."""
    forces: bool = False
    """Split the forces as well, into the CSV."""

    def __call__(self) -> None:
        """Draw, write and print."""
        check_alike(self.runs)
        runs = [_read_run(run) for run in self.runs]
        structures = evenly(runs[0].held_out, self.atoms)
        found = [
            layer_energies(one.model, structures, self.forces, rigidity.root_of(one))
            for one in runs
        ]
        plot_element_energies(found, structures, self.out)
        print(layers_table(element_means(found, structures)))
        if without := rigidity.missing(runs):
            print(without)
        off = max(completeness(one.model, structures) for one in runs)
        print(f"completeness: off by {off:.1e} of what the layers add")
        _print_files(self.out)


@dataclass(frozen=True)
class Shapley:
    """Ablation and Shapley values of the layers for the energy and the force error, against the weights.

    Over all 2^(L+1) coalitions of layers; message passing is left as it is. Energy errors are those
    after a refit of one energy per element, which a missing layer shifts.
    """

    run: Run
    """Run folder."""
    out: Annotated[Path, out_option()] = Path("shapley.png")
    """Figure to write: .png, .pdf or .svg."""
    frames: int = 200
    """Structures for the energy, taken evenly from the test part."""
    force_frames: int = 20
    """Structures for the forces, each of them 2^(L+1) backward passes; 0: no forces."""

    def __call__(self) -> None:
        """Draw, write and print."""
        run = _read_run(self.run)
        structures = run.held_out
        some = evenly(structures, 10**9, self.frames)
        found = [energy_importance(run.model, some)]
        found.append(energy_importance(run.model, some, refitted=False))
        if self.force_frames and structures.labeled["forces"].all():
            few = evenly(structures, 10**9, self.force_frames)
            found.append(force_importance(run.model, few))
        weights = e.trajectory_contributions(run.model, some).mean(axis=0)
        plot_importance(found, weights, self.out)
        for one in found:
            print(importance_table(one, weights))
        _print_files(self.out)


@dataclass(frozen=True)
class Reach:
    """How far an atom's energy feels other atoms: ||dE_i/dr_j|| against distance and number of bonds.

    For the energy and for every layer's part of it; the radii that hold half, 90 and 99 % of it all.
    """

    run: Run
    """Run folder."""
    out: Annotated[Path, out_option()] = Path("reach.png")
    """Figure to write: .png, .pdf or .svg."""
    frames: int = 10
    """Structures, taken evenly from the test part."""

    def __call__(self) -> None:
        """Draw, write and print."""
        run = _read_run(self.run)
        found = reach(run.model, evenly(run.held_out, 10**9, self.frames))
        plot_reach(found, self.out)
        print("radius that holds     50 %     90 %     99 %  of sum ||dE_i/dr_j||, Å")
        for name, row in zip(["E_i", *layer_names(len(found.layers))], radii(found), strict=True):
            print(f"{name:18}" + "".join(f"{value:9.2f}" for value in row))
        print(
            f"blocks times cutoff {found.nominal:.1f} Å; "
            f"farthest two atoms here {found.distance.max():.1f} Å"
        )
        _print_files(self.out)


@dataclass(frozen=True)
class Filters:
    """Filters of every block, and whether the model repels below the shortest distances it was trained on."""

    run: Run
    """Run folder."""
    out: Annotated[Path, out_option()] = Path("filters.png")
    """Figure to write: .png, .pdf or .svg."""

    def __call__(self) -> None:
        """Draw, write and print."""
        run = _read_run(self.run)
        ranges = squeeze(run.model, run.part("train"))
        plot_filters(summarize_filters(run.model), ranges, pair_energies(run.model), self.out)
        print("pair   shortest trained on, Å   repels down to, Å")
        for one in ranges:
            name = "-".join(symbol(z) for z in one.elements)
            word = f"{one.repels_to:.2f}" + ("" if one.repels else "  no further: beware")
            print(f"{name:7}{one.shortest:22.3f}   {word:>17}")
        _print_files(self.out)


@dataclass(frozen=True)
class Unfamiliarity:
    """How unlike the training set atoms are; stores the statistics in the run's best.pt, for ASE and export.

    Compares held-out atoms with the same structures distorted, and with those of --other if given.
    """

    run: Run
    """Run folder."""
    other: Annotated[Path | None, optional("FILE")] = None
    """Structures to compare with, of elements that the model knows."""
    units: Annotated[str, optional("UNITS")] = ""
    """Units of --other if it does not state them, for example 'kcal/mol, Angstrom'."""
    out: Annotated[Path, out_option()] = Path("unfamiliarity.png")
    """Figure to write: .png, .pdf or .svg."""
    distortions: tuple[float, ...] = (0.05, 0.1, 0.2)
    """Standard deviations of the noise on the positions, Å."""

    def __call__(self) -> None:
        """Store, draw, write and print."""
        others = {}
        if self.other is not None:  # before the work, not after it
            expect(self.other, Kind.STRUCTURES, Kind.OTHER, option="--other")
            others[self.other.stem] = evenly(read(self.other, units=self.units or None), 5000)
        run = read_run(self.run)
        statistics = norm_statistics.run_statistics(run)
        print(norm_statistics.store_statistics(self.run, statistics))
        structures = evenly(run.held_out, 5000)
        sets = {"held out": structures}
        sets |= {f"± {by:g} Å": unfamiliar.distorted(structures, by) for by in self.distortions}
        sets |= others
        scores = {
            name: norm_statistics.unfamiliarity_of(run.model, some, statistics)
            for name, some in sets.items()
        }
        unfamiliar.plot_unfamiliarity(scores, self.out)
        print(f"{'atoms':24}   median     90 %     99 %   above 1")
        for name, u in scores.items():
            row = "".join(f"{q:9.2f}" for q in np.quantile(u, (0.5, 0.9, 0.99)))
            print(f"{name:24}{row}{100 * (u > 1).mean():8.1f} %")
        _print_files(self.out)


@dataclass(frozen=True)
class ErrorBars:
    """Error bars of energies and forces from this one model; stores what makes them in the run's best.pt, for ASE and export.

    Prints which share of the errors on test structures they cover, against what is expected of normal errors; and the
    largest error bar of a force among test structures, above which dynamics should not stay.
    """

    run: Run
    """Run folder."""
    out: Annotated[Path, out_option()] = Path("error-bars.png")
    """Figure to write: .png, .pdf or .svg."""

    def __call__(self) -> None:
        """Store, draw, write and print."""
        plots.check_format(self.out)
        run = read_run(self.run)
        statistics = error_statistics.run_error_statistics(run)
        print(error_statistics.store_error_statistics(self.run, statistics))
        held_out = evenly(run.held_out, 20_000)
        found = errorbars.ratios(run.model, held_out, statistics)
        errorbars.plot_coverage(found, self.out)
        print("within this many error bars   " + "".join(f"{k:8g}" for k in errorbars.COVERED))
        for name, covered, expected in errorbars.coverages(found):
            print(f"{name + ', found':30}" + "".join(f"{share:8.3f}" for share in covered))
            print(f"{name + ', expected':30}" + "".join(f"{share:8.3f}" for share in expected))
        largest = errorbars.largest_bars(run.model, held_out, statistics)
        print(
            f"largest error bar of a force in a test structure: median {np.median(largest):.3g}, largest {largest.max():.3g} "
            f"eV/Å of {len(largest)}; dynamics that stays above has left these structures"
        )
        _print_files(self.out)


@dataclass(frozen=True)
class Prune:
    """Drop trailing blocks, train the rest a little more, and show error against cost.

    Run folders RUN-K-blocks appear beside RUN; those that are there already are measured only.
    """

    run: Run
    """Run folder."""
    blocks: tuple[int, ...] = (2,)
    """Numbers of blocks to keep, one or more."""
    epochs: int = 20
    """Epochs of training for each."""
    out: Annotated[Path, out_option()] = Path("pareto.png")
    """Figure to write: .png, .pdf or .svg."""

    def __call__(self) -> None:
        """Train, measure, draw, write and print."""
        plots.check_format(self.out)
        found = prune_all(self.run, self.blocks, self.epochs)
        plot_pareto(found, self.out)
        print("blocks   energy MAE eV   forces MAE eV/Å   µs per atom   blocks x cutoff Å   run")
        for one in found:
            print(
                f"{one.blocks:6}{one.energy:16.4f}{one.forces:18.4f}{one.micro:14.2f}{one.reach:20.1f}   {one.path}"
            )
        _print_files(self.out)


@dataclass(frozen=True)
class Sizes:
    """Train models of several sizes like a run, and show error against cost: which size is worth its time.

    Options, data and split are those of RUN. Errors are those of the validation part, so that the test part is left
    for the size that is chosen. Times are CPU time of one thread for energy and forces without the neighbor list.
    Run folders F<features>-L<blocks> appear in DIR; the same command goes on with what is missing.
    """

    run: Run
    """Run folder."""
    features: tuple[int, ...] = (32, 64, 128)
    """Numbers of features."""
    blocks: tuple[int, ...] = (1, 2, 3, 6)
    """Numbers of interaction blocks."""
    minutes: float = float("inf")
    """After so many minutes no further training begins."""
    out: Annotated[Path | None, out_option()] = None
    """Folder of the run folders, the figure sizes.png and its CSV; RUN-sizes unless given."""

    def __call__(self) -> None:
        """Train, measure, draw, write and print."""
        expect(self.run, Kind.RUN)  # before a folder is made
        folder = self.out or Path(f"{self.run}-sizes")
        wanted = [(features, blocks) for features in self.features for blocks in self.blocks]
        if not self.minutes >= 0:
            raise ValueError(f"`minutes` must be at least 0, got {self.minutes}")
        folder.mkdir(parents=True, exist_ok=True)
        runs, left = train_sizes(self.run, wanted, folder, self.minutes)
        structures = read_run(self.run).part("val")
        found = [measure(path, structures) for path in runs.values()]
        best = sizes.front(found)
        print("    F   L   energy MAE eV   forces MAE eV/Å   µs per atom   shares of the layers, %")
        for one in sorted(found, key=lambda one: one.micro):
            print(
                f"{one.features:5}{one.blocks:4}{one.energy:16.4f}{one.forces:18.4f}{one.micro:14.2f}"
                f" {'*' if one in best else ' '} {sizes.weights_of(one.path)}"
            )
        print("* no other model is both cheaper and better")
        for line in sizes.advice(found):
            print(line)
        if left:
            names = "; ".join(f"F={features}, L={blocks}" for features, blocks in left)
            print(f"no time was left for {names}: the same command goes on")
        _print_files(sizes.plot_sizes(found, folder / "sizes.png"))


COMMANDS: dict[str, type] = {
    "contributions": Contributions,
    "properties": Properties,
    "elements": Elements,
    "trajectory": Trajectory,
    "layers": Layers,
    "shapley": Shapley,
    "reach": Reach,
    "filters": Filters,
    "unfamiliarity": Unfamiliarity,
    "error-bars": ErrorBars,
    "prune": Prune,
    "sizes": Sizes,
    "modes": Modes,
    "walks": Walks,
}
ABOUT = "What a trained model does inside; each command draws a figure, prints a table and writes the numbers as CSV."
OPTIONS = one_of(COMMANDS, ABOUT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0: done; 1: failed; 128 + signal: stopped while it trained. (2, wrong usage, ends the process.)

    Args:
        arguments: without the program's name; None: those of the process.
    """
    command = parse_one_of(COMMANDS, "analysis", ABOUT, arguments)
    if not getattr(command, "runs", True):
        print("error: name at least one run folder; --help says more", file=sys.stderr)
        return 2
    try:
        command()
    except Interrupted as interrupted:
        print(f"stopped by {interrupted}; the same command goes on", file=sys.stderr)
        return 128 + interrupted.signum
    except (OSError, ValueError, TrainingFailed) as error:
        return failed(error, command, path="out")
    return 0


def prune_all(
    path: str | os.PathLike[str], blocks: Sequence[int], epochs: int, structures_at_most: int = 2000
) -> list[Measured]:
    """Prune a run to each number of blocks, into folders beside it, and measure them all.

    Folders RUN-K that are there already and finished are measured, not trained again; an interrupted training goes on.

    Args:
        path: run folder.
        blocks: numbers of blocks to keep.
        epochs: of training each.
        structures_at_most: test structures to measure on.

    Returns:
        The run itself first, then the pruned ones.

    Raises:
        FileNotFoundError, ValueError: if the run cannot be read or a number of blocks is out of range.
    """
    run = _read_run(path)
    structures = evenly(run.held_out, 10**9, structures_at_most)
    found = [measure(path, structures)]
    for n in blocks:
        out = Path(f"{Path(path)}-{n}-blocks")
        if (out / "last.pt").is_file() and not (out / "test.json").is_file():
            train(read_run_config(out), out)
        elif not (out / "test.json").is_file():
            prune(run, n, epochs, out)
        found.append(measure(out, structures))
    return found


def importance_table(found: Importance, weights: NDArray[np.float64]) -> str:
    """A quantity's Shapley values, ablations and weights, as text."""
    lines = [
        f"{found.quantity}: MAE {found.errors[-1]:.4g} {found.unit} with all layers, "
        f"{found.errors[0]:.4g} with none, {found.n_frames} structures",
        f"layer  {'w_hat':>9}{'Shapley':>12}{'± s.e.':>10}{'left out':>12}{'± s.e.':>10}{'alone':>12}",
    ]
    for layer, weight in enumerate(weights):
        lines.append(
            f"v{layer:<6}{weight:9.4f}{found.shapley[layer]:12.4g}{found.shapley_se[layer]:10.2g}"
            f"{found.left_out[layer]:+12.4g}{found.left_out_se[layer]:10.2g}{found.alone[layer]:12.4g}"
        )
    lines.append(
        f"rank correlation of w_hat and Shapley {rank_correlation(abs(weights), found.shapley):.2f}"
    )
    pairs = disagreements(weights, found)
    if pairs:
        words = ", ".join(f"v{a} outweighs v{b}" for a, b in pairs[:4])
        lines.append(f"but does less: {words}")
    return "\n".join(lines) + "\n"


def layers_table(means: ElementMeans) -> str:
    """Mean layer energies of each element, their sum, and the standard deviations there are, as text."""
    names = layer_names(means.layers.value.shape[1])
    lines = ["mean layer energy per atom, eV"]
    lines.append(f"{'':18}" + "".join(f"{name:>9}" for name in (*names, "all")))
    for k, element in enumerate(means.names):
        for label, kind in (
            (element, "value"),
            ("  ± from rigidity", "rigidity"),
            ("  ± over runs", "spread"),
        ):
            parts = [getattr(one, kind) for one in (means.layers, means.sums)]
            if all(part is not None for part in parts):
                lines.append(f"{label:18}" + "".join(_numbers(part[k]) for part in parts))
    return "\n".join(lines)


def _numbers(row: NDArray[np.float64]) -> str:
    return "".join(f"{value:9.4f}" for value in row)


def _read_run(path: str | os.PathLike[str]) -> TrainedRun:
    """A run whose model has an energy, which most of what is said here is about.

    Raises:
        ValueError: if it has none; and as `scschnet.runs.run.read_run`.
    """
    run = read_run(path)
    run.model.require_energy()
    return run


def _print_files(figure: Path) -> None:
    print(f"\n{figure}\n{table_beside(figure)}")


def _last_epoch(summary: c.Summary) -> str:
    mean, std = summary.mean[-1], summary.std[-1]
    share = 100 * np.abs(mean) / max(np.abs(mean).sum(), 1e-300)
    lines = [f"epoch {summary.epochs[-1]}\nlayer       w_hat         std   share"]
    for layer in range(len(mean)):
        lines.append(f"v{layer:<4d} {mean[layer]:11.4f} {std[layer]:11.4f} {share[layer]:5.1f} %")
    return "\n".join(lines)
