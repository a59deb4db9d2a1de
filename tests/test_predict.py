"""`python -m scschnet.predict`: frames with the model's results, whatever they hold, and clear words otherwise."""

import re

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from conftest import make_model

from scschnet import ScSchNetCalculator
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.commands.predict import main


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    save_checkpoint(path, Checkpoint(make_model(filters="spline"), {}))
    return path


def frames() -> list[Atoms]:
    """A molecule with labels, one without, and a crystal with information of its own."""
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    labeled = water.copy()
    labeled.calc = SinglePointCalculator(labeled, energy=-1.5, forces=np.ones((3, 3)))
    crystal = Atoms("CO", [[0, 0, 0], [1.5, 1.5, 1.4]], cell=[3.0, 3.1, 3.2], pbc=True)
    crystal.info["source"] = "a drawer"
    crystal.arrays["site"] = np.array([3, 4])
    return [labeled, water, crystal]


def test_results_stand_beside_what_a_frame_holds(checkpoint, tmp_path, capsys):
    ase.io.write(tmp_path / "in.extxyz", frames())
    out = tmp_path / "out.extxyz"
    assert main([str(checkpoint), str(tmp_path / "in.extxyz"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 3 frames\n"
    labeled, water, crystal = ase.io.read(out, index=":")
    calculator = ScSchNetCalculator(checkpoint)
    for got, atoms in zip((labeled, water, crystal), frames(), strict=True):
        atoms.calc = calculator
        assert got.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(got.get_forces(), atoms.get_forces(), atol=1e-7)
    np.testing.assert_allclose(crystal.get_stress(), atoms.get_stress(), atol=1e-9)
    assert "stress" not in water.calc.results
    assert labeled.info["REF_energy"] == -1.5 and (labeled.arrays["REF_forces"] == 1).all()
    assert "REF_energy" not in water.info
    assert crystal.info["source"] == "a drawer" and crystal.arrays["site"].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("frame", "out", "message"),
    [
        (Atoms("CuH", [[0, 0, 0], [0, 0, 1.5]]), "out.extxyz", "frame 0 of .*Cu"),
        (Atoms("H2", np.zeros((2, 3))), "out.extxyz", "frame 0 of .*different points"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.8]]), "out.npz", "`--out` must end in .extxyz or .xyz"),
    ],
)
def test_what_cannot_be_predicted_is_named(checkpoint, tmp_path, capsys, frame, out, message):
    ase.io.write(tmp_path / "in.extxyz", [frame])
    assert main([str(checkpoint), str(tmp_path / "in.extxyz"), "-o", str(tmp_path / out)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / out).exists() and not list(tmp_path.glob("*.tmp*"))
    main([str(checkpoint), str(tmp_path / "in.extxyz"), "-o", str(tmp_path / out)])
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("device", ["cuda:7", "quantum", "meta"])
def test_a_device_that_is_not_there_is_named(checkpoint, tmp_path, capsys, monkeypatch, device):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ase.io.write(tmp_path / "in.extxyz", frames())
    out = ["-o", str(tmp_path / "out.xyz"), "--device", device]
    assert main([str(checkpoint), str(tmp_path / "in.extxyz"), *out]) == 1
    assert re.match(
        rf"error: `--device` must be cpu.*, got '?{device}'?\n", capsys.readouterr().err
    )


def test_files_of_another_kind_are_named(checkpoint, tmp_path, capsys):
    assert main([str(checkpoint), str(checkpoint), "-o", str(tmp_path / "out.xyz")]) == 1
    assert "a checkpoint" in capsys.readouterr().err
    assert main([str(checkpoint), str(tmp_path / "none.xyz"), "-o", str(tmp_path / "o.xyz")]) == 1
    assert "none.xyz" in capsys.readouterr().err
