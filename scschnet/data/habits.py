"""How other programs name labels, and the option of `read` that reads each name.

| program | energy | forces | stress |
|---|---|---|---|
| ASE's calculators | `free_energy`, `energy` | `forces` | `stress` |
| MACE | `REF_energy` | `REF_forces` | `REF_stress`, `REF_virials` |
| GAP, quippy | `dft_energy` | `dft_force`, `dft_forces` | `virial`, `dft_virial` |
| GPUMD's NEP, dpdata | `energy` | `force` | `virial` |
| NequIP | `total_energy` | `forces` | `stress` |
| SchNetPack (ASE database) | `energy`, `energy_U0` | `forces` | `stress` |

Only ASE's own names are read unasked. A name with "virial" in it holds minus the stress times the
volume of the cell, in units of energy: so in GAP (github.com/libAtoms/QUIP/issues/227), MACE and NequIP.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from scschnet.data.structure import StructureSet
from scschnet.quantities import QUANTITIES

_OTHERWISE = re.compile(
    r"weight|unit|std|error|gradient|stresses|energies_|per_atom", re.IGNORECASE
)


def field_of(label: str, name: str) -> str:
    """The field of `RawSet` for a label under this name: the label itself, or virial for such a stress."""
    return "virial" if label == "stress" and "virial" in name.lower() else label


def note_of(label: str, name: str) -> str:
    """What is to be said after the name under which a label was found."""
    is_virial = field_of(label, name) == "virial"
    return ", a virial: stress = -virial/volume" if is_virial else ""


def label_like(name: str) -> str | None:
    """The quantity that a name looks like, the later of `QUANTITIES` first, or None."""
    if _OTHERWISE.search(name):
        return None
    alike = (q.name for q in reversed(QUANTITIES) if re.search(q.looks_like, name, re.IGNORECASE))
    return next(alike, None)


def key_options(unread: Iterable[str], label: str) -> str:
    """Options that read the names among `unread` that look like `label`: "--energy-key REF_energy"."""
    names = [name for name in unread if label_like(name) == label]
    return " or ".join(f"--{label}-key {name}" for name in names)


def label_hint(structures: StructureSet, label: str) -> str:
    """What the file of a set holds that looks like a missing label, as the end of a message.

    Args:
        structures: as read; `info["not read"]` lists what was left out.
        label: name of a quantity.

    Returns:
        Such as "; it has REF_energy, REF_forces, not read: --energy-key REF_energy", or "".
    """
    unread = structures.info.get("not read", "")
    if not unread:
        return ""
    options = key_options(unread.split(", "), label)
    return f"; it has {unread}, not read" + (f": {options}" if options else "")
