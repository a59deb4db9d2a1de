"""Steps on resident data against the eager loop, on the CPU; and that no step needs the host."""

import os
import signal
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_model
from test_processes import assert_close, torchrun
from test_train import command, no_reports, rows, small_data  # noqa: F401 (fixtures)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scschnet import ops
from scschnet.commands.train import main
from scschnet.data import StructureSet, collate
from scschnet.evaluate import predict
from scschnet.runs.config import TrainConfig
from scschnet.train import captured, loop, processes, resident
from scschnet.train.captured import ResidentStep
from scschnet.train.epoch_buffers import EpochBuffers
from scschnet.train.loss import Loss, labels_of
from scschnet.train.processes import Processes
from scschnet.train.resident import (
    Places,
    ResidentData,
    ResidentPredictor,
    Shape,
    padded_shape,
)
from scschnet.train.state import NORMS_KEPT

CUTOFF = 3.0
CPU = torch.device("cpu")


def random_structures(n: int, seed: int = 0, periodic: float = 0.5) -> StructureSet:
    """Jittered lattice points, one to eight per structure, with labels; small cells have self images."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, n)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    positions = np.concatenate([1.3 * rng.permutation(grid)[:size] for size in sizes])
    cells = (2.6 * np.eye(3) + rng.uniform(-0.2, 0.4, (n, 3, 3))).round(2)
    pbc = np.repeat(rng.random(n) < periodic, 3).reshape(n, 3)
    ptr = np.concatenate([[0], np.cumsum(sizes)])
    return StructureSet(
        positions + rng.normal(scale=0.1, size=positions.shape),
        rng.choice([1, 6, 8], len(positions)),
        ptr,
        cells=np.where(pbc[:, :1, None], cells, 0.0),
        pbc=pbc,
        energy=rng.normal(size=n),
        forces=rng.normal(size=positions.shape),
        stress=rng.normal(size=(n, 3, 3)),
    )


def config_of(tmp_path, name: str, **options) -> TrainConfig:
    small = {"n_features": 8, "n_interactions": 2, "n_rbf": 6, "cutoff": CUTOFF, "dtype": "float64"}
    small |= {"n_train": 13, "n_val": 3, "batch_size": 4, "epochs": 4, "clip": 1.0, "ema": 0.8}
    return TrainConfig(out=str(tmp_path / name), **(small | options))


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Trains for some epochs and returns the training."""

    def train(name: str, n_epochs: int = 2, structures=None, **options) -> loop.Training:
        found = random_structures(18) if structures is None else structures
        monkeypatch.setattr(loop, "read_structures", lambda config: found)
        config = config_of(tmp_path, name, **options)
        training = loop.Training(config, Processes(config.device), None)
        for _ in range(n_epochs):
            training.run_epoch([])
        return training

    return train


def assert_same_training(one: loop.Training, other: loop.Training, rtol: float = 1e-9) -> None:
    a, b = one.state, other.state
    for x, y in (
        (a.flat, b.flat),
        *zip(a.averaged_parameters, b.averaged_parameters, strict=True),
        (a.contributions.norm_sum, b.contributions.norm_sum),
        (a.contributions.weight_sum, b.contributions.weight_sum),
        (a.contributions.square_sum, b.contributions.square_sum),
        *zip(moments(a), moments(b), strict=True),
    ):
        torch.testing.assert_close(x.detach(), y.detach(), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(a.gradient_norms, b.gradient_norms, rtol=rtol)
    assert a.loss_sum == pytest.approx(b.loss_sum, rel=rtol)
    for name in ("epoch", "step", "total_steps", "best_epoch"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.contributions.n == b.contributions.n
    assert a.best_val_loss == pytest.approx(b.best_val_loss, rel=rtol)


def moments(state) -> list[torch.Tensor]:
    """What Adam keeps."""
    (kept,) = state.optimizer.state.values()
    return [kept[name] for name in ("step", "exp_avg", "exp_avg_sq")]


def test_a_run_resumed_eagerly_has_an_eager_optimizer(trained):
    """What a captured step asks of its optimizer costs an eager one a wait for the GPU in every step."""
    half = trained("half", 1, step="resident")
    config = replace(half.config, step="eager")
    resumed = loop.Training(config, Processes("cpu"), half.run.path)
    assert resumed.state.epoch == 1
    assert [group["capturable"] for group in resumed.state.optimizer.param_groups] == [False]


# ---- data


def gather(data: ResidentData, chosen: torch.Tensor, places: Places):
    """The second of two steps."""
    order = torch.stack([torch.zeros_like(chosen), chosen])
    return data.gather(order, torch.tensor([1]), places, torch.float64)


@pytest.mark.parametrize("numbers", [[0, 3, 1], [5, 5, 2, 9, 0, 11], [7]])
def test_gathered_batches_are_collated_ones(numbers):
    structures = random_structures(20)
    train = np.arange(3, 18)
    labels = ("energy", "forces", "stress")
    data = ResidentData(structures, train, CUTOFF, CPU, labels)
    batch = collate(structures, train[numbers], CUTOFF)
    n, n_structures = len(batch.positions), len(numbers)
    shape = data.shape_of(np.array(numbers))
    chosen = torch.tensor([*numbers, len(data), len(data)])  # one structure is missing
    padded, label = gather(data, chosen, Places(shape, CPU))

    assert torch.equal(padded.positions[:n], batch.positions)
    assert torch.equal(padded.atomic_numbers[:n], batch.atomic_numbers)
    assert torch.equal(padded.idx_m[:n], batch.idx_m)
    assert torch.equal(padded.cells[:n_structures], batch.cells)
    assert padded.sizes.tolist() == [*batch.atom_ptr.diff().tolist(), 0]
    assert torch.equal(label.energy, torch.cat([batch.energy, torch.zeros(1)]))
    assert torch.equal(label.forces[:n], batch.forces)
    assert torch.equal(label.stress[:n_structures], batch.stress)

    half, row_ptr, idx_j = ops.half_list(batch.idx_i, batch.idx_j, batch.shifts, n)
    pairs, n_pairs = padded.pairs, len(half)
    assert torch.equal(pairs.idx_i[:n_pairs], batch.idx_i[half])
    assert torch.equal(pairs.idx_j[:n_pairs], idx_j)
    assert torch.equal(pairs.shifts[:n_pairs], batch.shifts[half])
    assert torch.equal(pairs.row_ptr[: n + 1], row_ptr)
    assert data.pair_counts[numbers].sum() == n_pairs

    assert len(padded.positions) == shape.n_atoms > n
    assert (padded.atomic_numbers[n:] == 0).all()
    assert (padded.idx_m[n:] == n_structures + 1).all()
    assert (label.forces[n:] == 0).all()
    assert len(pairs.idx_i) == shape.n_pairs >= n_pairs
    assert (pairs.row_ptr[n + 1 : -1] == n_pairs).all()
    assert pairs.alive.tolist() == [1.0] * n_pairs + [0.0] * (shape.n_pairs - n_pairs)


def test_lists_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    structures = random_structures(20)
    whole = ResidentData(structures, np.arange(20), CUTOFF, CPU, ())
    monkeypatch.setattr(resident, "ATOMS_AT_A_TIME", 11)
    parts = ResidentData(structures, np.arange(20), CUTOFF, CPU, ())
    np.testing.assert_array_equal(whole.pair_counts, parts.pair_counts)
    assert whole.largest_distance == parts.largest_distance < CUTOFF
    places = Places(whole.shape_of(np.arange(20)), CPU)
    one, other = (gather(data, torch.arange(21), places) for data in (whole, parts))
    assert all(map(torch.equal, one[0].pairs, other[0].pairs))
    assert whole.n_bytes == parts.n_bytes > 20 * 9 * 8


def test_few_shapes_and_little_padding():
    for n in (1, 7, 100, 1804, 98_304):
        shape = padded_shape(n, n)
        assert n + 1 <= shape.n_atoms <= 1.0625 * (n + 1) + 1
        assert n <= shape.n_pairs <= 1.125 * n + 1
    shapes = {padded_shape(n, 8 * n) for n in range(1690, 1931)}
    assert len(shapes) <= 8
    assert padded_shape(5, 0).n_pairs == 1


@pytest.mark.parametrize("function", ["cosine", "none"])
@pytest.mark.parametrize("more", [(0, 0), (40, 170)])
@pytest.mark.parametrize("kind", ["per_atom", "total"])
def test_padding_counts_exactly_nothing(function, more, kind):
    """Outputs and gradients of a padded batch are those of the batch, whatever the shape."""
    structures = random_structures(9, periodic=1.0)
    data = ResidentData(structures, np.arange(9), CUTOFF, CPU, ("energy", "forces", "stress"))
    model = make_model(filters="spline", cutoff=CUTOFF, cutoff_function=function)
    batch = collate(structures, range(9), CUTOFF)
    shape = data.shape_of(np.arange(9))
    places = Places(Shape(shape.n_atoms + more[0], shape.n_pairs + more[1]), CPU)
    padded, labels = gather(data, torch.arange(10), places)
    nodes = model.table_nodes(data.largest_distance)
    parameters = list(model.parameters())
    options = TrainConfig(rho=0.3, stress_weight=0.2, loss=kind)
    measure = Loss(options, structures)

    def outcome(result, label):
        loss = measure(result, label, 9, len(batch.positions))
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [loss.detach(), *(g for g in grads if g is not None)]

    expected = model(**batch.inputs, stress=True, correction_norms=True)
    got = model.evaluate_padded(padded, nodes, stress=True)
    n = len(batch.positions)
    for name in ("energy", "stress"):
        torch.testing.assert_close(got[name], expected[name], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(got["forces"][:n], expected["forces"], rtol=1e-11, atol=1e-11)
    assert (got["forces"][n:] == 0).all()
    norms = got["correction_norms"][:, :n]
    torch.testing.assert_close(norms, expected["correction_norms"], rtol=1e-11, atol=1e-11)
    for one, other in zip(outcome(got, labels), outcome(expected, labels_of(batch)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


# ---- steps

CASES = {
    "energy and forces": {},
    "energy": {"rho": 1.0, "ema": 0.0, "clip": 0.0},
    "hard cutoff": {"cutoff_function": "none", "cutoff": 30.0, "rbf_range": 5.0, "skip": "plain"},
    "stress": {"stress_weight": 0.3, "schedule": "plateau"},
    "adam": {"optimizer": "adam"},
}


@pytest.mark.parametrize("case", CASES)
def test_resident_steps_are_those_of_the_loop(trained, case):
    structures = random_structures(18, periodic={"stress": 1.0, "hard cutoff": 0.0}.get(case, 0.5))
    both = [trained(s, 3, structures, step=s, **CASES[case]) for s in ("eager", "resident")]
    assert both[0].resident is None
    assert both[1].resident is not None
    assert both[0].state.total_steps == 12  # the last of every four is short of structures
    assert_same_training(*both)


def test_resident_steps_with_weights_and_missing_labels(trained):
    """Molecules among crystals, some without energy, forces or stress, counted two, one or half times."""
    structures = random_structures(18, periodic=0.5)
    structures.energy[::5] = np.nan
    structures.stress[1::4] = np.nan
    for m in range(2, 18, 6):
        structures.forces[slice(*structures.atom_ptr[m : m + 2])] = np.nan
    weighted = replace(structures, weights=np.resize([2.0, 1.0, 0.5], 18))
    both = [
        trained(f"{kind}-{s}", 3, weighted, step=s, stress_weight=0.3, split_seed=2, loss=kind)
        for kind in ("per_atom", "total")
        for s in ("eager", "resident")
    ]
    for eager, resident_one in (both[:2], both[2:]):
        assert resident_one.resident is not None
        assert_same_training(eager, resident_one)
        assert 0 < eager.state.best_val_loss < np.inf


@pytest.mark.parametrize("repulsion", ["none", "zbl", "data"])
def test_the_shape_does_not_matter(trained, monkeypatch, repulsion):
    """Nor do padding pairs, which are near each other, repel."""
    usual = trained("usual", step="resident", repulsion=repulsion)
    monkeypatch.setattr(resident, "padded_shape", lambda n, p: Shape(n + 23, p + 150))
    roomy = trained("roomy", step="resident", repulsion=repulsion)
    assert_same_training(roomy, usual, rtol=1e-10)
    assert_same_training(trained("eager", step="eager", repulsion=repulsion), usual, rtol=1e-8)


def test_single_precision(trained):
    eager, on_device = (
        trained(s, 1, step=s, dtype="float32", clip=0.0) for s in ("eager", "resident")
    )
    assert on_device.state.loss_sum == pytest.approx(eager.state.loss_sum, rel=1e-5)


def test_stopping_at_every_step_changes_nothing(trained):
    whole = trained("whole", 2, step="resident")
    training = trained("stopped", 0, step="resident")
    folder = training.run.path
    stops = 0
    while training.state.epoch < 2:
        try:
            training.run_epoch([signal.SIGTERM])
        except loop.Interrupted:
            stops += 1
            training = loop.Training(training.config, Processes("cpu"), folder)
    assert stops == 8
    pairs = zip(moments(training.state), moments(whole.state), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert torch.equal(training.state.flat, whole.state.flat)
    assert training.state.gradient_norms == whole.state.gradient_norms
    for table in ("metrics.csv", "contributions.csv"):
        for one, other in zip(rows(folder / table), rows(whole.run.path / table), strict=True):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_run_may_change_between_eager_and_resident(trained):
    eager = trained("eager", 4, step="eager")
    mixed = trained("mixed", 1, step="eager")
    for k, step in enumerate(("resident", "eager", "resident")):
        config = TrainConfig(**{**vars(mixed.config), "step": step})
        mixed = loop.Training(config, Processes("cpu"), mixed.run.path)
        assert mixed.state.epoch == k + 1
        mixed.run_epoch([])
    assert_same_training(mixed, eager)


def test_other_tables_are_noticed(trained):
    training = trained("run", 1, step="resident")
    step, model = training.resident, training.state.model
    programs, nodes = dict(step._programs), step._nodes
    assert programs
    model.filter_step /= 2
    batches = training._batches()
    step.begin_epoch(batches, [1e-3] * len(batches))
    assert not step._programs
    assert step._nodes.grid.step == nodes.grid.step / 2


def test_losses_that_are_not_finite_are_reported_with_their_step(trained):
    messages = []
    for step in ("eager", "resident"):
        with pytest.raises(loop.TrainingFailed, match=r"in epoch 1, step [234]; a") as error:
            trained(step, 1, step=step, lr=1e40)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_counts_sums_and_factors_of_steps(trained):
    """Norms of gradients and their median, over more steps than are kept; factors; sums."""
    state, rng = trained("run", 0, step="eager").state, np.random.default_rng(0)
    buffers = EpochBuffers(state, 500, 2, CPU)
    state.gradient_norms = rng.random(3).tolist()
    buffers.begin(state, torch.zeros(500, 2, dtype=torch.int64), torch.zeros(500, 3).double())
    buffers.loss.fill_(0.5)
    buffers.n_structures.fill_(4.0)
    buffers.norms.copy_(torch.tensor([1.0, 2.0, 3.0]))
    weights = torch.tensor([0.5, 0.25, 2.0])
    expected = list(state.gradient_norms)
    for k in range(450):
        norm = rng.random() * 3
        buffers.record_step(torch.tensor(norm, dtype=torch.float64), weights, 1.2, 0.9)
        limit = 1.2 * statistics.median(expected)
        factor = limit / norm if norm > limit else 1.0
        assert float(buffers.factors[0]) == pytest.approx(factor, rel=1e-14)
        assert float(buffers.factors[1]) == pytest.approx(1 - min(0.9, (2 + k) / (11 + k)))
        expected = [*expected[-NORMS_KEPT + 1 :], norm]
        if k in (0, 196, 197, 449):
            assert buffers.read_into(state) is None
            assert state.gradient_norms == expected
            assert state.loss_sum == 2.0 * (k + 1)
            square = (k + 1) * (weights.double() * buffers.norms) ** 2
            torch.testing.assert_close(state.contributions.square_sum, square)
    assert buffers.counts.tolist() == [450, 450, 453]


@pytest.mark.parametrize("at_once", [1024, 20])
@pytest.mark.parametrize("n", [0, 1, 18])
def test_resident_predictions_are_those_of_evaluate(monkeypatch, at_once, n):
    monkeypatch.setattr(resident, "ATOMS_ON_CPU", at_once)
    structures = random_structures(18, periodic=1.0)
    model = make_model(filters="spline", cutoff=CUTOFF).requires_grad_(False)
    chosen = np.random.default_rng(0).permutation(18)[:n]
    predictor = ResidentPredictor(structures, chosen, CUTOFF, CPU)
    for _ in range(2):
        got = predictor.predict(model, forces=True, stress=True)
        want = predict(model, structures, chosen, forces=True, stress=True)
        for name in ("energy", "forces", "stress"):
            one, other = getattr(got, name), getattr(want, name)
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)
        with torch.no_grad():
            model.readout.output.bias += 0.5
    assert predictor.predict(model, forces=False, stress=False).forces is None


def test_models_notice_that_steps_have_changed_parameters(trained):
    """A replay does not change their version, by which a model knows whether its tables are right."""
    training = trained("run", 1, step="resident")
    before = [p._version for p in training.state.averaged_parameters]
    training.resident.read_back()
    after = [p._version for p in training.state.averaged_parameters]
    assert all(b > a for a, b in zip(before, after, strict=True))


# ---- what a graph can hold


class Captured(TorchDispatchMode):
    """Lets only operations pass that a capture allows: none that reads numbers or brings some from the host."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero",
        "lift_fresh", "scalar_tensor", "where.Scalar", "repeat_interleave.Tensor", "bincount",
        "neighbor_list", "half_list", "rand", "linalg_det")  # fmt: skip

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.seen = device, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function).split(".", 1)[1]
        self.seen.append(name)
        assert not name.startswith(self.FORBIDDEN), name
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, torch.Tensor):
                assert value.device.type == self.device, name
        return result


@pytest.mark.parametrize("case", CASES)
def test_steps_read_nothing_back(trained, case):
    training = trained(
        "run", 0, random_structures(18, periodic=1.0), step="resident", **CASES[case]
    )
    training.state.begin_epoch()
    batches = training._batches()
    training.resident.begin_epoch(batches, [1e-3] * len(batches))
    training.resident.run()
    with Captured("cpu") as watched:
        training.resident.run()
    assert "_fused_adam_.tensor_lr" in watched.seen
    assert any("schnet_backward" in name for name in watched.seen)


def test_the_watch_sees_what_it_is_to_see():
    for read in (lambda t: float(t[0]), lambda t: t.nonzero(), lambda t: t + torch.tensor([1.0])):
        with pytest.raises(AssertionError), Captured("cpu"):
            read(torch.ones(2))
    with pytest.raises(AssertionError), Captured("meta"):
        torch.zeros(2, device="meta").copy_(torch.ones(2))


def test_steps_stay_on_their_device(tmp_path, monkeypatch):
    """On a device without numbers, which takes the branches of a GPU: nothing comes from the host or goes there."""
    monkeypatch.setattr(loop, "read_structures", lambda config: random_structures(18))
    monkeypatch.setattr(ops, "runs_on", lambda device: True)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)  # has no kernel there
    training = loop.Training(config_of(tmp_path, "run", step="resident"), Processes("meta"), None)
    batches = training._batches()
    training.resident.begin_epoch(batches, [1e-3] * len(batches))
    training.resident._program(Places(Shape(64, 256), torch.device("meta")))
    with Captured("meta") as watched:
        training.resident.run()
    assert len(watched.seen) > 50


# ---- captures


class FakeGraph:
    def replay(self) -> None:
        raise AssertionError("not captured by the fakes below")


@pytest.fixture
def fake_cuda(monkeypatch):
    """The calls of a capture, without a GPU; a capture executes, which it must undo like the runs before."""

    class Stream:
        def wait_stream(self, other) -> None:
            pass

    class Context:
        def __init__(self, *arguments, **options) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *details) -> None:
            pass

    for name, fake in {"Stream": Stream, "current_stream": Stream, "stream": Context}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "graph", Context)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    graph_of = ResidentStep._graph_of

    def capture(self, stage):
        assert graph_of(self, stage).__name__ == "replay"
        return stage.run

    monkeypatch.setattr(ResidentStep, "_graph_of", capture)


def test_what_runs_before_a_capture_is_undone(trained, fake_cuda, monkeypatch):
    plain = trained("plain", 2, step="resident")
    init = ResidentStep.__init__

    def initialize(self, *arguments) -> None:
        init(self, *arguments)
        self.captures = True

    monkeypatch.setattr(ResidentStep, "__init__", initialize)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3_000_000)
    runs = []
    update = ResidentStep.update
    monkeypatch.setattr(ResidentStep, "update", lambda self: runs.append(0) or update(self))
    on_fake = trained("captured", 2, step="resident")
    programs = on_fake.resident._programs
    n_shapes = len(programs)
    for shape, program in programs.items():  # replays read them
        assert (len(program.places.atoms), len(program.places.pairs)) == shape
    assert on_fake.resident.captures
    assert len(runs) == 8 + n_shapes * (captured.WARM_UP + 1)
    assert f"one of {n_shapes} captured graphs" in on_fake.resident.describe()
    assert torch.equal(on_fake.state.flat, plain.state.flat)
    assert_same_training(on_fake, plain, rtol=1e-15)


def test_a_capture_that_fails_is_named_once_and_changes_nothing(
    trained, fake_cuda, monkeypatch, capsys
):
    plain = trained("plain", 2, step="resident")
    capsys.readouterr()

    def initialize(self, *arguments) -> None:
        init(self, *arguments)
        self.captures = True

    def fail(self, stage):
        stage.run()
        raise RuntimeError("operation not permitted when stream is capturing\nand so on")

    init = ResidentStep.__init__
    monkeypatch.setattr(ResidentStep, "__init__", initialize)
    monkeypatch.setattr(ResidentStep, "_graph_of", fail)
    training = trained("failing", 2, step="resident")
    text = capsys.readouterr().err
    assert (
        text.count("note: steps are launched operation by operation: operation not permitted") == 1
    )
    assert "and so on" not in text
    assert "steps are not captured" in text
    assert_same_training(training, plain, rtol=1e-15)


def test_where_there_is_no_resident_step(trained, capsys, monkeypatch):
    assert trained("auto", 0).resident is None
    assert "note" not in capsys.readouterr().err
    assert trained("dense", 0, step="resident", filters="dense").resident is None
    assert "note: steps are launched operation by operation: there is no such step with dense" in (
        capsys.readouterr().err
    )
    monkeypatch.setattr(ops, "runs_on", lambda device: False)
    assert trained("elsewhere", 0, step="resident").resident is None
    assert "the operators were not built for cpu" in capsys.readouterr().err
    monkeypatch.undo()

    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB\nmore")

    monkeypatch.setattr(captured, "ResidentData", full)
    assert trained("large", 0, step="resident").resident is None
    assert capsys.readouterr().err.endswith("CUDA out of memory. Tried to allocate 3 GiB\n")


# ---- several processes


@pytest.mark.slow
def test_two_processes_on_resident_data_equal_one(small_data, tmp_path):  # noqa: F811
    options = "--dtype float64 --epochs 2 --batch-size 5"
    assert main(command(small_data, tmp_path / "one", options)) == 0
    done = torchrun(2, command(small_data, tmp_path / "two", f"{options} --step resident"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("steps are not captured") == 1
    assert_close(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize(
    ("device", "n_devices", "n_here", "expected"),
    [
        ("cpu", 0, 2, "gloo"),
        ("cuda", 2, 2, "nccl"),
        ("cuda", 1, 2, "gloo"),
        ("cuda", 1, 1, "nccl"),
        ("cuda:1", 2, 1, "nccl"),
        ("cuda:1", 2, 2, "gloo"),
    ],
)
def test_processes_that_share_a_gpu_do_not_use_nccl(
    device, n_devices, n_here, expected, monkeypatch
):
    monkeypatch.setitem(os.environ, "LOCAL_WORLD_SIZE", str(n_here))
    assert processes.backend(device, n_devices) == expected


def test_processes_answer_rarely_whether_a_signal_came(trained, monkeypatch):
    training = trained("run", 0, step="resident")
    assert training._common_signal([]) == 0
    assert training._common_signal([signal.SIGINT]) == signal.SIGINT
    training.processes.size = 2
    asked = []
    monkeypatch.setattr(Processes, "all_reduce_", lambda self, tensor: asked.append(tensor.add_(1)))
    for training.state.total_steps in range(1, 65):
        found = training._common_signal([])
        assert found == (signal.SIGTERM if training.state.total_steps % 32 == 0 else 0)
    assert len(asked) == 2
