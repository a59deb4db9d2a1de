"""The module inside an exported file: what both kinds share, and the full kind, made of scschnet's operators."""

import math

import torch
from torch import Tensor, nn

from scschnet.nn import SchNet
from scschnet.nn.config import MAX_Z
from scschnet.nn.error_bars import ErrorBars, ErrorStatistics
from scschnet.nn.filter_table import FilterGrid, filter_tables
from scschnet.nn.unfamiliarity import NormStatistics


class Potential(nn.Module):
    """Energies, forces and virial of one structure, for TorchScript.

    Lengths in Å, energies in eV, all results float64. The network runs in the dtype of the model, everything
    around it in float64. Nothing is differentiable: forces are results. Both calls return a dict of tensors:

        energy () and energies (n_local,), eV
        forces (n_atoms, 3), eV/Å, those on ghosts included
        virial (3, 3) = -sum_pairs r_ij dE/dr_ij = -dE/dstrain, eV
        correction_norms ||v_i^(l)||, (n_interactions + 1, n_local)
        with `layers`: layer_energies (n_interactions + 1, n_local) and base_energies (n_local,), eV:
            energies = base_energies + layer_energies.sum(0), to the rounding of the network's dtype;
            with a pair term pair_energies (n_local,), eV, the part of base_energies that is the pair term's
        with `atom_virial`: atom_virial (n_atoms, 3, 3), eV, half of every pair's to either atom
        for every property NAME: NAME_atoms (n_local,), what every atom contributes, in its unit;
            from `forward`, which knows positions, NAME too, the property of the structure, (...)
        of a model that was not trained on energies neither these nor what is derived from them; `forward_pairs` fails
        with statistics of the training set: unfamiliarity (n_local,), see scschnet.nn.unfamiliarity
        with statistics of its errors: energy_std (), of the sum of the local energies, and energies_std (n_local,), eV;
            forces_std (n_atoms,), eV/Å, zero on ghosts; energy_deviations (n_features,), eV, which a host adds up over
            its processes, and whose root mean square is energy_std, see scschnet.nn.error_bars

    Subclasses define the methods that raise NotImplementedError here. How they store the centers of a half list
    is their own matter.

    Args:
        model: on the CPU, in its final dtype, its filter step chosen (`SchNet.refine_filters`).
        symbols: of its elements, for messages.
        statistics: of the norms of the corrections over the training set; None: unknown.
        errors: of its energies and forces on the validation set; None: unknown.
    """

    contribution_weights: Tensor
    known: Tensor
    embedding: Tensor
    scale: Tensor
    offsets: Tensor
    readout_weight: Tensor
    readout_bias: Tensor
    readout_output: Tensor
    energy_at_zero: Tensor
    cutoff_pieces: Tensor
    norm_mean: Tensor
    norm_whitening: Tensor
    head_weights: Tensor

    def __init__(
        self,
        model: SchNet,
        symbols: list[str],
        statistics: NormStatistics | None = None,
        errors: ErrorStatistics | None = None,
    ) -> None:
        super().__init__()
        config, offsets = model.config, model.offsets
        grid = FilterGrid(model.filter_step, config.cutoff)
        self.cutoff = config.cutoff
        self.register_buffer("cutoff_pieces", model.cutoff_function.pieces.clone())
        self.n_interactions = config.n_interactions
        self.dtype = model.embedding.weight.dtype
        self.step = grid.step
        self.n_rows = grid.n_rows
        self.symbols = ", ".join(symbols)
        self.checked = True  # whether results are looked at
        self.pair_term = model.pair_term
        self.wall_reach = 0.0 if model.pair_term is None else float(model.pair_term.reach())
        self.heads = model.heads
        self.has_heads = len(model.heads) > 0
        self.has_energy = config.energy
        head_weights = model.head_weights if self.has_heads else torch.zeros(0)
        self.register_buffer("head_weights", head_weights.detach().clone())
        self.has_error_bars = errors is not None
        self.error_bars = None if errors is None else ErrorBars(errors)
        self.register_buffer("contribution_weights", model.contribution_weights.detach().clone())
        known = torch.zeros(MAX_Z + 2, dtype=torch.bool)  # the last row: no element at all
        known[list(config.elements)] = True
        self.register_buffer("known", known)
        # Unknown elements have features of NaN: a look at the energy finds them, and costs nothing before.
        embedding = nn.functional.pad(model.embedding.weight.detach(), (0, 0, 0, 1))
        self.register_buffer("embedding", embedding.masked_fill(~known[:, None], math.nan))
        self.register_buffer("scale", offsets.scale.clone())
        self.register_buffer("offsets", nn.functional.pad(offsets.atomref + offsets.shift, (0, 1)))
        readout = dense_parameters(model)[-4:]
        weight, bias, output, output_bias = (p.double() for p in readout)
        self.register_buffer("readout_weight", weight.t().contiguous())
        self.register_buffer("readout_bias", bias)
        self.register_buffer("readout_output", output[0] * offsets.scale)
        at_zero = output @ (nn.functional.softplus(bias) - math.log(2.0)) + output_bias
        self.register_buffer("energy_at_zero", at_zero * offsets.scale)
        self.has_statistics = statistics is not None
        mean, whitening = statistics.tables() if statistics else (torch.zeros(0), torch.zeros(0))
        self.register_buffer("norm_mean", mean)
        self.register_buffer("norm_whitening", whitening)

    def forward(
        self,
        positions: Tensor,
        atomic_numbers: Tensor,
        cell: Tensor,
        pbc: Tensor,
        layers: bool = False,
        atom_virial: bool = False,
    ) -> dict[str, Tensor]:
        """Evaluate a structure; its neighbors are found here.

        Args:
            positions: (n_atoms, 3) float32 or float64, Å.
            atomic_numbers: (n_atoms,) int64.
            cell: (3, 3), rows are lattice vectors, Å; rows of open axes are ignored.
            pbc: (3,) bool.
            layers: whether the energies of the layers are wanted.
            atom_virial: whether the virials of the atoms are wanted.
        """
        n_atoms = positions.size(0)
        if atomic_numbers.size(0) != n_atoms:
            raise ValueError(
                f"`atomic_numbers` must have {n_atoms} elements like `positions`, got "
                f"{atomic_numbers.size(0)}"
            )
        r = positions.detach().double()
        centers, idx_j, r_ij, d_ij = self.half_pairs(r, cell.detach().double(), pbc)
        splines = self.spline_weights(d_ij)
        wall = self.wall(atomic_numbers, centers, idx_j, d_ij, n_atoms)
        return self.results_of_structure(
            r, atomic_numbers, centers, idx_j, r_ij, d_ij, splines, wall, layers, atom_virial
        )

    def results_of_structure(
        self,
        positions: Tensor,
        atomic_numbers: Tensor,
        centers: Tensor,
        idx_j: Tensor,
        r_ij: Tensor,
        d_ij: Tensor,
        splines: list[Tensor],
        wall: list[Tensor],
        layers: bool,
        atom_virial: bool,
    ) -> dict[str, Tensor]:
        """`results` without ghosts, and what the heads make of the structure."""
        n_atoms = positions.size(0)
        pairs = (centers, idx_j, r_ij, d_ij, splines, wall)
        result = self.results(atomic_numbers, *pairs, n_atoms, False, layers, atom_virial)
        idx_m = torch.zeros_like(atomic_numbers)
        for name, head in self.heads.items():
            values = result[name + "_atoms"]
            r = positions.detach().double()
            pooled = head.pool(values, r, atomic_numbers, idx_m, 1)  # type: ignore[operator]
            result[name] = pooled[0]
        return result

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
        """Evaluate what a host hands over: pairs, with atoms 0 to n_local - 1 its own and ghosts behind them.

        Every pair of two local atoms once, in either order; a pair of a local atom and a ghost with the local
        atom as center. Pairs at or beyond the cutoff count nothing.

        Args:
            atomic_numbers: (n_atoms,) int64, ghosts included.
            idx_i: center of each pair, (n_pairs,) int64, sorted.
            idx_j: neighbor of each pair, (n_pairs,) int64.
            r_ij: position of the neighbor minus that of the center, (n_pairs, 3) float64, Å.
            n_local: number of local atoms.
            halo: True: ghosts are one cutoff deep, and the host exchanges their features between blocks
                (scschnet/halo.h); False: ghosts are n_interactions cutoffs deep and have their own pairs.
            layers: whether the energies of the layers are wanted.
            atom_virial: whether the virials of the atoms are wanted.
        """
        if not self.has_energy:
            raise ValueError(
                "the model was trained on properties alone: it has no energy or forces"
            )
        centers = self.host_pairs(idx_i, idx_j, atomic_numbers.size(0), n_local, halo)
        r = r_ij.detach().double().contiguous()
        d_ij = self.distances(r)
        splines = self.spline_weights(d_ij)
        wall = self.wall(atomic_numbers, centers, idx_j, d_ij, n_local)
        return self.results(
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

    def results(
        self,
        atomic_numbers: Tensor,
        centers: Tensor,
        idx_j: Tensor,
        r_ij: Tensor,
        d_ij: Tensor,
        splines: list[Tensor],
        wall: list[Tensor],
        n_local: int,
        halo: bool,
        layers: bool,
        atom_virial: bool,
    ) -> dict[str, Tensor]:
        """Run the network on a half list and put together what comes out.

        Centers, pairs, `splines` from `spline_weights` and `wall` may be those of another potential of the same kind,
        cutoff, filter step and pair term.
        """
        n_atoms = atomic_numbers.size(0)
        rows = atomic_numbers.clamp(0, self.known.size(0) - 1)
        g, g_d, norms, corrections = self.network(
            self.embedding.index_select(0, rows),
            centers,
            idx_j,
            splines,
            n_local,
            halo,
            layers or self.has_heads or self.has_error_bars,
        )
        offsets = self.offsets.index_select(0, rows.narrow(0, 0, n_local))
        energies = torch.addcmul(offsets, g.double(), self.scale)
        e_d = g_d.double() * self.scale  # dE/dd_ij
        if len(wall) > 0:
            energies = energies + wall[0]
            e_d = e_d.index_add(0, wall[1], wall[2])
        energy = energies.sum()
        forces, virial = self.pair_forces(e_d, centers, idx_j, r_ij, d_ij, n_atoms)
        if self.checked and not math.isfinite(float(energy) + float(virial.sum())):
            self.explain(atomic_numbers, d_ij)
        result = {
            "energy": energy,
            "energies": energies,
            "forces": forces,
            "virial": virial,
            "correction_norms": norms.double(),
        }
        if self.has_statistics:
            result["unfamiliarity"] = self.unfamiliarity(
                result["correction_norms"], atomic_numbers.narrow(0, 0, n_local)
            )
        if self.has_error_bars:
            self.add_error_bars(result, atomic_numbers, centers, idx_j, r_ij, d_ij, corrections)
        if self.has_heads:
            self.add_properties(result, atomic_numbers, corrections)
        if not self.has_energy:
            for name in ["energy", "energies", "forces", "virial"]:
                result.pop(name)
            return result
        if layers:
            result["layer_energies"] = self.layer_energies(corrections)
            result["base_energies"] = offsets + self.energy_at_zero
            if len(wall) > 0:
                result["base_energies"] = result["base_energies"] + wall[0]
            if self.pair_term is not None:
                result["pair_energies"] = wall[0] if len(wall) > 0 else torch.zeros_like(energies)
        if atom_virial:
            half = r_ij.unsqueeze(2) * (r_ij * (-0.5 * e_d / d_ij).unsqueeze(1)).unsqueeze(1)
            per_atom = half.new_zeros([n_atoms, 3, 3]).index_add_(0, self.idx_i(centers), half)
            result["atom_virial"] = per_atom.index_add_(0, idx_j, half)
        return result

    def wall(
        self, atomic_numbers: Tensor, centers: Tensor, idx_j: Tensor, d_ij: Tensor, n_local: int
    ) -> list[Tensor]:
        """What the pair term adds; nothing if there is none.

        Returns:
            Its energy of every local atom (n_local,), which pairs it acts on, and its slope along them, eV/Å; nothing, too,
            if it acts on no pair.
        """
        added: list[Tensor] = []
        if self.pair_term is not None:
            rows = self.in_table(atomic_numbers)
            near, i, j = self.wall_pairs(rows, centers, idx_j, d_ij)
            if self.checked and near.size(0) == 0:  # all atoms at familiar distances
                return added
            z_i, z_j = rows.index_select(0, i), rows.index_select(0, j)
            d = d_ij.index_select(0, near)
            phi, slope = self.pair_term(z_i, z_j, d)
            half_phi = 0.5 * phi
            of_atoms = phi.new_zeros([atomic_numbers.size(0)]).index_add_(0, i, half_phi)
            energies = of_atoms.index_add_(0, j, half_phi).narrow(0, 0, n_local)
            # A ghost's half of a pair belongs to the process that owns it.
            share = 0.5 * ((i < n_local).double() + (j < n_local).double())
            added = [energies, near, slope * share]
        return added

    def wall_pairs(
        self, rows: Tensor, centers: Tensor, idx_j: Tensor, d_ij: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs that the pair term may act on: their places, centers and neighbors. `rows` are atomic numbers."""
        return self.composed_wall_pairs(rows, centers, idx_j, d_ij)

    def composed_wall_pairs(
        self, rows: Tensor, centers: Tensor, idx_j: Tensor, d_ij: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same in torch's own operations."""
        near = (d_ij < self.wall_reach).nonzero().squeeze(1)
        i, j = self.centers_of(near, centers), idx_j.index_select(0, near)
        if self.checked and self.pair_term is not None:  # compiled code cannot branch on data
            z_i, z_j = rows.index_select(0, i), rows.index_select(0, j)
            ranges = self.pair_term.ranges_of(z_i, z_j)
            inside = (d_ij.index_select(0, near) < ranges).nonzero().squeeze(1)
            near = near.index_select(0, inside)
            i, j = i.index_select(0, inside), j.index_select(0, inside)
        return near, i, j

    def add_error_bars(
        self,
        result: dict[str, Tensor],
        atomic_numbers: Tensor,
        centers: Tensor,
        idx_j: Tensor,
        r_ij: Tensor,
        d_ij: Tensor,
        corrections: Tensor,
    ) -> None:
        """Those of local atoms; ghosts have theirs where they are local, and zero here."""
        n_atoms, n_local = atomic_numbers.size(0), corrections.size(1)
        if self.error_bars is not None:
            trial = self.trial_sizes(centers, idx_j, r_ij, d_ij, n_atoms).narrow(0, 0, n_local)
            bars = self.bars(corrections, atomic_numbers.narrow(0, 0, n_local), trial)
            result["energy_std"], result["energies_std"] = bars[0], bars[1]
            result["forces_std"] = bars[2]
            if n_local < n_atoms:
                result["forces_std"] = nn.functional.pad(bars[2], [0, n_atoms - n_local])
            result["energy_deviations"] = bars[3]

    def add_properties(
        self, result: dict[str, Tensor], atomic_numbers: Tensor, corrections: Tensor
    ) -> None:
        """What every local atom contributes to the properties."""
        n_local = corrections.size(1)
        shape = [self.head_weights.size(0), n_local, corrections.size(2)]
        representations = torch.matmul(self.head_weights, corrections.flatten(1)).view(shape)
        numbers = atomic_numbers.narrow(0, 0, n_local)
        for k, (name, head) in enumerate(self.heads.items()):
            x_out = representations[k]
            result[name + "_atoms"] = head.atom_values(x_out, numbers)  # type: ignore[operator]

    def in_table(self, atomic_numbers: Tensor) -> Tensor:
        """Atomic numbers that index a table of the pair term; what is no element is found by the energy."""
        return atomic_numbers.clamp(0, self.known.size(0) - 2)

    def layer_energies(self, corrections: Tensor) -> Tensor:
        """Split the energy of every atom over the layers, exactly.

        eps^(l) = scale sum_k c_k s_k w^(l) (C v^(l))_k,   s_k = (ssp(p_k + b_k) - ssp(b_k)) / p_k,   p = C x^out
        This is the integral of grad g(a x^out) . w^(l) v^(l) over a from 0 to 1, for g(x) = c . ssp(C x + b) + d.

        Args:
            corrections: v^(l), (n_interactions + 1, n_atoms, n_features).

        Returns:
            (n_interactions + 1, n_atoms) float64, eV; their sum is scale (g(x^out) - g(0)).
        """
        weights = self.contribution_weights.double().unsqueeze(1).unsqueeze(2)
        parts = torch.matmul(corrections.double() * weights, self.readout_weight)
        p, b = parts.sum(0), self.readout_bias
        slope = torch.sigmoid(b)
        near = torch.log1p(slope * torch.expm1(p))
        far = nn.functional.softplus(p + b) - nn.functional.softplus(b)
        rise = torch.where(p.abs() < 1.0, near, far)
        s = torch.where(p == 0.0, slope.expand_as(p), rise / p)
        return torch.matmul(parts * s, self.readout_output)

    def explain(self, atomic_numbers: Tensor, d_ij: Tensor) -> None:
        """Stop with the reason for results that are not finite."""
        rows = atomic_numbers.clamp(0, self.known.size(0) - 1)
        strange = atomic_numbers[torch.logical_not(self.known.index_select(0, rows))]
        if strange.size(0) > 0:
            raise ValueError(
                f"`atomic_numbers` must hold only {self.symbols}, the elements of the model, got "
                f"{int(strange[0])}"
            )
        if d_ij.size(0) > 0 and float(d_ij.min()) < 1e-6:
            raise ValueError("atoms must lie on different points, got two on the same one")
        raise ValueError("the energy is not finite: the input is not, or atoms are far too close")

    def half_pairs(
        self, positions: Tensor, cell: Tensor, pbc: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Every pair within the cutoff once: centers, neighbors, vectors, distances."""
        raise NotImplementedError

    def host_pairs(
        self, idx_i: Tensor, idx_j: Tensor, n_atoms: int, n_local: int, halo: bool
    ) -> Tensor:
        """Check the pairs of a host, and return their centers."""
        raise NotImplementedError

    def distances(self, r_ij: Tensor) -> Tensor:
        """Lengths of the vectors of pairs."""
        return torch.linalg.vector_norm(r_ij, dim=1)

    def idx_i(self, centers: Tensor) -> Tensor:
        """Center of each pair, (n_pairs,)."""
        raise NotImplementedError

    def centers_of(self, pairs: Tensor, centers: Tensor) -> Tensor:
        """Centers of some pairs, which are given by their places."""
        raise NotImplementedError

    def spline_weights(self, d_ij: Tensor) -> list[Tensor]:
        """What is read of the filter tables at each distance, and with which weights, as `network` takes it."""
        raise NotImplementedError

    def network(
        self,
        features: Tensor,
        centers: Tensor,
        idx_j: Tensor,
        splines: list[Tensor],
        n_local: int,
        halo: bool,
        corrections: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Evaluate the network.

        Returns:
            Readout of the local atoms, its derivative in every distance, norms of the corrections, and these if asked.
        """
        raise NotImplementedError

    def pair_forces(
        self,
        e_d: Tensor,
        centers: Tensor,
        idx_j: Tensor,
        r_ij: Tensor,
        d_ij: Tensor,
        n_atoms: int,
    ) -> tuple[Tensor, Tensor]:
        """Forces and virial from the derivative of the energy in every distance."""
        raise NotImplementedError

    def trial_sizes(
        self, centers: Tensor, idx_j: Tensor, r_ij: Tensor, d_ij: Tensor, n_atoms: int
    ) -> Tensor:
        """How asymmetric the surroundings of atoms are, (n_atoms, 4), for their error bars."""
        raise NotImplementedError

    def bars(
        self, corrections: Tensor, atomic_numbers: Tensor, trial: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `ErrorBars` returns for local atoms."""
        raise NotImplementedError

    def unfamiliarity(self, correction_norms: Tensor, atomic_numbers: Tensor) -> Tensor:
        """Score of every local atom, (n_local,)."""
        raise NotImplementedError


State = tuple[Tensor, Tensor, list[Tensor], bool]


class Weights(nn.Module):
    """The network's weights, which are laid out for the CPU whenever a file is loaded.

    Laying them out takes longer than evaluating a small molecule, and depends on the CPU, so that it can be
    neither done with every call nor stored.

    Args:
        tables: filters, (n_interactions, n_rows, n_features).
        contribution_weights: (n_interactions + 1,).
        dense: `SchNet.dense_parameters`.
    """

    tables: Tensor
    contribution_weights: Tensor
    dense: list[Tensor]
    packed: Tensor

    def __init__(self, tables: Tensor, contribution_weights: Tensor, dense: list[Tensor]) -> None:
        super().__init__()
        self.kept = True  # whether the layout is used; AOTInductor would store it
        self.tables, self.contribution_weights, self.dense = tables, contribution_weights, dense
        self.packed = torch.ops.scschnet.pack_schnet(tables, contribution_weights, dense)

    @torch.jit.export
    def __getstate__(self) -> State:
        return self.tables, self.contribution_weights, self.dense, self.training

    @torch.jit.export
    def __setstate__(self, state: State) -> None:
        self.kept = True
        self.tables, self.contribution_weights, self.dense = state[0], state[1], state[2]
        self.training = state[3]
        self.packed = torch.ops.scschnet.pack_schnet(state[0], state[1], state[2])

    def forward(
        self,
        features: Tensor,
        row_ptr: Tensor,
        idx_j: Tensor,
        bins: Tensor,
        weights: Tensor,
        n_local: int,
        halo: bool,
        corrections: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Evaluate the network, by scschnet::schnet_evaluate."""
        packed: Tensor | None = None
        if self.kept:
            packed = self.packed
        return torch.ops.scschnet.schnet_evaluate(
            features,
            row_ptr,
            idx_j,
            bins,
            weights,
            self.tables,
            self.contribution_weights,
            self.dense,
            n_local,
            halo,
            True,
            corrections,
            packed,
        )


class FullPotential(Potential):
    """A potential made of scschnet's operators: fast, exchanges ghosts, needs libscschnet_ops.so.

    Centers are stored as the start of each atom's pairs, row_ptr (n_atoms + 1,).

    Args:
        model: as for `Potential`.
        symbols: of its elements, for messages.
        statistics: as for `Potential`.
        errors: as for `Potential`.
    """

    def __init__(
        self,
        model: SchNet,
        symbols: list[str],
        statistics: NormStatistics | None = None,
        errors: ErrorStatistics | None = None,
    ) -> None:
        super().__init__(model, symbols, statistics, errors)
        tables = filter_tables_of(model)
        self.weights = Weights(tables, self.contribution_weights, dense_parameters(model))
        index, ranges = wall_ranges(model)
        self.register_buffer("wall_index", index)
        self.register_buffer("wall_ranges", ranges)

    def half_pairs(
        self, positions: Tensor, cell: Tensor, pbc: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Neighbor list by scschnet::half_neighbor_list."""
        n_atoms, cells = positions.size(0), cell.unsqueeze(0)
        idx_i, idx_j, shifts, row_ptr = torch.ops.scschnet.half_neighbor_list(
            positions, torch.tensor([0, n_atoms]), cells, pbc.unsqueeze(0), self.cutoff
        )
        idx_m = torch.zeros([n_atoms], dtype=torch.int64)
        all_pairs = torch.arange(idx_i.size(0))
        r_ij, d_ij = torch.ops.scschnet.pair_vectors(
            positions, cells, idx_m, idx_i, idx_j, shifts, all_pairs
        )
        return row_ptr, idx_j, r_ij, d_ij

    def host_pairs(
        self, idx_i: Tensor, idx_j: Tensor, n_atoms: int, n_local: int, halo: bool
    ) -> Tensor:
        """Checks and rows by scschnet::pair_rows."""
        return torch.ops.scschnet.pair_rows(idx_i, idx_j, n_atoms)

    def distances(self, r_ij: Tensor) -> Tensor:
        """By scschnet::pair_distances."""
        return torch.ops.scschnet.pair_distances(r_ij)

    def idx_i(self, centers: Tensor) -> Tensor:
        """Center of each pair, (n_pairs,)."""
        return torch.repeat_interleave(centers.diff())

    def centers_of(self, pairs: Tensor, centers: Tensor) -> Tensor:
        """Centers of some pairs, which are given by their places."""
        return torch.bucketize(pairs, centers, right=True) - 1

    def wall_pairs(
        self, rows: Tensor, centers: Tensor, idx_j: Tensor, d_ij: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """In one pass, by scschnet::close_pairs, on CPUs."""
        if self.checked and not d_ij.is_cuda:
            return torch.ops.scschnet.close_pairs(
                d_ij, centers, idx_j, rows, self.wall_index, self.wall_ranges
            )
        return self.composed_wall_pairs(rows, centers, idx_j, d_ij)

    def spline_weights(self, d_ij: Tensor) -> list[Tensor]:
        """Bins and weights, by scschnet::spline_weights."""
        bins, weights = torch.ops.scschnet.spline_weights(
            d_ij, self.step, self.cutoff, self.cutoff_pieces, self.n_rows, 2, self.dtype
        )
        return [bins, weights]

    def network(
        self,
        features: Tensor,
        centers: Tensor,
        idx_j: Tensor,
        splines: list[Tensor],
        n_local: int,
        halo: bool,
        corrections: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The fused network, scschnet::schnet_evaluate."""
        bins, weights = splines[0], splines[1]
        return self.weights(features, centers, idx_j, bins, weights, n_local, halo, corrections)

    def pair_forces(
        self,
        e_d: Tensor,
        centers: Tensor,
        idx_j: Tensor,
        r_ij: Tensor,
        d_ij: Tensor,
        n_atoms: int,
    ) -> tuple[Tensor, Tensor]:
        """Both in one pass, by scschnet::pair_forces."""
        idx_m = torch.zeros([n_atoms], dtype=torch.int64)
        forces, virial = torch.ops.scschnet.pair_forces(e_d, r_ij, d_ij, centers, idx_j, idx_m, 1)
        return forces, virial.squeeze(0)

    def trial_sizes(
        self, centers: Tensor, idx_j: Tensor, r_ij: Tensor, d_ij: Tensor, n_atoms: int
    ) -> Tensor:
        """In one pass, by scschnet::trial_sizes."""
        assert self.error_bars is not None
        return torch.ops.scschnet.trial_sizes(r_ij, d_ij, centers, idx_j, self.error_bars.reach)

    def bars(
        self, corrections: Tensor, atomic_numbers: Tensor, trial: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """In one pass, by scschnet::error_bars."""
        s = self.error_bars
        assert s is not None
        tables = (s.rows, s.of_elements, s.matrix, s.bias, s.trial)
        return torch.ops.scschnet.error_bars(
            corrections,
            self.contribution_weights,
            atomic_numbers,
            trial,
            *tables,
            s.slope,
            s.low,
            s.high,
        )

    def unfamiliarity(self, correction_norms: Tensor, atomic_numbers: Tensor) -> Tensor:
        """In one pass, by scschnet::unfamiliarity."""
        return torch.ops.scschnet.unfamiliarity(
            correction_norms, atomic_numbers, self.norm_mean, self.norm_whitening
        )


def wall_ranges(model: SchNet) -> tuple[Tensor, Tensor]:
    """Below which distance the pair term acts on every two elements, as `ops.close_pairs` takes it."""
    elements = torch.tensor(model.config.elements)
    n = len(elements)
    index = torch.zeros(MAX_Z + 2, dtype=torch.int64).index_copy(0, elements, torch.arange(n))
    if model.pair_term is None:
        return index, torch.zeros(n, n, dtype=torch.float64)
    ranges = model.pair_term.ranges_of(elements.repeat_interleave(n), elements.repeat(n))
    return index, ranges.detach().view(n, n).clone()


def filter_tables_of(model: SchNet) -> Tensor:
    """Filter tables of all blocks, (n_interactions, n_rows, n_features), evaluated in float64."""
    grid = FilterGrid(model.filter_step, model.config.cutoff)
    generators, weight = model.filter_generators(), model.embedding.weight
    if not generators:
        return weight.detach().new_zeros((0, grid.n_rows, weight.shape[1]))
    with torch.no_grad():
        return filter_tables(generators, model.radial_basis, grid, weight.dtype)


def dense_parameters(model: SchNet) -> list[Tensor]:
    """Copies of `SchNet.dense_parameters`."""
    return [p.detach().clone() for p in model.dense_parameters()]
