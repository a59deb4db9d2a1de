"""The commands of `python -m scschnet.analysis`: options, and what each prints and writes."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from scschnet.analysis import contributions as c
from scschnet.analysis import environments as e
from scschnet.analysis import plots
from scschnet.analysis.importance import (
    Importance,
    disagreements,
    energy_importance,
    force_importance,
    plot_importance,
    rank_correlation,
)
from scschnet.analysis.layers import (
    completeness,
    element_means,
    layer_energies,
    plot_element_energies,
)
from scschnet.analysis.runs import Run, evenly, layer_names, read_run
from scschnet.analysis.tables import table_beside
from scschnet.data import StructureSet, read

Runs = tyro.conf.Positional[tuple[Path, ...]]


def out_option() -> Any:
    """`-o` as a short name of `--out`."""
    return tyro.conf.arg(aliases=["-o"])


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
        runs = [c.read_contributions(run) for run in self.runs]
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
class Elements:
    """Normalized contribution weights of each element, or of each element by its number of neighbors.

    w_hat_Z = w mean over atoms of Z of |v|, over training structures of each run; of several runs
    mean and spread. A heat map, and a CSV beside it.
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
        runs = [read_run(run) for run in self.runs]
        groups = e.over_runs([of(r.model, evenly(r.part("train"), self.atoms)) for r in runs])
        e.plot_groups(groups, self.out)
        print(f"{'':16}" + "".join(f"{n:>9}" for n in layer_names(groups.mean.shape[1])))
        for name, row, size in zip(groups.names, groups.mean, groups.n_atoms, strict=True):
            print(f"{name:16}" + "".join(f"{v:9.4f}" for v in row) + f"   {size:,} atoms")
        _print_files(self.out)


@dataclass(frozen=True)
class Trajectory:
    """Normalized contribution weights of every frame of a trajectory.

    Draws how far each block's weight is from its mean over the trajectory; the weights go to a CSV.
    """

    run: tyro.conf.Positional[Path]
    """Run folder."""
    frames: tyro.conf.Positional[Path]
    """Trajectory: any file of structures that can be read."""
    units: str = ""
    """Units of a file that does not state them, for example 'kcal/mol, Angstrom'."""
    out: Annotated[Path, out_option()] = Path("trajectory.png")
    """Figure to write: .png, .pdf or .svg."""

    def __call__(self) -> None:
        """Draw, write and print."""
        structures = read(self.frames, units=self.units or None)
        found = e.trajectory_contributions(read_run(self.run).model, structures)
        e.plot_trajectory(found, self.out)
        print(f"{len(found):,} frames\nlayer        mean   std over frames")
        for name, column in zip(layer_names(found.shape[1]), found.T, strict=True):
            print(f"{name:6}{column.mean():11.4f}{column.std():18.4f}")
        _print_files(self.out)


@dataclass(frozen=True)
class Layers:
    """Energy of every atom split over the layers, exactly; with --forces the forces, too.

    Draws the mean of each element; the CSV beside the figure has every atom.
    """

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Annotated[Path, out_option()] = Path("layers.png")
    """Figure to write: .png, .pdf or .svg."""
    atoms: int = 2000
    """Atoms, about; taken evenly from the test part (the validation part if there is none)."""
    forces: bool = False
    """Split the forces as well, into the CSV."""

    def __call__(self) -> None:
        """Draw, write and print."""
        run = read_run(self.run)
        structures = evenly(held_out(run), self.atoms)
        found = layer_energies(run.model, structures, forces=self.forces)
        plot_element_energies(found, structures, self.out)
        names, mean, _ = element_means(found, structures)
        print("mean layer energy per atom, eV")
        print(f"{'':4}" + "".join(f"{n:>9}" for n in layer_names(mean.shape[1])))
        for name, row in zip(names, mean, strict=True):
            print(f"{name:4}" + "".join(f"{v:9.4f}" for v in row))
        print(
            f"completeness: off by {completeness(run.model, structures):.1e} of what the layers add"
        )
        _print_files(self.out)


@dataclass(frozen=True)
class Shapley:
    """Ablation and Shapley values of the layers for the energy and the force error, against the weights.

    Over all 2^(L+1) coalitions of layers; message passing is left as it is. Energy errors are those
    after a refit of one energy per element, which a missing layer shifts.
    """

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Annotated[Path, out_option()] = Path("shapley.png")
    """Figure to write: .png, .pdf or .svg."""
    frames: int = 200
    """Structures for the energy, taken evenly from the test part."""
    force_frames: int = 20
    """Structures for the forces, each of them 2^(L+1) backward passes; 0: no forces."""

    def __call__(self) -> None:
        """Draw, write and print."""
        run = read_run(self.run)
        structures = held_out(run)
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


def held_out(run: Run) -> StructureSet:
    """The test part of a run, or the validation part where there is none."""
    return run.part("test" if len(run.split.test) else "val")


def _print_files(figure: Path) -> None:
    print(f"\n{figure}\n{table_beside(figure)}")


def _last_epoch(summary: c.Summary) -> str:
    mean, std = summary.mean[-1], summary.std[-1]
    share = 100 * np.abs(mean) / max(np.abs(mean).sum(), 1e-300)
    lines = [f"epoch {summary.epochs[-1]}\nlayer       w_hat         std   share"]
    for layer in range(len(mean)):
        lines.append(f"v{layer:<4d} {mean[layer]:11.4f} {std[layer]:11.4f} {share[layer]:5.1f} %")
    return "\n".join(lines)
