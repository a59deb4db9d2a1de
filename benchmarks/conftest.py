"""Options of the benchmarks, what is left out of a run, and what is said of the machine; see README.md."""

from pathlib import Path

import ase
import numpy as np
import pytest
import torch

import scschnet
from benchmarks.measure import processor
from benchmarks.peers.protocol import Environments
from scschnet import _C, ops

HERE = Path(__file__).parent


def pytest_addoption(parser):
    group = parser.getgroup("scschnet")
    group.addoption("--data", type=Path, help="folder with md17_aspirin.npz and qm9.npz")
    group.addoption("--device", choices=("cpu", "cuda"), default="cpu")
    group.addoption("--threads", type=int, nargs="+", default=[1], help="1: CPU time, else wall")
    group.addoption(
        "--peers", type=Path, help="folder of environments named as in benchmarks/peers"
    )
    group.addoption("--full", action="store_true", help="98,304 atoms too, and dense twins")


def pytest_configure(config):
    """Check our options, and choose those of pytest-benchmark that were not given."""
    config.addinivalue_line("markers", "large: left out by --benchmark-disable")
    config.addinivalue_line("markers", "full: only with --full")
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("the benchmarks need pytest-benchmark: pip install '.[bench]'")
    option = config.option
    for name in ("data", "peers"):
        folder = getattr(option, name)
        if folder is not None and not folder.is_dir():
            raise pytest.UsageError(f"`--{name}` must be a folder, got {folder}")
    if min(option.threads) < 1:
        raise pytest.UsageError(f"`--threads` must be positive, got {option.threads}")
    if option.device == "cuda" and not ops.runs_on(torch.device("cuda")):
        raise pytest.UsageError("`--device cuda` needs a GPU and an extension built for it")
    on_one_thread = option.threads == [1] and option.device == "cpu"
    if option.peers and not on_one_thread:
        raise pytest.UsageError(
            "`--peers` run on one CPU thread: leave `--threads` and `--device` out"
        )
    settings = {"columns": ["min", "median", "iqr", "rounds", "iterations"], "min_time": "0.0005"}
    if on_one_thread:
        settings["timer"] = "time.process_time"
    for name, value in settings.items():
        given = any(
            a.startswith(f"--benchmark-{name}".replace("_", "-"))
            for a in config.invocation_params.args
        )
        if not given:
            setattr(option, f"benchmark_{name}", value)


def pytest_generate_tests(metafunc):
    if "threads" in metafunc.fixturenames:
        threads = metafunc.config.option.threads
        metafunc.parametrize(
            "threads", threads, ids=[f"{n} threads" if n > 1 else "1 thread" for n in threads]
        )


def pytest_collection_modifyitems(config, items):
    left_out = [
        item for item in items if HERE in item.path.parents and is_left_out(item, config.option)
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def is_left_out(item, option) -> bool:
    marks = {mark.name for mark in item.iter_markers()}
    smallest = option.benchmark_disable
    return (
        ("full" in marks and (smallest or not option.full))
        or ("large" in marks and smallest)
        or (option.device != "cpu" and "device" not in item.fixturenames)
    )


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config, machine_info):
    """Only what stays the same from run to run: --benchmark-compare warns of differences."""
    machine_info["processor_name"] = processor()
    machine_info["instruction_sets"] = _C.instruction_sets()
    packages = (scschnet, torch, np, ase)
    machine_info["versions"] = {package.__name__: package.__version__ for package in packages}
    machine_info["data"] = "real" if config.option.data else "of the repository"
    if config.option.device == "cuda":
        machine_info["gpu"] = torch.cuda.get_device_name()


def pytest_terminal_summary(terminalreporter, config):
    """Ratios to what ran in turns with ours, which the tables of pytest-benchmark do not show."""
    lines = []
    for bench in config._benchmarksession.benchmarks:
        for name, found in bench.extra_info.get("in_turns", {}).items():
            times = f"{1e3 * found['seconds']:12.4g} {1e3 * found['our_seconds']:12.4g} {found['ratio']:8.2f}x"
            lines.append(f"{bench.name:50} {name:34} {times}")
    if lines:
        terminalreporter.section("in turns: theirs, ours (ms per call), median ratio of pairs")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture(autouse=True)
def set_threads(request):
    """One thread unless the benchmark asks for `threads`."""
    before = torch.get_num_threads()
    asked = "threads" in request.fixturenames
    torch.set_num_threads(request.getfixturevalue("threads") if asked else 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def device(pytestconfig) -> str:
    return pytestconfig.option.device


@pytest.fixture(scope="session")
def data(pytestconfig) -> Path | None:
    return pytestconfig.option.data


@pytest.fixture(scope="session")
def peers(pytestconfig):
    """Programs in environments of their own, to run in turns with ours; without --peers there are none."""
    with Environments(pytestconfig.option.peers) as environments:
        yield environments
