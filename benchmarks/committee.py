"""How good the error bars of a committee are, and what a committee costs.

    python -m scschnet.train --data md17_ethanol.npz --committee 4 --n-test 1000 --out committee
    python benchmarks/committee.py committee

The first table compares error bars with errors on the test part of the committee, structures that no member has seen:
Spearman's correlation over atoms (error bar and length of the error of the force) and over structures (root mean
squares), and how many of the errors are smaller than the error bar, or twice that, against a normal distribution of
the same width. The second one is the CPU time of one thread for energy and forces of one frame, of a committee and of
its first member in turns.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scschnet.committee import load, member_folders, read_factors
from scschnet.data import StructureSet, collate
from scschnet.export import ExportedModel, export, load_exported
from scschnet.nn.unfamiliarity import KEY, NormStatistics, unfamiliarity
from scschnet.runs.run import read_run

# Of the length of a vector with three normal components, and of one normal number, within one and two widths.
EXPECTED = {"forces": (0.608, 0.993), "energy": (0.683, 0.954)}


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.argsort(np.argsort(values)).astype(float)


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def of_structures(values: NDArray[np.float64], test: StructureSet) -> NDArray[np.float64]:
    """Root mean square over the atoms of each structure."""
    sums = np.bincount(test.idx_m, np.square(values), len(test))
    return np.sqrt(sums / test.n_atoms)


def quality(folder: Path) -> None:
    run = read_run(member_folders(folder)[0])
    test = run.part("test")
    committee = load(folder)
    with torch.no_grad():
        parts = [
            committee(
                **collate(test, chosen, run.model.config.cutoff).inputs, correction_norms=True
            )
            for chosen in np.array_split(np.arange(len(test)), max(1, len(test) // 50))
        ]
    found = {
        name: torch.cat([part[name] for part in parts]).numpy()
        for name in ("energy", "forces", "energy_std", "forces_std")
    }
    error = np.linalg.norm(found["forces"] - test.forces, axis=1)
    print(f"factors {read_factors(folder)}")
    print(f"force error of the mean: {np.sqrt(np.mean(error**2) / 3):.4f} eV/Å per component")
    statistics = NormStatistics.from_json(run.metadata[KEY])
    norms = torch.cat([part["correction_norms"][0] for part in parts], dim=1)
    numbers = torch.from_numpy(test.atomic_numbers)
    scores = unfamiliarity(norms, numbers, *statistics.tables()).numpy()
    print("Spearman with the force error          per atom  per structure")
    for name, bars in (("committee", found["forces_std"]), ("unfamiliarity", scores)):
        of_atoms = spearman(bars, error)
        whole = spearman(of_structures(bars, test), of_structures(error, test))
        print(f"{name:38} {of_atoms:8.2f} {whole:14.2f}")
    energy_error = np.abs(found["energy"] - test.energy)
    print(f"{'committee, energy':38} {'':8} {spearman(found['energy_std'], energy_error):14.2f}")
    print("errors within one and two error bars: found (expected)")
    for name, errors in (("forces", error), ("energy", energy_error)):
        bars = found[f"{name}_std"]
        of_normal = EXPECTED[name]
        shares = [np.mean(errors < width * bars) for width in (1, 2)]
        text = (f"{s:.3f} ({e:.3f})" for s, e in zip(shares, of_normal, strict=True))
        print(f"  {name:8} {', '.join(text)}")


def seconds(model: ExportedModel, frame: tuple[torch.Tensor, ...], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        model.forward(*frame)
    return (time.process_time() - start) / repeats


def cost(folder: Path, rounds: int = 15) -> None:
    torch.set_num_threads(1)
    run = read_run(member_folders(folder)[0])
    one = run.part("test").select([0])
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / name for name in ("committee.pt", "member.pt")]
        export(folder, files[0])
        export(member_folders(folder)[0], files[1])
        committee, member = (load_exported(file) for file in files)
    for copies in (1, 30):
        shift = np.repeat(np.arange(copies), len(one.positions))[:, None] * np.array([6.0, 0, 0])
        frame = (
            torch.from_numpy(np.tile(one.positions, (copies, 1)) + shift),
            torch.from_numpy(np.tile(one.atomic_numbers, copies)),
            torch.zeros(3, 3, dtype=torch.float64),
            torch.zeros(3, dtype=torch.bool),
        )
        repeats = max(1, 200 // copies)
        times = np.array(
            [
                [seconds(model, frame, repeats) for model in (committee, member)]
                for _ in range(rounds)
            ]
        )
        both = 1e3 * np.median(times, axis=0)
        ratio = np.median(times[:, 0] / times[:, 1])
        print(
            f"{len(frame[1])} atoms: committee {both[0]:.3f} ms, one member {both[1]:.3f} ms, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("committee", type=Path, help="folder of a trained committee")
    folder = parser.parse_args().committee
    quality(folder)
    cost(folder)
