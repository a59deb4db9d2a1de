"""`python -m scschnet.select` and `scschnet.select`: uncertain frames that differ, and nonsense left out."""

import re

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from conftest import make_model

import scschnet
from scschnet import ScSchNetCalculator
from scschnet.checkpoint import SHORTEST, Checkpoint, load_checkpoint, save_checkpoint
from scschnet.commands.select import main
from scschnet.data import StructureSet
from scschnet.evaluate.norm_statistics import norm_statistics
from scschnet.nn.unfamiliarity import KEY

WATER = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def molecule(rng: np.random.Generator, by: float, scale: float = 1.0) -> Atoms:
    """A water molecule with noise on every coordinate."""
    return Atoms("OH2", scale * WATER + rng.normal(0, by, (3, 3)))


def as_set(frames: list[Atoms]) -> StructureSet:
    return StructureSet(
        positions=np.concatenate([atoms.positions for atoms in frames]),
        atomic_numbers=np.concatenate([atoms.numbers for atoms in frames]),
        atom_ptr=np.arange(0, 3 * len(frames) + 1, 3),
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model that knows water molecules near their equilibrium."""
    rng = np.random.default_rng(0)
    known = as_set([molecule(rng, 0.03) for _ in range(60)])
    model = make_model(filters="spline")
    model.refine_filters()
    statistics = norm_statistics(model, known, known).to_json()
    path = tmp_path_factory.mktemp("select") / "model.pt"
    metadata = {KEY: statistics, SHORTEST: {"H-O": 0.86, "H-H": 1.4}}
    save_checkpoint(path, Checkpoint(model, metadata))
    return path


@pytest.fixture
def frames() -> list[Atoms]:
    """Forty frames, each with an energy as dynamics writes it: those from the thirtieth on are stretched."""
    rng = np.random.default_rng(1)
    found = [molecule(rng, 0.03) for _ in range(30)]
    found += [molecule(rng, 0.02, 1.0 + 0.05 * k) for k in range(1, 11)]
    for atoms in found:
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((3, 3)))
    return found


def test_uncertain_frames_are_selected_with_the_reason(checkpoint, frames):
    found = scschnet.select(checkpoint, frames, 4)
    assert (found.n_seen, found.n_nonsense, found.n_candidates) == (40, 0, 20)
    calculator = ScSchNetCalculator(checkpoint)
    scores = []
    for atoms in frames:
        calculator.calculate(atoms, ["energy"])
        scores.append(calculator.unfamiliarity.max())
    numbers = [atoms.info["source_frame"] for atoms in found.frames]
    assert numbers[0] == int(np.argmax(scores)) and len(set(numbers)) == 4
    assert set(numbers) <= set(np.argsort(scores)[-20:])
    for atoms, number in zip(found.frames, numbers, strict=True):
        assert atoms.info["uncertainty"] == pytest.approx(scores[number])
        assert atoms.info["uncertainty_of"] == "unfamiliarity"
        np.testing.assert_array_equal(atoms.positions, frames[number].positions)
        assert atoms.calc is None  # an energy of the model must not become a label
        calculator.calculate(atoms, ["energy"])
        assert atoms.info["uncertain_atom"] == int(calculator.unfamiliarity.argmax())


def test_selected_frames_differ(checkpoint):
    rng = np.random.default_rng(2)
    # Twenty copies of the strangest frame but for rounding, and a few that are less strange.
    strange = [Atoms("OH2", 1.6 * WATER + rng.normal(0, 1e-5, (3, 3))) for _ in range(20)]
    others = [molecule(rng, 0.01, scale) for scale in (1.2, 1.3, 1.4)]
    usual = [molecule(rng, 0.02) for _ in range(60)]
    found = scschnet.select(checkpoint, usual + strange + others, 5)
    numbers = [atoms.info["source_frame"] for atoms in found.frames]
    assert 60 <= numbers[0] < 80
    assert {80, 81, 82} <= set(numbers)


def test_a_long_trajectory_is_read_once_and_not_kept(checkpoint, frames):
    alive = []

    def stream():
        for k in range(400):
            alive.append(k)
            yield frames[k % 40]

    found = scschnet.select(checkpoint, stream(), 2)
    assert len(alive) == found.n_seen == 400 and found.n_candidates == 10


def test_nonsense_is_left_out_and_counted(checkpoint, frames):
    overlap, broken = frames[0].copy(), frames[1].copy()
    overlap.set_distance(0, 1, 0.58, fix=0)
    broken.positions[2, 1] = np.nan
    near = frames[2].copy()
    near.set_distance(0, 1, 0.63, fix=0)  # 0.7 times 0.86 is 0.602
    found = scschnet.select(checkpoint, [overlap, broken, near], 3)
    assert (found.n_seen, found.n_nonsense) == (3, 2)
    assert [atoms.info["source_frame"] for atoms in found.frames] == [2]
    with pytest.raises(ValueError, match="got 2 of which 2 are nonsense"):
        scschnet.select(checkpoint, [overlap, broken], 3)


def test_elements_that_never_met_overlap_by_their_radii(checkpoint):
    def carbon(d):
        return Atoms("C2", [[0, 0, 0], [0, 0, d]])

    limit = 0.76  # half of twice 0.76 Å, the covalent radius of carbon
    with pytest.raises(ValueError, match="1 are nonsense"):
        scschnet.select(checkpoint, [carbon(limit - 0.01)], 1)
    found = scschnet.select(checkpoint, [carbon(limit + 0.01)], 1)
    assert found.frames[0].info["uncertainty"] == np.inf  # carbon was not trained on


def test_an_error_bar_of_the_forces_comes_first(checkpoint, frames):
    class WithErrorBars(ScSchNetCalculator):
        """As a committee: the error bar of an atom is its distance from the origin."""

        def calculate(self, atoms=None, properties=("energy",), system_changes=()):
            super().calculate(atoms, properties)
            self.results["forces_std"] = np.linalg.norm(atoms.positions, axis=1)

    found = scschnet.select(WithErrorBars(checkpoint), frames, 3)
    first = found.frames[0]
    assert first.info["uncertainty_of"] == "forces_std"
    farthest = max(np.linalg.norm(atoms.positions, axis=1).max() for atoms in frames)
    assert first.info["uncertainty"] == pytest.approx(farthest)


def test_a_committee_selects_by_its_error_bars(checkpoint, frames, tmp_path):
    """From its folder, with the shortest distances of its training structures, which any member knows."""
    metadata = load_checkpoint(checkpoint).metadata
    folder = tmp_path / "committee"
    for k in (1, 2):
        (folder / f"member-{k}").mkdir(parents=True)
        model = make_model(seed=k, filters="spline")
        save_checkpoint(folder / f"member-{k}" / "best.pt", Checkpoint(model, metadata))
    (folder / "committee.toml").write_text("committee = 2\n")
    ase.io.write(tmp_path / "md.extxyz", frames)
    out = tmp_path / "to_label.extxyz"
    assert main([str(folder), str(tmp_path / "md.extxyz"), "-n", "4", "-o", str(out)]) == 0
    first, *others = ase.io.read(out, ":")
    assert len(others) == 3 and first.info["uncertainty_of"] == "forces_std"
    calculator = ScSchNetCalculator(folder)
    calculator.calculate(first, ["forces"])
    bars = calculator.results["forces_std"]
    assert first.info["uncertainty"] == pytest.approx(bars.max(), rel=1e-6)
    near = Atoms("OH2", 0.87 * WATER)  # O-H 0.84 Å: above that limit
    assert len(scschnet.select(folder, [near], 1).frames) == 1
    close = Atoms("OH2", 0.6 * WATER)  # 0.58 Å, less than 0.7 times 0.86
    with pytest.raises(ValueError, match="1 are nonsense"):
        scschnet.select(folder, [close], 1)


def test_the_command_writes_frames_that_can_be_labeled(checkpoint, frames, tmp_path, capsys):
    ase.io.write(tmp_path / "first.extxyz", frames[:35])
    ase.io.write(tmp_path / "second.extxyz", frames[35:])
    files = [str(tmp_path / "first.extxyz"), str(tmp_path / "second.extxyz")]
    out = tmp_path / "to_label.extxyz"
    arguments = [str(checkpoint), *files, "-n", "6", "-o", str(out)]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert told.startswith("40 frames, of which 0 are left out") and f"{out}: 6 frames" in told
    written = ase.io.read(out, index=":")
    wanted = scschnet.select(checkpoint, frames, 6).frames
    for got, want in zip(written, wanted, strict=True):
        number = want.info["source_frame"]
        place, number = (0, number) if number < 35 else (1, number - 35)
        assert (got.info["source_file"], got.info["source_frame"]) == (files[place], number)
        assert got.info["uncertainty"] == pytest.approx(want.info["uncertainty"])
        assert got.calc is None
        np.testing.assert_allclose(got.positions, want.positions, atol=1e-7)
    assert {atoms.info["source_file"] for atoms in written} == set(files)
    assert main(arguments) == 1
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-o out.npz", "`--out` must end in .extxyz or .xyz"),
        ("-o out.xyz -n 0", "`--n` must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_done_is_named(checkpoint, frames, tmp_path, capsys, arguments, message):
    ase.io.write(tmp_path / "in.extxyz", frames[:2])
    words = [str(checkpoint), str(tmp_path / "in.extxyz"), *arguments.split()]
    place = words.index("-o") + 1
    words[place] = str(tmp_path / words[place])
    assert main(words) == 1
    assert re.match(f"error: .*{message}", capsys.readouterr().err)


def test_a_frame_of_other_elements_and_a_model_without_error_bar_are_named(
    checkpoint, frames, tmp_path, capsys
):
    strange = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])
    with pytest.raises(ValueError, match=r"frame 1: .* got Cu"):
        scschnet.select(checkpoint, [frames[0], strange], 1)
    with pytest.raises(ValueError, match="must give an error bar"):
        scschnet.select(make_model(filters="spline"), frames, 1)
