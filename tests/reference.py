"""The oracle: SchNet and sc-SchNet in float64 NumPy with loops, written from the paper.

Nicoli et al. 2018, arXiv:1810.09751, Eq. 1 to 5; Schuett et al. 2017, arXiv:1706.08566. Imports nothing from
scschnet. Parameters come as a dict of arrays with the names of the model's `state_dict`.
"""

import itertools
import math

import numpy as np


def shifted_softplus(x):
    """ln(exp(x) + 1) - ln 2, safe for large |x|."""
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))) - math.log(2.0)


def gaussian_basis(distance, n_rbf, cutoff):
    """Gaussians centered evenly from 0 to the cutoff, width = spacing."""
    sigma = cutoff / (n_rbf - 1)
    return np.array(
        [math.exp(-((distance - k * sigma) ** 2) / (2 * sigma**2)) for k in range(n_rbf)]
    )


def cosine_cutoff(distance, cutoff):
    """Half a cosine inside the cutoff, zero at and beyond it."""
    return 0.5 * (1.0 + math.cos(math.pi * distance / cutoff)) if distance < cutoff else 0.0


def b_spline(degree, order, x):
    """Derivative `order` of the cardinal B-spline on 0 .. degree + 1, by de Boor's recursion."""
    if order > 0:
        if degree == 0:
            return 0.0
        return b_spline(degree - 1, order - 1, x) - b_spline(degree - 1, order - 1, x - 1)
    if degree == 0:
        return 1.0 if 0 <= x < 1 else 0.0
    return (
        x * b_spline(degree - 1, 0, x) + (degree + 1 - x) * b_spline(degree - 1, 0, x - 1)
    ) / degree


def cosine_cutoff_derivative(order, distance, cutoff):
    """Derivative `order` of `cosine_cutoff` in the distance."""
    if distance >= cutoff:
        return 0.0
    rate = math.pi / cutoff
    wave = rate**order * math.cos(rate * distance + order * math.pi / 2)
    return 0.5 * (wave + (order == 0))


def spline_filter(table, distance, step, cutoff, cutoff_function, order):
    """Derivative `order` of fc(d) sum_k table[k] B(d / step - (k - 2)), B centered on zero: (n_filters,)."""
    total = np.zeros(table.shape[1])
    for k, row in enumerate(table):
        x = distance / step - (k - 2) + 3.0
        if not 0 <= x < 6:
            continue
        for n in range(order + 1):  # Leibniz
            if cutoff_function == "cosine":
                envelope = cosine_cutoff_derivative(order - n, distance, cutoff)
            else:
                envelope = float(order == n)
            total += math.comb(order, n) * envelope * b_spline(5, n, x) / step**n * row
    return total


def neighbor_pairs(positions, cell, pbc, cutoff):
    """All (i, j, S) with |r_j - r_i + S cell| < cutoff, the atom itself excluded but not its images."""
    cell = np.asarray(cell, float).reshape(3, 3)
    ranges = []
    for axis in range(3):
        if not pbc[axis]:
            ranges.append(range(1))
            continue
        # Perpendicular height along this axis within the periodic subspace bounds the images needed.
        others = [cell[k] for k in range(3) if k != axis and pbc[k]]
        height = _height(cell[axis], others)
        spread = _spread(positions, cell, pbc, axis)
        n = math.ceil(cutoff / height + spread) + 1
        ranges.append(range(-n, n + 1))
    pairs = []
    for i, j in itertools.product(range(len(positions)), repeat=2):
        for shift in itertools.product(*ranges):
            if i == j and not any(shift):
                continue
            vector = positions[j] - positions[i] + np.dot(shift, cell)
            if math.sqrt(float(vector @ vector)) < cutoff:
                pairs.append((i, j, shift))
    return pairs


def _height(vector, others):
    """Length of `vector` perpendicular to the span of `others`."""
    residual = np.array(vector, float)
    if others:
        basis, _ = np.linalg.qr(np.array(others, float).T)
        residual = residual - basis @ (basis.T @ residual)
    return float(np.linalg.norm(residual))


def _spread(positions, cell, pbc, axis):
    """Extent of the atoms along a lattice vector, in units of that vector."""
    periodic = [k for k in range(3) if pbc[k]]
    coefficients = np.linalg.lstsq(cell[periodic].T, np.asarray(positions, float).T, rcond=None)[0]
    row = coefficients[periodic.index(axis)]
    return float(row.max() - row.min())


def _dense(parameters, name, x):
    bias = parameters.get(f"{name}.bias", 0.0)
    return parameters[f"{name}.weight"] @ x + bias


def corrections(parameters, config, positions, atomic_numbers, cell, pairs):
    """v_i^(0..L): a list of arrays (n_atoms, n_features)."""
    x = np.array([parameters["embedding.weight"][z] for z in atomic_numbers], float)
    result = [x.copy()]
    for block in range(config["n_interactions"]):
        name = f"interactions.{block}"
        projected = [_dense(parameters, f"{name}.input", row) for row in x]
        y = np.zeros_like(x)
        for i, j, shift in pairs:
            vector = positions[j] - positions[i] + np.dot(shift, cell)
            distance = math.sqrt(float(vector @ vector))
            basis = gaussian_basis(distance, config["n_rbf"], config["cutoff"])
            hidden = shifted_softplus(_dense(parameters, f"{name}.filter_generator.hidden", basis))
            filters = _dense(parameters, f"{name}.filter_generator.output", hidden)
            if config["cutoff_function"] == "cosine":
                filters = filters * cosine_cutoff(distance, config["cutoff"])
            y[i] += projected[j] * filters
        v = np.array(
            [
                _dense(
                    parameters,
                    f"{name}.output",
                    shifted_softplus(_dense(parameters, f"{name}.hidden", row)),
                )
                for row in y
            ]
        ).reshape(x.shape)
        result.append(v)
        x = x + v
    return result


def energies(parameters, config, positions, atomic_numbers, cell, pairs):
    """Energy of each atom, eV: (n_atoms,)."""
    layers = corrections(parameters, config, positions, atomic_numbers, cell, pairs)
    weights = parameters["contribution_weights"]
    result = []
    for i, z in enumerate(atomic_numbers):
        x_out = sum(w * v[i] for w, v in zip(weights, layers, strict=True))
        g = _dense(
            parameters,
            "readout.output",
            shifted_softplus(_dense(parameters, "readout.hidden", x_out)),
        )
        offset = parameters["offsets.shift"] + parameters["offsets.atomref"][z]
        result.append(float(g[0]) * parameters["offsets.scale"] + offset)
    return np.array(result, float)


def energy(parameters, config, positions, atomic_numbers, cell=None, pbc=(False,) * 3):
    """Energy of one structure, eV, neighbor list included."""
    cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, float)
    pairs = neighbor_pairs(positions, cell, pbc, config["cutoff"])
    return float(energies(parameters, config, positions, atomic_numbers, cell, pairs).sum())


def atom_values(parameters, config, positions, atomic_numbers, pairs, number, name):
    """p_i of the head `name`, the one of that number, from its own contribution weights: (n_atoms,)."""
    layers = corrections(parameters, config, positions, atomic_numbers, np.zeros((3, 3)), pairs)
    result = []
    for i, z in enumerate(atomic_numbers):
        x_out = np.zeros(config["n_features"])
        for layer in range(config["n_interactions"] + 1):
            x_out = x_out + parameters["head_weights"][number][layer] * layers[layer][i]
        hidden = shifted_softplus(_dense(parameters, f"heads.{name}.readout.hidden", x_out))
        g = float(_dense(parameters, f"heads.{name}.readout.output", hidden)[0])
        scale, offset = parameters[f"heads.{name}.scale"], parameters[f"heads.{name}.offset"][z]
        result.append(g * scale + offset)
    return np.array(result)


def pooled(kind, values, positions, masses):
    """The property of one molecule from values of its atoms."""
    n = len(values)
    if kind == "sum":
        return sum(values)
    if kind == "mean":
        return sum(values) / n
    if kind in ("dipole", "dipole_norm"):
        mean, moment = sum(values) / n, np.zeros(3)
        for q, r in zip(values, positions, strict=True):
            moment = moment + (q - mean) * r
        return moment if kind == "dipole" else math.sqrt(sum(moment**2))
    assert kind == "extent"
    center = sum(m * r for m, r in zip(masses, positions, strict=True)) / sum(masses)
    return sum(q * sum((r - center) ** 2) for q, r in zip(values, positions, strict=True))


def forces(parameters, config, positions, atomic_numbers, cell=None, pbc=(False,) * 3, step=1e-4):
    """Central differences of `energy`, fourth order: (n_atoms, 3), eV/Å."""
    result = np.zeros_like(positions)
    for index in np.ndindex(*positions.shape):
        result[index] = -_slope(
            lambda t, index=index: energy(
                parameters, config, _moved(positions, index, t), atomic_numbers, cell, pbc
            ),
            step,
        )
    return result


def orthogonalize(matrix, steps=5):
    """Singular values of a matrix brought near one, by Jordan's polynomial of each of them: from its SVD."""
    if not matrix.any():
        return matrix
    u, s, v = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


def stress(parameters, config, positions, atomic_numbers, cell, pbc, step=1e-4):
    """Central differences of `energy` in the strain, over the volume: (3, 3), eV/Å^3, tension positive."""
    volume = abs(np.linalg.det(cell))
    result = np.zeros((3, 3))
    for a, b in np.ndindex(3, 3):

        def strained(t, a=a, b=b):
            deformation = np.eye(3)
            deformation[a, b] += t
            return energy(
                parameters, config, positions @ deformation, atomic_numbers, cell @ deformation, pbc
            )

        result[a, b] = _slope(strained, step) / volume
    return result


def _moved(positions, index, t):
    moved = positions.copy()
    moved[index] += t
    return moved


def _slope(f, h):
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)
