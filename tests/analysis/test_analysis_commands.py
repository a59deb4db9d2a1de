"""Every analysis command on a small real run: it exits well, prints, draws, and writes its numbers."""

import csv
import re
import shutil
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest

from scschnet.analysis.layers import layer_energies
from scschnet.analysis.rigidity import root_of
from scschnet.commands.analysis import COMMANDS, main
from scschnet.data import embedded, evenly
from scschnet.evaluate.error_statistics import run_error_statistics, standard_errors
from scschnet.runs.config import TrainConfig
from scschnet.runs.run import read_run
from scschnet.train.loop import train

PAGE = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    options = {"n_train": 40, "n_val": 10, "n_features": 8, "n_interactions": 2, "n_rbf": 12}
    train(TrainConfig(out=str(path), epochs=2, cutoff=4.0, **options))
    return path


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ("elements {run} {run}", r"C +\d.*\n  ± over runs +0\.0000"),
        ("elements {run} --environments", r"C, 4 neighbors"),
        ("trajectory {run} {frames}", r"2,000 frames"),
        ("layers {run} --atoms 90 --forces", r"completeness: off by \d\.\de-(0[89]|1\d)"),
        (
            "layers {run} {run} --atoms 90",
            r"O .*\n  ± over runs +0\.0000.*\nno standard deviations from rigidity; to add them: `scschnet "
            r"analysis error-bars .*/run`, `.*/run`\n",
        ),
        ("shapley {run} --frames 8 --force-frames 2", r"forces: MAE .* 2 structures"),
        ("shapley {run} --frames 8 --force-frames 0", r"energy, not refitted: MAE"),
        ("reach {run} --frames 2", r"blocks times cutoff 8.0 Å"),
        (
            "walks {run} --n-frames 2 --bodies 3",
            r"angle +-?\d.*\n(.*\n)*completeness: off by \d\.\de-(0[89]|1\d)",
        ),
        ("walks {run}/best.pt --frames {frames} --n-frames 1 --bodies 2", r"bond +-?\d"),
        ("modes {run} {run}", r"± 0.00 over 2 runs(.*\n)+no standard deviations from rigidity"),
        ("filters {run}", r"H-C +\d\.\d+"),
        ("unfamiliarity {run} --other {frames} --distortions 0.1", r"± 0.1 Å .*\n.*ethanol +\d"),
    ],
)
def test_commands(run, tmp_path, capsys, arguments, printed):
    out = tmp_path / "figure.png"
    filled = arguments.format(run=run, frames=embedded.path())
    assert main([*filled.split(), "-o", str(out)]) == 0
    words = capsys.readouterr().out
    assert re.search(printed, words)
    assert out.stat().st_size > 5000
    with out.with_suffix(".csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert rows and all(len(row) == len(header) for row in rows)


def test_modes_writes_its_files_and_names_what_it_cannot_use(run, tmp_path, capsys):
    out = tmp_path / "modes.png"
    start = tmp_path / "start.xyz"
    ase.io.write(start, ase.build.molecule("CH3CH2OH"))
    assert main(["modes", str(run), "--structure", str(start), "-o", str(out)]) == 0
    assert re.search(r"shares add up to omega\^2 within \de-(0[89]|1\d)", capsys.readouterr().out)
    atoms = ase.io.read(tmp_path / "modes.xyz")
    assert len(atoms) == 9 and "mode_21" in atoms.arrays
    assert len(ase.io.read(tmp_path / "modes-animated.xyz", ":")) == 20 * 21
    assert main(["modes", str(run), "--structure", str(embedded.path())]) == 1
    assert "`--structure` must hold one structure, got 2,000" in capsys.readouterr().err
    assert main(["modes", str(run), "--symmetry-number", "0"]) == 1
    assert "`--symmetry-number` must be positive, got 0" in capsys.readouterr().err
    assert main(["modes"]) == 2
    assert "name at least one run folder" in capsys.readouterr().err
    assert main(["walks", str(run), "--n-frames", "0"]) == 1
    assert "`--n-frames` must be at least 1, got 0" in capsys.readouterr().err


def test_runs_with_error_bars_have_rigidity_in_every_table(run, tmp_path, capsys):
    path, out = shutil.copytree(run, tmp_path / "run"), tmp_path / "figure.png"
    assert main(["error-bars", str(path), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    trained = read_run(path)
    held_out = evenly(trained.held_out, 20_000)
    bars = standard_errors(trained.model, held_out, run_error_statistics(trained)).forces
    largest = [bars[held_out.idx_m == m].max() for m in range(len(held_out))]
    sentence = (
        "largest error bar of a force in a test structure: median {:.3g}, largest {:.3g} eV/Å"
    )
    assert sentence.format(np.median(largest), max(largest)) in said
    assert main(["layers", str(path), "--atoms", "90", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "no standard deviations" not in printed and "over runs" not in printed
    assert re.search(r"O( +-?\d+\.\d{4}){4}\n  ± from rigidity( +\d+\.\d{4}){4}\n", printed)
    with out.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = read_run(path)
    some = evenly(found.held_out, 90)
    expected = layer_energies(found.model, some, energy_root=root_of(found)).deviations
    for name, away in (("energy", expected.sum(axis=0)), ("v2", expected[2])):
        stds = [float(row[f"{name} std from rigidity (eV)"]) for row in rows]
        np.testing.assert_allclose(stds, np.linalg.norm(away, axis=1), rtol=1e-9)
    assert main(["modes", str(path), str(path), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "standard deviation of a share over runs: 0.0 %" in printed
    with out.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        std = float(row["frequency std from rigidity (1/cm)"])
        assert re.search(rf"\b{std:.1f} +0 +{row['motion']}", printed)


def test_the_page_names_every_command():
    named = set(re.findall(r"`([\w-]+) RUN", PAGE))
    assert named == set(COMMANDS)


def test_what_cannot_be_read_is_named(run, tmp_path, capsys):
    assert main(["elements"]) == 2
    assert "name at least one run folder" in capsys.readouterr().err
    config = (run / "config.toml").read_text()
    lost = tmp_path / "lost"
    lost.mkdir()
    (lost / "config.toml").write_text(config.replace("data = []", 'data = "gone.npz"'))
    assert main(["layers", str(lost)]) == 1
    assert "there is no gone.npz" in capsys.readouterr().err
    (lost / "config.toml").write_text("data = ")
    assert main(["layers", str(lost)]) == 1
    assert "is not valid TOML" in capsys.readouterr().err
    assert main(["reach", str(run), "-o", "x.jpg"]) == 1
    assert "`--out` must end in .png, .pdf or .svg" in capsys.readouterr().err


def test_parts_of_a_run(run):
    found = read_run(run)
    assert len(found.part("train")) == 40 and len(found.part("val")) == 10
    with pytest.raises(ValueError, match="`part` must be one of train, val, test, got all"):
        found.part("all")
    assert len(evenly(found.structures, 900)) == 100
    assert len(evenly(found.structures, 900, 7)) == 7
    assert len(evenly(found.structures, 1)) == 1
    with pytest.raises(ValueError, match="at least one structure"):
        evenly(found.structures.select([]), 10)
