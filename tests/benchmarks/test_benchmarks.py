"""What the benchmarks are made of: programs in other environments, ratios in turns, the page of results."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import conftest, potentials, results
from benchmarks.measure import in_turns, timed_by
from benchmarks.peers import protocol
from scschnet.data import embedded

SUITE = Path(protocol.__file__).parents[1]
PEER = """
import sys
sys.path.insert(0, {folder!r})
from protocol import serve
print("not an answer either")

def prepare(case, structures):
    print("not an answer")
    assert [len(atoms) for atoms in structures] == case["sizes"], "other structures"
    return lambda: sum(range(1000))

serve(prepare)
"""


@pytest.fixture
def environments(tmp_path, monkeypatch):
    """One environment, `this`, with a peer."""
    python = tmp_path / "this" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "this_peer.py").write_text(PEER.format(folder=str(SUITE / "peers")))
    monkeypatch.setattr(protocol, "__file__", str(tmp_path / "protocol.py"))
    with protocol.Environments(tmp_path) as found:
        yield found


def test_peers_answer_in_every_setting(environments):
    running = environments.start("this absent", embedded.load().select([0, 1]), sizes=[9, 9])
    assert set(running) == {"this, installed", "this, best"}
    for run in running.values():
        assert 0 < run(3) < 1
    environments.close()
    assert not environments.running


def test_what_a_peer_fails_at_is_said(environments):
    with pytest.raises(RuntimeError, match="peer this: AssertionError: other structures"):
        environments.start("this", embedded.load().select([0, 1]), sizes=[9])


def test_without_environments_there_are_no_peers():
    with protocol.Environments(None) as none:
        assert none.start("schnetpack pyg", embedded.load()) == {}


class Benchmark:
    """What `in_turns` needs of the fixture."""

    disabled = False

    def __init__(self, timer):
        self._timer, self.extra_info = timer, {}


def test_turns_alternate_and_give_the_ratio_of_each_pair():
    now, order = [0.0], []

    def ours():
        order.append("ours")
        now[0] += 0.1

    def theirs():
        order.append("theirs")
        now[0] += 0.3

    benchmark = Benchmark(lambda: now[0])
    in_turns(benchmark, ours, {"them": timed_by(benchmark._timer, theirs)}, seconds=0.0)
    found = benchmark.extra_info["in_turns"]["them"]
    assert found["ratio"] == pytest.approx(3.0) and found["ratios"] == [3.0] * 5
    assert found["seconds"] == pytest.approx(0.3) and found["our_seconds"] == pytest.approx(0.1)
    assert order == ["theirs", "ours"] * 6


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"data": Path("nowhere")}, "`--data` must be a folder, got nowhere"),
        ({"peers": Path("nowhere")}, "`--peers` must be a folder, got nowhere"),
        ({"threads": [0]}, r"`--threads` must be positive, got \[0\]"),
        ({"threads": [1, 2], "peers": Path()}, "`--peers` run on one CPU thread"),
    ],
)
def test_wrong_options_are_named(options, error):
    with pytest.raises(pytest.UsageError, match=error):
        conftest.pytest_configure(config_with(**options))


def test_missing_plugin_is_named():
    config = config_with()
    config.pluginmanager.hasplugin = lambda name: False
    with pytest.raises(pytest.UsageError, match=r"pip install '\.\[bench\]'"):
        conftest.pytest_configure(config)


def config_with(**options):
    given = {"data": None, "peers": None, "threads": [1], "device": "cpu"} | options
    return SimpleNamespace(
        option=SimpleNamespace(**given),
        pluginmanager=SimpleNamespace(hasplugin=lambda name: True),
        invocation_params=SimpleNamespace(args=["--benchmark-min-time=1"]),
        addinivalue_line=lambda *_: None,
    )


@pytest.mark.parametrize(
    ("options", "timer"),
    [({}, "time.process_time"), ({"threads": [1, 2]}, None), ({"device": "cuda"}, None)],
)
def test_cpu_time_is_for_one_thread(options, timer, monkeypatch):
    """Of several threads, and of a GPU that is waited for, it would tell nothing; what was given stays."""
    monkeypatch.setattr(conftest.ops, "runs_on", lambda device: True)
    config = config_with(**options)
    conftest.pytest_configure(config)
    assert getattr(config.option, "benchmark_timer", None) == timer
    assert "median" in config.option.benchmark_columns
    assert not hasattr(config.option, "benchmark_min_time")


def test_page_of_results(tmp_path):
    """Tables of each group, and a figure with a curve for each program."""
    bench = {
        "name": "test_energy_and_forces[1 thread-192]",
        "group": "energy",
        "stats": {"median": 2e-3, "iqr": 1e-4},
        "extra_info": {
            "n_atoms": 192,
            "of_fma": 0.25,
            "of_l2": 0.5,
            "in_turns": {"them": {"seconds": 4e-3, "ratio": 2.0}},
        },
    }
    machine = {
        "processor_name": "a CPU",
        "instruction_sets": ["generic"],
        "cpu": {"count": 2},
        "python_version": "3.11",
        "versions": {"torch": "2.13"},
        "data": "real",
    }
    file = tmp_path / "speed_a.json"
    report = {"machine_info": machine, "commit_info": {"id": "0123456789"}, "benchmarks": [bench]}
    file.write_text(json.dumps(report))
    page = results.speed(file)
    row = "| energy_and_forces[1 thread-192] | 192 | – | 2 | 5% | 50% of l2 | – | them 2x |"
    assert row in page and "revision 0123456" in page
    assert (tmp_path / "speed_a.png").stat().st_size > 5_000


def test_page_and_figures_of_potentials(tmp_path):
    """Times are the ratios of turns times our own time; whatever has an error is a point, the others are lines."""
    others = {
        name: {"ratio": ratio} for name, ratio in [(potentials.SPCE, 2.0), ("mace, best", 300.0)]
    }
    bench = {
        "stats": {"min": 1536e-5},
        "extra_info": {"n_atoms": 1536, "n_steps": 10, "in_turns": others},
    }
    errors = {potentials.BASE: {"forces": 60.0, "energy": 0.9, "training": "an hour"}}
    small = {"n_atoms": 192, "n_steps": 10, "in_turns": {"sevennet, best": {"ratio": 5.0}}}
    found = potentials.times(
        {"benchmarks": [bench, {"stats": {"min": 192e-5}, "extra_info": small}]}
    )
    assert found == {
        potentials.BASE: {1536: pytest.approx(1.0), 192: pytest.approx(1.0)},
        "sevennet, best": {192: pytest.approx(5.0)},
        potentials.SPCE: {1536: pytest.approx(2.0)},
        "mace, best": {1536: pytest.approx(300.0)},
    }
    titles, lines = potentials.rows(found, errors)
    assert titles[1:3] == ["192 atoms", "1,536 atoms"]
    assert lines[0] == [potentials.BASE, "1", "1", "60.0 / 0.90", "an hour"]
    assert lines[-1] == ["mace, best", "–", "300", "–", "–"]
    potentials.draw_sizes(found, tmp_path / "sizes.png")
    potentials.draw_front(found, errors, tmp_path / "front.png")
    assert all((tmp_path / name).stat().st_size > 5_000 for name in ("sizes.png", "front.png"))
