"""Units: the factors that turn energies, lengths, forces and stresses into eV and Å.

Values are ASE's (CODATA 2014), so that numbers agree with other programs built on ASE. Nothing is
ever guessed from magnitudes: a unit is named by the file or by the user.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from ase import units as _ase

ENERGY: dict[str, float] = {
    "eV": 1.0,
    "meV": 1e-3,
    "Ha": _ase.Hartree,
    "Ry": _ase.Rydberg,
    "kcal/mol": _ase.kcal / _ase.mol,
    "kJ/mol": _ase.kJ / _ase.mol,
}
"""eV per unit."""

LENGTH: dict[str, float] = {"Å": 1.0, "bohr": _ase.Bohr, "nm": 10.0}
"""Å per unit."""

PRESSURE: dict[str, float] = {
    "GPa": _ase.GPa,
    "kbar": 1000 * _ase.bar,
    "bar": _ase.bar,
}
"""eV/Å^3 per unit; other stress units are an energy over a cubed length, "kcal/mol/Å^3"."""

_ALIASES: dict[str, str] = {
    "hartree": "Ha",
    "hartrees": "Ha",
    "eh": "Ha",
    "rydberg": "Ry",
    "electronvolt": "eV",
    "kcal mol-1": "kcal/mol",
    "kcal*mol^-1": "kcal/mol",
    "kj mol-1": "kJ/mol",
    "kj*mol^-1": "kJ/mol",
    "ang": "Å",
    "angs": "Å",
    "angstrom": "Å",
    "angstroms": "Å",
    "ångström": "Å",
    "å": "Å",
    "a0": "bohr",
    "nanometer": "nm",
}
# Short spellings keep their case (MeV is not meV); "A" is the ampere elsewhere, here always Å.
_EXACT: dict[str, str] = {"A": "Å", "\u212b": "Å", "ev": "eV", "EV": "eV", "HA": "Ha", "RY": "Ry"}


@dataclass(frozen=True)
class Units:
    """Units of a data set; forces and stress follow from energy and length unless named.

    Args:
        energy: such as "eV", "Ha" or "kcal/mol"; None: not declared.
        length: such as "Å" or "bohr"; None: not declared.
        forces: an energy over a length, "kcal/mol/Å"; None: `energy`/`length`.
        stress: an energy over a cubed length, "eV/Å^3", or a pressure; None: `energy`/`length`^3.
    """

    energy: str | None = None
    length: str | None = None
    forces: str | None = None
    stress: str | None = None

    def __post_init__(self) -> None:
        for name, kind in KINDS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, kind.spelled(value))

    def of(self, kind: str) -> str | None:
        """The unit of a kind, or what follows from energy and length where both are known."""
        named: str | None = getattr(self, kind)
        derived = KINDS[kind].derived
        if named is None and derived and self.energy is not None and self.length is not None:
            return derived.format(energy=self.energy, length=self.length)
        return named

    def __str__(self) -> str:
        named = (getattr(self, kind) for kind in KINDS)
        return ", ".join(unit for unit in named if unit is not None)


def parse_units(text: str) -> Units:
    """Units from a list such as "kcal/mol, Angstrom" or "Ha, Angstrom, Ha/bohr, GPa", or "ase".

    The kind of each is plain from the unit itself, so the order does not matter. "ase": eV, Å,
    eV/Å and eV/Å^3.

    Raises:
        ValueError: for an unknown unit, naming the nearest valid one, or two of one kind.
    """
    if text.strip().casefold() == "ase":
        return ASE_UNITS
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        kind = unit_kind(part)
        if kind in found:
            raise ValueError(f"`units` must name one {kind} unit, got {found[kind]!r} and {part!r}")
        found[kind] = part
    if not found:
        raise ValueError(f"`units` must be a list such as 'kcal/mol, Angstrom', got {text!r}")
    return Units(**found)


def unit_kind(unit: str) -> str:
    """Which of the `KINDS` the unit measures.

    Raises:
        ValueError: for an unknown unit, naming the nearest valid one.
    """
    for name, kind in KINDS.items():
        try:
            kind.spelled(unit)
        except ValueError:
            continue
        return name
    raise _unknown(unit, "unit", [*ENERGY, *LENGTH, *PRESSURE])


def energy_factor(unit: str) -> float:
    """Factor from `unit` to eV. Raises ValueError for an unknown unit, naming the nearest valid one."""
    return ENERGY[_energy_name(unit)]


def length_factor(unit: str) -> float:
    """Factor from `unit` to Å. Raises ValueError for an unknown unit, naming the nearest valid one."""
    return LENGTH[_length_name(unit)]


def force_factor(unit: str) -> float:
    """eV/Å per `unit`, an energy over a length.

    Raises:
        ValueError: for an unknown unit, naming the nearest valid one.
    """
    energy, length = _force_name(unit).rsplit("/", 1)
    return ENERGY[energy] / LENGTH[length]


def stress_factor(unit: str) -> float:
    """eV/Å^3 per `unit`, a pressure or an energy over a cubed length.

    Raises:
        ValueError: for an unknown unit, naming the nearest valid one.
    """
    name = _stress_name(unit)
    if name in PRESSURE:
        return PRESSURE[name]
    energy, length = name.removesuffix("^3").rsplit("/", 1)
    return ENERGY[energy] / LENGTH[length] ** 3


def _energy_name(unit: str) -> str:
    return _name(unit, ENERGY, "energy unit")


def _length_name(unit: str) -> str:
    return _name(unit, LENGTH, "length unit")


def _force_name(unit: str) -> str:
    energy, slash, length = unit.replace("(", "").replace(")", "").rpartition("/")
    if not slash:
        raise ValueError(
            f"unit of forces must be an energy over a length, such as 'kcal/mol/Å', got {unit!r}"
        )
    return f"{_energy_name(energy)}/{_length_name(length)}"


def _stress_name(unit: str) -> str:
    text = unit.strip()
    if text in PRESSURE:
        return text
    energy, slash, length = text.replace("**3", "^3").replace("³", "^3").rpartition("/")
    if not slash or not length.endswith(("^3", "3")):
        raise ValueError(
            "unit of stress must be GPa, kbar, bar or an energy over a cubed length, such as "
            f"'eV/Å^3', got {unit!r}"
        )
    length = length.removesuffix("^3") if length.endswith("^3") else length.removesuffix("3")
    return f"{_energy_name(energy)}/{_length_name(length)}^3"


def _name(unit: str, table: dict[str, float], kind: str) -> str:
    """The spelling of `unit` used in `table`."""
    text = " ".join(unit.split())
    for candidate in (text, _EXACT.get(text), _ALIASES.get(text.casefold())):
        if candidate in table:
            return candidate
    for name in table:
        if len(name) > 3 and name.casefold() == text.casefold():
            return name
    raise _unknown(unit, kind, list(table))


def _unknown(unit: str, kind: str, valid: list[str]) -> ValueError:
    spellings = {name.casefold(): name for name in valid}
    spellings |= {alias: name for alias, name in _ALIASES.items() if name in valid}
    near = difflib.get_close_matches(unit.strip().casefold(), spellings, n=1, cutoff=0.5)
    hint = f"; nearest: {spellings[near[0]]}" if near else ""
    return ValueError(f"{kind} must be one of {', '.join(valid)}, got {unit!r}{hint}")


@dataclass(frozen=True)
class Kind:
    """What a unit can measure.

    Args:
        spelled: the spelling of a unit used here; raises ValueError for one of another kind.
        factor: from a unit to eV and Å.
        derived: how the unit follows from those of energy and length; empty: not at all.
    """

    spelled: Callable[[str], str]
    factor: Callable[[str], float]
    derived: str = ""


KINDS = {
    "energy": Kind(_energy_name, energy_factor),
    "length": Kind(_length_name, length_factor),
    "forces": Kind(_force_name, force_factor, "{energy}/{length}"),
    "stress": Kind(_stress_name, stress_factor, "{energy}/{length}^3"),
}
ASE_UNITS = Units("eV", "Å", "eV/Å", "eV/Å^3")
"""ASE's, for everything it reads and computes."""
