"""Infrared intensities of harmonic vibrations, from a model that knows dipole moments.

A_k = N_A / (12 eps_0 c^2) |dmu/dQ_k|^2,   dmu/dQ_k = sum_i dmu/dr_i . q_ki / sqrt(m_i)

the integrated absorption coefficient in the double harmonic approximation (Wilson, Decius and Cross 1955).
"""

from dataclasses import replace

import numpy as np
import torch
from ase.units import Debye, _amu, _c, _e, _eps0, _Nav
from numpy.typing import NDArray

from scschnet.data import StructureSet, collate
from scschnet.evaluate import check_elements
from scschnet.evaluate.corrections import corrections
from scschnet.nn import SchNet
from scschnet.nn.head.dipole import DipoleHead, dipoles

ABSORPTION = float(_Nav * _e**2 / (12.0 * _eps0 * _c**2 * _amu) / 1e3)
"""km/mol of |dmu/dQ|^2 = 1 e^2/amu; 42.26 of 1 D^2/(Å^2 amu)."""


def has_dipole(model: SchNet) -> bool:
    """Whether `dipole_gradients` can be computed."""
    return _dipole(model) is not None


def dipole_gradients(model: SchNet, structure: StructureSet) -> NDArray[np.float64]:
    """Derivative of a molecule's dipole moment in its atoms, exact.

    Args:
        model: in float64, its parameters asking for no gradients, with a property of the kind `dipole` or
            `dipole_norm`; of the latter the sign of the vector is not known, which intensities do not need.
        structure: exactly one, open.

    Returns:
        dmu/dr, (3, 3 n_atoms), e.

    Raises:
        ValueError: if the model has no dipole moment whose unit is known, or does not know an element, or the
            structure is periodic.
    """
    found = _dipole(model)
    if found is None:
        raise ValueError(
            "the model must have a property of the kind dipole or dipole_norm whose unit is known (D, or e Å of "
            "ASE's `dipole`)"
        )
    if structure.pbc.any():
        raise ValueError("`structure` must be open: a periodic one has no dipole moment")
    check_elements(model, structure)
    name, head, unit = found
    batch = collate(structure, [0], model.config.cutoff)
    with torch.enable_grad():
        positions = batch.positions.requires_grad_()
        layers = corrections(model, replace(batch, positions=positions), derivatives=True).layers
        weights = model.weights_by_property()[name]
        x_out = sum(w * v for w, v in zip(weights, layers, strict=True))
        charges = head.atom_values(x_out, batch.atomic_numbers)
        mu = dipoles(charges, positions, batch.idx_m, 1)[0]
        rows = [torch.autograd.grad(one, positions, retain_graph=True)[0].flatten() for one in mu]
    return np.asarray(unit * torch.stack(rows).numpy())


def intensities(
    gradients: NDArray[np.float64], vectors: NDArray[np.float64], masses: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Integrated absorption of every mode.

    Args:
        gradients: from `dipole_gradients`, (3, 3 n_atoms), e.
        vectors: orthonormal, mass-weighted, (n_modes, 3 n_atoms).
        masses: (n_atoms,), amu.

    Returns:
        (n_modes,), km/mol.
    """
    slopes = vectors / np.sqrt(np.repeat(masses, 3)) @ gradients.T
    return np.asarray(ABSORPTION * (slopes**2).sum(axis=1))


def _dipole(model: SchNet) -> tuple[str, DipoleHead, float] | None:
    """The first dipole moment among the properties: its name, its head, and its unit in e Å."""
    heads = dict(model.named_heads()) if model.config.heads else {}
    for given in model.config.heads:
        head = heads[given.name]
        unit = {"D": Debye, "": 1.0 if given.name == "dipole" else None}.get(given.unit)
        if isinstance(head, DipoleHead) and unit is not None:
            return given.name, head, unit
    return None
