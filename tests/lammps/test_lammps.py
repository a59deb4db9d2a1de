"""The LAMMPS pair style against the exported model in Python: one and two ranks, with message passing and without."""

import functools
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model
from lammps_host import (
    NUMBERS,
    TENSOR,
    Result,
    Structure,
    outputs,
    potential,
    read,
    read_dump,
    report,
    run,
)

from scschnet import export
from scschnet.export import ExportedModel, load_exported

pytestmark = pytest.mark.slow  # LAMMPS, and a compiler for its plugin

N_LAYERS = 4
EXACT = 1e-10  # eV and eV/Å: sums of float64 in another order
METAL_PRESSURE = 1.6021765e6  # LAMMPS' own factor from eV/Å^3 to bar
SKEWED = np.array([[4.5, 0.0, 0.0], [1.5, 5.0, 0.0], [-0.7, 1.1, 6.0]])


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="scschnet-lammps-"))


@functools.cache
def model_file(dtype: torch.dtype = torch.float64, n_features: int = 7) -> str:
    """Path of an exported model with random parameters; an odd width leaves half a double in float32."""
    path = folder() / f"{str(dtype).removeprefix('torch.')}_{n_features}.pt"
    model = make_model(dtype=dtype, n_interactions=N_LAYERS - 1, n_features=n_features)
    export(model, path)
    return str(path)


@functools.cache
def soft_model_file() -> str:
    """The same with weak forces, so that atoms may move for a while."""
    path = folder() / "soft.pt"
    model = make_model(n_interactions=N_LAYERS - 1, n_features=7)
    model.offsets.scale.fill_(0.1)
    export(model, path)
    return str(path)


@functools.cache
def model(path: str) -> ExportedModel:
    return load_exported(path)


def water(n: int = 192) -> Structure:
    frames = np.load(Path(__file__).parents[1] / "files" / "water64_2frames.npz")
    cell = frames["cell"][0]
    positions = frames["R"][0].astype(float)
    inside = positions - np.floor(positions @ np.linalg.inv(cell)) @ cell
    return Structure(inside[:n], frames["z"][:n].astype(int), cell)


def random_atoms(cell: np.ndarray, n: int, seed: int, distance: float = 0.9) -> np.ndarray:
    """Positions in a periodic cell that keep a distance from each other and all images."""
    rng = np.random.default_rng(seed)
    shifts = np.array([[a, b, c] for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)])
    kept: list[np.ndarray] = []
    while len(kept) < n:
        r = rng.random(3) @ cell
        images = [k + s for k in kept for s in shifts @ cell]
        if all(np.linalg.norm(r - image) > distance for image in images):
            kept.append(r)
    return np.array(kept)


def structures() -> dict[str, Structure]:
    rng = np.random.default_rng(3)
    slab, wire = np.diag([4.0, 5.0, 30.0]), np.diag([20.0, 5.3, 22.0])
    molecule = np.array([[0, 0, 0], [1.1, 0.1, 0], [-0.4, 1.0, 0.2], [0.1, -0.5, 1.3], [2.0, 1, 1]])
    long = np.diag([40.0, 4.2, 4.4])
    group = random_atoms(np.diag([4.0, 4.2, 4.4]), 5, 5)
    return {
        "water": water(),
        "skewed": Structure(random_atoms(SKEWED, 4, 1), np.array([8, 1, 6, 1]), SKEWED),
        "one atom": Structure(np.array([[0.1, 0.2, 0.3]]), np.array([6]), np.diag([2.6, 3.1, 9.0])),
        "one atom, skewed": Structure(np.array([[1.0, 2.0, 3.0]]), np.array([8]), 0.6 * SKEWED),
        "slab": Structure(
            random_atoms(slab / [1, 1, 5], 8, 2) + np.array([0, 0, 9]),
            rng.choice(NUMBERS, 8),
            slab,
            (True, True, False),
        ),
        "wire": Structure(
            random_atoms(wire / [4, 1, 4], 9, 4) + np.array([8, 0, 9]),
            rng.choice(NUMBERS, 9),
            wire,
            (False, True, False),
        ),
        "molecule in one corner": Structure(
            molecule + 2.0, np.array([6, 1, 1, 8, 1]), np.diag([50.0, 50.0, 50.0]), (False,) * 3
        ),
        "two far groups": Structure(
            np.concatenate([group + np.array([k, 0, 0]) for k in (4, 30)]),
            rng.choice(NUMBERS, 10),
            long,
        ),
    }


def reference(structure: Structure, path: str) -> dict[str, np.ndarray]:
    results = model(path).forward(
        torch.from_numpy(structure.positions),
        torch.from_numpy(structure.numbers),
        torch.from_numpy(structure.cell),
        torch.tensor(structure.pbc),
        layers=True,
        atom_virial=True,
    )
    return {key: value.numpy() for key, value in results.items()}


def check(result: Result, path: str, tolerance: float = EXACT, moving: bool = False) -> None:
    """That LAMMPS says of its structure what Python says; pressure holds kinetic energy if atoms move."""
    expected = reference(result.structure, path)
    n_atoms = len(result.structure.numbers)
    assert abs(result.energy - expected["energy"]) < tolerance * max(n_atoms, 10)
    np.testing.assert_allclose(result.forces, expected["forces"], atol=tolerance, rtol=0)
    np.testing.assert_allclose(result.energies, expected["energies"], atol=tolerance, rtol=0)
    tensor = np.array([expected["virial"][axes] for axes in TENSOR])
    if not moving:
        virial = result.pressure * result.volume / METAL_PRESSURE
        np.testing.assert_allclose(virial, tensor, atol=n_atoms * tolerance, rtol=1e-10)
    of_atoms = -result.stresses / METAL_PRESSURE
    per_atom = np.array([expected["atom_virial"][:, a, b] for a, b in TENSOR]).T
    np.testing.assert_allclose(of_atoms, per_atom, atol=10 * tolerance, rtol=1e-10)
    np.testing.assert_allclose(of_atoms.sum(0), tensor, atol=n_atoms * tolerance, rtol=1e-10)
    if result.layers.size:
        layers = expected["layer_energies"].T
        np.testing.assert_allclose(result.layers, layers, atol=tolerance, rtol=0)


# ---- the same numbers, whatever the number of ranks

STYLES = {"halo": "scschnet", "wide": "scschnet wide"}


@functools.cache
def evaluated(ranks: int) -> Path:
    """All structures in one run of LAMMPS, with both styles and both dtypes."""
    place = Path(tempfile.mkdtemp(dir=folder()))
    script = ""
    for name, structure in structures().items():
        structure.write(place / f"{name}.data".replace(" ", "_"))
        for kind, style in STYLES.items():
            for dtype in (torch.float64, torch.float32):
                case = f"{name} {kind} {dtype}".replace(" ", "_")
                script += f"""clear
units metal
{structure.boundary}
read_data {name.replace(" ", "_")}.data
{potential(model_file(dtype), style)}
neighbor 1.0 bin
{outputs(case, N_LAYERS)}
run 0
{report(case)}
"""
    run(place, script, ranks)
    return place


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", STYLES)
@pytest.mark.parametrize("name", structures())
def test_agreement_with_python(name, kind, ranks):
    case = f"{name} {kind} torch.float64".replace(" ", "_")
    result = read(evaluated(ranks), case, structures()[name].pbc)
    assert len(result.structure.numbers) == len(structures()[name].numbers)
    check(result, model_file())


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", STYLES)
@pytest.mark.parametrize("name", structures())
def test_single_precision(name, kind, ranks):
    case = f"{name} {kind} torch.float32".replace(" ", "_")
    result = read(evaluated(ranks), case, structures()[name].pbc)
    scale = max(1.0, float(np.abs(result.forces).max()))
    check(result, model_file(torch.float32), tolerance=1e-5 * scale)


def test_four_ranks():
    """More ranks than atoms: up to three of four have none. And domains that do not form a grid."""
    script, cases = "", []
    place = Path(tempfile.mkdtemp(dir=folder()))
    for name, grid in (
        ("skewed", "4 1 1"),
        ("two far groups", "4 1 1"),
        ("two far groups", "1 2 2"),
        ("water", "tiled"),
    ):
        structure, tiled = structures()[name], grid == "tiled"
        case, data = (text.replace(" ", "_") for text in (f"{name} {grid}", f"{name}.data"))
        structure.write(place / data)
        cases.append((case, structure.pbc))
        script += f"""clear
units metal
{"comm_style tiled" if tiled else f"processors {grid}"}
{structure.boundary}
read_data {data}
{potential(model_file())}
{"balance 1.0 rcb" if tiled else ""}
{outputs(case, N_LAYERS)}
run 0
{report(case)}
"""
    run(place, script, ranks=4)
    for case, pbc in cases:
        check(read(place, case, pbc), model_file())


# ---- dynamics: neighbor lists grow old, atoms change ranks and boxes change


@functools.cache
def dynamics(ranks: int) -> Path:
    place = Path(tempfile.mkdtemp(dir=folder()))
    water().write(place / "water.data")
    start = f"""clear
units metal
read_data water.data
{potential(soft_model_file())}
neighbor 0.5 bin
timestep 0.0005
"""
    script = f"""{start}
velocity all create 100 4928 loop geom
velocity all set 40 27 -33 sum yes
fix move all nve
thermo 50
thermo_style custom step pe etotal
run 300
{outputs("drifting")}
run 0
{report("drifting")}
{start}
change_box all triclinic
velocity all create 300 4928 loop geom
fix move all npt temp 300 300 0.05 tri 0 0 0.5
run 60
{outputs("npt")}
run 0
{report("npt")}
{start}
minimize 0 1e-3 20 100
{outputs("minimized")}
run 0
{report("minimized")}
{start}
replicate 2 1 1
{outputs("replicated")}
run 0
{report("replicated")}
{start}
velocity all create 100 4928 loop geom
fix move all nve
dump path all custom 10 path.dump id type x y z
dump_modify path sort id format float %.17g
run 20
write_restart half.restart
run 20
undump path
{outputs("whole")}
run 0
{report("whole")}
clear
read_restart half.restart
{potential(soft_model_file()).splitlines()[1]}
neighbor 0.5 bin
timestep 0.0005
fix move all nve
run 20
{outputs("resumed")}
run 0
{report("resumed")}
{start}
{outputs("rerun", every=10)}
rerun path.dump dump x y z box yes
{report("rerun")}
"""
    (place / "out.txt").write_text(run(place, script, ranks))
    return place


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    "name", ["drifting", "npt", "minimized", "replicated", "whole", "resumed", "rerun"]
)
def test_structures_after_dynamics_agree_with_python(name, ranks):
    moving = name in ("drifting", "npt", "whole", "resumed")
    check(read(dynamics(ranks), name), soft_model_file(), tolerance=1e-9, moving=moving)


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_cross_domains_and_energy_is_conserved(ranks):
    thermo = thermo_rows((dynamics(ranks) / "out.txt").read_text())[0]
    assert abs(thermo["TotEng"][-1] - thermo["TotEng"][0]) < 2e-5 * 192
    travelled = 300 * 0.0005 * 40
    assert (
        travelled > 12.44 / 2 - 0.5
    )  # Å, half of the box along x: every atom has changed its domain


def thermo_rows(text: str) -> list[dict[str, list[float]]]:
    """The tables that `run` prints, by column."""
    tables, lines = [], text.splitlines()
    for k, line in enumerate(lines):
        if line.split()[:1] == ["Step"]:
            names, rows = line.split(), []
            for row in lines[k + 1 :]:
                if len(row.split()) != len(names) or row.startswith("Loop"):
                    break
                rows.append([float(word) for word in row.split()])
            tables.append({n: [r[c] for r in rows] for c, n in enumerate(names)})
    return tables


def test_same_trajectory_on_one_and_two_ranks():
    one, two = (read(dynamics(ranks), "drifting") for ranks in (1, 2))
    assert abs(one.total_energy - two.total_energy) < 1e-8
    np.testing.assert_allclose(one.forces, two.forces, atol=1e-7)


@pytest.mark.parametrize("ranks", [1, 2])
def test_minimizer_finds_lower_energy(ranks):
    assert (
        read(dynamics(ranks), "minimized").energy
        < reference(water(), soft_model_file())["energy"] - 0.1
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_barostat_changes_all_six_lengths_of_the_box(ranks):
    before, after = water().cell, read(dynamics(ranks), "npt").structure.cell
    below = np.tril_indices(3)
    assert np.all(np.abs(before - after)[below] > 1e-4)


@pytest.mark.parametrize("ranks", [1, 2])
def test_replicated_cell_has_twice_the_energy(ranks):
    energy = read(dynamics(ranks), "replicated").energy
    assert energy == pytest.approx(2 * reference(water(), soft_model_file())["energy"], abs=1e-8)


@pytest.mark.parametrize("ranks", [1, 2])
def test_restart_goes_on_as_if_never_stopped(ranks):
    whole, resumed = (read(dynamics(ranks), name) for name in ("whole", "resumed"))
    assert whole.total_energy == pytest.approx(resumed.total_energy, abs=1e-9)
    np.testing.assert_allclose(resumed.forces, whole.forces, atol=1e-9)


@pytest.mark.parametrize("ranks", [1, 2])
def test_rerun_gives_energies_of_the_run(ranks):
    whole, rerun = (read(dynamics(ranks), name) for name in ("whole", "rerun"))
    assert rerun.energy == pytest.approx(whole.energy, abs=1e-9)
    assert len(read_dump(dynamics(ranks) / "path.dump")) == 5


# ---- with other styles, in other units

ZBL = {"H": 1, "C": 6, "O": 8}


@functools.cache
def mixed(ranks: int) -> Path:
    place = Path(tempfile.mkdtemp(dir=folder()))
    structure = water()
    numbers = structure.numbers.copy()
    numbers[:30:3] = 6
    Structure(structure.positions, numbers, structure.cell).write(place / "mixed.data")
    zbl = "".join(
        f"pair_coeff {a + 1} {b + 1} zbl {NUMBERS[a]} {NUMBERS[b]}\n"
        for a in range(3)
        for b in range(a, 3)
    )
    lj = "pair_coeff 2 * lj/cut 0.01 1.0\npair_coeff 1 2 lj/cut 0.01 1.0\n"
    model = f"pair_coeff * * scschnet {model_file()} "
    styles = {
        "overlay": f"pair_style hybrid/overlay zbl 1.5 2.5 scschnet lj/cut 4.0\n{model}H C O\n{zbl}"
        "pair_coeff * * lj/cut 0.01 2.0\n",
        "model": potential(model_file()),
        "zbl": "pair_style zbl 1.5 2.5\n" + zbl.replace(" zbl", ""),
        "lj": "pair_style lj/cut 4.0\npair_coeff * * 0.01 2.0\n",
        "some": f"pair_style hybrid scschnet lj/cut 4.0\n{model}H NULL O\n{lj}",
        "rest": "pair_style hybrid zero 4.0 lj/cut 4.0\npair_coeff * * zero\n" + lj,
    }
    script = "".join(
        f"""clear
units metal
read_data mixed.data
{style}
{outputs(name, N_LAYERS if "scschnet" in style else 0)}
run 0
{report(name)}
"""
        for name, style in styles.items()
    )
    run(place, script, ranks)
    return place


@pytest.mark.parametrize("ranks", [1, 2])
def test_overlay_adds_styles(ranks):
    place = mixed(ranks)
    together, parts = read(place, "overlay"), [read(place, name) for name in ("model", "zbl", "lj")]
    assert together.energy == pytest.approx(sum(p.energy for p in parts), abs=1e-8)
    for key in ("forces", "energies", "pressure", "stresses"):
        summed = sum(getattr(p, key) for p in parts)
        np.testing.assert_allclose(getattr(together, key), summed, rtol=1e-10, atol=1e-7)
    np.testing.assert_array_equal(together.layers, parts[0].layers)


@pytest.mark.parametrize("ranks", [1, 2])
def test_null_leaves_types_to_another_style(ranks):
    place = mixed(ranks)
    some, rest = read(place, "some"), read(place, "rest")
    modeled = some.structure.numbers != 6
    part = Structure(
        some.structure.positions[modeled], some.structure.numbers[modeled], some.structure.cell
    )
    expected = reference(part, model_file())
    assert some.energy - rest.energy == pytest.approx(expected["energy"], abs=1e-8)
    forces = some.forces - rest.forces
    np.testing.assert_allclose(forces[modeled], expected["forces"], atol=EXACT)
    np.testing.assert_allclose(forces[~modeled], 0.0, atol=EXACT)
    np.testing.assert_allclose(some.layers[modeled], expected["layer_energies"].T, atol=EXACT)
    np.testing.assert_array_equal(some.layers[~modeled], 0.0)


# 1 eV and 1 Å in each style, from its definition (docs.lammps.org/units.html); eV in J: 1.602176634e-19
JOULE = 1.602176634e-19
UNITS = {
    "real": (JOULE * 6.02214076e23 / 4184, 1.0),
    "electron": (1 / 27.211386245988, 1 / 0.529177210903),
    "si": (JOULE, 1e-10),
    "cgs": (JOULE / 1e-7, 1e-8),
    "micro": (JOULE / (1e-15 * 1e-12 / 1e-12), 1e-4),
    "nano": (JOULE / (1e-21 * 1e-18 / 1e-18), 1e-1),
}
PRESSURE = {  # of one energy over one length cubed, in the style's unit of pressure
    "real": 68568.415,
    "electron": 2.94210108e13,
    "si": 1.0,
    "cgs": 1.0,
    "micro": 1.0,
    "nano": 1.0,
}


DALTON = {
    "si": 1.66053906660e-27,
    "cgs": 1.66053906660e-24,
    "micro": 1.66053906660e-12,
    "nano": 1.66053906660e-6,
}


@functools.cache
def in_units() -> Path:
    place = Path(tempfile.mkdtemp(dir=folder()))
    script = ""
    for style, (_, angstrom) in UNITS.items():
        structures()["skewed"].write(place / f"{style}.data", angstrom, DALTON.get(style, 1.0))
        script += f"""clear
units {style}
read_data {style}.data
{potential(model_file())}
neighbor {0.5 * angstrom} bin
{outputs(style, N_LAYERS)}
run 0
{report(style)}
"""
    run(place, script)
    return place


@pytest.mark.parametrize("style", UNITS)
def test_units(style):
    energy, length = UNITS[style]
    result, expected = read(in_units(), style), reference(structures()["skewed"], model_file())
    assert result.energy == pytest.approx(energy * expected["energy"], rel=1e-12)
    forces = energy / length * expected["forces"]
    np.testing.assert_allclose(result.forces, forces, atol=1e-9 * np.abs(forces).max())
    np.testing.assert_allclose(result.layers, energy * expected["layer_energies"].T, rtol=1e-7)
    tensor = np.array([expected["virial"][axes] for axes in TENSOR]) * energy
    pressure = tensor / result.volume * PRESSURE[style]
    np.testing.assert_allclose(
        result.pressure, pressure, rtol=1e-7, atol=1e-7 * np.abs(pressure).max()
    )


def test_pressure_is_the_derivative_of_the_energy_in_the_volume():
    place, structure = Path(tempfile.mkdtemp(dir=folder())), structures()["skewed"]
    structure.write(place / "cell.data")
    scales = {"smaller": 1 - 1e-5, "same": 1.0, "larger": 1 + 1e-5}
    script = "".join(
        f"""clear
units metal
read_data cell.data
change_box all x scale {s} y scale {s} z scale {s} xy final {1.5 * s} xz final {-0.7 * s} yz final {1.1 * s} remap
{potential(model_file())}
{outputs(name)}
run 0
{report(name)}
"""
        for name, s in scales.items()
    )
    run(place, script)
    smaller, same, larger = (read(place, name) for name in scales)
    derivative = (larger.energy - smaller.energy) / (larger.volume - smaller.volume)
    assert same.pressure[:3].mean() / METAL_PRESSURE == pytest.approx(-derivative, rel=1e-6)


# ---- what else users do with it


def test_layers_sum_up_to_the_energy_and_obey_groups_and_fixes():
    place = Path(tempfile.mkdtemp(dir=folder()))
    water().write(place / "water.data")
    script = f"""units metal
read_data water.data
{potential(model_file())}
group oxygen type 3
compute lay oxygen scschnet/layer
fix mean all ave/atom 1 2 2 c_lay[*]
fix move all nve
dump all all custom 2 layers.dump id type c_lay[*] f_mean[*]
dump_modify all sort id format float %.17g
run 2
"""
    run(place, script)
    first, last = read_dump(place / "layers.dump")
    oxygen = first[:, 1] == 3
    assert np.all(first[~oxygen, 2:] == 0) and np.all(last[~oxygen, 2:] == 0)
    expected = reference(water(), model_file())
    np.testing.assert_allclose(
        first[oxygen, 2 : 2 + N_LAYERS], expected["layer_energies"].T[oxygen], atol=1e-9
    )
    assert np.all(last[oxygen, 2 + N_LAYERS :] != 0)


def test_any_atom_style_and_no_atoms_at_all():
    place = Path(tempfile.mkdtemp(dir=folder()))
    out = run(
        place,
        f"""units metal
atom_style full
region box block 0 9 0 9 0 9
create_box 3 box
mass 1 1.008
mass 2 12.011
mass 3 15.999
{potential(model_file())}
run 0
create_atoms 3 single 4 4 4
create_atoms 1 single 5 4 4
run 0
""",
        ranks=2,
    )
    energies = [table["E_pair"][0] for table in thermo_rows(out)]
    pair = Structure(np.array([[4.0, 4, 4], [5, 4, 4]]), np.array([8, 1]), np.diag([9.0] * 3))
    assert energies[0] == 0.0
    assert energies[1] == pytest.approx(float(reference(pair, model_file())["energy"]), rel=1e-6)


def test_lines_of_the_documentation(tmp_path, monkeypatch):
    root = Path(__file__).parents[2]
    page = (root / "docs" / "dynamics.md").read_text()
    (script,) = re.findall(r"```lammps\n(.*?)```", page, re.S)
    (short,) = re.findall(r"```lammps\n(.*?)```", (root / "README.md").read_text(), re.S)
    words = [re.split(r"\s+#|;", line)[0].split() for line in script.splitlines()]
    for line in short.splitlines():  # README has some of the lines
        assert re.split(r"\s+#", line)[0].split() in words, line
    (start,) = re.findall(r"```python\n([^`]*ethanol\.data[^`]*)```", page)
    monkeypatch.chdir(tmp_path)
    exec(start, {})
    shutil.copy(soft_model_file(), tmp_path / "ethanol.pt")
    run(tmp_path, script, ranks=2)
    header = (tmp_path / "ethanol.dump").read_text().splitlines()[8]
    assert header.split()[-N_LAYERS:] == [f"c_lay[{k + 1}]" for k in range(N_LAYERS)]
