"""A file for metatomic: energy, forces and stress are those of the exported model. Skipped without metatomic-torch."""

import ase
import numpy as np
import pytest
from ase.build import molecule
from conftest import make_model

from scschnet import ScSchNetCalculator, export

metatomic_ase = pytest.importorskip("metatomic_ase", reason="needs metatomic-torch")

pytestmark = pytest.mark.filterwarnings("default")  # of metatomic


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from scschnet.hosts.metatomic import save_metatomic

    folder = tmp_path_factory.mktemp("metatomic")
    model = make_model(elements=(1, 6, 8), filters="spline", n_features=16).eval()
    export(model, folder / "model.pt")
    save_metatomic(folder / "model.pt", folder / "metatomic.pt")
    return folder / "model.pt", folder / "metatomic.pt"


def crystal() -> ase.Atoms:
    positions = np.random.default_rng(1).random((8, 3)) * 5.0
    cell = [[5.5, 0, 0], [0.6, 6.0, 0], [0.2, -0.3, 5.8]]
    return ase.Atoms("OHHCOHHC", positions, cell=cell, pbc=True)


@pytest.mark.parametrize("atoms", [molecule("CH3CH2OH"), crystal()], ids=["molecule", "crystal"])
def test_energy_forces_and_stress(files, atoms):
    exported, saved = files
    found, expected = atoms.copy(), atoms.copy()
    found.calc = metatomic_ase.MetatomicCalculator(saved)
    expected.calc = ScSchNetCalculator(exported)
    assert found.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(found.get_forces(), expected.get_forces(), atol=1e-9)
    if atoms.pbc.all():
        assert abs(expected.get_stress()).max() > 1e-4
        np.testing.assert_allclose(found.get_stress(), expected.get_stress(), atol=1e-9)
