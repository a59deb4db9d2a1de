"""What a training starts from: data, split and a model with its offsets."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray
from torch import Tensor

from scschnet import data
from scschnet.checkpoint import checkpoint_path, load_checkpoint
from scschnet.data import Split, StructureSet, load_split, random_split
from scschnet.data.close_pairs import close_pairs
from scschnet.data.split import PARTS
from scschnet.elements import symbol, symbols
from scschnet.kinds import Kind, expect
from scschnet.nn import ModelConfig, SchNet
from scschnet.nn.cutoff import CUTOFF_FUNCTIONS
from scschnet.nn.geometry import pair_vectors
from scschnet.nn.head import HEADS
from scschnet.nn.pair_term import RepulsionName
from scschnet.runs.config import PRESETS, TrainConfig
from scschnet.runs.run import read_data

NEAR = 3.0  # Å, of two atoms whose shortest distance is kept
ATOMS_FOR_THREADS = 500  # of a batch
DTYPES = {"float32": torch.float32, "float64": torch.float64}
# Options of a training that are handed to the model as they are.
MODEL_OPTIONS = {f.name for f in fields(ModelConfig)} & {f.name for f in fields(TrainConfig)}


def read_structures(config: TrainConfig) -> StructureSet:
    """Read the data of a run and check that the labels it trains on are there.

    Raises:
        ValueError: if labels that the loss asks for are missing.
    """
    for file in config.data:
        expect(file, Kind.STRUCTURES, Kind.OTHER, option="data")
    structures = read_data(config)
    name = ", ".join(config.data) or "the embedded set"
    for quantity in structures.quantities:
        label = quantity.name
        if config.label_weights.get(label, 0.0) > 0 and not structures.labeled[label].any():
            hint = "; --rho 1 trains on energies alone" if label == "forces" else ""
            raise ValueError(
                f"{name} has {label} for none of {len(structures)} structures, but {quantity.trained_on} "
                f"asks for it{data.label_hint(structures, label) or hint}"
            )
    _check_properties(config, structures)
    periodic = int(structures.pbc.any(axis=1).sum())
    if periodic and not CUTOFF_FUNCTIONS[config.cutoff_function].smooth:
        raise ValueError(
            f"`cutoff_function` {config.cutoff_function} is for molecules, whose pairs all count: {periodic} of {len(structures)} "
            f"structures of {name} are periodic, and their energy would jump wherever a pair crosses "
            f"{config.cutoff:g} Å; take --preset quick, or --cutoff-function cosine --cutoff 5 --rbf-range 0"
        )
    return structures


def _check_properties(config: TrainConfig, structures: StructureSet) -> None:
    """Check that labels of properties have the shape of their heads, and a meaning."""
    for given in config.heads:
        kind, shape = HEADS[given.kind], structures.properties[given].shape[1:]
        if shape != kind.shape:
            raise ValueError(
                f"`properties` {given.name} must have the shape {kind.shape} of a {given.kind}, got {shape}"
            )
        if kind.is_of_molecules and structures.pbc.any():
            raise ValueError(
                f"`properties` {given.name} is of molecules, but {int(structures.pbc.any(axis=1).sum())} of "
                f"{len(structures)} structures are periodic, for which a {given.kind} means nothing"
            )


def resolve(config: TrainConfig, structures: StructureSet) -> TrainConfig:
    """The options with those filled in that depend on the data: whether stress is trained on, the repulsion, the split's sizes.

    Args:
        config: options as they were given.
        structures: the whole set.
    """
    # Whole paths, so that the run can be opened from another folder.
    chosen: dict[str, Any] = {"data": tuple(str(Path(file).resolve()) for file in config.data)}
    if config.split_file:
        chosen["split_file"] = str(Path(config.split_file).resolve())
    if config.init_from:
        chosen["init_from"] = str(Path(config.init_from).resolve())
    if config.stress_weight < 0:
        every = structures.comparable["stress"].all() and len(structures)
        asked = not config.properties or "stress" in config.properties
        chosen["stress_weight"] = 1.0 if every and asked else 0.0
    chosen["repulsion"] = repulsion_of(config, structures)
    if not config.split_file:
        n = len(structures)
        names = ("n_train", "n_val", "n_test")
        sizes = [getattr(config, name) for name in names]
        defaults = [PRESETS[config.preset].get(name, getattr(TrainConfig, name)) for name in names]
        if sizes == defaults and sum(sizes) >= n >= 3:
            sizes = [n - 2 * max(1, n // 10), max(1, n // 10), 0]
        whole = [size if size >= 1 or size == 0 else max(1, round(size * n)) for size in sizes]
        chosen |= {name: int(size) for name, size in zip(names, whole, strict=True)}
    return replace(config, **chosen)


def repulsion_of(config: TrainConfig, structures: StructureSet) -> RepulsionName:
    """The pair term: where the user leaves it to us, that of the model to begin from, or `data` for periodic structures.

    On water it has the same errors, and without it hydrogens met within a picosecond at 400 K (docs/dynamics.md). Of
    molecules this was not measured, and a step of a few atoms takes a third longer with it.
    """
    if config.repulsion != "auto":
        return config.repulsion
    if config.init_from:
        return load_checkpoint(checkpoint_path(config.init_from)).model.config.repulsion
    return "data" if config.has_energy and structures.pbc.any() else "none"


def threads_for(config: TrainConfig, structures: StructureSet) -> int:
    """CPU threads that a batch can use: one if it is small, 0 (torch's own choice) otherwise.

    Threads that share little work wait for each other by spinning. Ten ethanols: on an idle machine two threads
    were 1.4 to 1.9 times faster than one, on a busy one about ten times slower.

    Args:
        config: options.
        structures: the whole set.
    """
    atoms = config.batch_size * float(structures.n_atoms.mean()) if len(structures) else 0.0
    return 1 if atoms < ATOMS_FOR_THREADS else 0


def describe(
    config: TrainConfig, structures: StructureSet, split: Split, known: Iterable[int] = ()
) -> str:
    """What was found in the data, how it is divided, and what of it is trained on, in a few lines.

    Args:
        config: resolved options.
        structures: the whole set.
        split: its parts.
        known: elements that the model knows beside those of the training structures.
    """
    sizes = structures.n_atoms
    elements = " ".join(symbol(z) for z in structures.elements)
    labels = ", ".join(
        f"{name} {int(has.sum())}/{len(has)}" for name, has in structures.labeled.items()
    )
    units = structures.info.get("units as read", "eV, Å")
    return (
        f"{config.source}: {len(structures)} structures of {sizes.min()} to "
        f"{sizes.max()} atoms ({elements}), {labels}, read as {units}\n"
        + "".join(f"{line}\n" for line in _files(config, structures, split))
        + f"{len(split.train)} to train on, {len(split.val)} for validation, {len(split.test)} to test"
        + (
            f"; trained on stress, too, with weight {config.stress_weight:g}"
            if config.stress_weight
            else ""
        )
        + "".join(f"\nnote: {note}" for note in _notes(structures, split, known))
    )


def _files(config: TrainConfig, structures: StructureSet, split: Split) -> list[str]:
    """What each of several files holds, and how it is divided."""
    index, lines = structures.file_index, []
    if index is None:
        return []
    for k, file in enumerate(config.data):
        part = structures.select(index == k)
        labels = ", ".join(f"{name} {int(has.sum())}" for name, has in part.labeled.items())
        n_train, n_val, n_test = (int((index[getattr(split, name)] == k).sum()) for name in PARTS)
        weight = f", weight {config.data_weights[k]:g}" if config.data_weights else ""
        lines.append(
            f"  {Path(file).name}: {len(part)} structures ({symbols(part.elements)}), {labels}; {n_train} to train "
            f"on, {n_val} for validation, {n_test} to test{weight}"
        )
    return lines


def _notes(structures: StructureSet, split: Split, known: Iterable[int]) -> list[str]:
    """What a user would want to know of a split before the first step."""
    notes = []
    if not len(split.test):
        notes.append("no structures are left to test; a smaller --n-train leaves some")
    trained = np.union1d(structures.select(split.train).elements, np.array([*known], np.int64))
    unknown = np.setdiff1d(structures.elements, trained)
    if unknown.size:
        n = len(np.unique(structures.idx_m[np.isin(structures.atomic_numbers, unknown)]))
        notes.append(
            f"{symbols(unknown)} in no training structure, so the model does not know it; {n} structures with it "
            "are left out of validation and test"
        )
    return notes


def choose_split(config: TrainConfig, structures: StructureSet, known: Iterable[int] = ()) -> Split:
    """The split of `split_file`, or a random one by seed; of several files each is divided in the same proportions.

    So a small file of new structures does not end up in one part by chance. The split of one file is that of
    `random_split`. Structures with elements that no training structure has are left out of the other parts: a model
    knows nothing of them.

    Args:
        config: resolved options, with whole numbers of structures.
        structures: the whole set.
        known: elements that the model knows already.

    Raises:
        ValueError: if a part that is needed is empty, there are fewer structures than asked for, or the file does
            not fit the set.
    """
    split = _given_or_random(config, structures)
    where = f"`split_file` {config.split_file}" if config.split_file else "the split"
    for name in ("train", "val"):
        if not len(getattr(split, name)):
            raise ValueError(f"{where} must have structures in its part {name}, got none")
    known = np.union1d(structures.select(split.train).elements, np.array([*known], np.int64))
    strange = structures.idx_m[~np.isin(structures.atomic_numbers, known)]
    val, test = (part[~np.isin(part, strange)] for part in (split.val, split.test))
    if not len(val):
        raise ValueError(
            f"{where} must have elements in its part train that the part val has, got {symbols(known)} alone"
        )
    return Split(split.train, val, test)


def _given_or_random(config: TrainConfig, structures: StructureSet) -> Split:
    if config.split_file:
        expect(config.split_file, Kind.SPLIT, Kind.OTHER, option="split_file")
        return load_split(config.split_file, len(structures))
    n_train, n_val, n_test = int(config.n_train), int(config.n_val), int(config.n_test)
    if n_train + n_val + n_test > len(structures):
        raise ValueError(
            f"`n_train` + `n_val` + `n_test` must be at most {len(structures)}, the structures in "
            f"{', '.join(config.data) or 'the embedded set'}, got {n_train} + {n_val} + {n_test}"
        )
    seed = config.seed if config.split_seed < 0 else config.split_seed
    n_test = n_test or len(structures) - n_train - n_val
    index = structures.file_index
    left = np.array([len(structures)]) if index is None else np.bincount(index)
    starts = np.cumsum(left) - left
    sizes = []
    for n in (n_train, n_val, n_test):
        sizes.append(_apportioned(n, left))
        left = left - sizes[-1]
    parts = [
        _divided(start, left_out + sum(of_file), of_file, seed)
        for start, left_out, *of_file in zip(starts, left, *sizes, strict=True)
    ]
    return Split(*(np.concatenate([getattr(part, name) for part in parts]) for name in PARTS))


def _divided(first: int, n: int, sizes: Sequence[int], seed: int) -> Split:
    """`n` structures from number `first` on, divided at random into parts of these sizes."""
    n_train, n_val, n_test = sizes
    split = random_split(n, n_train, n_val, seed)
    test = split.test
    if n_test < len(test):
        test = np.sort(np.random.default_rng(seed).choice(test, n_test, replace=False))
    return Split(first + split.train, first + split.val, first + test)


def _apportioned(n: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """`n` structures taken from files of these sizes, as nearly in proportion as whole numbers allow."""
    exact = n * sizes / max(sizes.sum(), 1)
    shares = np.floor(exact).astype(np.int64)
    left = np.argsort(shares - exact, kind="stable")[: n - shares.sum()]
    shares[left] += 1
    return shares


def build_model(config: TrainConfig, structures: StructureSet, train: NDArray[np.int64]) -> SchNet:
    """A model with fresh weights, and offsets taken from the training structures.

    Args:
        config: options; `seed` sets torch's global generator.
        structures: the whole set.
        train: indices of the training structures, whose elements are the model's.
    """
    torch.manual_seed(config.seed)
    part = structures.select(train)
    model = SchNet(
        ModelConfig(
            elements=tuple(int(z) for z in part.elements),
            **{name: getattr(config, name) for name in MODEL_OPTIONS - {"rbf_range", "repulsion"}},
            rbf_range=config.rbf_range or None,
            repulsion=repulsion_of(config, structures),
            heads=config.heads,
            energy=config.has_energy,
        ),
        w_init=config.w_init,
        filters=config.filters,
    )
    if config.readout_start == "matched":
        match_readout(model)
    fit_heads(model, part)
    if model.pair_term is not None:
        model.pair_term.fit(shortest_distances(part, model.config.elements, config.cutoff))
    shift, spread, atomref = fit_offsets(
        without_pair_term(model, part), lone_atoms(config, structures)
    )
    scale = spread
    if config.output_scale == "forces" and part.labeled["forces"].any():
        scale = float(np.sqrt(np.nanmean(np.square(np.asarray(part.forces)))))
    model.offsets.shift.fill_(shift)
    model.offsets.scale.fill_(scale if scale > 0 else 1.0)
    model.offsets.atomref[: len(atomref)] = torch.from_numpy(atomref)
    return model.to(DTYPES[config.dtype])


def shortest_distances(structures: StructureSet, elements: Sequence[int], cutoff: float) -> Tensor:
    """Shortest distance of every two elements, images included.

    Args:
        structures: the set; all its elements are among `elements`.
        elements: atomic numbers.
        cutoff: Å.

    Returns:
        (n_elements, n_elements) float64, Å; infinite where two are never nearer than `cutoff`.
    """
    shortest = np.full((len(elements), len(elements)), np.inf)
    kind = np.searchsorted(elements, structures.atomic_numbers)
    for pairs in close_pairs(structures, cutoff):
        first = structures.atom_ptr[pairs.idx_m]
        np.minimum.at(shortest, (kind[first + pairs.idx_i], kind[first + pairs.idx_j]), pairs.d_ij)
    return torch.from_numpy(shortest)


def nearest_pairs(structures: StructureSet) -> dict[str, float]:
    """Shortest distance of every two elements that come nearer than 3 Å, images included.

    Args:
        structures: the set.

    Returns:
        Pairs such as H-C, the lighter element first, to Å.
    """
    elements = structures.elements.tolist()
    shortest = shortest_distances(structures, elements, NEAR)
    return {
        f"{symbol(z)}-{symbol(other)}": float(shortest[i, j])
        for i, z in enumerate(elements)
        for j, other in enumerate(elements[i:], start=i)
        if shortest[i, j].isfinite()
    }


def without_pair_term(model: SchNet, structures: StructureSet) -> StructureSet:
    """A set whose energies are what the network has to learn: the labels less the energy of the pair term."""
    if model.pair_term is None or structures.energy is None:
        return structures
    phi = np.zeros(len(structures))
    for start in range(0, len(structures), 256):
        chosen = np.arange(start, min(start + 256, len(structures)))
        batch = data.collate(structures, chosen, model.config.cutoff)
        inputs = [
            getattr(batch, name)
            for name in ("positions", "cells", "idx_m", "idx_i", "idx_j", "shifts")
        ]
        d_ij = torch.linalg.vector_norm(pair_vectors(*inputs), dim=1)
        z, idx_i = batch.atomic_numbers, batch.idx_i
        of_pairs, _ = model.pair_term(z[idx_i], z[batch.idx_j], d_ij)
        np.add.at(phi, chosen[batch.idx_m[idx_i].numpy()], 0.5 * of_pairs.numpy())  # both ways
    return replace(structures, energy=structures.energy - phi)


def fit_heads(model: SchNet, structures: StructureSet) -> None:
    """Let every head take its offsets, scale and spread from the structures that have its property.

    Args:
        model: its heads are those of the properties.
        structures: the training part.

    Raises:
        ValueError: naming a property that none of them has.
    """
    for given, (name, head) in zip(model.config.heads, model.named_heads(), strict=True):
        some = structures.select(structures.labeled[name] & (structures.n_atoms > 0))
        if not len(some):
            raise ValueError(f"no structure of the training part has {name}")
        arrays = (some.properties[given], some.positions, some.atomic_numbers, some.idx_m)
        head.fit(*(torch.from_numpy(array) for array in arrays))


def match_readout(model: SchNet) -> None:
    """Let a fresh model's output be as large as that of SchNet, whatever its contribution weights sum to.

    Weights that sum to one make x^out, and with it the output and all gradients, L+1 times smaller than
    SchNet's; the first layer of the readout is multiplied by (L+1) / sum_l w^(l) to make up for it.
    """
    pairs = [(model.readout, model.contribution_weights)]
    if model.config.heads:
        readouts = [head.readout for _, head in model.named_heads()]
        pairs += zip(readouts, model.head_weights, strict=True)
    with torch.no_grad():
        for readout, weights in pairs:
            readout.hidden.weight.mul_(len(weights) / weights.sum())


def lone_atoms(config: TrainConfig, structures: StructureSet) -> dict[int, float]:
    """Energies of isolated atoms: those of `atomic_energies`, else those of the data.

    In the data an isolated atom is a structure of one atom that is not periodic or is marked as one
    (`config_type=IsolatedAtom`); of several of one element the last counts.

    Args:
        config: options.
        structures: the whole set.

    Returns:
        Atomic number to energy, eV; empty where nothing is known.

    Raises:
        ValueError: if `atomic_energies` is not a list of ELEMENT=NUMBER.
    """
    if config.atomic_energies:
        return parse_atomic_energies(config.atomic_energies)
    is_lone = (structures.n_atoms == 1) & structures.labeled["energy"]
    open_or_marked = ~structures.pbc.any(axis=1)
    if structures.isolated is not None:
        open_or_marked |= structures.isolated
    found = np.flatnonzero(is_lone & open_or_marked)
    if structures.energy is None or not len(found):
        return {}
    numbers = structures.atomic_numbers[structures.atom_ptr[found]]
    return {int(z): float(structures.energy[m]) for z, m in zip(numbers, found, strict=True)}


def parse_atomic_energies(text: str) -> dict[int, float]:
    """Energies of isolated atoms from text such as 'H=-13.6 O=-2041.8'; commas may separate them, too.

    Args:
        text: the option.

    Returns:
        Atomic number to energy, eV.

    Raises:
        ValueError: naming the part that is no ELEMENT=NUMBER.
    """
    energies = {}
    for part in re.split(r"[,\s]+", text.strip()):
        element, _, value = part.partition("=")
        try:
            energy = float(value)
        except ValueError:
            energy = np.nan
        if element not in atomic_numbers or not np.isfinite(energy):
            raise ValueError(
                f"`atomic_energies` must be like 'H=-13.6 O=-2041.8', energies in eV, got {part!r}"
            )
        energies[atomic_numbers[element]] = energy
    return energies


def fit_offsets(
    structures: StructureSet, known: dict[int, float] | None = None
) -> tuple[float, float, NDArray[np.float64]]:
    """Mean and spread of the energy per atom, and a reference energy per element.

    Reference energies are the known ones, else the data's own table; elements that are not known are
    fitted to the energies by least squares where compositions differ. With no energies at all: 0, 1, 0.

    Args:
        structures: those without energy are left out.
        known: atomic number to energy of the isolated atom, eV.

    Returns:
        shift: mean of (E - sum of reference energies) / n_atoms, eV.
        spread: standard deviation of the same, eV.
        atomref: (max_z + 1,), eV.
    """
    known = known or {}
    n_elements = max([int(structures.atomic_numbers.max()), *known]) + 1
    atomref = np.zeros(n_elements)
    for z, energy in known.items():
        atomref[z] = energy
    part = structures.select(structures.labeled["energy"] & (structures.n_atoms > 0))
    if part.energy is None or not len(part):
        return 0.0, 1.0, atomref
    composition = np.zeros((len(part), n_elements))
    np.add.at(composition, (part.idx_m, part.atomic_numbers), 1.0)
    if known:
        fitted = np.setdiff1d(part.elements, list(known))
    elif structures.atomref is not None:
        size = min(n_elements, len(structures.atomref))
        atomref[:size] = structures.atomref[:size]
        fitted = np.setdiff1d(part.elements, np.flatnonzero(atomref))
    else:
        differ = not np.all(composition == composition[0])
        fitted = np.arange(n_elements) if differ else np.zeros(0, np.int64)
    if len(fitted):
        rest = part.energy - composition @ atomref
        atomref[fitted] = np.linalg.lstsq(composition[:, fitted], rest, rcond=None)[0]
    per_atom = (part.energy - composition @ atomref) / part.n_atoms
    return float(per_atom.mean()), float(per_atom.std()), atomref
