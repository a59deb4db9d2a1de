"""Labels as other programs name them, and frames that cannot be used."""

from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from scschnet.data import read

# program, name, option, label: names that are not read unasked, and what reads them
HABITS = [
    ("MACE", "REF_energy", "energy"),
    ("MACE", "REF_forces", "forces"),
    ("MACE", "REF_stress", "stress"),
    ("MACE", "REF_virials", "stress"),
    ("GAP", "dft_energy", "energy"),
    ("GAP", "dft_force", "forces"),
    ("GAP", "dft_forces", "forces"),
    ("GAP, quippy", "virial", "stress"),
    ("GAP", "dft_virial", "stress"),
    ("NEP, dpdata", "force", "forces"),
    ("NequIP", "total_energy", "energy"),
    ("SchNetPack", "energy_U0", "energy"),
]


def copper(n: int = 1, **other: object) -> list[ase.Atoms]:
    """Distorted and strained copper with EMT's energy, forces and stress."""
    frames = []
    for k in range(n):
        atoms = ase.build.bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell @ (np.eye(3) * 1.03 + 0.01 * np.eye(3, k=1)), scale_atoms=True)
        atoms.rattle(0.1, seed=k)
        atoms.calc = EMT()
        results = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **(results | other))
        frames.append(atoms)
    return frames


def renamed(path: Path, name: str, label: str) -> ase.Atoms:
    """Write one frame with one label only, under another name; returns the frame."""
    atoms = copper()[0]
    bare = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    if label == "forces":
        bare.arrays[name] = atoms.get_forces()
    elif label == "energy":
        bare.info[name] = atoms.get_potential_energy()
    else:
        stress = atoms.get_stress(voigt=False)
        bare.info[name] = -stress * atoms.get_volume() if "virial" in name else stress
    ase.io.write(path, bare, format="extxyz")
    return atoms


@pytest.mark.parametrize(("name", "label"), [row[1:] for row in HABITS])
def test_habits_of_other_programs(tmp_path, name, label):
    """The message names the option; the option reads the right value; it needs units."""
    path = tmp_path / "set.extxyz"
    atoms = renamed(path, name, label)
    with pytest.raises(ValueError, match=f"--{label}-key {name}$"):
        read(path, require=(label,))
    with pytest.raises(ValueError, match="command line: --units ase"):
        read(path, **{f"{label}_key": name})
    structures = read(path, units="ase", **{f"{label}_key": name})
    expected = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(voigt=False)[None],
    }[label]
    np.testing.assert_allclose(getattr(structures, label), expected, atol=1e-7)
    assert structures.info[f"{label} key"].startswith(f"{name} (info, arrays or data)")
    assert ("virial: stress = -virial/volume" in structures.info[f"{label} key"]) == (
        "virial" in name
    )


def test_a_virial_of_an_archive_is_converted(tmp_path):
    virial = np.array([[[1.0, 2, 3], [2, 5, 6], [3, 6, 9]]])
    arrays = {"R": np.zeros((1, 1, 3)), "z": [29], "cell": 2 * np.eye(3), "pbc": [True] * 3}
    np.savez(tmp_path / "set.npz", **arrays, virials=virial)
    got = read(tmp_path / "set.npz", units="Ha, bohr", stress_key="virials")
    pressure = read(tmp_path / "set.npz", units="Ha, bohr, GPa", stress_key="virials")
    np.testing.assert_array_equal(got.stress, pressure.stress)  # a virial is an energy
    np.testing.assert_allclose(got.stress, -virial / 8 * 27.211386 / 0.5291772**3, rtol=1e-6)
    np.savez(tmp_path / "open.npz", R=np.zeros((1, 1, 3)), z=[29], virials=virial)
    with pytest.raises(ValueError, match="must have a cell of a volume, got none in structure 0"):
        read(tmp_path / "open.npz", units="ase", stress_key="virials")


@pytest.mark.parametrize("name", ["metal.traj", "metal.extxyz", "metal.db"])
def test_the_energy_of_smeared_metals_is_that_of_the_forces(tmp_path, name):
    frames = copper(3)
    for atoms in frames:
        atoms.calc.results["free_energy"] = atoms.calc.results["energy"] - 0.25
    ase.io.write(tmp_path / name, frames)
    structures = read(tmp_path / name)
    free = [atoms.calc.results["free_energy"] for atoms in frames]
    np.testing.assert_allclose(structures.energy, free)
    assert structures.info["energy key"] == "free_energy (calculator)"
    assert "up to 0.25 eV" in structures.info["free energy"]
    asked = read(tmp_path / name, energy_key="energy")
    np.testing.assert_allclose(asked.energy, np.add(free, 0.25))


@pytest.mark.parametrize("order", [(0, 4, 8, 5, 2, 1), tuple(range(9))])
@pytest.mark.parametrize("name", ["stress", "REF_stress"])
def test_stress_of_six_or_nine_numbers(tmp_path, order, name):
    ase.io.write(tmp_path / "set.extxyz", copper())
    text = (tmp_path / "set.extxyz").read_text()
    head, _, rest = text.partition('stress="')
    values, _, tail = rest.partition('"')
    numbers = " ".join(values.split()[k] for k in order)
    (tmp_path / "set.extxyz").write_text(f'{head}{name}="{numbers}"{tail}')
    structures = read(tmp_path / "set.extxyz", units="ase", stress_key=name)
    np.testing.assert_allclose(structures.stress[0], copper()[0].get_stress(voigt=False), atol=1e-8)


DUMP = (
    "ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n3\nITEM: BOX BOUNDS pp pp pp\n0 20\n0 20\n0 20\n"
    "ITEM: ATOMS id type {column}x y z fx fy fz\n"
    "1 1 {0}0 0 0 0.1 0 0\n2 2 {1}1 0 0 -0.1 0 0\n3 2 {1}0 1.1 0 0 0 0\n"
)


def dump(path: Path, *symbols: str) -> Path:
    column, cells = ("element ", [f"{s} " for s in symbols]) if symbols else ("", ["", ""])
    path.write_text("".join(DUMP.format(*cells, column=column, step=k) for k in range(2)))
    return path


def test_types_of_lammps_are_no_elements(tmp_path):
    with pytest.raises(ValueError, match="must have a column `element`"):
        read(dump(tmp_path / "md.dump"))
    with pytest.raises(ValueError, match="C for several types"):
        read(dump(tmp_path / "md.dump", "C", "C"), units="eV, Angstrom")


def test_a_dump_with_elements_has_forces_and_no_energy(tmp_path):
    path = dump(tmp_path / "md.dump", "O", "H")
    with pytest.raises(ValueError, match="--units 'eV, Angstrom'"):
        read(path)
    structures = read(path, units="eV, Angstrom")
    assert structures.atomic_numbers.tolist() == [8, 1, 1] * 2
    assert structures.energy is None and structures.labeled["forces"].all()


def test_weights_and_isolated_atoms_are_read(tmp_path):
    frames = [*copper(2), ase.Atoms("Cu", info={"config_type": "IsolatedAtom", "energy": 0.1})]
    frames[0].info["weight"] = 2.5
    frames[1].info["config_weight"] = 0.0
    ase.io.write(tmp_path / "set.extxyz", frames)
    structures = read(tmp_path / "set.extxyz")
    assert structures.weights.tolist() == [2.5, 0.0, 1.0]
    assert structures.isolated.tolist() == [False, False, True]
    frames[1].info["config_weight"] = -1.0
    ase.io.write(tmp_path / "set.extxyz", frames)
    with pytest.raises(ValueError, match=r"not negative, got -1\.0 in structure 1"):
        read(tmp_path / "set.extxyz")
    frames[1].info = {"config_type": "IsolatedAtom"}
    ase.io.write(tmp_path / "set.extxyz", frames)
    with pytest.raises(ValueError, match="one atom, got 4 atoms in structure 1"):
        read(tmp_path / "set.extxyz")


def spoil(atoms: ase.Atoms, how: str) -> ase.Atoms:
    if how == "same place":
        atoms.positions[1] = atoms.positions[0]
    elif how == "image":
        atoms.positions[1] = atoms.positions[0] + atoms.cell[1]
    elif how == "flat":
        atoms.cell[2] = atoms.cell[1]
    elif how == "nan":
        atoms.positions[1, 1] = np.nan
    elif how == "label":
        atoms.calc.results["forces"][0, 0] = np.inf
    elif how == "empty":
        return ase.Atoms(cell=atoms.cell, pbc=True)
    return atoms


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("same place", "structure 2 must have its atoms apart, got atoms 0 and 1"),
        ("image", "structure 2 must have its atoms apart, got atoms 0 and 1"),
        ("flat", "structure 2 must have a cell that spans its periodic axes"),
        ("nan", "`positions` must be finite, got nan in structure 2, atom 1"),
        ("label", "`forces` in structure 2 of set.traj must be finite, got inf"),
        ("empty", "structure 2 must have atoms, got none"),
    ],
)
def test_unusable_frames_are_named(tmp_path, how, reason):
    frames = copper(4)
    frames[2] = spoil(frames[2], how)
    if how in ("same place", "image", "flat", "nan"):
        frames[2].calc.atoms = frames[2].copy()
    ase.io.write(tmp_path / "set.traj", frames)
    with pytest.raises(ValueError) as caught:
        read(tmp_path / "set.traj")
    assert reason in str(caught.value)


def test_weights_of_an_archive(tmp_path):
    arrays = {"R": np.zeros((2, 1, 3)), "z": [29], "E": np.zeros(2)}
    np.savez(tmp_path / "set.npz", **arrays, weights=[0.5, 2.0], isolated=[True, False])
    structures = read(tmp_path / "set.npz", units="ase")
    assert structures.weights.tolist() == [0.5, 2.0]
    assert structures.isolated.tolist() == [True, False]
