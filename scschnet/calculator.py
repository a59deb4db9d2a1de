"""ASE calculator: energy, forces and stress of a trained model, for dynamics, relaxation and everything else in ASE."""

import copy
import os
from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray
from torch import Tensor

from scschnet.checkpoint import checkpoint_path, load, load_checkpoint
from scschnet.elements import symbols
from scschnet.neighbors import neighbor_list
from scschnet.nn import SchNet, error_bars
from scschnet.nn.error_bars import ErrorBars, ErrorStatistics
from scschnet.nn.geometry import pair_vectors
from scschnet.nn.unfamiliarity import KEY, NormStatistics, unfamiliarity

DTYPES = {"float32": torch.float32, "float64": torch.float64}
COINCIDENT = (
    1e-6  # Å; closer atoms are on one point up to rounding, and their force has no direction
)
INPUTS = ("positions", "numbers", "cell", "pbc")


class ScSchNetCalculator(Calculator):
    """A trained model as an ASE calculator.

    The neighbor list is rebuilt for every new geometry. Forces bring energies and, if the cell has a
    volume, the stress along; an energy alone is computed without derivatives.

    Args:
        path_or_model: run folder, checkpoint file, or a model, of which a copy is taken.
        device: where the model runs, such as "cpu" or "cuda:1".
        dtype: "float32" or "float64" (also as torch dtype) of the network; None: as it is. Pair
            vectors, sums over atoms and results are float64 anyway.

    Results, as ASE defines them: energy and free_energy, eV, the same number; energies (n_atoms,), eV;
    forces (n_atoms, 3), eV/Å; stress (6,), eV/Å^3, xx yy zz yz xz xy of (1/V) dE/dstrain, tension
    positive. All NumPy float64.
    With forces and a checkpoint that has statistics of its errors (python -m scschnet.analysis error-bars RUN adds them):
    energy_std, eV; energies_std (n_atoms,), eV; forces_std (n_atoms,), eV/Å, the expected size of the error of
    the force on every atom (scschnet.nn.error_bars).

    Attributes:
        unfamiliarity: of the last results, (n_atoms,) float64: above 1 an atom is stranger than 99 % of the
            held-out ones (scschnet.nn.unfamiliarity). None before a result is asked for, and where the
            checkpoint holds no statistics of its training set, as every finished run does.

    Raises:
        TypeError: if `path_or_model` is neither a path nor a model.
        ValueError: if `dtype` is unknown. When a result is asked for: if the atoms hold an element the
            model was not trained on, two of them lie on one point, a position is not finite, or a
            periodic axis has no cell vector.
        PropertyNotImplementedError: when the stress is asked for and the cell has no volume.
    """

    implemented_properties = [  # noqa: RUF012
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        *error_bars.NAMES,
    ]

    def __init__(
        self,
        path_or_model: str | os.PathLike[str] | SchNet,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.unfamiliarity: NDArray[np.float64] | None = None
        with torch.inference_mode(False):  # parameters made in it could not be used outside
            self._take(path_or_model, device, dtype)

    def _take(
        self,
        path_or_model: str | os.PathLike[str] | SchNet,
        device: str | torch.device,
        dtype: str | torch.dtype | None,
    ) -> None:
        statistics = errors = None
        if isinstance(path_or_model, SchNet):
            model = copy.deepcopy(path_or_model)
        elif isinstance(path_or_model, (str, os.PathLike)):
            model = load(path_or_model)
            metadata = load_checkpoint(checkpoint_path(path_or_model)).metadata
            statistics, errors = metadata.get(KEY), metadata.get(error_bars.KEY)
        else:
            raise TypeError(
                "`path_or_model` must be a run folder, a checkpoint file or a SchNet, "
                f"got {type(path_or_model).__name__}"
            )
        self.device = torch.device(device)
        self.model = model.to(self.device, _torch_dtype(dtype)).eval().requires_grad_(False)
        self._familiar: tuple[Tensor, Tensor] | None = None
        if statistics is not None:
            mean, whitening = NormStatistics.from_json(statistics).tables()
            self._familiar = mean.to(self.device), whitening.to(self.device)
        self._error_bars: ErrorBars | None = None
        if errors is not None:
            self._error_bars = ErrorBars(ErrorStatistics.from_json(errors)).to(self.device)
        self._known = np.array(self.model.config.elements)
        self._numbers = np.zeros(0, np.int64)  # of the atoms the next two tensors belong to
        self._atomic_numbers = self._tensor(self._numbers)
        self._idx_m = self._tensor(self._numbers)

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
        bars = any(name in properties for name in error_bars.NAMES)
        if bars and self._error_bars is None:
            raise PropertyNotImplementedError(
                "the model has no error bars: python -m scschnet.analysis error-bars RUN adds them"
            )
        derivatives = bars or "forces" in properties or "stress" in properties
        with torch.inference_mode(False):
            self._keep_elements(atoms.numbers)
        with torch.inference_mode(False), torch.no_grad():
            inputs = self._inputs(atoms)
            wanted = derivatives and self._error_bars is not None
            found = self.model(
                *inputs,
                forces=derivatives,
                stress=derivatives and has_volume,
                correction_norms=self._familiar is not None,
                representation=wanted,
            )
            x_out = found.pop("representation", None)
            if x_out is not None and self._error_bars is not None:
                found |= self._bars(self._error_bars, x_out, inputs)
            norms = found.pop("correction_norms", None)
            if norms is not None and self._familiar is not None:
                scores = unfamiliarity(norms, self._atomic_numbers, *self._familiar)
                self.unfamiliarity = scores.cpu().numpy()
        results = {name: value.cpu().numpy() for name, value in found.items()}
        results["energy"] = float(results["energy"][0])
        results["free_energy"] = results["energy"]
        if "energy_std" in results:
            results["energy_std"] = float(results["energy_std"])
        if "stress" in results:
            results["stress"] = full_3x3_to_voigt_6_stress(results["stress"][0])
        self.results = results

    def _keep_elements(self, numbers: NDArray[np.int64]) -> None:
        """Check the elements and make their tensor, if they are not those of the last call."""
        if _same_bits(numbers, self._numbers):
            return
        unknown = np.setdiff1d(numbers, self._known)
        if unknown.size:
            raise ValueError(
                f"`atoms` must hold only {symbols(self._known)}, the elements the model was trained "
                f"on, got {symbols(unknown)}"
            )
        self._numbers = numbers.copy()
        self._atomic_numbers = self._tensor(numbers.astype(np.int64))
        self._idx_m = torch.zeros_like(self._atomic_numbers)

    def _bars(
        self, bars: ErrorBars, x_out: Tensor, inputs: tuple[Tensor, ...]
    ) -> dict[str, Tensor]:
        """The error bars of the structure that `inputs` describe."""
        positions, numbers, idx_m, cells, idx_i, idx_j, shifts = inputs
        r_ij = pair_vectors(positions, cells, idx_m, idx_i, idx_j, shifts)
        d_ij = torch.linalg.vector_norm(r_ij, dim=1)
        trial = bars.trial_forces(idx_i, idx_j, r_ij, d_ij, len(numbers), half=False)
        return dict(zip(error_bars.NAMES, bars(x_out, numbers, trial), strict=True))

    def _inputs(self, atoms: Atoms) -> tuple[Tensor, ...]:
        """The arguments of the model, neighbor list included."""
        idx_i, idx_j, shifts, d_ij = neighbor_list("ijSd", atoms, self.model.config.cutoff)
        if d_ij.size and d_ij.min() < COINCIDENT:
            _raise_coincident(atoms, idx_i, idx_j, d_ij)
        return (
            self._tensor(atoms.positions),
            self._atomic_numbers,
            self._idx_m,
            self._tensor(atoms.cell.array[None]),
            self._tensor(idx_i),
            self._tensor(idx_j),
            self._tensor(shifts),
        )

    def _tensor(self, array: NDArray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


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
