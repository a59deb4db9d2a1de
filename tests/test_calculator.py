"""The ASE calculator: the model's numbers in ASE's conventions, and dynamics that conserve energy."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE

from scschnet.calculator import ScSchNetCalculator
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.data import StructureSet, collate
from scschnet.export import ExportedModel
from scschnet.nn import ModelConfig, SchNet

ELEMENTS = (1, 6, 8)
STRESS_ORDER = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]  # ASE: xx yy zz yz xz xy


def make_model(dtype: torch.dtype = torch.float64, seed: int = 1, cutoff: float = 4.0) -> SchNet:
    """Random weights, scaled so that the rms force on ethanol is 1 eV/Å."""
    torch.manual_seed(seed)
    config = ModelConfig(elements=ELEMENTS, n_features=16, n_interactions=3, cutoff=cutoff)
    model = SchNet(config, w_init="random").double()
    atoms = ethanol(ScSchNetCalculator(model))
    model.offsets.scale /= float(np.sqrt(np.square(atoms.get_forces()).mean()))
    model.offsets.shift.fill_(-4.0)
    return model.to(dtype)


def ethanol(calculator: ScSchNetCalculator | None = None) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=3)
    atoms.calc = calculator
    return atoms


def skewed_crystal(calculator: ScSchNetCalculator) -> Atoms:
    """Cell thinner than twice the cutoff, skewed, with atoms outside it."""
    cell = [[3.9, 0.0, 0.0], [1.3, 4.2, 0.0], [-0.8, 0.9, 3.6]]
    scaled = [[0.1, 0.2, 0.3], [0.6, 0.5, 0.9], [1.4, -0.3, 0.55], [0.35, 0.8, 0.1]]
    atoms = Atoms("COH2", cell=cell, scaled_positions=scaled, pbc=True)
    atoms.calc = calculator
    return atoms


@pytest.fixture(scope="module")
def model() -> SchNet:
    return make_model()


@pytest.fixture
def calculator(model: SchNet) -> ScSchNetCalculator:
    return ScSchNetCalculator(model)


@pytest.mark.parametrize("make", [ethanol, skewed_crystal])
def test_results_are_those_of_the_model(model: SchNet, make: Callable[..., Atoms]) -> None:
    atoms = make(ScSchNetCalculator(model))
    structures = StructureSet(
        positions=atoms.positions,
        atomic_numbers=atoms.numbers,
        atom_ptr=np.array([0, len(atoms)]),
        cells=atoms.cell.array[None],
        pbc=atoms.pbc[None],
    )
    with torch.no_grad():
        batch = collate(structures, [0], model.config.cutoff)
        expected = model(**batch.inputs, forces=True, stress=atoms.cell.rank == 3)
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"].item(), rel=1e-14)
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(atoms.get_potential_energies(), expected["energies"], atol=1e-12)
    if atoms.cell.rank == 3:
        full = expected["stress"][0].numpy()
        voigt = [full[a, b] for a, b in STRESS_ORDER]
        np.testing.assert_allclose(atoms.get_stress(), voigt, rtol=0, atol=1e-13)


def test_results_are_float64_numpy_of_the_right_shape(calculator: ScSchNetCalculator) -> None:
    atoms = skewed_crystal(calculator)
    atoms.get_stress()
    assert set(calculator.results) == set(ScSchNetCalculator.implemented_properties)
    assert type(calculator.results["energy"]) is float
    assert calculator.results["free_energy"] == calculator.results["energy"]
    for name, shape in (("forces", (4, 3)), ("energies", (4,)), ("stress", (6,))):
        assert calculator.results[name].dtype == np.float64
        assert calculator.results[name].shape == shape
    assert calculator.results["energies"].sum() == pytest.approx(calculator.results["energy"])


@pytest.mark.parametrize("make", [ethanol, skewed_crystal])
def test_forces_are_the_derivative_of_the_energy(
    calculator: ScSchNetCalculator, make: Callable[..., Atoms]
) -> None:
    atoms = make(calculator)
    numerical = calculate_numerical_forces(atoms, eps=1e-4)
    # Central differences of a function of curvature ~10 eV/Å^2: error ~1e-8 x third derivative.
    np.testing.assert_allclose(atoms.get_forces(), numerical, rtol=0, atol=2e-6)
    assert np.abs(numerical).max() > 0.1


@pytest.mark.parametrize("mirrored", [False, True])
def test_stress_is_the_derivative_with_respect_to_strain(
    calculator: ScSchNetCalculator, mirrored: bool
) -> None:
    atoms = skewed_crystal(calculator)
    if mirrored:  # left-handed: the volume must stay positive
        atoms.set_cell(atoms.cell.array * [-1, 1, 1], scale_atoms=True)
    numerical = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), numerical, rtol=0, atol=1e-7)
    assert np.abs(numerical).min() > 1e-4  # all six, so that no two could be exchanged unnoticed
    assert np.unique(np.round(numerical, 5)).size == 6


def test_positive_stress_means_tension(calculator: ScSchNetCalculator) -> None:
    atoms = skewed_crystal(calculator)
    trace = atoms.get_stress()[:3].sum()
    energies = []
    for factor in (0.999, 1.001):
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell * factor, scale_atoms=True)
        scaled.calc = calculator
        energies.append(scaled.get_potential_energy())
    slope = (energies[1] - energies[0]) / 0.002 / atoms.get_volume()  # (1/V) dE/d(ln length)
    assert slope == pytest.approx(trace, rel=1e-3)


def test_translation_and_rotation_leave_the_energy_alone(calculator: ScSchNetCalculator) -> None:
    atoms = ethanol(calculator)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    moved = atoms.copy()
    moved.calc = calculator
    moved.positions += [11.0, -7.0, 3.0]
    assert moved.get_potential_energy() == pytest.approx(energy, rel=1e-12)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    moved.positions = moved.positions @ turn.T
    assert moved.get_potential_energy() == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(moved.get_forces(), forces @ turn.T, rtol=0, atol=1e-11)


def test_a_crystal_may_be_wrapped_repeated_and_turned(calculator: ScSchNetCalculator) -> None:
    atoms = skewed_crystal(calculator)
    energy, forces, stress = (
        atoms.get_potential_energy(),
        atoms.get_forces(),
        atoms.get_stress(voigt=False),
    )
    wrapped = atoms.copy()
    wrapped.wrap()
    wrapped.calc = calculator
    np.testing.assert_allclose(wrapped.get_forces(), forces, rtol=0, atol=1e-11)
    repeated = atoms.repeat((2, 1, 2))
    repeated.calc = calculator
    assert repeated.get_potential_energy() == pytest.approx(4 * energy, rel=1e-12)
    np.testing.assert_allclose(repeated.get_stress(voigt=False), stress, rtol=0, atol=1e-12)
    turned = atoms.copy()
    turned.rotate(40, (1, 2, -1), rotate_cell=True)
    turned.calc = calculator
    turn = np.linalg.solve(atoms.cell.array, turned.cell.array)  # rows: r' = r turn
    expected = turn.T @ stress @ turn
    np.testing.assert_allclose(turned.get_stress(voigt=False), expected, rtol=0, atol=1e-12)


def test_an_energy_alone_costs_no_derivatives_and_is_kept(
    calculator: ScSchNetCalculator, monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = ethanol(calculator)
    asked: list[str] = []
    for of, name in ((SchNet, "energy alone"), (ExportedModel, "all")):

        def counting(*args: Any, forward: Any = of.forward, name: str = name, **kwargs: Any) -> Any:
            asked.append(name)
            assert not kwargs.get("forces"), "forces come from what an exported file would hold"
            return forward(*args, **kwargs)

        monkeypatch.setattr(of, "forward", counting)
    atoms.get_potential_energy()
    atoms.get_potential_energy(force_consistent=True)
    assert asked == ["energy alone"]
    atoms.get_forces()
    atoms.get_potential_energies()
    atoms.set_initial_charges(np.ones(len(atoms)))  # not an input of the model
    atoms.get_forces()
    assert asked == ["energy alone", "all"]


@pytest.mark.parametrize("change", ["positions", "numbers", "cell", "pbc"])
def test_every_input_that_changes_is_noticed(calculator: ScSchNetCalculator, change: str) -> None:
    atoms = skewed_crystal(calculator)
    before = atoms.get_potential_energy()
    if change == "positions":
        atoms.positions[0, 0] += 1e-3
    elif change == "numbers":
        atoms.numbers[0] = 8
    elif change == "cell":
        atoms.set_cell(atoms.cell * 1.001)
    else:
        atoms.pbc = [True, False, True]
    after = atoms.get_potential_energy()
    fresh = atoms.copy()
    fresh.calc = ScSchNetCalculator(calculator.model)
    assert after != before
    assert after == fresh.get_potential_energy()


def test_free_atoms_have_an_energy_and_no_forces(calculator: ScSchNetCalculator) -> None:
    single = Atoms("O")
    single.calc = calculator
    apart = Atoms("OO", positions=[[0, 0, 0], [50, 0, 0]])
    apart.calc = ScSchNetCalculator(calculator.model)
    assert apart.get_potential_energy() == pytest.approx(2 * single.get_potential_energy())
    assert not single.get_forces().any()
    assert not apart.get_forces().any()
    boxed = Atoms("O", cell=[60, 60, 60], pbc=True)
    boxed.calc = calculator
    assert not boxed.get_stress().any()


def test_one_atom_in_a_small_cell_feels_its_images(calculator: ScSchNetCalculator) -> None:
    atoms = Atoms("C", cell=[2.05, 2.1, 2.2], pbc=True)
    atoms.calc = calculator
    np.testing.assert_allclose(
        atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), rtol=0, atol=1e-7
    )
    assert np.abs(atoms.get_forces()).max() < 1e-12


def test_no_atoms_have_no_energy(calculator: ScSchNetCalculator) -> None:
    atoms = Atoms()
    atoms.calc = calculator
    assert atoms.get_potential_energy() == 0.0
    assert atoms.get_forces().shape == (0, 3)


def test_dynamics_conserve_energy(calculator: ScSchNetCalculator) -> None:
    """500 fs of ethanol at constant energy.

    Velocity Verlet with exact forces conserves a nearby energy: what is seen of the true one fluctuates with
    the square of the time step and has no trend but that of the fluctuation. Seen here: 3.7e-5 and
    0.91e-5 eV/atom, trends 4.9e-5 and 1.2e-5 eV/atom/ps. With forces 1 % too large: 3.7e-4 whatever
    the time step.
    """
    drift, spread = nve_drift_and_spread(calculator, timestep=0.5, duration=500.0)
    assert spread < 1e-4
    assert abs(drift) < 2e-4
    finer_drift, finer_spread = nve_drift_and_spread(calculator, timestep=0.25, duration=500.0)
    assert 3.5 < spread / finer_spread < 4.5
    assert abs(finer_drift) < 5e-5


def nve_drift_and_spread(
    calculator: ScSchNetCalculator, timestep: float, duration: float
) -> tuple[float, float]:
    """Trend (eV/atom/ps) and standard deviation about it (eV/atom) of the total energy; times in fs."""
    atoms = ethanol(calculator)
    thermal = np.sqrt(300 * units.kB * atoms.get_masses())[:, None]
    atoms.set_momenta(np.random.default_rng(5).normal(size=(len(atoms), 3)) * thermal)
    dynamics = VelocityVerlet(atoms, timestep=timestep * units.fs)
    energies = []
    for _ in dynamics.irun(round(duration / timestep)):
        energies.append(atoms.get_total_energy() / len(atoms))
    times = np.arange(len(energies)) * timestep * 1e-3
    slope, start = np.polyfit(times, energies, 1)
    return float(slope), float(np.std(energies - (start + slope * times)))


def test_relaxations_run(calculator: ScSchNetCalculator) -> None:
    atoms = ethanol(calculator)
    before = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.5, steps=15)
    assert atoms.get_potential_energy() < before
    crystal = skewed_crystal(calculator)
    before = crystal.get_potential_energy()
    FIRE(FrechetCellFilter(crystal), logfile=None).run(fmax=0.1, steps=5)
    assert crystal.get_potential_energy() < before


def test_loads_a_checkpoint_and_a_run_folder(
    model: SchNet, calculator: ScSchNetCalculator, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = tmp_path_factory.mktemp("run")
    save_checkpoint(run / "best.pt", Checkpoint(model))
    expected = ethanol(calculator).get_forces()
    for path in (run, str(run / "best.pt")):
        np.testing.assert_array_equal(ethanol(ScSchNetCalculator(path)).get_forces(), expected)


def test_dtype_is_that_of_the_network_only(model: SchNet) -> None:
    single = ScSchNetCalculator(model, dtype="float32")
    double = ScSchNetCalculator(model, dtype=torch.float64)
    assert single.model.embedding.weight.dtype == torch.float32
    assert model.embedding.weight.dtype == torch.float64  # a copy was converted
    forces = ethanol(single).get_forces()
    assert forces.dtype == np.float64
    reference = ethanol(double).get_forces()
    assert 0 < np.abs(forces - reference).max() < 1e-4


def test_later_training_of_the_model_does_not_change_the_calculator() -> None:
    model = make_model()
    atoms = ethanol(ScSchNetCalculator(model))
    before = atoms.get_potential_energy()
    with torch.no_grad():
        model.contribution_weights.mul_(2.0)
    atoms.calc.reset()
    assert atoms.get_potential_energy() == before


def test_unknown_elements_are_named(calculator: ScSchNetCalculator) -> None:
    atoms = molecule("CH3Cl")
    atoms.calc = calculator
    message = "`atoms` must hold only H, C, O, the elements the model was trained on, got Cl"
    for _ in range(2):  # an error must not be remembered as a result
        with pytest.raises(ValueError, match=message):
            atoms.get_potential_energy()
    atoms.numbers[atoms.numbers == 17] = 8
    assert np.isfinite(atoms.get_potential_energy())


def test_coincident_atoms_are_an_error(calculator: ScSchNetCalculator) -> None:
    atoms = ethanol(calculator)
    atoms.positions[4] = atoms.positions[1]
    message = r"different points, got atoms 1 \(C\) and 4 \(H\) on the same one"
    with pytest.raises(ValueError, match=message):
        atoms.get_forces()
    crystal = skewed_crystal(calculator)
    crystal.set_cell(np.diag([4.0, 4.0, 4.0]))
    crystal.positions[2] = crystal.positions[0] + [0.0, 8.0, 0.0]  # on the image of another atom
    with pytest.raises(ValueError, match="different points"):
        crystal.get_potential_energy()


@pytest.mark.parametrize("cell", [None, [5.0, 5.0, 0.0]])
def test_stress_without_a_volume_is_not_implemented(
    calculator: ScSchNetCalculator, cell: list[float] | None
) -> None:
    atoms = ethanol(calculator)
    if cell is not None:
        atoms.set_cell(cell)
        atoms.pbc = [True, True, False]
    atoms.get_forces()
    with pytest.raises(PropertyNotImplementedError, match="three independent vectors"):
        atoms.get_stress()


def test_positions_and_cells_without_sense_are_errors(calculator: ScSchNetCalculator) -> None:
    atoms = ethanol(calculator)
    atoms.positions[0, 0] = np.nan
    with pytest.raises(ValueError, match="`positions`"):
        atoms.get_forces()
    atoms = ethanol(calculator)
    atoms.pbc = True
    with pytest.raises(ValueError, match="`cell`"):
        atoms.get_forces()


def test_bad_arguments_are_named(model: SchNet, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(TypeError, match=r"`path_or_model` must be .* got int"):
        ScSchNetCalculator(3)  # type: ignore[arg-type]
    for dtype in ("float16", torch.float16):
        with pytest.raises(ValueError, match="`dtype` must be one of float32, float64, got"):
            ScSchNetCalculator(model, dtype=dtype)
    with pytest.raises(ValueError, match="`atoms` must be given"):
        ScSchNetCalculator(model).calculate()
    with pytest.raises(FileNotFoundError, match="a folder that holds no run"):
        ScSchNetCalculator(tmp_path_factory.mktemp("empty"))


def test_results_are_those_of_ase_alone(tmp_path):
    """Usual idioms of ASE take `results` apart, and stop at a name that ASE does not know."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = ScSchNetCalculator(make_model())
    atoms.get_forces()
    frozen = SinglePointCalculator(atoms, **atoms.calc.results)
    assert frozen.get_potential_energy() == atoms.get_potential_energy()
    np.testing.assert_array_equal(atoms.calc.export_properties()["forces"], atoms.get_forces())
    ase.io.write(tmp_path / "atoms.extxyz", atoms)
    read = ase.io.read(tmp_path / "atoms.extxyz")
    np.testing.assert_allclose(read.get_forces(), atoms.get_forces(), atol=1e-7)


def test_a_calculator_of_inference_mode_is_like_any_other():
    atoms = molecule("CH3CH2OH")
    atoms.calc = ScSchNetCalculator(make_model())
    expected = atoms.get_forces()
    with torch.inference_mode():
        made = ScSchNetCalculator(make_model())
        np.testing.assert_array_equal(made.get_forces(atoms), expected)
    np.testing.assert_array_equal(made.get_forces(atoms), expected)


def test_a_calculator_that_was_used_can_be_copied_and_pickled(
    calculator: ScSchNetCalculator,
) -> None:
    expected = ethanol(calculator).get_forces()
    for other in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        other.reset()
        np.testing.assert_array_equal(ethanol(other).get_forces(), expected)
