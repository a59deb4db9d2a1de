"""SchNet and sc-SchNet: from positions to energies, forces and stress."""

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

import torch
from torch import Tensor, nn

from scschnet.nn.interaction import Interaction
from scschnet.nn.radial import CUTOFF_FUNCTIONS, GaussianBasis
from scschnet.nn.readout import EnergyOffsets, Readout

Skip = Literal["weighted", "plain"]
WeightInit = Literal["uniform", "random", "one"]
CutoffFunction = Literal["cosine", "none"]

MAX_Z = 118


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the shape and the function of a model; stored in every checkpoint."""

    elements: tuple[int, ...]  # atomic numbers the model was made for, ascending
    n_features: int = 128  # features per atom, and filters per convolution
    n_interactions: int = 6  # interaction blocks L
    n_rbf: int = 25  # Gaussians of the radial basis
    cutoff: float = 5.0  # Å, pairs beyond it do not exist for the model
    rbf_range: float | None = None  # Å, center of the last Gaussian; None: the cutoff
    cutoff_function: CutoffFunction = "cosine"
    skip: Skip = "weighted"  # weighted: sc-SchNet, plain: SchNet

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(z) for z in self.elements))
        if not self.elements or list(self.elements) != sorted(set(self.elements)):
            raise ValueError(f"`elements` must be ascending and distinct, got {self.elements}")
        if self.elements[0] < 1 or self.elements[-1] > MAX_Z:
            raise ValueError(f"`elements` must lie between 1 and {MAX_Z}, got {self.elements}")
        for name, least in (("n_features", 2), ("n_interactions", 0), ("n_rbf", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
        if not 0.0 < self.cutoff < float("inf"):
            raise ValueError(f"`cutoff` must be positive and finite, got {self.cutoff}")
        for name, choices in get_type_hints(ModelConfig).items():
            if get_args(choices) and getattr(choices, "__origin__", None) is Literal:
                _check_choice(name, getattr(self, name), get_args(choices))


class SchNet(nn.Module):
    """SchNet, and with weighted skip connections sc-SchNet.

    x_i^(0) = v_i^(0) = a[Z_i],   x_i^(l) = x_i^(l-1) + v_i^(l)              Eq. 1
    x_i^out = sum_l w^(l) v_i^(l)    (plain SchNet: every w^(l) = 1)         Eq. 3 and 4
    E = sum_i [ g(x_i^out) * scale + shift + atomref[Z_i] ]                  Eq. 2
    Nicoli et al. 2018, arXiv:1810.09751; SchNet: arXiv:1706.08566, doi:10.1063/1.5019779

    The network runs in the dtype of its parameters (float32 unless moved); pair vectors, offsets,
    energies, forces and stress are float64.

    Args:
        config: shape and function of the model.
        w_init: start of the contribution weights: `uniform` 1/(L+1) each, `random` U(0,1) divided by
            their sum (from torch's global generator), `one` each 1. Plain SchNet ignores it.

    Raises:
        ValueError: if `w_init` is unknown.
    """

    contribution_weights: Tensor

    def __init__(self, config: ModelConfig, w_init: WeightInit = "uniform") -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(MAX_Z + 1, config.n_features, padding_idx=0)
        self.radial_basis = GaussianBasis(config.n_rbf, config.rbf_range or config.cutoff)
        self.interactions = nn.ModuleList(
            Interaction(config.n_features, config.n_rbf) for _ in range(config.n_interactions)
        )
        self.readout = Readout(config.n_features)
        self.offsets = EnergyOffsets(MAX_Z)
        weights = _initial_weights(config.n_interactions + 1, w_init)
        if config.skip == "weighted":
            self.contribution_weights = nn.Parameter(weights)
        else:
            self.register_buffer("contribution_weights", torch.ones_like(weights))

    def forward(
        self,
        positions: Tensor,
        atomic_numbers: Tensor,
        idx_m: Tensor,
        cells: Tensor,
        idx_i: Tensor,
        idx_j: Tensor,
        shifts: Tensor,
        forces: bool = True,
        stress: bool = False,
        correction_norms: bool = False,
    ) -> dict[str, Tensor]:
        """Energies of a batch of structures, and their derivatives.

        Args:
            positions: (n_atoms, 3), Å.
            atomic_numbers: (n_atoms,) int64.
            idx_m: structure of each atom, (n_atoms,) int64.
            cells: lattice vectors as rows, (n_structures, 3, 3), Å; zero for an open structure.
            idx_i: center of each pair, (n_pairs,) int64; every pair within the cutoff both ways.
            idx_j: neighbor of each pair, (n_pairs,) int64.
            shifts: cell shift S of each pair, (n_pairs, 3); r_ij = r_j - r_i + S cell.
            forces: whether to return forces.
            stress: whether to return the stress.
            correction_norms: whether to return the norms of the corrections.

        Returns:
            energy (n_structures,) eV; energies (n_atoms,) eV;
            forces (n_atoms, 3) = -dE/dr, eV/Å; stress (n_structures, 3, 3) = (1/V) dE/dstrain,
            eV/Å^3, tension positive, NaN for a structure without volume;
            correction_norms ||v_i^(l)||, (n_interactions + 1, n_atoms), detached. All float64 but the last.
            As usual in torch, everything can be differentiated further if gradients are enabled and
            a parameter, `positions` or `cells` asks for one; under `torch.no_grad()` forces and
            stress are still computed, and nothing is kept.
        """
        derivatives = forces or stress
        differentiable = torch.is_grad_enabled() and any(
            t.requires_grad for t in (positions, cells, *self.parameters())
        )
        with torch.set_grad_enabled(derivatives or torch.is_grad_enabled()):
            r_ij = pair_vectors(positions, cells, idx_m, idx_i, idx_j, shifts)
            if derivatives and not r_ij.requires_grad:
                r_ij.requires_grad_()
            corrections = self.corrections(atomic_numbers, r_ij, idx_i, idx_j)
            g = self.readout(self.combine(corrections))
            energies = self.offsets(g, atomic_numbers)
            result = {
                "energies": energies,
                "energy": energies.new_zeros(cells.shape[0]).index_add(0, idx_m, energies),
            }
            if derivatives:
                (g_ij,) = torch.autograd.grad(energies.sum(), r_ij, create_graph=differentiable)
                if forces:
                    result["forces"] = pair_forces(g_ij, idx_i, idx_j, positions.shape[0])
                if stress:
                    result["stress"] = pair_stress(g_ij, r_ij, idx_m[idx_i], cells)
        if correction_norms:
            result["correction_norms"] = torch.stack(
                [torch.linalg.vector_norm(v.detach(), dim=1) for v in corrections]
            )
        return result if differentiable else {k: v.detach() for k, v in result.items()}

    def corrections(
        self, atomic_numbers: Tensor, r_ij: Tensor, idx_i: Tensor, idx_j: Tensor
    ) -> list[Tensor]:
        """The embedding v^(0) and the correction v^(l) of every block (Eq. 1).

        Args:
            atomic_numbers: (n_atoms,) int64.
            r_ij: pair vectors, (n_pairs, 3), Å.
            idx_i: center of each pair, (n_pairs,) int64.
            idx_j: neighbor of each pair, (n_pairs,) int64.

        Returns:
            n_interactions + 1 tensors (n_atoms, n_features).
        """
        d_ij = torch.linalg.vector_norm(r_ij, dim=1)
        cutoff_function = CUTOFF_FUNCTIONS[self.config.cutoff_function]
        dtype = self.embedding.weight.dtype
        cutoff_ij = cutoff_function(d_ij, self.config.cutoff).to(dtype)
        rbf = self.radial_basis(d_ij).to(dtype)
        x = self.embedding(atomic_numbers)
        corrections = [x]
        for interaction in self.interactions:
            v = interaction(x, rbf, cutoff_ij, idx_i, idx_j)
            x = x + v
            corrections.append(v)
        return corrections

    def combine(self, corrections: list[Tensor]) -> Tensor:
        """The representation that is read out, x^out = sum_l w^(l) v^(l) (Eq. 3 and 4).

        Args:
            corrections: n_interactions + 1 tensors (n_atoms, n_features).

        Returns:
            (n_atoms, n_features).
        """
        x_out = self.contribution_weights[0] * corrections[0]
        for weight, v in zip(self.contribution_weights[1:], corrections[1:], strict=True):
            x_out = x_out + weight * v
        return x_out


def pair_vectors(
    positions: Tensor, cells: Tensor, idx_m: Tensor, idx_i: Tensor, idx_j: Tensor, shifts: Tensor
) -> Tensor:
    """Vectors from center to neighbor, r_ij = r_j - r_i + S cell, in float64.

    Args: as in `SchNet.forward`. Returns: (n_pairs, 3), Å.
    """
    r = positions.double()
    r_ij = r.index_select(0, idx_j) - r.index_select(0, idx_i)
    if bool((cells != 0).any()):
        cell_of_pair = cells.double().index_select(0, idx_m.index_select(0, idx_i))
        r_ij = r_ij + torch.bmm(shifts.double().unsqueeze(1), cell_of_pair).squeeze(1)
    return r_ij


def pair_forces(g_ij: Tensor, idx_i: Tensor, idx_j: Tensor, n_atoms: int) -> Tensor:
    """Forces from the derivative of the energy with respect to every pair vector.

    F_i = sum_j dE/dr_ij - sum_j dE/dr_ji

    Args:
        g_ij: dE/dr_ij, (n_pairs, 3), eV/Å.
        idx_i: center of each pair, (n_pairs,) int64.
        idx_j: neighbor of each pair, (n_pairs,) int64.
        n_atoms: number of atoms.

    Returns:
        (n_atoms, 3), eV/Å.
    """
    forces = g_ij.new_zeros((n_atoms, 3)).index_add(0, idx_i, g_ij)
    return forces.index_add(0, idx_j, g_ij, alpha=-1)


def pair_stress(g_ij: Tensor, r_ij: Tensor, idx_m_of_pair: Tensor, cells: Tensor) -> Tensor:
    """Stress from the derivative of the energy with respect to every pair vector.

    sigma_ab = (1/V) sum_pairs r_ij,a dE/dr_ij,b = (1/V) dE/dstrain_ab, tension positive

    Args:
        g_ij: dE/dr_ij, (n_pairs, 3), eV/Å.
        r_ij: pair vectors, (n_pairs, 3), Å.
        idx_m_of_pair: structure of each pair, (n_pairs,) int64.
        cells: lattice vectors as rows, (n_structures, 3, 3), Å.

    Returns:
        (n_structures, 3, 3), eV/Å^3; NaN where the cell has no volume.
    """
    outer = r_ij[:, :, None] * g_ij[:, None, :]
    virial = g_ij.new_zeros((cells.shape[0], 3, 3)).index_add(0, idx_m_of_pair, outer)
    volume = torch.linalg.det(cells.double()).abs()
    return virial / torch.where(volume > 0, volume, torch.nan)[:, None, None]


def _initial_weights(n: int, w_init: str) -> Tensor:
    _check_choice("w_init", w_init, get_args(WeightInit))
    if w_init == "random":
        weights = torch.rand(n)
        return weights / weights.sum()
    return torch.full((n,), 1.0 if w_init == "one" else 1.0 / n)


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(str, choices))}, got {value}")
