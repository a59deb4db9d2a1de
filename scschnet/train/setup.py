"""What a training starts from: data, split and a model with its offsets."""

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from scschnet import data
from scschnet.data import Split, StructureSet, load_split, random_split
from scschnet.nn import ModelConfig, SchNet
from scschnet.train.config import TrainConfig

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def read_structures(config: TrainConfig) -> StructureSet:
    """Read the data of a run and check that the labels it trains on are there.

    Raises:
        ValueError: if labels that the loss asks for are missing.
    """
    if config.data:
        structures = data.read(
            config.data, units=config.units or None, energy_key=config.energy_key or None
        )
    else:
        structures = data.embedded.load()
    wanted = {
        "energy": config.rho > 0,
        "forces": config.rho < 1,
        "stress": config.stress_weight > 0,
    }
    reason = {"energy": "`rho` > 0", "forces": "`rho` < 1", "stress": "`stress_weight` > 0"}
    for name, is_wanted in wanted.items():
        found = int(structures.labeled[name].sum()) if name in structures.labeled else 0
        if is_wanted and found < len(structures):
            hint = "; --rho 1 trains on energies alone" if name == "forces" else ""
            raise ValueError(
                f"{config.data or 'the embedded set'} has {name} for {found} of {len(structures)} "
                f"structures, but {reason[name]} asks for all of them{hint}"
            )
    return structures


def describe(config: TrainConfig, structures: StructureSet, split: Split) -> str:
    """What was found in the data, and how it is divided, in two lines."""
    sizes = structures.n_atoms
    symbols = " ".join(chemical_symbols[z] for z in structures.elements)
    labels = ", ".join(
        f"{name} {int(has.sum())}/{len(has)}" for name, has in structures.labeled.items()
    )
    units = structures.info.get("units as read", "eV, Å")
    return (
        f"{config.data or 'embedded MD17 ethanol'}: {len(structures)} structures of {sizes.min()} to "
        f"{sizes.max()} atoms ({symbols}), {labels}, read as {units}\n"
        f"{len(split.train)} to train on, {len(split.val)} for validation, {len(split.test)} to test"
    )


def choose_split(config: TrainConfig, structures: StructureSet) -> Split:
    """The split of `split_file`, or a random one by seed."""
    if config.split_file:
        return load_split(config.split_file, len(structures))
    if config.n_train + config.n_val > len(structures):
        raise ValueError(
            f"`n_train` + `n_val` must be at most {len(structures)}, the structures in "
            f"{config.data or 'the embedded set'}, got {config.n_train} + {config.n_val}"
        )
    return random_split(len(structures), config.n_train, config.n_val, config.seed)


def build_model(config: TrainConfig, structures: StructureSet, train: NDArray[np.int64]) -> SchNet:
    """A model with fresh weights, and offsets taken from the training structures.

    Args:
        config: options; `seed` sets torch's global generator.
        structures: the whole set: its elements are the model's.
        train: indices of the training structures.
    """
    torch.manual_seed(config.seed)
    model = SchNet(
        ModelConfig(
            elements=tuple(int(z) for z in structures.elements),
            n_features=config.n_features,
            n_interactions=config.n_interactions,
            n_rbf=config.n_rbf,
            cutoff=config.cutoff,
            rbf_range=config.rbf_range or None,
            cutoff_function=config.cutoff_function,
            skip=config.skip,
        ),
        w_init=config.w_init,
        filters=config.filters,
    )
    if config.readout_start == "matched":
        match_readout(model)
    part = structures.select(train)
    shift, spread, atomref = fit_offsets(part)
    scale = spread
    if config.output_scale == "forces" and part.forces is not None:
        scale = float(np.sqrt(np.square(part.forces).mean()))
    model.offsets.shift.fill_(shift)
    model.offsets.scale.fill_(scale if scale > 0 else 1.0)
    model.offsets.atomref[: len(atomref)] = torch.from_numpy(atomref)
    return model.to(DTYPES[config.dtype])


def match_readout(model: SchNet) -> None:
    """Let a fresh model's output be as large as that of SchNet, whatever its contribution weights sum to.

    Weights that sum to one make x^out, and with it the output and all gradients, L+1 times smaller than
    SchNet's; the first layer of the readout is multiplied by (L+1) / sum_l w^(l) to make up for it.
    """
    weights = model.contribution_weights
    with torch.no_grad():
        model.readout.hidden.weight.mul_(len(weights) / weights.sum())


def fit_offsets(structures: StructureSet) -> tuple[float, float, NDArray[np.float64]]:
    """Mean and spread of the energy per atom, and a reference energy per element.

    Reference energies are the data's own if it has them; otherwise, if compositions differ, the least
    squares fit of the energies to the compositions; otherwise zero.

    Args:
        structures: with energies, eV.

    Returns:
        shift: mean of (E - sum of reference energies) / n_atoms, eV.
        spread: standard deviation of the same, eV.
        atomref: (max_z + 1,), eV.
    """
    n_elements = int(structures.atomic_numbers.max()) + 1
    if structures.energy is None:
        return 0.0, 1.0, np.zeros(n_elements)
    composition = np.zeros((len(structures), n_elements))
    np.add.at(composition, (structures.idx_m, structures.atomic_numbers), 1.0)
    atomref = np.zeros(n_elements)
    if structures.atomref is not None:
        known = min(n_elements, len(structures.atomref))
        atomref[:known] = structures.atomref[:known]
    elif not np.all(composition == composition[0]):
        atomref[:] = np.linalg.lstsq(composition, structures.energy, rcond=None)[0]
    residual = structures.energy - composition @ atomref
    per_atom = residual / structures.n_atoms
    return float(per_atom.mean()), float(per_atom.std()), atomref
