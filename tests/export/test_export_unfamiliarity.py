"""The unfamiliarity score in exported files: the numbers of ASE in every form, and files without it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from conftest import make_model, make_structures
from test_export_files import BARE, run_bare, with_metadata

import scschnet
from scschnet import ops
from scschnet.analysis.unfamiliar import distorted
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.commands.info import main as info
from scschnet.data import embedded
from scschnet.evaluate.norm_statistics import norm_statistics
from scschnet.export import load_exported
from scschnet.nn.unfamiliarity import KEY, unfamiliarity

KINDS = ("full", "portable")
ETHANOL = embedded.load().select(range(60))


def frames() -> list[Atoms]:
    """A molecule as in training, one that is distorted, and a crystal."""
    crystal = make_structures().select([0])
    sets = [ETHANOL.select([7]), distorted(ETHANOL.select([8]), 0.3), crystal]
    return [Atoms(s.atomic_numbers, s.positions, cell=s.cells[0], pbc=s.pbc[0]) for s in sets]


def arguments(atoms: Atoms) -> tuple[torch.Tensor, ...]:
    """Positions, atomic numbers, cell and pbc."""
    return tuple(
        torch.tensor(array)
        for array in (atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A float64 model of ethanol with statistics of its norms."""
    model = make_model(n_interactions=3, filters="spline").eval().requires_grad_(False)
    statistics = norm_statistics(model, ETHANOL.select(range(40)), ETHANOL.select(range(40, 60)))
    file = tmp_path_factory.mktemp("run") / "best.pt"
    save_checkpoint(file, Checkpoint(model, {KEY: statistics.to_json()}))
    return file


@pytest.fixture(scope="module")
def files(checkpoint) -> dict[str, Path]:
    paths = {kind: checkpoint.with_name(f"{kind}.pt") for kind in KINDS}
    for kind, path in paths.items():
        scschnet.export(checkpoint, path, portable=kind == "portable")
    return paths


@pytest.fixture(scope="module")
def in_ase(checkpoint) -> list[np.ndarray]:
    """Scores of the frames."""
    scores = []
    for atoms in frames():
        atoms.calc = scschnet.ScSchNetCalculator(checkpoint)
        atoms.get_potential_energy()
        scores.append(atoms.calc.unfamiliarity)
    assert np.median(scores[0]) < 1.0 < scores[1].max() < scores[2].max()
    return scores


@pytest.mark.parametrize("kind", KINDS)
def test_exported_files_give_the_scores_of_ase(files, in_ase, kind):
    exported = load_exported(files[kind])
    for atoms, expected in zip(frames(), in_ase, strict=True):
        found = exported.forward(*arguments(atoms))["unfamiliarity"]
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_local_atoms_alone_have_scores(files, in_ase, kind):
    """Five atoms of nine, the others ghosts."""
    r, z, _, _ = arguments(frames()[0])
    i, j = torch.triu_indices(9, 9, 1)
    found = load_exported(files[kind]).forward_pairs(z, i, j, r[j] - r[i], 5, halo=False)
    np.testing.assert_allclose(found["unfamiliarity"], in_ase[0][:5], rtol=1e-12, atol=1e-10)


def test_a_portable_file_gives_the_scores_where_scschnet_is_not(files, in_ase, tmp_path):
    r, z, cell, pbc = (tensor.numpy() for tensor in arguments(frames()[2]))
    np.savez(tmp_path / "in.npz", r=r, z=z, cell=cell, pbc=pbc)
    done = run_bare(BARE, files["portable"], tmp_path / "in.npz", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_allclose(found["unfamiliarity"], in_ase[2], rtol=1e-12, atol=1e-10)


def test_files_without_statistics_have_no_score(checkpoint, files, tmp_path):
    """Those of a model alone and those for GROMACS; and older ones, which do not say."""
    alone = tmp_path / "alone.pt"
    scschnet.export(scschnet.load(checkpoint), alone)
    assert load_exported(alone).metadata["unfamiliarity"] is None
    assert "unfamiliarity" not in load_exported(alone).forward(*arguments(frames()[0]))
    metadata = scschnet.export(checkpoint, tmp_path / "gromacs.pt", host="gromacs")
    assert metadata["unfamiliarity"] is None
    old = load_exported(with_metadata(alone, tmp_path / "old.pt", unfamiliarity=None))
    assert "unfamiliarity" not in old.metadata
    assert "unfamiliarity" not in old.forward(*arguments(frames()[0]))


def test_info_says_whether_it_is_there(checkpoint, files, tmp_path, capsys):
    assert info([str(files["full"])]) == 0
    sentence = "a score per atom; above 1 it is stranger than 99 % of the held-out atoms (120 H, 40 C, 20 O)"
    assert f"unfamiliar  {sentence}\n" in capsys.readouterr().out
    info([str(checkpoint)])
    assert sentence in capsys.readouterr().out
    scschnet.export(scschnet.load(checkpoint), tmp_path / "alone.pt")
    info([str(with_metadata(tmp_path / "alone.pt", tmp_path / "old.pt", unfamiliarity=None))])
    assert "unfamiliar  no score of unfamiliar atoms\n" in capsys.readouterr().out


# ---- the operator


def operator_arguments(n_atoms: int = 5, n_blocks: int = 3) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    norms, mean = torch.rand(n_blocks + 1, n_atoms), torch.rand(9, n_blocks)
    whitening = torch.rand(9, n_blocks, n_blocks).triu()
    z = torch.arange(n_atoms) % 9
    return norms.double(), z, mean.double(), whitening.double()


@pytest.mark.parametrize(("n_atoms", "n_blocks"), [(0, 3), (5, 3), (40, 1), (7, 8)])
def test_the_operator_follows_the_equation(n_atoms, n_blocks):
    given = operator_arguments(n_atoms, n_blocks)
    torch.testing.assert_close(
        ops.unfamiliarity(*given), unfamiliarity(*given), rtol=1e-13, atol=1e-13
    )


def test_opcheck():
    torch.library.opcheck(torch.ops.scschnet.unfamiliarity.default, operator_arguments())


@pytest.mark.parametrize(
    ("position", "wrong", "error", "message"),
    [
        (0, torch.zeros(3, 5).double(), ValueError, r"`correction_norms` must have shape \[4, 5\]"),
        (0, torch.zeros(4, 5), TypeError, "`correction_norms` must be Double, got Float"),
        (1, torch.zeros(5).int(), TypeError, "`atomic_numbers` must be Long, got Int"),
        (1, torch.full((5,), 9), ValueError, "`atomic_numbers` must lie between 0 and 8, got 9"),
        (1, torch.full((5,), -1), ValueError, "`atomic_numbers` must lie between 0 and 8, got -1"),
        (2, torch.zeros(9, 3), TypeError, "`mean` must be Double, got Float"),
        (3, torch.zeros(9, 3).double(), ValueError, r"`whitening` must have shape \[9, 3, 3\]"),
    ],
)
def test_wrong_arguments(position, wrong, error, message):
    given = list(operator_arguments())
    given[position] = wrong
    with pytest.raises(error, match=message):
        ops.unfamiliarity(*given)


def test_an_element_that_was_not_trained_on_is_infinitely_strange(tmp_path):
    """Nitrogen, which the model knows and the training set does not hold; and xenon, beyond all that it holds."""
    model = make_model(elements=(1, 6, 7, 8, 54), filters="spline").requires_grad_(False)
    statistics = norm_statistics(model, ETHANOL.select(range(20)), ETHANOL.select(range(20, 30)))
    save_checkpoint(tmp_path / "best.pt", Checkpoint(model, {KEY: statistics.to_json()}))
    atoms = Atoms("HNXe", [[0, 0, 0], [1, 0, 0], [0, 2, 0]])
    atoms.calc = scschnet.ScSchNetCalculator(tmp_path / "best.pt")
    atoms.get_potential_energy()
    scores = atoms.calc.unfamiliarity
    assert np.isfinite(scores[0]) and np.isposinf(scores[1:]).all()
    for kind in KINDS:
        scschnet.export(tmp_path / "best.pt", tmp_path / "m.pt", portable=kind == "portable")
        found = load_exported(tmp_path / "m.pt").forward(*arguments(atoms))
        np.testing.assert_allclose(found["unfamiliarity"], scores, rtol=1e-12)
