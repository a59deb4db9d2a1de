"""Predictions of a model for many structures, and their errors."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from scschnet import elements
from scschnet.callable import let_call
from scschnet.checkpoint import load
from scschnet.data import StructureSet, collate
from scschnet.data.readers.given import Structures, structures_of
from scschnet.nn import SchNet
from scschnet.nn.committee import Committee
from scschnet.nn.head import HEADS
from scschnet.properties import Property
from scschnet.quantities import (
    ANY_OF_THEM,
    ERRORS,
    ON_DEMAND,
    QUANTITIES,
    Error,
    error_units,
    returned,
)
from scschnet.runs.run import read_run

MAX_ATOMS_PER_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of structures, in the order in which they were asked for.

    Args:
        energy: (n_structures,), eV, or None if the model has none.
        forces: (n_atoms, 3), eV/Å, or None if not asked for.
        stress: (n_structures, 3, 3), eV/Å^3, or None if not asked for.
        properties: each (n_structures, ...), in its unit.
        energy_std: error bar of a committee's energy, (n_structures,), eV, or None.
        forces_std: error bar of its forces, (n_atoms,), eV/Å, or None.
    """

    energy: NDArray[np.float64] | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    properties: dict[Property, NDArray[np.float64]] = field(default_factory=dict)
    energy_std: NDArray[np.float64] | None = None
    forces_std: NDArray[np.float64] | None = None


def evaluate(
    model: SchNet | str | os.PathLike[str],
    structures: Structures | None = None,
    *,
    part: str = "test",
    units: str | None = None,
    device: str = "cpu",
) -> dict[str, Error]:
    """Errors of a model on structures with labels.

    Args:
        model: a model, a run folder (its best.pt is taken) or a checkpoint.
        structures: a set, one or several of ASE's Atoms with results, or a file; None: the run's own data.
        part: of the run's own data, by its split: train, val or test.
        units: of a file that does not state them, for example 'kcal/mol, Angstrom'.
        device: where to compute: cpu, cuda or cuda:1; the model is moved there.

    Returns:
        Name to MAE, RMSE and their number: energy (eV), energy_per_atom (eV), forces (eV/Å per component), forces_H,
        forces_C and so on, stress (eV/Å^3 per component), as far as there are labels.

    Raises:
        FileNotFoundError, TypeError, ValueError: if the model or the structures cannot be read, hold no labels, or
            hold elements that the model was not trained on.
    """
    if structures is not None:
        labels = structures_of(structures, units)
    elif isinstance(model, SchNet):
        raise ValueError("`structures` must be given with a model that is no run folder")
    else:
        labels = read_run(model).part(part)
    network = (model if isinstance(model, SchNet) else load(model)).to(device)
    check_elements(network, labels)
    if not any(has.any() for has in labels.labeled.values()):
        raise ValueError(f"`structures` must hold {ANY_OF_THEM} to compare with, got none")
    asked: dict[str, Any] = {name: bool(labels.labeled[name].any()) for name in ON_DEMAND}
    return errors_in_detail(predict(network, labels, **asked), labels)


def predict(
    model: SchNet | Committee,
    structures: StructureSet,
    indices: ArrayLike | None = None,
    *,
    forces: bool = True,
    stress: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Predictions:
    """Evaluate a model on structures, a few at a time, where its parameters are.

    Args:
        model: left in the mode (training or evaluation) it is in.
        structures: the set.
        indices: which of them, in which order; None: all.
        forces: whether to predict forces.
        stress: whether to predict stress.
        progress: called with the number of structures that have just been done.

    Returns:
        Predictions; bit for bit the same for the same model, set and indices on one machine.
    """
    chosen = np.arange(len(structures)) if indices is None else np.asarray(indices, dtype=np.int64)
    device = next(model.parameters()).device
    asked, quantities = returned(forces, stress)
    parts = {q.name: [np.zeros((0, *q.shape))] for q in quantities}
    if not model.config.energy:
        parts = {}
    heads = {one.name: one for one in model.config.heads}
    parts |= {name: [np.zeros((0, *HEADS[one.kind].shape))] for name, one in heads.items()}
    if isinstance(model, Committee):
        parts |= {f"{name}_std": [np.zeros(0)] for name in ("energy", "forces") if name in parts}
    for some in _chunks(structures, chosen):
        batch = collate(structures, some, model.config.cutoff).to(device)
        with torch.no_grad():
            result = model(**batch.inputs, **asked)
        for name, part in parts.items():
            part.append(result[name].cpu().numpy())
        if progress is not None:
            progress(len(some))
    found: dict[str, Any] = {name: np.concatenate(part) for name, part in parts.items()}
    properties = {one: found.pop(name) for name, one in heads.items()}
    return Predictions(**found, properties=properties)


def energies_of(model: SchNet, structures: StructureSet) -> NDArray[np.float64]:
    """Energies of structures, (n_structures,), eV.

    Raises:
        ValueError: if the model has none.
    """
    model.require_energy()
    return cast(NDArray[np.float64], predict(model, structures, forces=False).energy)


def error(predicted: NDArray[np.float64], label: NDArray[np.float64]) -> Error:
    """Error of predictions where there is a label (not NaN), over single numbers.

    Args:
        predicted: any shape.
        label: same shape; NaN where there is none.
    """
    difference = (predicted - label)[~np.isnan(label)]
    if difference.size == 0:
        return Error(float("nan"), float("nan"), 0)
    return Error(
        mae=float(np.abs(difference).mean()),
        rmse=float(np.sqrt(np.square(difference).mean())),
        n=int(difference.size),
    )


def errors(predictions: Predictions, labels: StructureSet) -> dict[str, Error]:
    """Errors of every quantity that was predicted and has labels.

    Args:
        predictions: of all structures of `labels`, in its order.
        labels: the structures themselves.

    Returns:
        energy (eV per structure), energy_per_atom (eV, of the same energies divided by the numbers of
        atoms), forces (eV/Å per component), stress (eV/Å^3 per component), and properties in their units.
    """
    found = {}
    for quantity in labels.quantities:
        predicted, label = quantity.of(predictions), labels.label(quantity)
        if predicted is not None and label is not None:
            found[quantity.name] = error(predicted, label)
            per_atom = f"{quantity.name}_per_atom"
            if per_atom in quantity.errors:
                n_atoms = np.maximum(labels.n_atoms, 1).reshape(-1, *quantity.ones)
                found[per_atom] = error(predicted / n_atoms, label / n_atoms)
    return found


def errors_in_detail(predictions: Predictions, labels: StructureSet) -> dict[str, Error]:
    """Errors in total, of the energy per atom, and of the forces on each element.

    Args:
        predictions: of all structures of `labels`, in its order.
        labels: the structures themselves.

    Returns:
        As `errors`, with forces_H, forces_C ... (eV/Å) after
        forces.
    """
    found: dict[str, Error] = {}
    of_atoms = {quantity.name for quantity in QUANTITIES if quantity.per_atom}
    for name, total in errors(predictions, labels).items():
        found[name] = total
        if name in of_atoms:
            predicted, label = getattr(predictions, name), getattr(labels, name)
            for z in labels.elements:
                atoms = labels.atomic_numbers == z
                found[f"{name}_{elements.symbol(z)}"] = error(predicted[atoms], label[atoms])
    return found


def errors_by_file(predictions: Predictions, labels: StructureSet) -> dict[int, dict[str, Error]]:
    """Errors of the structures of each file, where a set was joined from several.

    Args:
        predictions: of all structures of `labels`, in its order.
        labels: the structures themselves.

    Returns:
        The number of every file that `labels` has structures of, to what `errors` returns for them; empty for a set of one
        file.
    """
    found = {}
    for k in np.unique(labels.file_index) if labels.file_index is not None else ():
        chosen = labels.file_index == k
        part = {
            q.name: values[chosen[labels.idx_m] if q.per_atom else chosen]
            for q in QUANTITIES
            if (values := getattr(predictions, q.name)) is not None
        }
        properties = {given: values[chosen] for given, values in predictions.properties.items()}
        found[int(k)] = errors(Predictions(**part, properties=properties), labels.select(chosen))
    return found


def in_units(name: str, found: Error, properties: Iterable[Property] = ()) -> dict[str, Any]:
    """An error as JSON: n, and MAE and RMSE in eV (and Å) and in kcal/mol (and Å); stress also in GPa.

    Args:
        name: a key of `errors_in_detail`.
        found: the error.
        properties: those that may be meant.
    """
    scaled = {
        unit: {"mae": found.mae * factor, "rmse": found.rmse * factor}
        for unit, factor in display_units(name, properties).items()
    }
    return {"n": found.n, **scaled}


def display_units(name: str, properties: Iterable[Property] = ()) -> dict[str, float]:
    """Unit to its value per eV, eV/Å or eV/Å^3, or per unit of a property; tables show the first two.

    Args:
        name: a key of `errors_in_detail`.
        properties: those that may be meant.
    """
    return error_units(properties).get(name) or ERRORS[name.partition("_")[0]]


def check_elements(
    model: SchNet | Committee, structures: StructureSet, name: str = "`structures`"
) -> None:
    """Stop where a model would be asked about elements it was not trained on.

    Args:
        model: the model.
        structures: the set.
        name: what a message calls the set.

    Raises:
        ValueError: naming them.
    """
    known = model.config.elements
    is_strange = ~np.isin(structures.atomic_numbers, known)
    strange = np.unique(structures.idx_m[is_strange])
    where = f" in {len(strange):,} of {len(structures):,} structures"
    elements.check_elements(structures.elements.tolist(), known, name, where)


def _chunks(structures: StructureSet, indices: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Split `indices`, in order, into parts of at most MAX_ATOMS_PER_BATCH atoms (or one structure)."""
    start, atoms = 0, 0
    for position, size in enumerate(structures.n_atoms[indices]):
        if position > start and atoms + size > MAX_ATOMS_PER_BATCH:
            yield indices[start:position]
            start, atoms = position, 0
        atoms += int(size)
    if start < len(indices):
        yield indices[start:]


let_call(__name__, evaluate)
