"""Training on a GPU: captured steps against eager ones and against the CPU, memory, several processes."""

import numpy as np
import pytest
import torch
from test_captured import (  # noqa: F401 (fixture)
    CASES,
    assert_same_training,
    random_structures,
    trained,
)
from test_processes import assert_close, torchrun
from test_train import command, no_reports, small_data  # noqa: F401 (fixtures)

from scschnet.checkpoint import load
from scschnet.commands.train import main
from scschnet.train import loop
from scschnet.train.captured import ResidentStep
from scschnet.train.processes import Processes

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    # Said once in a process, where a thread of autograd begins with a product.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

# A rate that single precision holds exactly: Adam on a GPU reads it in that.
GPU = {"device": "cuda", "schedule": "constant", "lr": 2.0**-9, "epochs": 9}
PERIODIC = {"stress": 1.0, "hard cutoff": 0.0}


@pytest.mark.parametrize("case", CASES)
def test_captured_steps_are_eager_ones(trained, case):  # noqa: F811
    structures = random_structures(18, periodic=PERIODIC.get(case, 0.5))
    options = CASES[case] | GPU
    captured, eager = (trained(s, 6, structures, step=s, **options) for s in ("auto", "eager"))
    assert captured.resident is not None
    assert captured.resident.captures
    assert captured.state.total_steps == 24
    assert_same_training(captured, eager, rtol=1e-8)


def test_captured_steps_are_those_of_the_cpu(trained):  # noqa: F811
    on_gpu = trained("gpu", 5, **GPU)
    on_cpu = trained("cpu", 5, **(GPU | {"device": "cpu"}))
    assert on_gpu.state.loss_sum == pytest.approx(on_cpu.state.loss_sum, rel=1e-7)
    torch.testing.assert_close(
        on_gpu.state.flat.detach().cpu(), on_cpu.state.flat.detach(), rtol=1e-6, atol=1e-8
    )


def test_single_precision_follows_the_eager_loss(trained):  # noqa: F811
    losses = [
        trained(s, 5, step=s, dtype="float32", clip=0.0, **GPU).state.loss_sum
        for s in ("auto", "eager")
    ]
    # Muon amplifies the rounding of two orders of summation.
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_the_same_bits_on_every_run(trained):  # noqa: F811
    one, other = (trained(name, 3, dtype="float32", **GPU) for name in ("one", "other"))
    assert torch.equal(one.state.flat, other.state.flat)
    assert one.state.gradient_norms == other.state.gradient_norms


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_steps_do_not_wait_for_the_gpu(trained):  # noqa: F811
    training = trained("run", 1, **GPU)
    training.state.begin_epoch()
    batches = training._batches()
    training.resident.begin_epoch(batches, [1e-3] * len(batches))
    training.resident.run()
    training.resident.captures = False
    training.resident._programs.clear()
    try:  # the mode is of the whole process, and setting it warns
        torch.cuda.set_sync_debug_mode("error")
        for _ in batches[1:]:
            training.resident.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_validation_is_of_the_parameters_as_they_are(trained):  # noqa: F811
    training = trained("run", 3, **GPU)
    shown = training._validate()
    saved = load(training.run.last).to("cuda")
    for name, error in training._errors(saved, training.split.val).items():
        assert shown[name].rmse == pytest.approx(error.rmse, rel=1e-9)


def test_memory_does_not_grow_and_is_stated(trained, capsys):  # noqa: F811
    training = trained("run", 3, **GPU)
    assert "captured graphs; 0." in capsys.readouterr().err
    before = torch.cuda.memory_allocated()
    for _ in range(4):
        training.run_epoch([])
    assert torch.cuda.memory_allocated() <= before + 2**20


def test_a_capture_that_fails_leaves_a_training_that_works(trained, monkeypatch, capsys):  # noqa: F811
    plain = trained("plain", 2, **GPU)

    def fail(self, stage):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            stage.run()
            torch.cuda.synchronize()
        return graph.replay

    monkeypatch.setattr(ResidentStep, "_graph_of", fail)
    training = trained("failing", 2, **GPU)
    assert not training.resident.captures
    assert capsys.readouterr().err.count("note: steps are launched operation by operation") == 1
    assert_same_training(training, plain, rtol=1e-8)


def test_a_resumed_run_goes_on(trained):  # noqa: F811
    whole = trained("whole", 4, **GPU)
    half = trained("half", 2, **GPU)
    half = loop.Training(half.config, Processes("cuda"), half.run.path)
    for _ in range(2):
        half.run_epoch([])
    assert_same_training(half, whole, rtol=1e-12)
    np.testing.assert_array_equal(half.state.gradient_norms, whole.state.gradient_norms)


def test_two_processes_equal_one(small_data, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # there may be no network
    options = "--dtype float64 --epochs 2 --batch-size 5 --device cuda"
    options = f"{options} --schedule constant --lr {GPU['lr']}"
    assert main(command(small_data, tmp_path / "one", f"{options} --step eager")) == 0
    done = torchrun(2, command(small_data, tmp_path / "two", options))
    assert done.returncode == 0, done.stderr
    assert "captured graphs" in done.stderr
    assert_close(tmp_path / "two", tmp_path / "one")
