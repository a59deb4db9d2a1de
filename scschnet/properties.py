"""Properties that heads learn: the name of each, the kind of head that makes it, and its unit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

RESERVED = ("energy", "energies", "forces", "stress", "virial", "correction_norms", "unfamiliarity")
"""What a model and an exported file call their own results, beside others that end in `_atoms`, `_energies`."""


class Property(NamedTuple):
    """A property of structures that a head learns.

    Args:
        name: in files, tables and the results of a model.
        kind: of the head, a key of `scschnet.nn.head.HEADS`.
        unit: in which it is stored; empty: whatever the file has, which is taken as it stands.
    """

    name: str
    kind: str
    unit: str = ""

    @property
    def text(self) -> str:
        """What `parse_property` makes it of."""
        return self.name if KNOWN.get(self.name) == self else f"{self.name}:{self.kind}"


QM9 = (
    Property("U0", "sum", "eV"),
    Property("mu", "dipole_norm", "D"),
    Property("alpha", "sum", "a0^3"),
    Property("homo", "mean", "eV"),
    Property("lumo", "mean", "eV"),
    Property("gap", "mean", "eV"),
    Property("r2", "extent", "a0^2"),
    Property("zpve", "sum", "eV"),
    Property("U", "sum", "eV"),
    Property("H", "sum", "eV"),
    Property("G", "sum", "eV"),
    Property("Cv", "sum", "cal/(mol K)"),
)
"""The twelve of QM9 on which models are compared.   doi:10.1038/sdata.2014.22; Schuett et al. 2018,
doi:10.1063/1.5019779, Table I; Gilmer et al. 2017, arXiv:1704.01212"""
KNOWN = {known.name: known for known in QM9}

_SPELLINGS = {
    "D": ("debye", "d"),
    "a0^2": ("bohr^2", "bohr**2", "a0^2", "a_0^2"),
    "a0^3": ("bohr^3", "bohr**3", "a0^3", "a_0^3"),
    "cal/(mol K)": ("cal/(mol k)", "cal/mol/k", "cal/mol k", "cal/molk"),
}


def parse_property(text: str) -> Property:
    """A property by its name, or as NAME:KIND, whose values are then taken as they stand in the file.

    Raises:
        ValueError: if the name is no word, is that of another result, or is unknown and no kind is given.
    """
    name, colon, kind = text.partition(":")
    if not colon and name in KNOWN:
        return KNOWN[name]
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ValueError(f"`properties` must name words such as mu or charge:sum, got {text!r}")
    if not kind:
        raise ValueError(
            f"`properties` must be among {', '.join(KNOWN)}, or NAME:KIND for another one, got {text!r}"
        )
    return checked(Property(name, kind))


def checked(given: Property) -> Property:
    """The property itself, if its name can be that of a result.

    Raises:
        ValueError: if it cannot.
    """
    if given.name in RESERVED or given.name.endswith(("_atoms", "_energies")):
        raise ValueError(f"`properties` must not be named {given.name}, which is another result")
    return given


def parse_properties(texts: Iterable[str]) -> tuple[Property, ...]:
    """Each of some properties, see `parse_property`.

    Raises:
        ValueError: as that, and if a name stands twice.
    """
    found = tuple(parse_property(text) for text in texts)
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"`properties` must name each once, got {name} twice")
    return found


def same_unit(stated: str, unit: str) -> bool:
    """Whether a unit that a file states is `unit`, which is no energy."""
    return stated.strip().casefold() in (unit.casefold(), *_SPELLINGS.get(unit, ()))
