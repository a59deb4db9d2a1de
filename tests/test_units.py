"""Units: values against constants from elsewhere, spellings, and errors that name the nearest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scschnet import units

# CODATA 2018 (physics.nist.gov/constants); ASE has CODATA 2014, equal to 1e-8.
HARTREE, BOHR, RYDBERG = 27.211386245988, 0.529177210903, 13.605693122994
CAL_PER_MOL = 4.184 / 96485.33212  # thermochemical calorie over the Faraday constant


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("eV", 1.0),
        ("meV", 1e-3),
        ("Ha", HARTREE),
        ("Hartree", HARTREE),
        ("hartree", HARTREE),
        ("Ry", RYDBERG),
        ("kcal/mol", 1e3 * CAL_PER_MOL),
        ("KCAL/MOL", 1e3 * CAL_PER_MOL),
        (" kcal/mol ", 1e3 * CAL_PER_MOL),
        ("kJ/mol", 1e3 / 96485.33212),
        ("kj mol-1", 1e3 / 96485.33212),
    ],
)
def test_energies(unit, expected):
    assert units.energy_factor(unit) == pytest.approx(expected, rel=3e-8)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        *((name, 1) for name in ("Å", "\u212b", "A", "Ang", "Angstrom", "ANGSTROM")),
        *((name, BOHR) for name in ("bohr", "Bohr", "a0")),
        ("nm", 10),
    ],
)
def test_lengths(unit, expected):
    assert units.length_factor(unit) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("eV/Å", 1),
        ("kcal/mol/Ang", 1e3 * CAL_PER_MOL),
        ("kcal/(mol)/Angstrom", 1e3 * CAL_PER_MOL),
        ("Hartree/Bohr", HARTREE / BOHR),
        ("kJ/mol/nm", 100 / 96485.33212),
    ],
)
def test_forces(unit, expected):
    assert units.force_factor(unit) == pytest.approx(expected, rel=3e-8)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("eV/Å^3", 1),
        ("eV/A3", 1),
        ("eV/Ang**3", 1),
        ("eV/Å³", 1),
        ("GPa", 1 / 160.2176634),
        ("kbar", 1 / 1602.176634),
        ("bar", 1 / 1602176.634),
        ("Ha/bohr^3", HARTREE / BOHR**3),
    ],
)
def test_stresses(unit, expected):
    assert units.stress_factor(unit) == pytest.approx(expected, rel=3e-8)


@pytest.mark.parametrize(
    ("function", "unit", "message"),
    [
        (units.energy_factor, "kcal/mo", "energy unit must be one of eV, meV, Ha, Ry, kcal/mol"),
        (units.energy_factor, "kcal/mo", "got 'kcal/mo'; nearest: kcal/mol"),
        (units.energy_factor, "Hartee", "nearest: Ha"),
        (units.energy_factor, "MeV", "got 'MeV'"),
        (units.length_factor, "Angstrm", "nearest: Å"),
        (units.length_factor, "eV", "length unit must be one of Å, bohr, nm, got 'eV'"),
        (units.force_factor, "eV", "unit of forces must be an energy over a length"),
        (units.force_factor, "eV/pm", "length unit must be one of"),
        (units.stress_factor, "eV/Å^2", "unit of stress must be GPa, kbar, bar or an energy over"),
        (units.stress_factor, "eV", "unit of stress must be"),
        (units.parse_units, "kcal/mol, Angstrum", "nearest: Å"),
        (units.parse_units, "eV, Å, Ha", "`units` must name one energy unit, got 'eV' and 'Ha'"),
        (units.parse_units, "", "`units` must be a list such as 'kcal/mol, Angstrom', got ''"),
        (units.parse_units, "parsec", "unit must be one of eV, meV"),
    ],
)
def test_errors(function, unit, message):
    with pytest.raises(ValueError) as caught:
        function(unit)
    assert message in str(caught.value)


@given(
    st.permutations(["kcal/mol", "bohr", "Ha/bohr", "GPa"]).flatmap(
        lambda order: st.integers(1, 4).map(lambda n: order[:n])
    )
)
def test_parse_units_in_any_order(parts):
    parsed = units.parse_units(", ".join(parts))
    expected = {"energy": "kcal/mol", "length": "bohr", "forces": "Ha/bohr", "stress": "GPa"}
    for kind, unit in expected.items():
        assert getattr(parsed, kind) == (unit if unit in parts else None)


def test_forces_and_stress_follow_from_energy_and_length():
    parsed = units.parse_units("kcal/mol,Ang")
    assert parsed.of("forces") == "kcal/mol/Å" and parsed.of("stress") == "kcal/mol/Å^3"
    assert units.Units(length="nm").of("forces") is None
    assert units.Units(energy="eV").of("stress") is None
    assert units.Units("eV", "Å", "Ha/bohr", "GPa").of("forces") == "Ha/bohr"
    assert str(units.Units("eV", "Å", stress="GPa")) == "eV, Å, GPa"
