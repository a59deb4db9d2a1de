"""Extended XYZ, ASE databases and trajectories: labels found wherever ASE puts them."""

from pathlib import Path

import ase
import ase.db
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from scschnet.data import read
from scschnet.units import energy_factor

DATA = Path(__file__).parents[1] / "files"
HARTREE = energy_factor("Ha")
EV = "eV, Angstrom"


def frames(n: int = 3, seed: int = 0) -> list[ase.Atoms]:
    """Periodic and open structures with energy, forces and stress from a calculator."""
    rng = np.random.default_rng(seed)
    made = []
    for m in range(n):
        if m % 2:
            atoms = ase.Atoms("CO", rng.normal(size=(2, 3)))
        else:
            atoms = ase.Atoms("OH2", rng.normal(size=(3, 3)), cell=rng.normal(size=(3, 3)))
            atoms.pbc = (True, False, True)
        results = {"energy": rng.normal(), "forces": rng.normal(size=(len(atoms), 3))}
        if m % 2 == 0:
            results["stress"] = rng.normal(size=6)
        atoms.calc = SinglePointCalculator(atoms, **results)
        made.append(atoms)
    return made


def assert_equals(structures, made, atol=0.0, scale=1.0):
    assert len(structures) == len(made)
    for m, atoms in enumerate(made):
        rows = slice(structures.atom_ptr[m], structures.atom_ptr[m + 1])
        np.testing.assert_array_equal(structures.atomic_numbers[rows], atoms.numbers)
        np.testing.assert_allclose(structures.positions[rows], atoms.positions, atol=atol)
        np.testing.assert_allclose(structures.cells[m], atoms.cell.array, atol=atol)
        np.testing.assert_array_equal(structures.pbc[m], atoms.pbc)
        results = atoms.calc.results
        assert structures.energy[m] == pytest.approx(results["energy"] * scale, abs=atol)
        np.testing.assert_allclose(
            structures.forces[rows], results["forces"] * scale, rtol=1e-14, atol=atol
        )
        if "stress" in results:
            xx, yy, zz, yz, xz, xy = results["stress"] * scale
            full = [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]
            np.testing.assert_allclose(structures.stress[m], full, rtol=1e-14, atol=atol)
        else:
            assert np.isnan(structures.stress[m]).all()


@pytest.mark.parametrize("name", ["set.xyz", "set.extxyz", "set.xyz.gz"])
def test_extended_xyz(tmp_path, name):
    made = frames()
    ase.io.write(tmp_path / name, made, format="extxyz")
    structures = read(tmp_path / name, units=EV)
    assert_equals(structures, made, atol=1e-8)  # written with 8 digits
    assert structures.labeled["stress"].tolist() == [True, False, True]
    assert structures.info["format"] == "extxyz"


@pytest.mark.parametrize("name", ["set.db", "set.json", "set.traj"])
def test_files_of_ase_have_its_units(tmp_path, name):
    made = frames()
    if name == "set.traj":
        ase.io.write(tmp_path / name, made)
    else:
        with ase.db.connect(tmp_path / name) as database:
            for atoms in made:
                database.write(atoms)
    assert_equals(read(tmp_path / name), made)
    assert_equals(read(tmp_path / name, units=EV), made)
    with pytest.raises(ValueError, match="declares energy in eV, got Ha"):
        read(tmp_path / name, units="Ha")


def test_extended_xyz_is_in_units_of_ase_unless_told(tmp_path):
    ase.io.write(tmp_path / "set.xyz", frames(), format="extxyz")
    structures = read(tmp_path / "set.xyz")
    assert_equals(structures, frames(), atol=1e-8)
    assert "ASE" in structures.info["units from"]
    with pytest.raises(ValueError, match=r"set\.xyz does not declare those of length, forces"):
        read(tmp_path / "set.xyz", units="Ha")
    structures = read(tmp_path / "set.xyz", units="Ha, Angstrom, Ha/Angstrom")
    assert_equals(structures, frames(), atol=1e-6, scale=HARTREE)


EXTXYZ = """2
Properties=species:S:1:pos:R:3:{forces}:R:3 {energy}=-1.5 pbc="F F F"
O 0.0 0.0 0.0 0.1 0.2 0.3
H 0.0 0.0 1.0 -0.1 -0.2 -0.3
"""


def extxyz(path: Path, energy: str = "energy", forces: str = "forces", **more: str) -> Path:
    text = EXTXYZ.format(energy=energy, forces=forces)
    for old, new in more.items():
        text = text.replace(old, new)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("energy", "forces"),
    [
        ("energy", "forces"),
        ("REF_energy", "REF_forces"),
        ("dft_energy", "dft_forces"),
        ("free_energy", "force"),
    ],
)
def test_keys_named_by_the_user(tmp_path, energy, forces):
    path = extxyz(tmp_path / "set.xyz", energy, forces)
    structures = read(path, units=EV, energy_key=energy, forces_key=forces)
    assert structures.energy.tolist() == [-1.5]
    assert structures.forces[1].tolist() == [-0.1, -0.2, -0.3]
    assert "not read" not in structures.info


def test_labels_under_other_names_are_said_not_lost(tmp_path):
    path = extxyz(tmp_path / "set.xyz", "REF_energy", "REF_forces")
    structures = read(path, units=EV)
    assert structures.energy is None and structures.forces is None
    assert structures.info["not read"] == "REF_energy, REF_forces"
    with pytest.raises(ValueError, match="must have energy, found 0/1; it has REF_energy, REF_f"):
        read(path, units=EV, require=("energy", "forces"))
    with pytest.raises(ValueError, match="got 'DFT_energy', which is in none of its 1 frames"):
        read(path, units=EV, energy_key="DFT_energy")


@pytest.mark.parametrize("stress", ["1 2 3 2 5 6 3 6 9", "1 5 9 6 3 2"])
def test_stress_as_matrix_or_voigt(tmp_path, stress):
    path = extxyz(tmp_path / "set.xyz", pbc=f'REF_stress="{stress}" pbc')
    structures = read(path, units=EV, stress_key="REF_stress")
    assert structures.stress[0].tolist() == [[1, 2, 3], [2, 5, 6], [3, 6, 9]]


def test_labels_of_other_names_in_files_of_ase_need_units(tmp_path):
    with ase.db.connect(tmp_path / "set.db") as database:
        database.write(ase.Atoms("H"), REF_energy=-0.5)
    with pytest.raises(ValueError, match="does not declare those of energy"):
        read(tmp_path / "set.db", energy_key="REF_energy")
    structures = read(tmp_path / "set.db", energy_key="REF_energy", units="Ha")
    assert structures.energy[0] == pytest.approx(-0.5 * HARTREE)


def test_forces_of_fixed_atoms_are_read_as_stored(tmp_path):
    made = frames(1)
    made[0].set_constraint(FixAtoms([0, 1]))
    ase.io.write(tmp_path / "set.traj", made)
    with ase.db.connect(tmp_path / "set.db") as database:
        database.write(made[0])
    for name in ("set.traj", "set.db"):
        forces = read(tmp_path / name).forces
        np.testing.assert_array_equal(forces, made[0].calc.results["forces"])


def test_database_of_schnetpack_declares_units_and_atomrefs(tmp_path):
    atomrefs = [0.0] * 9
    atomrefs[1], atomrefs[8] = -0.5, -75.0
    with ase.db.connect(tmp_path / "set.db") as database:
        database.metadata = {
            "_distance_unit": "Bohr",
            "_property_unit_dict": {"energy_U0": "Ha", "forces": "Ha/Bohr", "mu": "Debye"},
            "atomrefs": {"energy_U0": atomrefs},
        }
        atoms = ase.Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])
        forces = np.arange(6.0).reshape(2, 3)
        database.write(atoms, data={"energy_U0": np.array([-75.6]), "forces": forces})
    structures = read(tmp_path / "set.db", energy_key="energy_U0")
    assert structures.positions[1, 2] == pytest.approx(0.529177, abs=1e-6)
    assert structures.energy[0] == pytest.approx(-75.6 * HARTREE)
    assert structures.forces[1, 2] == pytest.approx(5 * HARTREE / 0.5291772, rel=1e-6)
    assert structures.atomref[8] == pytest.approx(-75.0 * HARTREE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"-1.5": "nan"}, "`energy` in structure 0 of set.xyz must be finite, got nan"),
        ({"0.2 0.3\n": "inf 0.3\n"}, "`forces` in structure 0 of set.xyz must be finite, got inf"),
        (
            {"forces:R:3": "forces:R:2:x:R:1"},
            "`forces` in structure 0 of set.xyz must have shape (2, 3)",
        ),
        ({"0.0 0.0 1.0": "0.0 0.0 nan"}, "`positions` must be finite, got nan in structure 0"),
        ({"-1.5": "low"}, "`energy` in structure 0 of set.xyz must hold numbers, got 'low'"),
        ({"O 0.0": "Qq 0.0"}, "frame 0 of `set.xyz` must be readable as extxyz by ase"),
        ({"2\nProp": "3\nProp"}, "frame 0 of `set.xyz` must be readable as extxyz by ase"),
        ({"-0.3\n": "\n"}, "frame 0 of `set.xyz` must be readable as extxyz by ase"),
    ],
)
def test_malformed_extended_xyz(tmp_path, change, message):
    path = extxyz(tmp_path / "set.xyz", **change)
    with pytest.raises(ValueError) as caught:
        read(path, units=EV)
    assert message in str(caught.value)


def test_frames_after_a_blank_line_are_not_lost(tmp_path):
    """ase.io.read stops at the blank line without a word; that must not pass."""
    text = extxyz(tmp_path / "set.xyz").read_text()
    (tmp_path / "set.xyz").write_text(text + text)
    assert len(read(tmp_path / "set.xyz", units=EV)) == 2
    (tmp_path / "set.xyz").write_text(text + "\n" + text)
    assert len(ase.io.read(tmp_path / "set.xyz", index=":")) == 1
    with pytest.raises(
        ValueError, match="must not have a blank line between frames, got one at line 5"
    ):
        read(tmp_path / "set.xyz", units=EV)
    (tmp_path / "set.xyz").write_text(text + "\n\n")
    assert len(read(tmp_path / "set.xyz", units=EV)) == 1


@pytest.mark.parametrize("name", ["set.db", "set.json", "set.traj", "set.xyz", "set.strange"])
def test_files_of_something_else(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00\x01 nothing ASE knows\n" * 20)
    with pytest.raises(ValueError, match=rf"`{name}` must be"):
        read(tmp_path / name, units=EV)


def test_real_water_round_trip(tmp_path):
    """Two frames of liquid water through extended XYZ, which has 8 digits."""
    water = read(DATA / "water64_2frames.npz")
    made = []
    for m in range(2):
        rows = slice(water.atom_ptr[m], water.atom_ptr[m + 1])
        atoms = ase.Atoms(water.atomic_numbers[rows], water.positions[rows], cell=water.cells[m])
        atoms.pbc = water.pbc[m]
        results = {"energy": water.energy[m], "forces": water.forces[rows]}
        atoms.calc = SinglePointCalculator(atoms, **results)
        made.append(atoms)
    ase.io.write(tmp_path / "set.xyz", made, format="extxyz")
    structures = read(tmp_path / "set.xyz", units=EV)
    np.testing.assert_allclose(structures.positions, water.positions, atol=1e-8)
    np.testing.assert_allclose(structures.forces, water.forces, atol=1e-8)
    np.testing.assert_array_equal(structures.energy, water.energy)
    np.testing.assert_array_equal(structures.cells, water.cells)
