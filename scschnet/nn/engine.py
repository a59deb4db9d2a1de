"""How a SchNet is evaluated: block by block or in one operator, with filters from tables or not."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from scschnet import ops
from scschnet.nn.filter_table import (
    FilterGrid,
    TableNodes,
    accurate_grid,
    filter_tables,
    grid_step,
    table_nodes,
    tables_on,
)
from scschnet.nn.geometry import pair_forces, pair_vectors, pair_virial
from scschnet.nn.interaction import Convolution
from scschnet.nn.pair_term import PairTerm, add_to_atoms

if TYPE_CHECKING:
    from scschnet.nn.model import SchNet


class Geometry(NamedTuple):
    """Where the atoms are, and the full list of pairs; shapes as in `SchNet.forward`."""

    positions: Tensor
    cells: Tensor
    idx_m: Tensor
    idx_i: Tensor
    idx_j: Tensor
    shifts: Tensor


class HalfList(NamedTuple):
    """Every pair once, from `ops.half_list`."""

    pairs: Tensor
    """(n_pairs,) int64, where in the full list they stand"""
    row_ptr: Tensor
    """(n_atoms + 1,) int64, pairs row_ptr[i] .. row_ptr[i + 1] have center i"""
    idx_j: Tensor
    """(n_pairs,) int64"""


class Evaluated(NamedTuple):
    """What an evaluation gives."""

    energies: Tensor
    """(n_atoms,) float64, eV; or their sums over structures, if these were asked for"""
    forces: Tensor
    """(n_atoms, 3) float64, eV/Å; of no meaning where no derivatives were asked for"""
    virial: Tensor
    """(n_structures, 3, 3) float64, eV; likewise, and where the stress was not asked for"""
    norms: Tensor
    """of the corrections, (n_interactions + 1, n_atoms)"""
    corrections: Sequence[Tensor]
    """v^(0) to v^(L), (n_atoms, n_features) each; of no meaning where neither a head reads them nor x^out is asked for"""


@dataclass(frozen=True)
class Kept:
    """What is made of parameters that stay as they are, and the state of these."""

    state: tuple[object, ...] = ()
    tables: Tensor = field(default_factory=lambda: torch.zeros(0))
    dense: list[Tensor] = field(default_factory=list)
    packed: Tensor = field(default_factory=lambda: torch.zeros(0))


class Engine:
    """Evaluates a model, and keeps what can be kept between two evaluations.

    Args:
        model: the network, whose equations these are.
    """

    def __init__(self, model: "SchNet") -> None:
        self.model = model
        self.filter_step = grid_step(model.radial_basis.width)
        self._kept = Kept()

    def composed(
        self, atomic_numbers: Tensor, geometry: Geometry, half: HalfList | None, derivatives: bool
    ) -> Evaluated:
        """The network block by block, differentiable as often as needed; with `half` on the half list."""
        positions, cells, idx_m, idx_i, idx_j, shifts = geometry
        if half is not None:
            idx_i, shifts = (t.index_select(0, half.pairs) for t in (idx_i, shifts))
            idx_j = half.idx_j
        r_ij = pair_vectors(positions, cells, idx_m, idx_i, idx_j, shifts)
        differentiable = forward_mode() or (
            torch.is_grad_enabled()
            and (r_ij.requires_grad or any(p.requires_grad for p in self.model.parameters()))
        )
        with torch.set_grad_enabled(derivatives or torch.is_grad_enabled()):
            if derivatives and not r_ij.requires_grad:
                r_ij.requires_grad_()
            d_ij = torch.linalg.vector_norm(r_ij, dim=1)
            if half is None:
                convolutions = self.model.dense_convolutions(d_ij, idx_i, idx_j)
            else:
                convolutions = self.spline_convolutions(d_ij, half.row_ptr, idx_j)
            corrections = self.model.corrections(atomic_numbers, convolutions)
            x_out = self.model.combine(corrections)
            energies = self.model.offsets(self.model.readout(x_out), atomic_numbers)
            if self.model.pair_term is not None:
                _, i, j, phi, _ = self._pair_term(atomic_numbers, idx_i, idx_j, d_ij)
                energies = add_to_atoms(energies, phi, i, j, half is not None)
            g_ij = torch.zeros_like(r_ij)
            moves = self.model.config.n_interactions or self.model.pair_term is not None
            if derivatives and r_ij.shape[0] and moves:
                (g_ij,) = torch.autograd.grad(energies.sum(), r_ij, create_graph=differentiable)
        norms = _norms(corrections)
        if not differentiable:
            energies, corrections = energies.detach(), [v.detach() for v in corrections]
            g_ij, r_ij = g_ij.detach(), r_ij.detach()
        forces = virial = g_ij
        if derivatives:
            forces = pair_forces(g_ij, idx_i, idx_j, positions.shape[0])
            virial = pair_virial(g_ij, r_ij, idx_m.index_select(0, idx_i), cells.shape[0])
        return Evaluated(energies, forces, virial, norms, corrections)

    def fused(
        self,
        atomic_numbers: Tensor,
        geometry: Geometry,
        half: HalfList,
        derivatives: bool,
        nodes: TableNodes | None = None,
        alive: Tensor | None = None,
        representation: bool = False,
        stress: bool = True,
        sizes: Tensor | None = None,
    ) -> Evaluated:
        """The network in one operator, on the half list; differentiable once, in the parameters.

        The operator gives the corrections of parameters that are kept. Those that heads are trained on come block by
        block, and with them the energy, unless its derivatives are asked for, which the operator is needed for.

        Args:
            atomic_numbers: (n_atoms,) int64.
            geometry: of the atoms and the full list.
            half: the half list.
            derivatives: whether forces are asked for, or the virial.
            nodes: of the filter tables, if they were made before.
            alive: (n_pairs,), zero for pairs that are padding; None: there are none.
            representation: whether the corrections are needed.
            stress: whether the virial is needed, too.
            sizes: (n_structures,) atoms of each structure: `energies` are then sums over these.
        """
        pairs, row_ptr, idx_j = half
        r_ij, d_ij = ops.pair_vectors(*geometry, pairs)
        grid = self._grid(d_ij) if nodes is None else nodes.grid
        kept = self._kept_for(grid)
        bins, weights = self._spline_weights(d_ij, grid)
        if alive is not None:
            weights = weights * alive[:, None]
        pairs_ij = self._pairs(d_ij, bins, weights, row_ptr, idx_j, grid)
        read_out = representation or len(self.model.heads) > 0
        partners = None
        if derivatives and ops.trains_on(d_ij.device):  # for the network and the forces
            partners = ops.find_partners(row_ptr, idx_j)
        g, g_d, norms, corrections = self._network(
            atomic_numbers, pairs_ij, grid, nodes, kept, derivatives, read_out, partners
        )
        offsets, to_sum = self.model.offsets, sizes
        if sizes is not None and self.model.pair_term is None and ops.trains_on(g.device):
            numbers, terms = (atomic_numbers, sizes, geometry.idx_m), offsets.named_buffers()
            energies, to_sum = ops.sum_energies(g, *numbers, **dict(terms)), None
        else:
            energies = offsets(g, atomic_numbers)
        if derivatives:
            g_d = g_d.double() * self.model.offsets.scale
        if self.model.pair_term is not None:
            idx_i = geometry.idx_i.index_select(0, pairs)
            near, i, j, phi, slope = self._pair_term(
                atomic_numbers, idx_i, idx_j, d_ij, fixed_shapes=nodes is not None
            )
            if alive is not None:
                phi, slope = phi * alive, slope * alive
            energies = add_to_atoms(energies, phi, i, j, half=True)
            if derivatives:
                g_d = g_d + slope if near is None else g_d.index_add(0, near, slope)
        forces = virial = d_ij
        if derivatives:
            n_structures = len(geometry.cells) if stress else 0
            forces, virial = ops.pair_forces(
                g_d, r_ij, d_ij, row_ptr, idx_j, geometry.idx_m, n_structures, partners
            )
        if to_sum is not None:
            energies = torch.segment_reduce(energies, "sum", lengths=to_sum, unsafe=True)
        return Evaluated(energies, forces, virial, norms, corrections)

    def _network(
        self,
        atomic_numbers: Tensor,
        pairs: ops.Pairs,
        grid: FilterGrid,
        nodes: TableNodes | None,
        kept: Kept | None,
        derivatives: bool,
        read_out: bool,
        partners: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Sequence[Tensor]]:
        """Readout of every atom, its derivative in every distance, norms of the corrections, and these if `read_out`."""
        given = (
            self._embedded(atomic_numbers),
            pairs.row_ptr,
            pairs.idx_j,
            pairs.bins,
            pairs.weights,
        )
        if kept is not None and pairs.d_ij.device.type == "cpu":
            network = (kept.tables, self.model.contribution_weights, kept.dense)
            n_local, halo = len(atomic_numbers), False
            g, g_d, norms, found = ops.schnet_evaluate(
                *given, *network, n_local, halo, derivatives, read_out, kept.packed
            )
            return g, g_d, norms, list(found) if read_out else ()
        tables = self._new_tables(grid, nodes) if kept is None else kept.tables
        corrections: Sequence[Tensor] = ()
        if read_out and nodes is None:
            corrections = self.model.corrections(atomic_numbers, _convolutions(tables, pairs))
        if corrections and not derivatives:
            g = self.model.readout(self.model.combine(list(corrections)))
            return g, pairs.d_ij, _norms(corrections), corrections
        parameters = self.model.dense_parameters()
        g, g_d, norms, _ = ops.schnet(
            *given,
            *(tables, self.model.contribution_weights, parameters),
            derivatives,
            partners=partners,
        )
        return g, g_d, norms, corrections

    def _embedded(self, atomic_numbers: Tensor) -> Tensor:
        """The features of atoms; on a GPU with a gradient that has the same bits on every run."""
        weight = self.model.embedding.weight
        if not weight.requires_grad:  # in a third of the time of the module's call
            return weight.index_select(0, atomic_numbers)
        if ops.trains_on(weight.device):
            return ops.embedding(weight, atomic_numbers)
        return self.model.embedding(atomic_numbers)

    def _pair_term(
        self,
        atomic_numbers: Tensor,
        idx_i: Tensor,
        idx_j: Tensor,
        d_ij: Tensor,
        fixed_shapes: bool = False,
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:
        """The pairs that the pair term may act on (None: all), their atoms, energies and slopes."""
        term = cast(PairTerm, self.model.pair_term)
        near = None
        if not fixed_shapes:
            near = (d_ij.detach() < term.reach()).nonzero().squeeze(1)
            idx_i, idx_j, d_ij = (t.index_select(0, near) for t in (idx_i, idx_j, d_ij))
        return near, idx_i, idx_j, *term(atomic_numbers[idx_i], atomic_numbers[idx_j], d_ij)

    def spline_convolutions(
        self, d_ij: Tensor, row_ptr: Tensor, idx_j: Tensor
    ) -> list[Convolution]:
        """Each block's convolution, its filters interpolated in tables.

        Args:
            d_ij: distance of each pair of the half list, (n_pairs,), Å.
            row_ptr: start of each center's pairs, (n_atoms + 1,) int64.
            idx_j: neighbor of each pair, (n_pairs,) int64.
        """
        tables, grid = self.tables(d_ij)
        bins, weights = self._spline_weights(d_ij, grid)
        return _convolutions(tables, self._pairs(d_ij, bins, weights, row_ptr, idx_j, grid))

    def _pairs(
        self,
        d_ij: Tensor,
        bins: Tensor,
        weights: Tensor,
        row_ptr: Tensor,
        idx_j: Tensor,
        grid: FilterGrid,
    ) -> ops.Pairs:
        cutoff, pieces = self.model.config.cutoff, self.model.cutoff_function.pieces
        return ops.Pairs(d_ij, bins, weights, row_ptr, idx_j, grid.step, cutoff, pieces)

    def table_nodes(self, largest: float) -> TableNodes:
        """See `SchNet.table_nodes`."""
        return table_nodes(
            self.model.radial_basis, self._grid_to(largest), self.model.embedding.weight.device
        )

    def refine_filters(self) -> float:
        """See `SchNet.refine_filters`."""
        model = self.model
        device = model.embedding.weight.device
        if model.filters != "spline" or not ops.runs_on(device) or not model.interactions:
            return 0.0
        grid, error = accurate_grid(
            model.filter_generators(),
            model.radial_basis,
            min(model.config.cutoff, model.radial_basis.reach),  # filters are constant beyond
            model.embedding.weight.dtype,
        )
        self.filter_step = grid.step
        return error

    def tables(self, d_ij: Tensor) -> tuple[Tensor, FilterGrid]:
        """Filters of all blocks (n_interactions, n_rows, n_features) and their grid."""
        grid = self._grid(d_ij)
        kept = self._kept_for(grid)
        return self._new_tables(grid) if kept is None else kept.tables, grid

    def _grid(self, d_ij: Tensor) -> FilterGrid:
        read = self.model.config.cutoff > self.model.radial_basis.reach and d_ij.shape[0]
        return self._grid_to(float(d_ij.detach().max()) if read else math.inf)

    def _grid_to(self, largest: float) -> FilterGrid:
        cutoff = self.model.config.cutoff
        if cutoff > self.model.radial_basis.reach and largest < cutoff:  # as long as is needed
            cutoff = min(cutoff, math.floor(largest) + 1.0)
        return FilterGrid(self.filter_step, cutoff)

    def _new_tables(self, grid: FilterGrid, nodes: TableNodes | None = None) -> Tensor:
        weight, generators = self.model.embedding.weight, self.model.filter_generators()
        if not generators:
            return weight.new_zeros((0, grid.n_rows, self.model.config.n_features))
        if nodes is not None:
            return tables_on(nodes, generators, weight.dtype)
        return filter_tables(generators, self.model.radial_basis, grid, weight.dtype)

    def _kept_for(self, grid: FilterGrid) -> Kept | None:
        """What can be kept while no parameter changes; None if one asks for gradients.

        Parameters that are trained change without a trace, so nothing made of them is kept.
        """
        filters, dense = filter_and_dense_parameters(self.model)
        parameters = [
            self.model.embedding.weight,
            self.model.contribution_weights,
            *filters,
            *dense,
        ]
        # Lists, which are made faster than generators: this is asked on every step of dynamics.
        if True in [p.requires_grad for p in parameters]:
            return None
        try:
            places, versions = [p.data_ptr() for p in parameters], [p._version for p in parameters]
        except RuntimeError:  # made in inference mode: these change without a trace, too
            return None
        state = (grid, places, versions)
        kept = self._kept  # threads share it, and another one may replace it at any time
        if state != kept.state:
            with torch.no_grad():
                tables, dense = self._new_tables(grid), [p.detach() for p in dense]
                packed = tables
                if tables.device.type == "cpu":
                    packed = ops.pack_schnet(tables, self.model.contribution_weights, dense)
            self._kept = kept = Kept(state, tables, dense, packed)
        return kept

    def _spline_weights(self, d_ij: Tensor, grid: FilterGrid) -> tuple[Tensor, Tensor]:
        """Bins and weights of the pairs, for the filters and their first derivative."""
        pieces, dtype = self.model.cutoff_function.pieces, self.model.embedding.weight.dtype
        return ops.spline_weights(
            d_ij.detach(), grid.step, self.model.config.cutoff, pieces, grid.n_rows, 2, dtype
        )


def _convolutions(tables: Tensor, pairs: ops.Pairs) -> list[Convolution]:
    """Each block's convolution, its filters interpolated in its table."""

    def convolution(table: Tensor) -> Convolution:
        return lambda x: ops.cfconv(x, table, pairs)

    return [convolution(table) for table in tables]


def _norms(corrections: Sequence[Tensor]) -> Tensor:
    """(n_layers, n_atoms), without gradient."""
    return torch.stack([torch.linalg.vector_norm(v.detach(), dim=1) for v in corrections])


def forward_mode() -> bool:
    """Whether tangents may be on their way (torch.func.jvp, jacfwd, ...), which the operators do not know."""
    return forward_ad._current_level >= 0


def filter_and_dense_parameters(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters of the filter generators, and those of the dense layers in the order of `schnet`.

    Through the dictionaries that modules keep: attributes would take longer than all that is
    computed for a small molecule.
    """
    filters: list[Tensor] = []
    dense: list[Tensor] = []
    for block in _parts(_parts(model)["interactions"]).values():
        parts = _parts(block)
        generator = _parts(parts["filter_generator"])
        filters += _tensors(generator["hidden"])
        filters += _tensors(generator["output"])
        dense.append(parts["input"]._parameters["weight"])  # type: ignore[arg-type]
        dense += _tensors(parts["hidden"])
        dense += _tensors(parts["output"])
    readout = _parts(_parts(model)["readout"])
    dense += _tensors(readout["hidden"])
    dense += _tensors(readout["output"])
    return filters, dense


def _parts(module: nn.Module) -> dict[str, nn.Module]:
    return module._modules  # type: ignore[return-value]


def _tensors(layer: nn.Module) -> Iterable[Tensor]:
    """Weight and bias."""
    return layer._parameters.values()  # type: ignore[return-value]
