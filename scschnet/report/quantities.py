"""Which errors a report puts first, and in which units: per atom where structures differ in size or are periodic."""

from dataclasses import dataclass

from scschnet.report.material import Material
from scschnet.units import energy_factor, stress_factor


@dataclass(frozen=True)
class Quantity:
    """One kind of error.

    Args:
        name: as a reader calls it.
        entry: its key in test.json.
        base: the unit of that entry which `factor` and `other` multiply, eV and Å.
        column: of metrics.csv, in the same unit.
        unit: shown first.
        factor: of `unit` for one of `base`.
        other: a second unit and its factor.
    """

    name: str
    entry: str
    base: str
    column: str
    unit: str
    factor: float
    other: tuple[str, float]


def quantities(m: Material) -> list[Quantity]:
    """Energy, forces and stress, as the training's progress shows them.

    A run of an older scschnet may know no error per atom; its energies are then shown per structure.

    Args:
        m: all there is to say.
    """
    kcal = 1.0 / energy_factor("kcal/mol")
    energy = Quantity("energy", "energy", "eV", "val_energy_mae", "kcal/mol", kcal, ("meV", 1000.0))
    forces = Quantity(
        "forces", "forces", "eV/Å", "val_forces_mae", "kcal/mol/Å", kcal, ("meV/Å", 1000.0)
    )
    if is_per_atom(m):
        column, other = "val_energy_per_atom_mae", ("kcal/mol/atom", kcal)
        energy = Quantity("energy", "energy_per_atom", "eV", column, "meV/atom", 1000.0, other)
        other = ("kcal/mol/Å", kcal)
        forces = Quantity("forces", "forces", "eV/Å", "val_forces_mae", "meV/Å", 1000.0, other)
    gpa, other = 1.0 / stress_factor("GPa"), ("meV/Å^3", 1000.0)
    return [
        energy,
        forces,
        Quantity("stress", "stress", "eV/Å^3", "val_stress_mae", "GPa", gpa, other),
    ]


def is_per_atom(m: Material) -> bool:
    """Whether energies are shown per atom: if the set asks for it, and the runs know it."""
    known = all("val_energy_per_atom_mae" in metrics for metrics in m.metrics)
    tested = all("energy_per_atom" in test for test in m.tests if "energy" in test)
    return m.runs[0].structures.is_extensive and known and tested
