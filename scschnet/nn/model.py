"""SchNet and sc-SchNet: from positions to energies, forces and stress."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, get_args, get_type_hints

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from scschnet import ops
from scschnet.nn.basis import RADIAL_BASES, RadialBasisName
from scschnet.nn.cfconv import cfconv
from scschnet.nn.cutoff import CUTOFF_FUNCTIONS, CutoffFunctionName
from scschnet.nn.filter import FilterGenerator
from scschnet.nn.filter_table import (
    FilterGrid,
    TableNodes,
    accurate_grid,
    filter_tables,
    grid_step,
    table_nodes,
    tables_on,
)
from scschnet.nn.geometry import pair_forces, pair_vectors, pair_virial, stress_in, stress_of
from scschnet.nn.head import HEADS, Head
from scschnet.nn.interaction import Convolution, Interaction
from scschnet.nn.padded import PaddedBatch
from scschnet.nn.pair_term import PAIR_TERMS, RepulsionName, add_to_atoms
from scschnet.nn.readout import EnergyOffsets, Readout

Skip = Literal["weighted", "plain"]
WeightInit = Literal["uniform", "random", "one"]
Filters = Literal["spline", "dense"]

# positions, cells, idx_m, idx_i, idx_j, shifts
Geometry = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
HalfList = tuple[Tensor, Tensor, Tensor]  # pairs, row_ptr, idx_j
# energies of atoms; forces and virial, undefined where no derivatives were asked for; norms of the corrections;
# the representation, undefined where no head reads it
Evaluated = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

# The options of `ModelConfig` that name a class; what can be named is what is registered.
REGISTRIES: dict[str, Collection[str]] = {
    "radial_basis": RADIAL_BASES,
    "cutoff_function": CUTOFF_FUNCTIONS,
    "repulsion": ("none", *PAIR_TERMS),
}

MAX_Z = 118


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the shape and the function of a model; stored in every checkpoint."""

    elements: tuple[int, ...]  # atomic numbers the model was made for, ascending
    n_features: int = 128  # features per atom, and filters per convolution
    n_interactions: int = 6  # interaction blocks L
    n_rbf: int = 25  # functions of the radial basis
    cutoff: float = 5.0  # Å, pairs beyond it do not exist for the model
    rbf_range: float | None = None  # Å, center of the last Gaussian; None: the cutoff
    cutoff_function: CutoffFunctionName = "cosine"
    skip: Skip = "weighted"  # weighted: sc-SchNet, plain: SchNet
    radial_basis: RadialBasisName = "gaussian"
    repulsion: RepulsionName = "none"  # pair term that is added to the network's energy
    heads: tuple[str, ...] = ()  # properties beside the energy, see scschnet/nn/head

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(z) for z in self.elements))
        object.__setattr__(self, "heads", tuple(self.heads))
        if not self.elements or list(self.elements) != sorted(set(self.elements)):
            raise ValueError(f"`elements` must be ascending and distinct, got {self.elements}")
        if self.elements[0] < 1 or self.elements[-1] > MAX_Z:
            raise ValueError(f"`elements` must lie between 1 and {MAX_Z}, got {self.elements}")
        for name, least in (("n_features", 2), ("n_interactions", 0), ("n_rbf", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
        if not 0.0 < self.cutoff < float("inf"):
            raise ValueError(f"`cutoff` must be positive and finite, got {self.cutoff}")
        for head in self.heads:
            _check_choice("heads", head, tuple(HEADS))
        for name, choices in get_type_hints(ModelConfig).items():
            if get_args(choices) and getattr(choices, "__origin__", None) is Literal:
                known = REGISTRIES.get(name, get_args(choices))
                _check_choice(name, getattr(self, name), tuple(known))


class SchNet(nn.Module):
    """SchNet, and with weighted skip connections sc-SchNet.

    x_i^(0) = v_i^(0) = a[Z_i],   x_i^(l) = x_i^(l-1) + v_i^(l)              Eq. 1
    x_i^out = sum_l w^(l) v_i^(l)    (plain SchNet: every w^(l) = 1)         Eq. 3 and 4
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

    def __init__(
        self, config: ModelConfig, w_init: WeightInit = "uniform", filters: Filters = "spline"
    ) -> None:
        super().__init__()
        _check_choice("filters", filters, get_args(Filters))
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
        self.heads = nn.ModuleDict({name: HEADS[name](config.n_features) for name in config.heads})
        self.offsets = EnergyOffsets(MAX_Z)
        self.filter_step = grid_step(self.radial_basis.width)
        self._kept = _Kept()
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
            idx_i: center of each pair, (n_pairs,) int64; every pair within the cutoff both ways,
                sorted by center.
            idx_j: neighbor of each pair, (n_pairs,) int64.
            shifts: cell shift S of each pair, (n_pairs, 3); r_ij = r_j - r_i + S cell.
            forces: whether to return forces.
            stress: whether to return the stress.
            correction_norms: whether to return the norms of the corrections.

        Returns:
            energy (n_structures,) eV; energies (n_atoms,) eV;
            forces (n_atoms, 3) = -dE/dr, eV/Å; stress (n_structures, 3, 3) = (1/V) dE/dstrain,
            eV/Å^3, tension positive, NaN for a structure without volume;
            correction_norms ||v_i^(l)||, (n_interactions + 1, n_atoms), detached; and what every head makes of
            x^out, by its name. All float64 but the last two.
            As usual in torch, everything can be differentiated further if gradients are enabled and
            a parameter, `positions` or `cells` asks for one; under `torch.no_grad()` forces and
            stress are still computed, and nothing is kept. Forward mode (torch.func.jvp, jacfwd, hessian;
            torch.autograd.forward_ad) works for the energy, with dense filters; torch refuses it for forces and
            stress, and refuses torch.func.grad, vjp, jacrev and vmap: torch.autograd.grad does what they do.
        """
        derivatives = forces or stress
        moving = torch.is_grad_enabled() and (positions.requires_grad or cells.requires_grad)
        geometry = (positions.double(), cells.double(), idx_m, idx_i, idx_j, shifts)
        if self.filters == "dense" or not ops.runs_on(positions.device) or _forward_mode():
            evaluated = self._composed(atomic_numbers, geometry, None, derivatives)
        else:
            half = ops.half_list(idx_i, idx_j, shifts, len(atomic_numbers))
            evaluate = self._composed if moving else self._fused
            evaluated = evaluate(atomic_numbers, geometry, half, derivatives)
        energies, atom_forces, virial, norms, x_out = evaluated
        result = {
            "energies": energies,
            "energy": energies.new_zeros(cells.shape[0]).index_add(0, idx_m, energies),
        }
        if forces:
            result["forces"] = atom_forces
        if stress:
            result["stress"] = stress_of(virial, geometry[1])
        if correction_norms:
            result["correction_norms"] = norms
        for name, head in self._heads():
            values = head.atom_values(x_out, atomic_numbers)
            result[name] = head.pool(values, geometry[0], idx_m, cells.shape[0])
        return result

    def evaluate_padded(
        self, batch: PaddedBatch, nodes: TableNodes, forces: bool = True, stress: bool = False
    ) -> dict[str, Tensor]:
        """`forward` for a batch of fixed shape: nothing is read from the device, so a CUDA graph can hold it.

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
        geometry = (*batch[:3], *batch.pairs[:3])
        half = (batch.pairs.order, batch.pairs.row_ptr, batch.pairs.idx_j)
        energies, atom_forces, virial, norms, x_out = self._fused(
            batch.atomic_numbers, geometry, half, forces or stress, nodes, batch.pairs.alive
        )
        sums = torch.segment_reduce(energies, "sum", lengths=batch.sizes, unsafe=True)
        result = {"energy": sums, "correction_norms": norms}
        if forces:
            result["forces"] = atom_forces
        if stress:
            result["stress"] = stress_in(virial[:-1], batch.volumes)
        for name, head in self._heads():
            values = head.atom_values(x_out, batch.atomic_numbers)
            pooled = head.pool(values, batch.positions, batch.idx_m, len(batch.sizes) + 1)
            result[name] = pooled[:-1]
        return result

    def table_nodes(self, largest: float) -> TableNodes:
        """Nodes of the filter tables, for pairs up to a distance.

        Args:
            largest: distance of any pair, Å; beyond the cutoff nothing is needed.
        """
        return table_nodes(self.radial_basis, self._grid_to(largest), self.embedding.weight.device)

    def corrections(
        self, atomic_numbers: Tensor, convolutions: Sequence[Convolution]
    ) -> list[Tensor]:
        """The embedding v^(0) and the correction v^(l) of every block (Eq. 1).

        Args:
            atomic_numbers: (n_atoms,) int64.
            convolutions: one per block, see `dense_convolutions` and `spline_convolutions`.

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

    def spline_convolutions(
        self, d_ij: Tensor, row_ptr: Tensor, idx_j: Tensor
    ) -> list[Convolution]:
        """Each block's convolution, its filters interpolated in tables.

        Args:
            d_ij: distance of each pair of the half list, (n_pairs,), Å.
            row_ptr: start of each center's pairs, (n_atoms + 1,) int64.
            idx_j: neighbor of each pair, (n_pairs,) int64.
        """
        tables, grid = self._tables(d_ij)
        bins, weights = self._spline_weights(d_ij, grid)
        pieces = self.cutoff_function.pieces
        pairs = ops.Pairs(
            d_ij, bins, weights, row_ptr, idx_j, grid.step, self.config.cutoff, pieces
        )

        def convolution(table: Tensor) -> Convolution:
            return lambda x: ops.cfconv(x, table, pairs)

        return [convolution(table) for table in tables]

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
        return self._all_parameters()[1]

    def refine_filters(self) -> float:
        """Choose the step of the filter tables: the coarsest one that is accurate for the parameters as they are.

        To be called when parameters have changed much: after loading, and once per epoch of a training.

        Returns:
            Error of the derivative of the filters, relative to its root mean square; 0 where the model
            uses no tables.

        Raises:
            ValueError: if no table is accurate enough; such a model needs `filters = "dense"`.
        """
        on_tables = self.filters == "spline" and ops.runs_on(self.embedding.weight.device)
        if not on_tables or not self.interactions:
            return 0.0
        grid, error = accurate_grid(
            self.filter_generators(),
            self.radial_basis,
            min(self.config.cutoff, self.radial_basis.reach),  # beyond it filters are constant
            self.embedding.weight.dtype,
        )
        self.filter_step = grid.step
        return error

    def _composed(
        self, atomic_numbers: Tensor, geometry: Geometry, half: HalfList | None, derivatives: bool
    ) -> Evaluated:
        """The network block by block, differentiable as often as needed; with `half` on the half list."""
        positions, cells, idx_m, idx_i, idx_j, shifts = geometry
        if half is not None:
            idx_i, shifts = (t.index_select(0, half[0]) for t in (idx_i, shifts))
            idx_j = half[2]
        r_ij = pair_vectors(positions, cells, idx_m, idx_i, idx_j, shifts)
        differentiable = _forward_mode() or (
            torch.is_grad_enabled()
            and (r_ij.requires_grad or any(p.requires_grad for p in self.parameters()))
        )
        with torch.set_grad_enabled(derivatives or torch.is_grad_enabled()):
            if derivatives and not r_ij.requires_grad:
                r_ij.requires_grad_()
            d_ij = torch.linalg.vector_norm(r_ij, dim=1)
            if half is None:
                convolutions = self.dense_convolutions(d_ij, idx_i, idx_j)
            else:
                convolutions = self.spline_convolutions(d_ij, half[1], idx_j)
            corrections = self.corrections(atomic_numbers, convolutions)
            x_out = self.combine(corrections)
            energies = self.offsets(self.readout(x_out), atomic_numbers)
            if self.pair_term is not None:
                phi, _ = self.pair_term(atomic_numbers[idx_i], atomic_numbers[idx_j], d_ij)
                energies = add_to_atoms(energies, phi, idx_i, idx_j, half is not None)
            g_ij = torch.zeros_like(r_ij)
            moves = self.config.n_interactions or self.pair_term is not None
            if derivatives and r_ij.shape[0] and moves:
                (g_ij,) = torch.autograd.grad(energies.sum(), r_ij, create_graph=differentiable)
        norms = torch.stack([torch.linalg.vector_norm(v.detach(), dim=1) for v in corrections])
        if not differentiable:
            energies, x_out = energies.detach(), x_out.detach()
            g_ij, r_ij = g_ij.detach(), r_ij.detach()
        forces = virial = g_ij
        if derivatives:
            forces = pair_forces(g_ij, idx_i, idx_j, positions.shape[0])
            virial = pair_virial(g_ij, r_ij, idx_m.index_select(0, idx_i), cells.shape[0])
        return energies, forces, virial, norms, x_out

    def _fused(
        self,
        atomic_numbers: Tensor,
        geometry: Geometry,
        half: HalfList,
        derivatives: bool,
        nodes: TableNodes | None = None,
        alive: Tensor | None = None,
    ) -> Evaluated:
        """The network in one operator, on the half list; differentiable once, in the parameters."""
        pairs, row_ptr, idx_j = half
        r_ij, d_ij = ops.pair_vectors(*geometry, pairs)
        grid = self._grid(d_ij) if nodes is None else nodes.grid
        kept = self._kept_for(grid)
        bins, weights = self._spline_weights(d_ij, grid)
        if alive is not None:
            weights = weights * alive[:, None]
        read_out = len(self.heads) > 0
        given = (self.embedding(atomic_numbers), row_ptr, idx_j, bins, weights)
        if kept is not None and d_ij.device.type == "cpu":
            network = (kept.tables, self.contribution_weights, kept.dense, kept.packed)
            how = (len(atomic_numbers), False, derivatives, read_out)
            g, g_d, norms, corrections = ops.schnet_evaluate_packed(*given, *network, *how)
            x_out = self.combine(list(corrections)) if read_out else corrections
        else:
            tables = self._new_tables(grid, nodes) if kept is None else kept.tables
            parameters = self.dense_parameters()
            g, g_d, norms, x_out = ops.schnet(
                *given, tables, self.contribution_weights, parameters, derivatives, read_out
            )
        energies = self.offsets(g, atomic_numbers)
        if derivatives:
            g_d = g_d.double() * self.offsets.scale
        if self.pair_term is not None:
            idx_i = geometry[3].index_select(0, pairs)
            phi, slope = self.pair_term(atomic_numbers[idx_i], atomic_numbers[idx_j], d_ij)
            energies = add_to_atoms(energies, phi, idx_i, idx_j, half=True)
            g_d = g_d + slope if derivatives else g_d
        forces = virial = d_ij
        if derivatives:
            idx_m, n_structures = geometry[2], geometry[1].shape[0]
            forces, virial = ops.pair_forces(g_d, r_ij, d_ij, row_ptr, idx_j, idx_m, n_structures)
        return energies, forces, virial, norms, x_out

    def _tables(self, d_ij: Tensor) -> tuple[Tensor, FilterGrid]:
        """Filters of all blocks (n_interactions, n_rows, n_features) and their grid."""
        grid = self._grid(d_ij)
        kept = self._kept_for(grid)
        return self._new_tables(grid) if kept is None else kept.tables, grid

    def _grid(self, d_ij: Tensor) -> FilterGrid:
        read = self.config.cutoff > self.radial_basis.reach and d_ij.shape[0]
        return self._grid_to(float(d_ij.detach().max()) if read else math.inf)

    def _grid_to(self, largest: float) -> FilterGrid:
        cutoff = self.config.cutoff
        if cutoff > self.radial_basis.reach and largest < cutoff:  # as long as is needed
            cutoff = min(cutoff, math.floor(largest) + 1.0)
        return FilterGrid(self.filter_step, cutoff)

    def _new_tables(self, grid: FilterGrid, nodes: TableNodes | None = None) -> Tensor:
        weight, generators = self.embedding.weight, self.filter_generators()
        if not generators:
            return weight.new_zeros((0, grid.n_rows, self.config.n_features))
        if nodes is not None:
            return tables_on(nodes, generators, weight.dtype)
        return filter_tables(generators, self.radial_basis, grid, weight.dtype)

    def _kept_for(self, grid: FilterGrid) -> "_Kept | None":
        """What can be kept while no parameter changes; None if one asks for gradients.

        Parameters that are trained change without a trace, so nothing made of them is kept.
        """
        filters, dense = self._all_parameters()
        parameters = [self.embedding.weight, self.contribution_weights, *filters, *dense]
        if any(p.requires_grad for p in parameters):
            return None
        try:
            state = (grid, *((p.data_ptr(), p._version) for p in parameters))
        except RuntimeError:  # made in inference mode: these change without a trace, too
            return None
        kept = self._kept  # threads share it, and another one may replace it at any time
        if state != kept.state:
            with torch.no_grad():
                tables, dense = self._new_tables(grid), [p.detach() for p in dense]
                packed = tables
                if tables.device.type == "cpu":
                    packed = ops.pack_schnet(tables, self.contribution_weights, dense)
            self._kept = kept = _Kept(state, tables, dense, packed)
        return kept

    def _spline_weights(self, d_ij: Tensor, grid: FilterGrid) -> tuple[Tensor, Tensor]:
        """Bins and weights of the pairs, for the filters and their first derivative."""
        pieces, dtype = self.cutoff_function.pieces, self.embedding.weight.dtype
        return ops.spline_weights(
            d_ij.detach(), grid.step, self.config.cutoff, pieces, grid.n_rows, 2, dtype
        )

    def _heads(self) -> list[tuple[str, Head]]:
        return [(name, cast(Head, head)) for name, head in self.heads.items()]

    def _blocks(self) -> list[Interaction]:
        return [cast(Interaction, block) for block in self.interactions]

    def _all_parameters(self) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters of the filter generators, and those of the dense layers in the order of `schnet`.

        Through the dictionaries that modules keep: attributes would take longer than all that is
        computed for a small molecule.
        """
        filters: list[Tensor] = []
        dense: list[Tensor] = []
        for block in _parts(_parts(self)["interactions"]).values():
            parts = _parts(block)
            generator = _parts(parts["filter_generator"])
            filters += [*_tensors(generator["hidden"]), *_tensors(generator["output"])]
            dense.append(_tensors(parts["input"])[0])
            dense += [*_tensors(parts["hidden"]), *_tensors(parts["output"])]
        readout = _parts(_parts(self)["readout"])
        return filters, [*dense, *_tensors(readout["hidden"]), *_tensors(readout["output"])]


@dataclass(frozen=True)
class _Kept:
    """What is made of parameters that stay as they are, and the state of these."""

    state: tuple[object, ...] = ()
    tables: Tensor = field(default_factory=lambda: torch.zeros(0))
    dense: list[Tensor] = field(default_factory=list)
    packed: Tensor = field(default_factory=lambda: torch.zeros(0))


def _forward_mode() -> bool:
    """Whether tangents may be on their way (torch.func.jvp, jacfwd, ...), which the operators do not know."""
    return forward_ad._current_level >= 0


def _parts(module: nn.Module) -> dict[str, nn.Module]:
    return cast(dict[str, nn.Module], module._modules)


def _tensors(layer: nn.Module) -> list[Tensor]:
    """Weight, and bias if there is one."""
    return [p for p in layer._parameters.values() if p is not None]


def _initial_weights(n: int, w_init: str) -> Tensor:
    _check_choice("w_init", w_init, get_args(WeightInit))
    if w_init == "random":
        weights = torch.rand(n)
        return weights / weights.sum()
    return torch.full((n,), 1.0 if w_init == "one" else 1.0 / n)


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(str, choices))}, got {value}")
