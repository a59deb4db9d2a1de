"""SchNet and sc-SchNet: from positions to energies, forces and stress."""

from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from scschnet import ops
from scschnet.elements import check_elements
from scschnet.nn.basis import RADIAL_BASES
from scschnet.nn.cfconv import cfconv
from scschnet.nn.config import MAX_Z, ModelConfig, check_choice
from scschnet.nn.cutoff import CUTOFF_FUNCTIONS
from scschnet.nn.engine import (
    Engine,
    Geometry,
    HalfList,
    filter_and_dense_parameters,
    forward_mode,
)
from scschnet.nn.filter import FilterGenerator
from scschnet.nn.filter_table import TableNodes
from scschnet.nn.geometry import stress_in, stress_of
from scschnet.nn.head import HEADS, Head
from scschnet.nn.interaction import Convolution, Interaction
from scschnet.nn.padded import PaddedBatch
from scschnet.nn.pair_term import PAIR_TERMS
from scschnet.nn.readout import EnergyOffsets, Readout

WeightInit = Literal["uniform", "random", "one"]
Filters = Literal["spline", "dense"]


class SchNet(nn.Module):
    """SchNet, and with weighted skip connections sc-SchNet.

    x_i^(0) = v_i^(0) = a[Z_i],   x_i^(l) = x_i^(l-1) + v_i^(l)              Eq. 1
    x_i^out = sum_l w^(l) v_i^(l)    (plain SchNet: every w^(l) = 1)         Eq. 3 and 4
    x_p,i^out = sum_l w_p^(l) v_i^(l),   P_p = head_p(x_p^out)    for every property beside the energy
    E = sum_i [ g(x_i^out) * scale + shift + atomref[Z_i] ]                  Eq. 2
        + sum over pairs of phi(Z_i, Z_j, d_ij), if there is a pair term
    Nicoli et al. 2018, arXiv:1810.09751; SchNet: arXiv:1706.08566, doi:10.1063/1.5019779

    The network runs in the dtype of its parameters (float32 unless moved); pair vectors, offsets,
    energies, forces and stress are float64.

    Args:
        config: shape and function of the model.
        w_init: start of the contribution weights: `uniform` 1/(L+1) each, `random` U(0,1) divided by
            their sum (from torch's global generator), `one` each 1. Plain SchNet ignores it.
        filters: how filters are evaluated: `spline` interpolates each block's filters in a table of
            the distance, made anew whenever the parameters change; `dense` runs the filter generator
            for every pair. Same function to rounding; may be changed at any time. Where the operators
            do not run (a GPU they were not built for) the dense evaluation is used. (Tables of frozen parameters are kept; `Tensor.data` must not
            be used to change these.)

    Raises:
        ValueError: if `w_init` or `filters` is unknown.
    """

    contribution_weights: Tensor
    known: Tensor
    head_weights: Tensor
    """Of every head, (n_heads, n_interactions + 1); only where there are heads."""

    def __init__(
        self, config: ModelConfig, w_init: WeightInit = "uniform", filters: Filters = "spline"
    ) -> None:
        super().__init__()
        check_choice("filters", filters, get_args(Filters))
        self.config = config
        self.filters = filters
        self.embedding = nn.Embedding(MAX_Z + 1, config.n_features, padding_idx=0)
        make_basis = RADIAL_BASES[config.radial_basis]
        self.radial_basis = make_basis(config.n_rbf, config.rbf_range or config.cutoff)
        self.cutoff_function = CUTOFF_FUNCTIONS[config.cutoff_function](config.cutoff)
        self.pair_term = None
        if config.repulsion != "none":
            self.pair_term = PAIR_TERMS[config.repulsion](config.elements, config.cutoff)
        self.interactions = nn.ModuleList(
            Interaction(config.n_features, config.n_rbf) for _ in range(config.n_interactions)
        )
        self.readout = Readout(config.n_features)
        self.offsets = EnergyOffsets(MAX_Z)
        known = torch.zeros(MAX_Z + 1, dtype=torch.bool)
        known[list(config.elements)] = True
        self.register_buffer("known", known, persistent=False)
        weights = _initial_weights(config.n_interactions + 1, w_init)
        if config.skip == "weighted":
            self.contribution_weights = nn.Parameter(weights)
        else:
            self.register_buffer("contribution_weights", torch.ones_like(weights))
        self.heads = nn.ModuleDict(
            {one.name: HEADS[one.kind](config.n_features, MAX_Z) for one in config.heads}
        )
        if config.heads:
            every = [_initial_weights(config.n_interactions + 1, w_init) for _ in config.heads]
            if config.skip == "weighted":
                self.head_weights = nn.Parameter(torch.stack(every))
            else:
                self.register_buffer("head_weights", torch.ones_like(torch.stack(every)))
        self.engine = Engine(self)

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
        representation: bool = False,
    ) -> dict[str, Tensor]:
        """Energies of a batch of structures, and their derivatives.

        Args:
            positions: (n_atoms, 3), Å.
            atomic_numbers: (n_atoms,) int64.
            idx_m: structure of each atom, (n_atoms,) int64.
            cells: lattice vectors as rows, (n_structures, 3, 3), Å; zero for an open structure.
            idx_i: center of each pair, (n_pairs,) int64; every pair within the cutoff both ways,
                sorted by center.
            idx_j: neighbor of each pair, (n_pairs,) int64.
            shifts: cell shift S of each pair, (n_pairs, 3); r_ij = r_j - r_i + S cell.
            forces: whether to return forces.
            stress: whether to return the stress.
            correction_norms: whether to return the norms of the corrections.
            representation: whether to return x^out.

        Returns:
            energy (n_structures,) eV; energies (n_atoms,) eV;
            forces (n_atoms, 3) = -dE/dr, eV/Å; stress (n_structures, 3, 3) = (1/V) dE/dstrain,
            eV/Å^3, tension positive, NaN for a structure without volume;
            correction_norms ||v_i^(l)||, (n_interactions + 1, n_atoms), detached; representation x_i^out of the energy,
            (n_atoms, n_features); and every property by its name, (n_structures, ...), in its unit. All float64 but the
            norms and x^out. A model that was not trained on energies (`config.energy`) returns none, nor what is derived
            from them.
            As usual in torch, everything can be differentiated further if gradients are enabled and
            a parameter, `positions` or `cells` asks for one; under `torch.no_grad()` forces and
            stress are still computed, and nothing is kept. Forward mode (torch.func.jvp, jacfwd, hessian;
            torch.autograd.forward_ad) works for the energy, with dense filters; torch refuses it for forces and
            stress, and refuses torch.func.grad, vjp, jacrev and vmap: torch.autograd.grad does what they do.

        Raises:
            ValueError: naming elements that the model was not trained on.
        """
        self._check_elements(atomic_numbers)
        has_energy = self.config.energy
        forces, stress = forces and has_energy, stress and has_energy
        derivatives = forces or stress
        moving = torch.is_grad_enabled() and (positions.requires_grad or cells.requires_grad)
        geometry = Geometry(positions.double(), cells.double(), idx_m, idx_i, idx_j, shifts)
        if self.filters == "dense" or not ops.runs_on(positions.device) or forward_mode():
            evaluated = self.engine.composed(atomic_numbers, geometry, None, derivatives)
        else:
            half = HalfList(*ops.half_list(idx_i, idx_j, shifts, len(atomic_numbers)))
            if moving:
                evaluated = self.engine.composed(atomic_numbers, geometry, half, derivatives)
            else:
                evaluated = self.engine.fused(
                    atomic_numbers,
                    geometry,
                    half,
                    derivatives,
                    representation=representation,
                    stress=stress,
                )
        energies, atom_forces, virial, norms, layers = evaluated
        result = {}
        if has_energy:
            result["energies"] = energies
            result["energy"] = _sums_of_structures(energies, idx_m, cells.shape[0])
        if forces:
            result["forces"] = atom_forces
        if stress:
            result["stress"] = stress_of(virial, geometry[1])
        if correction_norms:
            result["correction_norms"] = norms
        if representation:
            result["representation"] = self.combine(list(layers))
        heads = self.named_heads() if self.config.heads else []
        for (name, head), x_out in zip(heads, self._representations(layers), strict=True):
            values = head.atom_values(x_out, atomic_numbers)
            result[name] = head.pool(
                values, geometry.positions, atomic_numbers, idx_m, cells.shape[0]
            )
        return result

    def evaluate_padded(
        self, batch: PaddedBatch, nodes: TableNodes, forces: bool = True, stress: bool = False
    ) -> dict[str, Tensor]:
        """`forward` for a batch of fixed shape: nothing is read from the device, so a CUDA graph can hold it.

        Of a model with heads the energy alone.

        Args:
            batch: structures and their half list, filled up with atoms and pairs that count nothing.
            nodes: from `table_nodes`, with the distances of all pairs on its grid.
            forces: whether to return forces.
            stress: whether to return the stress.

        Returns:
            As `forward`, without energies of atoms: energy (n_structures,), forces (n_atoms, 3), zero for
            padding atoms, stress (n_structures, 3, 3), correction_norms (n_interactions + 1, n_atoms), of no
            meaning for padding atoms. Differentiable once, in the parameters.
        """
        pairs = batch.pairs
        of_atoms = (batch.positions, batch.cells, batch.idx_m)
        geometry = Geometry(*of_atoms, pairs.idx_i, pairs.idx_j, pairs.shifts)
        half = HalfList(pairs.order, pairs.row_ptr, pairs.idx_j)
        energies, atom_forces, virial, norms, _ = self.engine.fused(
            batch.atomic_numbers,
            geometry,
            half,
            forces or stress,
            nodes,
            pairs.alive,
            stress=stress,
            sizes=batch.sizes,
        )
        result = {"energy": energies, "correction_norms": norms}
        if forces:
            result["forces"] = atom_forces
        if stress:
            result["stress"] = stress_in(virial[:-1], batch.volumes)
        return result

    def table_nodes(self, largest: float) -> TableNodes:
        """Nodes of the filter tables, for pairs up to a distance, as `evaluate_padded` needs them.

        Args:
            largest: distance of any pair, Å; beyond the cutoff nothing is needed.
        """
        return self.engine.table_nodes(largest)

    def corrections(
        self, atomic_numbers: Tensor, convolutions: Sequence[Convolution]
    ) -> list[Tensor]:
        """The embedding v^(0) and the correction v^(l) of every block (Eq. 1).

        Args:
            atomic_numbers: (n_atoms,) int64.
            convolutions: one per block, see `dense_convolutions` and `Engine.spline_convolutions`.

        Returns:
            n_interactions + 1 tensors (n_atoms, n_features).
        """
        x = self.embedding(atomic_numbers)
        corrections = [x]
        for interaction, convolution in zip(self._blocks(), convolutions, strict=True):
            v = interaction(x, convolution)
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

    def dense_convolutions(self, d_ij: Tensor, idx_i: Tensor, idx_j: Tensor) -> list[Convolution]:
        """Each block's convolution, its filters evaluated for every pair.

        Args:
            d_ij: distance of each pair of the full list, (n_pairs,), Å.
            idx_i: center of each pair, (n_pairs,) int64.
            idx_j: neighbor of each pair, (n_pairs,) int64.
        """
        dtype = self.embedding.weight.dtype
        cutoff_ij = self.cutoff_function(d_ij).to(dtype)[:, None]
        rbf = self.radial_basis(d_ij).to(dtype)

        def convolution(interaction: Interaction) -> Convolution:
            filters = interaction.filter_generator(rbf) * cutoff_ij
            return lambda x: cfconv(x, filters, idx_i, idx_j)

        return [convolution(interaction) for interaction in self._blocks()]

    def filter_generators(self) -> list[FilterGenerator]:
        """The filter generator of every block, as `filter_tables` and `accurate_grid` take them."""
        return [block.filter_generator for block in self._blocks()]

    def dense_parameters(self) -> list[Tensor]:
        """Parameters of the dense layers, in the order of the operator `schnet` (scschnet/ops.py).

        Returns:
            For each block the weight of its input layer, weight and bias of its hidden layer, weight and
            bias of its output layer; then weight and bias of the readout's hidden and output layer.
            Embedding, filter generators and contribution weights are not among them.
        """
        return filter_and_dense_parameters(self)[1]

    def weights_by_property(self) -> dict[str, Tensor]:
        """Contribution weights, (n_interactions + 1,), of the energy, if there is one, and of every property."""
        weights = {"energy": self.contribution_weights} if self.config.energy else {}
        if self.config.heads:
            weights |= zip(self.heads.keys(), self.head_weights, strict=True)
        return weights

    def require_energy(self) -> None:
        """Raise ValueError if the model has no energy, because it was trained on properties alone."""
        if not self.config.energy:
            names = ", ".join(one.name for one in self.config.heads)
            raise ValueError(f"the model has no energy or forces: it was trained on {names} alone")

    def refine_filters(self) -> float:
        """Choose the step of the filter tables: the coarsest one that is accurate for the parameters as they are.

        To be called when parameters have changed much: after loading, and once per epoch of a training.

        Returns:
            Error of the derivative of the filters, relative to its root mean square; 0 where the model
            uses no tables.

        Raises:
            ValueError: if no table is accurate enough; such a model needs `filters = "dense"`.
        """
        return self.engine.refine_filters()

    @property
    def filter_step(self) -> float:
        """Step of the filter tables, Å."""
        return self.engine.filter_step

    @filter_step.setter
    def filter_step(self, step: float) -> None:
        self.engine.filter_step = step

    def _check_elements(self, atomic_numbers: Tensor) -> None:
        try:
            known = bool(self.known.index_select(0, atomic_numbers).all())
        except IndexError:  # no element at all
            known = False
        if not known:
            check_elements(atomic_numbers.tolist(), self.config.elements, "`atomic_numbers`")

    def _representations(self, corrections: Sequence[Tensor]) -> Sequence[Tensor]:
        """What each head reads, x_p^out = sum_l w_p^(l) v^(l), in one matrix product."""
        if not self.config.heads:
            return ()
        layers = torch.stack(list(corrections))
        return (self.head_weights @ layers.flatten(1)).unflatten(1, layers.shape[1:]).unbind()

    def named_heads(self) -> list[tuple[str, Head]]:
        """Every property and its head."""
        return [(name, cast(Head, head)) for name, head in self.heads.items()]

    def _blocks(self) -> list[Interaction]:
        return [cast(Interaction, block) for block in self.interactions]


def _sums_of_structures(energies: Tensor, idx_m: Tensor, n_structures: int) -> Tensor:
    """In one order on every device: what `index_add` adds on a GPU has other bits on every run."""
    if n_structures == 1:
        return energies.sum(0, keepdim=True)
    zeros = energies.new_zeros(n_structures)
    return zeros.index_put((idx_m,), energies, accumulate=True)


def _initial_weights(n: int, w_init: str) -> Tensor:
    check_choice("w_init", w_init, get_args(WeightInit))
    if w_init == "random":
        weights = torch.rand(n)
        return weights / weights.sum()
    return torch.full((n,), 1.0 if w_init == "one" else 1.0 / n)
