"""Times SchNetPack 2.2.0 on the work scschnet is compared on; run in SchNetPack's own environment.

    schnetpack-venv/bin/python benchmarks/peers/schnetpack_step.py DATA --out FILE.json

Each case and setting runs in a fresh process; README.md beside this file says what they are.
"""

import argparse
import ctypes
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

GIB = 1 << 30
# glibc returns large freed blocks to the kernel, and every new tensor then costs page faults.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(16 * GIB),
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(64 * GIB),
    "MALLOC_TOP_PAD_": str(GIB // 4),
    "MALLOC_ARENA_MAX": "1",
}


@dataclass(frozen=True)
class Setting:
    """What is changed around SchNetPack, whose code stays as it is."""

    environment: dict[str, str]
    flush_denormals: bool = False


SETTINGS = {
    "installed": Setting({}),
    "tuned": Setting(KEEP_MEMORY),
    "tuned_flush": Setting(KEEP_MEMORY, flush_denormals=True),
}


@dataclass(frozen=True)
class Case:
    """One kind of work; sizes of the network and where the structures come from."""

    kind: str  # train_forces, train_energy, evaluate, md or load
    data: str  # file of the data folder, without .npz
    n_structures: int
    n_features: int
    n_rbf: int
    n_interactions: int = 6
    cutoff: float = 5.0  # Å
    repeats: int = 1  # of a periodic cell along each axis
    skin: float | None = None  # Å, md only; None: the list is rebuilt every step


CASES = {
    "aspirin": Case("train_forces", "md17_aspirin", 50, 128, 50),
    "ethanol": Case("train_forces", "md17_ethanol", 50, 128, 50),
    "qm9": Case("train_energy", "qm9", 100, 256, 20),
    "water1536": Case("evaluate", "water64_pbc", 1, 128, 50, repeats=2),
    "water12288": Case("evaluate", "water64_pbc", 1, 128, 50, repeats=4),
    "md_ethanol": Case("md", "md17_ethanol", 1, 128, 50),
    "md_ethanol_skin": Case("md", "md17_ethanol", 1, 128, 50, skin=0.3),
    "md_water192": Case("md", "water64_pbc", 1, 128, 50),
    "md_water192_skin": Case("md", "water64_pbc", 1, 128, 50, skin=0.3),
    "load_qm9": Case("load", "qm9", 100, 256, 20),
}
NOT_BY_DEFAULT = {"water12288"}  # 11 GB of memory and half a minute per evaluation


def read_structures(folder: Path, case: Case) -> list:
    """Structures of the case as ASE atoms, drawn with a fixed seed."""
    import numpy as np
    from ase import Atoms

    with np.load(folder / f"{case.data}.npz", allow_pickle=False) as file:
        data = dict(file)
    rng = np.random.default_rng(0)
    if "offset" in data:
        chosen = rng.choice(len(data["n_atoms"]), case.n_structures, replace=False)
        rows = [slice(data["offset"][k], data["offset"][k + 1]) for k in chosen]
        return [Atoms(data["Z"][row], data["R"][row].astype(float)) for row in rows]
    chosen = rng.choice(len(data["R"]), case.n_structures, replace=False)
    structures = [Atoms(data["z"], data["R"][k].astype(float)) for k in chosen]
    if "cell" in data:
        for atoms, k in zip(structures, chosen, strict=True):
            atoms.set_cell(data["cell"][k])
            atoms.set_pbc(data["pbc"])
    return [atoms.repeat((case.repeats,) * 3) for atoms in structures]


def build_model(case: Case):
    """SchNetPack's SchNet with an energy output, and forces where the case needs them."""
    import schnetpack
    import torch

    torch.manual_seed(0)
    outputs = [
        schnetpack.atomistic.Atomwise(
            case.n_features,
            activation=schnetpack.nn.activations.shifted_softplus,
            output_key="energy",
        )
    ]
    if case.kind != "train_energy":
        outputs.append(schnetpack.atomistic.Forces())
    return schnetpack.model.NeuralNetworkPotential(
        representation=schnetpack.representation.SchNet(
            n_atom_basis=case.n_features,
            n_interactions=case.n_interactions,
            radial_basis=schnetpack.nn.GaussianRBF(case.n_rbf, case.cutoff),
            cutoff_fn=schnetpack.nn.CosineCutoff(case.cutoff),
        ),
        input_modules=[schnetpack.atomistic.PairwiseDistances()],
        output_modules=outputs,
    )


def make_batch(structures: list, cutoff: float) -> dict:
    """The float32 inputs of the model with their neighbor list."""
    from schnetpack.interfaces import AtomsConverter
    from schnetpack.transform import VesinNeighborList

    return AtomsConverter(neighbor_list=VesinNeighborList(cutoff))(structures)


def prepare_training(case: Case, structures: list) -> tuple[Callable[[], object], dict]:
    """A training step: forward, loss, backward and Adam, batch and list ready."""
    import torch

    batch, model = make_batch(structures, case.cutoff), build_model(case)
    with_forces = case.kind == "train_forces"
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    energy = torch.randn(len(structures))
    forces = torch.randn_like(batch["_positions"])

    def step() -> float:
        optimizer.zero_grad()
        result = model({**batch, "_positions": batch["_positions"].detach()})
        loss = (result["energy"] - energy).square().mean()
        if with_forces:
            loss = 0.1 * loss + 0.9 * (result["forces"] - forces).square().mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step, sizes(batch, model)


def prepare_evaluation(case: Case, structures: list) -> tuple[Callable[[], object], dict]:
    """Energy and forces, list given, weights frozen."""
    batch, model = make_batch(structures, case.cutoff), build_model(case)
    model.eval().requires_grad_(False)

    def evaluate() -> float:
        result = model({**batch, "_positions": batch["_positions"].detach()})
        return float(result["energy"].detach().sum())

    return evaluate, sizes(batch, model)


def prepare_md(case: Case, structures: list) -> tuple[Callable[[], object], dict]:
    """A velocity-Verlet step with SchNetPack's ASE calculator, list included."""
    import numpy as np
    from ase import units
    from ase.md.verlet import VelocityVerlet
    from schnetpack.interfaces import SpkCalculator
    from schnetpack.transform import SkinNeighborList, VesinNeighborList

    (atoms,), model = structures, build_model(case)
    transform = VesinNeighborList(case.cutoff)
    if case.skin is not None:
        transform = SkinNeighborList(transform, cutoff_skin=case.skin)
    atoms.calc = SpkCalculator(model, transform, energy_unit="eV")
    spread = np.sqrt(300 * units.kB * atoms.get_masses())[:, None]  # 300 K
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    # Random weights give random forces: the step is so short that the geometry stays as it is.
    dynamics = VelocityVerlet(atoms, timestep=0.01 * units.fs)

    def step() -> float:
        dynamics.run(1)
        return atoms.get_potential_energy()

    return step, sizes(make_batch([atoms.copy()], case.cutoff), model)


def prepare_loading(case: Case, structures: list) -> tuple[Callable[[], object], dict]:
    """One batch out of SchNetPack's database, lists included, no workers."""
    import numpy as np
    from schnetpack.data import ASEAtomsData, AtomsLoader
    from schnetpack.transform import CastTo32, VesinNeighborList

    folder = tempfile.TemporaryDirectory()
    dataset = ASEAtomsData.create(
        str(Path(folder.name) / "qm9.db"),
        distance_unit="Ang",
        property_unit_dict={"energy": "eV"},
        transforms=[VesinNeighborList(case.cutoff), CastTo32()],
    )
    labels = [{"energy": np.zeros(1)} for _ in structures]
    dataset.add_systems(property_list=labels, atoms_list=structures)
    loader = AtomsLoader(dataset, batch_size=case.n_structures)

    def load(keep=folder) -> int:  # the folder lives as long as this function
        (batch,) = loader
        return len(batch["_idx_i"])

    return load, sizes(next(iter(loader)), None)


PREPARE = {
    "train_forces": prepare_training,
    "train_energy": prepare_training,
    "evaluate": prepare_evaluation,
    "md": prepare_md,
    "load": prepare_loading,
}


def sizes(batch: dict, model) -> dict[str, int]:
    """Atoms, directed pairs and parameters."""
    parameters = [] if model is None else model.parameters()
    return {
        "n_atoms": len(batch["_atomic_numbers"]),
        "n_pairs": len(batch["_idx_i"]),
        "n_parameters": sum(p.numel() for p in parameters),
    }


def measure(run: Callable[[], object], seconds: float, least: int) -> dict[str, object]:
    """Medians over calls after two warm-up calls; page faults tell whether memory is kept."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        value = run()
    cpu, wall = [], []
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    end = time.perf_counter() + seconds
    while len(cpu) < least or time.perf_counter() < end:
        start_wall, start_cpu = time.perf_counter(), time.process_time()
        value = run()
        cpu.append(time.process_time() - start_cpu)
        wall.append(time.perf_counter() - start_wall)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_ms": 1e3 * statistics.median(cpu),
        "wall_ms": 1e3 * statistics.median(wall),
        "cpu_ms_min": 1e3 * min(cpu),
        "cpu_ms_max": 1e3 * max(cpu),
        "n_calls": len(cpu),
        "page_faults_per_call": (usage.ru_minflt - faults) / len(cpu),
        "memory_added_mib": (usage.ru_maxrss - before) / 1024,
        "last_value": value,
    }


def run_case(arguments: argparse.Namespace) -> None:
    """Measure one case in this process and print its result as JSON."""
    import torch

    torch.set_num_threads(arguments.threads)
    if SETTINGS[arguments.settings[0]].flush_denormals and not torch.set_flush_denormal(True):
        raise RuntimeError("this processor cannot flush denormals")
    case = CASES[arguments.worker]
    run, found = PREPARE[case.kind](case, read_structures(arguments.data, case))
    print(json.dumps({**found, **measure(run, arguments.seconds, arguments.least)}))


def hardware() -> dict[str, object]:
    """What the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in cpuinfo if "model name" in line), "")
    huge_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
        "load_before": os.getloadavg(),
        "huge_pages": huge_pages.read_text().strip() if huge_pages.exists() else "",
    }


def versions() -> dict[str, str]:
    """Programs and libraries."""
    libc = ctypes.CDLL(None).gnu_get_libc_version
    libc.restype = ctypes.c_char_p
    names = ("schnetpack", "torch", "numpy", "ase", "vesin")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), "glibc": libc().decode(), **found}


def run_all(arguments: argparse.Namespace) -> None:
    """Measure the chosen cases and settings, each in its own process, and write the JSON file."""
    report = {"hardware": hardware(), "versions": versions(), "threads": arguments.threads}
    results = report["results"] = []
    for name in arguments.cases:
        for setting in arguments.settings:
            threads = str(arguments.threads)
            command = [sys.executable, __file__, str(arguments.data), "--worker", name]
            command += ["--threads", threads, "--seconds", str(arguments.seconds)]
            command += ["--least", str(arguments.least), "--settings", setting]
            changed = {"OMP_NUM_THREADS": threads, **SETTINGS[setting].environment}
            environment = {**os.environ, **changed}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            row = {"case": name, "setting": setting, **asdict(CASES[name])}
            row |= {"environment": changed, "flush_denormals": SETTINGS[setting].flush_denormals}
            if done.returncode == 0:
                row |= json.loads(done.stdout.splitlines()[-1])
                print(f"{name:17} {setting:11} {row['cpu_ms']:9.2f} ms CPU", file=sys.stderr)
            else:
                row["failed"] = f"exit code {done.returncode}"
                print(f"{name:17} {setting:11} failed: {done.returncode}", file=sys.stderr)
            results.append(row)
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the data sets, see README.md")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    default = [name for name in CASES if name not in NOT_BY_DEFAULT]
    parser.add_argument("--cases", nargs="+", choices=CASES, default=default, metavar="CASE")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="per case and setting")
    parser.add_argument("--least", type=int, default=5, help="calls at least")
    parser.add_argument("--worker", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_case(arguments)
    elif arguments.out is None:
        parser.error("--out is needed")
    else:
        run_all(arguments)


if __name__ == "__main__":
    main()
