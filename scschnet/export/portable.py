"""The portable kind of an exported module: plain torch operators alone, for hosts without scschnet's library."""

import math
from typing import Self

import torch
from torch import Tensor, nn

from scschnet.export.potential import Potential, dense_parameters, filter_tables_of
from scschnet.nn import SchNet
from scschnet.nn.error_bars import ErrorStatistics, trial_forces
from scschnet.nn.unfamiliarity import NormStatistics, unfamiliarity

# The six quintic B-splines on a cell of a uniform grid, as polynomials of t from t^0 to t^5, times 120.
QUINTIC_SPLINES = (
    (1, -5, 10, -10, 5, -1),
    (26, -50, 20, 20, -20, 5),
    (66, 0, -60, 0, 30, -10),
    (26, 50, 20, -20, -20, 10),
    (1, 5, 10, 10, 5, -5),
    (0, 0, 0, 0, 0, 1),
)


class PortablePotential(Potential):
    """A potential made of plain torch operators, with its own neighbor search and its gradient written out.

    Slower than the full kind, and without an exchange of ghosts; it runs wherever torch.jit.load does, on GPUs too.
    Centers are stored as they are, idx_i (n_pairs,).

    Args:
        model: as for `Potential`.
        symbols: of its elements, for messages.
        statistics: as for `Potential`.
        errors: as for `Potential`.
    """

    dense: list[Tensor]
    tables: Tensor
    splines: Tensor
    spline_slopes: Tensor

    def __init__(
        self,
        model: SchNet,
        symbols: list[str],
        statistics: NormStatistics | None = None,
        errors: ErrorStatistics | None = None,
    ) -> None:
        super().__init__(model, symbols, statistics, errors)
        self.dense = dense_parameters(model)
        self.register_buffer("tables", filter_tables_of(model))
        splines = torch.tensor(QUINTIC_SPLINES, dtype=torch.float64).t() / 120.0
        powers = torch.arange(1.0, 6.0, dtype=torch.float64).unsqueeze(1)
        slopes = nn.functional.pad(splines[1:] * powers, (0, 0, 0, 1)) / self.step
        self.register_buffer("splines", splines.contiguous())  # (6 powers, 6 splines)
        self.register_buffer("spline_slopes", slopes)
        self.ghosts_cannot_be_exchanged = model.config.n_interactions > 1

    def moved_to(self, device: torch.device) -> Self:
        """The same on a device; `to` alone would leave the dense layers where they are."""
        self.dense = [p.to(device) for p in self.dense]
        return self.to(device)

    def half_pairs(
        self, positions: Tensor, cell: Tensor, pbc: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pairs with the images of a periodic cell, found in a grid of cubes one cutoff wide."""
        if not bool(torch.isfinite(positions).all()):
            raise ValueError("`positions` must be finite")
        r, images, atom, first = self.images(positions, cell, pbc)
        idx_i, image = self.close_pairs(r, images)
        idx_j = atom.index_select(0, image)
        # Of (i, j, S) and (j, i, -S) one: images are those with S > 0, and within the cell itself i < j counts.
        keep = (image >= first) | (idx_i < idx_j)
        idx_i, image, idx_j = idx_i[keep], image[keep], idx_j[keep]
        r_ij = images.index_select(0, image) - r.index_select(0, idx_i)
        return idx_i, idx_j, r_ij, torch.linalg.vector_norm(r_ij, dim=1)

    def images(
        self, positions: Tensor, cell: Tensor, pbc: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Atoms moved into the cell, and behind them their images as far as they may be neighbors.

        Returns:
            Positions in the cell (n_atoms, 3); positions of atoms and images (n_images, 3); atom of each; number of
            atoms. Of two images opposite to each other one is there, the one whose first nonzero shift is positive.
        """
        n_atoms = positions.size(0)
        own = torch.arange(n_atoms, device=positions.device)
        if n_atoms == 0 or not bool(pbc.any()):
            return positions, positions, own, n_atoms
        periodic = pbc.double()
        rows = cell * periodic.unsqueeze(1)
        to_fractions = torch.linalg.pinv(rows)
        if not bool(((rows @ to_fractions).diagonal() - periodic).abs().max() < 1e-6):
            raise ValueError("`cell` must have independent vectors along all periodic axes")
        r = positions - torch.floor(positions @ to_fractions) @ rows
        # 1 / height of the cell along every periodic axis
        n = (periodic * (self.cutoff * torch.linalg.vector_norm(to_fractions, dim=0) + 1.0)).long()
        a, b, c = int(n[0]), int(n[1]), int(n[2])
        s = torch.cartesian_prod(
            torch.arange(a + 1, device=r.device),
            torch.arange(-b, b + 1, device=r.device),
            torch.arange(-c, c + 1, device=r.device),
        )
        s = s[s[:, 0] * (2 * b + 1) * (2 * c + 1) + s[:, 1] * (2 * c + 1) + s[:, 2] > 0]
        moved = (r.unsqueeze(0) + (s.double() @ rows).unsqueeze(1)).reshape(-1, 3)
        low, high = r.amin(0) - self.cutoff, r.amax(0) + self.cutoff
        near = ((moved >= low) & (moved <= high)).all(1)
        atom = own.repeat([s.size(0)])[near]
        return r, torch.cat([r, moved[near]]), torch.cat([own, atom]), n_atoms

    def close_pairs(self, r: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """All pairs of a point of `r` and one of `images` closer than the cutoff, by centers.

        Args:
            r: (n, 3), Å.
            images: (n_images, 3), Å; the first n are `r`.
        """
        n, device = r.size(0), r.device
        if n == 0:
            nothing = torch.zeros([0], dtype=torch.int64, device=device)
            return nothing, nothing
        cubes = torch.floor((images - images.amin(0)) / self.cutoff).long() + 1
        size = cubes.amax(0) + 2
        key = (cubes[:, 0] * size[1] + cubes[:, 1]) * size[2] + cubes[:, 2]
        sorted_keys, order = torch.sort(key)
        # The 27 cubes around a point are nine rows of three that follow each other.
        step = torch.arange(-1, 2, device=device)
        rows = ((step * size[1]).unsqueeze(1) + step.unsqueeze(0)).reshape(-1) * size[2]
        middle = (key[:n].unsqueeze(1) + rows).reshape(-1)
        begin = torch.searchsorted(sorted_keys, middle - 1)
        count = torch.searchsorted(sorted_keys, middle + 1, right=True) - begin
        row = torch.repeat_interleave(count)
        skipped = count.cumsum(0) - count - begin
        place = torch.arange(row.size(0), device=device) - skipped.index_select(0, row)
        idx_i = torch.div(row, 9, rounding_mode="floor")
        image = order.index_select(0, place)
        distance = images.index_select(0, image) - r.index_select(0, idx_i)
        close = (distance * distance).sum(1) < self.cutoff * self.cutoff
        return idx_i[close], image[close]

    def host_pairs(
        self, idx_i: Tensor, idx_j: Tensor, n_atoms: int, n_local: int, halo: bool
    ) -> Tensor:
        """Checks that ghosts need no exchange."""
        if halo and n_local < n_atoms and self.ghosts_cannot_be_exchanged:
            raise ValueError(
                f"`n_local` is {n_local} of {n_atoms} atoms, but a portable file cannot exchange the features of "
                "the others between processes: pass ghosts n_interactions cutoffs deep without a halo, or export "
                "without --portable"
            )
        return idx_i

    def idx_i(self, centers: Tensor) -> Tensor:
        """Center of each pair, (n_pairs,)."""
        return centers

    def centers_of(self, pairs: Tensor, centers: Tensor) -> Tensor:
        """Centers of some pairs, which are given by their places."""
        return centers.index_select(0, pairs)

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
        """The network, and its gradient in the distances; filters are interpolated twice instead of kept."""
        rows, weights, slopes = splines[0], splines[1], splines[2]
        x, x_out = features, features * self.contribution_weights[0]
        v_all = [features]
        inputs: list[Tensor] = []
        hidden: list[Tensor] = []
        for k in range(self.n_interactions):
            inputs.append(nn.functional.linear(x, self.dense[5 * k]))
            filters = self.filters(k, rows, weights)
            y = self.convolution(inputs[k], filters, centers, idx_j)
            hidden.append(nn.functional.linear(y, self.dense[5 * k + 1], self.dense[5 * k + 2]))
            v = nn.functional.linear(
                self.ssp(hidden[k]), self.dense[5 * k + 3], self.dense[5 * k + 4]
            )
            x = x + v
            x_out = x_out + v * self.contribution_weights[k + 1]
            v_all.append(v)
        weight, bias = self.dense[-4], self.dense[-3]
        before = nn.functional.linear(x_out, weight, bias)
        g = nn.functional.linear(self.ssp(before), self.dense[-2], self.dense[-1]).squeeze(1)
        out_bar = (torch.sigmoid(before) * self.dense[-2]) @ weight
        out_bar[n_local:] = 0.0  # of ghosts
        g_d = weights.new_zeros([weights.size(0)])
        x_bar = torch.zeros_like(features)
        for back in range(self.n_interactions):
            k = self.n_interactions - 1 - back
            v_bar = x_bar + out_bar * self.contribution_weights[k + 1]
            hidden_bar = (v_bar @ self.dense[5 * k + 3]) * torch.sigmoid(hidden[k])
            y_bar = hidden_bar @ self.dense[5 * k + 1]
            both = y_bar.index_select(0, centers) * inputs[k].index_select(0, idx_j)
            both = both + y_bar.index_select(0, idx_j) * inputs[k].index_select(0, centers)
            g_d = g_d + (both * self.filters(k, rows, slopes)).sum(1)
            if k > 0:
                filters = self.filters(k, rows, weights)
                x_bar = x_bar + self.convolution(y_bar, filters, centers, idx_j) @ self.dense[5 * k]
        v_local = torch.stack(v_all)[:, :n_local]
        return g[:n_local], g_d, torch.linalg.vector_norm(v_local, dim=2), v_local

    def spline_weights(self, d_ij: Tensor) -> list[Tensor]:
        """Six rows in the tables, and their weights for the filters and for their derivatives, (n_pairs, 6) each."""
        inside = d_ij < self.cutoff
        d = torch.where(inside, d_ij, 0.0)
        bins = torch.floor(d / self.step)
        t = d / self.step - bins
        powers = torch.stack([torch.ones_like(t), t, t**2, t**3, t**4, t**5], 1)
        weights, slopes = powers @ self.splines, powers @ self.spline_slopes
        fc, fc_slope = self.cutoff_function(d)
        slopes = slopes * fc + weights * fc_slope
        weights = weights * fc
        counts = inside.unsqueeze(1)
        rows = bins.long().unsqueeze(1) + torch.arange(6, device=d.device)
        return [rows, (weights * counts).to(self.dtype), (slopes * counts).to(self.dtype)]

    def cutoff_function(self, d: Tensor) -> tuple[Tensor, Tensor]:
        """The cutoff function and its derivative at distances below the cutoff, (n_pairs, 1) each.

        Horner's scheme on the polynomial of the distance's piece.
        """
        n_pieces, n_coefficients = self.cutoff_pieces.size(0), self.cutoff_pieces.size(1)
        u = d * (n_pieces / self.cutoff)
        piece = u.long().clamp(max=n_pieces - 1)
        y = 2.0 * (u - piece) - 1.0
        fc, slope = torch.zeros_like(d), torch.zeros_like(d)
        for k in range(n_coefficients):
            coefficients = self.cutoff_pieces[:, n_coefficients - 1 - k]
            slope = slope * y + fc
            fc = fc * y + coefficients.index_select(0, piece)
        return fc.unsqueeze(1), (slope * (2.0 * n_pieces / self.cutoff)).unsqueeze(1)

    def filters(self, block: int, rows: Tensor, weights: Tensor) -> Tensor:
        """Filters of one block, (n_pairs, n_features), or their derivatives, as the weights are."""
        return nn.functional.embedding_bag(
            rows, self.tables[block], mode="sum", per_sample_weights=weights
        )

    def convolution(self, x: Tensor, filters: Tensor, idx_i: Tensor, idx_j: Tensor) -> Tensor:
        """sum_j x_j o W_ij over both directions of the pairs."""
        y = torch.zeros_like(x).index_add_(0, idx_i, filters * x.index_select(0, idx_j))
        return y.index_add_(0, idx_j, filters * x.index_select(0, idx_i))

    def ssp(self, x: Tensor) -> Tensor:
        """Shifted softplus."""
        return nn.functional.softplus(x) - math.log(2.0)

    def pair_forces(
        self,
        e_d: Tensor,
        centers: Tensor,
        idx_j: Tensor,
        r_ij: Tensor,
        d_ij: Tensor,
        n_atoms: int,
    ) -> tuple[Tensor, Tensor]:
        """F_i = sum_j dE/dr_ij - sum_j dE/dr_ji, and -sum_pairs r_ij dE/dr_ij."""
        e_r = r_ij * (e_d / d_ij).unsqueeze(1)
        forces = torch.zeros([n_atoms, 3], dtype=e_r.dtype, device=e_r.device)
        forces.index_add_(0, centers, e_r).index_add_(0, idx_j, e_r, alpha=-1)
        return forces, -(r_ij.t() @ e_r)

    def trial_sizes(
        self, centers: Tensor, idx_j: Tensor, r_ij: Tensor, d_ij: Tensor, n_atoms: int
    ) -> Tensor:
        """In plain torch."""
        assert self.error_bars is not None
        return trial_forces(centers, idx_j, r_ij, d_ij, n_atoms, True, self.error_bars.reach)

    def bars(
        self, corrections: Tensor, atomic_numbers: Tensor, trial: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """In plain torch."""
        assert self.error_bars is not None
        weights = self.contribution_weights.to(corrections.dtype)
        x_out = torch.matmul(weights, corrections.flatten(1)).view(corrections.size()[1:])
        return self.error_bars(x_out, atomic_numbers, trial)

    def unfamiliarity(self, correction_norms: Tensor, atomic_numbers: Tensor) -> Tensor:
        """As in Python."""
        return unfamiliarity(correction_norms, atomic_numbers, self.norm_mean, self.norm_whitening)
