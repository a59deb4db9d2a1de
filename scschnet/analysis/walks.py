"""Which bonds, angles and torsions make the energy: relevance of walks through the graph of atoms.

Layer-wise relevance propagation along walks, GNN-LRP (Schnake et al. 2022, doi:10.1109/TPAMI.2021.3115452), done
with SchNet by Bonneau et al. 2025, doi:10.1038/s41467-025-65863-0. The rule here is LRP-0. ssp(z) = s(z) z with the
gate s(z) = ssp(z) / z, always between 0 and 1; with all gates as they are in the whole structure, and filters a
property of the geometry, the network is linear in embeddings and biases:

    v_i^(l) = B2 s_i^(l) o (B1 sum_j W_ij^(l) o (W_in x_j^(l-1)) + c1) + c2,   x_i^(l) = x_i^(l-1) + v_i^(l)
    E = E_0 + scale sum_i C2 s_i o (C1 sum_l w^(l) v_i^(l) + c1),   E_0 = sum_i scale c2 + shift + atomref[Z_i]

So E - E_0 is a sum over walks: from an atom that is read out, in every block to a neighbor (a message) or not (the
skip connection), down to an embedding or a bias. Nothing is lost on the way: relevances add up to E - E_0 exactly.

There are n^(L+1) walks, but their sum over all that stay in a set of atoms T is one pass E_T of the same linear
network with messages within T only. Those that visit all atoms of S, and no others, have the relevance

    R_S = sum_{T in S} (-1)^(|S| - |T|) E_T                        so that        sum_S R_S = E - E_0

R_S of two, three and four atoms are the network's own two-, three- and four-body terms. The pair term of a model,
if there is one, belongs to those of two atoms. Other rules (gamma) weigh positive weights more and are not used:
they have relevances that no longer are sums of products of the network's own matrices.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet.analysis import plots
from scschnet.analysis.bonds import bond_counts, bonded
from scschnet.analysis.layers import mean_sigmoid
from scschnet.analysis.tables import table_beside, write_table
from scschnet.data import StructureSet, collate
from scschnet.elements import symbol
from scschnet.evaluate import check_elements
from scschnet.nn import SchNet
from scschnet.nn.geometry import pair_vectors

MOST_SETS = 300_000
CHUNK = 1024  # sets of atoms at a time
BODIES = 4


@dataclass(frozen=True, eq=False)
class Relevances:
    """Relevance of every set of a few atoms of one structure.

    Args:
        sets: for every number of atoms k = 1, 2, ...: the sets, (n_sets, k), atoms in rising order.
        values: their relevances R_S, (n_sets,), eV.
        total: E - E_0, eV; what is missing from it lies in larger sets.
        off: how far the linear network is from the model's own E - E_0, eV.
    """

    sets: list[NDArray[np.int64]]
    values: list[NDArray[np.float64]]
    total: float
    off: float

    @property
    def rest(self) -> float:
        """Relevance of all larger sets together, eV."""
        return self.total - float(sum(some.sum() for some in self.values))


class LinearNetwork:
    """A model in one structure with all gates and filters as they are there: linear in embeddings and biases.

    Args:
        model: in float64, its parameters asking for no gradients.
        structure: exactly one.
    """

    def __init__(self, model: SchNet, structure: StructureSet) -> None:
        batch = collate(structure, [0], model.config.cutoff)
        self.model = model
        self.atomic_numbers = batch.atomic_numbers
        n = len(batch.atomic_numbers)
        geometry = (batch.positions, batch.cells, batch.idx_m, batch.idx_i, batch.idx_j)
        r_ij = pair_vectors(*geometry, batch.shifts)
        self.pairs = batch.idx_i, batch.idx_j, torch.linalg.vector_norm(r_ij, dim=1)
        dtype = model.embedding.weight.dtype
        cutoff = model.cutoff_function(self.pairs[2]).to(dtype)[:, None]
        rbf = model.radial_basis(self.pairs[2]).to(dtype)
        empty = torch.zeros((n, n, model.config.n_features), dtype=dtype)
        at = (batch.idx_i, batch.idx_j)
        self.filters = [
            empty.index_put(at, generator(rbf) * cutoff, accumulate=True)
            for generator in model.filter_generators()
        ]
        self.gates: list[Tensor] = []
        self.energies(torch.arange(n)[None], learn=True)

    def energies(self, sets: Tensor, learn: bool = False) -> Tensor:
        """E_T of sets of atoms, above their zero; all walks that stay in each.

        Args:
            sets: (n_sets, k) int64.
            learn: take the gates from this very pass, over all atoms.

        Returns:
            (n_sets,), eV, without the pair term.
        """
        model = self.model
        x = model.embedding(self.atomic_numbers)[sets]
        x_out = model.contribution_weights[0] * x
        here, there = sets[:, :, None], sets[:, None, :]
        for t, block in enumerate(model._blocks()):
            messages = self.filters[t][here, there] * block.input(x)[:, None]
            hidden = block.hidden(messages.sum(dim=2))
            v = block.output(self._gate(t, hidden, sets, learn) * hidden)
            x = x + v
            x_out = x_out + model.contribution_weights[t + 1] * v
        hidden = model.readout.hidden(x_out)
        hidden = self._gate(len(self.filters), hidden, sets, learn) * hidden
        g = (hidden * model.readout.output.weight[0]).sum(dim=2)
        return g.sum(dim=1).double() * model.offsets.scale

    def _gate(self, t: int, hidden: Tensor, sets: Tensor, learn: bool) -> Tensor:
        if learn:
            self.gates.append(mean_sigmoid(hidden[0], torch.zeros_like(hidden[0, 0])))
        return self.gates[t][sets]

    def pair_energies(self) -> NDArray[np.float64]:
        """Energy of the pair term between every two atoms, images together, (n_atoms, n_atoms), eV; each pair once."""
        n = len(self.atomic_numbers)
        found = torch.zeros((n, n), dtype=torch.float64)
        if self.model.pair_term is not None:
            i, j, d_ij = self.pairs
            z = self.atomic_numbers
            phi, _ = self.model.pair_term(z[i], z[j], d_ij)
            found.index_put_((i, j), 0.5 * phi.double(), accumulate=True)
        return (found.triu(1) + found.tril(-1).T + found.diag().diag()).numpy()


def relevances(model: SchNet, structure: StructureSet, bodies: int = BODIES) -> Relevances:
    """Relevance of all sets of up to `bodies` atoms.

    Args:
        model: in float64, its parameters asking for no gradients.
        structure: exactly one.
        bodies: largest number of atoms in a set, 1 to 4.

    Raises:
        ValueError: if an argument is out of range, there are too many sets, or the model does not know an element.
    """
    if len(structure) != 1:
        raise ValueError(f"`structure` must hold exactly one structure, got {len(structure)}")
    if not 1 <= bodies <= BODIES:
        raise ValueError(f"`bodies` must be 1 to {BODIES}, got {bodies}")
    n = len(structure.positions)
    n_sets = sum(comb(n, k) for k in range(1, bodies + 1))
    if n_sets > MOST_SETS:
        raise ValueError(
            f"{n} atoms have {n_sets:,} sets of up to {bodies}, more than {MOST_SETS:,}; "
            "take fewer `bodies` or a smaller structure"
        )
    check_elements(model, structure)
    with torch.no_grad():
        network = LinearNetwork(model, structure)
        of_pairs = network.pair_energies()
        total = float(network.energies(torch.arange(n)[None])) + of_pairs.sum()
        sets = [_sets(n, k) for k in range(1, min(bodies, n) + 1)]
        sums = [_sums(network, some) + _pair_sums(of_pairs, some) for some in sets]
        batch = collate(structure, [0], model.config.cutoff)
        energy = float(model(**batch.inputs, forces=False)["energy"])
        zero = float(_zero(model, batch.atomic_numbers))
    return Relevances(sets, _alternating(n, sets, sums), total, abs(total - (energy - zero)))


def _zero(model: SchNet, atomic_numbers: Tensor) -> Tensor:
    """E_0: what is left of the energy if nothing passes the gates of the readout, eV."""
    g = model.readout.output.bias.expand(len(atomic_numbers))
    return model.offsets(g, atomic_numbers).sum()


def _sets(n: int, k: int) -> NDArray[np.int64]:
    return np.array(list(combinations(range(n), k)), dtype=np.int64).reshape(-1, k)


def _sums(network: LinearNetwork, sets: NDArray[np.int64]) -> NDArray[np.float64]:
    parts = [network.energies(some) for some in torch.from_numpy(sets).split(CHUNK)]
    return torch.cat(parts).numpy()


def _pair_sums(of_pairs: NDArray[np.float64], sets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Energy of the pair term within every set."""
    return np.asarray(of_pairs[sets[:, :, None], sets[:, None, :]].sum(axis=(1, 2)))


def _alternating(
    n: int, sets: list[NDArray[np.int64]], sums: list[NDArray[np.float64]]
) -> list[NDArray[np.float64]]:
    """R_S = E_S - sum of R_T over all smaller T in S, from small sets to large ones."""
    found: list[NDArray[np.float64]] = []
    tables: list[NDArray[np.float64]] = []
    for k, (some, values) in enumerate(zip(sets, sums, strict=True), start=1):
        values = values.copy()
        for smaller in range(1, k):
            for chosen in combinations(range(k), smaller):
                values -= tables[smaller - 1][tuple(some[:, chosen].T)]
        found.append(values)
        if k < len(sets):
            table = np.zeros((n,) * k)
            table[tuple(some.T)] = values
            tables.append(table)
    return found


KINDS = (
    "atom",
    "bond",
    "1-3 pair",
    "1-4 pair",
    "farther pair",
    "angle",
    "other three",
    "torsion",
    "other four",
)


def kinds_of(structure: StructureSet, sets: NDArray[np.int64]) -> list[str]:
    """What every set is by the bonds in it (scschnet.analysis.bonds): one of `KINDS`.

    Angles are three atoms with two bonds or more between them; torsions are four along three bonds.

    Args:
        structure: exactly one.
        sets: (n_sets, k), k from 1 to 4.
    """
    adjacent = bonded(structure, 0)
    k = sets.shape[1]
    if k == 1:
        return ["atom"] * len(sets)
    if k == 2:
        names = {1: "bond", 2: "1-3 pair", 3: "1-4 pair"}
        apart = bond_counts(adjacent)[tuple(sets.T)]
        return [names.get(int(n), "farther pair") for n in apart]
    degrees = adjacent[sets[:, :, None], sets[:, None, :]].sum(axis=2)
    if k == 3:
        return ["angle" if row.sum() >= 4 else "other three" for row in degrees]
    # Connected, and not a star or a triangle with a tail: four atoms along three bonds.
    return [
        "torsion" if row.min() >= 1 and row.sum() >= 6 and row.max() <= 2 else "other four"
        for row in degrees
    ]


@dataclass(frozen=True, eq=False)
class WalkSummary:
    """Relevances of several structures, added up by kind and elements.

    Args:
        kinds: of `KINDS`, with elements, such as ("bond", "C-H"); a row per group.
        counts: sets of atoms in a structure, (n_groups,).
        sums: relevance of all sets of a group together, (n_structures, n_groups), eV.
        sizes: sum of its absolute values, likewise.
        rest: of sets of more atoms, (n_structures,), eV.
        totals: E - E_0, (n_structures,), eV.
        off: largest error of completeness, relative to the sum of absolute relevances.
    """

    kinds: list[tuple[str, str]]
    counts: NDArray[np.float64]
    sums: NDArray[np.float64]
    sizes: NDArray[np.float64]
    rest: NDArray[np.float64]
    totals: NDArray[np.float64]
    off: float

    def by_kind(self) -> list[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
        """Kind, and sum and sum of absolute values in every structure, elements together."""
        found = []
        for kind in KINDS:
            columns = [k for k, (name, _) in enumerate(self.kinds) if name == kind]
            if columns:
                found.append(
                    (kind, self.sums[:, columns].sum(axis=1), self.sizes[:, columns].sum(axis=1))
                )
        return found


def summarize_walks(model: SchNet, structures: StructureSet, bodies: int = BODIES) -> WalkSummary:
    """Relevances of several structures, added up by kind and elements.

    Args:
        model: in float64, its parameters asking for no gradients.
        structures: at least one.
        bodies: largest number of atoms in a set, 1 to 4.

    Raises:
        ValueError: as in `relevances`, or if there is no structure.
    """
    if not len(structures):
        raise ValueError("`structures` must hold at least one structure, got none")
    groups: list[defaultdict[tuple[str, str], list[float]]] = []
    rest, totals, off = [], [], 0.0
    for m in range(len(structures)):
        structure = structures.select([m])
        found = relevances(model, structure, bodies)
        groups.append(_grouped(structure, found))
        rest.append(found.rest)
        totals.append(found.total)
        size = sum(float(np.abs(values).sum()) for values in found.values) or 1.0
        off = max(off, found.off / size)
    names = sorted({name for one in groups for name in one}, key=_order)
    table = np.array([[one.get(name, [0.0, 0.0, 0.0]) for name in names] for one in groups])
    return WalkSummary(
        names,
        table[:, :, 0].mean(axis=0),
        table[:, :, 1],
        table[:, :, 2],
        np.array(rest),
        np.array(totals),
        off,
    )


def _order(name: tuple[str, str]) -> tuple[int, str]:
    return KINDS.index(name[0]), name[1]


def _grouped(
    structure: StructureSet, found: Relevances
) -> defaultdict[tuple[str, str], list[float]]:
    """Count, sum and sum of absolute values of every kind with its elements."""
    groups: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for some, values in zip(found.sets, found.values, strict=True):
        for atoms, kind, value in zip(some, kinds_of(structure, some), values, strict=True):
            elements = sorted(symbol(int(z)) for z in structure.atomic_numbers[atoms])
            group = groups[kind, "".join(elements) if kind != "bond" else "-".join(elements)]
            group[0] += 1
            group[1] += float(value)
            group[2] += abs(float(value))
    return groups


def plot_walks(found: WalkSummary, path: str | os.PathLike[str]) -> Path:
    """Draw the relevance of every kind of sets, mean and spread over structures; a CSV by elements goes beside it.

    Raises:
        ValueError: for a suffix other than .png, .pdf, .svg.
        OSError: naming the file, if it cannot be written.
    """
    plots.check_format(path)
    with plots.figure_style():
        figure = plots.new_figure()
        draw_walks(figure.add_subplot(), found)
        plots.save_figure(figure, path)
    write_walks(table_beside(path), found)
    return Path(path)


def draw_walks(axes: Any, found: WalkSummary) -> None:
    """Bars of the sums of relevances, with standard deviations over structures."""
    bars: Sequence[tuple[str, NDArray[np.float64]]] = [
        *((kind, sums) for kind, sums, _ in found.by_kind()),
        ("more atoms", found.rest),
    ]
    x = np.arange(len(bars))
    means = [values.mean() for _, values in bars]
    axes.bar(x, means, 0.75, color=plots.ACCENT)
    axes.errorbar(x, means, [values.std() for _, values in bars], fmt="none", ecolor="0.4")
    axes.axhline(0.0, color="0.3", linewidth=0.6)
    axes.set_xticks(x, [name for name, _ in bars], rotation=45, ha="right")
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("relevance (eV)")


def write_walks(path: str | os.PathLike[str], found: WalkSummary) -> Path:
    """Write a row per kind and elements as CSV: means and standard deviations over structures."""
    columns = ["kind", "elements", "sets per structure", "sum (eV)", "sum std (eV)"]
    columns += ["sum of absolute values (eV)"]
    rows: list[list[Any]] = []
    for k, (kind, elements) in enumerate(found.kinds):
        sums = found.sums[:, k]
        row = [kind, elements, found.counts[k], sums.mean(), sums.std(), found.sizes[:, k].mean()]
        rows.append(row)
    for name, values in (("more atoms", found.rest), ("all walks, E - E_0", found.totals)):
        rows.append([name, "", "", values.mean(), values.std(), ""])
    return write_table(path, columns, rows)
