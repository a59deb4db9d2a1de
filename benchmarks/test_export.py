"""Exported files: a call once things have settled, and the first and the hundredth call of a file just loaded.

Random weights, six blocks, F = 128, neighbor list included unless it says pairs.
"""

import numpy as np
import pytest

import scschnet
from benchmarks.measure import measure
from benchmarks.systems import ethanol, inputs_of, ladder, model_for, pairs_of, water
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.evaluate.norm_statistics import norm_statistics
from scschnet.export import load_exported
from scschnet.nn.unfamiliarity import KEY

pytestmark = pytest.mark.benchmark(group="exported file")
SYSTEMS = ladder("ethanol", large=("water 192",), full=("water 1536",))


def structures_of(system: str):
    return ethanol(1) if system == "ethanol" else water(int(system.split()[1]))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A file of a kind, written when first asked for: full, scored, portable or pt2."""
    folder = tmp_path_factory.mktemp("exported")

    def write(system: str, kind: str):
        elements = "ethanol" if system == "ethanol" else "water 192"
        path = folder / f"{elements}-{kind}.pt"
        if not path.exists():
            model = model_for(structures_of(elements)).eval().requires_grad_(False)
            model.refine_filters()
            if kind == "scored":
                frames = structures_of(elements)
                statistics = norm_statistics(model, frames, frames).to_json()
                save_checkpoint(folder / "checkpoint.pt", Checkpoint(model, {KEY: statistics}))
                model = folder / "checkpoint.pt"
            format = "pt2" if kind == "pt2" else "torchscript"
            scschnet.export(model, path, portable=kind == "portable", format=format)
        return path

    return write


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", ladder("full", "scored", "portable"))
def test_call(benchmark, kind, system, exported):
    """`scored`: with the unfamiliarity of every atom."""
    model, inputs = load_exported(exported(system, kind)), inputs_of(structures_of(system))
    measure(benchmark, lambda: model.forward(*inputs), n_atoms=len(inputs[0]))


@pytest.mark.parametrize("system", SYSTEMS)
def test_call_with_layers_and_virials(benchmark, system, exported):
    model, inputs = load_exported(exported(system, "full")), inputs_of(structures_of(system))
    measure(benchmark, lambda: model.forward(*inputs, True, True), n_atoms=len(inputs[0]))


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", ladder("full", full=("portable", "pt2")))
@pytest.mark.filterwarnings(
    r"ignore:.isinstance\(treespec, LeafSpec\):FutureWarning"
)  # torch's own
def test_call_with_pairs(benchmark, kind, system, exported):
    """`pt2`: compiled by AOTInductor, which takes minutes."""
    model = load_exported(exported(system, kind))
    pairs = pairs_of(*inputs_of(structures_of(system)))
    measure(benchmark, lambda: model.forward_pairs(*pairs), n_atoms=len(pairs[0]))


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", ["full", "portable"])
def test_first_call(benchmark, kind, system, exported):
    """Of a file just loaded; the libraries are warm."""
    path, inputs = exported(system, kind), inputs_of(structures_of(system))
    benchmark.pedantic(
        lambda model: model.forward(*inputs), setup=lambda: ((load_exported(path),), {}), rounds=5
    )


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", ["full", "portable"])
def test_hundredth_call(benchmark, kind, system, exported, pytestconfig):
    """After 99 others, every one with another number of pairs."""
    model, structures = load_exported(exported(system, kind)), structures_of(system)
    n_others = 3 if pytestconfig.option.benchmark_disable else 99
    factors = np.random.default_rng(0).permutation(np.linspace(0.95, 1.6, n_others))
    for factor in factors:
        model.forward(*inputs_of(structures, factor))
    inputs = inputs_of(structures)
    benchmark.pedantic(lambda: model.forward(*inputs), rounds=5)
