"""Restart files of LAMMPS: they hold the pair style with its words, `pair_coeff` names the model again."""

import functools
import tempfile
from pathlib import Path

import pytest
from lammps_host import run
from test_lammps import folder, model_file, thermo_rows, water

pytestmark = pytest.mark.slow  # LAMMPS, and a compiler for its plugin

ZBL = "".join(
    f"pair_coeff {a + 1} {b + 1} zbl {z[0]} {z[1]}\n"
    for a in range(3)
    for b in range(a, 3)
    for z in [((1, 6, 8)[a], (1, 6, 8)[b])]
)
STYLES = {
    "alone": ("scschnet", ""),
    "wide": ("scschnet wide", ""),
    "isotopes": ("scschnet isotopes", ""),
    "both words": ("scschnet isotopes wide", ""),
    "overlay": ("hybrid/overlay scschnet wide isotopes zbl 1.5 2.5", ZBL),
}
OUTPUT = "thermo_style custom step pe\nthermo_modify format float %.15g\n"


def coefficients(name: str) -> str:
    others = STYLES[name][1]
    return f"pair_coeff * * {'scschnet ' if others else ''}{model_file()} H C O\n{others}"


@functools.cache
def before(name: str, ranks: int) -> tuple[Path, str]:
    """A run that ends with a restart file; hydrogen is deuterium where any mass is allowed."""
    style = STYLES[name][0]
    place = Path(tempfile.mkdtemp(dir=folder()))
    water().write(place / "water.data")
    script = f"""units metal
read_data water.data
{"mass 1 2.014" if "isotopes" in style else ""}
pair_style {style}
{coefficients(name)}{OUTPUT}
run 0
write_restart water.restart
"""
    return place, run(place, script, ranks)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", STYLES)
def test_pair_coeff_alone_is_enough_after_a_restart(name, ranks):
    place, out = before(name, ranks)
    again = run(
        place, f"read_restart water.restart\n{coefficients(name)}{OUTPUT}run 0\n", 3 - ranks
    )
    energies = [thermo_rows(text)[0]["PotEng"][0] for text in (out, again)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-8)
    depth = "ghost atom cutoff = 14" if "wide" in STYLES[name][0] else "ghost atom cutoff = 6"
    assert depth in out
    assert depth in again
    assert "(1) pair scschnet" in again


def test_masses_are_checked_after_a_restart_too():
    place, _ = before("alone", 1)
    with pytest.raises(AssertionError, match=r"says that type 1 is O, whose mass is 15\.999 g/mol"):
        run(place, f"read_restart water.restart\npair_coeff * * {model_file()} O C H\nrun 0\n")


def test_a_restart_without_pair_coeff_is_an_error_of_lammps():
    place, _ = before("alone", 1)
    with pytest.raises(AssertionError, match="All pair coeffs are not set"):
        run(place, "read_restart water.restart\nrun 0\n")
