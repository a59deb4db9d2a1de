"""Several models of one form: their mean, and as an error bar how far they are from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from scschnet.nn.config import ModelConfig
from scschnet.nn.head import Head
from scschnet.nn.model import SchNet


@dataclass(frozen=True)
class Factors:
    """What deviations of members from their mean are multiplied with, so that they are as large as errors.

    Args:
        energy: of energies.
        forces: of forces and virials.
    """

    energy: float = 1.0
    forces: float = 1.0


class Committee(nn.Module):
    """The mean of several models, called as one of them.

    E = mean_k E^k,   F_i = mean_k F_i^k,   sigma(E) = a sqrt( mean_k (E^k - E)^2 ),
    sigma_i = b sqrt( mean_k |F_i^k - F_i|^2 )

    Without the factors a and b these are the model deviations of DeePMD-kit (Zhang et al. 2020,
    doi:10.1016/j.cpc.2020.107206).

    Args:
        members: models of the same form, at least two.
        factors: a and b.

    Raises:
        ValueError: if there are less than two members, they differ in form, or know no energy.
    """

    def __init__(self, members: Sequence[SchNet], factors: Factors | None = None) -> None:
        super().__init__()
        if len(members) < 2:
            raise ValueError(f"`members` must be at least two models, got {len(members)}")
        if any(member.config != members[0].config for member in members):
            raise ValueError("`members` must have the same options, got models of several forms")
        if not members[0].config.energy:
            raise ValueError(
                "`members` must be models of the energy, got models of properties alone"
            )
        self.members = nn.ModuleList(members)
        self.factors = factors or Factors()

    @property
    def config(self) -> ModelConfig:
        """Of every member."""
        return self._members()[0].config

    def named_heads(self) -> list[tuple[str, Head]]:
        """Every property and its head, of the first member."""
        return self._members()[0].named_heads()

    def require_energy(self) -> None:
        """Nothing to check: members have an energy."""

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
        """Energies of a batch of structures, their derivatives, and error bars.

        Args:
            positions: these and all other arguments as for `SchNet.forward`.
            atomic_numbers: (n_atoms,) int64.
            idx_m: (n_atoms,) int64.
            cells: (n_structures, 3, 3), Å.
            idx_i: (n_pairs,) int64.
            idx_j: (n_pairs,) int64.
            shifts: (n_pairs, 3).
            forces: whether to return forces.
            stress: whether to return the stress.
            correction_norms: whether to return the norms of the corrections.

        Returns:
            The mean of what the members return; besides energy_std (n_structures,) and energies_std (n_atoms,), eV, and
            with forces forces_std (n_atoms,), eV/Å. correction_norms are those of every member,
            (n_members, n_interactions + 1, n_atoms).
        """
        inputs = (positions, atomic_numbers, idx_m, cells, idx_i, idx_j, shifts)
        results = [
            member(*inputs, forces=forces, stress=stress, correction_norms=correction_norms)
            for member in self._members()
        ]
        all_of = {name: torch.stack([found[name] for found in results]) for name in results[0]}
        mean = {name: values.mean(0) for name, values in all_of.items()}
        for name in ("energy", "energies"):
            away = all_of[name] - mean[name]
            mean[f"{name}_std"] = self.factors.energy * away.square().mean(0).sqrt()
        if forces:
            away = all_of["forces"] - mean["forces"]
            mean["forces_std"] = self.factors.forces * away.square().sum(2).mean(0).sqrt()
        if correction_norms:
            mean["correction_norms"] = all_of["correction_norms"]
        return mean

    def _members(self) -> list[SchNet]:
        return [cast(SchNet, member) for member in self.members]
