"""Right arguments for every operator of the CPU, for tests that change them."""

from collections.abc import Callable

import torch
from torch import Tensor

from scschnet import ops
from scschnet.nn.cutoff import CosineCutoff

N_ATOMS, N_FEATURES, N_HIDDEN, N_BLOCKS = 12, 16, 8, 2
STEP, CUTOFF, N_ROWS = 0.25, 3.0, 18
OPS = torch.ops.scschnet


def operators(dtype: torch.dtype = torch.float64) -> dict[str, tuple[Callable, list]]:
    """Name -> operator and right arguments: a periodic system of 12 atoms, two blocks of 16 features.

    Args:
        dtype: of the network.
    """
    torch.manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype)

    positions = torch.rand(N_ATOMS, 3, dtype=torch.float64) * 4.5
    cells, ptr = 4.5 * torch.eye(3, dtype=torch.float64)[None], torch.tensor([0, N_ATOMS])
    pbc, idx_m = torch.ones(1, 3, dtype=torch.bool), torch.zeros(N_ATOMS, dtype=torch.int64)
    i, j, shifts, _ = ops.neighbor_list(positions, ptr, cells, pbc, CUTOFF)
    half, rows, half_j = ops.half_list(i, j, shifts, N_ATOMS)
    r_ij, d_ij = ops.pair_vectors(positions, cells, idx_m, i, j, shifts, half)
    pieces = CosineCutoff(CUTOFF).pieces
    grid = (STEP, CUTOFF, pieces)
    bins, weights = ops.spline_weights(d_ij, *grid, N_ROWS, 2, dtype)
    pairs = [d_ij, bins, weights, rows, half_j, *grid]
    x, y, u, table = (randn(n, N_FEATURES) for n in (N_ATOMS, N_ATOMS, N_ATOMS, N_ROWS))
    v, tables, w = randn(len(half)), randn(N_BLOCKS, N_ROWS, N_FEATURES), randn(N_BLOCKS + 1)
    shapes = [(16, 16), (16, 16), (16,), (16, 16), (16,)] * N_BLOCKS
    shapes += [(N_HIDDEN, 16), (N_HIDDEN,), (1, N_HIDDEN), (1,)]
    parameters = [randn(*shape) / 4 for shape in shapes]
    network = [x, rows, half_j, bins, weights, tables, w, parameters]
    rbf = torch.rand(N_ROWS + 8, 5, dtype=torch.float64)
    prefilter = torch.tensor([1.5, -0.3, 0.1, -0.02, 0.01], dtype=torch.float64)
    generators = [randn(*s) for s in [(16, 5), (16,), (16, 16), (16,)] * N_BLOCKS]
    tables_, coefficients, slopes = OPS.filter_tables_forward(rbf, prefilter, generators)
    state = OPS.schnet(*network, True, True, True)[-1]
    forces, virial = ops.pair_forces(v.double(), r_ij, d_ij, rows, half_j, idx_m, 1)
    arguments = {
        "neighbor_list": [positions, ptr, cells, pbc, CUTOFF],
        "half_neighbor_list": [positions, ptr, cells, pbc, CUTOFF],
        "half_list": [i, j, shifts, N_ATOMS],
        "pair_rows": [i, j, N_ATOMS],
        "close_pairs": [
            *(d_ij, rows, half_j, torch.arange(N_ATOMS) % 9),
            *(torch.arange(9) % 2, torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64)),
        ],
        "pair_vectors": [positions, cells, idx_m, i, j, shifts, half],
        "pair_distances": [r_ij],
        "trial_sizes": [r_ij, d_ij, rows, half_j, 4.0],
        "pair_forces": [v.double(), r_ij, d_ij, rows, half_j, idx_m, 1, None],
        "pair_forces_backward": [forces, virial, r_ij, d_ij, rows, half_j, idx_m],
        "spline_weights": [d_ij, *grid, N_ROWS, 3, dtype],
        "filter_tables": [rbf, prefilter, generators],
        "filter_tables_forward": [rbf, prefilter, generators],
        "filter_tables_backward": [
            *(tables_ + 1, rbf, prefilter, coefficients, slopes),
            generators[2::4],
        ],
        "cfconv": [x, table, *pairs],
        "cfconv_backward": [y, x, table, *pairs],
        "cfconv_double_backward": [u, v, x, table, *pairs],
        "cfconv_backward_table_gradient": [u, v, y, x, *pairs, N_ROWS],
        "cfconv_derivative": [x, v, table, *pairs, 2],
        "cfconv_dot": [x, y, table, *pairs, 1],
        "cfconv_table_gradient": [x, y, v, *pairs, N_ROWS, 2],
        "schnet": [*network, True, True, True, None],
        "schnet_backward": [randn(N_ATOMS), v, y, state, *network, True, None],
        "pack_schnet": [tables, w, parameters],
        "schnet_evaluate": [
            *network,
            *(N_ATOMS, False, True, True, ops.pack_schnet(tables, w, parameters)),
        ],
        "error_bars": [
            *(torch.stack([x, y, u]), w, torch.arange(N_ATOMS) % 9),
            ops.trial_sizes(r_ij, d_ij, rows, half_j, CUTOFF),
            *(torch.arange(9) % 2, torch.rand(3, 9, dtype=torch.float64)),
            torch.randn(N_FEATURES, 3 * N_FEATURES + 1, dtype=torch.float64),
            torch.randn(3 * N_FEATURES + 1, dtype=torch.float64),
            *(torch.rand(4, dtype=torch.float64), 0.5, -3.0, 3.0),
        ],
        "unfamiliarity": [
            torch.rand(3, N_ATOMS, dtype=torch.float64),
            torch.arange(N_ATOMS) % 9,
            torch.rand(9, 2, dtype=torch.float64),
            torch.rand(9, 2, 2, dtype=torch.float64),
        ],
        "orthogonalize": [randn(2, 8, 6), 5],
    }
    found = {name: (getattr(OPS, name), given) for name, given in arguments.items()}
    found["spline_weights"] = (OPS.spline_weights.pieces, arguments["spline_weights"])
    return found
