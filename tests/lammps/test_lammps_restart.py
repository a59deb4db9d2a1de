"""Restart files of LAMMPS: they hold the pair style with its words, `pair_coeff` names the model again."""

import functools
import tempfile
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_list_of_pairs_from_before_a_restart_file_is_refused(ranks):
    """The command finds ghosts anew, and leaves the list, which names others by their numbers.

    All atoms move by 0.09 Å to a side where none leaves the box: LAMMPS would notice that by itself.
    """
    place, atoms = Path(tempfile.mkdtemp(dir=folder())), water()
    atoms.write(place / "water.data")
    scaled = atoms.positions @ np.linalg.inv(atoms.cell)
    room = np.linalg.norm(atoms.cell, axis=1) * np.array([1 - scaled.max(0), scaled.min(0)])
    side, axis = np.unravel_index(room.argmax(), room.shape)
    assert room[side, axis] > 0.095
    velocity = ["0"] * 3
    velocity[axis] = "-20" if side else "20"
    script = f"""units metal
read_data water.data
pair_style scschnet
{coefficients("alone")}{OUTPUT}
neighbor 1.0 bin
timestep 0.0005
fix 1 all move linear {" ".join(velocity)} units box
run 9
write_restart water.restart
run 1 {{}}
"""
    out = run(place, script.format("pre no"), ranks, check=False)
    assert "ghosts were found anew after the neighbor list was built" in out
    assert "the next run must not have the option pre no" in out
    first, second = thermo_rows(run(place, script.format(""), ranks))
    assert second["PotEng"][0] == pytest.approx(first["PotEng"][-1], abs=1e-6)
