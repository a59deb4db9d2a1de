"""The quantities that structures are labeled with and models are trained on: everything about each, once.

A new quantity is an entry of `QUANTITIES`; a field of the same name wherever arrays have names of their own
(`StructureSet`, `RawSet`, `Batch`, `Predictions`, `Labels`); a weight in the loss (`TrainConfig.label_weights`);
its units (`scschnet.units`) and an option `--NAME-key` where the name in a file may differ. Properties that heads
learn are quantities, too (`quantity_of`): all who have a field of each quantity have one dictionary of properties.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from scschnet.properties import Property
from scschnet.units import energy_factor, stress_factor

KCAL = 1.0 / energy_factor("kcal/mol")
MILLI = 1000.0
GPA = 1.0 / stress_factor("GPa")


@dataclass(frozen=True)
class Error:
    """Error of one quantity over `n` numbers: mean absolute and root mean square."""

    mae: float
    rmse: float
    n: int


MISSING = Error(math.nan, math.nan, 0)


@dataclass(frozen=True)
class Shown:
    """The error of a quantity that is shown first.

    Args:
        error: its name, as in test.json.
        unit: shown first.
        factor: of `unit` for one unit in which the quantity is stored.
        other: a second unit, and its factor.
        stored_unit: the unit that `factor` multiplies.
    """

    error: str
    unit: str
    factor: float
    other: tuple[str, float]
    stored_unit: str

    @property
    def column(self) -> str:
        """Where metrics.csv has it, in the unit in which the quantity is stored."""
        return f"val_{self.error}_mae"


@dataclass(frozen=True, eq=False)
class Quantity:
    """A quantity of structures or of their atoms.

    Args:
        name: of its arrays, in files and in the results of a model.
        title: of its numbers, in a figure.
        unit: in which it is stored.
        shape: of one row.
        per_atom: whether every atom has a row; else every structure.
        needs_volume: whether it exists only for a structure whose cell has a volume.
        is_extensive: whether it grows with the number of atoms; times the volume, if it needs one.
        trained_on: which options train on it, in words.
        npz_keys: its names in NumPy archives.
        looks_like: pattern of the names that other programs give it, case ignored.
        errors: of each of its errors the units in tables and JSON, with their factors; the stored unit first.
        shown: for molecules of one size.
        shown_per_atom: where structures differ in size or are periodic.
        learned: the property that a head learns; None: energy, forces or stress.
    """

    name: str
    title: str
    unit: str
    shape: tuple[int, ...]
    per_atom: bool
    needs_volume: bool
    is_extensive: bool
    trained_on: str
    npz_keys: tuple[str, ...]
    looks_like: str
    errors: dict[str, dict[str, float]]
    shown: Shown
    shown_per_atom: Shown
    learned: Property | None = None

    def of(self, holder: Any) -> Any:
        """The values that a holder of quantities has of this one, or None.

        Args:
            holder: with a field for each of energy, forces and stress, and a dictionary `properties`.
        """
        if self.learned is not None:
            return holder.properties.get(self.learned)
        return getattr(holder, self.name)

    @property
    def ones(self) -> tuple[int, ...]:
        """As many ones as a row has dimensions, to spread a number per row over it."""
        return (1,) * len(self.shape)

    @property
    def size(self) -> int:
        """Numbers in a row."""
        return math.prod(self.shape)


QUANTITIES = (
    Quantity(
        name="energy",
        title="relative energy",
        unit="eV",
        shape=(),
        per_atom=False,
        needs_volume=False,
        is_extensive=True,
        trained_on="`rho` > 0",
        npz_keys=("E", "energies", "energy"),
        looks_like=r"energ|^E0?$|^U0?$",
        errors={
            "energy": {"eV": 1.0, "kcal/mol": KCAL},
            "energy_per_atom": {"eV": 1.0, "meV": MILLI, "kcal/mol": KCAL},
        },
        shown=Shown("energy", "kcal/mol", KCAL, ("meV", MILLI), "eV"),
        shown_per_atom=Shown("energy_per_atom", "meV/atom", MILLI, ("kcal/mol/atom", KCAL), "eV"),
    ),
    Quantity(
        name="forces",
        title="force components",
        unit="eV/Å",
        shape=(3,),
        per_atom=True,
        needs_volume=False,
        is_extensive=False,
        trained_on="`rho` < 1",
        npz_keys=("F", "forces"),
        looks_like=r"force",
        errors={"forces": {"eV/Å": 1.0, "kcal/mol/Å": KCAL}},
        shown=Shown("forces", "kcal/mol/Å", KCAL, ("meV/Å", MILLI), "eV/Å"),
        shown_per_atom=Shown("forces", "meV/Å", MILLI, ("kcal/mol/Å", KCAL), "eV/Å"),
    ),
    Quantity(
        name="stress",
        title="stress components",
        unit="eV/Å^3",
        shape=(3, 3),
        per_atom=False,
        needs_volume=True,
        is_extensive=True,
        trained_on="`stress_weight` > 0",
        npz_keys=("stress",),
        looks_like=r"stress|virial",
        errors={"stress": {"eV/Å^3": 1.0, "GPa": GPA, "kcal/mol/Å^3": KCAL}},
        shown=Shown("stress", "GPa", GPA, ("meV/Å^3", MILLI), "eV/Å^3"),
        shown_per_atom=Shown("stress", "GPa", GPA, ("meV/Å^3", MILLI), "eV/Å^3"),
    ),
)
NAMES = tuple(quantity.name for quantity in QUANTITIES)
ON_DEMAND = NAMES[1:]  # a model always returns the energy, and these if it is asked to


def returned(forces: bool, stress: bool) -> tuple[dict[str, bool], list[Quantity]]:
    """What a model is asked for, by name, and the quantities that it returns then."""
    asked = dict(zip(ON_DEMAND, (forces, stress), strict=True))
    return asked, [quantity for quantity in QUANTITIES if asked.get(quantity.name, True)]


ANY_OF_THEM = f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"
ERRORS = {name: units for quantity in QUANTITIES for name, units in quantity.errors.items()}
"""Name of every error to its units, in the order in which tables list them."""


@lru_cache
def quantity_of(given: Property, shape: tuple[int, ...]) -> Quantity:
    """The quantity that a property is.

    Args:
        given: the property.
        shape: of its value for one structure.
    """
    unit = given.unit or "as in the file"
    units = {unit: 1.0} | ({"meV": MILLI} if unit == "eV" else {})
    shown_unit, factor = list(units.items())[-1]
    shown = Shown(given.name, shown_unit, factor, (unit, 1.0), unit)
    return Quantity(
        name=given.name,
        title=f"{given.name} components" if shape else given.name,
        unit=unit,
        shape=shape,
        per_atom=False,
        needs_volume=False,
        is_extensive=False,
        trained_on="`properties`",
        npz_keys=(given.name,),
        looks_like="$^",
        errors={given.name: units},
        shown=shown,
        shown_per_atom=shown,
        learned=given,
    )


def error_units(properties: Iterable[Property] = ()) -> dict[str, dict[str, float]]:
    """`ERRORS`, and those of properties."""
    return ERRORS | {one.name: quantity_of(one, ()).errors[one.name] for one in properties}


def shown_errors(per_atom: bool, properties: Iterable[Property] = ()) -> dict[str, Shown]:
    """Name of every quantity to the error of it that is shown first.

    Args:
        per_atom: whether structures differ in size or are periodic.
        properties: those that are trained on, too.
    """
    shown = {q.name: q.shown_per_atom if per_atom else q.shown for q in QUANTITIES}
    return shown | {one.name: quantity_of(one, ()).shown for one in properties}
