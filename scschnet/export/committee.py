"""Several models in one exported file: their mean, and how far the members are from it.

The members are models of the same form that differ in their weights. Neighbors, vectors, distances and weights of the
splines are found once for all of them.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn

from scschnet.export.metadata import Source
from scschnet.export.potential import Potential
from scschnet.nn.committee import Factors


class CommitteePotential(nn.Module):
    """A potential with error bars, for TorchScript; its calls are those of `Potential`.

    Every result of a member is there as the mean over the members, and besides

        energy_std (), energies_std (n_local,) eV, forces_std (n_atoms,) eV/Å, virial_std (3, 3) eV: the square root of
            the mean square of the members' deviations from the mean, of forces |F_i^k - F_i|^2, times a factor
        energy_deviations (n_members,), forces_deviations (n_members, n_atoms, 3), virial_deviations (n_members, 3, 3):
            the deviations themselves, times the factor. A host that adds the forces of ghosts to their owners, and
            energies and virials of its processes, does so with these, too; the square roots come after it.

    Args:
        members: potentials of one kind, at least two, of the same form and filter step.
        factors: with which deviations are multiplied.
    """

    def __init__(self, members: Sequence[Potential], factors: Factors) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        for member in members[
            1:
        ]:  # the first one finds what is wrong with the input, `combined` the rest
            member.checked = False
        self.energy_factor = factors.energy
        self.forces_factor = factors.forces

    def forward(
        self,
        positions: Tensor,
        atomic_numbers: Tensor,
        cell: Tensor,
        pbc: Tensor,
        layers: bool = False,
        atom_virial: bool = False,
    ) -> dict[str, Tensor]:
        """Evaluate a structure, as `Potential.forward`.

        Args:
            positions: (n_atoms, 3) float32 or float64, Å.
            atomic_numbers: (n_atoms,) int64.
            cell: (3, 3), rows are lattice vectors, Å; rows of open axes are ignored.
            pbc: (3,) bool.
            layers: whether the energies of the layers are wanted.
            atom_virial: whether the virials of the atoms are wanted.
        """
        if atomic_numbers.size(0) != positions.size(0):
            raise ValueError(
                f"`atomic_numbers` must have {positions.size(0)} elements like `positions`, got "
                f"{atomic_numbers.size(0)}"
            )
        r = positions.detach().double()
        centers, idx_j, r_ij, d_ij = self.members[0].half_pairs(r, cell.detach().double(), pbc)  # type: ignore[operator]
        splines = self.members[0].spline_weights(d_ij)  # type: ignore[operator]
        wall = self.members[0].wall(atomic_numbers, centers, idx_j, d_ij, r.size(0))  # type: ignore[operator]
        results: list[dict[str, Tensor]] = []
        for member in self.members:
            results.append(
                member.results_of_structure(  # type: ignore[operator]
                    r,
                    atomic_numbers,
                    centers,
                    idx_j,
                    r_ij,
                    d_ij,
                    splines,
                    wall,
                    layers,
                    atom_virial,
                )
            )
        return self.combined(results, atomic_numbers, d_ij)

    @torch.jit.export
    def forward_pairs(
        self,
        atomic_numbers: Tensor,
        idx_i: Tensor,
        idx_j: Tensor,
        r_ij: Tensor,
        n_local: int,
        halo: bool,
        layers: bool = False,
        atom_virial: bool = False,
    ) -> dict[str, Tensor]:
        """Evaluate what a host hands over, as `Potential.forward_pairs`.

        Args:
            atomic_numbers: (n_atoms,) int64, ghosts included.
            idx_i: center of each pair, (n_pairs,) int64, sorted.
            idx_j: neighbor of each pair, (n_pairs,) int64.
            r_ij: position of the neighbor minus that of the center, (n_pairs, 3) float64, Å.
            n_local: number of local atoms.
            halo: whether the host exchanges the features of ghosts between blocks, once for each member.
            layers: whether the energies of the layers are wanted.
            atom_virial: whether the virials of the atoms are wanted.
        """
        centers = self.members[0].host_pairs(idx_i, idx_j, atomic_numbers.size(0), n_local, halo)  # type: ignore[operator]
        r = r_ij.detach().double().contiguous()
        d_ij = self.members[0].distances(r)  # type: ignore[operator]
        splines = self.members[0].spline_weights(d_ij)  # type: ignore[operator]
        wall = self.members[0].wall(atomic_numbers, centers, idx_j, d_ij, n_local)  # type: ignore[operator]
        results: list[dict[str, Tensor]] = []
        for member in self.members:
            results.append(
                member.results(  # type: ignore[operator]
                    atomic_numbers,
                    centers,
                    idx_j,
                    r,
                    d_ij,
                    splines,
                    wall,
                    n_local,
                    halo,
                    layers,
                    atom_virial,
                )
            )
        return self.combined(results, atomic_numbers, d_ij)

    def combined(
        self, results: list[dict[str, Tensor]], atomic_numbers: Tensor, d_ij: Tensor
    ) -> dict[str, Tensor]:
        """The mean of the members' results, and the deviations from it."""
        mean: dict[str, Tensor] = {}
        away: dict[str, Tensor] = {}
        for key in results[0]:
            every = torch.stack([result[key] for result in results])
            mean[key] = every.mean(0)
            if key == "energy" or key == "energies":
                away[key] = self.energy_factor * (every - mean[key])
            elif key == "forces" or key == "virial":
                away[key] = self.forces_factor * (every - mean[key])
        if not math.isfinite(float(mean["energy"]) + float(mean["virial"].sum())):
            self.members[0].explain(atomic_numbers, d_ij)  # type: ignore[operator]
        for key in ["energy", "forces", "virial"]:
            mean[key + "_deviations"] = away[key]
        for key in ["energy", "energies", "virial"]:
            mean[key + "_std"] = away[key].square().mean(0).sqrt()
        mean["forces_std"] = away["forces"].square().sum(2).mean(0).sqrt()
        return mean


def check_members(sources: Sequence[Source], names: Sequence[str]) -> None:
    """Check that models can be members of one committee.

    Args:
        sources: the models.
        names: what the user calls them.

    Raises:
        ValueError: in one sentence, if there are less than two, two are the same, or they differ in form, units or
            pair term.
    """
    if len(sources) < 2:
        raise ValueError(
            f"a committee must have at least two members, which differ in their seed, got {', '.join(names) or 'none'}"
        )
    first, first_name = sources[0], names[0]
    for source, name in zip(sources[1:], names[1:], strict=True):
        for option, value in asdict(source.model.config).items():
            expected = getattr(first.model.config, option)
            if value != expected:
                raise ValueError(
                    f"members of a committee must have the same `{option}`, got {expected} in {first_name} and {value} "
                    f"in {name}"
                )
        if source.units != first.units:
            raise ValueError(
                f"members of a committee must have the same units, got {first.units} in {first_name} and {source.units} "
                f"in {name}"
            )
        if _dtype(source) != _dtype(first):
            raise ValueError(
                f"members of a committee must have the same dtype, or --dtype must choose one, got {_dtype(first)} in "
                f"{first_name} and {_dtype(source)} in {name}"
            )
        if not _same(source.model.pair_term, first.model.pair_term):
            raise ValueError(
                f"members of a committee must have the same pair term, but the distances in that of {name} are not those "
                f"in {first_name}: train them on the same split (--split-seed)"
            )
    for k, source in enumerate(sources):
        for other, name in zip(sources[:k], names[:k], strict=True):
            if _same(source.model, other.model):
                raise ValueError(
                    f"members of a committee must differ, but {names[k]} has the weights of {name}: give every member "
                    "once, trained with a seed of its own"
                )


def _dtype(source: Source) -> str:
    return str(source.model.embedding.weight.dtype).removeprefix("torch.")


def _same(one: nn.Module | None, other: nn.Module | None) -> bool:
    """Whether all parameters and buffers of two modules of one form are equal."""
    if one is None or other is None:
        return one is other
    values = other.state_dict()
    return all(torch.equal(value, values[name]) for name, value in one.state_dict().items())
