"""Reading NumPy archives, units declared or refused, and the options of `read`."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scschnet.data import embedded, read
from scschnet.data.readers import detected_format
from scschnet.units import Units, energy_factor

DATA = Path(__file__).parents[1] / "files"
KCAL = energy_factor("kcal/mol")
HARTREE = energy_factor("Ha")
BOHR = 0.52917721

RNG = np.random.default_rng(0)
DENSE = {
    "R": RNG.normal(size=(4, 3, 3)),
    "z": np.array([8, 1, 1]),
    "E": RNG.normal(size=4),
    "F": RNG.normal(size=(4, 3, 3)),
}
DECLARED = {"r_unit": "Ang", "e_unit": "kcal/mol"}
FLAT = {
    "R": RNG.normal(size=(5, 3)),
    "Z": np.array([8, 1, 1, 1, 1]),
    "offset": np.array([0, 3, 5]),
    "E": RNG.normal(size=2),
    "F": RNG.normal(size=(5, 3)),
}


def saved(folder: Path, *parts: dict, **more: object) -> Path:
    np.savez(folder / "set.npz", **{k: v for part in (*parts, more) for k, v in part.items()})
    return folder / "set.npz"


def test_embedded_set_is_md17_ethanol():
    """Mean and spread are those of the frames in the source; the first is frame 39 of MD17."""
    structures = embedded.load()
    assert embedded.path().stat().st_size < 1_000_000
    assert (embedded.path().parent / "ORIGIN.md").is_file()
    assert len(structures) == 2000 and structures.elements.tolist() == [1, 6, 8]
    assert structures.labeled["energy"].all() and structures.labeled["forces"].all()
    assert structures.energy[0] / KCAL == pytest.approx(-97195.70096465, abs=1e-8)
    assert structures.energy.std() / KCAL == pytest.approx(4.157, abs=1e-3)
    assert np.sqrt((structures.forces**2).mean()) / KCAL == pytest.approx(26.345, abs=1e-3)


def test_qm9_layout():
    structures = read(DATA / "qm9_first20.npz")
    assert len(structures) == 20 and structures.forces is None
    assert structures.n_atoms[:4].tolist() == [5, 4, 3, 4]
    assert structures.energy[0] == pytest.approx(-40.47893 * HARTREE)
    assert structures.atomref[[1, 6]] == pytest.approx(np.array([-0.500273, -37.846772]) * HARTREE)
    # atomization energy of methane at 0 K in QM9: -0.631066 Ha
    methane = structures.energy[0] - structures.atomref[6] - 4 * structures.atomref[1]
    assert methane / HARTREE == pytest.approx(-0.631066, abs=1e-9)
    assert structures.info["energy key"] == "U0"
    assert "U, H, G, Cv" in structures.info["not read"]


@pytest.mark.parametrize(("key", "value"), [("G", -40.498597), ("gap", 0.5048), ("U", -40.476062)])
def test_qm9_other_energies(key, value):
    structures = read(DATA / "qm9_first20.npz", energy_key=key)
    assert structures.energy[0] == pytest.approx(value * HARTREE)
    assert (structures.atomref is not None) == (key != "gap")


@pytest.mark.parametrize("key", ["mu", "Cv", "alpha"])
def test_qm9_properties_that_are_no_energies(key):
    with pytest.raises(ValueError, match="declares a unit that is not known: energy unit must be"):
        read(DATA / "qm9_first20.npz", energy_key=key)


def test_periodic_set():
    structures = read(DATA / "water64_2frames.npz")
    assert structures.pbc.all() and structures.cells[1, 2, 2] == pytest.approx(12.44466114)
    assert structures.energy[0] == -29943.90625
    assert structures.forces[0, 0] == pytest.approx(0.6219969)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_sgdml_layout_and_units(tmp_path, shape):
    path = saved(
        tmp_path, DENSE, DECLARED, E=DENSE["E"].reshape(shape), name=b"water", theory="PBE"
    )
    structures = read(path)
    np.testing.assert_allclose(structures.energy, DENSE["E"] * KCAL, rtol=1e-15)
    np.testing.assert_allclose(structures.forces, DENSE["F"].reshape(-1, 3) * KCAL, rtol=1e-15)
    np.testing.assert_array_equal(structures.positions, DENSE["R"].reshape(-1, 3))
    assert structures.atomic_numbers.tolist() == [8, 1, 1] * 4
    assert structures.info["name"] == "water" and structures.info["theory"] == "PBE"


def test_revised_md17_keys(tmp_path):
    path = saved(
        tmp_path,
        coords=DENSE["R"],
        nuclear_charges=DENSE["z"],
        energies=DENSE["E"],
        forces=DENSE["F"],
        old_energies=DENSE["E"],
    )
    structures = read(path, units="kcal/mol, Angstrom")
    np.testing.assert_allclose(structures.energy, DENSE["E"] * KCAL)
    old = read(path, units="kcal/mol, Angstrom", energy_key="old_energies")
    np.testing.assert_array_equal(old.energy, structures.energy)


def test_flat_layout_with_either_index(tmp_path):
    by_offset = read(saved(tmp_path, FLAT), units="eV, Å")
    counts = {k: v for k, v in FLAT.items() if k != "offset"} | {"n_atoms": np.array([3, 2])}
    by_count = read(saved(tmp_path, counts), units="eV, Å")
    np.testing.assert_array_equal(by_offset.atom_ptr, by_count.atom_ptr)
    np.testing.assert_array_equal(by_offset.forces, FLAT["F"])


def test_numbers_per_frame(tmp_path):
    numbers = np.array([[8, 1, 1], [1, 8, 1], [1, 1, 8], [6, 1, 1]])
    structures = read(saved(tmp_path, DENSE, DECLARED, z=numbers))
    np.testing.assert_array_equal(structures.atomic_numbers, numbers.ravel())


def test_lattice_of_sgdml_has_vectors_as_columns(tmp_path):
    lattice = 9 * np.eye(3) + np.arange(9.0).reshape(3, 3)
    structures = read(saved(tmp_path, DENSE, DECLARED, lattice=lattice))
    np.testing.assert_array_equal(structures.cells[2], lattice.T)
    assert structures.pbc.all()


def test_forces_in_another_unit_than_energy_over_length(tmp_path):
    path = saved(tmp_path, DENSE)
    structures = read(path, units="Ha, Angstrom, Ha/bohr")
    np.testing.assert_allclose(structures.energy, DENSE["E"] * HARTREE)
    np.testing.assert_allclose(
        structures.forces, DENSE["F"].reshape(-1, 3) * HARTREE / BOHR, rtol=1e-7
    )


def test_length_unit_scales_positions_and_cells(tmp_path):
    path = saved(tmp_path, DENSE, cell=np.eye(3), pbc=np.array([True, True, False]))
    structures = read(path, units=Units("eV", "nm"))
    np.testing.assert_allclose(structures.positions, 10 * DENSE["R"].reshape(-1, 3))
    np.testing.assert_allclose(structures.cells[0], 10 * np.eye(3))
    assert structures.pbc[3].tolist() == [True, True, False]
    np.testing.assert_allclose(structures.forces, DENSE["F"].reshape(-1, 3) / 10)


def test_single_precision_is_converted_in_double_and_noted(tmp_path):
    energies = np.array([-97195.7, -97202.7, -97190.4, -97204.7], dtype=np.float32)
    structures = read(saved(tmp_path, DENSE, DECLARED, E=energies))
    np.testing.assert_array_equal(structures.energy, energies.astype(np.float64) * KCAL)
    assert "float32, spacing 0.0078" in structures.info["energy precision"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["eV", "meV", "Ha", "Ry", "kcal/mol", "kJ/mol"]), st.integers(0, 2**31))
def test_declaring_in_the_file_or_by_the_user_is_the_same(tmp_path, unit, seed):
    energies = np.random.default_rng(seed).normal(size=4)
    in_file = read(saved(tmp_path, DENSE, E=energies, r_unit="bohr", e_unit=unit))
    by_user = read(saved(tmp_path, DENSE, E=energies), units=f"bohr, {unit}")
    for name in ("positions", "energy", "forces"):
        np.testing.assert_array_equal(getattr(in_file, name), getattr(by_user, name))


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (None, "`units` must be given: set.npz does not declare those of length, energy, forces"),
        ("eV", "`units` must be given: set.npz does not declare those of length, forces"),
        ("Å, kcal/mol/Å", "does not declare those of energy; give them as in units='kcal/mol"),
        ("eV, Angstrm", "nearest: Å"),
    ],
)
def test_units_that_nobody_declared(tmp_path, units, message):
    with pytest.raises(ValueError) as caught:
        read(saved(tmp_path, DENSE), units=units)
    assert message in str(caught.value)


def test_units_must_not_contradict_the_file(tmp_path):
    path = saved(tmp_path, DENSE, DECLARED)
    assert len(read(path, units="kcal/mol, Angstrom")) == 4
    with pytest.raises(ValueError, match=r"set\.npz declares energy in kcal/mol, got eV"):
        read(path, units="eV, Å")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R": None}, "set.npz must have positions under one of the keys R, coords, positions"),
        ({"z": None}, "set.npz must have atomic numbers under one of the keys z, Z"),
        ({"Z": np.ones(3, int)}, "set.npz must have one of z, Z, got all of them"),
        ({"R": np.zeros((4, 3, 2))}, "`R` in set.npz must have shape (4, 3, 3), got (4, 3, 2)"),
        ({"R": np.zeros(4)}, "`R` in set.npz must have shape (N, n, 3) or (atoms, 3), got (4,)"),
        ({"R": np.zeros((4, 3))}, "set.npz must have `offset` (N + 1,) or `n_atoms` (N,)"),
        ({"z": np.ones(2, int)}, "`z` in set.npz must have shape (3,), got (2,)"),
        ({"z": np.ones(3)}, "`z` in set.npz must hold integers, got float64"),
        ({"z": np.array([8, 1, 0])}, "`atomic_numbers` must lie between 1 and 118, got 0"),
        ({"E": np.zeros(3)}, "`E` in set.npz must have shape (4,), got (3,)"),
        ({"F": np.zeros((3, 3, 3))}, "`F` in set.npz must have shape (4, 3, 3), got (3, 3, 3)"),
        ({"E": np.full(4, "a")}, "`energy` must hold real numbers, got <U1"),
        ({"cell": np.eye(3)}, "set.npz must have `pbc` (3,) beside `cell`"),
        ({"cell": np.eye(2), "pbc": np.ones(3, bool)}, "`cell` in set.npz must have shape"),
        ({"pbc": np.ones(2, bool)}, "`pbc` in set.npz must have shape (4, 3), got (2,)"),
        ({"pbc": np.full(3, 2)}, "`pbc` in set.npz must hold booleans, got int64"),
        (
            {"e_unit": "kcal"},
            "set.npz declares a unit that is not known: energy unit must be one of",
        ),
        ({"R": np.full((4, 3, 3), None)}, "must be a plain array, got Python objects (a pickle)"),
    ],
)
def test_malformed_archives(tmp_path, change, message):
    arrays = {k: v for k, v in (DENSE | DECLARED | change).items() if v is not None}
    with pytest.raises((ValueError, TypeError)) as caught:
        read(saved(tmp_path, arrays))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": np.array([0, 3, 4])}, "`offset` in set.npz must rise from 0 to 5"),
        ({"offset": np.array([0, 6, 5])}, "`offset` in set.npz must rise from 0 to 5"),
        ({"offset": np.array([0.0, 3, 5])}, "`offset` in set.npz must hold integers, got float64"),
        ({"n_atoms": np.array([2, 3])}, "`n_atoms` in set.npz must equal the steps of `offset`"),
        ({"Z": np.ones(4, int)}, "`Z` in set.npz must have shape (5,), got (4,)"),
        ({"F": np.zeros((4, 3))}, "`F` in set.npz must have shape (5, 3), got (4, 3)"),
    ],
)
def test_malformed_flat_archives(tmp_path, change, message):
    with pytest.raises(ValueError) as caught:
        read(saved(tmp_path, FLAT, change), units="eV, Å")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "where", "message"),
    [
        ("R", (2, 1, 0), "set.npz: `positions` must be finite, got nan in structure 2, atom 1"),
        ("E", 3, "set.npz: `energy` must be finite, got nan in structure 3"),
        ("F", (1, 0, 2), "set.npz: `forces` must be finite, got nan in structure 1, atom 0"),
        ("F", 1, "set.npz: `forces` must be finite, got nan in structure 1"),
    ],
)
def test_values_that_are_not_finite_name_the_frame(tmp_path, key, where, message):
    array = DENSE[key].copy()
    array[where] = np.nan
    with pytest.raises(ValueError) as caught:
        read(saved(tmp_path, DENSE, DECLARED, {key: array}))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energy_key": "Energ"}, "`energy_key` must be a key of set.npz (R, z, E, F"),
        ({"forces_key": "f"}, "`forces_key` must be a key of set.npz"),
        ({"require": ("stress",)}, "set.npz must have stress, found 0/4"),
        ({"require": ("force",)}, "`require` must name energy, forces or stress, got 'force'"),
        ({"exclude": [1]}, "`exclude` must be left out: it is for QM9's tar, got a file of npz"),
        ({"memory_map": True}, "`memory_map` must be left out: it is for HDF5, got a file of npz"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(ValueError) as caught:
        read(saved(tmp_path, DENSE, DECLARED), **options)
    assert message in str(caught.value)


def test_nearest_key_is_named(tmp_path):
    path = saved(tmp_path, DENSE, DECLARED, REF_energy=DENSE["E"])
    with pytest.raises(ValueError, match="got 'REF_Energy'; nearest: REF_energy"):
        read(path, energy_key="REF_Energy")


def test_files_that_are_not_there_or_no_archives(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a file of structures, but there is no"):
        read(tmp_path / "absent.npz")
    with pytest.raises(FileNotFoundError):
        read(tmp_path)
    for content in (b"", b"PK\x03\x04 and no more", b"text", b"\x93NUMPY\x01\x00"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.npz"):
            read(tmp_path / "bad.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(ValueError, match=r"`one\.npz` must be a whole \.npz archive, got another"):
        read(tmp_path / "one.npz")


@pytest.mark.parametrize(("place", "bits"), [(8, 1), (10, 2)], ids=["encrypted", "compression"])
def test_records_that_cannot_be_opened_are_named(tmp_path, place, bits):
    """One bit of every record changed: it counts as encrypted, or as packed in a way that there is not."""
    content = bytearray(saved(tmp_path, DENSE, DECLARED).read_bytes())
    start = content.find(b"PK\x01\x02")
    while start >= 0:
        content[start + place] |= bits
        start = content.find(b"PK\x01\x02", start + 1)
    (tmp_path / "damaged.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"`damaged\.npz` must be a whole \.npz archive"):
        read(tmp_path / "damaged.npz")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_archives_are_errors_or_equal(tmp_path, data):
    """Cut or with bytes changed: a ValueError (zip keeps checksums), or the same numbers."""
    content = bytearray(saved(tmp_path, DENSE, DECLARED).read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
            content[place] ^= data.draw(st.integers(1, 255))
    (tmp_path / "damaged.npz").write_bytes(content)
    try:
        structures = read(tmp_path / "damaged.npz")
    except (ValueError, TypeError):
        return
    np.testing.assert_array_equal(structures.positions, DENSE["R"].reshape(-1, 3))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.npz", "npz"),
        *((name, "hdf5") for name in ("a.h5", "a.hdf5")),
        *((name, "qm9") for name in ("a.tar.bz2", "a.tar", "a.tgz")),
        *((name, "ase") for name in ("a.xyz", "a.db", "a")),
    ],
)
def test_detected_format(tmp_path, name, kind):
    (tmp_path / name).write_text("3\n")
    assert detected_format(tmp_path / name) == kind
