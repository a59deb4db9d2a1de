"""Error bars from a single model: how large the errors of its energy and of its forces are expected to be.

The error of the force on an atom is a regression on the validation structures:

ln s_i = b_Z + a ln d_i + max(0, 1 - a) max(0, ln(d_i / q_Z)) + [beta . x_i^out + sum_k gamma_k ln |t_ik|]
d_i^2 = (x_i^out - m_Z)^T S_Z^-1 (x_i^out - m_Z),   t_ik = sum_j (1 - d_ij / R)^p_k r_ij / d_ij   over d_ij < R

s_i is the root of the mean square of |dF_i|. d_i is the distance of Mahalanobis (1936) from the training atoms of the element,
and q_Z its 99 % quantile over the validation atoms, beyond which s_i grows at least as fast as d_i. The force on an atom, and with
it its error, vanishes where its surroundings are symmetric, and so do the t_ik, forces of trial pair potentials. What stands in
brackets is held within what the validation atoms have, so that no extrapolated regression makes a strange atom certain.

The error of an energy is the prediction rigidity of a linear readout, with the representation as features of the last layer:

s_E^2 = X^T A X,   X = sum_i x_i^out,   A proportional to (sum over training structures of X X^T)^-1
Bigi, Chong, Ceriotti, Grasselli 2024, doi:10.1088/2632-2153/ad805f

The formula of s_i is ours. All terms of an atom come from its own representation and its own pairs, so that they are the same with
ghosts and without.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from scschnet import ops
from scschnet.nn.config import MAX_Z
from scschnet.nn.geometry import pair_vectors

KEY = "error_bars"
"""The key of the statistics in the metadata of a checkpoint."""

NAMES = ("energy_std", "energies_std", "forces_std")
"""What `ErrorBars` returns, in this order."""

POWERS = (1.0, 2.0, 4.0, 8.0)  # p_k


@dataclass(frozen=True, eq=False)
class ErrorStatistics:
    """What `ErrorBars` is made of.

    Args:
        elements: atomic numbers, ascending.
        mean: m_Z, (n_elements, n_features).
        whitening: upper triangular with product with its transpose S_Z^-1, (n_elements, n_features, n_features).
        energy_root: with product with its transpose A, (n_features, n_features), eV.
        offset: b_Z, (n_elements,), of eV/Å.
        slope: a, not negative.
        quantile: q_Z, (n_elements,).
        linear: beta, (n_features,).
        trial: gamma, as many as `POWERS`.
        bounds: between which the bracket is held.
        reach: R, Å.
        n_train: atoms of each element that m_Z and S_Z come from.
        n_val: atoms of each element of the validation structures.
    """

    elements: list[int]
    mean: list[list[float]]
    whitening: list[list[list[float]]]
    energy_root: list[list[float]]
    offset: list[float]
    slope: float
    quantile: list[float]
    linear: list[float]
    trial: list[float]
    bounds: tuple[float, float]
    reach: float
    n_train: list[int]
    n_val: list[int]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists, for the metadata of a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The statistics from what `to_json` returned.

        Raises:
            ValueError: if something is missing or has the wrong shape.
        """
        try:
            found = cls(**content)
            n_features = len(found.linear)
            shape = (len(found.elements), n_features, n_features)
            if torch.tensor(found.whitening).shape != shape:
                raise ValueError(f"`whitening` must have shape {shape}")
        except (TypeError, ValueError) as error:
            raise ValueError(f"`content` must be statistics of errors: {error}") from error
        return found


class ErrorBars(nn.Module):
    """The equations above, for TorchScript and Python.

    Args:
        statistics: of a model's errors.
    """

    rows: Tensor
    of_elements: Tensor
    """infinity where an element is unknown, else 0; b_Z; ln q_Z; (3, max_z + 2)"""
    matrix: Tensor
    bias: Tensor
    trial: Tensor

    def __init__(self, statistics: ErrorStatistics) -> None:
        super().__init__()
        s = statistics
        self.n_elements, self.n_features = len(s.elements), len(s.linear)
        self.slope, self.reach = s.slope, s.reach
        self.low, self.high = s.bounds
        mean, whitening = _tensor(s.mean), _tensor(s.whitening)
        away = torch.bmm(mean.unsqueeze(1), whitening).reshape(-1)
        others = torch.cat([_tensor(s.energy_root), _tensor(s.linear).unsqueeze(1)], 1)
        wide = whitening.permute(1, 0, 2).reshape(self.n_features, -1)
        # One product gives whitened distances from every element, features of the energy, and beta . x.
        self.register_buffer("matrix", torch.cat([wide, others], 1))
        self.register_buffer("bias", nn.functional.pad(-away, (0, self.n_features + 1)))
        places = torch.tensor(s.elements, dtype=torch.int64)
        rows = torch.zeros(MAX_Z + 2, dtype=torch.int64)
        self.register_buffer("rows", rows.index_copy(0, places, torch.arange(self.n_elements)))
        unknown = torch.full((MAX_Z + 2,), math.inf, dtype=torch.float64)
        of_elements = (
            unknown.index_fill(0, places, 0.0),
            unknown.index_copy(0, places, _tensor(s.offset)),
            torch.zeros_like(unknown).index_copy(0, places, _tensor(s.quantile).log()),
        )
        self.register_buffer("of_elements", torch.stack(of_elements))
        self.register_buffer("trial", _tensor(s.trial))

    def forward(
        self, x_out: Tensor, atomic_numbers: Tensor, trial_forces: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The error bars of atoms, and of their energy.

        Args:
            x_out: representation, (n_atoms, n_features).
            atomic_numbers: (n_atoms,) int64.
            trial_forces: |t_ik|, (n_atoms, 4).

        Returns:
            energy_std () of the sum of all energies, eV; energies_std (n_atoms,), eV; forces_std (n_atoms,), eV/Å;
            energy_deviations (n_features,), eV, whose root mean square is energy_std: a host adds those of all its
            processes up before it takes that. float64; infinite where an element is unknown, but for the last.
        """
        n_atoms, n = x_out.size(0), self.n_elements * self.n_features
        found = torch.addmm(self.bias, x_out.double(), self.matrix)
        whitened = found.narrow(1, 0, n).reshape(n_atoms, self.n_elements, self.n_features)
        rows = self.rows.index_select(0, atomic_numbers).unsqueeze(1)
        distances = torch.linalg.vector_norm(whitened, dim=2).gather(1, rows).squeeze(1)
        log_d = torch.log(distances + 1e-12)
        unknown, offset, log_q = self.of_elements.index_select(1, atomic_numbers).unbind(0)
        bracket = torch.addmv(
            found.select(1, n + self.n_features), torch.log(trial_forces), self.trial
        )
        log_s = offset + torch.clamp(bracket, self.low, self.high)
        log_s = torch.add(log_s, log_d, alpha=self.slope)
        beyond = torch.clamp(log_d - log_q, min=0.0)
        forces = torch.exp(torch.add(log_s, beyond, alpha=max(0.0, 1.0 - self.slope)))
        features = found.narrow(1, n, self.n_features)
        of_all = features.sum(0)
        energy = torch.linalg.vector_norm(of_all) + unknown.sum()
        energies = torch.linalg.vector_norm(features, dim=1) + unknown
        return energy, energies, forces, math.sqrt(self.n_features) * of_all


def trial_weights(d_ij: Tensor, reach: float) -> list[Tensor]:
    """Slopes of the trial potentials, (1 - d_ij / R)^p_k and zero beyond R, of which trial forces are made.

    Args:
        d_ij: (n_pairs,) float64, Å.
        reach: R, Å.

    Returns:
        Of each of the `POWERS`, (n_pairs,) float64.
    """
    weights = [torch.clamp(1.0 - d_ij / reach, min=0.0)]
    for _ in range(3):  # powers are 1, 2, 4, 8; torch's pow takes as long as a step of dynamics
        weights.append(weights[-1] * weights[-1])
    return weights


def trial_sizes(forces: list[Tensor]) -> Tensor:
    """|t_ik|: how asymmetric the surroundings of every atom are, over four ranges.

    Args:
        forces: t_i of each of the weights, (n_atoms, 3) float64; their sign does not matter.

    Returns:
        (n_atoms, n_powers) float64, no unit, at least 1e-4.
    """
    return torch.clamp(torch.linalg.vector_norm(torch.stack(forces), dim=2).t(), min=1e-4)


def trial_forces(
    idx_i: Tensor,
    idx_j: Tensor,
    r_ij: Tensor,
    d_ij: Tensor,
    n_atoms: int,
    half: bool,
    reach: float,
) -> Tensor:
    """|t_ik| of all atoms, from pairs in any order.

    Args:
        idx_i: center of each pair, (n_pairs,) int64.
        idx_j: neighbor of each pair, (n_pairs,) int64.
        r_ij: (n_pairs, 3) float64, Å.
        d_ij: (n_pairs,) float64, Å.
        n_atoms: number of atoms.
        half: whether every pair stands once; else both ways.
        reach: R, Å.

    Returns:
        (n_atoms, n_powers) float64, as of `trial_sizes`.
    """
    forces: list[Tensor] = []
    for weight in trial_weights(d_ij, reach):
        pulls = r_ij * (weight / d_ij).unsqueeze(1)
        force = pulls.new_zeros([n_atoms, 3]).index_add_(0, idx_i, pulls)
        forces.append(force.index_add_(0, idx_j, pulls, alpha=-1) if half else force)
    return trial_sizes(forces)


def trial_forces_of_structures(
    positions: Tensor,
    cells: Tensor,
    idx_m: Tensor,
    idx_i: Tensor,
    idx_j: Tensor,
    shifts: Tensor,
    reach: float,
) -> Tensor:
    """|t_ik| of all atoms from a full list, by the operators where these run; arguments as of `SchNet.forward`."""
    n_atoms = positions.size(0)
    if not ops.runs_on(positions.device):
        r_ij = pair_vectors(positions, cells, idx_m, idx_i, idx_j, shifts)
        d_ij = torch.linalg.vector_norm(r_ij, dim=1)
        return trial_forces(idx_i, idx_j, r_ij, d_ij, n_atoms, False, reach)
    pairs, row_ptr, neighbors = ops.half_list(idx_i, idx_j, shifts, n_atoms)
    r_ij, d_ij = ops.pair_vectors(positions, cells, idx_m, idx_i, idx_j, shifts, pairs)
    if positions.device.type == "cpu":
        return ops.trial_sizes(r_ij, d_ij, row_ptr, neighbors, reach)
    of_pairs = (r_ij, d_ij, row_ptr, neighbors, idx_m, 0)  # no virial
    return trial_sizes([ops.pair_forces(w, *of_pairs)[0] for w in trial_weights(d_ij, reach)])


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
