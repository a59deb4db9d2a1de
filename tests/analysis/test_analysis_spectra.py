"""Infrared intensities against differences of the dipole moment, and densities of states of known motions."""

import csv
from dataclasses import replace

import ase.io
import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from conftest import make_model
from test_analysis_modes import set_of

from scschnet.analysis.density_of_states import density_of_states, of_trajectory
from scschnet.analysis.infrared import ABSORPTION, dipole_gradients, has_dipole, intensities
from scschnet.analysis.mode_figures import plot_modes, write_states
from scschnet.analysis.modes import normal_modes, over_runs
from scschnet.data import collate

LIGHT = 2.99792458e-5  # cm/fs


def moment(model, atoms, name):
    batch = collate(set_of(atoms), [0], model.config.cutoff)
    with torch.no_grad():
        return model(**batch.inputs, forces=False)[name].numpy()[0]


@pytest.mark.parametrize("filters", ["dense", "spline"])
@pytest.mark.parametrize(
    ("given", "unit"),
    [("dipole:dipole", 1.0), ("mu", ase.units.Debye)],
)
def test_gradients_of_the_dipole_moment(filters, given, unit):
    model = make_model(heads=(given,), filters=filters).requires_grad_(False)
    atoms = molecule("CH3OH")
    gradients = dipole_gradients(model, set_of(atoms))
    assert np.abs(gradients).max() > 1e-4
    np.testing.assert_allclose(gradients.reshape(3, -1, 3).sum(axis=1), 0.0, atol=1e-12)  # neutral
    rng = np.random.default_rng(0)
    by, step = rng.normal(size=atoms.positions.shape), 1e-5
    values = []
    for sign in (1, -1):
        there = atoms.copy()
        there.positions += sign * step * by
        values.append(moment(model, there, given.split(":")[0]) * unit)
    expected = (values[0] - values[1]) / (2 * step)
    found = gradients @ by.ravel()
    if given == "mu":  # the derivative of the norm is that along the vector
        vector = turned(model, atoms)
        found = found @ vector / np.linalg.norm(vector)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


def turned(model, atoms):
    """The dipole moment, from its gradients: turning all atoms about w turns mu, sum_i dmu/dr_i (w x r_i) = w x mu."""
    gradients = dipole_gradients(model, set_of(atoms)).reshape(3, -1, 3)
    x, y, z = (
        np.einsum("aic,ic->a", gradients, np.cross(axis, atoms.positions)) for axis in np.eye(3)
    )
    return np.array([z[1], x[2], y[0]])


def test_intensities_are_those_of_a_charge_on_a_spring():
    """A charge of one e and the mass of hydrogen: N_A e^2 / (12 eps_0 c^2 m), in SI units."""
    u = ase.units
    expected = u._Nav * u._e**2 / (12 * u._eps0 * u._c**2 * 1.008 * u._amu) / 1e3
    found = intensities(np.eye(3), np.eye(3), np.array([1.008]))
    np.testing.assert_allclose(found, expected)
    assert ABSORPTION * u.Debye**2 == pytest.approx(42.2561, rel=1e-5)  # of 1 D^2/(Å^2 amu)


def test_only_models_with_a_known_dipole_moment_have_intensities(tmp_path):
    water = set_of(molecule("H2O"))
    plain = make_model().requires_grad_(False)
    assert not has_dipole(plain) and normal_modes(plain, water).infrared is None
    with pytest.raises(ValueError, match="must have a property of the kind dipole"):
        dipole_gradients(plain, water)
    assert not has_dipole(make_model(heads=("moment:dipole", "alpha")))  # a unit that nobody states
    model = make_model(heads=("mu",)).requires_grad_(False)
    found = normal_modes(model, water)
    assert found.infrared.shape == found.squares.shape and (found.infrared >= 0).all()
    assert plot_modes(over_runs([found]), tmp_path / "modes.png").is_file()
    rows = list(csv.DictReader((tmp_path / "modes.csv").read_text().splitlines()))
    written = [float(row["IR intensity, first run (km/mol)"]) for row in rows]
    np.testing.assert_allclose(written, found.infrared, rtol=1e-5)
    cell = replace(water, pbc=np.ones((1, 3), bool), cells=9.0 * np.eye(3)[None])
    with pytest.raises(ValueError, match="a periodic one has no dipole moment"):
        dipole_gradients(model, cell)
    assert normal_modes(model, cell).infrared is None


def swinging(wavenumbers, interval, n_frames, rng):
    """Atoms that each swing along x at a wavenumber of their own; positions (n_frames, n_atoms, 3)."""
    t = np.arange(n_frames)[:, None] * interval
    phases = rng.uniform(0, 2 * np.pi, len(wavenumbers))
    at = np.zeros((n_frames, len(wavenumbers), 3))
    at[:, :, 0] = 0.05 * np.cos(2 * np.pi * LIGHT * np.array(wavenumbers) * t + phases)
    return at


@pytest.mark.parametrize("velocities", [True, False])
def test_a_density_of_states_peaks_where_atoms_swing(velocities, tmp_path):
    """Equal energies give equal areas, from velocities and from positions that are wrapped into a cell."""
    rng = np.random.default_rng(0)
    expected, interval = [500.0, 1600.0, 3700.0], 1.0
    atoms = Atoms("OHC", cell=[4.0, 4.0, 4.0], pbc=True)
    at = swinging(expected, interval, 20_000, rng)
    at /= np.sqrt(atoms.get_masses())[:, None] * np.array(expected)[:, None]
    at *= 0.05 / np.abs(at).max()
    speed = np.gradient(at, interval * ase.units.fs, axis=0)
    frames = []
    for x, v in zip(at, speed, strict=True):
        frame = atoms.copy()
        frame.positions = x
        frame.wrap()
        if velocities:
            frame.set_velocities(v)
        frames.append(frame)
    ase.io.write(tmp_path / "md.extxyz", frames)
    found = of_trajectory(tmp_path / "md.extxyz", atoms, interval)
    assert found.from_positions is not velocities
    assert found.values.sum() * found.wavenumbers[1] == pytest.approx(9.0)
    areas = []
    for wavenumber in expected:
        near = np.abs(found.wavenumbers - wavenumber) < 50
        assert abs(found.wavenumbers[near][found.values[near].argmax()] - wavenumber) < 8.0
        areas.append(found.values[near].sum() * found.wavenumbers[1])
    loss = np.sinc(2 * LIGHT * np.array(expected)) ** 2 if velocities else 1.0  # of np.gradient
    np.testing.assert_allclose(areas, 9.0 * loss / np.sum(loss * np.ones(3)), rtol=0.01)
    table = write_states(tmp_path / "states.csv", found)
    assert len(table.read_text().splitlines()) == len(found.values) + 1


def test_trajectories_without_a_density_of_states(tmp_path):
    masses = np.ones(1)
    for velocities, interval, message in (
        (np.ones((15, 1, 3)), 1.0, "at least 16 frames, got 15"),
        (np.ones((20, 1, 3)), 0.0, "`interval` must be positive, got 0.0"),
        (np.zeros((20, 1, 3)), 1.0, "atoms that move"),
    ):
        with pytest.raises(ValueError, match=message):
            density_of_states(velocities, masses, interval)
    ase.io.write(tmp_path / "md.extxyz", [molecule("H2O")] * 20)
    with pytest.raises(ValueError, match="must hold the atoms of the structure, CH4O in its order"):
        of_trajectory(tmp_path / "md.extxyz", molecule("CH3OH"), 1.0)
