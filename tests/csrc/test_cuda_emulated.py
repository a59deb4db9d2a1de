"""Training steps on the operators for GPUs, emulated on the CPU: the branch that only a GPU takes.

On request, because compiling them takes minutes; the folder keeps what is compiled:

    SCSCHNET_EMULATE=build/emulated pytest tests/csrc/test_cuda_emulated.py
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_captured import CASES

import scschnet
from scschnet import ops

CSRC = Path(__file__).parents[2] / "csrc"
FOLDER = os.environ.get("SCSCHNET_EMULATE", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="on request: SCSCHNET_EMULATE=FOLDER"),
]


def build(folder: Path) -> Path:
    """The library of the emulated operators; compiles what has changed."""
    folder.mkdir(parents=True, exist_ok=True)
    torch_folder = Path(torch.__file__).parent
    ops_folder = next(
        p for p in map(Path, scschnet.__path__) if (p / "libscschnet_ops.so").exists()
    )
    flags = ["-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", "-DSCSCHNET_EMULATE_CUDA", "-w"]
    flags += ["-fvisibility=hidden", "-isystem", str(torch_folder / "include")]
    flags += ["-isystem", str(torch_folder / "include/torch/csrc/api/include")]
    newest = max(p.stat().st_mtime for p in CSRC.rglob("*") if p.is_file())
    objects = []
    sources = [*sorted((CSRC / "core/cuda").glob("*.cu")), CSRC / "tests/emulated_operators.cpp"]
    for source in sources:
        objects.append(folder / f"{source.stem}.o")
        if not objects[-1].exists() or objects[-1].stat().st_mtime < newest:
            command = ["c++", *flags, "-x", "c++", "-c", str(source), "-o", str(objects[-1])]
            subprocess.run(command, check=True)
    library = folder / "libscschnet_ops_emulated.so"
    link = ["c++", "-shared", "-o", str(library), *map(str, objects), "-Wl,-Bsymbolic"]
    for place, names in (
        (ops_folder, ["scschnet_ops"]),
        (torch_folder / "lib", ["torch_cpu", "c10"]),
    ):
        link += [f"-L{place}", f"-Wl,-rpath,{place}", *(f"-l{name}" for name in names)]
    subprocess.run(link, check=True)
    return library


def test_resident_steps_with_emulated_operators(tmp_path):
    library = build(Path(FOLDER).absolute())
    command = [sys.executable, __file__, str(library), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    # batches, records, losses, embeddings, the representation, partners, and every case of steps
    assert result.stdout.count("agrees") == 6 + len(CASES)


def compare(library: str, folder: Path) -> None:
    """Steps of the loop on the operators for CPUs, then the same on resident data with the others."""
    from test_captured import config_of, random_structures

    from scschnet.train import loop
    from scschnet.train.processes import Processes

    def start(case: str, step: str) -> loop.Training:
        periodic = {"stress": 1.0, "hard cutoff": 0.0}.get(case, 0.5)
        loop.read_structures = lambda config: random_structures(18, periodic=periodic)
        config = config_of(folder, f"{case} {step}", step=step, **CASES[case])
        training = loop.Training(config, Processes("cpu"), None)
        training.state.begin_epoch()
        return training

    expected = {case: start(case, "eager") for case in CASES}
    got = {case: start(case, "resident") for case in CASES}
    for training in expected.values():
        for chosen in training._batches()[:2]:
            training._step(chosen, 1e-3, [])
    representation, losses = represented() + evaluated(), losses_and_gradients(folder)
    torch.ops.load_library(library)
    for a, b in zip(represented() + evaluated(), representation, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
    print("representation agrees")
    compare_partners()
    ops.trains_on = lambda device: True
    compare_batches()
    for one, other in zip(losses_and_gradients(folder), losses, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    print("loss agrees")
    compare_embeddings()
    compare_records(next(iter(expected.values())).state)
    for case, training in got.items():
        batches = training._batches()
        training.resident.begin_epoch(batches, [1e-3] * len(batches))
        training.resident.data.device = torch.device("cuda")
        training.resident.run()
        training.resident.run()
        assert training.resident.read_back() is None
        one, other = training.state, expected[case].state
        for a, b in (
            (one.flat, other.flat),
            (one.contributions.square_sum, other.contributions.square_sum),
        ):
            torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-11, atol=1e-13)
        assert one.loss_sum == pytest.approx(other.loss_sum, rel=1e-12)
        assert one.gradient_norms == pytest.approx(other.gradient_norms, rel=1e-12)
        print(case, "agrees")


def represented() -> list[torch.Tensor]:
    """x^out of the operator `schnet`, and gradients of a loss of it, the readout and its derivatives."""
    from test_schnet_op import Case, gradients

    case = Case(n_blocks=3)
    leaves = case.leaves(torch.float64)
    g, g_d, _, x_out = case.fused(leaves, representation=True)
    return [x_out.detach(), *gradients(case.loss(g, g_d) + x_out.square().sum(), leaves)]


def evaluated() -> list[torch.Tensor]:
    """Of the network without gradients, which keeps one block, and of one whose last atoms are ghosts."""
    from test_schnet_op import Case

    case = Case(n_blocks=3)
    with torch.no_grad():
        features, tables, weights, *parameters = leaves = case.leaves(torch.float64)
        pairs = (case.row_ptr, case.idx_j, case.bins, case.spline(torch.float64))
        network = (features, *pairs, tables, weights, parameters)
        n_local = len(features) // 2
        found = ops.schnet_evaluate(*network, n_local, False, True, True)
        return [*case.fused(leaves, derivatives=True), *found]


def compare_partners() -> None:
    """`schnet`, its gradients and `pair_forces` with partners that were found before, against those that find them."""
    from test_schnet_op import Case, gradients

    case = Case(n_blocks=2)
    partners = ops.find_partners(case.row_ptr, case.idx_j)
    found = []
    for given in (None, partners):
        leaves = case.leaves(torch.float64)
        g, g_d, _, _ = case.fused(leaves, partners=given)
        found.append([g.detach(), g_d.detach(), *gradients(case.loss(g, g_d), leaves)])
        r_ij = case.d[:, None] * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
        idx_m = torch.zeros(len(case.features), dtype=torch.int64)
        lists = (r_ij, case.d, case.row_ptr, case.idx_j, idx_m)
        found[-1] += ops.pair_forces(case.v, *lists, 1, given)
    assert all(map(torch.equal, *found))
    for call in (
        lambda wrong: case.fused(case.leaves(torch.float64), partners=wrong),
        lambda wrong: ops.pair_forces(case.v, *lists, 1, wrong),
    ):
        with pytest.raises(ValueError, match="`partners` must have shape"):
            call(partners[1:])
        with pytest.raises(TypeError, match="`partners` must be Byte"):
            call(partners.view(torch.int8))
    with pytest.raises(TypeError, match="`idx_j` must be Long"):
        ops.find_partners(case.row_ptr, case.idx_j.int())
    shape = torch.ops.scschnet.find_partners(case.row_ptr.to("meta"), case.idx_j.to("meta")).shape
    assert shape == partners.shape
    print("find_partners agrees")


def compare_batches() -> None:
    """`ops.gather_batch` against plain torch, with more structures than threads of a block, and none."""
    from test_captured import CPU, CUTOFF, random_structures

    from scschnet.train.resident import Places, ResidentData, Shape

    labels = ("energy", "forces", "stress")
    data = ResidentData(random_structures(700), np.arange(700), CUTOFF, CPU, labels)
    for chosen in (np.arange(700)[::-1], np.array([5, 700, 3, 5]), np.array([], np.int64)):
        numbers = chosen[chosen < 700]
        shape = data.shape_of(numbers) if len(numbers) else Shape(3, 5)
        places = Places(shape, CPU)
        row = torch.tensor([*chosen, 700], dtype=torch.int64)
        arrays = (data._structures, data._positions, data._atoms, data._pairs)
        rows = ([*data._of_structures.values()], [*data._of_atoms.values()])
        order, step = torch.stack([row * 0, row]), torch.tensor([1])
        got = ops.gather_batch(order, step, *arrays, *rows, *shape)
        for name, one, other in zip(got._fields, got, data._gather(row, places), strict=True):
            parts = ([one], [other]) if isinstance(one, torch.Tensor) else (one, other)
            for a, b in zip(*parts, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=name)
        assert (len(got.of_structures), len(got.of_atoms)) == (4, 1)
    print("gather_batch agrees")


def losses_and_gradients(folder: Path) -> list[torch.Tensor]:
    """Losses with weights, missing labels and missing volumes, and their gradients: of everything, and of parts."""
    from dataclasses import replace

    from test_captured import config_of, random_structures

    from scschnet.data import collate
    from scschnet.train.loss import Loss, labels_of

    structures = random_structures(9, periodic=0.5)
    structures.energy[::4] = np.nan
    structures.forces[:5] = np.nan
    weighted = replace(structures, weights=np.resize([2.0, 1.0, 0.5], 9))
    numbers = torch.Generator().manual_seed(0)
    found = []
    for kind, data, options in (
        ("per_atom", weighted, {"rho": 0.3, "stress_weight": 0.2}),
        ("total", weighted, {"rho": 0.3, "stress_weight": 0.2}),
        ("per_atom", structures, {"rho": 1.0}),
        ("total", structures, {"rho": 0.0}),
    ):
        labels = labels_of(collate(data, np.arange(9), 5.0))
        n_atoms = len(labels.idx_m)
        shapes = {"energy": (9,), "forces": (n_atoms, 3), "stress": (9, 3, 3)}
        result = {
            name: torch.randn(*shape, generator=numbers, dtype=torch.float64).requires_grad_()
            for name, shape in shapes.items()
        }
        loss = Loss(config_of(folder, "losses", loss=kind, **options), data)
        value = loss(result, labels, 11, torch.tensor(70.0, dtype=torch.float64))
        bars = torch.autograd.grad(3.0 * value, list(result.values()), allow_unused=True)
        found += [value.detach(), *(bar for bar in bars if bar is not None)]
    return found


def compare_embeddings() -> None:
    """`ops.embedding` against torch's, whose row 0 is padding, too."""
    numbers = torch.tensor([1, 6, 0, 1, 1, 8, 0, 6])
    for dtype in (torch.float32, torch.float64):
        layer = torch.nn.Embedding(10, 37, padding_idx=0).to(dtype)
        bar = torch.randn(len(numbers), 37, dtype=dtype)
        both = [layer(numbers), ops.embedding(layer.weight, numbers)]
        assert torch.equal(*both)
        gradients = [torch.autograd.grad(rows, layer.weight, bar)[0] for rows in both]
        torch.testing.assert_close(*gradients)
    print("embedding agrees")


def compare_records(state) -> None:
    """`ops.record_step` against plain torch, beyond the number of norms that are kept; then a failure."""
    from test_captured import CPU

    from scschnet.train.epoch_buffers import EpochBuffers

    rng = np.random.default_rng(0)
    one, other = (EpochBuffers(state, 1, 1, CPU) for _ in range(2))
    weights = torch.tensor([0.3, -0.2, 1.4], dtype=torch.float64)
    one.totals[1] = other.totals[1] = -1.0
    for k in range(470):
        norm = torch.tensor(rng.random() if k != 460 else np.nan, dtype=torch.float64)
        for buffers in (one, other):
            buffers.n_structures.fill_(3.0)
            buffers.loss.fill_(k + 0.1)
            buffers.norms.copy_(torch.tensor([1.0, k, 0.1 * k]))
        one.record_step(norm, weights, 1.1 if k % 3 else 0.0, 0.9)
        other._record_step(norm, weights, 1.1 if k % 3 else 0.0, 0.9)
        for name in ("counts", "history", "sums", "totals", "factors"):
            a, b = getattr(one, name), getattr(other, name)
            torch.testing.assert_close(a, b, rtol=1e-13, atol=0, equal_nan=True, msg=f"{name} {k}")
    assert one.totals[1] == 460
    print("record_step agrees")


if __name__ == "__main__":
    compare(sys.argv[1], Path(sys.argv[2]))
