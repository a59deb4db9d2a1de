"""ASE calculator: energy, forces and stress of a trained model, for dynamics, relaxation and everything else in ASE."""

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
    all_properties,
)
from ase.io import extxyz
from ase.outputs import ArrayProperty, ScalarProperty, all_outputs
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray
from torch import Tensor

from scschnet.checkpoint import checkpoint_path, load_checkpoint
from scschnet.committee import is_committee, load, member_folders
from scschnet.elements import check_elements
from scschnet.export import ExportedModel, load_exported
from scschnet.export.metadata import Source, read_source
from scschnet.export.writer import in_memory
from scschnet.kinds import Kind, kind_of
from scschnet.neighbors import neighbor_list
from scschnet.nn import SchNet
from scschnet.nn.committee import Committee
from scschnet.nn.error_bars import NAMES as ERROR_BARS
from scschnet.nn.error_bars import ErrorBars, trial_forces_of_structures
from scschnet.nn.head import HEADS
from scschnet.nn.unfamiliarity import KEY, NormStatistics, unfamiliarity

DTYPES = {"float32": torch.float32, "float64": torch.float64}
COINCIDENT = (
    1e-6  # Å; closer atoms are on one point up to rounding, and their force has no direction
)
INPUTS = ("positions", "numbers", "cell", "pbc")
ENERGIES = ("energy", "free_energy", "energies", "forces", "stress")


def _introduce_error_bars() -> None:
    """Tell ASE of results that it does not know, so that it keeps, writes and reads them as its own.

    Without it `SinglePointCalculator(atoms, **calc.results)` and `calc.export_properties()` fail on them.
    """
    of_config, *of_atoms = ERROR_BARS
    all_outputs[of_config] = ScalarProperty(of_config, float)
    all_outputs.update({name: ArrayProperty(name, float, ("natoms",)) for name in of_atoms})
    all_properties.extend(ERROR_BARS)
    extxyz.per_config_properties.append(of_config)
    extxyz.per_atom_properties.extend(of_atoms)


_introduce_error_bars()


class ScSchNetCalculator(Calculator):
    """A trained model as an ASE calculator.

    The neighbor list is rebuilt for every new geometry. Forces bring energies and, if the cell has a
    volume, the stress along; an energy alone is computed without derivatives.

    Args:
        path_or_model: run folder, checkpoint file, committee folder, exported file, or a model or
            committee, of which a copy is taken.
        device: where the model runs, such as "cpu" or "cuda:1".
        dtype: "float32" or "float64" (also as torch dtype) of the network; None: as it is. Pair
            vectors, sums over atoms and results are float64 anyway. An exported file has its own.

    Results, as ASE defines them: energy and free_energy, eV, the same number; energies (n_atoms,), eV;
    forces (n_atoms, 3), eV/Å; stress (6,), eV/Å^3, xx yy zz yz xz xy of (1/V) dE/dstrain, tension
    positive. All NumPy float64. Besides, every property that a model was trained on, by its name and in its unit: one
    called `dipole`, of ASE's files, is ASE's `dipole`, e Å. A model that was not trained on energies has its properties
    alone; those that mean something for molecules only are left out of periodic structures.

    Error bars of a committee, or with forces of a checkpoint that has statistics of its errors (scschnet analysis
    error-bars RUN adds them): energy_std, eV; energies_std (n_atoms,), eV; forces_std (n_atoms,), eV/Å, the
    expected size of the error of the force on every atom (docs/uncertainty.md).

    Attributes:
        unfamiliarity: of the last results, (n_atoms,) float64: above 1 an atom is stranger than 99 % of the
            held-out ones (scschnet.nn.unfamiliarity). None before a result is asked for, and where the
            checkpoint holds no statistics of its training set, as every finished run does.

    Raises:
        TypeError: if `path_or_model` is neither a path nor a model.
        ValueError: if `dtype` is unknown, or given for an exported file of another one. When a result is
            asked for: if the atoms hold an element the model was not trained on, two of them lie on one point, a position is not finite, or a
            periodic axis has no cell vector.
        PropertyNotImplementedError: when the stress is asked for and the cell has no volume, or a property that the
            model does not have, or not for a periodic structure.
    """

    implemented_properties = [*ENERGIES]  # noqa: RUF012

    def __init__(
        self,
        path_or_model: str | os.PathLike[str] | SchNet | Committee,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.unfamiliarity: NDArray[np.float64] | None = None
        self.device = torch.device(device)
        self._exported: ExportedModel | None = None  # a file, or the model as a file would hold it
        self._source: Source | None = None  # of such a model
        self._familiar: list[tuple[Tensor, Tensor]] = []
        self._error_bars: ErrorBars | None = None  # of a single model
        if _is_exported(path_or_model):
            self._take_exported(path_or_model, _torch_dtype(dtype))
        else:
            with torch.inference_mode(False):  # parameters made in it could not be used outside
                self._take(path_or_model, _torch_dtype(dtype))
        self._numbers = np.zeros(0, np.int64)  # of the atoms the next two tensors belong to
        self._atomic_numbers = self._tensor(self._numbers)
        self._idx_m = self._tensor(self._numbers)

    def _take(
        self,
        path_or_model: str | os.PathLike[str] | SchNet | Committee,
        dtype: torch.dtype | None,
    ) -> None:
        model: SchNet | Committee
        source = None
        if isinstance(path_or_model, SchNet):
            source = Source(copy.deepcopy(path_or_model))
            model = source.model
        elif isinstance(path_or_model, Committee):
            model = copy.deepcopy(path_or_model)
        elif isinstance(path_or_model, (str, os.PathLike)):
            self._familiar = _norm_tables(path_or_model, self.device)
            model = load(path_or_model)
            if isinstance(model, SchNet):
                source = replace(read_source(Path(path_or_model)), model=model)
        else:
            raise TypeError(
                "`path_or_model` must be a run folder, a checkpoint file or a SchNet, "
                f"got {type(path_or_model).__name__}"
            )
        self.model = model.to(self.device, dtype).eval().requires_grad_(False)
        self._elements, self._cutoff = model.config.elements, model.config.cutoff
        energies = ENERGIES if model.config.energy else ()
        self._heads = {head.name: head.kind for head in model.config.heads}
        self.implemented_properties = [*energies, *self._heads]
        errors = None if source is None else source.errors
        if errors is not None:
            self._error_bars = ErrorBars(errors).to(self.device)
        if errors is not None or isinstance(model, Committee):
            self._promise_error_bars()
        if self.device.type == "cpu":
            self._source = source

    def _take_exported(self, path: str | os.PathLike[str], dtype: torch.dtype | None) -> None:
        self._exported = load_exported(path, self.device)
        metadata = self._exported.metadata
        if dtype is not None and dtype is not DTYPES[metadata["dtype"]]:
            raise ValueError(
                f"`dtype` must be {metadata['dtype']}, that of the exported file {path}, got "
                f"{str(dtype).removeprefix('torch.')}"
            )
        self._elements, self._cutoff = tuple(metadata["elements"]), metadata["cutoff"]
        self._heads = {head["name"]: head["kind"] for head in metadata.get("properties", ())}
        energies = ENERGIES if metadata.get("energy", True) else ()
        self.implemented_properties = [*energies, *self._heads]
        if metadata.get("error_bars"):
            self._promise_error_bars()

    def _promise_error_bars(self) -> None:
        self.implemented_properties = [*self.implemented_properties, *ERROR_BARS]

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """As ASE defines it; error bars of a model that has none are refused with what helps."""
        if name in ERROR_BARS and name not in self.implemented_properties:
            raise PropertyNotImplementedError(
                "the model has no error bars: scschnet analysis error-bars RUN adds them, and scschnet train "
                "--committee 4 trains a committee"
            )
        return super().get_property(name, atoms, allow_calculation)

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What differs from the atoms of the last results, to the bit; ASE's own check takes much longer.

        Args:
            atoms: the structure.
            tol: not used; positions must be equal to the last bit.

        Returns:
            Names out of positions, numbers, cell, pbc. Charges, magnetic moments and the like do not
            enter the model.
        """
        last = self.atoms
        if last is None:
            return list(INPUTS)
        pairs = (
            (last.positions, atoms.positions),
            (last.numbers, atoms.numbers),
            (last.cell.array, atoms.cell.array),
            (last.pbc, atoms.pbc),
        )
        return [name for name, pair in zip(INPUTS, pairs, strict=True) if not _same_bits(*pair)]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`; ASE calls this when it has no valid result.

        Args:
            atoms: the structure; None: the last one.
            properties: names out of `implemented_properties`.
            system_changes: what changed since the last call; not used, inputs are cheap.
        """
        if atoms is not None:
            self.atoms = atoms.copy()
        atoms = self.atoms
        if atoms is None:
            raise ValueError("`atoms` must be given: the calculator has not seen any yet")
        has_volume = atoms.cell.rank == 3
        if "stress" in properties and not has_volume:
            raise PropertyNotImplementedError(
                "stress needs a cell with three independent vectors, got "
                f"cell {atoms.cell.tolist()}"
            )
        of_molecules = self._of_molecules() if atoms.pbc.any() else []
        for name in of_molecules:
            if name in properties:
                raise PropertyNotImplementedError(
                    f"{name} means nothing for a periodic structure, got pbc {atoms.pbc.tolist()}"
                )
        wanted = (
            {"forces", "stress", "forces_std"}
            if self._error_bars is None
            else {*ERROR_BARS, "forces", "stress"}
        )
        derivatives = not wanted.isdisjoint(properties)
        with torch.inference_mode(False):
            self._keep_elements(atoms.numbers)
        with torch.inference_mode(False), torch.no_grad():
            exported = self._called(derivatives)
            if exported is None:
                found = self._from_model(atoms, derivatives, has_volume)
            else:
                found = self._from_exported(exported, atoms, has_volume)
        results: dict[str, Any] = {
            name: value.cpu().numpy() for name, value in found.items() if name not in of_molecules
        }
        results = {name: v if v.ndim else float(v) for name, v in results.items()}
        if "energy" in results:
            results["free_energy"] = results["energy"]
        if "stress" in results:
            results["stress"] = full_3x3_to_voigt_6_stress(results["stress"])
        self.results = results

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and sent to other processes: TorchScript cannot be, but is made again from the model."""
        made = {} if self._source is None else {"_exported": None}
        return self.__dict__ | made

    def _called(self, derivatives: bool) -> ExportedModel | None:
        """What answers in place of the model: a file, or on CPUs what a file would hold, which takes a fifth less time.

        It always computes forces, so energies alone come from the model.
        """
        if self._source is None:
            return self._exported
        if not derivatives or self._source.model.filters != "spline":
            return None
        if self._exported is None:
            self._exported = in_memory(self._source)
        return self._exported

    def _from_model(self, atoms: Atoms, derivatives: bool, has_volume: bool) -> dict[str, Tensor]:
        inputs = self._inputs(atoms)
        bars = self._error_bars if derivatives else None
        found = self.model(
            *inputs,
            forces=derivatives,
            stress=derivatives and has_volume,
            correction_norms=bool(self._familiar),
            **({} if bars is None else {"representation": True}),
        )
        of_bars = {} if bars is None else self._bars(bars, found.pop("representation"), inputs)
        if self._familiar:
            norms = found.pop("correction_norms")
            of_members = norms.reshape(len(self._familiar), -1, norms.shape[-1])
            scores = [
                unfamiliarity(of_member, self._atomic_numbers, *tables)
                for of_member, tables in zip(of_members, self._familiar, strict=True)
            ]
            self.unfamiliarity = torch.stack(scores).mean(0).cpu().numpy()
        of_structure = {"energy", "energy_std", "stress", *self._heads}
        results = {name: v[0] if name in of_structure else v for name, v in found.items()}
        return results | of_bars

    def _bars(
        self, bars: ErrorBars, x_out: Tensor, inputs: tuple[Tensor, ...]
    ) -> dict[str, Tensor]:
        """The error bars of the structure that `inputs` describe."""
        positions, numbers, idx_m, cells, idx_i, idx_j, shifts = inputs
        trial = trial_forces_of_structures(
            positions, cells, idx_m, idx_i, idx_j, shifts, bars.reach
        )
        return dict(zip(ERROR_BARS, bars(x_out, numbers, trial), strict=False))

    def _from_exported(
        self, exported: ExportedModel, atoms: Atoms, has_volume: bool
    ) -> dict[str, Tensor]:
        inputs = (atoms.positions, atoms.cell.array, atoms.pbc)
        positions, cell, pbc = (self._tensor(array) for array in inputs)
        try:
            found = exported.forward(positions, self._atomic_numbers, cell, pbc)
        except ValueError:
            self._pairs(atoms)  # says better what is wrong with the structure
            raise
        if "unfamiliarity" in found:
            self.unfamiliarity = found["unfamiliarity"].cpu().numpy()
        names = ("energy", "energies", "forces", *ERROR_BARS, *self.names_of_properties())
        results = {name: found[name] for name in names if name in found}
        if has_volume and "virial" in found:
            results["stress"] = -found["virial"] / atoms.get_volume()
        return results

    def names_of_properties(self) -> list[str]:
        """What the model predicts beside energies, forces, stress and error bars."""
        return [*self._heads]

    def _of_molecules(self) -> list[str]:
        """Properties that mean nothing for a periodic structure."""
        return [name for name, kind in self._heads.items() if HEADS[kind].is_of_molecules]

    def _keep_elements(self, numbers: NDArray[np.int64]) -> None:
        """Check the elements and make their tensor, if they are not those of the last call."""
        if _same_bits(numbers, self._numbers):
            return
        check_elements(numbers.tolist(), self._elements, "`atoms`")
        self._numbers = numbers.copy()
        self._atomic_numbers = self._tensor(numbers.astype(np.int64))
        self._idx_m = torch.zeros_like(self._atomic_numbers)

    def _inputs(self, atoms: Atoms) -> tuple[Tensor, ...]:
        """The arguments of the model, neighbor list included."""
        idx_i, idx_j, shifts = self._pairs(atoms)
        return (
            self._tensor(atoms.positions),
            self._atomic_numbers,
            self._idx_m,
            self._tensor(atoms.cell.array[None]),
            self._tensor(idx_i),
            self._tensor(idx_j),
            self._tensor(shifts),
        )

    def _pairs(
        self, atoms: Atoms
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Centers, neighbors and shifts of all pairs; what is wrong with the structure is said here."""
        idx_i, idx_j, shifts, d_ij = neighbor_list("ijSd", atoms, self._cutoff)
        if d_ij.size and d_ij.min() < COINCIDENT:
            _raise_coincident(atoms, idx_i, idx_j, d_ij)
        return idx_i, idx_j, shifts

    def _tensor(self, array: NDArray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _is_exported(path_or_model: object) -> TypeGuard[str | os.PathLike[str]]:
    if not isinstance(path_or_model, (str, os.PathLike)):
        return False
    return Path(path_or_model).exists() and kind_of(path_or_model) is Kind.EXPORTED


def _norm_tables(path: str | os.PathLike[str], device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """What the unfamiliarity of a model, or of every member of a committee, needs; empty if one has none."""
    paths = member_folders(path) if is_committee(path) else [path]
    metadata = [load_checkpoint(checkpoint_path(p)).metadata for p in paths]
    if not all(KEY in of_member for of_member in metadata):
        return []
    tables = [NormStatistics.from_json(of_member[KEY]).tables() for of_member in metadata]
    return [(mean.to(device), whitening.to(device)) for mean, whitening in tables]


def _torch_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or dtype in DTYPES.values():
        return dtype  # type: ignore[return-value]  # a string is no value of DTYPES
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {dtype}")
    return DTYPES[dtype]


def _same_bits(a: NDArray, b: NDArray) -> bool:
    """Much faster than np.array_equal on small arrays; asked four times per step of dynamics."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def _raise_coincident(
    atoms: Atoms, idx_i: NDArray[np.int64], idx_j: NDArray[np.int64], d_ij: NDArray[np.float64]
) -> None:
    first = int(np.argmin(d_ij))
    one, other = (f"{k} ({atoms.symbols[k]})" for k in (idx_i[first], idx_j[first]))
    raise ValueError(
        f"`atoms` must lie on different points, got atoms {one} and {other} on the same one"
    )
