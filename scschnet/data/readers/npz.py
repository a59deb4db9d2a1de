"""NumPy archives: MD17, sGDML and revised MD17 (one composition), and flat sets such as QM9's.

One composition: R (N, n, 3), z (n,), E (N,) or (N, 1), F (N, n, 3). Flat: R (atoms, 3), Z (atoms,),
offset (N + 1,) or n_atoms (N,), E or U0 (N,), F (atoms, 3). Either may have cell or lattice, and
pbc. Units stand in r_unit, e_unit, f_unit, or per key in units ("U0, gap: Hartree; Cv: ...").
"""

from __future__ import annotations

import difflib
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from scschnet.archive import ERRORS_OF_ZIPFILE
from scschnet.data.habits import field_of, note_of
from scschnet.data.readers.raw import RawSet
from scschnet.kinds import POSITION_KEYS
from scschnet.properties import Property
from scschnet.quantities import QUANTITIES, Quantity
from scschnet.units import Units

NUMBERS = ("z", "Z", "nuclear_charges", "atomic_numbers", "numbers")
WEIGHTS = ("weights", "weight", "config_weight")
QM9_ENERGY = "U0"
_DESCRIPTIVE = {"type", "md5", "atomref_z"}


def read_npz(
    path: Path, asked: dict[str, str | None], properties: Sequence[Property] = ()
) -> RawSet:
    """Read one archive; nothing pickled is ever loaded.

    Args:
        path: the .npz file.
        asked: for each quantity the key of its values (of a virial in place of a stress, which is converted);
            None: its usual keys, and U0 as the last one for energies.
        properties: to be read, too, each under its name.

    Raises:
        ValueError: if the file is damaged, a key is missing or a shape does not fit.
    """
    # Opened here: np.load leaves the file open when the archive is damaged.
    with path.open("rb") as content:
        if not zipfile.is_zipfile(content):
            raise ValueError(f"`{path.name}` must be a whole .npz archive, got another file")
        content.seek(0)
        try:
            with np.load(content, allow_pickle=False) as file:
                return _Archive(path.name, file).raw_set(asked, properties)
        except ValueError:  # says itself what is wrong
            raise
        except ERRORS_OF_ZIPFILE as error:
            raise ValueError(f"`{path.name}` must be a whole .npz archive, got {error}") from error


class _Archive:
    """An open archive and the finding of arrays in it."""

    def __init__(self, name: str, file: NpzFile) -> None:
        self.name, self.file = name, file
        self.read: set[str] = set()

    def raw_set(self, asked: dict[str, str | None], properties: Sequence[Property]) -> RawSet:
        positions = self.required("positions", POSITION_KEYS)
        if positions.ndim not in (2, 3):
            raise self.misshapen(self.found(POSITION_KEYS), "(N, n, 3) or (atoms, 3)", positions)
        self.shaped(self.found(POSITION_KEYS), positions, (*positions.shape[:-1], 3))
        if positions.ndim == 3:
            n_frames, n_atoms = positions.shape[:2]
            atom_ptr = np.arange(n_frames + 1, dtype=np.int64) * n_atoms
        else:
            atom_ptr = self.flat_atom_ptr(len(positions))
            n_frames = len(atom_ptr) - 1
        per_frame = positions.shape[1] if positions.ndim == 3 else None
        flat = (int(atom_ptr[-1]), 3)
        keys = {q.name: self.key_of(q, asked[q.name]) for q in QUANTITIES}
        labels: dict[str, Any] = {
            field_of(q.name, key): self.label(
                key, q, positions.shape[:-1] if q.per_atom else (n_frames,)
            )
            for q in QUANTITIES
            if (key := keys[q.name]) is not None
        }
        atomref = self.atomref(keys["energy"])
        weights = self.found(WEIGHTS)
        raw = RawSet(
            source=self.name,
            positions=positions.reshape(flat),
            atomic_numbers=self.numbers(n_frames, per_frame, flat[0]),
            atom_ptr=atom_ptr,
            cells=self.cells(n_frames),
            pbc=self.pbc(n_frames),
            **labels,
            atomref=atomref,
            weights=None
            if weights is None
            else self.shaped(weights, self.get(weights), (n_frames,)),
            isolated=self.isolated(n_frames),
            properties={given: self.property_values(given, n_frames) for given in properties},
            property_units=_units_by_key(self.text("units") or ""),
            units=self.units(keys["energy"]),
            info=self.info(keys, atomref),
        )
        unread = [name for name in self.file.files if name not in self.read | _DESCRIPTIVE]
        if unread:
            raw.info["not read"] = ", ".join(unread)
        return raw

    def get(self, key: str) -> NDArray:
        self.read.add(key)
        try:
            return self.file[key]
        except ValueError as error:
            if "pickle" in str(error):
                error = ValueError("Python objects (a pickle), which are never loaded")
            raise ValueError(f"`{key}` in {self.name} must be a plain array, got {error}") from None

    def found(self, keys: tuple[str, ...]) -> str | None:
        """The one of `keys` the archive has, or None.

        Raises:
            ValueError: if it has several.
        """
        present = [key for key in keys if key in self.file.files]
        if len(present) > 1:
            raise ValueError(f"{self.name} must have one of {', '.join(present)}, got all of them")
        return present[0] if present else None

    def required(self, what: str, keys: tuple[str, ...]) -> NDArray:
        key = self.found(keys)
        if key is None:
            raise ValueError(
                f"{self.name} must have {what} under one of the keys {', '.join(keys)}, "
                f"got the keys {', '.join(self.file.files)}"
            )
        return self.get(key)

    def misshapen(self, key: str | None, expected: object, array: NDArray) -> ValueError:
        return ValueError(f"`{key}` in {self.name} must have shape {expected}, got {array.shape}")

    def shaped(self, key: str | None, array: NDArray, expected: tuple[int, ...]) -> NDArray:
        if array.shape != expected:
            raise self.misshapen(key, expected, array)
        return array

    def flat_atom_ptr(self, n_atoms: int) -> NDArray[np.int64]:
        files = self.file.files
        if "offset" in files:
            atom_ptr = self.integers("offset")
        elif "n_atoms" in files:
            atom_ptr = np.concatenate([[0], np.cumsum(self.integers("n_atoms"), dtype=np.int64)])
        else:
            raise ValueError(
                f"{self.name} must have `offset` (N + 1,) or `n_atoms` (N,), since its positions "
                f"are flat, got the keys {', '.join(files)}"
            )
        if (
            atom_ptr.ndim != 1
            or not len(atom_ptr)
            or (np.diff(atom_ptr) < 0).any()
            or (atom_ptr[0] != 0 or atom_ptr[-1] != n_atoms)
        ):
            raise ValueError(
                f"`offset` in {self.name} must rise from 0 to {n_atoms}, the number of atoms"
            )
        if {"offset", "n_atoms"} <= set(files) and not np.array_equal(
            self.integers("n_atoms"), np.diff(atom_ptr)
        ):
            raise ValueError(
                f"`n_atoms` in {self.name} must equal the steps of `offset`, got others"
            )
        return atom_ptr

    def integers(self, key: str) -> NDArray[np.int64]:
        array = self.get(key)
        if array.dtype.kind not in "iu":
            raise ValueError(f"`{key}` in {self.name} must hold integers, got {array.dtype}")
        return array.astype(np.int64)

    def numbers(self, n_frames: int, per_frame: int | None, n_atoms: int) -> NDArray[np.int64]:
        self.required("atomic numbers", NUMBERS)
        key = self.found(NUMBERS)
        assert key is not None
        numbers = self.integers(key)
        if per_frame is None:
            return self.shaped(key, numbers, (n_atoms,))
        if numbers.shape == (n_frames, per_frame):
            return numbers.reshape(-1)
        return np.tile(self.shaped(key, numbers, (per_frame,)), n_frames)

    def key_of(self, quantity: Quantity, wanted: str | None) -> str | None:
        key = self.named(f"{quantity.name}_key", wanted) or self.found(quantity.npz_keys)
        if key is None and quantity.name == "energy" and QM9_ENERGY in self.file.files:
            return QM9_ENERGY
        return key

    def label(self, key: str, quantity: Quantity, rows: tuple[int, ...]) -> NDArray:
        """Values of each row; also numbers as (N, 1), and matrices as nine or six (xx yy zz yz xz xy) numbers."""
        values = self.get(key)
        if quantity.shape == () and values.shape == (*rows, 1):
            values = values[:, 0]
        if quantity.shape == (3, 3) and values.shape == (*rows, 6):
            values = values[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]]
        if quantity.shape == (3, 3) and values.shape == (*rows, 9):
            values = values.reshape(*rows, 3, 3)
        return self.shaped(key, values, (*rows, *quantity.shape)).reshape(-1, *quantity.shape)

    def property_values(self, given: Property, n_frames: int) -> NDArray:
        """A row for each frame; numbers also as (N, 1)."""
        key = self.named("properties", given.name)
        assert key is not None
        values = self.get(key)
        if values.ndim == 0 or len(values) != n_frames:
            raise self.misshapen(key, f"({n_frames}, ...)", values)
        return values[:, 0] if values.shape == (n_frames, 1) else values

    def isolated(self, n_frames: int) -> NDArray[np.bool_] | None:
        if "isolated" not in self.file.files:
            return None
        return self.shaped("isolated", self.get("isolated"), (n_frames,))

    def named(self, argument: str, wanted: str | None) -> str | None:
        if wanted is None or wanted in self.file.files:
            return wanted
        near = difflib.get_close_matches(wanted, self.file.files, n=1)
        hint = f"; nearest: {near[0]}" if near else ""
        raise ValueError(
            f"`{argument}` must be a key of {self.name} ({', '.join(self.file.files)}), "
            f"got {wanted!r}{hint}"
        )

    def cells(self, n_frames: int) -> NDArray | None:
        key = self.found(("cell", "cells", "lattice"))
        if key is None:
            return None
        cells = self.get(key)
        if cells.shape == (3, 3):
            cells = np.broadcast_to(cells, (n_frames, 3, 3))
        cells = self.shaped(key, cells, (n_frames, 3, 3))
        # sGDML keeps lattice vectors as columns under `lattice`.
        return cells.transpose(0, 2, 1) if key == "lattice" else cells

    def pbc(self, n_frames: int) -> NDArray[np.bool_] | None:
        has_cell = self.found(("cell", "cells", "lattice"))
        if "pbc" not in self.file.files:
            if has_cell in ("cell", "cells"):
                raise ValueError(
                    f"{self.name} must have `pbc` (3,) beside `{has_cell}`: which axes are "
                    "periodic is not guessed"
                )
            return None if has_cell is None else np.ones((n_frames, 3), bool)
        pbc = self.get("pbc")
        if pbc.dtype != bool and not np.isin(pbc, (0, 1)).all():
            raise ValueError(f"`pbc` in {self.name} must hold booleans, got {pbc.dtype}")
        if pbc.shape == (3,):
            pbc = np.broadcast_to(pbc, (n_frames, 3))
        return self.shaped("pbc", pbc, (n_frames, 3)).astype(bool)

    def atomref(self, energy_key: str | None) -> NDArray[np.float64] | None:
        key = f"atomref_{energy_key}"
        if key not in self.file.files or "atomref_z" not in self.file.files:
            return None
        elements, values = self.integers("atomref_z"), self.get(key)
        self.shaped(key, values, elements.shape)
        table = np.zeros(int(elements.max(initial=0)) + 1)
        table[elements] = values
        return table

    def text(self, key: str) -> str | None:
        """A string the archive holds, as str or bytes, or None."""
        if key not in self.file.files:
            return None
        value = self.get(key)
        if value.dtype.kind not in "US" or value.size != 1:
            return None
        item = value.item()
        return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)

    def units(self, energy_key: str | None) -> Units:
        per_key = _units_by_key(self.text("units") or "")
        energy = per_key.get(energy_key or "") or self.text("e_unit")
        try:
            return Units(energy=energy, length=self.text("r_unit"), forces=self.text("f_unit"))
        except ValueError as error:
            raise ValueError(f"{self.name} declares a unit that is not known: {error}") from None

    def info(self, keys: dict[str, str | None], atomref: NDArray | None) -> dict[str, str]:
        info = {"format": "npz"}
        for key in ("name", "theory"):
            text = self.text(key)
            if text is not None:
                info[key] = text
        info |= {
            f"{name} key": key + note_of(name, key) for name, key in keys.items() if key is not None
        }
        if atomref is not None:
            info["atomref"] = f"atomref_{keys['energy']} of the file"
        return info


def _units_by_key(text: str) -> dict[str, str]:
    """Units of each key, from a text such as "U0,gap: Hartree; Cv: cal/(mol K)"."""
    units = {}
    for part in text.split(";"):
        keys, colon, unit = part.partition(":")
        if colon:
            units.update(dict.fromkeys(re.findall(r"\w+", keys), unit.strip()))
    return units
