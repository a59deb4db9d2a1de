"""The .pt2 file: the pair call, compiled once for all tests here (half a minute on one core)."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model
from test_schnet_evaluate import Halo

import scschnet
from scschnet import ops
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.data import embedded
from scschnet.evaluate.norm_statistics import norm_statistics
from scschnet.export import load_exported
from scschnet.export.compiled import outputs
from scschnet.export.exported import CompiledModel, read_metadata
from scschnet.nn.unfamiliarity import KEY

pytestmark = pytest.mark.slow  # compiles the pair call

CUTOFF = 3.0
OUTPUTS = {"energy", "energies", "forces", "virial", "correction_norms", "unfamiliarity"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A model with statistics of norms."""
    model = make_model(n_features=6, cutoff=CUTOFF, filters="spline").eval().requires_grad_(False)
    frames = embedded.load().select(range(20))
    metadata = {KEY: norm_statistics(model, frames, frames).to_json()}
    path = tmp_path_factory.mktemp("run") / "best.pt"
    save_checkpoint(path, Checkpoint(model, metadata))
    return path


@pytest.fixture(scope="module")
def files(checkpoint, tmp_path_factory) -> tuple[Path, Path]:
    """The same model as .pt2 and as TorchScript."""
    folder = tmp_path_factory.mktemp("pt2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "cache"))
        with warnings.catch_warnings():  # torch's own, while it copies its graphs
            warnings.filterwarnings("ignore", r".isinstance\(treespec, LeafSpec\)", FutureWarning)
            scschnet.export(checkpoint, folder / "m.pt2", format="pt2")
    scschnet.export(checkpoint, folder / "m.pt")
    return folder / "m.pt2", folder / "m.pt"


@pytest.fixture(scope="module")
def compiled(files) -> CompiledModel:
    found = load_exported(files[0])
    assert isinstance(found, CompiledModel)
    return found


def random_pairs(n_atoms: int, n_local: int, seed: int = 0):
    """Atomic numbers and pairs of atoms in a box, those of two ghosts left out."""
    g = np.random.default_rng(seed)
    r = torch.tensor(g.random((n_atoms, 3)) * 1.6 * max(1, n_atoms) ** (1 / 3))
    z = torch.tensor(g.choice([1, 6, 8], n_atoms))
    free = torch.zeros(1, 3, dtype=torch.bool)
    i, j, shifts, _ = ops.neighbor_list(
        r, torch.tensor([0, n_atoms]), torch.zeros(1, 3, 3).double(), free, CUTOFF
    )
    half, _, j = ops.half_list(i, j, shifts, n_atoms)
    i = i[half]
    local = i < n_local
    return z, i[local], j[local], (r[j] - r[i])[local]


@pytest.mark.parametrize("n_atoms", [0, 1, 2, 3, 9, 40])
def test_same_numbers_as_torchscript(compiled, files, n_atoms):
    """Also with sizes that torch.export takes for special, 0 and 1."""
    pairs = random_pairs(n_atoms, n_atoms)
    expected = load_exported(files[1]).forward_pairs(*pairs, n_atoms, True)
    found = compiled.forward_pairs(*pairs, n_atoms, True)
    assert set(found) == OUTPUTS == set(outputs(True)) == {*outputs(False), "unfamiliarity"}
    for name, value in expected.items():
        assert found[name].dtype == torch.float64
        torch.testing.assert_close(found[name], value, rtol=1e-14, atol=1e-10)


def test_ghosts_with_a_halo(compiled, files):
    pairs = random_pairs(30, 18)
    with Halo(np.concatenate([np.arange(18), np.arange(12)]), 18) as halo:
        found = compiled.forward_pairs(*pairs, 18, True)
        assert halo.calls == ["forward", "reverse"]
        expected = load_exported(files[1]).forward_pairs(*pairs, 18, True)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-14, atol=1e-10)


def test_metadata(files):
    found, other = read_metadata(files[0]), read_metadata(files[1])
    assert (found.pop("container"), other.pop("container")) == ("pt2", "torchscript")
    assert found == other


def test_what_it_cannot_do(compiled):
    pairs = random_pairs(3, 3)
    with pytest.raises(
        ValueError, match="has neither `layers` nor `atom_virial`, and takes ghosts"
    ):
        compiled.forward_pairs(*pairs, 3, True, layers=True)
    with pytest.raises(ValueError, match="takes ghosts with `halo` alone: export without --format"):
        compiled.forward_pairs(*pairs, 2, False)
    r, box = torch.zeros(1, 3), torch.zeros(3, 3)
    with pytest.raises(ValueError, match=r"a \.pt2 file has the pair call alone: export without"):
        compiled.forward(r, torch.tensor([1]), box, torch.zeros(3, dtype=torch.bool))


def test_errors(compiled, files, tmp_path, capfd):
    z, i, j, r_ij = random_pairs(9, 9)
    with pytest.raises(
        ValueError, match="must hold only H, C, O, the elements the model was trained on, got N"
    ):
        compiled.forward_pairs(torch.full_like(z, 7), i, j, r_ij, 9, True)
    with pytest.raises(ValueError, match="atoms must lie on different points"):
        compiled.forward_pairs(z, i, j, torch.zeros_like(r_ij), 9, True)
    with pytest.raises(ValueError, match="the host has registered no halo") as failure:
        compiled.forward_pairs(z[:2], i[:0], j[:0], r_ij[:0], 1, True)
    assert "\n" not in str(failure.value)
    data = bytearray(files[0].read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "m.pt2").write_bytes(data)
    with pytest.raises(
        ValueError, match=r"m\.pt2 is not an exported model, or is damaged: the chec"
    ):
        load_exported(tmp_path / "m.pt2")
    capfd.readouterr()  # torch prints to stderr, too


def test_another_torch(files, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    with pytest.raises(
        ValueError, match=r"was compiled with torch 2\.\d+\..*, but torch 2\.99\.0 is"
    ):
        load_exported(files[0])
