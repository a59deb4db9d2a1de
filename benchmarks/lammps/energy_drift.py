"""Energy conservation of water in LAMMPS (NVE), 192 and 1,536 atoms, float32 and float64 networks.

    python -m benchmarks.lammps.energy_drift RUN_FOLDER --out benchmarks/results/lammps_nve.json

RUN_FOLDER: a training on the periodic water set with `--repulsion data`. Each case starts from a frame of the set, is brought to `--kelvin` with a thermostat, forgets it, and is run at 0.5 fs. Reported: the slope of a line through the total energy per atom, its
standard error from means of blocks and their correlation (`drift_error`: what a trajectory of this length can tell), and the rms
distance from the line. The picture of the same name shows the energies. Rows of earlier runs in the file stay.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import matplotlib
import numpy as np
import torch

from benchmarks.lammps.programs import water, write_data
from scschnet import export

matplotlib.use("Agg")
import matplotlib.pyplot as plt

N_BLOCKS = 20
SCRIPT = """
units metal
read_data water.data
replicate {repeats} {repeats} {repeats}
pair_style scschnet
pair_coeff * * {model} H O
neighbor 1.0 bin
timestep {timestep}
velocity all create {kelvin} 4928 loop geom
fix heat all nvt temp {kelvin} {kelvin} 0.05
run {warm_up}
unfix heat
fix move all nve
variable time equal step*dt
variable energy equal etotal
variable kelvin equal temp
thermo 1000
fix out all print 10 "${{time}} $(v_energy:%.9f) ${{kelvin}}" file energy.txt screen no title ""
run {steps}
"""


def simulate(model: Path, repeats: int, steps: int, options: argparse.Namespace) -> np.ndarray:
    """Time (ps), total energy (eV) and temperature (K) every ten steps."""
    place = Path(tempfile.mkdtemp(dir=model.parent))
    write_data(place / "water.data", water())
    values = {
        "timestep": options.timestep * 1e-3,
        "kelvin": options.kelvin,
        "warm_up": options.warm_up,
    }
    (place / "in.lmp").write_text(
        SCRIPT.format(repeats=repeats, model=model, steps=steps, **values)
    )
    command = ["lmp", "-in", "in.lmp", "-log", "none"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True)
    return np.loadtxt(place / "energy.txt")


def drift(times: np.ndarray, energies: np.ndarray) -> tuple[float, float, float]:
    """Slope of a line, its standard error, and the rms distance from it.

    The error is that of a fit to the means of blocks, times sqrt((1 + c) / (1 - c)) if what the line leaves of them is
    correlated from block to block, by c: at a finite time step the energy follows slow motions of the liquid.
    """
    n = len(times) // N_BLOCKS * N_BLOCKS
    t, e = (values[:n].reshape(N_BLOCKS, -1).mean(1) for values in (times, energies))
    slope, intercept = np.polyfit(t, e, 1)
    rest = e - slope * t - intercept
    error = np.sqrt(rest @ rest / (N_BLOCKS - 2) / np.sum((t - t.mean()) ** 2))
    correlation = max(0.0, float(np.corrcoef(rest[:-1], rest[1:])[0, 1]))
    error *= np.sqrt((1 + correlation) / (1 - correlation))
    return float(slope), float(error), float(np.std(energies - slope * times))


def curve(times: np.ndarray, energies: np.ndarray, stretch: float = 0.1) -> dict:
    """Means over stretches of 0.1 ps, to look at: time in ps, energy against the first in µeV."""
    n = round(stretch / (times[1] - times[0]))
    t, e = (v[: len(v) // n * n].reshape(-1, n).mean(1) for v in (times, energies))
    return {"ps": np.round(t, 4).tolist(), "micro_ev": np.round(1e6 * (e - e[0]), 3).tolist()}


def draw(report: dict, file: Path) -> None:
    """Energies of all trajectories; dotted: a drift of 1 µeV per atom and ps."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3), sharey=True, constrained_layout=True)
    for row in report["trajectories"]:
        panel = panels[int(row["n_atoms"] > 192)]
        drift, error = 1e6 * row["drift_ev_per_atom_ps"], 1e6 * row["drift_error"]
        label = f"{row['dtype']}: ({drift:+.2f} ± {error:.2f}) µeV/ps"
        panel.plot(row["curve"]["ps"], row["curve"]["micro_ev"], lw=1, label=label)
        panel.set(title=f"{row['n_atoms']} atoms", xlabel="time (ps)")
    for panel in panels:
        end = panel.get_xlim()[1]
        panel.plot([0, end], [0, end], "k:", lw=1)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("total energy (µeV per atom)")
    figure.savefig(file, dpi=120)


def describe(trajectory: np.ndarray, n_atoms: int, dtype: str) -> dict:
    """What is stored of a trajectory."""
    times, energies, kelvin = trajectory.T
    slope, error, fluctuation = drift(times, energies / n_atoms)
    print(f"{n_atoms} {dtype}: {slope:.1e} ± {error:.1e} eV/atom/ps", file=sys.stderr)
    return {
        "n_atoms": n_atoms,
        "dtype": dtype,
        "ps": round(float(times[-1] - times[0]), 3),
        "drift_ev_per_atom_ps": slope,
        "drift_error": error,
        "fluctuation_ev_per_atom": fluctuation,
        "mean_kelvin": float(kelvin.mean()),
        "largest_kelvin": float(kelvin.max()),
        "curve": curve(times, energies / n_atoms),
    }


def store(file: Path, about: dict, row: dict) -> None:
    """Put a trajectory in the place of that of the same size and dtype, and draw all."""
    rows = json.loads(file.read_text())["trajectories"] if file.exists() else []
    rows = [r for r in rows if (r["n_atoms"], r["dtype"]) != (row["n_atoms"], row["dtype"])]
    rows = sorted([*rows, row], key=lambda r: (r["n_atoms"], r["dtype"]))
    report = about | {"trajectories": rows}
    file.write_text(json.dumps(report) + "\n")
    draw(report, file.with_suffix(".png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of a training on water")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--kelvin", type=float, default=300.0)
    parser.add_argument("--warm-up", type=int, default=4000, help="steps with the thermostat")
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 2], help="of 192 atoms")
    parser.add_argument("--ps", type=float, nargs="+", default=[20.0, 6.0], help="for each size")
    parser.add_argument("--dtypes", nargs="+", default=["float64", "float32"])
    options = parser.parse_args()
    about = {
        "torch": torch.__version__,
        "lammps": metadata.version("lammps"),
        "timestep_fs": options.timestep,
        "test": json.loads((options.run / "test.json").read_text()),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for repeats, length in zip(options.repeats, options.ps, strict=True):
            for dtype in options.dtypes:
                file = Path(scratch) / f"{dtype}.pt"
                export(options.run, file, dtype=dtype)
                trajectory = simulate(
                    file, repeats, round(1e3 * length / options.timestep), options
                )
                store(options.out, about, describe(trajectory, 192 * repeats**3, dtype))


if __name__ == "__main__":
    main()
