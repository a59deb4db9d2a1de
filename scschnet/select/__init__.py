"""Frames that are worth labeling: those of which a model is unsure, and among these such as differ from each other.

The uncertainty of a frame is the largest error bar of its atoms: that of the forces where the model gives one, else the
unfamiliarity (scschnet.nn.unfamiliarity). Candidates are the most uncertain half of the usable frames, at most five for
each frame that is wanted. The most uncertain candidate is taken first; then, again and again, the one that is farthest
from all that are taken (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5), where a frame is the mean of the representation
x^out over the atoms of each element.
"""

import heapq
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from scschnet.calculator import ScSchNetCalculator
from scschnet.callable import let_call
from scschnet.checkpoint import SHORTEST, checkpoint_path, load_checkpoint
from scschnet.committee import member_folders
from scschnet.data import StructureSet, collate
from scschnet.evaluate.corrections import corrections
from scschnet.kinds import Kind, kind_of
from scschnet.neighbors import neighbor_list
from scschnet.nn import SchNet

CANDIDATES = 5  # at most so many for each frame that is wanted
OVERLAP = 0.7  # of the shortest distance in the training structures: nearer atoms are nonsense
OVERLAP_OF_RADII = 0.5  # of the sum of covalent radii, for elements that never met in training

Limits = dict[tuple[str | int, str | int], float]  # of pairs of elements, Å
# Uncertainty, minus the number, place among other frames, and the frame; the number decides between equals.
Candidate = tuple[float, int, NDArray[np.float64], Atoms]


@dataclass(frozen=True)
class Selection:
    """What was selected, and from how much.

    Args:
        frames: in the order in which they were taken, so that the first few are a selection, too. Without labels; in
            `info`: uncertainty, uncertainty_of (`forces_std`, eV/Å, or `unfamiliarity`), uncertain_atom (counted from 0)
            and source_frame (its number among all that were seen, from 0).
        n_seen: frames looked at.
        n_nonsense: of them left out, because atoms overlap or a number is not finite.
        n_candidates: of them uncertain enough to be chosen from.
    """

    frames: list[Atoms]
    n_seen: int
    n_nonsense: int
    n_candidates: int


def select(
    path_or_model: str | os.PathLike[str] | SchNet | ScSchNetCalculator,
    frames: Iterable[Atoms],
    n: int,
    device: str | torch.device = "cpu",
) -> Selection:
    """Choose frames to label: uncertain and different; the module says how.

    Frames are looked at one by one, and a few for each that is wanted are kept, so that a trajectory of any length fits.
    Atoms overlap if they are nearer than 0.7 times the shortest distance of their elements in the training structures,
    or, where the checkpoint does not know one, than half the sum of their covalent radii.

    Args:
        path_or_model: run folder or checkpoint file, or whatever the ASE calculator takes; or that calculator.
        frames: structures of elements that the model knows.
        n: frames wanted; fewer are returned if fewer are usable.
        device: where the model runs; of a calculator its own counts.

    Raises:
        ValueError: if `n` is less than 1, a frame cannot be evaluated (naming its number), no frame is usable, or the
            model has no error bar.
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}")
    if isinstance(path_or_model, ScSchNetCalculator):
        calculator, limits = path_or_model, _overlaps(path_or_model, {})
    else:
        calculator = ScSchNetCalculator(path_or_model, device=device)
        limits = _overlaps(calculator, _shortest(path_or_model))
    kept: list[
        tuple[float, int, NDArray[np.float64], Atoms]
    ] = []  # a heap, the least uncertain first
    n_seen = n_nonsense = 0
    for number, atoms in enumerate(frames):
        n_seen += 1
        try:
            found = _evaluated(atoms, number, calculator, limits)
        except ValueError as failure:
            raise ValueError(f"frame {number}: {failure}") from failure
        if found is None:
            n_nonsense += 1
        elif len(kept) < CANDIDATES * n:
            heapq.heappush(kept, found)
        else:
            heapq.heappushpop(kept, found)
    if not kept:
        raise ValueError(
            f"`frames` must hold a usable frame, got {n_seen} of which {n_nonsense} are nonsense: atoms that overlap, "
            "or numbers that are not finite"
        )
    n_candidates = min(len(kept), max(n, (n_seen - n_nonsense) // 2))
    candidates = heapq.nlargest(n_candidates, kept)
    chosen = farthest(np.stack([features for _, _, features, _ in candidates]), n)
    return Selection([candidates[k][3] for k in chosen], n_seen, n_nonsense, n_candidates)


def farthest(features: NDArray[np.float64], n: int) -> list[int]:
    """Points far from each other: the first one, then always the one farthest from all that are taken.

    Args:
        features: (n_points, n_features).
        n: points wanted.

    Returns:
        At most `n` places, in the order in which they were taken.
    """
    chosen = [0]
    nearest = np.linalg.norm(features - features[0], axis=1)
    while len(chosen) < min(n, len(features)):
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return chosen


def _evaluated(
    atoms: Atoms, number: int, calculator: ScSchNetCalculator, limits: Limits
) -> Candidate | None:
    """A frame with its uncertainty and its place among others; None if it is nonsense."""
    if not np.isfinite(atoms.positions).all() or len(neighbor_list("i", atoms, limits)):
        return None
    calculator.calculate(atoms, ["energy", "forces"])
    results = calculator.results
    if not np.isfinite(results["energy"]) or not np.isfinite(results["forces"]).all():
        return None
    measure = "forces_std" if "forces_std" in results else "unfamiliarity"
    of_atoms = results.get(measure, calculator.unfamiliarity)
    if of_atoms is None:
        raise ValueError(
            "the model must give an error bar, but its checkpoint holds no statistics of its training set, which every "
            "finished run writes"
        )
    worst = int(np.argmax(of_atoms))
    kept = atoms.copy()  # without the calculator, whose labels may be those of the model
    kept.info |= {
        "uncertainty": float(of_atoms[worst]),
        "uncertainty_of": measure,
        "uncertain_atom": worst,
        "source_frame": number,
    }
    return float(of_atoms[worst]), -number, _features(calculator, atoms), kept


def _features(calculator: ScSchNetCalculator, atoms: Atoms) -> NDArray[np.float64]:
    """x^out in the mean over the atoms of each element of the model, zeros for one that is absent."""
    model = next(module for module in calculator.model.modules() if isinstance(module, SchNet))
    structure = StructureSet(
        positions=atoms.positions,
        atomic_numbers=atoms.numbers,
        atom_ptr=np.array([0, len(atoms)]),
        cells=atoms.cell.array[None],
        pbc=atoms.pbc[None],
    )
    batch = collate(structure, np.arange(1), model.config.cutoff).to(calculator.device)
    with torch.no_grad():
        x_out = model.combine(corrections(model, batch).layers).double().cpu().numpy()
    found = np.zeros((len(model.config.elements), x_out.shape[1]))
    for place, z in enumerate(model.config.elements):
        of_element = atoms.numbers == z
        if of_element.any():
            found[place] = x_out[of_element].mean(axis=0)
    return found.ravel()


def _shortest(path_or_model: str | os.PathLike[str] | SchNet) -> Mapping[str, float]:
    """Shortest distances of the training structures by pairs of elements such as C-H, as far as a checkpoint tells."""
    kind = None if isinstance(path_or_model, SchNet) else kind_of(path_or_model)
    if isinstance(path_or_model, SchNet) or kind not in (
        Kind.RUN,
        Kind.CHECKPOINT,
        Kind.COMMITTEE,
    ):
        return {}
    if kind is Kind.COMMITTEE:  # its members share their training structures
        path_or_model = member_folders(path_or_model)[0]
    return load_checkpoint(checkpoint_path(path_or_model)).metadata.get(SHORTEST, {})


def _overlaps(calculator: ScSchNetCalculator, shortest: Mapping[str, float]) -> Limits:
    """Distance below which atoms of two elements overlap, Å."""
    elements = calculator.model.config.elements
    limits: Limits = {
        (z, other): float(OVERLAP_OF_RADII * (covalent_radii[z] + covalent_radii[other]))
        for z in elements
        for other in elements
        if z <= other
    }
    for pair, distance in shortest.items():
        first, second = sorted(atomic_numbers[symbol] for symbol in pair.split("-"))
        limits[first, second] = OVERLAP * distance
    return limits


let_call(__name__, select)
