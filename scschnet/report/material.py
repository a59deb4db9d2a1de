"""Everything a report is about, computed once: errors, weights, layers, importance, reach, filters, scores."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scschnet.analysis import error_bars as errorbars
from scschnet.analysis.environments import (
    GroupContributions,
    element_contributions,
    environment_contributions,
    over_runs,
    trajectory_contributions,
)
from scschnet.analysis.filters import (
    FilterSummary,
    PairEnergies,
    PairRange,
    pair_energies,
    squeeze,
    summarize_filters,
)
from scschnet.analysis.importance import Importance, energy_importance, force_importance
from scschnet.analysis.layers import LayerEnergies, completeness, layer_energies
from scschnet.analysis.mode_table import FILE, ModesTable, read_modes
from scschnet.analysis.properties import PropertyContributions, property_contributions
from scschnet.analysis.reach import Reach, reach
from scschnet.analysis.rigidity import root_of
from scschnet.analysis.smoothness import PairScan, scan_pairs
from scschnet.analysis.unfamiliar import distorted
from scschnet.checkpoint import load
from scschnet.data import StructureSet, collate, evenly
from scschnet.evaluate import Predictions, predict
from scschnet.evaluate.norm_statistics import run_statistics, unfamiliarity_of
from scschnet.kinds import Kind, expect
from scschnet.nn import error_bars
from scschnet.nn.unfamiliarity import KEY, NormStatistics
from scschnet.quantities import Shown, shown_errors
from scschnet.report.molecule import choose_structure
from scschnet.runs.compare import check_alike
from scschnet.runs.contributions import Contributions, read_contributions
from scschnet.runs.folder import RunFolder
from scschnet.runs.run import Run, read_run

FRAMES = 200  # structures for energies of coalitions and parity
ATOMS = 4_000  # for weights and layer energies, about
FORCE_ATOMS = 150  # whose forces are computed in every coalition, about
REACH_ATOMS = 90
MOST_BLOCKS = 7  # more make too many coalitions for a report
PER_ATOM = shown_errors(per_atom=True)["energy"]
DISTORTIONS = (0.05, 0.1, 0.2)  # Å


@dataclass(frozen=True, eq=False)
class Cost:
    """What an evaluation takes.

    Args:
        n_parameters: trained numbers.
        n_atoms: evaluated at a time.
        energy: seconds of an energy, the fastest of 10.
        forces: seconds of energies and forces, the fastest of 10.
        threads: of torch.
        training: seconds, from metrics.csv.
    """

    n_parameters: int
    n_atoms: int
    energy: float
    forces: float
    threads: int
    training: float


@dataclass(frozen=True, eq=False)
class Trained:
    """Runs and their errors, whatever they were trained on.

    Args:
        runs: one or more.
        metrics: of each run, column to values, a row per epoch.
        tests: test.json of each run.
        properties: contribution weights of every property.
        held_out: structures of the first run for all that follows.
        predictions: of `held_out`.
    """

    runs: list[Run]
    metrics: list[dict[str, NDArray[np.float64]]]
    tests: list[dict[str, Any]]
    properties: PropertyContributions
    held_out: StructureSet
    predictions: Predictions

    @property
    def shown(self) -> dict[str, Shown]:
        """Errors that are put first: per atom if the set asks for it and the runs, which may be old, know it."""
        known = all(PER_ATOM.column in metrics for metrics in self.metrics)
        tested = all(PER_ATOM.error in test for test in self.tests if "energy" in test)
        per_atom = self.runs[0].structures.is_extensive and known and tested
        return shown_errors(per_atom, self.runs[0].model.config.heads)


@dataclass(frozen=True, eq=False)
class Material(Trained):
    """What a report shows of models with an energy; of several runs, the first gives all but the lists.

    Args:
        contributions: of each run.
        weights: normalized contribution weights of each run over held-out structures, (n_runs, n_layers).
        groups: contribution weights per element, and per environment.
        layers: layer energies of `held_out` by each run.
        incomplete: relative error of their sum.
        molecule: one structure of `held_out`, with its layer energies.
        importance: of each run, a quantity after the other; empty for a model of too many layers.
        reach: None if no structure has two atoms.
        filters: of the first run.
        ranges: its squeezed pairs.
        scans: bonds and contacts of held-out structures, stretched and pressed.
        pairs: distances and energies of two lone atoms, by elements.
        statistics: of norms, or None without blocks.
        scores: unfamiliarity of held-out and distorted atoms.
        covered: errors over error bars of held-out structures; None where the run has no error bars.
        modes: vibrations that `scschnet analysis modes` wrote into the folder of the first run; None if there are none.
        cost: of the first run.
    """

    contributions: list[Contributions]
    weights: NDArray[np.float64]
    groups: tuple[GroupContributions, GroupContributions | None]
    layers: list[LayerEnergies]
    incomplete: float
    molecule: tuple[StructureSet, LayerEnergies]
    importance: list[list[Importance]]
    reach: Reach | None
    filters: FilterSummary
    ranges: list[PairRange]
    scans: list[PairScan]
    pairs: PairEnergies
    statistics: NormStatistics | None
    scores: dict[str, NDArray[np.float64]]
    covered: errorbars.Ratios | None
    modes: ModesTable | None
    cost: Cost


def gather(paths: Sequence[Path]) -> Trained:
    """Read runs and compute what a report shows; without an energy no `Material`.

    Args:
        paths: run folders.

    Raises:
        FileNotFoundError, ValueError: if a run cannot be read, has no finished epoch, or runs do not
            fit together.
    """
    for path in paths:
        expect(path, Kind.RUN)
    check_alike(paths)
    contributions = [read_contributions(path) for path in paths]
    metrics = [RunFolder(path).read_metrics() for path in paths]
    runs = [read_run(path) for path in paths]
    first = runs[0]
    held_out = evenly(first.held_out, ATOMS, FRAMES)
    has_forces = bool(held_out.labeled["forces"].all())
    trained = (
        runs,
        metrics,
        [RunFolder(path).read_test() for path in paths],
        property_contributions(paths),
        held_out,
        predict(first.model, held_out, forces=has_forces),
    )
    if len({run.model.config.energy for run in runs}) > 1:
        raise ValueError("runs must all have an energy, or none, got both")
    if not first.model.config.energy:
        return Trained(*trained)
    chosen = held_out.select([choose_structure(held_out)])
    statistics, scores = _familiarity(first, held_out)
    big_enough = held_out.n_atoms.max() > 1
    return Material(
        *trained,
        contributions,
        np.stack([_weights(run) for run in runs]),
        (_elements(runs), _environments(runs)),
        [layer_energies(run.model, held_out, energy_root=root_of(run)) for run in runs],
        completeness(first.model, held_out),
        (chosen, layer_energies(first.model, chosen, energy_root=root_of(first))),
        [_importance(run) for run in runs],
        reach(first.model, evenly(held_out, REACH_ATOMS)) if big_enough else None,
        summarize_filters(first.model),
        squeeze(first.model, evenly(first.part("train"), 10**12, 5000)),
        scan_pairs(first.model, held_out),
        pair_energies(first.model),
        statistics,
        scores,
        _covered(first, held_out),
        read_modes(first.path / FILE) if (first.path / FILE).is_file() else None,
        _cost(first, metrics[0]),
    )


def hashes(run: Run) -> list[tuple[str, int, str]]:
    """Name, bytes and SHA-256 of the files that made and are the result."""
    folder = RunFolder(run.path)
    files = [folder.best, folder.config, folder.split, folder.metrics]
    files.extend(map(Path, run.config.data))
    found = []
    for file in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        found.append((file.name, file.stat().st_size, digest))
    return found


def _weights(run: Run) -> NDArray[np.float64]:
    some = evenly(run.held_out, ATOMS, FRAMES)
    return trajectory_contributions(run.model, some).mean(axis=0)


def _elements(runs: list[Run]) -> GroupContributions:
    return over_runs([element_contributions(r.model, evenly(r.part("train"), ATOMS)) for r in runs])


def _environments(runs: list[Run]) -> GroupContributions | None:
    try:
        return over_runs(
            [environment_contributions(r.model, evenly(r.part("train"), ATOMS)) for r in runs]
        )
    except ValueError:  # no environment is common enough
        return None


def _importance(run: Run) -> list[Importance]:
    structures = run.held_out
    if run.model.config.n_interactions > MOST_BLOCKS:
        return []
    found = []
    if structures.labeled["energy"].all():
        some = evenly(structures, 10**12, FRAMES)
        found.append(energy_importance(run.model, some))
    if structures.labeled["forces"].all():
        found.append(force_importance(run.model, evenly(structures, FORCE_ATOMS)))
    return found


def _familiarity(
    run: Run, held_out: StructureSet
) -> tuple[NormStatistics | None, dict[str, NDArray[np.float64]]]:
    """Those in the checkpoint, or made anew."""
    if not run.model.config.n_interactions:
        return None, {}
    if KEY in run.metadata:
        statistics = NormStatistics.from_json(run.metadata[KEY])
    else:
        statistics = run_statistics(run)
    sets = {"held out": held_out}
    sets |= {f"± {by:g} Å": distorted(held_out, by) for by in DISTORTIONS}
    return statistics, {
        name: unfamiliarity_of(run.model, some, statistics) for name, some in sets.items()
    }


def _covered(run: Run, held_out: StructureSet) -> errorbars.Ratios | None:
    if error_bars.KEY not in run.metadata:
        return None
    statistics = error_bars.ErrorStatistics.from_json(run.metadata[error_bars.KEY])
    return errorbars.ratios(run.model, held_out, statistics)


def _cost(run: Run, metrics: dict[str, NDArray[np.float64]]) -> Cost:
    """Time a thousand atoms or so, in the model's own precision."""
    model = load(run.path)
    some = evenly(run.held_out, 1000)
    batch = collate(some, np.arange(len(some)), model.config.cutoff)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(10):
        for forces, found in seconds.items():
            start = time.perf_counter()
            with torch.no_grad():
                model(**batch.inputs, forces=forces)
            found.append(time.perf_counter() - start)
    return Cost(
        sum(p.numel() for p in model.parameters()),
        len(some.positions),
        min(seconds[False]),
        min(seconds[True]),
        torch.get_num_threads(),
        float(metrics["seconds"][-1]),
    )
