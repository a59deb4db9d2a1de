"""Active learning of ethanol: is it better to label the frames that a model is unsure of than random ones?

    python active_learning.py md17_ethanol.npz work      # some minutes on an idle core; goes on where it was stopped
    python active_learning.py md17_ethanol.npz work --plot figure.png

A large model, trained on 950 frames of DFT, is the teacher: it labels every structure in no time, and it is the truth
here. A small model begins with 50 labeled frames. In each round it runs dynamics at 1000 K, 25 frames of these are
labeled, and the model is trained further on everything labeled so far. Selected frames are those of
`scschnet.select`; random frames come from the dynamics of a model that has only seen random ones.
"""

import argparse
import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

import scschnet
from scschnet.checkpoint import load
from scschnet.data import StructureSet, read
from scschnet.evaluate import errors, predict
from scschnet.evaluate.error_statistics import run_error_statistics, store_error_statistics
from scschnet.evaluate.norm_statistics import run_statistics, store_statistics
from scschnet.runs.config import TrainConfig
from scschnet.runs.run import read_run
from scschnet.train.loop import train

N_START, N_VAL, N_NEW, N_ROUNDS, N_TEST = 50, 10, 25, 3, 100
TEMPERATURE, N_WALKERS, N_STEPS, EVERY = 1000.0, 4, 300, 3
TEACHER = TrainConfig(repulsion="data", n_test=500, threads=1)
STUDENT = TrainConfig(
    n_features=32, n_interactions=3, repulsion="data", epochs=200, batch_size=5, threads=1
)
FURTHER = {"epochs": 60, "lr": 1e-3}
EXPLODED = 200.0  # eV/Å: no force of a molecule


def as_atoms(structures: StructureSet) -> list[Atoms]:
    """Structures without their labels."""
    ptr = structures.atom_ptr
    return [
        Atoms(structures.atomic_numbers[a:b], structures.positions[a:b]) for a, b in pairwise(ptr)
    ]


def label(frames: list[Atoms], teacher: scschnet.ScSchNetCalculator, file: Path) -> None:
    """Write frames with the energies and forces of the teacher."""
    for atoms in frames:
        atoms.calc = teacher
        found = {"forces": atoms.get_forces(), "energy": atoms.get_potential_energy()}
        atoms.calc = SinglePointCalculator(atoms, **found)
    ase.io.write(file, frames)


def dynamics(
    model: Path | scschnet.ScSchNetCalculator, starts: list[Atoms], seed: int
) -> list[Atoms]:
    """Frames of Langevin dynamics from several starts; a walker whose forces explode is stopped."""
    calculator = scschnet.ScSchNetCalculator(model) if isinstance(model, Path) else model
    rng, frames = np.random.default_rng(seed), []
    for start in starts:
        atoms = start.copy()
        atoms.calc = calculator
        thermalize_momenta(atoms, TEMPERATURE, rng=rng)
        run = Langevin(
            atoms,
            timestep=0.5 * units.fs,
            temperature_K=TEMPERATURE,
            friction=0.01 / units.fs,
            fixcm=False,
            rng=rng,
        )
        for _ in range(N_STEPS // EVERY):
            run.run(EVERY)
            if not np.abs(atoms.get_forces()).max() < EXPLODED:
                break
            frames.append(Atoms(atoms.numbers, atoms.positions))
    return frames


def choose(how: str, model: Path, frames: list[Atoms], seed: int) -> list[Atoms]:
    """New frames to label: those of `scschnet.select`, or random ones that are no nonsense either."""
    if how == "selected":
        return scschnet.select(model, frames, N_NEW).frames
    order = np.random.default_rng(seed).permutation(len(frames))
    usable = scschnet.select(model, [frames[k] for k in order], len(frames)).frames
    return sorted(usable, key=lambda atoms: atoms.info["source_frame"])[:N_NEW]


def trained(out: Path, data: list[Path], config: TrainConfig) -> Path:
    """Train on all frames of `data` but the last ones of the first file, which validate; a finished run is kept."""
    if (out / "test.json").exists():
        return out
    n = N_START + N_NEW * (len(data) - 1)
    val = np.arange(N_START - N_VAL, N_START)
    split = out.with_suffix(".npz")
    np.savez(split, train=np.setdiff1d(np.arange(n), val), val=val, test=np.zeros(0, int))
    files = tuple(map(str, data))
    train(replace(config, data=files, split_file=str(split), out=str(out)))
    store_statistics(out, run_statistics(read_run(out)))
    store_error_statistics(out, run_error_statistics(read_run(out)))
    return out


def force_errors(run: Path, sets: dict[str, StructureSet]) -> dict[str, float]:
    """RMSE of the forces on every set, meV/Å."""
    model = load(run)
    return {
        name: 1000 * errors(predict(model, part), part)["forces"].rmse
        for name, part in sets.items()
    }


def study(work: Path, everything: StructureSet, seeds: int) -> None:
    """Everything, with a row in results.csv for every trained student."""
    teacher = scschnet.ScSchNetCalculator(work / "teacher")
    order = np.random.default_rng(0).permutation(len(everything))
    held_out, pool = as_atoms(everything.select(order[:N_TEST])), order[N_TEST:]
    for name, frames in (
        ("hot", lambda: dynamics(teacher, held_out[:N_WALKERS], 100)[::4]),
        ("md17", lambda: held_out),
    ):
        if not (work / f"{name}.extxyz").exists():
            label(frames(), teacher, work / f"{name}.extxyz")
    sets = {name: read(work / f"{name}.extxyz") for name in ("hot", "md17")}
    rows = []

    def note(seed: int, how: str, data: list[Path], model: Path) -> None:
        labeled = N_START + N_NEW * (len(data) - 1)
        rows.append({"seed": seed, "how": how, "labeled": labeled, **force_errors(model, sets)})
        with (work / "results.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    for seed in range(seeds):
        folder, student = work / f"seed-{seed}", replace(STUDENT, seed=seed)
        folder.mkdir(exist_ok=True)
        first = folder / "start.extxyz"
        if not first.exists():
            chosen = np.random.default_rng(seed + 1).choice(pool, N_START, replace=False)
            label(as_atoms(everything.select(chosen)), teacher, first)
        start = trained(folder / "round-0", [first], student)
        starts = ase.io.read(first, index=f":{N_WALKERS}")
        for how in ("selected", "random"):
            model, data = start, [first]
            note(seed, how, data, model)
            for number in range(1, N_ROUNDS + 1):
                new = folder / f"{how}-{number}.extxyz"
                if not new.exists():
                    frames = dynamics(model, starts, 10 * seed + number)
                    label(choose(how, model, frames, seed), teacher, new)
                data = [*data, new]
                further = replace(student, init_from=str(model), **FURTHER)
                model = trained(folder / f"{how}-{number}", data, further)
                note(seed, how, data, model)


def plot(table: Path, figure: Path) -> None:
    """Force error against labeled frames: a thin line for each seed, and their mean."""
    import matplotlib.pyplot as plt

    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    titles = {"hot": "dynamics at 1000 K", "md17": "MD17, 500 K"}
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for how, color in (("selected", "tab:blue"), ("random", "tab:orange")):
            lines = {}
            for row in rows:
                if row["how"] == how:
                    lines.setdefault(row["seed"], []).append(
                        (int(row["labeled"]), float(row[name]))
                    )
            values = np.array(list(lines.values()))
            axis.plot(values[:, :, 0].T, values[:, :, 1].T, color=color, lw=0.7, alpha=0.6)
            axis.plot(*values.mean(axis=0).T, "o-", color=color, label=how)
        axis.set(
            title=title, xlabel="labeled frames", ylabel="RMSE of forces (meV/Å)", ylim=(0, None)
        )
    axes[0].legend()
    fig.savefig(figure, dpi=150)


def main() -> None:
    """Train the teacher, run the study, and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="md17_ethanol.npz")
    parser.add_argument("work", type=Path, help="folder for everything that is computed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", type=Path, default=Path("figure.png"))
    options = parser.parse_args()
    options.work.mkdir(exist_ok=True)
    if not (options.work / "teacher" / "test.json").exists():
        train(replace(TEACHER, data=(str(options.data),), out=str(options.work / "teacher")))
    study(options.work, read(options.data), options.seeds)
    plot(options.work / "results.csv", options.plot)


if __name__ == "__main__":
    main()
