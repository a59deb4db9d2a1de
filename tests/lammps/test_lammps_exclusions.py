"""LAMMPS' `neigh_modify exclude` with the pair style: atoms left out of everything are not there, whoever asks for it."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import make_model
from lammps_host import Structure, outputs, potential, read, report, run
from test_lammps import EXACT, N_LAYERS, STYLES, folder, model_file, reference, thermo_rows, water

from scschnet import export

pytestmark = pytest.mark.slow  # LAMMPS, and a compiler for its plugin

EXCLUSIONS = {
    "group": "group out id 1:40\nneigh_modify exclude group out all\n",
    "group and rest": "group out id 1:40\ngroup rest subtract all out\n"
    "neigh_modify exclude group out rest exclude group out out\n",
    "type": "neigh_modify exclude type 1 1 exclude type 1 2 exclude type 3 1\n",
    "none": "group out id 1:40\nneigh_modify exclude group out all\nrun 0\nneigh_modify exclude none\n",
}


def kept(name: str, structure: Structure) -> np.ndarray:
    """Which atoms are left, in the order of their ids."""
    if name == "type":
        return structure.numbers != 1
    left = np.ones(len(structure.numbers), dtype=bool)
    left[:40] = name == "none"
    return left


def part(structure: Structure, atoms: np.ndarray) -> Structure:
    return Structure(structure.positions[atoms], structure.numbers[atoms], structure.cell)


@functools.cache
def excluded(ranks: int) -> Path:
    place = Path(tempfile.mkdtemp(dir=folder()))
    water().write(place / "water.data")
    script = "".join(
        f"""clear
units metal
read_data water.data
{potential(model_file(), style)}
{command}
{outputs(f"{kind} {name}".replace(" ", "_"), N_LAYERS)}
run 0
{report(f"{kind} {name}".replace(" ", "_"))}
"""
        for kind, style in STYLES.items()
        for name, command in EXCLUSIONS.items()
    )
    run(place, script, ranks)
    return place


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", STYLES)
@pytest.mark.parametrize("name", EXCLUSIONS)
def test_excluded_atoms_are_not_there(name, kind, ranks):
    result = read(excluded(ranks), f"{kind} {name}".replace(" ", "_"))
    left = kept(name, result.structure)
    expected = reference(part(result.structure, left), model_file())
    assert result.energy == pytest.approx(expected["energy"], abs=1e-8)
    np.testing.assert_allclose(result.forces[left], expected["forces"], atol=EXACT)
    np.testing.assert_allclose(result.energies[left], expected["energies"], atol=EXACT)
    np.testing.assert_allclose(result.layers[left], expected["layer_energies"].T, atol=EXACT)
    for of_atoms in (result.forces, result.energies, result.stresses, result.layers):
        np.testing.assert_array_equal(of_atoms[~left], 0.0)


@pytest.mark.parametrize("ranks", [1, 2])
def test_two_groups_that_do_not_see_each_other_have_the_energies_of_both(ranks):
    place = Path(tempfile.mkdtemp(dir=folder()))
    water().write(place / "water.data")
    script = f"""units metal
read_data water.data
{potential(model_file())}
group one id 1:41
group rest subtract all one
neigh_modify exclude group one rest
{outputs("apart")}
run 0
{report("apart")}
"""
    out = run(place, script, ranks)
    assert "atoms that lose some have the energy of another environment" in out
    result = read(place, "apart")
    one = np.arange(len(result.structure.numbers)) < 41
    parts = [reference(part(result.structure, atoms), model_file()) for atoms in (one, ~one)]
    assert result.energy == pytest.approx(sum(float(p["energy"]) for p in parts), abs=1e-8)
    np.testing.assert_allclose(result.forces[one], parts[0]["forces"], atol=EXACT)


@pytest.mark.parametrize("ranks", [1, 2])
def test_grand_canonical_ideal_gas_has_the_expected_number_of_atoms(ranks):
    """fix gcmc deletes by an exclusion; atoms of a model without blocks do not feel each other."""
    place = Path(tempfile.mkdtemp(dir=folder()))
    model = make_model(n_interactions=0)
    model.offsets.atomref[6] = -30.0  # fix gcmc itself takes the exponential of mu / kT
    export(model, place / "ideal.pt")
    atom = Structure(np.array([[4.0, 4, 4]]), np.array([6]), np.diag([30.0] * 3))
    energy = float(reference(atom, str(place / "ideal.pt"))["energy"])
    temperature, expected = 3000.0, 20
    kt = 8.617343e-5 * temperature  # LAMMPS' own constants of units metal
    wavelength = np.sqrt(4.135667403e-3**2 / (2 * np.pi * 12.011 * 1.0364269e-4 * kt))
    mu = kt * np.log(expected * wavelength**3 / 30.0**3) + energy
    script = f"""units metal
region box block 0 30 0 30 0 30
create_box 3 box
mass 1 1.008
mass 2 12.011
mass 3 15.999
{potential(str(place / "ideal.pt"))}
create_atoms 2 random {expected} 7 box
neigh_modify every 1 delay 0 check yes
fix grand all gcmc 1 50 0 2 4711 {temperature} {mu:.12f} 0.0
thermo 1
thermo_style custom step atoms pe
run 400
"""
    (table,) = thermo_rows(run(place, script, ranks))
    atoms = np.array(table["Atoms"])
    np.testing.assert_allclose(table["PotEng"], energy * atoms, atol=1e-6)
    assert len(set(atoms)) > 5
    # 20,000 attempts, half of them deletions that forget the atom after about 20: 500 independent numbers
    assert abs(atoms[50:].mean() - expected) < 5 * np.sqrt(expected / 500) + 1


def test_a_deletion_is_the_inverse_of_an_insertion():
    """The energy without an atom, by exclusion as by deletion: the case of lammps#5081."""
    place = Path(tempfile.mkdtemp(dir=folder()))
    water().write(place / "water.data")
    script = f"""units metal
read_data water.data
{potential(model_file())}
group one id 5
neigh_modify exclude group one all
thermo_style custom step pe
thermo_modify format float %.15g
run 0
neigh_modify exclude none
delete_atoms group one compress no
run 0
"""
    before, after = (table["PotEng"][0] for table in thermo_rows(run(place, script)))
    assert before == pytest.approx(after, abs=1e-9)


def test_widom_insertions_find_the_energy_of_the_inserted_atom():
    """Of an ideal gas: the excess chemical potential is the energy of the atom alone, whatever the insertion."""
    place = Path(tempfile.mkdtemp(dir=folder()))
    model = make_model(n_interactions=0)
    model.offsets.atomref[6] = -1.0
    export(model, place / "ideal.pt")
    atom = Structure(np.array([[4.0, 4, 4]]), np.array([6]), np.diag([20.0] * 3))
    energy = float(reference(atom, str(place / "ideal.pt"))["energy"])
    script = f"""units metal
region box block 0 20 0 20 0 20
create_box 3 box
mass 1 1.008
mass 2 12.011
mass 3 15.999
{potential(str(place / "ideal.pt"))}
create_atoms 1 random 20 7 box overlap 1.5 maxtry 500
fix insert all widom 1 10 2 4711 3000.0 full_energy
thermo_style custom step f_insert[1]
run 2
"""
    (table,) = thermo_rows(run(place, script, ranks=2))
    assert table["f_insert[1]"][-1] == pytest.approx(energy, rel=1e-6)


@pytest.mark.parametrize("ranks", [1, 2])
def test_types_that_change_between_neighbor_lists_are_seen(ranks):
    """fix atom/swap exchanges types and asks for the energy with the list that it has."""
    place = Path(tempfile.mkdtemp(dir=folder()))
    water().write(place / "water.data")
    script = f"""units metal
read_data water.data
{potential(model_file())}
fix swap all atom/swap 1 20 4711 1e5 ke no types 1 3
thermo_style custom step pe f_swap[2]
run 3
unfix swap
{outputs("swapped")}
run 0
{report("swapped")}
"""
    out = run(place, script, ranks)
    assert thermo_rows(out)[0]["f_swap[2]"][-1] > 0
    result = read(place, "swapped")
    assert np.any(result.structure.numbers != water().numbers)
    expected = reference(result.structure, model_file())
    assert result.energy == pytest.approx(expected["energy"], abs=1e-8)
    assert thermo_rows(out)[0]["PotEng"][-1] == pytest.approx(expected["energy"], rel=1e-7)
