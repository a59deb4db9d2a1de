"""Other programs for molecular dynamics: the same energies and forces as in ASE. Skipped where a program is absent."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import ase.units
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from conftest import make_model

from scschnet import ScSchNetCalculator
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.commands.export import main as export_command
from scschnet.export import export, load_exported
from scschnet.export.torchscript import torchscript_deprecation_ignored

EV = ase.units.mol / ase.units.kJ  # kJ/mol


def molecules_model(**config):
    return make_model(elements=(1, 6, 8), filters="spline", n_features=16, **config).eval()


def crystal() -> Atoms:
    positions = np.random.default_rng(1).random((8, 3)) * 5.0
    return Atoms(
        "OHHCOHHC", positions, cell=[[5.5, 0, 0], [0.6, 6.0, 0], [0.2, -0.3, 5.8]], pbc=True
    )


def expected(model, atoms: Atoms) -> tuple[float, np.ndarray]:
    atoms = atoms.copy()
    atoms.calc = ScSchNetCalculator(model)
    return atoms.get_potential_energy(), atoms.get_forces()


# ---- OpenMM


@pytest.fixture(scope="module")
def openmm():
    return pytest.importorskip("openmm", reason="OpenMM is not installed")


def openmm_context(openmm, force, atoms: Atoms, platform: str):
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    if atoms.pbc.any():
        system.setDefaultPeriodicBoxVectors(*(atoms.cell.array * 0.1))
    system.addForce(force)
    integrator = openmm.VerletIntegrator(0.0002)  # ps
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(atoms.positions * 0.1)
    return context, integrator


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("periodic", [False, True])
def test_openmm_has_the_numbers_of_ase(openmm, tmp_path, platform, periodic):
    from scschnet.hosts.openmm import create_force

    model = molecules_model()
    atoms = crystal() if periodic else molecule("CH3CH2OH")
    export(model, tmp_path / "model.pt")
    force = create_force(tmp_path / "model.pt", atoms.numbers, periodic)
    context, integrator = openmm_context(openmm, force, atoms, platform)
    state = context.getState(energy=True, forces=True)
    energy, forces = expected(model, atoms)
    single = 3e-5 if platform == "CPU" else 1e-9  # forces of that platform are float32
    kj = openmm.unit.kilojoule_per_mole
    found = state.getPotentialEnergy().value_in_unit(kj)
    np.testing.assert_allclose(found, energy * EV, rtol=1e-9)
    found = state.getForces(asNumpy=True).value_in_unit(kj / openmm.unit.nanometer)
    np.testing.assert_allclose(found, forces * EV * 10, rtol=0, atol=single * np.abs(found).max())

    def total() -> float:
        state = context.getState(energy=True)
        return (state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(kj)

    before = total()
    integrator.step(20)
    assert abs(total() - before) < 1e-2 * max(1.0, abs(before - energy * EV))


def test_openmm_force_on_some_particles(openmm, tmp_path):
    from scschnet.hosts.openmm import create_force

    model, atoms = molecules_model(), molecule("CH3CH2OH")
    export(model, tmp_path / "model.pt")
    force = create_force(tmp_path / "model.pt", atoms.numbers[2:6], particles=range(2, 6))
    context, _ = openmm_context(openmm, force, atoms, "Reference")
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    np.testing.assert_allclose(forces[2:6], expected(model, atoms[2:6])[1] * EV * 10, atol=1e-6)
    assert not forces[:2].any() and not forces[6:].any()


def test_openmm_force_survives_serialization(openmm, tmp_path):
    from scschnet.hosts.openmm import create_force

    model, atoms = molecules_model(), molecule("H2O")
    export(model, tmp_path / "model.pt")
    force = create_force(tmp_path / "model.pt", atoms.numbers)
    copy = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(force))
    context, _ = openmm_context(openmm, copy, atoms, "Reference")
    found = context.getState(energy=True).getPotentialEnergy()._value
    assert found == pytest.approx(expected(model, atoms)[0] * EV, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"atomic_numbers": [8, 1, 17]},
            r"`atomic_numbers` must hold only H, C, O, .* got Cl",
        ),
        ({"atomic_numbers": [8, 1, 1], "particles": [0]}, "`particles` must have 3 entries"),
    ],
)
def test_openmm_arguments_are_checked(openmm, tmp_path, options, message):
    from scschnet.hosts.openmm import create_force

    export(molecules_model(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        create_force(tmp_path / "model.pt", **options)


# ---- openmm-torch: the calls that TorchForce makes; its wheels want another torch than ours


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("periodic", [False, True])
def test_torch_force_file_has_the_numbers_of_ase(tmp_path, portable, periodic):
    """float64 positions that ask for gradients on the Reference platform, float32 on the others."""
    model = molecules_model()
    atoms = crystal() if periodic else molecule("CH3CH2OH")
    path, numbers = tmp_path / "model.pt", atoms.numbers.tolist()
    export(model, path, portable=portable, host="openmm-torch", atomic_numbers=numbers)
    with torchscript_deprecation_ignored():
        module = torch.jit.load(str(path))
    energy, forces = expected(model, atoms)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 3e-5)):
        positions = torch.tensor(atoms.positions * 0.1, dtype=dtype, requires_grad=True)
        box = [torch.tensor(atoms.cell.array * 0.1, dtype=dtype)] if periodic else []
        found, found_forces = module(positions, *box)
        assert found.shape == () and not found.requires_grad
        assert found.item() == pytest.approx(energy * EV, rel=tolerance)
        expected_forces, largest = forces * EV * 10, np.abs(forces).max() * EV * 10
        np.testing.assert_allclose(found_forces, expected_forces, rtol=0, atol=tolerance * largest)


def test_torch_force_file_is_not_for_others(tmp_path):
    path = tmp_path / "model.pt"
    command = ["--host", "openmm-torch", "--atomic-numbers", "8", "1", "1", "--portable"]
    save_checkpoint(tmp_path / "best.pt", Checkpoint(molecules_model()))
    assert export_command([str(tmp_path / "best.pt"), "-o", str(path), *command]) == 0
    with pytest.raises(
        ValueError, match="exported for openmm-torch, which calls it in its own way"
    ):
        load_exported(path)


# ---- torch-sim


@pytest.fixture(scope="module")
def torch_sim():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script is deprecated
        return pytest.importorskip("torch_sim", reason="torch-sim is not installed")


def test_torch_sim_has_the_numbers_of_ase(torch_sim):
    from scschnet.hosts.torch_sim import ScSchNetModel

    model = molecules_model()
    systems = [crystal(), crystal().repeat((2, 1, 1))]
    state = torch_sim.io.atoms_to_state(systems, torch.device("cpu"), torch.float64)
    found = ScSchNetModel(model)(state)
    first = 0
    for k, atoms in enumerate(systems):
        energy, forces = expected(model, atoms)
        atoms.calc = ScSchNetCalculator(model)
        assert float(found["energy"][k]) == pytest.approx(energy, rel=1e-12)
        np.testing.assert_allclose(found["forces"][first : first + len(atoms)], forces, atol=1e-10)
        stress = atoms.get_stress(voigt=False)
        np.testing.assert_allclose(found["stress"][k], stress, atol=1e-10)
        first += len(atoms)


def test_torch_sim_accepts_the_model(torch_sim):
    from torch_sim.models.interface import validate_model_outputs

    from scschnet.hosts.torch_sim import ScSchNetModel

    model = make_model(elements=(14, 26), filters="spline", n_features=16).eval()
    validate_model_outputs(ScSchNetModel(model), torch.device("cpu"), torch.float64)


def test_torch_sim_unknown_elements_are_named(torch_sim):
    from scschnet.hosts.torch_sim import ScSchNetModel

    state = torch_sim.io.atoms_to_state([crystal()], torch.device("cpu"), torch.float64)
    model = make_model(elements=(1, 8), filters="spline", n_features=16)
    with pytest.raises(ValueError, match=r"must hold only H, O, .* got C"):
        ScSchNetModel(model)(state)


# ---- i-PI

IPI_INPUT = """<simulation verbosity='low'>
  <output prefix='out'>
    <properties stride='1' filename='thermo'>[ step, conserved{electronvolt}, potential{electronvolt} ]</properties>
  </output>
  <total_steps>20</total_steps>
  <prng><seed>7</seed></prng>
  <ffsocket name='scschnet' mode='unix' pbc='false'><address>%s</address></ffsocket>
  <system>
    <initialize nbeads='1'>
      <file mode='ase'>start.xyz</file>
      <velocities mode='thermal' units='kelvin'>300</velocities>
    </initialize>
    <forces><force forcefield='scschnet'/></forces>
    <motion mode='dynamics'>
      <dynamics mode='nve'><timestep units='femtosecond'>0.2</timestep></dynamics>
    </motion>
    <ensemble><temperature units='kelvin'>300</temperature></ensemble>
  </system>
</simulation>
"""


def test_ipi_drives_the_calculator(tmp_path):
    pytest.importorskip("ipi", reason="i-PI is not installed")
    from ase.calculators.socketio import SocketClient

    model = molecules_model()
    atoms = molecule("CH3CH2OH", cell=[20.0, 20.0, 20.0])
    atoms.center()
    atoms.write(tmp_path / "start.xyz")
    address = f"scschnet-{os.getpid()}"
    (tmp_path / "input.xml").write_text(IPI_INPUT % address)
    program = shutil.which("i-pi", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    server = subprocess.Popen(
        [sys.executable, program, "input.xml"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    socket = Path(f"/tmp/ipi_{address}")
    try:
        deadline = time.monotonic() + 60
        while not socket.exists() and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert socket.exists(), server.communicate()[0]
        atoms.calc = ScSchNetCalculator(model)
        SocketClient(unixsocket=address).run(atoms)
        output = server.communicate(timeout=60)[0]
    finally:
        server.kill()
    thermo = np.loadtxt(tmp_path / "out.thermo")
    assert len(thermo) == 21, output
    _, conserved, potential = thermo.T
    start = expected(model, molecule("CH3CH2OH"))[0]
    assert potential[0] == pytest.approx(start, rel=1e-7)
    assert np.ptp(potential) > 1e-3
    assert np.ptp(conserved) < 0.1 * np.ptp(potential)
